"""Reproducible augmentation with Albumentations and Keras layers, as `transform=` and `batch_transform=`.

This module does not import Albumentations: a user who passes a pipeline has already imported it.
"""

from __future__ import annotations

import copy
import inspect
import random
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kloaders.core import forks
from kloaders.core.arrays import Array
from kloaders.core.structure import is_text, map_structure

__all__ = ["albumentations_transform", "keras_transform"]

# The library's name for x or y as a whole, or its names for some entries of a dict.
Names = str | Mapping[str, str] | None

# Fills the empty rows of arrays of boxes, keypoints and their labels.
_PADDING = -1
# A label field that we add to keypoints, with the row of each; the pipeline keeps it beside the keypoint.
_ROW = "kloaders_row"


def albumentations_transform(pipeline: Any, y: Names = None, x: Names = "image") -> Any:
    """`transform=` that applies an albumentations pipeline, seeded for each sample.

    Args:
        pipeline: an `albumentations.Compose`, or one of its transforms. Its own `seed` is ignored.
        y: the pipeline's targets for the labels. None: the labels pass unchanged. A name: all of y is
            that target ("mask", "masks", "keypoints"). A dict from y's keys to targets, such as
            `{"boxes": "bboxes", "classes": "labels"}` ("labels" being one of `label_fields` of the
            pipeline's BboxParams); other keys pass unchanged.
        x: the same for the inputs; by default all of x is the image. For a dict: {"photo": "image"}.

    Boxes, keypoints and their label fields have the same number of rows in all samples; rows of -1 are
    empty. If the pipeline drops boxes, the empty rows are at the end. A dropped keypoint leaves its own
    row empty, since row 3 may always be the left elbow; the other keypoints keep their rows.

    Each thread has a copy of the pipeline, seeded for each sample: the same sample of the same epoch
    gets the same result with any number of threads or processes. Put all transforms into one Compose.
    An `A.Lambda` that draws its own random numbers is not reproducible.

    Raises:
        TypeError: `pipeline` cannot be seeded (albumentations before 2.0).
    """
    if not callable(getattr(pipeline, "set_random_state", None)):
        raise TypeError(
            f"albumentations_transform({type(pipeline).__name__}): expected a pipeline such as "
            "A.Compose([...]) of albumentations 2.0 or newer, which can be seeded from outside."
        )
    return _Albumentations(pipeline, y, x)


def keras_transform(layer: Any, y: Names = None, x: Names = None) -> Any:
    """`batch_transform=` (or `transform=`) that applies a Keras preprocessing layer, seeded for each batch.

    For layers that cannot be in the model: those that change labels too (MixUp, CutMix, boxes and
    masks). A layer that changes images only is faster inside the model, on the accelerator.

    Args:
        layer: a layer, `keras.layers.Pipeline` or `keras.Sequential` of layers. It is called with
            training=True, through `stateless_call`: every random generator in it is seeded for this
            batch, and it keeps no state from one call to the next.
        y: the layer's names for the labels. None: the labels pass unchanged, and the layer gets x
            alone. A name: all of y is that entry of the dict that the layer gets ("labels",
            "segmentation_masks", "bounding_boxes"). A dict from y's keys to such names; other keys
            pass unchanged.
        x: the same for the inputs, if x is a dict: `{"photo": "images"}`.

    The result for a batch is the same with any number of threads on one backend; it differs between
    backends. The layer runs on the CPU, in this process. With processes=True pass it as
    `batch_transform=`.

    Raises:
        TypeError: `layer` is not a Keras layer.
        ValueError: it draws from a global generator (AugMix).
    """
    if not callable(getattr(layer, "stateless_call", None)):
        raise TypeError(
            f"keras_transform({type(layer).__name__}): expected a layer of Keras 3, such as "
            "keras.layers.MixUp()."
        )
    if any(type(inner).__name__ == "AugMix" for inner in _inside(layer)):
        raise ValueError(
            "AugMix draws from Python's global generator and cannot be repeated: use RandAugment, or "
            "put it into the model."
        )
    return _KerasLayer(layer, y, x)


