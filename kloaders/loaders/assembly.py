"""Assembles a loader: from a source and options to the runner that makes its batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from kloaders.engine.delivery import Delivery
from kloaders.engine.ram_batches import RamRunner
from kloaders.engine.ram_size import RamSize
from kloaders.engine.runner import Runner
from kloaders.engine.specs import SampleSpecs
from kloaders.keras_api.tickets import Tickets
from kloaders.loaders.options import LoaderOptions
from kloaders.plan.epoch import EpochPlan
from kloaders.plan.shared_reads import SharedReadsPlan
from kloaders.plan.streams import Stream
from kloaders.sources.cache.policy import cached_whole
from kloaders.sources.cast import CastSource
from kloaders.sources.columns import ArrayColumn, CastColumn
from kloaders.sources.error_log import ErrorLog
from kloaders.sources.pipeline import SamplePipeline
from kloaders.sources.preprocess import PreprocessedSource
from kloaders.sources.source import Source
from kloaders.sources.weights import WeightColumns, WeightedSource

__all__ = ["plan_of", "runner_of", "source_of", "stream_of"]


def source_of(
    sourced: Callable[[LoaderOptions], Source], options: LoaderOptions, weights: Any
) -> Source:
    """The source of a loader: its samples, followed by weights and `preprocess=`.

    Args:
        sourced: returns the samples of the loader's class, with the cache that the options ask for.
        options: the loader's options.
        weights: `WeightColumns`, an array of weights, or None.
    """
    cache, preprocess = options.cache, options.transforms.preprocess
    # If a cache is requested, it holds samples after preprocess=, which may be slow.
    whole = preprocess is not None and cache.cache not in (None, "auto")
    inner = replace(cache, cache=None, cache_budget=None) if whole else cache
    source = sourced(replace(options, cache=inner))
    dtype = options.transforms.label_dtype
    if dtype is not None:
        columns = source.with_labels(lambda column: CastColumn(column, dtype))
        source = CastSource(source, None, dtype) if columns is None else columns
    if isinstance(weights, np.ndarray) and options.weights is None:  # preprocess= takes weights
        weights = WeightColumns(ArrayColumn(weights))
    if isinstance(weights, WeightColumns):
        source = WeightedSource(source, weights.columns)
    if preprocess is not None:
        source = PreprocessedSource(source, options.transforms.calls["preprocess"])
    if whole:
        source = cached_whole(source, cache, options.work, options.transforms)
    return source


def runner_of(source: Source, options: LoaderOptions, title: str) -> Runner:
    """Create the runner of a loader, which messages call `title`.

    Raises:
        ValueError: samples and options make no batches.
    """
    order = options.order
    transforms, by_number = options.transforms, options.weights
    # A transform may change its input weights, so they are part of the samples.
    taken = any(transforms.takes_weights(name) for name in ("transform", "batch_transform"))
    pipeline = SamplePipeline(
        source,
        transforms,
        order.number,
        order.part[0],
        options.inputs_as_labels,
        by_number if taken else None,
    )
    log = ErrorLog(options.faults, len(source), source.name)
    specs = SampleSpecs(pipeline, log)
    size = None
    if options.ram is not None:
        queue = options.work.max_queue_size
        size = RamSize(
            options.ram, specs, options.batch_size, queue, order.part[1], options.samples_per_file
        )
    plan = plan_of(options, len(source), size)
    delivery = Delivery(
        None if taken else by_number,
        options.batch_size,
        order.pad_last,
        options.inputs_as_labels,
        options.classes,
    )
    # With RAM batches, shuffle=False delivers the RAM batches' order, whatever index is requested.
    tickets = Tickets(plan.batches, options.effective_shuffle, size is None)
    parts = (pipeline, specs, log, plan, tickets, delivery, options.work, options.padding)
    if size is None or options.ram is None:
        return Runner(*parts)
    return RamRunner(*parts, size=size, options=options.ram, title=title)


def stream_of(options: LoaderOptions, samples: int) -> Stream | None:
    """The endless order that is cut into epochs, if samples are drawn; otherwise None."""
    order = options.order
    return options.sampling.stream(
        samples, order.number, options.batch_size * order.part[1], order.shuffle
    )


def plan_of(options: LoaderOptions, samples: int, size: RamSize | None = None) -> EpochPlan:
    """Which samples make up which batch.

    Args:
        options: the loader's options.
        samples: the number of samples.
        size: the size of RAM batches; None without RAM batches.

    Raises:
        ValueError: there would be no batch, or some shards would get none of the last one.
    """
    order, shards = options.order, options.order.part[1]
    more: dict[str, Any] = {}
    kind: type[EpochPlan] = EpochPlan
    if size is not None and options.ram is not None:
        if options.sampling:
            _check_sampling(options, size)
        more = {"window": size.samples * shards, "draw": options.ram.draw, "echo": options.echo}
        more["neighbours"] = size.specs.pipeline.source.neighbours
    elif options.echo > 1:  # all samples are in memory: a single window with all of them
        step = options.batch_size * shards
        more = {"window": -(-samples // step) * step, "draw": "global", "echo": options.echo}
    if options.samples_per_file > 1:
        kind, samples = SharedReadsPlan, samples * options.samples_per_file
        draw = "files" if more.get("draw", "global") == "global" else more["draw"]
        more |= {"copies": options.samples_per_file, "draw": draw}
    plan = kind(
        samples,
        options.batch_size,
        order.number,
        drop_last=order.drop_last,
        shard=order.part,
        stream=stream_of(options, samples),
        length=options.sampling.length,
        **more,
    )
    if options.padding is not None:
        plan = options.padding.plan(plan)
    if plan.batches == 0:
        raise ValueError(
            f"{samples} samples do not make a full batch of {plan.global_batch} (batch_size "
            "times shards), and drop_last=True leaves the rest out: use a smaller batch_size "
            "or drop_last=False."
        )
    if 0 < plan.tail < shards:
        raise ValueError(
            f"the last batch of an epoch has {plan.tail} samples for {shards} shards, so "
            "some shards would get none: use drop_last=True, or another batch_size."
        )
    return plan


def _check_sampling(options: LoaderOptions, size: RamSize) -> None:
    """Raise ValueError for sampling that RAM batches do not support."""
    assert options.ram is not None
    sampling, draw = options.sampling, options.ram.draw
    if options.echo > 1:
        raise ValueError(
            f"echo={options.echo} serves a RAM batch several times, but the loader samples "
            f"({sampling}), which already sets how often a sample is drawn: choose one."
        )
    if size.resident or draw == "global":
        return
    if draw == "windows":
        raise ValueError(
            f'draw="windows" reads runs of adjacent samples, but the loader samples ({sampling}) '
            'from the whole data: use draw="global", or a ram_budget that holds everything.'
        )
    raise ValueError(
        f"the loader samples ({sampling}), but compressed files can be read only from start to end: "
        "use a ram_budget that holds everything, or write the files without compression."
    )
