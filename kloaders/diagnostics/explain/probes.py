"""Measures the costs of loading and training: of each stage, and of the whole.

`judge` draws the conclusions. Nothing is changed permanently: samples are read through views of the
loader, the cache is bypassed, and the model's weights are restored.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from kloaders.core.memory import available_bytes
from kloaders.core.protocols import Loader
from kloaders.core.ray import Ray
from kloaders.core.structure import flatten
from kloaders.core.threads import usable_cores
from kloaders.diagnostics.explain.file_columns import image_options
from kloaders.diagnostics.explain.loader_probe import drive, evict, files_per_second
from kloaders.diagnostics.explain.measured import Measured, Run, Settings
from kloaders.diagnostics.explain.model_probe import measure_model
from kloaders.diagnostics.explain.stages import Stages, measure_stages
from kloaders.diagnostics.explain.variants import changed, over_arrays, quiet
from kloaders.formats.files import ARRAY_SUFFIXES, suffix_of
from kloaders.places.fetching import Traffic, fetcher
from kloaders.sources.cache.columns import bypassed
from kloaders.sources.cache.store import Store
from kloaders.sources.columns import inner_column

__all__ = ["measure", "measure_change"]

# The maximum number of files that are dropped from the page cache, to be read from disk.
_EVICTED = 20_000
# Reading is also measured with this many times the loader's threads, to see whether the disk can do more.
_MORE_THREADS = 4


def measure(loader: Loader, model: Any = None, seconds: float = 6.0) -> Measured:
    """Measure a loader, and a model, for about this many seconds (plus the model's compilation)."""
    begin = time.perf_counter()
    _make_room(loader)
    view = quiet(loader)
    stores = loader.source.stores()
    with bypassed(stores):
        stages = measure_stages(view, seconds / 4)
        measured = Measured(settings=_settings(loader, stages), **stages.found())
        runs: dict[str, Any] = {}
        enough = _enough(measured, seconds / 6)
        # With Ray actors, files are in the page cache of other machines, or on their disks.
        if stages.paths is not None and not isinstance(loader.processes, Ray):
            evict(_names(loader, stages, enough))
            runs["cold"] = drive(view, seconds / 6, enough)
            runs |= _disk(loader, stages, measured, seconds / 6)
        before, started = fetcher.traffic, time.perf_counter()
        runs["warm"] = drive(view, seconds / 6, enough)
        if stages.remote:
            runs |= _requests(before, fetcher.traffic, time.perf_counter() - started)
        runs.setdefault("cold", runs["warm"])
        if runs["cold"].rate > runs["warm"].rate:
            runs["warm"] = _better(runs["warm"], drive(view, seconds / 6, enough))
    held = over_arrays(loader, stages.arrays()) if stages.arrays() is not None else None
    runs["ram"] = runs["warm"] if held is None else drive(held, seconds / 6)
    if held is not None and runs["warm"].rate > runs["ram"].rate:
        runs["ram"] = _better(runs["ram"], drive(held, seconds / 6))
    measured = dataclasses.replace(measured, **runs)
    if model is not None:
        steady = held if held is not None and measured.settings.kept > 0.99 else view
        with bypassed(stores):
            found = measure_model(model, steady, seconds / 3)
        measured = dataclasses.replace(measured, **found)
    elif (fit := loader.runner.last_fit) is not None and (
        steady_epochs := fit.steady()
    ) is not None:
        measured = dataclasses.replace(
            measured,
            fit_s=steady_epochs.seconds / steady_epochs.steps,
            step_s=(steady_epochs.seconds - steady_epochs.wait_seconds) / steady_epochs.steps,
            model_from="fit",
        )
    for made in (view, held):
        if made is not None:
            made.runner.release()
    return dataclasses.replace(
        measured, probed=len(stages.samples), seconds=time.perf_counter() - begin
    )


def measure_change(
    loader: Loader, change: str, value: Any, model: Any = None, seconds: float = 2.0
) -> float:
    """Samples per second with one setting changed; see `changed`. With a model, those of a fit."""
    _make_room(loader)
    with bypassed(loader.source.stores()):
        view = changed(loader, change, value, seconds)
        try:
            if model is not None:
                found: float = measure_model(model, view, seconds)["fit_s"]
                return loader.batch_size / found
            return drive(view, seconds).rate
        finally:
            view.runner.release()


def _make_room(loader: Loader) -> None:
    """End the loader's Ray actors, since the cluster may have no CPUs for more. They are made again later."""
    if isinstance(loader.processes, Ray):
        _ = loader.sample_spec, loader.raw_spec  # cached from now on
        loader.runner.release()


def _better(one: Run, other: Run) -> Run:
    """The faster of two runs: other work on the machine can only slow a run down."""
    return max(one, other, key=lambda run: run.rate)


def _enough(measured: Measured, seconds: float) -> int:
    """A number of samples that is more than a run of this many seconds can use."""
    m = measured
    each = m.read_cached_s + m.decode_s + m.transform_s + m.copy_s
    return int(min(_EVICTED, 2 + 2 * seconds * m.settings.cores / max(each, 1e-7)))


def _names(loader: Loader, stages: Stages, count: int) -> list[str]:
    """Files of the first samples of the first shuffled epoch."""
    assert stages.paths is not None
    numbers: list[int] = []
    order = loader.runner.order_of(0, loader.options.effective_shuffle is not False)
    for batch in range(loader.plan.batches):
        numbers += loader.plan.indices(order, batch).tolist()
        if len(numbers) >= count:
            break
    return [name for k in numbers[:count] for name in stages.paths(k)]


def _disk(loader: Loader, stages: Stages, measured: Measured, seconds: float) -> dict[str, float]:
    """Files per second of threads that only read."""
    few = max(1, measured.settings.workers)
    names = _names(loader, stages, 4096)
    each = max(1, len(names) // max(1, min(4096, loader.samples)))
    found = {}
    for field, threads in (("disk_rate", few), ("disk_rate_more", _MORE_THREADS * few)):
        evict(names)
        found[field] = files_per_second(names, threads, seconds / 2) / each
    return found


def _requests(before: Traffic, after: Traffic, seconds: float) -> dict[str, float]:
    """The time per request, and the average number of concurrent requests."""
    objects = after.objects - before.objects
    spent = after.seconds - before.seconds
    if not objects:
        return {}
    return {"request_s": spent / objects, "requests": spent / max(seconds, 1e-9)}


def _settings(loader: Loader, stages: Stages) -> Settings:
    specs, raws = flatten(loader.sample_spec), flatten(loader.raw_spec)
    raw = sum(spec.nbytes for spec in raws)
    n = max(1, len(stages.samples))
    stored = stages.stored / n if stages.paths is not None else None
    free = available_bytes()
    columns = loader.source.columns
    arrays = columns is not None and stages.paths is None and not stages.remote
    return Settings(
        samples=loader.samples,
        batch_size=loader.batch_size,
        cores=usable_cores(),
        workers=usable_cores() if loader.thread_count is None else loader.thread_count,
        processes=bool(loader.processes),
        decoders=loader.processes.cpus if isinstance(loader.processes, Ray) else 0,
        has_transform=loader.transform is not None,
        transform_decodes=_decodes(raws, specs),
        users_code=loader.runner.pipeline.runs_user_code,
        # Windows are not cacheable: a cache would copy each window, although the series is in RAM.
        cacheable=not arrays and loader.source.spans() is None,
        # "auto" does not cache samples that a user's function reads.
        cache=loader.cache if loader.source.stores() else None,
        sample_bytes=sum(spec.nbytes for spec in specs),
        raw_bytes=raw,
        stored_bytes=stored,
        widened=_widened(loader, stages),
        free_bytes=free,
        kept=_kept(loader, raw, free),
        remote=stages.remote,
        downloads_kept=_keeps_downloads(loader),
        files_fit=stored is None or stored * loader.samples < 0.5 * free,
    )


def _decodes(raws: list[Any], specs: list[Any]) -> bool:
    """Whether x is a row of bytes before the transform, and an image after it, as with kl.keep_encoded."""
    before, after = raws[0], specs[0]
    return str(before.dtype) == "uint8" and len(before.shape) == 1 and len(after.shape) == 3


def _keeps_downloads(loader: Loader) -> bool:
    """Whether fetched data are cached on a local disk."""
    columns = flatten(loader.source.columns or ())
    return any(hasattr(_owner(getattr(inner_column(c), "fetch", None)), "budget") for c in columns)


def _owner(function: Any) -> Any:
    return getattr(function, "__self__", None)


def _widened(loader: Loader, stages: Stages) -> float:
    """Bytes of an image as delivered, relative to 8 bits per value."""
    spec = flatten(loader.sample_spec)[0]
    columns = loader.source.columns
    options = [image_options(column) for column in flatten(columns) if columns is not None]
    images = any(o is not None and (o.rescale is not None or o.dtype is not None) for o in options)
    if not images or stages.paths is None or suffix_of(stages.paths(0)[0]) in ARRAY_SUFFIXES:
        return 1.0
    return float(spec.dtype.itemsize)


def _kept(loader: Loader, raw: int, free: int) -> float:
    """The expected share of the samples in the cache after all were read."""
    stores: list[Store] = loader.source.stores()
    if not stores or not raw:
        return 0.0
    return min(1.0, *(store.expected_share(raw, free) for store in stores))
