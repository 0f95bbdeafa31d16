"""Packs for tests, and functions that read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import kloaders as kl
from kloaders.core.structure import flatten, same_structure
from tests.support.recording import row_of

SAMPLES, BATCH = 20, 4


class Stored(kl.SequenceLoader):
    """Samples of any form, from a list."""

    def __init__(self, stored: list[Any], batch_size: int = BATCH, **options: Any) -> None:
        self.stored = stored
        super().__init__(len(stored), batch_size, **options)

    def load_sample(self, index: int) -> Any:
        found = self.stored[index]
        if isinstance(found, Exception):
            raise found
        return found


def write(data: Any, folder: Path | str, **options: Any) -> Any:
    return kl.write_pack(data, folder, progress=False, **options)


def rows(n: int = SAMPLES) -> Any:
    return np.stack([row_of(k) for k in range(n)])


def small(folder: Path, n: int = SAMPLES, **options: Any) -> Path:
    """A pack of vectors with their number, in shards of 8 samples."""
    loader = kl.ArraySequenceLoader(rows(n), np.arange(n), BATCH)
    write(loader, folder / "pack", shard_size=8 * 16, **options)
    return folder / "pack"


def epoch(loader: Any) -> list[Any]:
    loader.on_epoch_begin()
    found = [loader[k] for k in range(len(loader))]
    loader.on_epoch_end()
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name[0] != "."}


def assert_same(a: Any, b: Any) -> None:
    assert same_structure(a, b), (a, b)
    for one, other in zip(flatten(a), flatten(b), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        np.testing.assert_array_equal(one, other)


def changed(folder: Path, change: Callable[[Any], None]) -> None:
    """pack.json with a change."""
    content = json.loads((folder / "pack.json").read_text())
    change(content)
    (folder / "pack.json").write_text(json.dumps(content))
