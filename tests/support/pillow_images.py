"""Valid images of every kind, as Pillow and OpenCV write them."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
from PIL import Image


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray[Any, Any]:
    """Blobs of colour: smooth enough to be small, no two areas alike."""
    few = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_CUBIC)


def saved(image: Any, kind: str, **options: Any) -> bytes:
    """A picture as Pillow writes it."""
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        stream, kind, **options
    )
    return stream.getvalue()


def with_thumbnail(raw: bytes) -> bytes:
    """A JPEG with an EXIF segment that holds a JPEG of its own, end marker and all."""
    inner = saved(picture(8, 8), "JPEG")
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + inner
    return raw[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + raw[2:]


def jpegs() -> dict[str, bytes]:
    image = picture()
    restarts = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_RST_INTERVAL, 3])[1].tobytes()
    baseline = saved(image, "JPEG")
    return {
        "baseline": baseline,
        "4:4:4": saved(image, "JPEG", subsampling=0, quality=95),
        "grey": saved(image[..., 0], "JPEG"),
        "progressive": saved(image, "JPEG", progressive=True),
        "restart markers": restarts,
        "thumbnail": with_thumbnail(baseline),
        "progressive thumbnail": with_thumbnail(saved(image, "JPEG", progressive=True)),
        "CMYK": saved(Image.fromarray(image).convert("CMYK"), "JPEG"),
    }


def others() -> dict[str, bytes]:
    image = picture(24, 32)
    pages = [Image.fromarray(picture(24, 32, seed)) for seed in (1, 2)]
    sixteen = cv2.imencode(".png", image.astype(np.uint16) * 200)[1].tobytes()
    found = {
        "png": saved(image, "PNG"),
        "png 16": sixteen,
        "png palette": saved(Image.fromarray(image).convert("P"), "PNG"),
        "png alpha": saved(np.dstack([image, image[..., :1]]), "PNG"),
        "bmp": saved(image, "BMP"),
        "webp": saved(image, "WEBP"),
        "webp lossless": saved(image, "WEBP", lossless=True),
        "tiff": saved(image, "TIFF"),
        "tiff lzw": saved(image, "TIFF", compression="tiff_lzw"),
        "tiff pages": saved(image, "TIFF", save_all=True, append_images=pages),
        "tiff opencv": cv2.imencode(".tiff", image)[1].tobytes(),
    }
    if tuple(map(int, cv2.__version__.split(".")[:2])) >= (4, 12):
        found["gif"] = saved(Image.fromarray(image).convert("P"), "GIF")
        found["gif frames"] = saved(image, "GIF", save_all=True, append_images=pages)
    return found


JPEGS, OTHERS = jpegs(), others()
ALL = {**JPEGS, **OTHERS}
