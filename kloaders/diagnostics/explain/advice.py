"""Finds settings that would increase throughput, by arithmetic on measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kloaders.core.memory import format_bytes
from kloaders.diagnostics.explain.bottleneck import EpochCost
from kloaders.diagnostics.explain.findings import Advice

__all__ = ["advise"]

# A smaller gain is not worth mentioning.
_WORTH = 1.1
# The share of the free RAM that a cache may use, as with cache="ram".
_RAM_SHARE = 0.8


def advise(cost: EpochCost, resource: str, stage: str | None) -> list[Advice]:
    """At most two settings, the one with the larger gain first; none if all gains are too small."""
    if resource == "model":
        return []
    found = [advice for make in _RULES for advice in make(cost, resource, stage)]
    worth = [advice for advice in found if advice.gain >= _WORTH]
    return sorted(worth, key=lambda advice: -advice.gain)[:2]


def _one(
    cost: EpochCost,
    setting: str,
    why: str,
    loading: float,
    change: tuple[str, Any] | None = None,
    cpu_s: float | None = None,
) -> list[Advice]:
    predicted = cost.with_loading(loading, cpu_s)
    return [Advice(setting, why, predicted, predicted / max(1e-9, cost.now), change)]


def _keep_in_ram(cost: EpochCost, resource: str, stage: str | None) -> list[Advice]:
    m, s = cost.m, cost.s
    if not s.cacheable or cost.in_ram or m.ram is None or stage == "transform":
        return []
    need = s.raw_bytes * s.samples
    if need > _RAM_SHARE * s.free_bytes:
        return []
    size = format_bytes(need, round_up=True)
    setting = f'cache_budget="{size.replace(" ", "")}"' if s.cache == "auto" else 'cache="ram"'
    why = f"all decoded samples fit in RAM ({size}): later epochs neither read nor decode"
    return _one(cost, setting, why, m.ram.rate, ("ram", None), m.transform_s + m.copy_s)


def _keep_downloads(cost: EpochCost, resource: str, stage: str | None) -> list[Advice]:
    m, s = cost.m, cost.s
    if resource != "network" or s.downloads_kept or not s.remote:
        return []
    why = "later epochs read objects from a local disk; download_budget= limits the space used"
    rate = cost.lanes * m.alone_busy / cost.cpu_s
    return _one(cost, 'download_cache="downloads"', why, rate)


def _pack(cost: EpochCost, resource: str, stage: str | None) -> list[Advice]:
    m, s = cost.m, cost.s
    need = s.raw_bytes * s.samples
    fits = need <= _RAM_SHARE * s.free_bytes
    if not s.cacheable or cost.in_ram or m.ram is None or fits or resource != "cpu":
        return []
    rate = m.ram.rate
    if m.disk_rate is not None and s.stored_bytes:
        # Rows of a pack are read at no fewer bytes per second than the files.
        rate = min(rate, max(m.disk_rate, m.disk_rate_more or 0.0) * s.stored_bytes / s.raw_bytes)
    why = f"decode once, and read {format_bytes(need)} of decoded samples from the disk"
    return _one(cost, "write_pack(loader, folder)", why, rate, None, m.transform_s + m.copy_s)


def _scaled_decode(cost: EpochCost, resource: str, stage: str | None) -> list[Advice]:
    m = cost.m
    if m.dct_decode_s is None or stage != "decode" or cost.in_ram:
        return []
    cpu = cost.cpu_s - (1 - cost.s.kept) * (m.decode_s - m.dct_decode_s)
    why = "JPEGs are decoded at a fraction of their size; pixels differ slightly"
    rate = cost.run.rate * cost.cpu_s / max(1e-9, cpu)
    return _one(cost, "dct_scaling=True", why, rate, ("dct_scaling", True), cpu)


def _more_workers(cost: EpochCost, resource: str, stage: str | None) -> list[Advice]:
    m, s = cost.m, cost.s
    cores = s.cores * m.alone_busy / cost.cpu_s
    if resource == "disk":
        more = 4 * max(1, s.workers)
        if cost.waiting:
            rate = min(more / (cost.waiting + cost.cpu_s), cores)
        else:
            disk = m.disk_rate_more or 0.0
            rate = min(cost.run.rate * disk / max(1e-9, m.disk_rate or disk), cores)
        why = "while some threads wait for the disk or network, others decode"
        return _one(cost, f"workers={more}", why, rate, ("workers", more))
    if s.workers < s.cores and resource in ("cpu", "copy", "waiting"):
        why = f"{s.cores} cores can prefetch batches for the model"
        rate = min(cores, cost.run.rate * s.cores / cost.lanes)
        setting = "leave workers out" if s.workers == 0 else f"workers={s.cores}"
        return _one(cost, setting, why, rate, ("workers", s.cores))
    return []


def _processes(cost: EpochCost, resource: str, stage: str | None) -> list[Advice]:
    s = cost.s
    if resource != "gil":
        return []
    why = "each process has its own GIL"
    rate = s.cores * cost.m.alone_busy / cost.cpu_s
    return _one(cost, "processes=True", why, rate, ("processes", True))


def _more_decoders(cost: EpochCost, resource: str, stage: str | None) -> list[Advice]:
    s = cost.s
    if resource != "decoders":
        return []
    why = "twice as many actors, if the cluster has the CPUs"
    return _one(cost, f"processes=Ray(cpus={2 * s.decoders})", why, 2 * cost.run.rate)


def _transform_in_the_model(cost: EpochCost, resource: str, stage: str | None) -> list[Advice]:
    m = cost.m
    if stage != "transform" or not cost.s.has_transform or cost.s.transform_decodes:
        return []
    cpu = max(1e-9, cost.cpu_s - m.transform_s)
    cores = cost.s.cores * m.alone_busy / cpu
    rate = min(cores, m.ram.rate * cost.cpu_s / cpu if m.ram else cores)
    why = "augmentation layers run on the model's device; this is the loader's rate without transform="
    return _one(cost, "Keras layers instead of transform=", why, rate, ("transform", None), cpu)


def _bytes_travel(cost: EpochCost, resource: str, stage: str | None) -> list[Advice]:
    s = cost.s
    if resource != "copy" or s.widened <= 1:
        return []
    why = "send uint8, and scale in a Rescaling layer: a quarter of the bytes"
    cpu = cost.cpu_s - cost.m.copy_s * (1 - 1 / s.widened)
    rate = cost.run.rate * cost.cpu_s / max(1e-9, cpu)
    return _one(cost, "leave dtype= and rescale= out", why, rate, None, cpu)


_RULES: tuple[Callable[[EpochCost, str, str | None], list[Advice]], ...] = (
    _keep_in_ram,
    _keep_downloads,
    _pack,
    _scaled_decode,
    _more_workers,
    _processes,
    _more_decoders,
    _transform_in_the_model,
    _bytes_travel,
)
