"""Writes the arrays of a pack: into rows of a file that all shards share, or into files of one shard."""

from __future__ import annotations

import contextlib
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.structure import ArraySpec
from kloaders.formats.atomic import raise_if_full, sync_folder, whole_file
from kloaders.formats.pack import File, Part
from kloaders.formats.pack_files import HEADER_BYTES, header_of, size_of, stored_dtype

__all__ = ["ShardArray", "finish_shared", "is_written", "name_of"]

_BLOCK = 2**20


def name_of(array: str) -> str:
    """The name of the file that all shards of an array share."""
    return f"{array}.npy"


class ShardArray:
    """Writes one array of a shard's samples to files.

    As long as samples have the shape in `spec`, they are written to the shard's rows of the shared
    file. At the first sample of another shape, all samples of the shard move to a separate file.
    Several threads may write shards of one array at the same time.

    Args:
        stack: closes the files.
        folder: the folder of the pack.
        array: the name of the array, such as "x0".
        shard: the number of the shard.
        spec: shape and dtype of a sample.
        start: the shard's first row in the shared file.
        stop: the row after its last one; there may be fewer samples.
    """

    def __init__(
        self,
        stack: contextlib.ExitStack,
        folder: str,
        array: str,
        shard: int,
        spec: ArraySpec,
        start: int,
        stop: int,
    ) -> None:
        self.stack, self.folder, self.array, self.shard = stack, folder, array, shard
        self.dtype = stored_dtype(spec.dtype)
        self.start, self.stop = start, stop
        self.shape = tuple(n or 0 for n in spec.shape)
        self._may_share = None not in spec.shape and header_of((stop, *self.shape), self.dtype)
        self._shared: IO[bytes] | None = None
        self._own: IO[bytes] | None = None
        self.crc, self.samples, self.values = 0, 0, 0
        # (shape, number of consecutive samples with it), in order; usually one entry.
        self.shapes: list[tuple[tuple[int, ...], int]] = []

    def add(self, rows: Array | list[Array]) -> None:
        """Append samples."""
        if isinstance(rows, list):
            for row in rows:
                self._append(row, row.shape, 1)
        elif len(rows):
            self._append(rows, rows.shape[1:], len(rows))

    def _append(self, values: Array, shape: tuple[int, ...], count: int) -> None:
        if self._own is None and self._may_share and shape == self.shape:
            file = self._shared or self._open_shared()
        else:
            file = self._own or self._open_own()
        if self.shapes and self.shapes[-1][0] == shape:
            self.shapes[-1] = shape, self.shapes[-1][1] + count
        else:
            self.shapes.append((shape, count))
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        self.crc = zlib.crc32(data, self.crc)
        file.write(data)
        self.samples += count
        self.values += values.size

    def _open_shared(self) -> IO[bytes]:
        path = os.path.join(self.folder, name_of(self.array))
        self._shared = file = self.stack.enter_context(_shared_file(path))
        file.seek(HEADER_BYTES - 1)  # make the file long enough even if all rows are empty
        file.write(b"\0")
        file.seek(self._place)
        return file

    @property
    def _place(self) -> int:
        """Position of the shard's first row in the shared file."""
        return HEADER_BYTES + self.start * math.prod(self.shape) * self.dtype.itemsize

    def _open_own(self) -> IO[bytes]:
        name = f"{self.array}-{self.shard:05}.npy"
        self._own = file = self.stack.enter_context(whole_file(os.path.join(self.folder, name)))
        file.write(bytes(HEADER_BYTES))
        if self._shared is not None:  # rows already written to the shared file
            self._shared.flush()
            left = self.values * self.dtype.itemsize
            with open(self._shared.name, "rb") as written:
                written.seek(self._place)
                while left:
                    block = written.read(min(left, _BLOCK))
                    file.write(block)
                    left -= len(block)
        return file

    def finish(self) -> Part:
        """Finish the files. -> rows, or values with an index if shapes differ."""
        if self._own is None and self._shared is not None:
            # Fill the rows of skipped samples at the end with zeros: the next shard begins after them.
            left = (self.stop - self.start - self.samples) * self.values // self.samples
            left *= self.dtype.itemsize
            while left:
                left -= self._shared.write(bytes(min(left, _BLOCK)))
            rows = (self.samples, *self.shape)
            return Part(File(name_of(self.array), rows, self.crc, self.start))
        file = self._own or self._open_own()
        name = f"{self.array}-{self.shard:05}"
        rows = (self.samples, *(self.shapes[0][0] if self.shapes else self.shape))
        one_shape = len(self.shapes) <= 1 and header_of(rows, self.dtype) is not None
        shape = rows if one_shape else (self.values,)
        _write_header(file, shape, self.dtype)
        values = File(f"{name}.npy", shape, self.crc)
        if one_shape:
            return Part(values)
        axes = max(len(shape) for shape, _ in self.shapes)
        index = np.full((self.samples, 1 + axes), -1, np.int64)
        row = start = 0
        for shape, count in self.shapes:
            size = math.prod(shape)
            index[row : row + count, 0] = start + size * np.arange(count)
            index[row : row + count, 1 : 1 + len(shape)] = shape
            row, start = row + count, start + count * size
        path = os.path.join(self.folder, f"{name}.index.npy")
        file = self.stack.enter_context(whole_file(path))
        _write_header(file, index.shape, index.dtype)
        file.write(index.data)
        return Part(values, File(f"{name}.index.npy", index.shape, zlib.crc32(index.data)))


