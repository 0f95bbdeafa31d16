"""Makes one loader from several: concatenated, or zipped sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kloaders.core.checks import check_names
from kloaders.core.options import Options
from kloaders.core.structure import flatten, map_structure
from kloaders.loaders.checking import check_loader
from kloaders.loaders.mixing import check_alike, common_class_names, weights_of
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.settings import check_own_batches
from kloaders.sources.mixture import MixtureSource
from kloaders.sources.pipeline import SamplePipeline
from kloaders.sources.source import Source
from kloaders.sources.zipped import ZippedSource

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["concatenate", "zip_loaders"]

# Options of the result; all others belong to the loaders in it.
_OWN = (
    *(
        "shuffle",
        "seed",
        "drop_last",
        "pad_last",
        "with_ids",
        "shard",
        "epoch_batches",
        "class_balance",
    ),
    *("sampling_weights", "replacement", "batch_transform", "workers", "processes", "on_error"),
    *("max_errors", "quarantine", "max_queue_size"),
)


def concatenate(
    loaders: Sequence[SequenceLoader], batch_size: int | None = None, **options: Unpack[Options]
) -> SequenceLoader:
    """A loader over the samples of several loaders, one loader after another in storage order.

    `predict` returns the rows of the first loader, then those of the next; with shuffling, samples
    of all loaders are mixed over the whole epoch. Each loader keeps its transform, dtype, cache and
    sample weights; batch size and order are set for the whole. Nothing is read or copied.

    Args:
        loaders: two or more, whose samples have one structure, shape and dtype.
        batch_size: samples per batch; None: that of the first loader.
        **options: options of the whole: all except transform, dtype, cache and sample_weights. If
            all loaders have the same `on_error`, it is the default.

    Raises:
        ValueError: samples differ in structure, shape or dtype (both are named); a loader has RAM
            batches, a shard, sampling or a batch_transform, which are for the whole.
        SampleError: the first sample of a loader does not load.

    >>> import numpy as np
    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> a, b = (
    ...     ArraySequenceLoader(np.arange(3), batch_size=4),
    ...     ArraySequenceLoader(np.arange(90, 93)),
    ... )
    >>> [batch.tolist() for batch in concatenate([a, b]).epoch_batches()]
    [[0, 1, 2, 90], [91, 92]]
    """
    parts: list[Any] = list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]
    if len(parts) < 2:
        raise ValueError(f"concatenate() got {len(parts)} loader, expected two or more in a list.")
    whole = _joined("concatenate", parts, MixtureSource, batch_size, options)
    check_alike(parts)
    whole = whole.replace(weights=weights_of(parts))
    whole.class_names = common_class_names(parts)
    return whole


def zip_loaders(
    inputs: Any, labels: Any = None, batch_size: int | None = None, **options: Unpack[Options]
) -> SequenceLoader:
    """A loader whose sample k is composed of sample k of several loaders.

    Each loader keeps its transform, dtype and cache; loaders with the same seed draw the same random
    numbers for sample k, so that image and mask are rotated alike. If one of them cannot load sample k,
    `on_error` applies to the whole sample.

    Args:
        inputs: a loader, whose x is x; or a tuple, list or dict of loaders, for several inputs. If
            they have labels, these are the labels: those of a single loader unchanged, those of
            several in the same tuple or dict.
        labels: loaders whose x is y, in the same form, if the loaders of inputs have no labels.
        batch_size: samples per batch; None: that of the first loader.
        **options: as in `concatenate`.

    Raises:
        ValueError: loaders have different numbers of samples, or labels twice.
        SampleError: the first sample of a loader does not load.

    >>> import numpy as np
    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> a, b = ArraySequenceLoader(np.arange(3)), ArraySequenceLoader(np.arange(90, 93))
    >>> zip_loaders(a, b)[0]
    (array([0, 1, 2]), array([90, 91, 92]))
    """
    x, y = _tupled(inputs), None if labels is None else _tupled(labels)
    parts = [*flatten(x), *([] if y is None else flatten(y))]
    if len(parts) < 2:
        raise ValueError(
            "zip_loaders() got one loader, expected two or more: zip_loaders(inputs, labels), or "
            "zip_loaders({'a': loader, 'b': loader})."
        )
    for part in parts:
        check_loader(part, "zip_loaders")
    sizes = [part.samples for part in parts]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"zip_loaders() got loaders of {', '.join(f'{size:,}' for size in sizes)} samples, "
            "expected the same number in each: sample k of all becomes one. take(loader, n) shortens one."
        )
    labelled = [len(part.sample_spec) > 1 for part in parts]
    if y is not None and any(labelled):
        k = labelled.index(True)
        raise ValueError(
            f"loader {k} of zip_loaders() already has labels, but labels= is also set: make it without "
            "labels, or leave labels= out."
        )
    number = {id(part): k for k, part in enumerate(parts)}
    if len(number) < len(parts):
        raise ValueError("zip_loaders() got the same loader twice: loader.view() is a second one.")
    form = [map_structure(lambda part: (number[id(part)], 0), x)]
    if y is not None:
        form.append(map_structure(lambda part: (number[id(part)], 0), y))
    elif any(labelled):
        form.append(_labels_of(x, labelled, number))
    if sum(part.weights is not None for part in parts) > 1:
        raise ValueError(
            "several loaders of zip_loaders() have sample_weights=, but a sample has one weight: pass "
            "it to only one of them."
        )

    def source(pipelines: list[SamplePipeline]) -> Source:
        return ZippedSource(pipelines, tuple(form))

    whole = _joined("zip_loaders", parts, source, batch_size, options)
    whole = whole.replace(weights=next((p.weights for p in parts if p.weights is not None), None))
    owners = [part for part, has in zip(parts, labelled, strict=True) if has]
    whole.class_names = owners[0].class_names if len(owners) == 1 else None
    return whole


def _joined(
    what: str,
    parts: list[SequenceLoader],
    source: Callable[[list[SamplePipeline]], Source],
    batch_size: int | None,
    options: Any,
) -> SequenceLoader:
    """A loader of a source over the loaders' pipelines, with the options of the result."""
    for name in options:
        if name in Options.__annotations__ and name not in _OWN:
            raise ValueError(
                f"{what}({name}=): pass {name}= to the loaders that are combined; the result has "
                f"{', '.join(_OWN)}."
            )
    check_names(f"the result of {what}()", options, _OWN)
    for part in parts:
        check_loader(part, what)
        check_own_batches(part, what)
        _check_part(what, part)
    given: dict[str, Any] = {"seed": parts[0].seed, **options}
    given.setdefault("processes", any(part.processes for part in parts))
    policies = {part.on_error for part in parts}
    if len(policies) == 1:
        given.setdefault("on_error", policies.pop())
    # The worker processes belong to the result.
    pipelines = [replace(part.runner.pipeline, source=part.source) for part in parts]
    size = parts[0].batch_size if batch_size is None else batch_size
    return SequenceLoader(source(pipelines), size, **given)