class _Targets:
    """Maps parts of x and y to the library's names, and its results back to x and y."""

    def __init__(self, x: Names, y: Names) -> None:
        for name, given in (("x", x), ("y", y)):
            if given is not None and not isinstance(given, (str, Mapping)):
                raise TypeError(
                    f"{name}={given!r:.80}, expected a name, or a dict from keys of {name} to names."
                )
        self.names = x, y

    def collect(self, x: Any, y: Any) -> dict[str, Any]:
        """The parts of x and y that have a name, by name."""
        found: dict[str, Any] = {}
        for part, said, names in zip((x, y), "xy", self.names, strict=True):
            if isinstance(names, str):
                found[names] = part
            elif names is not None:
                missing = [k for k in names if not isinstance(part, dict) or k not in part]
                if missing:
                    has = sorted(part) if isinstance(part, dict) else f"a {type(part).__name__}"
                    raise KeyError(f"{said} has no entry {missing[0]!r:.80}: it is {has}.")
                found |= {name: part[key] for key, name in names.items()}
        return found

    def put_back(self, made: Mapping[str, Any], x: Any, y: Any) -> tuple[Any, Any]:
        """Return x and y, with the new values in place of the old ones."""
        parts = []
        for part, names in zip((x, y), self.names, strict=True):
            if isinstance(names, str):
                parts.append(made[names])
            elif names is not None:
                parts.append({**part, **{key: made[name] for key, name in names.items()}})
            else:
                parts.append(part)
        return parts[0], parts[1]


