"""One loader out of several, in fixed proportions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.structure import Structure, flatten, same_structure
from kloaders.loaders.sequence import Options, SequenceLoader, check_loader, check_names
from kloaders.plan.epoch import Stream
from kloaders.plan.rng import Draw, part_of
from kloaders.plan.sampling import Sampling
from kloaders.plan.streams import InOrder, Mixture, ShuffledPasses, pattern_of
from kloaders.sources.cache.store import Store
from kloaders.sources.columns import Odd, Report

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["mix"]

Indices = np.ndarray[Any, np.dtype[np.int64]]
Array = np.ndarray[Any, np.dtype[Any]]

# Options that are the mixture's own; all others belong to the loaders in it.
_OWN = (
    *("seed", "drop_last", "pad_last", "shard", "epoch_batches", "batch_transform", "workers"),
    *("processes", "on_error", "max_queue_size"),
)


def mix(
    loaders: Sequence[SequenceLoader],
    proportions: Sequence[float] | None = None,
    batch_size: int | None = None,
    **options: Unpack[Options],
) -> SequenceLoader:
    """A loader whose batches are mixed from several loaders, in fixed proportions.

    Of the first t samples of the stream, and so of an epoch or of any number of batches, each
    loader gave its share, to within one. A loader goes through its own samples in its own order
    (shuffle=None: shuffled; class_balance and sampling_weights hold), each pass after the last: a
    small one comes around more often. Its transform, dtype and cache stay its own; its batch size,
    batch_transform and epoch_batches are left aside. In a batch, samples of one loader are together.

    Args:
        loaders: two or more, whose samples have one structure, shape and dtype.
        proportions: one positive number for each, such as [0.7, 0.3]; None: as many samples as
            each has.
        batch_size: samples a batch; None: that of the first loader.
        **options: of the mixture: epoch_batches, batch_transform, shard, seed, drop_last, pad_last,
            workers, processes, on_error, max_queue_size. An epoch has as many batches as all
            samples together make, unless epoch_batches= says otherwise.

    Raises:
        ValueError: samples differ in structure, shape or dtype (both are named); a loader has RAM
            batches or a shard; proportions are no positive numbers.
        SampleError: the first sample of a loader does not load.

    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> a = ArraySequenceLoader(np.arange(100), batch_size=10, seed=1)
    >>> b = ArraySequenceLoader(np.arange(100, 105), batch_size=10, seed=1)
    >>> batch = mix([a, b], [0.7, 0.3])[0]
    >>> int((batch < 100).sum()), int((batch >= 100).sum())
    (7, 3)
    """
    return _Mixed(loaders, proportions, batch_size, options)


class _Mixed(SequenceLoader):
    """Samples of several loaders, numbered one loader after another."""

    def __init__(self, loaders: Any, proportions: Any, batch_size: Any, options: Any) -> None:
        for name in options:
            if name in Options.__annotations__ and name not in _OWN:
                raise ValueError(
                    f"mix({name}=): give {name}= to the loaders that are mixed; a mixture itself has "
                    f"{', '.join(_OWN)}."
                )
        check_names(self, options, _OWN)
        loaders = list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]
        for loader in loaders:
            check_loader(loader, "mix")
            _check_part(loader)
        if len(loaders) < 2:
            raise ValueError(f"mix() got {len(loaders)} loader, expected two or more in a list.")
        shares = _shares(proportions, loaders)
        self._loaders = [loader.view() for loader in loaders]
        sizes = [part.samples for part in self._loaders]
        self._firsts: Indices = np.cumsum([0, *sizes[:-1]]).astype(np.int64)
        options = {"seed": loaders[0].seed, **options}
        options.setdefault("processes", any(part.processes for part in loaders))
        for part in self._loaders:
            part.processes = False  # the mixture has them
        size = loaders[0].batch_size if batch_size is None else batch_size
        super().__init__(sum(sizes), size, **options)
        _check_alike(self._loaders)
        streams: list[tuple[Stream, int]] = [(_stream(p), p.samples) for p in self._loaders]
        self._sample_as(Sampling(self.sampling.length, source=Mixture(streams, pattern_of(shares))))
        self.weights = _weights(self._loaders)
        names = [part.class_names for part in self._loaders]
        self.class_names = names[0] if all(n == names[0] for n in names) else None

    # ------------------------------------------------------------------ samples

    def _where(self, index: int) -> tuple[SequenceLoader, int]:
        """The loader of a sample, and the sample's number there."""
        k = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return self._loaders[k], index - int(self._firsts[k])

    @property
    def raw_spec(self) -> Structure:
        """ArraySpec of each array of a sample, as the loaders deliver it."""
        return self._loaders[0].sample_spec

    @property
    def sample_spec(self) -> Structure:
        """ArraySpec of each array of a sample, as the loaders deliver it."""
        return self._loaders[0].sample_spec

    def delivered_spec(self) -> Structure:
        """`sample_spec`; with a batch_transform, the spec of a row of what it gives."""
        return self._row_spec()

    def _sample(self, index: int) -> tuple[Any, ...]:
        self._check_raw()
        loader, number = self._where(index)
        return loader._sample(number)

    def _fill(
        self, indices: Indices, out: list[Array], epoch: int, draw: Draw, raw: bool, report: Report
    ) -> None:
        if raw:
            self._check_raw()
        owners = np.searchsorted(self._firsts, indices, side="right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(indices)]
        for start, stop in itertools.pairwise(cuts):
            rows = slice(start, stop)
            owner = int(owners[start])

            def told(row: int, error: Exception, start: int = start) -> None:
                if isinstance(error, Odd):
                    error.row += start
                report(start + row, error)

            self._loaders[owner]._fill(
                indices[rows] - self._firsts[owner],
                [leaf[rows] for leaf in out],
                epoch,
                part_of(draw, rows),
                raw,
                told,
            )

    def _check_raw(self) -> None:
        if any(part.transform is not None for part in self._loaders):
            raise ValueError(
                "samples of a mixed loader are transformed each time, and cannot be kept: preload "
                "or pack the loaders first, and mix what comes of it."
            )

    def _name(self, index: int) -> str:
        loader, number = self._where(index)
        return loader._name(number)

    def _advice(self, index: int, leaf: int, dtype_differs: bool, raw: bool) -> str:
        loader, number = self._where(index)
        return loader._advice(number, leaf, dtype_differs, raw)

    def _data_fingerprint(self) -> dict[str, str]:
        return {
            f"{name} of loader {k}": text
            for k, loader in enumerate(self._loaders)
            for name, text in loader._data_fingerprint().items()
        }

    def _runs_users_code(self) -> bool:
        return any(part._runs_users_code() for part in self._loaders)

    def _stores(self) -> list[Store]:
        return [store for part in self._loaders for store in part._stores()]

    def close(self) -> None:
        """Free threads, files, batches made ahead and the cache in RAM, of the loaders in it too."""
        super().close()
        for part in self.__dict__.get("_loaders", ()):
            part.close()


def _stream(loader: SequenceLoader) -> Stream:
    """A loader's own order, without end."""
    if loader.plan.stream is not None:
        return loader.plan.stream
    if loader.shuffle is False:
        return InOrder(loader.samples)
    return ShuffledPasses(loader.samples, loader.seed)


def _check_part(loader: SequenceLoader) -> None:
    kind = type(loader).__name__
    if loader._two_levels:
        raise ValueError(
            f"mix() got a {kind} with RAM batches, which hold samples in an order of their own: mix "
            'loaders of one level, such as PathSequenceLoader(paths, labels, cache="ram").'
        )
    if isinstance(loader, _Mixed):
        raise ValueError("mix() got a mixture: mix all loaders at once, with all proportions.")
    if loader._buckets is not None or loader._x_is_y:
        raise ValueError(
            f"mix() got a {kind} from bucket_by_length() or inputs_as_labels(): mix the loaders it was "
            "made of, and call that function on the mixture."
        )
    if loader.shard[1] > 1:
        raise ValueError(f"mix() got a loader with shard={loader.shard}: give shard= to mix().")


def _shares(proportions: Any, loaders: list[SequenceLoader]) -> list[float]:
    if proportions is None:
        return [float(loader.samples) for loader in loaders]
    try:
        shares = [float(share) for share in proportions]
    except (TypeError, ValueError):
        raise TypeError(
            f"proportions={proportions!r}, expected one number for each loader, as in [0.7, 0.3]."
        ) from None
    if len(shares) != len(loaders):
        raise ValueError(
            f"proportions={proportions!r} has {len(shares)} numbers for {len(loaders)} loaders, "
            "expected one for each."
        )
    if not all(0 < share < float("inf") for share in shares):
        raise ValueError(
            f"proportions={proportions!r}, expected positive numbers: leave out a loader of which "
            "nothing is wanted."
        )
    return shares


def _check_alike(parts: list[SequenceLoader]) -> None:
    first = parts[0].sample_spec
    for k, part in enumerate(parts[1:], 1):
        spec = part.sample_spec
        if same_structure(first, spec) and flatten(first) == flatten(spec):
            continue
        said = [
            ", ".join(f"{s.dtype}{list(s.shape)}" for s in flatten(form)) for form in (first, spec)
        ]
        raise ValueError(
            f"samples of loader {k} ({said[1]}) are not like those of loader 0 ({said[0]}), and one "
            "batch holds both: bring them to one form by size=, dtype= or transform=."
        )


def _weights(parts: list[SequenceLoader]) -> Array | None:
    """Sample weights of all, where any loader has some."""
    if all(part.weights is None for part in parts):
        return None
    return np.concatenate(
        [np.ones(p.samples, np.float32) if p.weights is None else p.weights for p in parts]
    )
