"""Products of weights from several sources, and the weights after a transform."""

from __future__ import annotations

from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.calls import Call
from kloaders.core.structure import Structure, flatten, map_structure, same_structure

__all__ = ["check_fits", "product", "with_weights"]


def product(a: Structure, b: Structure) -> Structure:
    """Weights that are given in two places, multiplied: for all outputs, or output by output.

    Arrays with fewer axes hold for all that the other one has behind them.

    Raises:
        TypeError: both are for several outputs, and nest otherwise.
    """
    if not isinstance(a, (tuple, dict)) and isinstance(b, (tuple, dict)):
        return map_structure(lambda one: _times(a, one), b)
    if not isinstance(b, (tuple, dict)):
        return map_structure(lambda one: _times(one, b), a)
    if not same_structure(a, b):
        raise TypeError(
            "weights of two places nest otherwise, and are to be multiplied: give both as y is, in "
            "the same tuples and dicts."
        )
    return map_structure(_times, a, b)


def _times(a: Array, b: Array) -> Array:
    axes = max(a.ndim, b.ndim)
    a, b = (np.reshape(v, (*v.shape, *[1] * (axes - v.ndim))) for v in (a, b))
    return np.asarray(a * b)


def with_weights(made: tuple[Any, ...], own: Structure, call: Call, name: str) -> tuple[Any, ...]:
    """The parts of a transform's result, with the weights of its arguments.

    Args:
        made: (x,), (x, y) or (x, y, weights).
        own: weights of the sample, or of the batch if `name` is "batch_transform"; None for none.
        call: the transform, and its arguments.
        name: its name.

    Raises:
        TypeError: weights got lost, or were not transformed with x and y.
    """
    if own is None:
        return made
    if call.takes("w"):
        if len(made) < 3:
            raise TypeError(
                f"{name} was given weights as w, and returned none: return (x, y, w), with the weights "
                "that belong to what it makes."
            )
        return made
    first = 1 if name == "batch_transform" else 0
    for array in flatten(own):
        if np.prod(array.shape[first:], dtype=np.int64) > 1:
            raise TypeError(
                f"{name} takes x and y only, and each sample has weights of shape "
                f"{array.shape[first:]}, which it would leave behind as they are: take them too, "
                f"{name}(x, y, w, rng), and return (x, y, w)."
            )
    if len(made) == 1:
        raise TypeError(
            f"{name} returned no labels, and the samples have weights: Keras weights a loss, and "
            "without labels there is none. Leave sample_weights out, or return labels."
        )
    return *made[:2], own if len(made) == 2 else product(own, made[2])


def check_fits(weights: Structure, y: Structure) -> None:
    """ValueError where the weights of a batch cannot belong to its labels.

    They are one array for all outputs, or nest as y does; each has a value for each sample, or for
    each of the first axes of its labels.
    """
    if not isinstance(weights, (tuple, dict)):
        pairs = [(weights, label) for label in flatten(y)]
    elif same_structure(weights, y):
        pairs = list(zip(flatten(weights), flatten(y), strict=True))
    else:
        raise ValueError(
            f"weights are {_said(weights)}, and labels {_said(y)}, so that it is not known which "
            "weights are for which labels: give one array for all, or nest them as y."
        )
    for w, label in pairs:
        axes = w.shape[1:]
        while axes and axes[-1] == 1:
            axes = axes[:-1]
        if axes != label.shape[1 : 1 + len(axes)]:
            raise ValueError(
                f"the weights of a sample have shape {w.shape[1:]}, and its labels {label.shape[1:]}: "
                "expected one weight for each sample, or for each of the first axes of the labels. "
                "A sample is (x, y, weights); two inputs and a label are ((x1, x2), y)."
            )


def _said(structure: Structure) -> str:
    if isinstance(structure, dict):
        return f"a dict of {', '.join(map(repr, structure))}"[:80]
    return f"a tuple of {len(structure)}" if isinstance(structure, tuple) else "one array"