class _Albumentations:
    def __init__(self, pipeline: Any, y: Names, x: Names) -> None:
        self.pipeline = pipeline
        self.targets = _Targets(x, y)
        # The pipeline has a processor for bboxes and one for keypoints. Each has label fields, which
        # have the same rows as the target.
        self.rows = {
            name: [name, *(getattr(processor.params, "label_fields", None) or ())]
            for name, processor in getattr(pipeline, "processors", {}).items()
        }
        # Label fields belong to one target only: with several targets of keypoints, rows get no numbers.
        keypoints = getattr(pipeline, "processors", {}).get("keypoints")
        self.numbered = keypoints is not None and len(keypoints.data_fields) == 1
        self._own = threading.local()

    def _copy_of_pipeline(self) -> Any:
        """A copy of the pipeline for one thread; it returns the row number of each keypoint."""
        pipeline = copy.deepcopy(self.pipeline)
        if self.numbered:
            fields = [*self.rows["keypoints"][1:], _ROW]
            pipeline.processors["keypoints"].params.label_fields = fields
        return pipeline

    def __call__(self, x: Any, y: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        pipeline = getattr(self._own, "pipeline", None)
        if pipeline is None:
            pipeline = self._own.pipeline = self._copy_of_pipeline()
        pipeline.set_random_state(rng, random.Random(int(rng.integers(2**63))))  # noqa: S311
        given = self.targets.collect(x, y)
        made = pipeline(**self._without_padding(given))
        return self.targets.put_back(self._padded(made, given), x, y)

    def _without_padding(self, given: dict[str, Any]) -> dict[str, Any]:
        found = dict(given)
        if self.numbered:
            found[_ROW] = np.zeros(0, np.int64)  # required even if there are no keypoints
        for name, fields in self.rows.items():
            if name in given:
                there = ~np.all(np.asarray(given[name]) == _PADDING, axis=-1)
                for field in fields:
                    if field in given:
                        found[field] = np.asarray(given[field])[there]
                if name == "keypoints" and self.numbered:
                    found[_ROW] = np.flatnonzero(there)
        return found

    def _padded(self, made: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        found = dict(made)
        for name, fields in self.rows.items():
            for field in fields if name in given else ():
                if field in given:
                    like = np.asarray(given[field])
                    rows = np.full_like(like, _PADDING)
                    values = np.asarray(made[field], like.dtype).reshape(-1, *like.shape[1:])
                    rows[self._rows_of(name, made, len(values), len(rows))] = values
                    found[field] = rows
        return found

    def _rows_of(self, name: str, made: dict[str, Any], left: int, rows: int) -> Any:
        """The rows of a target that the pipeline has kept."""
        if name != "keypoints":
            return slice(left)
        if self.numbered:
            return np.asarray(made[_ROW], np.int64)
        if left < rows:
            raise ValueError(
                f"the pipeline kept {left} of {rows} keypoints, and with additional_targets= for "
                "keypoints it is not known which: make the pipeline with "
                "A.KeypointParams(..., remove_invisible=False), and pass no rows of -1."
            )
        return slice(rows)

    def comparable_value(self) -> Any:
        """The settings of the pipeline, without the state of its random generators."""
        return self.pipeline.to_dict(), self.targets.names

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_own"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own = threading.local()


class _KerasLayer:
    #: Worker processes have no Keras: `pool.check_sendable` looks for this attribute.
    needs_keras = True

    def __init__(self, layer: Any, y: Names, x: Names) -> None:
        # A layer that gets a dict expects images under the key "images".
        self.alone = y is None and x is None
        self.layer = layer
        self.targets = _Targets("images" if x is None else x, y)
        self.after_fork()
        forks.watch(self)
        self._state: tuple[list[Any], list[Any]] | None = None

    def __call__(self, x: Any, y: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        import keras

        given = self.targets.collect(x, y)
        with keras.device("cpu"):
            put = _tensor
            data = {name: _mapped(put, value) for name, value in given.items()}
            trainable, other = self._values(data)
            # A seed is a pair of small integers on every backend.
            values = [
                rng.integers(2**31, size=value.shape).astype(value.dtype) if seed else value
                for value, seed in other
            ]
            # stateless_call writes to no variable, so threads may call it at the same time.
            made, _ = self.layer.stateless_call(
                [put(value) for value in trainable],
                [put(value) for value in values],
                data["images"] if self.alone else dict(data),
                **({"training": True} if _takes_training(self.layer) else {}),
            )
            made = {"images": made} if self.alone else made
            found = {name: _mapped(_numpy, made[name]) for name in data}
        mask = given.get("segmentation_masks")
        if mask is not None:  # nearest-neighbour interpolation: classes, but as floats
            found["segmentation_masks"] = found["segmentation_masks"].astype(mask.dtype)
        return self.targets.put_back(found, x, y)

    def _values(self, data: dict[str, Any]) -> tuple[list[Any], list[Any]]:
        """-> (values of trainable variables, [(value, whether it is a seed)] of the others)."""
        import keras

        with self._lock:
            if self._state is None:
                if not self.layer.built:
                    self.layer(data["images"] if self.alone else dict(data))
                plain = keras.ops.convert_to_numpy
                other = self.layer.non_trainable_variables
                self._state = (
                    [np.array(plain(v)) for v in self.layer.trainable_variables],
                    [(np.array(plain(v)), v.name == "seed_generator_state") for v in other],
                )
            return self._state

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_state": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.after_fork()
        forks.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()


def _inside(layer: Any) -> Iterator[Any]:
    """A layer, and all layers inside it."""
    yield layer
    for inner in getattr(layer, "layers", ()):
        yield from _inside(inner)


def _takes_training(layer: Any) -> bool:
    return "training" in inspect.signature(layer.call).parameters


def _mapped(function: Any, value: Any) -> Any:
    return map_structure(function, value)


def _tensor(value: Any) -> Any:
    import keras

    if isinstance(value, np.ndarray) and is_text(value.dtype):
        import tensorflow as tf  # layers for texts need it on every backend

        return tf.constant(value)
    return keras.ops.convert_to_tensor(value)


def _numpy(tensor: Any) -> Array:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor))
