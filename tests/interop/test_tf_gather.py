"""to_tf_dataset(native=True) over arrays: the loader's batches, gathered by TensorFlow."""

import gc
import weakref

import numpy as np
import pytest

import kloaders as kl
from kloaders.interop.tf_dataset import _Source

tf = pytest.importorskip("tensorflow")

N = 50


def rows(n=N):
    """Each row holds its number, in every value."""
    return np.repeat(np.arange(n, dtype=np.float32), 6).reshape(n, 2, 3)


LABELS = np.arange(N)


def make(labels=LABELS, **options):
    return kl.ArraySequenceLoader(rows(), labels, 8, seed=3, **options)


def both(loader, **options):
    """The Dataset by TensorFlow's ops, and the one by from_generator."""
    return kl.to_tf_dataset(loader, native=True, **options), kl.to_tf_dataset(loader, **options)


def assert_same(loader, epochs=2, **options):
    native, ours = both(loader, **options)
    assert native.element_spec == ours.element_spec
    assert native.cardinality().numpy() == ours.cardinality().numpy()
    for _ in range(epochs):
        found = list(native.as_numpy_iterator())
        wanted = list(ours.as_numpy_iterator())
        assert len(found) == len(wanted) > 0
        for one, other in zip(found, wanted, strict=True):
            tf.nest.assert_same_structure(one, other)
            for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"drop_last": True},
        {"shard": (1, 2)},
        {"sample_weights": np.linspace(0, 1, N)},
        {"dtype": "float16"},
        {"on_error": "skip"},
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
def test_batches_are_the_loaders(shuffle, options):
    assert_same(make(**options), shuffle=shuffle)


def test_more_batches_than_are_asked_for_at_once():
    loader = kl.ArraySequenceLoader(np.arange(1001), None, 2, seed=1)
    assert_same(loader, shuffle=True)
    native, _ = both(loader, shuffle=True)
    assert sorted(n for x in native.as_numpy_iterator() for n in x.tolist()) == list(range(1001))


@pytest.mark.parametrize("structure", ["tuple", "dict", "nested", "x alone", "tuple alone"])
def test_any_structure(structure):
    a, b, y = rows(), rows().astype(np.uint8)[:, 0], np.arange(N)
    x, labels = {
        "tuple": ((a, b), y),
        "dict": ({"a": a, "b": b}, {"one": y, "two": y + 1}),
        "nested": ({"a": (a, b), "c": a}, (y, y)),
        "x alone": (a, None),
        "tuple alone": ((a, b), None),
    }[structure]
    assert_same(kl.ArraySequenceLoader(x, labels, 8, seed=0), shuffle=True)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(N, dtype=">i4"),
        np.arange(2 * N, dtype=np.uint16)[::2],
        np.asfortranarray(rows()),
        np.arange(N) % 2 == 0,
        np.arange(N, dtype=np.float16),
        np.arange(N, dtype=np.uint64) + 2**63,
        np.arange(N) * 1j,
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_any_numbers(array):
    assert_same(kl.ArraySequenceLoader(array, None, 8, seed=0), shuffle=True)


def test_sampling():
    labels = np.arange(N) % 3 == 0
    assert_same(kl.ArraySequenceLoader(rows(), labels, 8, seed=0, class_balance=True))
    weights = np.arange(N) + 1.0
    assert_same(kl.ArraySequenceLoader(rows(), labels, 8, seed=0, sampling_weights=weights))


def test_parts_of_a_split():
    for part in kl.split(make(), validation=0.3):
        assert_same(part, shuffle=True)


def test_what_is_preloaded(tmp_path):
    paths = []
    for n in range(20):
        paths.append(str(tmp_path / f"{n}.npy"))
        np.save(paths[-1], np.full((3, 2), n, np.float32))
    loader = kl.preload(kl.PathSequenceLoader(paths, np.arange(20), 4, seed=1), progress=False)
    assert_same(loader, shuffle=True)


def test_inputs_as_labels():
    assert_same(kl.inputs_as_labels(kl.ArraySequenceLoader(rows(), None, 8, seed=0)), shuffle=True)


def test_goes_on_in_the_middle_of_an_epoch():
    loader = make(shuffle=True)
    loader.load_state_dict(loader.state_dict(epoch=1, batch=3))
    native, ours = both(loader)
    for _ in range(2):
        found = [y.tolist() for _, y in native.as_numpy_iterator()]
        assert found == [y.tolist() for _, y in ours.as_numpy_iterator()]


def test_python_has_nothing_to_do_for_a_sample(monkeypatch):
    """No batch of the loader is made."""
    loader = make()
    native, _ = both(loader, shuffle=True)

    def refuse(*_):
        raise AssertionError("a batch was made in Python")

    monkeypatch.setattr("kloaders.engine.runner.Runner.make_alone", refuse)
    assert sorted(n for _, y in native.as_numpy_iterator() for n in y.tolist()) == list(range(N))


def test_it_may_go_on_being_processed():
    """Behind it, maps and options of the user's own."""
    native, _ = both(make(), shuffle=True)
    mapped = native.map(lambda x, y: (x * 2, y), num_parallel_calls=2)
    for x, y in mapped.as_numpy_iterator():
        np.testing.assert_array_equal(x[:, 0, 0], 2 * y)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"transform": lambda x, y, rng: (x, y)}, "transform= is a function in Python"),
        ({"batch_transform": lambda x, y, rng: (x, y)}, "batch_transform= is a function"),
        ({"pad_last": True}, "pad_last= pads in NumPy"),
        ({"labels": None, "sample_weights": np.ones(N)}, "sample_weights= needs labels"),
    ],
)
def test_what_takes_python_is_refused(options, words):
    with pytest.raises(ValueError, match=f"native=True gathers rows .*{words}.*leave native out"):
        kl.to_tf_dataset(make(**options), True, native=True)


def test_a_hook_is_refused():
    class Doubled(kl.ArraySequenceLoader):
        def load_sample(self, index):
            return np.zeros(3), 2 * index

    with pytest.raises(ValueError, match="load_sample or load_batch is overridden"):
        kl.to_tf_dataset(Doubled(rows(), np.arange(N), 8), True, native=True)


def test_arrays_that_are_not_in_ram_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", rows())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    lists = [np.zeros((n, 2)) for n in range(1, 5)]
    for x in (mapped, lists):
        with pytest.raises(TypeError, match=r"arrays in RAM, .* pass preload\(loader\)"):
            kl.to_tf_dataset(kl.ArraySequenceLoader(x, None, 1), True, native=True)


def test_no_room_for_a_copy(monkeypatch):
    monkeypatch.setattr("kloaders.interop.tf_gather.available_bytes", lambda: 100)
    with pytest.raises(MemoryError, match=r"1\.\d KiB, and 100 bytes are free. Leave native out"):
        kl.to_tf_dataset(make(), True, native=True)


def test_a_signature_is_refused():
    with pytest.raises(ValueError, match="leave output_signature out"):
        kl.to_tf_dataset(make(), True, tf.TensorSpec((None,)), native=True)


def test_everything_goes_with_the_dataset():
    x = rows()
    loader = kl.ArraySequenceLoader(x, None, 8)
    native, _ = both(loader, shuffle=True)
    list(native)
    read = [o.loader for o in gc.get_objects() if type(o) is _Source]
    gone = [weakref.ref(o) for o in (loader, *read, x)]
    del read
    del x, loader, native, _
    gc.collect()
    assert [reference() is None for reference in gone] == [True] * len(gone)
