"""Draws conclusions from measurements: the bottleneck of training, and advice."""

from __future__ import annotations

import dataclasses
from typing import Any

from kloaders.diagnostics.explain.advice import advise
from kloaders.diagnostics.explain.agreement import contradictions, reconciled
from kloaders.diagnostics.explain.bottleneck import EpochCost
from kloaders.diagnostics.explain.explanation import Explanation
from kloaders.diagnostics.explain.measured import Measured

__all__ = ["judge"]

# Changes for the first epoch of the loader alone, when cache and page cache are empty.
_FIRST: dict[str, Any] = {"fit_s": None, "step_s": None, "step_cpu_s": None}


def judge(m: Measured, title: str = "", machine: dict[str, Any] | None = None) -> Explanation:
    """The explanation for these measurements."""
    busy = contradictions(m)
    m = reconciled(m)
    cost = EpochCost(m)
    resource, stage, why = cost.bottleneck()
    first = EpochCost(dataclasses.replace(m, **_FIRST), m.cold)
    first_bottleneck, _, first_why = first.loader_bottleneck()
    ceiling = cost.ceiling()
    now = cost.now
    found = Explanation(
        title=title,
        measured=m,
        bottleneck=resource,
        stage=stage,
        why=why,
        now=now,
        first=first.run.rate,
        first_bottleneck=first_bottleneck,
        first_why=first_why,
        loading=cost.run.rate,
        ceiling=max(ceiling, now),
        reached=now / max(ceiling, now) if now else 0.0,
        best=None if m.step_s is None else m.settings.batch_size / m.step_s,
        wait=cost.wait,
        machine=machine or {},
        busy=busy,
    )
    # Contradictory measurements are no basis for advice.
    return found if busy else dataclasses.replace(found, advice=advise(cost, resource, stage))
