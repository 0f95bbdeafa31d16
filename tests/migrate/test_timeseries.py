"""`timeseries_dataset_from_array` gives what Keras' own gives, window by window."""

import time

import keras
import numpy as np
import pytest

from kloaders.migrate import timeseries_dataset_from_array
from tests.support.recording import BACKEND

keras_own = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="Keras' own makes a tf.data.Dataset, which TensorFlow is for"
)
ROWS = 60


def parts(batch):
    return batch if isinstance(batch, tuple) else (batch,)


CALLS = {
    "plain": {"sequence_length": 9},
    "one window a batch": {"sequence_length": 9, "batch_size": 1},
    "stride": {"sequence_length": 9, "sequence_stride": 4},
    "sampling rate": {"sequence_length": 9, "sampling_rate": 3},
    "both": {"sequence_length": 4, "sequence_stride": 5, "sampling_rate": 2},
    "from a row on": {"sequence_length": 9, "start_index": 7},
    "up to a row": {"sequence_length": 9, "end_index": 50},
    "a range": {
        "sequence_length": 3,
        "sampling_rate": 2,
        "sequence_stride": 3,
        "start_index": 10,
        "end_index": 41,
    },
    "from row 0 on": {"sequence_length": 3, "start_index": 0},
    "one window": {"sequence_length": ROWS},
}
DATA = {
    "whole numbers": lambda: np.arange(ROWS),
    "float64": lambda: np.arange(ROWS) / 2,
    "columns": lambda: np.arange(ROWS * 3, dtype="float32").reshape(ROWS, 3),
    "pictures": lambda: np.arange(ROWS * 8, dtype="uint8").reshape(ROWS, 2, 4),
    "list": lambda: [float(k) for k in range(ROWS)],
    "columns turned": lambda: np.arange(ROWS * 3, dtype="float32").reshape(3, ROWS).T,
}
TARGETS = {
    "no targets": lambda: None,
    "numbers": lambda: np.arange(ROWS) * 2,
    "rows": lambda: np.arange(ROWS * 2, dtype="float32").reshape(ROWS, 2),
}


def assert_the_same(own, loader):
    batches, others = list(own), list(loader.epoch_batches())
    assert len(batches) == len(others) == len(loader)
    for batch, other in zip(batches, others, strict=True):
        arrays = map(np.asarray, parts(batch))
        for array, ours in zip(arrays, parts(other), strict=True):
            assert array.dtype == ours.dtype
            np.testing.assert_array_equal(array, ours)


@keras_own
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("call", CALLS)
def test_windows_are_those_of_keras(call, targets, keep):
    arguments = {"batch_size": 5, **CALLS[call]}
    data, given = DATA["columns"](), TARGETS[targets]()
    own = keras.utils.timeseries_dataset_from_array(data, given, **arguments)
    assert_the_same(own, keep(timeseries_dataset_from_array(data, given, **arguments)))


@keras_own
@pytest.mark.parametrize("data", DATA)
def test_dtypes_are_those_of_keras(data, keep):
    values = DATA[data]()
    own = keras.utils.timeseries_dataset_from_array(values, None, 4, batch_size=5)
    assert_the_same(own, keep(timeseries_dataset_from_array(values, None, 4, batch_size=5)))


@keras_own
def test_targets_may_be_fewer_than_windows(keep):
    data, targets = np.arange(10), np.arange(10)[3:]
    own = keras.utils.timeseries_dataset_from_array(data, targets, 3, batch_size=1)
    loader = keep(timeseries_dataset_from_array(data, targets, 3, batch_size=1))
    assert_the_same(own, loader)
    assert len(loader) == 7


def test_shuffled_every_window_comes_once_with_its_target(keep):
    loader = keep(
        timeseries_dataset_from_array(
            np.arange(ROWS), np.arange(ROWS) * 2, 9, batch_size=5, shuffle=True, seed=3
        )
    )
    seen = []
    for epoch in range(2):
        x, y = map(np.concatenate, zip(*loader.epoch_batches(epoch), strict=True))
        np.testing.assert_array_equal(x[:, 0] * 2, y)
        np.testing.assert_array_equal(x, x[:, :1] + np.arange(9))
        assert sorted(x[:, 0].tolist()) == list(range(ROWS - 8))
        seen.append(x[:, 0].tolist())
    assert seen[0] != seen[1]
    again = keep(
        timeseries_dataset_from_array(
            np.arange(ROWS), np.arange(ROWS) * 2, 9, batch_size=5, shuffle=True, seed=3
        )
    )
    assert np.concatenate([x[:, 0] for x, _ in again.epoch_batches()]).tolist() == seen[0]


def test_targets_can_be_balanced(keep):
    """They are known without reading a window."""
    loader = keep(
        timeseries_dataset_from_array(
            np.arange(ROWS),
            (np.arange(ROWS) >= 48).astype(int),
            5,
            batch_size=4,
            shuffle=True,
            class_balance=True,
            start_index=20,
        )
    )
    assert [int(y.sum()) for _, y in loader.epoch_batches()][:5] == [2] * 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"start_index": -1}, "`start_index` must be"),
        ({"start_index": 11}, "`start_index` must be"),
        ({"end_index": -1}, "`end_index` must be"),
        ({"end_index": 0}, "`end_index` must be"),
        ({"end_index": 11}, "`end_index` must be"),
        ({"start_index": 5, "end_index": 5}, "`end_index` must be"),
        ({"sampling_rate": 0}, "`sampling_rate` must be"),
        ({"sampling_rate": 10}, "`sampling_rate` must be"),
        ({"sequence_stride": 0}, "`sequence_stride` must be"),
        ({"sequence_stride": 10}, "`sequence_stride` must be"),
        ({"format": "torch"}, "`format` should be"),
        ({"sequence_length": 11}, "Lower sequence_length"),
        ({"sequence_length": 6, "start_index": 6}, "Lower sequence_length"),
    ],
)
def test_what_keras_refuses_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        timeseries_dataset_from_array(np.ones(10), None, **{"sequence_length": 3, **arguments})


def test_several_series_are_refused():
    with pytest.raises(TypeError, match="WindowSequenceLoader takes several"):
        timeseries_dataset_from_array([np.ones(10), np.ones(10)], None, 3)


def test_an_option_that_is_not_known_is_named():
    with pytest.raises(TypeError, match="has no option suffle=: did you mean shuffle="):
        timeseries_dataset_from_array(np.ones(10), None, 3, suffle=True)


@pytest.mark.slow
@keras_own
def test_it_is_twenty_times_as_fast_as_keras_own_when_shuffled(keep):
    """Windows per second of a shuffled epoch, the best of two each."""
    data = np.random.default_rng(0).random((40_000, 8), np.float32)
    arguments = {"sequence_length": 48, "batch_size": 32, "shuffle": True, "seed": 1}

    def speed(epoch):
        start = time.perf_counter()
        count = sum(len(x) for x, _ in epoch)
        return count / (time.perf_counter() - start)

    own = keras.utils.timeseries_dataset_from_array(data, data[:, 0], **arguments)
    loader = keep(timeseries_dataset_from_array(data, data[:, 0], **arguments))
    list(loader.epoch_batches())
    ours = max(speed(loader.epoch_batches(epoch)) for epoch in (1, 2))
    theirs = speed(own.take(300))
    assert ours > 20 * theirs, f"{ours:,.0f} windows/s, Keras {theirs:,.0f}"
