"""A loader of windows: what reaches a model, and what is refused."""

import pickle

import keras
import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import BACKEND, Received, Recorder

STEPS = 120


def table(first=0, steps=STEPS):
    """Row k is k, -k, 1000 + k."""
    k = first + np.arange(steps, dtype=np.float32)
    return np.stack([k, -k, 1000 + k], axis=1)


def loader_of(series=None, batch=8, **options):
    series = table() if series is None else series
    return kl.WindowSequenceLoader(
        series, batch, **{"window": 6, "horizon": 2, "targets": [1], "seed": 3, **options}
    )


def firsts(batches):
    """The first row of each window, after a look at all others."""
    found = []
    for x, y in batches:
        np.testing.assert_array_equal(x[:, :, 0], x[:, :1, 0] + np.arange(6))
        np.testing.assert_array_equal(-y[:, :, 0], x[:, -1:, 0] + [1, 2])
        found += x[:, 0, 0].astype(int).tolist()
    return found


class LastRow(keras.layers.Layer):
    """The number of the last row of a window."""

    def call(self, x):
        return x[:, -1, :1]


def test_a_model_receives_every_window_once_with_what_comes_next(keep):
    received = Received()
    inputs = keras.Input((6, 3))
    last = LastRow()(Recorder(received)(inputs))
    model = keras.Model(inputs, keras.layers.Concatenate()([keras.layers.Dense(1)(last), last]))

    def loss(y, p):
        return keras.ops.mean(keras.ops.square(y[:, 0] - p[:, :1]), axis=-1)

    def mismatch(y, p):
        ahead = keras.ops.convert_to_tensor(np.array([[1.0, 2.0]], np.float32))
        return keras.ops.max(keras.ops.abs(y[:, :, 0] + p[:, 1:] + ahead), axis=-1)

    options = {"jit_compile": False} if BACKEND == "tensorflow" else {}
    model.compile(keras.optimizers.SGD(1e-6), loss, metrics=[mismatch], **options)
    train, val = kl.split(keep(loader_of()), validation=0.25, order="time")
    history = model.fit(keep(train), validation_data=keep(val), epochs=2, verbose=0).history
    assert max(history["mismatch"]) == max(history["val_mismatch"]) == 0
    for epoch in range(2):
        batches = received.trained[epoch * len(train) : (epoch + 1) * len(train)]
        assert sorted(n for batch in batches for n in batch) == list(range(train.samples))
    assert set(firsts(train.epoch_batches())) == set(range(train.samples))


def test_processes_make_what_threads_make(keep, tmp_path):
    np.save(tmp_path / "a.npy", table())
    for series in (table(), np.load(tmp_path / "a.npy", mmap_mode="r")):
        threads = keep(loader_of(series, shuffle=True, transform=shifted))
        others = keep(loader_of(series, shuffle=True, transform=shifted, processes=True, workers=1))
        for (x, y), (a, b) in zip(threads.epoch_batches(), others.epoch_batches(), strict=True):
            np.testing.assert_array_equal(x, a)
            np.testing.assert_array_equal(y, b)


def shifted(x, y, rng):
    return x + np.float32(rng.random()), y


def test_a_mapped_series_is_sent_by_name(tmp_path):
    np.save(tmp_path / "a.npy", table(steps=50_000))
    loader = loader_of(np.load(tmp_path / "a.npy", mmap_mode="r"), window=500)
    assert len(loader[0][0]) == 8
    sent = pickle.dumps(loader)
    assert len(sent) < 5000
    np.testing.assert_array_equal(pickle.loads(sent)[0][0], loader[0][0])


