"""Conversions in parts, for tests, and their files. Imports no Keras, since it is forked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import kloaders as kl

SAMPLES = 40


def source(n: int = SAMPLES, **options: Any) -> kl.SequenceLoader:
    """Samples with their number, some of which differ in shape."""
    x = {"rows": np.arange(4 * n).reshape(n, 4), "more": [np.full(k % 5, k) for k in range(n)]}
    return kl.ArraySequenceLoader(x, np.arange(n), 4, sample_weights=np.ones(n), **options)


def pack(to: Path, loader: Any = None, **options: Any) -> Any:
    """In about six shards."""
    return kl.write_pack(loader or source(), to, shard_size=500, progress=False, **options)


def records(to: Path, loader: Any = None, **options: Any) -> Any:
    """Seven files: two for validation."""
    data = loader or source()
    return kl.write_tfrecords(
        data, out=to / "a", shards=5, validation=0.3, shuffle=True, progress=False, **options
    )


def finish_records(to: Path, **options: Any) -> Any:
    return kl.finish_tfrecords(to / "a", **options)


def data(folder: Path) -> dict[str, bytes]:
    """The files by name; an index holds the time of its file, and is not compared."""
    there = (folder / name for name in names(folder))
    return {p.name: p.read_bytes() for p in there if p.is_file() and p.suffix != ".index"}


def names(folder: Path) -> set[str]:
    """All files except the journal of the finished shards of a process."""
    return {p.name for p in folder.iterdir() if not p.name.endswith(".finished.jsonl")}
