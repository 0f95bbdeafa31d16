"""Multiplies weights from several sources, and keeps weights through a transform."""

from __future__ import annotations

from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.calls import Call
from kloaders.core.structure import Structure, flatten, map_structure, same_structure

__all__ = ["check_fits", "product", "with_weights"]


def product(a: Structure, b: Structure) -> Structure:
    """Multiply weights from two sources: for all outputs together, or output by output.

    An array with fewer axes applies to every value along the other array's remaining axes.

    Raises:
        TypeError: both are for several outputs, but nested differently.
    """
    if not isinstance(a, (tuple, dict)) and isinstance(b, (tuple, dict)):
        return map_structure(lambda one: _times(a, one), b)
    if not isinstance(b, (tuple, dict)):
        return map_structure(lambda one: _times(one, b), a)
    if not same_structure(a, b):
        raise TypeError(
            "weights from two sources cannot be multiplied, because they are nested differently: pass "
            "both in the same tuples and dicts as y."
        )
    return map_structure(_times, a, b)


def _times(a: Array, b: Array) -> Array:
    axes = max(a.ndim, b.ndim)
    a, b = (np.reshape(v, (*v.shape, *[1] * (axes - v.ndim))) for v in (a, b))
    return np.asarray(a * b)


def with_weights(made: tuple[Any, ...], own: Structure, call: Call, name: str) -> tuple[Any, ...]:
    """The parts of a transform's result, with the weights of its input.

    Args:
        made: (x,), (x, y) or (x, y, weights).
        own: weights of the sample, or of the batch if `name` is "batch_transform"; None for none.
        call: the transform, and the arguments that it takes.
        name: the option's name.

    Raises:
        TypeError: weights were lost, or were not transformed with x and y.
    """
    if own is None:
        return made
    if call.takes("w"):
        if len(made) < 3:
            raise TypeError(
                f"{name} was given weights as w, but returned none: return (x, y, w), with weights "
                "for the x and y that it returns."
            )
        return made
    first = 1 if name == "batch_transform" else 0
    for array in flatten(own):
        if np.prod(array.shape[first:], dtype=np.int64) > 1:
            raise TypeError(
                f"{name} takes only x and y, but each sample has weights of shape "
                f"{array.shape[first:]}, which would stay untransformed: add a parameter, "
                f"{name}(x, y, w, rng), and return (x, y, w)."
            )
    if len(made) == 1:
        raise TypeError(
            f"{name} returned no labels, but the samples have weights: Keras applies weights to a loss, and "
            "without labels there is none. Leave sample_weights out, or return labels."
        )
    return *made[:2], own if len(made) == 2 else product(own, made[2])


def check_fits(weights: Structure, y: Structure) -> None:
    """Raise ValueError if the weights of a batch do not fit its labels.

    Weights are either one array for all outputs, or nested like y. There is one weight for each sample,
    or for each position along the first axes of the sample's labels.
    """
    if not isinstance(weights, (tuple, dict)):
        pairs = [(weights, label) for label in flatten(y)]
    elif same_structure(weights, y):
        pairs = list(zip(flatten(weights), flatten(y), strict=True))
    else:
        raise ValueError(
            f"weights are {_said(weights)}, and labels {_said(y)}, so it is unclear which "
            "weights are for which labels: pass one array for all, or nest the weights like y."
        )
    for w, label in pairs:
        axes = w.shape[1:]
        while axes and axes[-1] == 1:
            axes = axes[:-1]
        if axes != label.shape[1 : 1 + len(axes)]:
            raise ValueError(
                f"the weights of a sample have shape {w.shape[1:]}, and its labels {label.shape[1:]}: "
                "expected one weight for each sample, or for each position along the first axes of the "
                "labels. A sample is (x, y, weights); two inputs and a label are ((x1, x2), y)."
            )


def _said(structure: Structure) -> str:
    if isinstance(structure, dict):
        return f"a dict of {', '.join(map(repr, structure))}"[:80]
    return f"a tuple of {len(structure)}" if isinstance(structure, tuple) else "one array"
