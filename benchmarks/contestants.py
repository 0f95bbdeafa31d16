"""Who takes part in which workload: a list to which the three files of contestants add theirs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from workloads import WORKLOADS, Work

Kind = Literal["limit", "ours", "peer"]

# What `make` gives: for workloads by hand, and for limits, a function epoch(number) that gives
# the batches (x, y) of one epoch; for `fit`, its x, or a dict of its arguments.
Make = Callable[[Work], Any]


@dataclass(frozen=True)
class Contestant:
    """One way to do one workload.

    needs: modules, imported before the clock starts. prepare: writes a format of its own, once, in
    a process of its own. backend: only on this backend of Keras.
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
    """Enter a function in several workloads: `@takes_part("W1 W2", "tf.data", "peer")`."""

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
    """All contestants by id, limits first, then ours."""
    for file in ("limits", "ours", "peers"):
        importlib.import_module(file)
    rank = {"limit": 0, "ours": 1, "peer": 2}
    return {c.id: c for c in sorted(_all.values(), key=lambda c: (c.workload, rank[c.kind]))}
