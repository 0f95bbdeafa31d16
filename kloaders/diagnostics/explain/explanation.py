"""The result of `loader.explain()`, as text, JSON or HTML."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from typing import Any

from kloaders.core.version import __version__
from kloaders.diagnostics.explain import html
from kloaders.diagnostics.explain.findings import Findings
from kloaders.diagnostics.explain.text import as_text, limits_of, stages_of, verdict
from kloaders.formats.atomic import whole_file

__all__ = ["Explanation"]


@dataclass(frozen=True)
class Explanation(Findings):
    """The result of `loader.explain()`. It prints as text; see `to_dict`, `to_json`, `to_html` and `save`.

    Attributes:
        title: the loader's class, number of samples and batch size.
        measured: the measurements from which everything else is computed.
        bottleneck: one of "model", "disk", "network", "decoders", "cpu", "gil", "copy", "waiting",
            "unknown".
        stage: the stage with most of the work, such as "decode"; None if the model is the bottleneck.
        why: the reason, as a sentence.
        now: samples per second; of training, if there was a model, else of the loader.
        first: samples per second of the loader alone in the first epoch, in which nothing is cached.
        first_bottleneck: the bottleneck of the first epoch.
        first_why: the reason, as a sentence.
        loading: samples per second of the loader alone in later epochs.
        ceiling: the maximum samples per second on this machine, for the same work.
        reached: `now`, as a share of `ceiling`.
        best: samples per second of steps that do not wait for data; None if not measured.
        wait: share of the time that the model waits for data; None if not measured.
        advice: at most two changes, the one with the larger gain first.
        machine: cores, system, Python.
        busy: contradictory measurements, as sentences, if other programs used the machine. Then there
            is no advice, and the other numbers are guesses. Empty if all measurements agree.
    """

    @property
    def bound(self) -> str:
        """The old name of `bottleneck`, which works until 0.2."""
        return self.bottleneck

    @property
    def first_bound(self) -> str:
        """The old name of `first_bottleneck`, which works until 0.2."""
        return self.first_bottleneck

    def __str__(self) -> str:
        return as_text(self)

    def __repr__(self) -> str:
        if self.busy:
            return "<Explanation: the machine is busy, so the bottleneck is not known>"
        return f"<Explanation: the bottleneck is {self.bottleneck}, {self.now:,.0f} samples/s>"

    def _repr_html_(self) -> str:
        return html.in_a_notebook(self)

    def to_dict(self) -> dict[str, Any]:
        """All results, for a script: plain numbers, texts, lists and dicts."""
        return _as_dict(self)

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_html(self) -> str:
        """A self-contained HTML page with charts; it loads nothing from the network."""
        return html.page(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file: JSON if the name ends in .json, text if in .txt, otherwise HTML."""
        name = os.fspath(path)
        text = {".json": self.to_json, ".txt": self.__str__}.get(
            os.path.splitext(name)[1].lower(), self.to_html
        )()
        with whole_file(name) as file:
            file.write(f"{text}\n".encode())


def _as_dict(found: Findings) -> dict[str, Any]:
    """All results as plain values. Times are seconds, rates samples per second."""
    measured = dataclasses.asdict(found.measured)
    content: dict[str, Any] = _rounded(
        {
            "version": __version__,
            "loader": found.title,
            "bottleneck": found.bottleneck,
            # The old names, until 0.2.
            "bound": found.bottleneck,
            "stage": found.stage,
            "why": found.why,
            "first_epoch": {
                "bottleneck": found.first_bottleneck,
                "bound": found.first_bottleneck,
                "why": found.first_why,
            },
            "verdict": verdict(found),
            "busy": found.busy,
            "samples_per_s": {
                "now": found.now,
                "first_epoch": found.first,
                "loader_alone": found.loading,
                "ceiling": found.ceiling,
                "best": found.best,
            },
            "reached": found.reached,
            "wait": found.wait,
            "sample_s": {name: seconds for name, _, seconds in stages_of(found)},
            "limits": {name: rate for name, _, rate in limits_of(found)},
            "advice": [
                {
                    "setting": a.setting,
                    "why": a.why,
                    "predicted": a.predicted,
                    "gain": a.gain,
                    "measured": a.measured,
                    "measured_gain": None if a.measured is None else a.measured / found.now,
                }
                for a in found.advice
            ],
            "measured": measured,
            "machine": found.machine,
        }
    )
    return content


def _rounded(value: Any) -> Any:
    """Round to four significant digits, since the measurements are not more precise."""
    if isinstance(value, dict):
        return {name: _rounded(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
