"""All options of a loader in one frozen value, from which other loaders can be made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.checks import Transform, checked_count
from kloaders.core.options import (
    GROUPS,
    CacheOptions,
    FaultOptions,
    Options,
    OrderOptions,
    RamOptions,
    SamplingOptions,
    TransformOptions,
    WorkOptions,
)
from kloaders.engine.class_weights import ClassWeights, class_weights_of
from kloaders.engine.padding import Padding
from kloaders.engine.ragged import RaggedPadding
from kloaders.keras_api.hosts import auto_shard
from kloaders.plan.sampling import Sampling
from kloaders.sources.files import Decode
from kloaders.sources.labels import classes_of, codes_of
from kloaders.sources.source import Source
from kloaders.sources.weights import weights_of

__all__ = [
    "PICTURES",
    "LoaderOptions",
    "ReadingOptions",
    "checked_sampling_weights",
]

#: Image options, for all loaders that decode images.
PICTURES = (
    *("size", "interpolation", "aspect", "channels", "rescale"),
    *("dct_scaling", "max_pixels", "depth"),
)


class ReadingOptions(Options, total=False):
    """How images, and bytes for `decode`, become arrays."""

    size: tuple[int, int] | int | dict[str, Any] | None
    interpolation: str | dict[str, str]
    channels: int | dict[str, Any] | None
    aspect: str
    rescale: float | None
    dct_scaling: bool
    max_pixels: int
    depth: int | None
    decode: Decode | None
    label_options: dict[str, Any] | None


@dataclass(frozen=True)
class LoaderOptions:
    """How a loader processes a source's samples.

    Attributes:
        batch_size: samples per batch.
        order, transforms, work, faults, cache: groups of options, as the user set them.
        sampling: how often samples are drawn.
        weights: one number for each sample, or None; other weights are part of the samples.
        classes: weights by class, or None.
        ram: RAM batches, or None.
        echo: how often each sample is served in an epoch.
        samples_per_file: how often each file is used in an epoch, each time as a separate sample.
        padding: how samples of different lengths are padded (`bucket_by_length`, `padded_batches`).
        inputs_as_labels: whether x is also y (`inputs_as_labels`).
        more: options of one loader class, such as `size`, by name; for display.
        changed: what `set` changed, by name, as it is stored in states.
    """

    batch_size: int
    order: OrderOptions
    transforms: TransformOptions
    work: WorkOptions
    faults: FaultOptions
    cache: CacheOptions
    sampling: Sampling = field(default_factory=Sampling)
    weights: Array | None = None
    classes: ClassWeights | None = None
    ram: RamOptions | None = None
    echo: int = 1
    samples_per_file: int = 1
    padding: Padding | RaggedPadding | None = None
    inputs_as_labels: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, samples: int | Source, batch_size: int, given: Mapping[str, Any], **more: Any
    ) -> LoaderOptions:
        """Check the options that a user passed, each by itself and against the data.

        Args:
            samples: the samples, or their number.
            batch_size: samples per batch.
            given: options that every loader has; see `core.options.Options`.
            more: other fields.

        Raises:
            ValueError, TypeError: an option is out of range, or two contradict each other.
        """
        size = checked_count(batch_size, "batch_size", 1)
        if isinstance(given.get("shard"), str) and given["shard"] == "auto":
            given = {**given, "shard": auto_shard()}
        groups = {
            name: group(**{f.name: given[f.name] for f in fields(group) if f.name in given})
            for name, group in GROUPS.items()
        }
        wanted = groups.pop("sampling")
        source = samples if isinstance(samples, Source) else None
        count = samples if isinstance(samples, int) else len(samples)
        weights = weights_of(wanted.sample_weights, count)
        taken = groups["transforms"].takes_weights("preprocess")
        by_number = weights if isinstance(weights, np.ndarray) and not taken else None
        found = cls(
            batch_size=size,
            weights=by_number,
            classes=class_weights_of(wanted.class_weight, source),
            **groups,
            **more,
        )
        if found.echo > 1 and found.order.shuffle is False:
            raise ValueError(
                f"echo={found.echo} serves samples several times in random order, which "
                "shuffle=False forbids: leave shuffle out, or echo."
            )
        found = replace(found, sampling=_sampling(wanted, found.order.shuffle, count, source))
        return found if found.samples_per_file == 1 else _sharing_reads(found)

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The options by the names of the loader's attributes."""
        return {
            "batch_size": self.batch_size,
            "shuffle": self.order.shuffle,
            "seed": self.order.seed,
            "drop_last": self.order.drop_last,
            "pad_last": self.order.pad_last,
            "with_ids": self.order.with_ids,
            "shard": self.order.shard,
            "sampling": self.sampling,
            "weights": self.weights,
            "class_weight": None if self.classes is None else self.classes.given,
            "preprocess": self.transforms.preprocess,
            "transform": self.transforms.transform,
            "batch_transform": self.transforms.batch_transform,
            "dtype": self.transforms.dtype,
            "thread_count": self.work.workers,
            "processes": self.work.processes,
            "queue_size": self.work.max_queue_size,
            "on_error": self.faults.on_error,
            "max_errors": self.faults.max_errors,
            "cache": self.cache.cache,
            "cache_budget": self.cache.cache_budget,
            "cache_key": self.cache.cache_key,
            "echo": self.echo,
            "samples_per_file": self.samples_per_file,
            "draw": "global" if self.ram is None else self.ram.draw,
            **self.more,
        }

    # ------------------------------------------------------------------ derived values

    @property
    def effective_shuffle(self) -> bool | None:
        """`shuffle`, but True if samples are drawn and shuffle is None."""
        drawn = bool(self.sampling) or self.echo > 1
        return True if drawn and self.order.shuffle is None else self.order.shuffle

    def order_for(self, shuffle: bool | None) -> bool | None:
        """Whether to shuffle if the caller passes `shuffle`; None uses the loader's setting.

        Raises:
            ValueError: the loader draws samples, and `shuffle` contradicts that.
        """
        own = self.effective_shuffle
        if self.sampling and shuffle not in (None, own):
            raise ValueError(
                f"shuffle={shuffle} contradicts the order of this loader, which draws samples "
                f"({self.sampling}): leave shuffle out, or use a loader without these options."
            )
        return own if shuffle is None else shuffle

    # ------------------------------------------------------------------ options of derived loaders

    def take(self, numbers: Indices, samples: int) -> LoaderOptions:
        """The options for some of the samples; `samples` is their number.

        Raises:
            ValueError: samples of a mixture cannot be selected, or none of these has a weight.
        """
        ram = self.ram
        # Divide the budget in proportion, so that all parts together stay within it.
        if ram is not None and ram.budget_bytes is not None:
            ram = replace(ram, ram_budget=max(1, ram.budget_bytes * len(numbers) // samples))
        return replace(
            self,
            sampling=self.sampling.of(numbers),
            weights=None if self.weights is None else self.weights[numbers],
            padding=None if self.padding is None else self.padding.of(numbers),
            ram=ram,
        )

    def for_validation(self, transform: Transform | None = None) -> LoaderOptions:
        """The options without those for training: every sample once, in storage order.

        transform: the transform for validation.
        """
        order = self.order
        # Without a transform all samples of a file would be identical.
        several = self.samples_per_file if transform is not None else 1
        unneeded = several == 1 and self.ram is not None and self.ram.most_batches is not None
        return replace(
            self,
            ram=None if unneeded else self.ram,
            samples_per_file=several,
            order=replace(
                order,
                shuffle=None if order.shuffle is None else False,
                # Equal parts for several hosts need equal batches; otherwise every sample counts.
                drop_last=order.drop_last and order.part[1] > 1,
            ),
            transforms=replace(self.transforms, transform=transform, batch_transform=None),
            sampling=Sampling(),
            classes=None,
            echo=1,
        )

    def in_ram(self) -> LoaderOptions:
        """The options for samples in RAM, which need no cache and no worker processes to read them."""
        work = self.work
        processes = work.processes if self.transforms.transform is not None else False
        return replace(
            self,
            work=replace(work, processes=processes),
            cache=replace(self.cache, cache="auto", cache_budget=None, cache_key=None),
            ram=None,
            more={},
        )


# By default, the samples of one file are at most this many batches apart.
_APART = 32


def _sharing_reads(options: LoaderOptions) -> LoaderOptions:
    """Add RAM batches, for several samples from each file.

    Raises:
        ValueError: all samples of a file would be identical, or another option sets how often one is used.
    """
    said = f"samples_per_file={options.samples_per_file}"
    if options.transforms.transform is None and options.transforms.batch_transform is None:
        raise ValueError(
            f"{said} without transform= would deliver {options.samples_per_file} identical samples "
            "from each file: pass a transform that draws from rng, such as a random crop, or leave it out."
        )
    if options.echo > 1:
        raise ValueError(
            f"{said} and echo={options.echo} both set how often a file is used after it was read: "
            "choose one; samples_per_file counts each use as a sample."
        )
    if options.sampling:
        raise ValueError(
            f"{said} takes the same number of samples from each file, but this loader draws samples "
            f"({options.sampling}): leave out epoch_batches=, class_balance= and sampling_weights=; "
            "class_weight= and sample_weights= weight samples in the loss instead."
        )
    return options if options.ram else replace(options, ram=RamOptions(most_batches=_APART))


def _sampling(
    options: SamplingOptions, shuffle: bool | None, samples: int, source: Source | None
) -> Sampling:
    balance, given = options.class_balance, options.sampling_weights
    codes = weights = None
    if balance is not None and balance is not False:
        if given is not None:
            raise ValueError(
                "class_balance and sampling_weights are both set: choose one. To balance classes "
                "by weights, use 1 / (number of samples in the sample's class)."
            )
        values = classes_of(source or Source(), "class_balance") if balance is True else balance
        names, codes = codes_of(values, samples, "class_balance")
        codes = codes.astype(np.min_scalar_type(len(names)))
    if given is not None:
        weights = checked_sampling_weights(given, samples)
    elif options.replacement:
        raise ValueError(
            "replacement=True needs sampling_weights, but there are none: for equal "
            "weights pass sampling_weights=np.ones(samples)."
        )
    found = Sampling(options.epoch_batches, codes, weights, options.replacement)
    if found.drawn and shuffle is False:
        name = "class_balance" if codes is not None else "sampling_weights"
        raise ValueError(
            f"{name}= draws samples, which shuffle=False forbids: leave shuffle out, or {name}."
        )
    return found


def checked_sampling_weights(values: Any, samples: int) -> Array:
    """How often each sample is drawn, relative to the others, as float64.

    Raises:
        TypeError, ValueError: not one number of at least 0 for each sample.
    """
    try:
        weights = np.asarray(values)
    except ValueError:  # a ragged list
        weights = np.empty(0, object)
    if weights.dtype.kind not in "biuf":
        raise TypeError(
            f"sampling_weights is a {type(values).__name__} of {weights.dtype}, expected one number "
            f"for each of {samples} samples: np.asarray(weights, np.float64)."
        )
    if weights.shape != (samples,):
        raise ValueError(
            f"sampling_weights has shape {weights.shape}, expected one number for each of "
            f"{samples} samples."
        )
    weights = weights.astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if wrong.size:
        raise ValueError(
            f"sampling_weights[{wrong[0]}] is {weights[wrong[0]]}, expected a finite number of at "
            "least 0; a sample with weight 0 is never drawn."
        )
    if not weights.any():
        raise ValueError("all sampling_weights are 0, so no sample could be drawn: leave them out.")
    return weights
