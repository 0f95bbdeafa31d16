"""Structures walked to their end: every cut is found, and hostile ones end soon."""

from __future__ import annotations

import struct
import zlib

import pytest

from kloaders.formats.image_structure import kind_of, unfinished
from kloaders.formats.integrity import check_content
from tests.support.pillow_images import ALL, OTHERS


def kinds(raw: bytes) -> list[str]:
    return [kind for kind, _ in check_content(raw, "it").problems]


@pytest.mark.parametrize("name", ALL)
def test_the_end_is_missed_at_every_byte(name: str) -> None:
    """By structure alone, without a decoder: every cut from the first bytes on."""
    raw = ALL[name]
    known = next(k for k in range(len(raw)) if kind_of(raw[:k][:12]))
    sound = [cut for cut in range(known, len(raw)) if unfinished(raw[:cut]) is None]
    # Behind the last strip of a TIFF may lie a few bytes that nothing points at.
    assert len(sound) <= (4 if "tiff" in name else 0)
    assert unfinished(raw) is None


def test_a_changed_byte_of_a_png() -> None:
    """Every chunk has a checksum; what a decoder passes over is compared as well."""
    raw = bytearray(OTHERS["png"])
    text = b"tEXtComment\0words"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    with_text = bytes(raw[:33] + chunk + raw[33:])
    assert kinds(with_text) == []
    assert kinds(with_text.replace(b"words", b"Words")) == ["broken"]


def test_hostile_structures_end_soon() -> None:
    """Millions of empty segments, chunks and blocks, and directories that lead in circles."""
    loop = b"II*\0\x08\0\0\0" + bytes(2) + struct.pack("<I", 8)
    for raw in (
        b"\xff\xd8" + b"\xff\xe0\0\2" * 10**6,
        b"\xff\xd8" + b"\xff\xe0\0\0" * 10**6,
        b"\x89PNG\r\n\x1a\n" + bytes(10**7),
        b"GIF89a" + bytes(10**6),
        loop,
    ):
        assert kinds(raw)
