"""A loader over tar files as WebDataset writes them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kloaders.core.messages import inform
from kloaders.core.options import shows_options
from kloaders.formats.opening import opener_of
from kloaders.formats.ranges import RangeFiles
from kloaders.loaders.encoded import EncodedLoader, EncodedOptions, encoded_options
from kloaders.sources.braces import without_braces
from kloaders.sources.given_files import files_of
from kloaders.sources.kept_rows import files_kept
from kloaders.sources.tar import TarSamples, TarSource, guessed

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TarSequenceLoader"]


_OWN = ("x", "y", "index_folder", "exclude", "download_cache", "download_budget")


class TarSequenceLoader(EncodedLoader):
    """Batches of samples in tar files (WebDataset), in any order: shuffled as a whole.

    Consecutive members with the same name up to the first dot are one sample: `000.jpg`, `000.cls`,
    `000.seg.png`. The rest of the name is the type: images and `npy` are decoded, `cls` is an integer,
    `json` is JSON, `txt` a text; others need `decode=`.

    The positions of members are found once, by reading the headers only, and stored next to the file
    in `.NAME.members.index`. Then any member takes one read.

    Args:
        files: a path, a pattern such as `train-*.tar` or `train-{000..127}.tar`, or a list of these;
            or URLs, from which only the headers and the needed members are fetched.
        batch_size: samples per batch.
        x, y: the suffixes of input and label: "jpg"; "jpg;png" for the first one that a sample
            has; "json:box:x" for a part of a JSON text; a list of names for a row of numbers; a
            tuple or dict of these for several. x=None selects an image or array, and a class as y if
            there is one, and logs the selection.
        index_folder: folder for indexes; None: next to the files. For URLs, and if that is not
            writable, in the user's cache folder; with download_cache=, its folder `indexes`.
        exclude: leave out the samples that this CSV file lists in its column `path`, as `quarantine=`
            and `kloaders verify --csv` write it; see `PathSequenceLoader`.
        download_cache, download_budget: a folder that caches blocks of 4 MiB of downloaded
            objects, and its maximum size; see `PathSequenceLoader`.
        size, interpolation, aspect, channels, rescale, dct_scaling, max_pixels, label_options: how
            images are decoded; see `PathSequenceLoader`.
        decode: a function of an input's bytes that returns its array; for labels
            `label_options={"decode": ...}`.
        class_names: the names of classes, for labels that are texts: each is replaced by its index.
        ram_batch_size, ram_budget, draw: serve from RAM batches; see `RamBatchSequenceLoader`.
        **options: see `SequenceLoader`.

    Raises:
        FileNotFoundError: a file does not exist, or none matches a pattern.
        DecodeError: a file is empty, compressed, not a tar file, or damaged between members.
        ValueError: no sample has a member with this suffix.

        A damaged or truncated member is a sample that does not load: `on_error` applies, and the sample's
        name is the file and its key. `files` lists the files.
    """

    @shows_options(EncodedOptions, encoded_options)
    def __init__(
        self,
        files: Any,
        batch_size: int = 32,
        x: Any = None,
        y: Any = None,
        *,
        index_folder: str | os.PathLike[str] | None = None,
        exclude: Any = None,
        download_cache: str | os.PathLike[str] | None = None,
        download_budget: int | str | None = None,
        **options: Unpack[EncodedOptions],
    ) -> None:
        chosen = self._chosen(options, _OWN)
        #: The files, in the order of their samples.
        self.files = files_kept(
            files_of(without_braces(files), "tar files", "train-*.tar"),
            exclude,
            options.get("quarantine"),
        )
        folder = None if index_folder is None else os.fspath(index_folder)
        opener = opener_of(self.files, download_cache, download_budget)
        samples = TarSamples(RangeFiles(self.files, opener), folder)
        if x is None:
            x, found = guessed(samples)
            y = found if y is None else y
            said = f"x is {x!r}" + ("" if y is None else f", y is {y!r}")
            inform(f"{self.files[0]}: {said}. x= and y= change this.", once=said)
        rows = TarSource(samples, self._fields(x, y, chosen, options))
        self._start(rows, batch_size, chosen | {"exclude": exclude}, options)
