"""A folder of photographs, and all kinds of damage to it."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from tests.support.pillow_images import picture, saved


def write_photos(tmp_path: Path) -> Path:
    """Two classes of six sound images each, in a folder of their own."""
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(6):
            raw = saved(picture(60, 80, 10 * k + n), "JPEG")
            (tmp_path / "photos" / name / f"{n}.jpg").write_bytes(raw)
    return tmp_path / "photos"


def bomb() -> bytes:
    """A PNG that claims 900 million pixels."""

    def chunk(kind: bytes, body: bytes = b"") -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT") + chunk(b"IEND")


def spoil(photos: Path) -> dict[str, str]:
    """Damage files in `photos`; return their paths and the kinds of damage."""
    cat, dog = photos / "cat", photos / "dog"
    sound = (cat / "0.jpg").read_bytes()
    (cat / "cut.jpg").write_bytes(sound[: len(sound) // 2])
    (cat / "none.jpg").write_bytes(b"")
    (cat / "html.jpg").write_bytes(b"<html>404</html>")
    (cat / "lie.jpg").write_bytes(saved(picture(60, 80, 90), "PNG"))
    (dog / "bomb.png").write_bytes(bomb())
    (dog / "gone.jpg").symlink_to(dog / "nowhere.jpg")
    os.mkfifo(dog / "pipe.jpg")
    (dog / "again.jpg").write_bytes((dog / "1.jpg").read_bytes())
    (dog / "both.jpg").write_bytes(sound)
    (dog / "grey.png").write_bytes(saved(picture(60, 80, 91)[..., 0], "PNG"))
    (dog / "notes.txt").write_text("left out")
    (dog / ".hidden.jpg").write_text("left out")
    return {
        str(cat / "cut.jpg"): "truncated",
        str(cat / "none.jpg"): "empty",
        str(cat / "html.jpg"): "broken",
        str(cat / "lie.jpg"): "misnamed",
        str(dog / "bomb.png"): "too many pixels",
        str(dog / "gone.jpg"): "unreadable",
        str(dog / "pipe.jpg"): "unreadable",
        str(dog / "both.jpg"): "conflicting labels",
        str(dog / "again.jpg"): "duplicate",
        str(dog / "grey.png"): "inconsistent",
    }
