"""Writes the image files of the demo: scikit-learn's digits, and crops of its photographs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from kloaders.core.progress import Progress

__all__ = ["CROPS", "progress_bar", "write_images"]

#: Number of crops per photograph ...
CROPS = 300
# ... and their size in pixels; this seed draws their positions.
_CROP, _SEED = 256, 7


def write_images(folder: str, crops: int = CROPS, progress: bool = True) -> int:
    """Write a folder of files per class: scikit-learn's digits as PNG, crops of its photographs as JPEG.

    Crops of a photograph overlap, so these two classes are easy to learn; the digits are harder.

    Returns:
        The number of files.
    """
    import cv2
    from sklearn.datasets import load_digits

    digits = load_digits()
    # sklearn.datasets.load_sample_images() reads the same two files, and needs Pillow for it.
    stored = resources.files("sklearn.datasets") / "images"
    photographs: dict[str, Any] = {
        name: cv2.imdecode(np.frombuffer((stored / f"{name}.jpg").read_bytes(), np.uint8), 1)
        for name in ("china", "flower")
    }
    total = len(digits.images) + crops * len(photographs)
    rng = np.random.default_rng(_SEED)

    def images() -> Iterator[tuple[str, str, Any]]:
        for k, (image, number) in enumerate(zip(digits.images, digits.target, strict=True)):
            yield str(number), f"{k:04}.png", (image * 255 / 16).astype(np.uint8)
        for name, photograph in photographs.items():
            height, width = photograph.shape[:2]
            for k in range(crops):
                top, left = rng.integers(height - _CROP + 1), rng.integers(width - _CROP + 1)
                yield name, f"{k:04}.jpg", photograph[top : top + _CROP, left : left + _CROP]

    with progress_bar("writing files", total, progress) as bar:
        for name, file, image in images():
            target = Path(folder, name, file)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(
                cv2.imencode(target.suffix, np.ascontiguousarray(image))[1].tobytes()
            )
            bar.update()
    return total


def progress_bar(name: str, total: int | None, progress: bool) -> Any:
    """A progress bar that counts samples; only if stderr is a terminal."""
    # disable=None: no bar if stderr is not a terminal.
    return Progress(
        total=total, desc=f"{name:13}", unit=" samples", disable=None if progress else True
    )
