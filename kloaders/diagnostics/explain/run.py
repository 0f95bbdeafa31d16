"""Measures a loader, draws conclusions, and tries the advice."""

from __future__ import annotations

import dataclasses
import platform
from typing import Any

from kloaders.core.protocols import Loader
from kloaders.core.threads import usable_cores
from kloaders.diagnostics.explain import probes
from kloaders.diagnostics.explain.explanation import Explanation
from kloaders.diagnostics.explain.verdict import judge

__all__ = ["explain"]


def explain(
    loader: Loader, model: Any = None, *, check: bool = False, seconds: float = 6.0
) -> Explanation:
    """See `SequenceLoader.explain`."""
    if not seconds > 0:
        raise ValueError(
            f"seconds={seconds!r:.80}, expected more than 0: 6 is enough for most disks."
        )
    measured = probes.measure(loader, model, float(seconds))
    found = judge(measured, _title(loader), _machine())
    if not check:
        return found
    tried = []
    for advice in found.advice:
        if advice.change is not None:
            rate = probes.measure_change(loader, *advice.change, model=model, seconds=seconds / 3)
            advice = dataclasses.replace(advice, measured=rate)  # noqa: PLW2901  the same advice, measured
        tried.append(advice)
    return dataclasses.replace(found, advice=tried)


def _title(loader: Loader) -> str:
    return f"{type(loader).__name__}, {loader.samples:,} samples in batches of {loader.batch_size}"


def _machine() -> dict[str, Any]:
    return {
        "cores": usable_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
