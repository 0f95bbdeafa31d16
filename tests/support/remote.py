"""Objects that hold their number, and the samples that a loader over them delivered."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from tests.support.object_server import ObjectServer

SAMPLES = 60


def npy(number: int) -> bytes:
    """An .npy file that holds a number, eight times."""
    file = io.BytesIO()
    np.save(file, np.full(8, number, np.float32))
    return file.getvalue()


def fill(server: ObjectServer, samples: int = SAMPLES, folder: str = "data") -> list[str]:
    """Put this many numbered objects on a server; return their URLs."""
    names = [f"{folder}/{k:04}.npy" for k in range(samples)]
    server.objects |= {name: npy(k) for k, name in enumerate(names)}
    return [server.url(name) for name in names]


def numbers(batches: Any) -> list[int]:
    """The numbers of the delivered samples, in order."""
    found = [batch if isinstance(batch, np.ndarray) else batch[0] for batch in batches]
    return [int(row[0]) for x in found for row in x]


def epoch(loader: Any) -> list[Any]:
    """All batches of one pass, as Keras asks for them."""
    loader.on_epoch_begin()
    batches = [loader[k] for k in range(len(loader))]
    loader.on_epoch_end()
    return batches
