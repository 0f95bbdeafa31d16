"""A loader over MDS folders, as MosaicML Streaming writes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kloaders.core.options import shows_options
from kloaders.formats.mds import read_index
from kloaders.formats.opening import opener_of
from kloaders.loaders.encoded import EncodedLoader, EncodedOptions, encoded_options, no_input
from kloaders.sources.kept_rows import files_kept
from kloaders.sources.mds import MDSSource

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["MDSSequenceLoader"]


_OWN = ("x", "y", "exclude", "download_cache", "download_budget")


class MDSSequenceLoader(EncodedLoader):
    """Batches of samples of MDS folders (MosaicML Streaming), in any order: shuffled as a whole.

    The package `mosaicml-streaming` is not needed. All of its encodings except `pkl`, which would run
    code from the file, are supported. Shards must not be compressed, since compressed shards have no
    random access.

    Args:
        folders: a folder with an `index.json`, or its URL, or a list of these with the same columns.
        batch_size: samples per batch.
        x, y: the columns of input and label: a name; "column:key" for a part of a JSON column; a
            list of names for a row of float32 numbers; a tuple or dict of these for several.
        size, interpolation, aspect, channels, rescale, dct_scaling, max_pixels, label_options: how
            images are decoded; see `PathSequenceLoader`.
        decode: a function of the bytes of an input's column that returns its array; for labels
            `label_options={"decode": ...}`.
        class_names: the names of classes, for labels that are texts: each is replaced by its index.
        exclude: leave out the samples that this CSV file lists in its column `path`, as `quarantine=`
            and `kloaders verify --csv` write it; see `PathSequenceLoader`.
        download_cache, download_budget: a folder that caches blocks of 4 MiB of downloaded
            objects, and its maximum size; see `PathSequenceLoader`.
        ram_batch_size, ram_budget, draw: serve from RAM batches; see `RamBatchSequenceLoader`.
        **options: see `SequenceLoader`.

    Raises:
        FileNotFoundError: an index, or a shard in it, does not exist.
        DecodeError: an index is damaged, or a shard is compressed or differs from the index.
        TypeError: x= is missing.
        ValueError: the column does not exist.
    """

    @shows_options(EncodedOptions, encoded_options)
    def __init__(
        self,
        folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        batch_size: int = 32,
        x: Any = None,
        y: Any = None,
        *,
        exclude: Any = None,
        download_cache: str | os.PathLike[str] | None = None,
        download_budget: int | str | None = None,
        **options: Unpack[EncodedOptions],
    ) -> None:
        chosen = self._chosen(options, _OWN)
        given = [folders] if isinstance(folders, (str, os.PathLike)) else list(folders)
        shards = [s for folder in given for s in read_index(os.fspath(folder).rstrip("/"))]
        if not shards:
            raise ValueError(f"folders={folders!r:.80} contain no shards, expected at least one.")
        if x is None:
            raise TypeError(no_input(type(self).__name__, shards[0].names))
        #: The files, in the order of their samples.
        self.files = files_kept(
            [shard.path for shard in shards], exclude, options.get("quarantine")
        )
        shards = [shard for shard in shards if shard.path in set(self.files)]
        opener = opener_of(self.files, download_cache, download_budget)
        rows = MDSSource(shards, self._fields(x, y, chosen, options), opener)
        self._start(rows, batch_size, chosen | {"exclude": exclude}, options)
