"""Compares measurements with each other, to tell contradictions from noise."""

from __future__ import annotations

import dataclasses

from kloaders.diagnostics.explain.measured import Measured, Run
from kloaders.diagnostics.explain.text import time_of

__all__ = ["NOISE", "contradictions", "reconciled"]

#: Measurements that differ by less than this factor count as equal: no machine is entirely idle.
NOISE = 1.3


def contradictions(m: Measured) -> list[str]:
    """Contradictions, as sentences: a part took longer than the whole.

    The only explanation is that other programs used the machine.
    """
    found = []
    if m.step_s and m.fit_s and m.step_s > NOISE * m.fit_s:
        found.append(
            f"a step on a batch in memory took {time_of(m.step_s)}, but a step in fit, which also waits "
            f"for its batch, took {time_of(m.fit_s)}"
        )
    cold = m.cold if m.disk_rate is not None else None
    for fast, words, slow, others in (
        (m.warm, "files in memory", cold, "files on the disk"),
        (m.ram, "decoded samples in RAM", m.warm, "files in memory"),
    ):
        if fast and slow and slow.rate > NOISE * fast.rate:
            found.append(
                f"{words} gave {fast.rate:,.0f} samples/s, but {others}, which need more work, gave "
                f"{slow.rate:,.0f}"
            )
    return found


def reconciled(m: Measured) -> Measured:
    """The same measurements, changed so that no part is slower than its whole."""
    step = min(m.step_s, m.fit_s) if m.step_s and m.fit_s else m.step_s
    warm = _faster(m.warm, m.cold)
    return dataclasses.replace(m, step_s=step, warm=warm, ram=_faster(m.ram, warm))


def _faster(one: Run | None, other: Run | None) -> Run | None:
    return other if one and other and other.rate > one.rate else one
