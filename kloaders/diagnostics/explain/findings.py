"""The content of an explanation: the bottleneck and advice. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kloaders.diagnostics.explain.measured import Measured

__all__ = ["Advice", "Findings"]


@dataclass(frozen=True)
class Advice:
    """A setting to change.

    Attributes:
        setting: the code to type.
        why: the reason, in words.
        predicted: the expected samples per second with the setting.
        gain: predicted, divided by the current rate.
        change: the arguments of `variants.changed` to try the setting; None if it is not tried.
        measured: the measured samples per second with the setting; None until it was tried.
    """

    setting: str
    why: str
    predicted: float
    gain: float
    change: tuple[str, Any] | None = None
    measured: float | None = None


@dataclass(frozen=True)
class Findings:
    """The fields of an `Explanation`, which documents them."""

    title: str
    measured: Measured
    bottleneck: str
    stage: str | None
    why: str
    now: float
    first: float
    first_bottleneck: str
    first_why: str
    loading: float
    ceiling: float
    reached: float
    best: float | None
    wait: float | None
    advice: list[Advice] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)
