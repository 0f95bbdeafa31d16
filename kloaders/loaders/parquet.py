"""A loader over Parquet files: tables of numbers, and images as Hugging Face stores them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kloaders.core.memory import parse_bytes
from kloaders.core.options import shows_options
from kloaders.formats.opening import opener_of
from kloaders.loaders.encoded import EncodedLoader, EncodedOptions, encoded_options, no_input
from kloaders.sources.braces import without_braces
from kloaders.sources.given_files import files_of
from kloaders.sources.kept_rows import files_kept
from kloaders.sources.parquet import ParquetSource, ParquetTables

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ParquetSequenceLoader"]


_OWN = ("x", "y", "row_group_cache", "exclude", "download_cache", "download_budget")


class ParquetSequenceLoader(EncodedLoader):
    """Batches of rows of Parquet files, in any order: shuffled as a whole.

    Columns contain numbers, lists of numbers, images (bytes, or a struct of bytes and path, as Hugging
    Face writes them), the content of .npy files, or texts. Needs pyarrow, which
    `pip install "kloaders[parquet]"` installs.

    Rows of Parquet cannot be read individually, only whole row groups. The last ones are cached in RAM,
    up to `row_group_cache`. If that is less than the data, pass `ram_batch_size=`: rows are then read in
    file order, so that each row group is read once per RAM batch.

    Args:
        files: a path, a pattern such as `part-*.parquet`, or a list of these, with the same columns;
            URLs as well, from which only the columns that are read are fetched.
        batch_size: samples per batch.
        x, y: the columns of input and label: a name; "column:key" for a part of a struct; a
            list of names for a row of float32 numbers; a tuple or dict of these for several.
        row_group_cache: the maximum size of cached row groups, in bytes or as "1GiB".
        exclude: leave out the samples that this CSV file lists in its column `path`, as `quarantine=`
            and `kloaders verify --csv` write it; see `PathSequenceLoader`.
        download_cache, download_budget: a folder that caches blocks of 4 MiB of downloaded
            objects, and its maximum size; see `PathSequenceLoader`.
        size, interpolation, aspect, channels, rescale, dct_scaling, max_pixels, label_options: how
            images are decoded; see `PathSequenceLoader`.
        decode: a function of an input's value, such as its bytes, that returns its array; for labels
            `label_options={"decode": ...}`.
        class_names: the names of classes, for labels that are texts: each is replaced by its index.
            Names that Hugging Face wrote to the file are used by default.
        ram_batch_size, ram_budget, draw: serve from RAM batches; see `RamBatchSequenceLoader`.
        **options: see `SequenceLoader`.

    Raises:
        ImportError: pyarrow is not installed.
        FileNotFoundError: a file does not exist, or none matches a pattern.
        DecodeError: a file is empty, not a Parquet file, or has other columns than the first one.
        TypeError: x= is missing.
        ValueError: the column does not exist.

    Labels of one number or text each are read when `class_balance=True`, `stratify=True` or a similar
    option needs them.
    """

    @shows_options(EncodedOptions, encoded_options)
    def __init__(
        self,
        files: Any,
        batch_size: int = 32,
        x: Any = None,
        y: Any = None,
        *,
        row_group_cache: int | str = "1GiB",
        exclude: Any = None,
        download_cache: str | os.PathLike[str] | None = None,
        download_budget: int | str | None = None,
        **options: Unpack[EncodedOptions],
    ) -> None:
        chosen = self._chosen(options, _OWN)
        #: The files, in the order of their samples.
        self.files = files_kept(
            files_of(without_braces(files), "Parquet files", "part-*.parquet"),
            exclude,
            options.get("quarantine"),
        )
        budget = parse_bytes(row_group_cache, "row_group_cache")
        opener = opener_of(self.files, download_cache, download_budget)
        tables = ParquetTables(self.files, type(self).__name__, opener)
        if x is None:
            raise TypeError(no_input(type(self).__name__, tables.schema.names))
        rows = ParquetSource(tables, self._fields(x, y, chosen, options), budget)
        self._start(rows, batch_size, chosen | {"exclude": exclude}, options)
        if self.class_names is None:
            self.class_names = rows.class_names()
        if not self.ram_batch_size and self.shuffle is not False:
            rows.warn_of_rereading()
