"""Loaders with the attributes and methods of Keras' image iterators."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kloaders.core.arrays import Array
from kloaders.core.options import Options, shows_options
from kloaders.loaders.arrays import ArraySequenceLoader
from kloaders.loaders.paths import PathOptions, PathSequenceLoader

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ArrayFlow", "FileFlow"]


class _KerasIterator:
    """Features of Keras' iterators that a loader lacks."""

    #: The default of shuffle: Keras' iterators use True.
    shuffle: Any
    samples: int
    weights: Any
    _served: Iterator[Any] | None = None

    @property
    def n(self) -> int:
        """The number of samples."""
        return self.samples

    @property
    def sample_weight(self) -> Array | None:
        """The weight of each sample, or None."""
        weights: Array | None = self.weights
        return weights

    def reset(self) -> None:
        """Restart `next` from the first epoch. `fit`, `evaluate` and `predict` need no reset."""
        self._served = None

    def __next__(self) -> Any:
        """The next batch. It never ends: epoch follows epoch, shuffled unless shuffle=False."""
        if self._served is None:
            self._served = self._endless()
        return next(self._served)

    def _endless(self) -> Iterator[Any]:
        view: Any = self.view()  # type: ignore[attr-defined]  # of the other base class, a loader
        order = True if self.shuffle is None else None
        for epoch in itertools.count():
            yield from view.epoch_batches(epoch, order)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]  # it is a dict
        return {name: value for name, value in state.items() if name != "_served"}


class ArrayFlow(_KerasIterator, ArraySequenceLoader):
    """The result of `ImageDataGenerator.flow`: an `ArraySequenceLoader` with the attributes of Keras' iterator.

    Args:
        x: images, or a tuple of images and other inputs.
        y: labels, or None.
        batch_size: samples per batch.
        keras: attributes, by name.
        **options: of `ArraySequenceLoader`.

    Attributes:
        image_data_generator: the generator that made it.
        data_format: "channels_last".
    """

    image_data_generator: Any
    data_format: str

    @shows_options(Options)
    def __init__(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        *,
        keras: Mapping[str, Any],
        **options: Unpack[Options],
    ) -> None:
        _set_all(self, keras)
        super().__init__(x, y, batch_size, **options)


class FileFlow(_KerasIterator, PathSequenceLoader):
    """The result of `flow_from_directory` and `flow_from_dataframe`, with the attributes of Keras' iterator.

    Args:
        paths: the files.
        labels: their labels, or None.
        batch_size: samples per batch.
        keras: attributes, by name.
        **options: of `PathSequenceLoader`.

    Attributes:
        image_data_generator: the generator that made it.
        directory: the folder that `filenames` are relative to.
        filenames: the files, relative to `directory`.
        class_mode: the argument.
        class_indices: the number of each class, by name; missing without classes.
        num_classes: the number of classes; missing without classes.
        classes: the class of each file; missing without classes.
        labels: the class of each file, or the values for "raw" and "multi_output".
        color_mode: the argument.
        target_size: (height, width).
        image_shape: (height, width, channels).
        data_format: "channels_last".
        interpolation: the argument.
        keep_aspect_ratio: the argument.
        subset: the argument.
    """

    image_data_generator: Any
    directory: str
    filenames: list[str]
    class_mode: str | None
    class_indices: dict[str, int]
    num_classes: int
    classes: Any
    labels: Any
    color_mode: str
    target_size: tuple[int, int]
    image_shape: tuple[int, int, int]
    data_format: str
    interpolation: str
    keep_aspect_ratio: bool
    subset: str | None

    @shows_options(PathOptions, PathSequenceLoader.__init__)
    def __init__(
        self,
        paths: Any,
        labels: Any = None,
        batch_size: int = 32,
        *,
        keras: Mapping[str, Any],
        **options: Unpack[PathOptions],
    ) -> None:
        _set_all(self, keras)
        super().__init__(paths, labels, batch_size, **options)

    @property
    def filepaths(self) -> list[str]:
        """The paths with which the files are opened."""
        return list(self.paths)


def _set_all(loader: Any, attributes: Mapping[str, Any]) -> None:
    """Set attributes before the loader's `__init__`: afterwards a loader refuses names of its options."""
    for name, value in attributes.items():
        setattr(loader, name, value)