@contextlib.contextmanager
def _shared_file(path: str) -> Iterator[IO[bytes]]:
    """Open an unfinished file to write a part of it; it is synced to disk at the end of the block.

    After an exception, the part is overwritten when the shard is written again.
    """
    part = f"{path}.unfinished"
    if os.path.exists(path):  # a call was killed after this file was finished, before the manifest
        with contextlib.suppress(FileNotFoundError):  # another thread has renamed it
            os.replace(path, part)
    is_new = not os.path.exists(part)
    # Write-only: with read access, NFS reads a whole page before it changes a part of it, and later
    # overwrites bytes that another host has written since.
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)

    def opener(path: str, _: int) -> int:
        return os.open(path, flags, 0o666)

    try:
        with open(part, "wb", opener=opener) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise_if_full(error, part)
        raise
    if is_new:
        sync_folder(os.path.dirname(path))


def is_written(folder: str, file: File, dtype: np.dtype[Any]) -> bool:
    """Whether the shared file, finished or not, is long enough to contain this shard's rows.

    True for separate files of a shard, which the journal checks.
    """
    if file.first is None:
        return True
    rows = File(file.name, (file.first + file.shape[0], *file.shape[1:]), 0)
    path = os.path.join(folder, file.name)
    for name in (path, f"{path}.unfinished"):
        with contextlib.suppress(FileNotFoundError):
            return os.path.getsize(name) >= size_of(rows, dtype)
    return False


def finish_shared(
    folder: str, names: Iterable[str], files: Mapping[str, tuple[File, np.dtype[Any]]]
) -> None:
    """Finish the shared files once all shards are written: write the header, truncate, rename.

    `names` are all files that may exist, `files` the files of the pack, with the shape of all rows.
    """
    for name in names:
        path = os.path.join(folder, name)
        part = f"{path}.unfinished"
        if not os.path.exists(part):  # no shard wrote to it, or it is already finished
            continue
        if name not in files:  # every shard that wrote to it has moved to a separate file
            os.unlink(part)
            continue
        file, dtype = files[name]
        with open(part, "r+b") as stream:
            stream.truncate(size_of(file, dtype))
            _write_header(stream, file.shape, stored_dtype(dtype))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    sync_folder(folder)


def _write_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    header = header_of(shape, dtype)
    assert header is not None
    file.seek(0)
    file.write(header)