def _check_part(what: str, loader: SequenceLoader) -> None:
    """Raise ValueError for a loader with options that would be lost silently."""
    kind, options = type(loader).__name__, loader.options
    if loader.runner.two_levels:
        raise ValueError(
            f"{what}() got a {kind} with RAM batches, which have their own order: "
            'use PathSequenceLoader(paths, labels, cache="ram") instead.'
        )
    if loader.options.samples_per_file > 1:
        raise ValueError(
            f"{what}() got a {kind} with samples_per_file={loader.samples_per_file}, which sets how often "
            "a file is used: leave it out; kl.repeat(loader, times) repeats each sample."
        )
    if options.padding is not None or options.inputs_as_labels:
        raise ValueError(
            f"{what}() got a {kind} from bucket_by_length(), padded_batches() or inputs_as_labels(): combine "
            "the loaders that it was made from, and call that function on the result."
        )
    for name, is_set in (
        ("shard", loader.shard[1] > 1),
        ("batch_transform", options.transforms.batch_transform is not None),
        ("epoch_batches, class_balance or sampling_weights", bool(options.sampling)),
    ):
        if is_set:
            raise ValueError(
                f"{what}() got a {kind} with {name}=, which applies to batches of the result: pass it to "
                f"{what}()."
            )


def _tupled(loaders: Any) -> Any:
    """Convert a list, which means several inputs, to a tuple."""
    if isinstance(loaders, dict):
        return {name: _tupled(one) for name, one in loaders.items()}
    if isinstance(loaders, (list, tuple)):
        return tuple(_tupled(one) for one in loaders)
    return loaders


def _labels_of(x: Any, labelled: list[bool], number: dict[int, int]) -> Any:
    """The labels' positions: those of a single loader alone, else in the tuple or dict of x."""
    if sum(labelled) == 1:
        return labelled.index(True), 1

    def kept(form: Any) -> Any:
        if isinstance(form, dict):
            some = {name: kept(one) for name, one in form.items()}
            return {name: one for name, one in some.items() if one is not None} or None
        if isinstance(form, tuple):
            found = tuple(one for one in map(kept, form) if one is not None)
            return found or None
        k = number[id(form)]
        return (k, 1) if labelled[k] else None

    return kept(x)
