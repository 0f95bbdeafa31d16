"""Loaders for contrastive learning: pairs, triplets, and P x K batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from kloaders.core.arrays import Indices
from kloaders.core.checks import checked_count, checked_flag
from kloaders.core.options import CacheOptions, TransformOptions
from kloaders.loaders.checking import check_loader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.settings import check_own_batches
from kloaders.plan.sampling import Sampling, check_groups
from kloaders.sources.labels import classes_of, codes_of
from kloaders.sources.pairs import PairSource

__all__ = ["class_batches", "pairs"]

L = TypeVar("L", bound=SequenceLoader)


def class_batches(loader: L, *, classes: int = 8, samples: int = 4, labels: Any = None) -> L:
    """A loader whose batches have a fixed number of classes, with a fixed number of samples of each.

    P x K sampling, for losses that compare the samples of a batch (triplets with mining, supervised
    contrastive). Each batch has exactly `classes` classes and `samples` different samples of each,
    grouped by class. Classes take turns, and so do the samples of a class; small classes repeat more
    often. Transforms, cache, workers, weights and resuming are unchanged. With shards, each shard
    gets whole groups.

    Args:
        loader: any loader whose labels are classes.
        classes: classes per batch (P).
        samples: samples per class in a batch (K); batches have classes x samples samples.
        labels: the class of each sample, if the labels are not classes: an array.

    Raises:
        ValueError: there are fewer classes, or a class has fewer samples; labels are not known; the
            loader has its own order, which this would replace.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> loader = ArraySequenceLoader(np.arange(60), np.arange(60) % 6, 10, seed=1)
    >>> _, y = class_batches(loader, classes=3, samples=2)[0]
    >>> len(y), len(set(y.tolist()))
    (6, 3)
    """
    check_loader(loader, "class_batches")
    classes, samples = checked_count(classes, "classes", 1), checked_count(samples, "samples", 1)
    options = loader.options
    refused = {
        f"already samples ({loader.sampling})": loader.sampling.drawn,
        "has shuffle=False": loader.shuffle is False,
        "is from bucket_by_length() or padded_batches()": options.padding is not None,
        f"has echo={options.echo}": options.echo > 1,
        f"has samples_per_file={options.samples_per_file}": options.samples_per_file > 1,
        "makes its batches itself (load_batch)": loader.source.whole_batches,
    }
    for what, there in refused.items():
        if there:
            raise ValueError(
                f"class_batches() decides which samples share a batch, but this "
                f"{type(loader).__name__} {what}: pass a loader without that."
            )
    codes, names = _codes(loader, labels, "class_batches")
    check_groups(codes, classes, samples, names)
    codes = codes.astype(np.min_scalar_type(int(codes.max()) + 1))
    length = loader.sampling.length
    return loader.replace(
        batch_size=classes * samples,
        sampling=Sampling(length, codes, groups=(classes, samples)),
    )


def pairs(
    loader: SequenceLoader, *, same: float = 0.5, triplets: bool = False, labels: Any = None
) -> SequenceLoader:
    """A loader of pairs: x is (sample, partner), y is 1 if both have the same class, else 0.

    An epoch has one pair per sample. Exactly the share `same` of them has the same class. The choice of
    these samples, and the partners, are drawn again in each epoch, from seed, epoch and sample number
    only. The transform is applied to both samples separately. The loader's labels define the classes, and
    are not delivered. Memory: 24 bytes per sample.

    Args:
        loader: any loader whose labels are classes. To validate, split first: partners come
            from all samples of a loader.
        same: the share of pairs with the same class, from 0 to 1.
        triplets: x is (sample, one of its class, one of another class), and there is no y.
        labels: the class of each sample, if the labels are not classes: an array.

    Raises:
        ValueError: there is only one class, or a class has a single sample, so that there is no
            partner; labels are not known; the loader has RAM batches, buckets, a hook for whole
            batches, or weights other than one number per sample.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> loader = ArraySequenceLoader(np.arange(60), np.arange(60) % 6, 60, seed=1)
    >>> (a, b), y = pairs(loader)[0]
    >>> bool((y == (a % 6 == b % 6)).all()), y.mean().item()
    (True, 0.5)
    """
    check_loader(loader, "pairs")
    check_own_batches(loader, "pairs")
    if isinstance(same, bool) or not isinstance(same, (int, float)) or not 0 <= same <= 1:
        raise ValueError(
            f"same={same!r:.80}, expected a share from 0 to 1: 0.5 is half of the pairs."
        )
    options = loader.options
    refused = {
        "has RAM batches": loader.runner.two_levels,
        "is from bucket_by_length() or padded_batches()": options.padding is not None,
        "is from inputs_as_labels()": options.inputs_as_labels,
        "already makes pairs": isinstance(loader.source, PairSource),
        "delivers weights of its labels, which pairs have not": len(loader.sample_spec) > 2,
    }
    for what, there in refused.items():
        if there:
            raise ValueError(
                f"pairs(): this {type(loader).__name__} {what}: pass one without that."
            )
    codes, names = _codes(loader, labels, "pairs")
    counts = np.bincount(codes)
    needs_like = checked_flag(triplets, "triplets") or same > 0
    if len(counts) < 2 and (triplets or same < 1):
        raise ValueError(
            "all samples have the same class, but pairs() needs another one: pass same=1, or labels with "
            "several classes."
        )
    if needs_like and counts.min() < 2:
        lone = int(np.argmin(counts))
        raise ValueError(
            f"class {names[lone]!r:.80} has a single sample, which has no partner in its class: leave it "
            "out with subset(), or pass same=0."
        )
    pipeline = replace(loader.runner.pipeline, source=loader.source)
    source = PairSource(pipeline, codes, None if triplets else float(same))
    made = SequenceLoader(source, loader.batch_size, seed=loader.seed)
    transforms = TransformOptions(batch_transform=loader.batch_transform)
    changed = replace(options, transforms=transforms, cache=CacheOptions(), more={})
    return made.replace(source, changed)


def _codes(loader: SequenceLoader, labels: Any, what: str) -> tuple[Indices, list[Any]]:
    """The class of each sample, numbered from 0 without gaps, and the class names."""
    if labels is None:
        try:
            values: Any = classes_of(loader.source, "labels")
        except ValueError as error:
            raise ValueError(
                f"{what}() needs classes: {str(error).replace('labels=True', what + '()')}"
            ) from None
    else:
        values = labels
    found, codes = codes_of(values, loader.samples, "labels")
    names = loader.class_names
    if labels is None and isinstance(names, list) and max(found) < len(names):
        found = [names[int(k)] for k in found]
    return codes.astype(np.int64), found
