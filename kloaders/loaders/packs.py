"""Loads decoded samples from a pack that `write_pack` made, at memory speed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.arrays import Indices
from kloaders.core.checks import check_names, checked_dtype
from kloaders.core.options import Options, shows_options
from kloaders.core.progress import Progress
from kloaders.core.structure import ArraySpec, Structure, flatten, map_structure, unflatten
from kloaders.core.threads import ThreadPool, usable_cores
from kloaders.formats.opening import opener_of
from kloaders.formats.pack import (
    MANIFEST,
    Part,
    dtype_named,
    files_of,
    manifest_changed,
    nested,
    path_in,
    read_manifest,
)
from kloaders.formats.pack_files import check_files, crc_of_piece, pieces_of
from kloaders.loaders.sequence import SequenceLoader
from kloaders.places.urls import is_url, local_path
from kloaders.sources.column_source import ColumnSource
from kloaders.sources.columns import CastColumn, inner_column
from kloaders.sources.pack import PackColumn
from kloaders.sources.remote_pack import RemotePackColumn

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["PackSequenceLoader", "PackSource"]


def _folder(given: str) -> str:
    """The absolute path of a pack's folder, or its URL."""
    if is_url(given):
        return given.rstrip("/")
    return os.path.abspath(given if os.path.exists(given) else local_path(given, "folder"))


class PackSource(ColumnSource):
    """The samples of a pack, with a column for each array."""

    def advice(self, index: int, leaf: int, dtype_differs: bool) -> str:
        return (
            "Give them one shape in transform=, use batch_size=1 or "
            "kl.padded_batches(loader), or write the pack with size=."
        )

    def delivered(self, spec: Structure) -> Structure:
        def delivered(leaf: ArraySpec, column: Any) -> ArraySpec:
            shape = inner_column(column).shape
            return leaf if shape is None else ArraySpec(shape, leaf.dtype)

        return unflatten(spec, list(map(delivered, flatten(spec), flatten(self.columns))))


class PackSequenceLoader(SequenceLoader):
    """Batches of decoded samples from a folder that `write_pack` made.

    Files are mapped into memory: they may be larger than RAM, and each row is copied only once,
    into the batch. All samples are shuffled.

    Args:
        folder: the folder with pack.json, or its URL: large arrays are then fetched row by row, and
            small ones, such as labels, completely when they are first read.
        batch_size: samples per batch.
        download_cache, download_budget: a folder that caches blocks of 4 MiB of downloaded
            objects, and its maximum size; see `PathSequenceLoader`.
        **options: see `SequenceLoader`. sample_weights=None takes those in the pack, if any.

    All samples of one batch must have the same shape: if shapes differ, change them to one shape in
    transform=, or use batch_size=1.

    `class_names` and `job` (the data and arguments of `write_pack`) are read from the pack. A
    pickled loader has only file names (and the weights).

    Raises:
        FileNotFoundError: there is no pack, or an unfinished one, or a file of it is missing.
        ValueError: pack.json is damaged, or does not match its files; the message names the file.
    """

    @shows_options(Options)
    def __init__(
        self,
        folder: str | os.PathLike[str],
        batch_size: int = 32,
        *,
        download_cache: str | os.PathLike[str] | None = None,
        download_budget: int | str | None = None,
        **options: Unpack[Options],
    ) -> None:
        known = (*Options.__annotations__, "download_cache", "download_budget")
        check_names(type(self).__name__, options, known)
        #: The absolute path, or URL, of the pack.
        self.folder = _folder(os.fspath(folder))
        manifest = read_manifest(self.folder)
        dtypes = [dtype_named(name) for name in manifest.leaves]
        names = files_of(manifest.shards, dtypes)
        self._opener = opener_of(
            [path_in(self.folder, name) for name in names], download_cache, download_budget
        )
        check_files(self.folder, manifest.shards, dtypes, self._opener)
        starts = np.cumsum([0, *(shard.samples for shard in manifest.shards)], dtype=np.int64)
        columns = [
            self._column([shard.parts[k] for shard in manifest.shards], starts, dtype)
            for k, dtype in enumerate(dtypes)
        ]
        if manifest.weights and options.get("sample_weights") is None:
            options["sample_weights"] = columns[-1].all()
            columns[-1].close()
        self._shards = manifest.shards
        self._dtypes = dtypes
        dtype = checked_dtype(options.get("dtype"))
        x, *rest = nested(manifest.structure, columns)
        if options.get("sample_weights") is not None:
            rest = rest[:1]  # replaces the weights in the pack
        if dtype is not None:
            x = map_structure(lambda column: CastColumn(column, dtype), x)
        self._begin(PackSource((x, *rest)), batch_size, options)
        self.class_names = manifest.class_names
        #: What the pack was made from and how, as recorded by `write_pack`.
        self.job = manifest.job

    def _column(self, parts: list[Part], starts: Indices, dtype: np.dtype[Any]) -> PackColumn:
        if self._opener.fetches:
            return RemotePackColumn(self.folder, parts, starts, dtype, self._opener)
        return PackColumn(self.folder, parts, starts, dtype)

    def verify(self, progress: bool | None = None) -> None:
        """Read every byte of the pack, and compare its checksums with those recorded when it was written.

        Args:
            progress: show a bar. None: if stderr is a terminal.

        Raises:
            ValueError: names the files that differ, and the rows of the shard in each.
            OSError: a file is missing or cannot be read.
        """
        read_manifest(self.folder)
        names = files_of(self._shards, self._dtypes)
        opener = opener_of([path_in(self.folder, name) for name in names])
        check_files(self.folder, self._shards, self._dtypes, opener)
        pieces = list(pieces_of(self.folder, self._shards, self._dtypes))
        size = sum(piece.end - piece.begin for piece in pieces)
        disable = None if progress is None else not progress
        wrong = []
        with (
            Progress(total=size, unit="B", unit_scale=True, disable=disable, desc="verify") as bar,
            ThreadPool(usable_cores(), "kloaders-verify") as pool,
        ):
            sums = pool.map(lambda piece: crc_of_piece(piece.path, piece.begin, piece.end), pieces)
            for piece, found in zip(pieces, sums, strict=True):
                bar.update(piece.end - piece.begin)
                if found != piece.crc32:
                    wrong.append(piece.name)
        if manifest_changed(self.folder):
            wrong.append(path_in(self.folder, MANIFEST))
        if wrong:
            more = f" and {len(wrong) - 10:,} others" if len(wrong) > 10 else ""
            raise ValueError(
                f"{', '.join(wrong[:10])}{more} changed since the pack was written: restore it from "
                "an intact copy, or write the pack again."
            )
