"""Loaders whose inputs are also their labels."""

from __future__ import annotations

from typing import TypeVar

from kloaders.loaders.checking import check_loader
from kloaders.loaders.sequence import SequenceLoader

__all__ = ["inputs_as_labels"]

L = TypeVar("L", bound=SequenceLoader)


def inputs_as_labels(loader: L) -> L:
    """A loader of the same kind whose labels are its inputs, for an autoencoder.

    A sample is read and copied once: x and y of a batch are the same array. A transform gets the input as
    both x and y, also the same array, and changes either: return `(x + noise, y)` to train a denoiser, or
    both for changes that both should have.

    Args:
        loader: any loader without labels; options and data are shared with it.

    Raises:
        ValueError: the loader has labels.

    >>> import numpy as np
    >>> from kloaders.loaders.arrays import ArraySequenceLoader
    >>> x, y = inputs_as_labels(ArraySequenceLoader(np.arange(5), batch_size=5))[0]
    >>> x is y
    True
    """
    check_loader(loader, "inputs_as_labels")
    if len(loader.raw_spec) > 1:
        raise ValueError(
            f"inputs_as_labels({type(loader).__name__}): this loader already has labels. Make one "
            "without them, or return (x, x) from transform=."
        )
    return loader.replace(inputs_as_labels=True)
