"""Makes one loader from several, in fixed proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.checks import check_names
from kloaders.core.options import Options
from kloaders.core.structure import flatten, same_structure
from kloaders.loaders.checking import check_loader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.settings import check_own_batches, options_of
from kloaders.plan.sampling import Sampling
from kloaders.plan.streams import InOrder, Mixture, ShuffledPasses, Stream, pattern_of
from kloaders.sources.mixture import MixtureSource

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["check_alike", "common_class_names", "mix", "weights_of"]

# Options of the mixture; all others belong to the loaders in it.
_OWN = (
    *(
        "class_weight",
        "seed",
        "drop_last",
        "pad_last",
        "with_ids",
        "shard",
        "epoch_batches",
        "batch_transform",
        "workers",
    ),
    *("processes", "on_error", "max_errors", "quarantine", "max_queue_size"),
)


def mix(
    loaders: Sequence[SequenceLoader],
    proportions: Sequence[float] | None = None,
    batch_size: int | None = None,
    **options: Unpack[Options],
) -> SequenceLoader:
    """A loader whose batches are mixed from several loaders, in fixed proportions.

    At any point of the stream, the number of samples delivered from each loader differs from its share by
    at most one. A loader passes through its samples in its own order (shuffle=None: shuffled;
    class_balance and sampling_weights apply), repeatedly: a small loader repeats more often. It keeps its
    transform, dtype and cache; its batch size, batch_transform and epoch_batches are ignored. Within a
    batch, samples of the same loader are adjacent.

    Args:
        loaders: two or more, whose samples have one structure, shape and dtype.
        proportions: one positive number for each, such as [0.7, 0.3]; None: in proportion to
            their numbers of samples.
        batch_size: samples per batch; None: that of the first loader.
        **options: options of the mixture: class_weight, epoch_batches, batch_transform, shard, seed,
            drop_last, pad_last, workers, processes, on_error, max_errors, quarantine,
            max_queue_size. An epoch has as many batches as all samples together make, unless
            epoch_batches= is set.

    Raises:
        ValueError: samples differ in structure, shape or dtype (both are named); a loader has RAM
            batches or a shard; proportions are not positive numbers.
        SampleError: the first sample of a loader does not load.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> a = ArraySequenceLoader(np.arange(100), batch_size=10, seed=1)
    >>> b = ArraySequenceLoader(np.arange(100, 105), batch_size=10, seed=1)
    >>> batch = mix([a, b], [0.7, 0.3])[0]
    >>> int((batch < 100).sum()), int((batch >= 100).sum())
    (7, 3)
    """
    parts: list[Any] = list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]
    for loader in parts:
        check_loader(loader, "mix")
    theirs = {name for part in parts for name in options_of(type(part))}
    for name in options:
        if name in theirs and name not in _OWN:
            raise ValueError(
                f"mix({name}=): pass {name}= to the loaders that are mixed; a mixture itself has "
                f"{', '.join(_OWN)}."
            )
    check_names("a mixture", options, _OWN)
    for loader in parts:
        check_own_batches(loader, "mix")
        _check_part(loader)
    if len(parts) < 2:
        raise ValueError(f"mix() got {len(parts)} loader, expected two or more in a list.")
    shares = _shares(proportions, parts)
    given: dict[str, Any] = {"seed": parts[0].seed, **options}
    given.setdefault("processes", next((p.processes for p in parts if p.processes), False))
    # The worker processes belong to the mixture.
    source = MixtureSource([replace(part.runner.pipeline, source=part.source) for part in parts])
    mixed = SequenceLoader(
        source, parts[0].batch_size if batch_size is None else batch_size, **given
    )
    check_alike(parts)
    streams: list[tuple[Stream, int]] = [(_stream(part), part.samples) for part in parts]
    drawn = Sampling(mixed.sampling.length, source=Mixture(streams, pattern_of(shares)))
    mixed = mixed.replace(source, sampling=drawn, weights=weights_of(parts))
    mixed.class_names = common_class_names(parts)
    return mixed


def _stream(loader: SequenceLoader) -> Stream:
    """A loader's own order, repeated endlessly."""
    if loader.plan.stream is not None:
        return loader.plan.stream
    if loader.shuffle is False:
        return InOrder(loader.samples)
    return ShuffledPasses(loader.samples, loader.seed)


