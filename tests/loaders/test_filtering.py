"""`filter` keeps the samples that a function wants, and looks at each once."""

import threading

import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import numbers_of, recording_model, row_of

N = 24


class Counting(kl.SequenceLoader):
    """Rows with their numbers; notes what is read."""

    def __init__(self, *args, **options):
        self.reads = []
        super().__init__(*args, **options)

    def load_sample(self, index):
        self.reads.append(index)
        return row_of(index), np.float32(index)


def is_even(x, y):
    assert x[0] == y
    return y % 2 == 0


def is_odd(x, y):
    return y % 2 == 1


def test_a_model_receives_what_is_left(keep):
    model, received = recording_model()
    loader = keep(kl.filter(keep(Counting(N, 5, seed=1)), is_even, progress=False))
    model.fit(loader, epochs=2, verbose=0)
    for epoch in range(2):
        batches = received.trained[epoch * 3 : epoch * 3 + 3]
        assert sorted(n for batch in batches for n in batch) == list(range(0, N, 2))
    assert np.rint(model.predict(loader, verbose=0)[:, 1]).tolist() == list(range(0, N, 2))


def test_each_sample_is_looked_at_once_and_the_function_no_more(keep):
    calls = []

    def noted(x, y):
        calls.append(int(y))
        return y > 20

    loader = keep(Counting(N, 5, workers=0))
    chosen = keep(kl.filter(loader, noted, progress=False))
    assert sorted(calls) == list(range(N))
    loader.reads.clear()
    for epoch in range(2):
        (batch,) = chosen.epoch_batches(epoch)
        assert numbers_of(batch[0]) == [21, 22, 23]
    assert len(calls) == N


def test_the_numbers_are_kept_in_a_file(keep, tmp_path, caplog):
    place = tmp_path / "kept.npz"
    kl.filter(keep(Counting(N, 5)), is_even, cache=place, progress=False)
    second = keep(Counting(N, 5))
    chosen = keep(kl.filter(second, is_even, cache=place, progress=False))
    assert not second.reads
    assert chosen.samples == 12
    assert "12 of 24 samples are selected" in caplog.text


@pytest.mark.parametrize("changed", ["function", "data", "file"])
def test_numbers_of_something_else_are_not_taken(changed, keep, tmp_path, caplog):
    place = tmp_path / "kept.npz"
    kl.filter(keep(Counting(N, 5)), is_even, cache=place, progress=False)
    samples, function = N, is_even
    if changed == "function":
        function = is_odd
    elif changed == "data":
        samples = 10
    else:
        place.write_bytes(place.read_bytes()[:40])
    loader = keep(kl.filter(keep(Counting(samples, 5)), function, cache=place, progress=False))
    assert loader.samples == samples // 2
    assert numbers_of(loader[0][0])[0] == (1 if changed == "function" else 0)
    assert "will be overwritten" in caplog.text


def test_a_cache_key_stands_for_a_function_that_has_no_value(keep, tmp_path):
    lock = threading.Lock()

    def guarded(x, y):
        with lock:
            return y < 3

    loader = keep(Counting(N, 5))
    with pytest.raises(ValueError, match="cache_key="):
        kl.filter(loader, guarded, cache=tmp_path / "a.npz", progress=False)
    chosen = kl.filter(loader, guarded, cache=tmp_path / "a.npz", cache_key="1", progress=False)
    assert keep(chosen).samples == 3


def test_samples_without_labels_and_of_unequal_shapes(keep):
    words = [np.full(1 + k % 3, k) for k in range(9)]
    loader = keep(kl.ArraySequenceLoader(words, batch_size=3))
    long = keep(kl.filter(loader, lambda x, y: y is None and len(x) == 3, progress=False))
    assert long[0][:, 0].tolist() == [2, 5, 8]


def test_what_does_not_load_is_left_out_where_the_loader_skips(keep):
    class Flaky(Counting):
        def load_sample(self, index):
            if index == 4:
                raise OSError("broken")
            return super().load_sample(index)

    loader = keep(Flaky(N, 5, on_error="skip"))
    assert keep(kl.filter(loader, is_even, progress=False)).samples == 11
    with pytest.raises(kl.SampleError, match="index 4"):
        kl.filter(keep(Flaky(N, 5)), is_even, progress=False)


REFUSED = {
    "not a function": (3, TypeError, "expected a function of x and y"),
    "no answer": (lambda x, y: None, TypeError, "returned None .NoneType. for index 0"),
    "an array": (lambda x, y: x > 0, TypeError, r"\.all\(\) of an array"),
    "a failure": (lambda x, y: y[3] > 0, kl.SampleError, "filter's function failed"),
    "nothing left": (lambda x, y: False, ValueError, "selects none of 24 samples"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_named(name, keep):
    function, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        kl.filter(keep(Counting(N, 5)), function, progress=False)
