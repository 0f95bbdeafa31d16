"""Batches without a model: a hand-written loop, and their bytes in one short text."""

from __future__ import annotations

import hashlib

import numpy as np


def leaves(batch):
    return [np.asarray(part) for part in batch]


def digest(batches):
    found = hashlib.sha256()
    for batch in batches:
        for leaf in leaves(batch):
            found.update(str((leaf.dtype.str, leaf.shape)).encode())
            found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def loop(loader, epochs=1):
    """Batches of a hand-written training loop."""
    for _ in range(epochs):
        loader.on_epoch_begin()
        for index in range(len(loader)):
            yield loader[index]
        loader.on_epoch_end()