SHAPES = {
    "columns": ({}, (6, 3), (2, 1)),
    "one column drops the axis": ({"targets": 1}, (6, 3), (2,)),
    "all columns": ({"targets": None}, (6, 3), (2, 3)),
    "some inputs": ({"inputs": [0, 2]}, (6, 2), (2, 1)),
    "one input": ({"inputs": -1}, (6,), (2, 1)),
    "no labels": ({"horizon": None, "targets": None}, (6, 3), None),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    options, x, y = SHAPES[name]
    spec = loader_of(**options).sample_spec
    assert [leaf.shape for leaf in spec] == ([x] if y is None else [x, y])


def test_lead_and_step():
    x, y = loader_of(lead=3, step=2, stride=5)[0]
    assert x[1, :, 0].tolist() == [5, 7, 9, 11, 13, 15]
    assert (-y[1, :, 0]).tolist() == [5 + 2 * 9, 5 + 2 * 10]


def test_columns_of_a_table_have_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table(), columns=["up", "down", "high"])
    loader = loader_of(frame, inputs=["high", "up"], targets="down")
    x, y = loader[0]
    assert x[2].tolist() == [[1000 + k, k] for k in range(2, 8)]
    assert y[2].tolist() == [-8, -9]
    with pytest.raises(IndexError, match=r"targets has 'dwn'.*it has up, down, high"):
        loader_of(frame, targets="dwn")


def test_several_series_with_gaps(keep):
    loader = keep(loader_of([table(), table(500, 30)], gaps=[[40], []]))
    found = firsts(loader.epoch_batches(shuffle=True))
    assert sorted(found) == [*range(33), *range(40, 113), *range(500, 523)]
    assert loader.where(loader.samples - 1) == (1, 22)
    assert loader.source.name(0) == "rows 0 to 7 of series 0"


def test_a_subset_and_a_view_have_the_same_windows(keep):
    loader = keep(loader_of())
    chosen = keep(kl.subset(loader, [7, 90]))
    assert firsts(chosen.epoch_batches()) == [7, 90]
    assert chosen.source.spans().first.tolist() == [7, 90]
    assert firsts(keep(loader.view()).epoch_batches()) == list(range(loader.samples))


def test_a_hook_may_make_something_of_a_window(keep):
    class Differences(kl.WindowSequenceLoader):
        def load_sample(self, index):
            x, y = super().load_sample(index)
            return np.diff(x, axis=0), y

    loader = keep(Differences(table(), 8, window=6, horizon=1))
    assert loader[0][0].shape == (8, 5, 3)
    with pytest.raises(ValueError, match='order="time"'):
        kl.split(loader)


def test_a_position_belongs_to_these_windows(keep):
    """A state of other windows of the same series is refused."""
    state = keep(loader_of()).state_dict()
    keep(loader_of()).load_state_dict(state)
    with pytest.raises(ValueError, match="windows was"):
        keep(loader_of(stride=1, window=6, horizon=2, lead=1)).load_state_dict(state)


REFUSED = {
    "window": ({"window": 0}, ValueError, "window=0 is too small"),
    "stride": ({"stride": 1.5}, TypeError, "stride=1.5 is float"),
    "too long": ({"window": 119}, ValueError, "longest of 1 series has 120"),
    "targets without horizon": ({"horizon": None}, ValueError, "pass horizon=1"),
    "no such column": ({"targets": [3]}, IndexError, "targets has column 3, but the series has 3"),
    "no column": ({"targets": []}, ValueError, "at least one column"),
    "a name": ({"inputs": "up"}, IndexError, "it has numbers, from 0 to 2"),
    "no number": ({"inputs": [1.5]}, TypeError, "expected the number of a column"),
    "columns of none": ({"series": np.arange(99.0)}, ValueError, "its shape is"),
    "a tuple": ({"series": (table(), table())}, TypeError, "pass a list"),
    "texts": ({"series": ["a", "b"]}, TypeError, "series"),
    "other columns": (
        {"series": [table(), table()[:, :2]]},
        ValueError,
        r"series 0 has rows of float32\[3\], but series 1 has rows of float32\[2\]",
    ),
    "gaps of one": ({"gaps": [120]}, IndexError, "gaps has row 120"),
    "gaps of two": (
        {"series": [table(), table()], "gaps": [[3]]},
        ValueError,
        "gaps has 1 lists for 2 series",
    ),
    "gaps of another kind": ({"gaps": [0.5]}, TypeError, "np.diff"),
    "an unknown option": ({"horizn": 2}, TypeError, "did you mean horizon="),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_named(name):
    options, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        loader_of(**options)


def test_nobody_advises_to_write_windows_out(keep):
    """The series is at hand, and windows that overlap are many times as large."""
    found = keep(loader_of(table(steps=2000))).explain(seconds=0.3)
    assert not [one for one in found.advice if "cache" in one.setting or "pack" in one.setting]
