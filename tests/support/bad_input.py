"""Loaders over a dozen small files, and checks of error messages.

A message names the thing, its value, what was expected, and what to do. Where it gives advice, the
test follows it and sees it work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest

import kloaders as kl

SAMPLES, BATCH = 12, 4

Make = Callable[..., Any]


@contextlib.contextmanager
def refused(kind: type[BaseException], *words: str) -> Iterator[None]:
    """The block raises `kind`, and its message holds each of `words`."""
    with pytest.raises(kind) as caught:
        yield
    said = str(caught.value)
    missing = [word for word in words if word not in said]
    assert not missing, f"{missing} not in the message: {said}"


class Own(kl.SequenceLoader):
    """A user's own source of one number a sample."""

    def load_sample(self, index: int) -> Any:
        return np.float32([index]), np.float32(index)


class Files:
    """Twelve arrays of three numbers; four pictures of 4 x 4 and 5 x 4 pixels, in turn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.npy = [str(folder / f"{k:02}.npy") for k in range(SAMPLES)]
        for k, path in enumerate(self.npy):
            np.save(path, np.full(3, k, np.float32))
        self.own = [str(folder / f"{k:02}.own") for k in range(SAMPLES)]
        for k, path in enumerate(self.own):
            Path(path).write_bytes(b"." * (k + 1))
        self.png = [str(folder / f"{k:02}.png") for k in range(4)]
        for k, path in enumerate(self.png):
            cv2.imwrite(path, np.full((4 + k % 2, 4, 3), k, np.uint8))


def labels(n: int = SAMPLES) -> Any:
    return np.arange(n, dtype=np.float32)


def array(files: Files, batch_size: Any = BATCH, **options: Any) -> Any:
    y = options.pop("y", labels())
    return kl.ArraySequenceLoader(np.arange(12.0).reshape(12, 1), y, batch_size, **options)


def over_path(paths: Any, y: Any = None, batch_size: Any = BATCH, **options: Any) -> Any:
    return kl.PathSequenceLoader(paths, y, batch_size, **options)


def over_ram(paths: Any, y: Any = None, batch_size: Any = BATCH, **options: Any) -> Any:
    if "ram_budget" not in options:
        options.setdefault("ram_batch_size", 8)
    return kl.RamBatchSequenceLoader(paths, y, batch_size, **options)


def path(files: Files, batch_size: Any = BATCH, **options: Any) -> Any:
    return over_path(files.npy, options.pop("y", labels()), batch_size, **options)


def ram(files: Files, batch_size: Any = BATCH, **options: Any) -> Any:
    return over_ram(files.npy, options.pop("y", labels()), batch_size, **options)


def own(files: Files, batch_size: Any = BATCH, **options: Any) -> Any:
    return Own(SAMPLES, batch_size, **options)


EVERY = pytest.mark.parametrize("make", [array, path, ram, own])
WITH_LABELS = pytest.mark.parametrize("make", [array, path, ram])
# Loaders over files, made from any paths and labels.
OVER_FILES = pytest.mark.parametrize("over", [over_path, over_ram])


def read(loader: Any) -> list[Any]:
    """One epoch, as in a hand-written training loop."""
    with loader:
        loader.on_epoch_begin()
        batches = [loader[k] for k in range(len(loader))]
        loader.on_epoch_end()
    return batches


def numbers(loader: Any) -> list[int]:
    """The labels of one epoch, which are the samples' numbers, in order."""
    return sorted(int(y) for batch in read(loader) for y in batch[1])


@lru_cache
def model() -> Any:
    """Takes batches of three numbers."""
    found = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    found.compile("sgd", "mse")
    return found


def weeks(n: int = SAMPLES) -> Any:
    return np.arange(n).astype("datetime64[W]")
