"""Creates the files of the workloads once, in a folder; they are the same on every machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

SIDE = 224  # of a decoded image
GRID = 14  # of its thumbnail: means of blocks of 16 x 16
SMALL_SHAPE = (24, 5, 5, 10)  # of an array in a small .npy file, float64

Array = np.ndarray[Any, Any]


def photographs(folder: str, count: int, given: str | None = None) -> list[str]:
    """Paths of `count` JPEG files in `folder`, created at the first call.

    given: a folder of the user's own images, searched recursively. They are linked under
        numbered names, and repeated if there are too few.
    """
    paths = [f"{folder}/{k:06}.jpg" for k in range(count)]
    with _made_once(folder) as new:
        if new and given is not None:
            found = _jpegs_in(given)
            for k, path in enumerate(paths):
                os.symlink(found[k % len(found)], f"{new}/{os.path.basename(path)}")
        elif new:
            made = tqdm(_made_up(count), total=count, desc="making photographs", unit=" files")
            for path, raw in zip(paths, made, strict=True):
                Path(new, os.path.basename(path)).write_bytes(raw)
    return paths


def _jpegs_in(folder: str) -> list[str]:
    found = sorted(
        os.path.join(where, name)
        for where, _, names in os.walk(os.path.abspath(folder))
        for name in names
        if name.lower().endswith((".jpg", ".jpeg"))
    )
    if not found:
        raise FileNotFoundError(f"{folder} holds no .jpg or .jpeg file.")
    return found


def _made_up(count: int) -> Iterator[bytes]:
    """Make JPEG files that are about as expensive to decode as ImageNet's, from two real photographs.

    They are mirrored and recoloured crops of 0.1 to 0.3 megapixels, at qualities from 88 to 97. The
    added noise stands for that of a sensor, which scaling removes: without it the files would be
    smaller and faster to decode than files from a camera.
    """
    import cv2

    stored = resources.files("sklearn.datasets") / "images"
    sources: list[Array] = [
        cv2.imdecode(np.frombuffer((stored / name).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        for name in ("china.jpg", "flower.jpg")
    ]
    rng = np.random.default_rng(0)
    for k in range(count):
        source = sources[k % 2]
        tall, wide = source.shape[:2]
        height, width = (int(side * rng.uniform(0.5, 1)) for side in (tall, wide))
        top, left = rng.integers(tall - height + 1), rng.integers(wide - width + 1)
        piece = source[top : top + height, left : left + width]
        if rng.random() < 0.5:
            piece = piece[:, ::-1]
        grow = (rng.uniform(1e5, 3e5) / (height * width)) ** 0.5
        piece = cv2.resize(piece, None, fx=grow, fy=grow, interpolation=cv2.INTER_CUBIC)
        tint = rng.uniform(0.7, 1.2, 3) * piece + rng.uniform(-20, 20)
        tint += rng.normal(0, rng.uniform(4, 10), piece.shape[:2])[..., None]
        quality = int(rng.integers(88, 98))
        picture = np.clip(tint, 0, 255).astype(np.uint8)
        yield cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def decode(path: str) -> Array:
    """Decode a file to RGB, 224 x 224, uint8, in the plain way: the reference for all contestants."""
    import cv2

    # Without the second flag OpenCV rotates an image by its EXIF tag; most peers do not.
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if image is None:
        raise ValueError(f"{path} does not decode.")
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def packed(file: str, count: int, paths: list[str]) -> Array:
    """The decoded photographs, repeated up to `count`, memory-mapped from one .npy file."""
    with _made_once(file) as new:
        if new:
            rows = np.lib.format.open_memmap(new, "w+", np.uint8, (count, SIDE, SIDE, 3))
            for k in tqdm(range(count), desc="packing", unit=" pictures"):
                rows[k] = decode(paths[k]) if k < len(paths) else rows[k - len(paths)]
            rows.flush()
    return np.load(file, mmap_mode="r")


def thumbnails(file: str, paths: list[str]) -> Array:
    """Block means of the decoded files, with which the delivered images are compared."""
    with _made_once(file) as new:
        if new:
            bar = tqdm(paths, desc="reference", unit=" pictures")
            with open(new, "wb") as out:
                np.save(out, np.concatenate([thumbnail(decode(path)[None]) for path in bar]))
    return np.load(file)


def thumbnail(images: Array) -> Array:
    """(n, 224, 224, 3) -> (n, 14, 14, 3), float32."""
    blocks = images.reshape(len(images), GRID, SIDE // GRID, GRID, SIDE // GRID, 3)
    return blocks.mean((2, 4), dtype=np.float32)


def small_arrays(folder: str, count: int) -> list[str]:
    """Paths of `count` .npy files of 48 KB; the first value of each is the number of the file."""
    paths = [f"{folder}/{k:06}.npy" for k in range(count)]
    with _made_once(folder) as new:
        if new:
            rng = np.random.default_rng(1)
            for k, path in enumerate(tqdm(paths, desc="making arrays", unit=" files")):
                values = rng.standard_normal(SMALL_SHAPE)
                values.flat[0] = k
                np.save(Path(new, os.path.basename(path)), values)
    return paths


def copies(folder: str, count: int, paths: list[str]) -> list[str]:
    """Paths of `count` files with different content, written one after another."""
    targets = [f"{folder}/{k:06}.jpg" for k in range(count)]
    with _made_once(folder) as new:
        if new:
            for k, target in enumerate(tqdm(targets, desc="copying", unit=" files")):
                shutil.copyfile(paths[k % len(paths)], f"{new}/{os.path.basename(target)}")
            os.sync()  # dirty pages cannot be dropped from the page cache
    return targets


def drop_from_cache(paths: list[str]) -> None:
    """Ask the kernel to drop the content of these files from its cache; names and sizes stay cached."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


class _made_once:  # noqa: N801 (reads as a statement)
    """Returns a temporary name, or None if the target exists; renames it when it is complete."""

    def __init__(self, target: str) -> None:
        self.target, self.half = target, f"{target}.half"

    def __enter__(self) -> str | None:
        if os.path.exists(self.target):
            return None
        os.makedirs(os.path.dirname(self.target), exist_ok=True)
        if os.path.isdir(self.half):  # an earlier run was stopped
            shutil.rmtree(self.half)
        if not os.path.splitext(self.target)[1]:
            os.mkdir(self.half)
        return self.half

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None and os.path.exists(self.half):
            os.rename(self.half, self.target)
