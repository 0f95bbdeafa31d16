"""Images that say which sample they are, for tests of caches."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SAMPLES, BATCH = 12, 4
ALL = list(range(SAMPLES))
ROOT = Path(__file__).parents[3]


def write(path, number):
    image = np.full((4, 4, 3), number, np.uint8)
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 0])  # all of one size


def numbers(loader, epoch=0, shuffle=False):
    """The colour of each sample of an epoch."""
    batches = loader.epoch_batches(epoch, shuffle)
    return [
        int(x[0, 0, 0])
        for batch in batches
        for x in (batch[0] if isinstance(batch, tuple) else batch)
    ]


def segments(folder):
    return sorted(Path(folder).rglob("*.segment"))
