"""Random access to records of compressed files, which are decompressed from front to back."""

from __future__ import annotations

import copy
import threading
import zlib
from collections import OrderedDict
from io import BytesIO

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.errors import DecodeError
from kloaders.formats.opening import LOCAL, Opener
from kloaders.places.ranges import walking

__all__ = [
    "Inflate",
    "Stream",
]

_WINDOW_BITS = {"GZIP": 31, "ZLIB": 15}


class Inflate:
    """The decompressed content of a file, read from front to back."""

    def __init__(self, path: str, compression: str, opener: Opener = LOCAL) -> None:
        self.path, self.compression = path, compression
        self._file = walking(opener.open(path))
        self._read = 0
        self._inflate = zlib.decompressobj(_WINDOW_BITS[compression])
        self._ready = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes; fewer at the end."""
        taken = BytesIO()  # returns its content without a copy
        while size:
            if self._at == len(self._ready) and not self._more():
                break
            part = self._ready[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            taken.write(part)
        return taken.getvalue()

    def skip(self, size: int) -> int:
        """Skip `size` bytes; return the number of bytes skipped."""
        left = size
        while left:
            if self._at == len(self._ready) and not self._more():
                break
            step = min(left, len(self._ready) - self._at)
            self._at += step
            left -= step
        return size - left

    def copy(self) -> Inflate:
        """A copy that continues from the current position."""
        new = copy.copy(self)
        new._inflate = self._inflate.copy()  # noqa: SLF001  the same class
        return new

    def _more(self) -> bool:
        while True:
            raw = self._inflate.unconsumed_tail
            if self._inflate.eof:
                raw = self._inflate.unused_data or self._file.read(1 << 18, self._read)
                if not self._inflate.unused_data:
                    self._read += len(raw)
                if not raw.strip(b"\0"):  # gzip permits trailing zeros
                    return False
                # Several compressed streams in a row are one content.
                self._inflate = zlib.decompressobj(_WINDOW_BITS[self.compression])
            elif not raw:
                raw = self._file.read(1 << 18, self._read)
                self._read += len(raw)
                if not raw:
                    raise DecodeError(
                        f"{self.path} is truncated: its {self.compression} data end after "
                        f"{self._read} bytes, too early. Copy or write it again."
                    )
            try:
                self._ready, self._at = self._inflate.decompress(raw, 1 << 20), 0
            except zlib.error as error:
                raise DecodeError(
                    f"{self.path} is damaged: its {self.compression} data cannot be decompressed "
                    f"before byte {self._read} ({error}). Copy or write it again."
                ) from error
            if self._ready:
                return True


# The size and number of blocks of decompressed content that are kept, because threads read adjacent
# records in no strict order.
_BLOCK, _BLOCKS_KEPT = 4 << 20, 32

# The number of positions in a file from which decompression can continue.
_CURSORS = 8


class Stream:
    """The records of a compressed file, by number. Fast if they are read roughly in order.

    Reading further back than the kept blocks starts again at the front of the file. Thread-safe.
    """

    def __init__(self, path: str, compression: str, offsets: Array, opener: Opener = LOCAL) -> None:
        self.path, self.compression, self.opener = path, compression, opener
        self.offsets = offsets
        cuts = np.arange(0, int(offsets[-1]), _BLOCK)
        # A block begins at the record at a multiple of its size; a record of that size is its own block.
        begins = np.searchsorted(offsets, cuts, side="right") - 1
        long = np.flatnonzero(np.diff(offsets.astype(np.int64)) >= _BLOCK)
        begins = np.concatenate([begins, long, long + 1])
        self.firsts = np.unique(begins[begins < len(offsets) - 1])
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._cursors: OrderedDict[int, Inflate] = OrderedDict()  # by the number of the next block
        self._lock = threading.Lock()

    def read(self, number: int) -> bytes:
        """One record with its frame."""
        k = int(np.searchsorted(self.firsts, number, side="right")) - 1
        base = self._start(k)
        with self._lock:
            block = self._blocks.get(k)
            if block is None:
                block = self._decompressed(k)
        return block[int(self.offsets[number]) - base : int(self.offsets[number + 1]) - base]

    def _decompressed(self, k: int) -> bytes:
        at = max((place for place in self._cursors if place <= k), default=0)
        cursor = self._cursors.pop(at, None) or Inflate(self.path, self.compression, self.opener)
        if k - at > _BLOCKS_KEPT // 2:  # too far to keep the blocks in between; keep the position
            self._cursors[at] = cursor.copy()
            cursor.skip(self._start(k) - self._start(at))
            at = k
        for number in range(at, k + 1):
            size = self._start(number + 1) - self._start(number)
            if number < k and size > 2 * _BLOCK:  # a single long record, which may not be needed
                self._cursors[number] = cursor.copy()
                cursor.skip(size)
                continue
            block = cursor.take(size)
            self._blocks[number] = block
            held = sum(map(len, self._blocks.values()))
            while held > _BLOCK * _BLOCKS_KEPT and len(self._blocks) > 1:
                held -= len(self._blocks.popitem(last=False)[1])
        self._cursors[k + 1] = cursor
        while len(self._cursors) > _CURSORS:
            self._cursors.popitem(last=False)
        return block

    def _start(self, block: int) -> int:
        record = self.firsts[block] if block < len(self.firsts) else len(self.offsets) - 1
        return int(self.offsets[record])
