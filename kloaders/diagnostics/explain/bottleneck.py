"""Computes the bottleneck of an epoch, and its possible speed, from measurements."""

from __future__ import annotations

import dataclasses
import math

from kloaders.core.memory import format_bytes
from kloaders.diagnostics.explain.measured import Measured, Run
from kloaders.diagnostics.explain.text import time_of

__all__ = ["EpochCost"]

# The model is the bottleneck if it waits for less than this share of its time.
_IN_TIME = 0.1
# If threads keep less than this share of their cores busy, with cached files, they wait for the GIL.
_LOCKED = 0.7
# If reading from disk gives less than this share of the rate from memory, the disk is the bottleneck.
_DISK_BOUND = 0.8
# If a loader that fetches reaches less than this share of its decoding rate, the network is the bottleneck.
_NETWORK_BOUND = 0.7
# Ray actors that are busy for more than this share of the time are the bottleneck; else the network is.
_DECODERS_BOUND = 0.7


class EpochCost:
    """The cost of the epochs after the first, which are most of a run.

    Args:
        m: the measurements.
        first: a measurement of the first epoch, to compute the cost of the first epoch instead.
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
        missing = 0.0 if self.in_ram else 1 - self.s.kept
        waiting = (m.read_s or 0.0) if m.disk_rate is None else 0.0
        #: CPU seconds per sample, by stage.
        self.cpu = {
            "read": missing * m.read_cached_s,
            "decode": missing * m.decode_s,
            "transform": m.transform_s,
            "copy": m.copy_s,
        }
        self.waiting = missing * waiting
        self.cpu_s = max(1e-9, math.fsum(self.cpu.values()))
        #: CPU seconds per sample on this machine, without Ray actors.
        self.own_cpu_s = self.cpu["copy"] if self.s.decoders else self.cpu_s
        self.stage = max(self.cpu, key=lambda name: self.cpu[name])
        fit = m.fit_s
        self.now = self.s.batch_size / fit if fit else self.run.rate
        self.wait = None if not fit or m.step_s is None else max(0.0, 1 - m.step_s / fit)

    @property
    def locked(self) -> bool:
        """Whether threads wait for the GIL: cores are available but idle."""
        threads = self.lanes if not self.s.processes and not self.run.inline else 1
        own = self.s.has_transform if self.in_ram else self.s.users_code
        if not own or threads < 2 or self.waiting > 0.3 * self.cpu_s or self._reads_bind():
            return False
        if self._network_binds():
            return False
        run = self.run if self.in_ram else (self.m.warm or self.run)
        return run.busy / (threads * self.m.alone_busy) < _LOCKED

    def _decodable(self) -> float:
        """Samples per second that the loader's cores could make without waiting."""
        return self.lanes * self.m.alone_busy / self.cpu_s

    def _network_binds(self) -> bool:
        fetches = self.s.remote and not self.in_ram
        return fetches and self.run.rate < _NETWORK_BOUND * self._decodable()

    def _on_ray(self) -> tuple[str, str | None, str]:
        """`bottleneck`, for batches made by Ray actors."""
        s, share = self.s, self.run.decoding or 0.0
        said = f"{s.decoders} Ray actors are busy {share:.0%} of the time"
        if share >= _DECODERS_BOUND:
            return "decoders", self.stage, f"{said}; most of it is {_STAGES[self.stage]}."
        each = format_bytes(s.sample_bytes)
        rate = self.run.rate
        said = f"{said}: they send {rate:,.0f} samples/s of {each}, {format_bytes(rate * s.sample_bytes)}/s."
        return "network", "copy", said

    def decodable(self) -> float:
        """Samples per second that the Ray actors could make without waiting."""
        return self.run.rate / max(0.01, self.run.decoding or 0.0)

    def _reads_bind(self) -> bool:
        cold, warm = self.m.cold, self.m.warm
        if not self.from_disk or cold is None or warm is None:
            return False
        return cold.rate < _DISK_BOUND * warm.rate

    def bottleneck(self) -> tuple[str, str | None, str]:
        """-> the resource, the stage that uses most of it, and a sentence."""
        if self.wait is not None and self.wait < _IN_TIME:
            return "model", None, self._why_model()
        if self.wait is not None and self.s.workers == 0:
            said = "workers=0 loads in the training thread: loading and training never overlap."
            return "waiting", self.stage, said
        resource, stage, why = self.loader_bottleneck()
        step = self.m.step_s
        if self.wait is not None and step and self.run.rate > 1.3 * self.s.batch_size / step:
            # The loader alone is fast enough, so the two compete for a resource.
            if self._together_busy() > 0.6:
                return (
                    "cpu",
                    "step",
                    (
                        f"Alone, the loader makes {self.run.rate:,.0f} samples/s and the model takes "
                        f"{self.s.batch_size / step:,.0f}; together they share {self.s.cores} cores."
                    ),
                )
            return "unknown", stage, "Loader and model are fast alone, but slow together."
        return resource, stage, why

    def _together_busy(self) -> float:
        """The share of the cores that loading and training use together."""
        m, s = self.m, self.s
        if not m.fit_s:
            return 0.0
        # The record of a fit has no CPU time per step: assume one core.
        step = m.step_cpu_s if m.step_cpu_s is not None else m.step_s or 0.0
        return (self.own_cpu_s * s.batch_size + step) / (s.cores * m.fit_s)

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

    def loader_bottleneck(self) -> tuple[str, str | None, str]:
        """`bottleneck`, for the loader alone."""
        m, s = self.m, self.s
        if s.decoders and self.run.decoding is not None:
            return self._on_ray()
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
        if self._network_binds():
            each = f", {time_of(m.request_s)} each" if m.request_s is not None else ""
            return (
                "network",
                "read",
                (
                    f"{self.run.rate:,.0f} samples/s arrive with {m.requests:.0f} concurrent requests"
                    f"{each}; decoding alone would reach {self._decodable():,.0f}."
                ),
            )
        if not s.remote and self.waiting > 0.5 * (self.cpu_s + self.waiting):
            share = self.waiting / (self.cpu_s + self.waiting)
            return (
                "disk",
                "read",
                f"{share:.0%} of the time to load a sample is waiting for its source.",
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
            return "copy", "copy", f"{share:.0%} of the work is copying: {each} per sample."
        cores = f"{self.lanes} of {s.cores} cores" if self.lanes < s.cores else f"{s.cores} cores"
        return "cpu", self.stage, f"{share:.0%} of the work on {cores} is {_STAGES[self.stage]}."

    def ceiling(self) -> float:
        """Samples per second that the machine could do: its slowest resource in full use."""
        m, s = self.m, self.s
        if s.decoders and self.run.decoding is not None:
            limits = [self.decodable()]
        else:
            limits = [s.cores * m.alone_busy / self.cpu_s]
        if self.from_disk and not s.decoders:
            limits.append(max(m.disk_rate or 0.0, m.disk_rate_more or 0.0) / max(1e-9, 1 - s.kept))
        if m.step_s:
            limits.append(s.batch_size / m.step_s)
            if m.step_cpu_s:
                cpu = self.own_cpu_s + m.step_cpu_s / s.batch_size
                limits.append(s.cores / cpu)
        return min(limits)

    def with_loading(self, rate: float, cpu_s: float | None = None) -> float:
        """Samples per second of training if the loader alone had this rate and CPU time per sample."""
        m, s = self.m, self.s
        if not m.step_s:
            return rate
        rates = [rate, s.batch_size / m.step_s]
        if m.step_cpu_s:
            own = self.own_cpu_s if cpu_s is None or s.decoders else cpu_s
            cpu = own + m.step_cpu_s / s.batch_size
            rates.append(s.cores / cpu)
        return min(rates)


_STAGES = {"read": "reading", "decode": "decoding", "transform": "transform=", "copy": "copying"}


def _mixed(ram: Run, read: Run, kept: float) -> Run:
    """The rate if a share `kept` of the samples comes from the cache, and the others are read."""
    if not kept or not ram.rate or not read.rate:
        return read
    rate = 1 / (kept / ram.rate + (1 - kept) / read.rate)
    decoding = None if read.decoding is None else read.decoding * rate / read.rate
    return Run(rate, kept * ram.busy + (1 - kept) * read.busy, decoding=decoding)
