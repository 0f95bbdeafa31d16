"""Recognizes files that were compressed as a whole, by their first bytes."""

from __future__ import annotations

__all__ = ["compression_of"]

_BEGINS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


def compression_of(head: bytes) -> str | None:
    """The compression of a file that begins with these bytes; None if it is not compressed.

    >>> compression_of(b"PK" + bytes([3, 4]))
    'zip'
    """
    return next((name for begin, name in _BEGINS.items() if head.startswith(begin)), None)
