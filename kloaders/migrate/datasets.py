"""Loaders that replace Keras' datasets, with the methods of a tf.data.Dataset that users call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

from kloaders.core.checks import checked_count
from kloaders.core.messages import warn
from kloaders.core.options import Options, shows_options
from kloaders.core.structure import map_structure
from kloaders.loaders.paths import PathOptions, PathSequenceLoader
from kloaders.loaders.sequence import SequenceLoader

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kloaders.sources.source import Source

__all__ = ["Batches", "FilesDataset", "WindowsDataset", "check_format"]

# Other methods of a Dataset, which a loader does not have; docs/from-tf-data.md has replacements.
_VERBS = frozenset(
    {
        *("apply", "as_numpy_iterator", "batch", "cardinality", "concatenate", "element_spec"),
        *("enumerate", "filter", "flat_map", "interleave", "map", "padded_batch", "prefetch"),
        *("repeat", "skip", "unbatch", "with_options", "zip"),
    }
)


def check_format(value: Any) -> None:
    """Raise ValueError for a `format` that Keras does not know. The two values have the same effect."""
    if value not in ("tf", "grain"):
        raise ValueError(
            f'`format` should be "tf" or "grain", and format={value!r:.80} is neither: leave it out, '
            "since the result is a loader in any case."
        )


class _Dataset(SequenceLoader):
    """A loader with `take` and single samples, as Keras' datasets have them.

    Attributes:
        unbatched: whether a `for` loop gives single samples, because batch_size=None.
    """

    unbatched: bool

    def _checked_size(self, batch_size: int | None) -> int:
        """The batch size, 1 for None; called before the loader is set up."""
        self.unbatched = batch_size is None
        if batch_size is not None:
            return batch_size
        warn(
            "batch_size=None: `for sample in loader` gives single samples, but loader[i] and fit get "
            "batches of one sample, which is slow. For training pass a batch_size, such as 32."
        )
        return 1

    def __iter__(self) -> Iterator[Any]:
        """One epoch of batches, or of single samples if batch_size=None; see `SequenceLoader`."""
        batches = super().__iter__()
        return self._samples(batches) if self.unbatched else batches

    def _samples(self, batches: Any) -> Iterator[Any]:
        with closing(batches):  # so that leaving the loop early ends the epoch at once
            for batch in batches:
                yield map_structure(lambda array: array[0], batch)

    def take(self, count: int) -> Batches:
        """The first batches of each epoch, to look at: `for x, y in loader.take(1)`.

        Each loop begins another epoch, in the loader's own order. To train on a part of each epoch,
        pass the loader itself to `fit`, with steps_per_epoch=count.

        Args:
            count: the number of batches (of samples, if batch_size=None); -1 for all.

        Raises:
            TypeError, ValueError: `count` is not such a number.
        """
        return Batches(self, None if count == -1 else checked_count(count, "count", 0))

    def __getattr__(self, name: str) -> Any:
        if name in _VERBS:
            raise AttributeError(
                f"{type(self).__name__!r:.80} object has no attribute {name!r:.80}, which belongs to "
                "tf.data.Dataset: kl.to_tf_dataset(loader, shuffle=True) makes a Dataset of this loader. "
                "Loaders have options instead, such as transform= for map, and always prefetch."
            )
        return super().__getattr__(name)


class Batches:
    """The first batches of each epoch of a loader, as returned by `take`.

    Args:
        loader: any loader.
        count: the number of batches; None for all.
    """

    def __init__(self, loader: SequenceLoader, count: int | None) -> None:
        self._loader, self._count = loader, count

    def __len__(self) -> int:
        whole = len(self._loader)
        return whole if self._count is None else min(whole, self._count)

    def __iter__(self) -> Iterator[Any]:
        if self._count == 0:
            return
        batches: Any = iter(self._loader)
        with closing(batches):
            yield from islice(batches, self._count)


class FilesDataset(_Dataset, PathSequenceLoader):
    """The result of `image_dataset_from_directory` and similar functions: a `PathSequenceLoader` with `take`.

    Args:
        paths: the files.
        labels: their labels, or None.
        batch_size: samples per batch; None: `for` gives single samples.
        **options: of `PathSequenceLoader`.
    """

    @shows_options(PathOptions, PathSequenceLoader.__init__)
    def __init__(
        self,
        paths: Any,
        labels: Any = None,
        batch_size: int | None = 32,
        **options: Unpack[PathOptions],
    ) -> None:
        PathSequenceLoader.__init__(self, paths, labels, self._checked_size(batch_size), **options)


class WindowsDataset(_Dataset):
    """The result of `timeseries_dataset_from_array`: a loader over windows with `take`.

    Args:
        source: the windows.
        batch_size: windows per batch; None: `for` gives single windows.
        **options: see `SequenceLoader`.
    """

    @shows_options(Options)
    def __init__(
        self, source: Source, batch_size: int | None = 128, **options: Unpack[Options]
    ) -> None:
        super().__init__(source, self._checked_size(batch_size), **options)
