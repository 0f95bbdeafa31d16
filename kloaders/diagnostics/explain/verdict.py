"""Where the time goes: what binds a training, how far it is from its limit, and what to change.

`judge` makes a verdict of figures alone; `explain` measures them first.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kloaders.core.memory import format_bytes
from kloaders.diagnostics.explain import html as report
from kloaders.diagnostics.explain import probes
from kloaders.diagnostics.explain.probes import Measured, Run
from kloaders.diagnostics.explain.text import as_text, limits_of, stages_of, time_of, verdict

if TYPE_CHECKING:
    from kloaders.loaders.sequence import SequenceLoader

__all__ = ["Advice", "Explanation", "explain", "judge"]

# The model is what binds where it waits for less than this share of its time.
_IN_TIME = 0.1
# Threads that keep less than this share of their cores busy, with files in memory, wait for a lock.
_LOCKED = 0.7
# Files that lie on the disk instead of in memory make loading slower by more than this: the disk.
_DISK_BOUND = 0.8
# A change that promises less is not worth a line.
_WORTH = 1.1
# The cache may take this share of what is free, as cache="ram" does.
_RAM_SHARE = 0.8


@dataclass(frozen=True)
class Advice:
    """A setting to change.

    setting: as a user types it. why: in words. predicted, measured: samples a second with it;
    measured is None until it was tried. gain: predicted, over what it is now. change: what
    `probes.changed` takes to try it, None for what is not tried.
    """

    setting: str
    why: str
    predicted: float
    gain: float
    change: tuple[str, Any] | None = None
    measured: float | None = None


@dataclass(frozen=True)
class Explanation:
    """What `loader.explain()` found. Prints as text; `to_dict`, `to_json`, `to_html` and `save`.

    bound: one of "model", "disk", "cpu", "gil", "copy", "waiting", "unknown"; stage: what most of
    the work is, such as "decode". now: samples a second, with the model if there was one; first:
    of the first epoch, in which nothing is cached, by the loader alone, and first_bound what binds that.
    ceiling: what this machine
    can do of this work; reached: now, as a share of it. best: of a step on a batch that is there,
    None if no step was measured. wait: share of its time that the model waits, None likewise.
    """

    title: str
    measured: Measured
    bound: str
    stage: str | None
    why: str
    now: float
    first: float
    first_bound: str
    first_why: str
    loading: float
    ceiling: float
    reached: float
    best: float | None
    wait: float | None
    advice: list[Advice] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return as_text(self)

    def __repr__(self) -> str:
        return f"<Explanation: bound by {self.bound}, {self.now:,.0f} samples/s>"

    def _repr_html_(self) -> str:
        return report.in_a_notebook(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for a script: plain numbers, texts, lists and dicts."""
        return as_dict(self)

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_html(self) -> str:
        """One page with charts, which loads nothing from anywhere."""
        return report.page(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file: JSON or text where the name ends so (.json, .txt), else HTML."""
        name = os.fspath(path)
        text = {".json": self.to_json, ".txt": self.__str__}.get(
            os.path.splitext(name)[1].lower(), self.to_html
        )()
        partial = f"{name}.part"
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.replace(partial, name)


def explain(
    loader: SequenceLoader, model: Any = None, *, check: bool = False, seconds: float = 6.0
) -> Explanation:
    """`SequenceLoader.explain` says what it does."""
    if not seconds > 0:
        raise ValueError(f"seconds={seconds!r}, expected more than 0: 6 is enough for most disks.")
    measured = probes.measure(loader, model, float(seconds))
    found = judge(measured, _title(loader), _machine(loader))
    if not check:
        return found
    tried = []
    for advice in found.advice:
        if advice.change is not None:
            rate = probes.measure_change(loader, *advice.change, model=model, seconds=seconds / 3)
            advice = dataclasses.replace(advice, measured=rate)  # noqa: PLW2901
        tried.append(advice)
    return dataclasses.replace(found, advice=tried)


def _title(loader: SequenceLoader) -> str:
    return f"{type(loader).__name__}, {loader.samples:,} samples in batches of {loader.batch_size}"


def _machine(loader: SequenceLoader) -> dict[str, Any]:
    settings = probes.usable_cores()
    return {"cores": settings, "system": platform.platform(), "python": platform.python_version()}


# ---------------------------------------------------------------------------------------- the verdict


def judge(m: Measured, title: str = "", machine: dict[str, Any] | None = None) -> Explanation:
    """The verdict on figures, whoever measured them."""
    state = _State(m)
    resource, stage, why = state.bound()
    first = _State(dataclasses.replace(m, **_FIRST), m.cold)
    first_bound, _, first_why = first.loader_bound()
    ceiling = state.ceiling()
    now = state.now
    found = Explanation(
        title=title,
        measured=m,
        bound=resource,
        stage=stage,
        why=why,
        now=now,
        first=first.run.rate,
        first_bound=first_bound,
        first_why=first_why,
        loading=state.run.rate,
        ceiling=max(ceiling, now),
        reached=now / max(ceiling, now) if now else 0.0,
        best=None if m.step_s is None else m.settings.batch_size / m.step_s,
        wait=state.wait,
        machine=machine or {},
    )
    return dataclasses.replace(found, advice=_advice(state, resource, stage))


# The first epoch by the loader alone: no cache yet, and files that are in nobody's memory.
_FIRST: dict[str, Any] = {"fit_s": None, "step_s": None, "step_cpu_s": None}


class _State:
    """The epochs that most of a training consists of: those after the first.

    first: or the first one, of which this is the run.
    """

    def __init__(self, m: Measured, first: Run | None = None) -> None:
        self.m, self.s = m, m.settings
        if first is not None:
            self.s = dataclasses.replace(self.s, kept=0.0, files_fit=False)
        self.lanes = 1 if self.s.workers == 0 else min(self.s.workers, self.s.cores)
        warm, cold, ram = (r or Run(0.0) for r in (m.warm, m.cold, m.ram))
        self.in_ram = self.s.kept > 0.99
        read = warm if self.s.files_fit else cold
        self.from_disk = not self.in_ram and not self.s.files_fit and m.disk_rate is not None
        self.run = ram if self.in_ram else _mixed(ram, read, self.s.kept)
        self.without_cache = read
        missing = 0.0 if self.in_ram else 1 - self.s.kept
        waiting = (m.read_s or 0.0) if m.disk_rate is None else 0.0
        #: Processor seconds of a sample, by stage.
        self.cpu = {
            "read": missing * m.read_cached_s,
            "decode": missing * m.decode_s,
            "transform": m.transform_s,
            "copy": m.copy_s,
        }
        self.waiting = missing * waiting
        self.cpu_s = max(1e-9, math.fsum(self.cpu.values()))
        self.stage = max(self.cpu, key=lambda name: self.cpu[name])
        fit = m.fit_s
        self.now = self.s.batch_size / fit if fit else self.run.rate
        self.wait = None if not fit or m.step_s is None else max(0.0, 1 - m.step_s / fit)

    @property
    def locked(self) -> bool:
        """Whether threads wait for Python's lock: they have cores, and leave them idle."""
        threads = self.lanes if not self.s.processes and not self.run.inline else 1
        own = self.s.has_transform if self.in_ram else self.s.users_code
        if not own or threads < 2 or self.waiting > 0.3 * self.cpu_s or self._reads_bind():
            return False
        run = self.run if self.in_ram else (self.m.warm or self.run)
        return run.busy / (threads * self.m.alone_busy) < _LOCKED

    def _reads_bind(self) -> bool:
        cold, warm = self.m.cold, self.m.warm
        if not self.from_disk or cold is None or warm is None:
            return False
        return cold.rate < _DISK_BOUND * warm.rate

    def bound(self) -> tuple[str, str | None, str]:
        """The resource, the stage that uses most of it, and a sentence."""
        if self.wait is not None and self.wait < _IN_TIME:
            return "model", None, self._why_model()
        if self.wait is not None and self.s.workers == 0:
            said = "workers=0 loads in the thread that trains: one waits for the other."
            return "waiting", self.stage, said
        resource, stage, why = self.loader_bound()
        step = self.m.step_s
        if self.wait is not None and step and self.run.rate > 1.3 * self.s.batch_size / step:
            # Alone, the loader is quick enough: together they share something.
            if self._together_busy() > 0.6:
                return (
                    "cpu",
                    "step",
                    (
                        f"Alone, the loader makes {self.run.rate:,.0f} samples/s and the model takes "
                        f"{self.s.batch_size / step:,.0f}; together they share {self.s.cores} cores."
                    ),
                )
            return "unknown", stage, "Loader and model are quick alone, and slow together."
        return resource, stage, why

    def _together_busy(self) -> float:
        """Share of the cores that loading and training take of each other."""
        m, s = self.m, self.s
        if not m.fit_s:
            return 0.0
        # A step by a fit's record has no processor time: take it for one core's.
        step = m.step_cpu_s if m.step_cpu_s is not None else m.step_s or 0.0
        return (self.cpu_s * s.batch_size + step) / (s.cores * m.fit_s)

    def _why_model(self) -> str:
        m, s = self.m, self.s
        assert m.step_s is not None
        wait = 0.0 if self.wait is None else self.wait
        said = f"A step takes {time_of(m.step_s)}, and the model waits for {wait:.0%} of the time."
        spare = self.run.rate * m.step_s / s.batch_size
        return (
            f"{said} The loader alone is {spare:.1f} times as fast as the model."
            if spare > 1
            else said
        )

    def loader_bound(self) -> tuple[str, str | None, str]:
        """`bound`, of the loader by itself."""
        m, s = self.m, self.s
        if self._reads_bind():
            assert m.cold is not None
            assert m.warm is not None
            return (
                "disk",
                "read",
                (
                    f"Files from the disk: {m.cold.rate:,.0f} samples/s; the same files from memory: "
                    f"{m.warm.rate:,.0f}."
                ),
            )
        if self.waiting > 0.5 * (self.cpu_s + self.waiting):
            share = self.waiting / (self.cpu_s + self.waiting)
            return (
                "disk",
                "read",
                f"Loading a sample is {share:.0%} waiting for what it is read from.",
            )
        share = self.cpu[self.stage] / self.cpu_s
        if self.locked:
            return (
                "gil",
                self.stage,
                (
                    f"{self.lanes} threads keep {self.run.busy:.1f} cores busy; {share:.0%} of a sample's "
                    f"work is {_STAGES[self.stage]}."
                ),
            )
        if self.stage == "copy":
            each = format_bytes(s.sample_bytes)
            return "copy", "copy", f"{share:.0%} of the work is copying: {each} a sample."
        cores = f"{self.lanes} of {s.cores} cores" if self.lanes < s.cores else f"{s.cores} cores"
        return "cpu", self.stage, f"{share:.0%} of the work on {cores} is {_STAGES[self.stage]}."

    def ceiling(self) -> float:
        """Samples a second of this work that the machine could do: its slowest resource in full use."""
        m, s = self.m, self.s
        limits = [s.cores * m.alone_busy / self.cpu_s]
        if self.from_disk:
            limits.append(max(m.disk_rate or 0.0, m.disk_rate_more or 0.0) / max(1e-9, 1 - s.kept))
        if m.step_s:
            limits.append(s.batch_size / m.step_s)
            if m.step_cpu_s:
                cpu = self.cpu_s + m.step_cpu_s / s.batch_size
                limits.append(s.cores / cpu)
        return min(limits)

    def with_loading(self, rate: float, cpu_s: float | None = None) -> float:
        """Samples a second if the loader alone made so many, for so much processor time each."""
        m, s = self.m, self.s
        if not m.step_s:
            return rate
        rates = [rate, s.batch_size / m.step_s]
        if m.step_cpu_s:
            cpu = (self.cpu_s if cpu_s is None else cpu_s) + m.step_cpu_s / s.batch_size
            rates.append(s.cores / cpu)
        return min(rates)


_STAGES = {"read": "reading", "decode": "decoding", "transform": "transform=", "copy": "copying"}


def _mixed(ram: Run, read: Run, kept: float) -> Run:
    """Some samples from the cache, the others read."""
    if not kept or not ram.rate or not read.rate:
        return read
    rate = 1 / (kept / ram.rate + (1 - kept) / read.rate)
    return Run(rate, kept * ram.busy + (1 - kept) * read.busy)


# ----------------------------------------------------------------------------------------- the advice


def _advice(state: _State, resource: str, stage: str | None) -> list[Advice]:
    """At most two changes, the one that gains most first; none where none is worth it."""
    if resource == "model":
        return []
    found = [advice for make in _RULES for advice in make(state, resource, stage)]
    worth = [advice for advice in found if advice.gain >= _WORTH]
    return sorted(worth, key=lambda advice: -advice.gain)[:2]


def _one(
    state: _State,
    setting: str,
    why: str,
    loading: float,
    change: tuple[str, Any] | None = None,
    cpu_s: float | None = None,
) -> list[Advice]:
    predicted = state.with_loading(loading, cpu_s)
    return [Advice(setting, why, predicted, predicted / max(1e-9, state.now), change)]


def _keep_in_ram(state: _State, resource: str, stage: str | None) -> list[Advice]:
    m, s = state.m, state.s
    if not s.cacheable or state.in_ram or m.ram is None or stage == "transform":
        return []
    need = s.raw_bytes * s.samples
    if need > _RAM_SHARE * s.free_bytes:
        return []
    size = format_bytes(need, round_up=True)
    setting = f'cache_budget="{size.replace(" ", "")}"' if s.cache == "auto" else 'cache="ram"'
    why = f"all decoded samples fit in RAM ({size}): later epochs neither read nor decode"
    return _one(state, setting, why, m.ram.rate, ("ram", None), m.transform_s + m.copy_s)


def _pack(state: _State, resource: str, stage: str | None) -> list[Advice]:
    m, s = state.m, state.s
    need = s.raw_bytes * s.samples
    fits = need <= _RAM_SHARE * s.free_bytes
    if not s.cacheable or state.in_ram or m.ram is None or fits or resource != "cpu":
        return []
    rate = m.ram.rate
    if m.disk_rate is not None and s.stored_bytes:
        # As many bytes a second as the files gave; rows of a pack are read no slower.
        rate = min(rate, max(m.disk_rate, m.disk_rate_more or 0.0) * s.stored_bytes / s.raw_bytes)
    why = f"decode once, and read {format_bytes(need)} of decoded samples from the disk"
    return _one(state, "write_pack(loader, folder)", why, rate, None, m.transform_s + m.copy_s)


def _scaled_decode(state: _State, resource: str, stage: str | None) -> list[Advice]:
    m = state.m
    if m.dct_decode_s is None or stage != "decode" or state.in_ram:
        return []
    cpu = state.cpu_s - (1 - state.s.kept) * (m.decode_s - m.dct_decode_s)
    why = "JPEGs are decoded at a fraction of their size; pixels differ slightly"
    rate = state.run.rate * state.cpu_s / max(1e-9, cpu)
    return _one(state, "dct_scaling=True", why, rate, ("dct_scaling", True), cpu)


def _more_workers(state: _State, resource: str, stage: str | None) -> list[Advice]:
    m, s = state.m, state.s
    cores = s.cores * m.alone_busy / state.cpu_s
    if resource == "disk":
        more = 4 * max(1, s.workers)
        if state.waiting:
            rate = min(more / (state.waiting + state.cpu_s), cores)
        else:
            disk = m.disk_rate_more or 0.0
            rate = min(state.run.rate * disk / max(1e-9, m.disk_rate or disk), cores)
        why = "while one thread waits for what it reads, others work"
        return _one(state, f"workers={more}", why, rate, ("workers", more))
    if s.workers < s.cores and resource in ("cpu", "copy", "waiting"):
        why = f"{s.cores} cores can load, ahead of the model"
        rate = min(cores, state.run.rate * s.cores / state.lanes)
        setting = "leave workers out" if s.workers == 0 else f"workers={s.cores}"
        return _one(state, setting, why, rate, ("workers", s.cores))
    return []


def _processes(state: _State, resource: str, stage: str | None) -> list[Advice]:
    s = state.s
    if resource != "gil":
        return []
    why = "processes have a lock each"
    rate = s.cores * state.m.alone_busy / state.cpu_s
    return _one(state, "processes=True", why, rate, ("processes", True))


def _transform_in_the_model(state: _State, resource: str, stage: str | None) -> list[Advice]:
    m = state.m
    if stage != "transform" or not state.s.has_transform:
        return []
    cpu = max(1e-9, state.cpu_s - m.transform_s)
    cores = state.s.cores * m.alone_busy / cpu
    rate = min(cores, m.ram.rate * state.cpu_s / cpu if m.ram else cores)
    why = "layers of the model augment on its device; without transform= the loader is this fast"
    return _one(state, "Keras layers instead of transform=", why, rate, ("transform", None), cpu)


def _bytes_travel(state: _State, resource: str, stage: str | None) -> list[Advice]:
    s = state.s
    if resource != "copy" or s.widened <= 1:
        return []
    why = "send uint8, and scale by a Rescaling layer: a quarter of the bytes"
    cpu = state.cpu_s - state.m.copy_s * (1 - 1 / s.widened)
    rate = state.run.rate * state.cpu_s / max(1e-9, cpu)
    return _one(state, "leave dtype= and rescale= out", why, rate, None, cpu)


_RULES: tuple[Callable[[_State, str, str | None], list[Advice]], ...] = (
    _keep_in_ram,
    _pack,
    _scaled_decode,
    _more_workers,
    _processes,
    _transform_in_the_model,
    _bytes_travel,
)


def as_dict(found: Explanation) -> dict[str, Any]:
    """For a script. Times are seconds, rates samples a second."""
    from kloaders import __version__

    measured = dataclasses.asdict(found.measured)
    told: dict[str, Any] = _rounded(
        {
            "version": __version__,
            "loader": found.title,
            "bound": found.bound,
            "stage": found.stage,
            "why": found.why,
            "first_epoch": {"bound": found.first_bound, "why": found.first_why},
            "verdict": verdict(found),
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
    return told


def _rounded(value: Any) -> Any:
    """Four significant digits: more would claim what no clock can tell."""
    if isinstance(value, dict):
        return {name: _rounded(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
