"""The registry of contestants by workload, which three other files fill."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from workloads import WORKLOADS, Work

Kind = Literal["limit", "ours", "peer"]

# The result of `make`: for hand-written loops and for limits, a function epoch(number) that returns
# the batches (x, y) of one epoch; for `fit`, its x or a dict of its arguments.
Make = Callable[[Work], Any]


@dataclass(frozen=True)
class Contestant:
    """One way to do one workload.

    needs: modules that are imported before timing starts. prepare: a function that writes the
    library's own format, once, in a separate process. backend: runs only on this backend of Keras.
    """

    workload: str
    name: str
    kind: Kind
    make: Make
    needs: tuple[str, ...] = ()
    prepare: Callable[[Work], None] | None = None
    backend: str | None = None

    @property
    def id(self) -> str:
        return f"{self.workload}/{self.name}"


_all: dict[str, Contestant] = {}


def takes_part(
    workloads: str, name: str, kind: Kind, needs: str = "", **more: Any
) -> Callable[[Make], Make]:
    """Register a function for several workloads: `@takes_part("W1 W2", "tf.data", "peer")`."""

    def enter(make: Make) -> Make:
        for start in workloads.split():
            for full in [start] if start in WORKLOADS else [w for w in WORKLOADS if w[:2] == start]:
                new = Contestant(full, name, kind, make, tuple(needs.split()), **more)
                if new.id in _all:
                    raise AssertionError(f"{new.id} is there twice")
                _all[new.id] = new
        return make

    return enter


def everybody() -> dict[str, Contestant]:
    """All contestants by id: limits first, then kloaders."""
    for file in ("limits", "ours", "peers"):
        importlib.import_module(file)
    rank = {"limit": 0, "ours": 1, "peer": 2}
    return {c.id: c for c in sorted(_all.values(), key=lambda c: (c.workload, rank[c.kind]))}