def _check_part(loader: SequenceLoader) -> None:
    kind = type(loader).__name__
    if loader.runner.two_levels:
        raise ValueError(
            f"mix() got a {kind} with RAM batches, which have their own order: mix "
            'loaders without RAM batches, such as PathSequenceLoader(paths, labels, cache="ram").'
        )
    if loader.options.samples_per_file > 1:
        raise ValueError(
            f"mix() got a {kind} with samples_per_file={loader.samples_per_file}, which sets how often "
            "a file is used: leave it out; kl.repeat(loader, times) repeats each sample."
        )
    if isinstance(loader.runner.pipeline.source, MixtureSource):
        raise ValueError("mix() got a mixture: mix all loaders at once, with all proportions.")
    if loader.options.padding is not None or loader.options.inputs_as_labels:
        raise ValueError(
            f"mix() got a {kind} from bucket_by_length(), padded_batches() or inputs_as_labels(): mix the "
            "loaders that it was made from, and call that function on the mixture."
        )
    if loader.options.classes is not None:
        raise ValueError(
            f"mix() got a {kind} with class_weight=, which applies to whole batches: pass it to mix()."
        )
    if loader.shard[1] > 1:
        raise ValueError(f"mix() got a loader with shard={loader.shard}: pass shard= to mix().")


def _shares(proportions: Any, loaders: list[SequenceLoader]) -> list[float]:
    if proportions is None:
        return [float(loader.samples) for loader in loaders]
    try:
        shares = [float(share) for share in proportions]
    except (TypeError, ValueError):
        raise TypeError(
            f"proportions={proportions!r:.80}, expected one number for each loader, as in [0.7, 0.3]."
        ) from None
    if len(shares) != len(loaders):
        raise ValueError(
            f"proportions={proportions!r:.80} has {len(shares)} numbers for {len(loaders)} loaders, "
            "expected one for each."
        )
    if not all(0 < share < float("inf") for share in shares):
        raise ValueError(
            f"proportions={proportions!r:.80}, expected positive numbers: leave out loaders whose "
            "proportion is 0."
        )
    return shares


def common_class_names(parts: list[SequenceLoader]) -> list[str] | None:
    """The class names, if all loaders have the same ones."""
    names = [part.class_names for part in parts]
    return names[0] if all(n == names[0] for n in names) else None


def check_alike(parts: list[SequenceLoader]) -> None:
    """Raise ValueError if samples of two loaders cannot be in the same batch."""
    first = parts[0].sample_spec
    for k, part in enumerate(parts[1:], 1):
        spec = part.sample_spec
        if same_structure(first, spec) and flatten(first) == flatten(spec):
            continue
        said = [
            ", ".join(f"{s.dtype}{list(s.shape)}" for s in flatten(form)) for form in (first, spec)
        ]
        raise ValueError(
            f"samples of loader {k} ({said[1]}) differ from those of loader 0 ({said[0]}), but one "
            "batch contains both: make them alike with size=, dtype= or transform=."
        )


def weights_of(parts: list[SequenceLoader]) -> Array | None:
    """The sample weights of all loaders together, if any loader has some."""
    # If a transform takes weights, they come with the samples.
    weights = [part.runner.delivery.weights for part in parts]
    if all(one is None for one in weights):
        return None
    sources = [part.source for part in parts]
    return np.concatenate(
        [
            np.ones(len(p), np.float32) if w is None else w
            for p, w in zip(sources, weights, strict=True)
        ]
    )
