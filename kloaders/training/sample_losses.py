"""Computes the loss of each sample of an epoch, to find the samples that are hardest for a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.checks import checked_count
from kloaders.core.structure import flatten, map_structure
from kloaders.loaders.sequence import SequenceLoader

__all__ = ["SampleResults", "sample_results"]


@dataclass(frozen=True)
class SampleResults:
    """Losses and predictions of a model for the samples of an epoch: one row per sample, in data order.

    Attributes:
        epoch: the number of the loader's epoch, from 0.
        ids: sample numbers, int64. Samples that failed to load are left out.
        names: the names of the samples, as in errors: files, or positions in files.
        losses: float64, without sample weights and regularization; the mean, if a sample occurs
            several times. None without labels.
        predictions: float, shape (samples, values), if the model has one output with at most two
            dimensions; otherwise None.
    """

    epoch: int
    ids: Indices
    names: list[str]
    losses: Array | None
    predictions: Array | None

    def worst(self, count: int = 10) -> list[tuple[str, float]]:
        """Names and losses of the samples with the highest loss, the highest first; NaN before all.

        Raises:
            ValueError: the loader has no labels, so there are no losses.
        """
        if self.losses is None:
            raise ValueError(
                "worst() needs losses, but the loader has no labels: use `predictions` instead."
            )
        order = np.argsort(-np.nan_to_num(self.losses, nan=np.inf), kind="stable")
        chosen = order[: checked_count(count, "count", 1)].tolist()
        return [(self.names[k], float(self.losses[k])) for k in chosen]


def sample_results(model: Any, loader: SequenceLoader, epoch: int) -> SampleResults:
    """Losses and predictions of a model for the samples of an epoch, which are loaded once more.

    Transforms draw the random numbers of that epoch. The model is in inference mode.

    Args:
        model: a compiled keras.Model.
        loader: its position in the data does not change.
        epoch: the epoch's number.
    """
    losses = _Losses(model)
    numbers: list[Indices] = []
    found: list[Array] = []
    outputs: list[Any] = []
    shuffled = loader.options.effective_shuffle is not False
    # Samples that fail to load are already in the quarantine file.
    faults = replace(loader.options.faults, quarantine=None)
    with loader.replace(faults=faults) as view:
        labelled = len(view.runner.delivered_spec) > 1
        for batch in view.epoch_batches(epoch, shuffle=shuffled):
            ids = view.ids_of(batch)
            x, y = batch[:2] if labelled else (batch, None)
            predicted = model.predict_on_batch(x)
            there = ids >= 0
            numbers.append(ids[there])
            if y is not None:
                found.append(losses(x, y, predicted)[there])
            if isinstance(predicted, np.ndarray) and predicted.ndim <= 2:
                outputs.append(predicted.reshape(len(predicted), -1)[there])
    ids, rows = np.unique(np.concatenate(numbers), return_inverse=True)
    counts = np.bincount(rows)

    def mean(values: Array) -> Array:
        summed = np.zeros((len(ids), *values.shape[1:]))
        np.add.at(summed, rows, values)
        divided: Array = summed / counts.reshape(-1, *[1] * (values.ndim - 1))
        return divided

    return SampleResults(
        epoch,
        ids,
        [loader.source.name(k) for k in ids.tolist()],
        mean(np.concatenate(found)) if found else None,
        mean(np.concatenate(outputs)) if outputs else None,
    )


class _Losses:
    """Computes the loss of each row of a batch, with the loss that the model was compiled with."""

    def __init__(self, model: Any) -> None:
        import keras

        self.model, self.keras = model, keras
        self.one: Any = None
        loss = model.loss
        own = type(model).compute_loss is not keras.Model.compute_loss
        if isinstance(loss, str) or callable(loss):
            self.one = keras.losses.get(loss)
        # These losses have no value per row at once: they are computed row by row.
        if own or getattr(self.one, "ignore_class", None) is not None:
            self.one = None

    def __call__(self, x: Any, y: Any, predicted: Any) -> Array:
        """Return the losses, float64, one value per row."""
        single = not isinstance(y, (tuple, dict)) and isinstance(predicted, np.ndarray)
        rows = self._at_once(y, predicted) if self.one is not None and single else None
        if rows is not None and rows.shape[:1] == y.shape[:1]:
            found: Array = rows.reshape(len(rows), -1).mean(axis=1)
            return found
        return np.array([self._alone(k, x, y, predicted) for k in range(len(flatten(x)[0]))])

    def _at_once(self, y: Array, predicted: Array) -> Array:
        ops = self.keras.ops
        if isinstance(self.one, self.keras.losses.Loss):
            rows = self.one.call(ops.convert_to_tensor(y), ops.convert_to_tensor(predicted))
        else:
            # These functions average over the last axis, so Keras adds that axis if it is missing.
            if y.ndim == predicted.ndim - 1 and predicted.shape[-1] == 1:
                y = y[..., None]
            elif y.ndim == predicted.ndim + 1 and y.shape[-1] == 1:
                predicted = predicted[..., None]
            rows = self.one(ops.convert_to_tensor(y), ops.convert_to_tensor(predicted))
        return np.asarray(ops.convert_to_numpy(rows), np.float64)

    def _alone(self, k: int, x: Any, y: Any, predicted: Any) -> float:
        """The loss of row k, computed as in a batch of this sample only."""
        x, y, predicted = (
            map_structure(lambda a: self.keras.ops.convert_to_tensor(a[k : k + 1]), part)
            for part in (x, y, predicted)
        )
        found = self.model.compute_loss(x=x, y=y, y_pred=predicted)
        for more in self.model.losses:  # regularization, which depends on weights, not on samples
            found = found - more
        return float(self.keras.ops.convert_to_numpy(found))
