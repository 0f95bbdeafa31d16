"""batch_transform(x, y, rng): on every kind of loader, repeatable, and with a row for each row."""

import functools
import itertools

import numpy as np
import pytest

import kloaders as kl
from kloaders.plan.rng import batch_rng
from tests.support.recording import BACKEND, row_of

SAMPLES, BATCH = 11, 4  # batches of 4, 4 and 3


def rows(n=SAMPLES):
    return np.stack([row_of(k) for k in range(n)])


def _by_value():
    """Functions that are sent to a worker process as they are: this file is not imported there."""

    def noted(x, y, rng):
        """Writes down beside each sample which number the batch drew, and how many rows it had."""
        drawn = np.full((len(x), 1), rng.integers(2**20), np.float32)
        count = np.full((len(x), 1), len(x), np.float32)
        return np.concatenate([x, drawn, count], axis=1), y

    def jitter(x, y, rng):
        """A transform of one sample that leaves its number as it is."""
        return x + np.array([0, rng.random()], np.float32), y

    return noted, jitter


noted, jitter = _by_value()


class Failing(kl.SequenceLoader):
    """Sample 5 does not load."""

    def load_sample(self, index):
        if index == 5:
            raise OSError("bad sector")
        return row_of(index), np.float32(index)


class Whole(kl.SequenceLoader):
    def load_batch(self, indices):
        return np.stack([row_of(k) for k in indices]), indices.astype(np.float32)


@pytest.fixture(scope="session")
def npy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    paths = [str(folder / f"{k:03}.npy") for k in range(SAMPLES)]
    for k, path in enumerate(paths):
        np.save(path, row_of(k))
    return paths


@pytest.fixture(scope="session")
def pack(npy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack") / "p"
    kl.write_pack(kl.ArraySequenceLoader(rows(), np.arange(SAMPLES)), folder, progress=False)
    return folder


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    name = tmp_path_factory.mktemp("records") / "r"
    source = kl.ArraySequenceLoader(rows(), np.arange(SAMPLES))
    kl.write_tfrecords(source, out=name, shards=1, progress=False)
    return f"{name}-*"


KINDS = ["array", "paths", "ram", "resident", "windows", "batches", "pack", "records", "subset"]


@pytest.fixture
def make(npy, pack, records, keep):
    y = np.arange(SAMPLES, dtype=np.float32)

    def _make(kind, **options):
        options = {"seed": 3, "batch_transform": noted, **options}
        ram = functools.partial(kl.RamBatchSequenceLoader, npy, y, BATCH)
        features = {"x": "x", "y": "label"}
        made = {
            "array": lambda: kl.ArraySequenceLoader(rows(), y, BATCH, **options),
            "paths": lambda: kl.PathSequenceLoader(npy, y, BATCH, **options),
            "ram": lambda: ram(ram_batch_size=8, **options),
            "resident": lambda: ram(**options),
            "windows": lambda: ram(ram_batch_size=8, draw="windows", **options),
            "batches": lambda: Whole(SAMPLES, BATCH, **options),
            "pack": lambda: kl.PackSequenceLoader(pack, BATCH, **options),
            "records": lambda: kl.TFRecordSequenceLoader(records, features, BATCH, **options),
            "subset": lambda: kl.split(
                kl.ArraySequenceLoader(rows(2 * SAMPLES), np.arange(2 * SAMPLES), BATCH, **options),
                validation=0.5,
            )[0],
        }
        return keep(made[kind]())

    return _make


@pytest.mark.parametrize("kind", KINDS)
def test_every_loader_applies_it_once_to_each_batch(make, kind):
    """Each batch has the numbers of its own generator, and all its samples in their places."""
    loader = make(kind, shuffle=True)
    for epoch in range(2):
        seen = []
        for number, (x, y) in enumerate(loader.epoch_batches(epoch)):
            assert x.shape == (len(y), 4)
            assert set(x[:, 2]) == {batch_rng(3, epoch, number).integers(2**20)}
            assert set(x[:, 3]) == {len(y)}
            np.testing.assert_array_equal(x[:, 0], y)
            seen += y.tolist()
        assert len(seen) == len(set(seen)) == loader.samples


@pytest.mark.parametrize("kind", ["array", "ram", "batches"])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_threads_makes_the_same_batches(make, kind, workers):
    loader, other = make(kind, transform=jitter, workers=workers), make(kind, transform=jitter)
    for one, two in zip(loader.epoch_batches(1, True), other.epoch_batches(1, True), strict=True):
        np.testing.assert_array_equal(one[0], two[0])


def test_worker_processes_make_the_same_batches(make):
    options = {"transform": jitter, "shuffle": True}
    kind = "ram"
    loader = make(kind, processes=True, workers=2, **options)
    for one, two in zip(
        loader.epoch_batches(1), make(kind, **options).epoch_batches(1), strict=True
    ):
        np.testing.assert_array_equal(one[0], two[0])


def test_shards_draw_different_numbers(make):
    parts = [make("array", shuffle=True, shard=(k, 2), drop_last=True) for k in range(2)]
    drawn = [{float(x[0, 2]) for x, _ in part.epoch_batches(0)} for part in parts]
    assert not drawn[0] & drawn[1]


def test_seeds_epochs_and_batches_draw_different_numbers():
    keys = itertools.product([1, 2], [0, 1], [0, 1], [0, 1])
    assert len({batch_rng(*key).integers(2**60) for key in keys}) == 16


@pytest.mark.parametrize("weighted", [False, True])
def test_padding_comes_after_it(make, weighted):
    """It sees no row that is padding, and weights go by row."""
    options = {"sample_weights": np.arange(SAMPLES)} if weighted else {}
    loader = make("array", pad_last=True, **options)
    x, _, w = loader[2]
    assert x.shape == (4, 4)
    assert set(x[:, 3]) == {3}
    assert w.tolist() == ([8, 9, 10, 0] if weighted else [1, 1, 1, 0])


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_samples_that_do_not_load_are_dealt_with_before_it(policy):
    with Failing(SAMPLES, BATCH, seed=3, batch_transform=noted, on_error=policy) as loader:
        x, y = loader[1]
    assert set(x[:, 3]) == {3 if policy == "skip" else 4}
    np.testing.assert_array_equal(x[:, 0], y)
    assert 5 not in y


def test_x_and_y_jointly_and_of_another_form(make):
    """Mixup: labels become rows, and pictures floats; the loader knows the new form."""

    def mixup(x, y, rng):
        share = np.float32(rng.beta(0.4, 0.4))
        other = rng.permutation(len(x))
        hot = np.eye(12, dtype=np.float32)[y.astype(int)]
        return share * x + (1 - share) * x[other], {"mixed": share * hot + (1 - share) * hot[other]}

    loader = make("array", batch_transform=mixup)
    x, y = loader[2]
    assert y["mixed"].shape == (3, 12)
    np.testing.assert_allclose(y["mixed"].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(y["mixed"] @ np.arange(12), x[:, 0], rtol=1e-5)
    spec = loader.delivered_spec()
    assert spec[1]["mixed"].shape == (12,)
    assert spec[1]["mixed"].dtype == np.float32


def test_labels_may_appear(make):
    """An autoencoder: y is x. With labels there are weights to pad with."""
    loader = kl.ArraySequenceLoader(
        rows(), batch_size=BATCH, pad_last=True, batch_transform=lambda x, y, rng: (x, x)
    )
    assert len(loader[2]) == 3
    assert loader.has_weights


def test_views_and_subsets_have_it_and_validation_has_not(make):
    loader = make("array")
    train, val = kl.split(loader, validation=0.5, seed=1)
    assert loader.view()[0][0].shape == train[0][0].shape == (4, 4)
    assert val[0][0].shape == (4, 2)
    assert kl.preload(loader, progress=False)[0][0].shape == (4, 4)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a part of TensorFlow")
def test_the_dataset_knows_what_it_gives(make):
    """The signature is that of the batches after it, and no option is lost."""
    dataset = kl.to_tf_dataset(make("ram", pad_last=True), shuffle=True)
    x, _, w = dataset.element_spec
    assert (x.shape, w.shape) == ((4, 4), (4,))
    got = [batch[0].numpy() for batch in dataset]
    assert [set(x[:, 3]) for x in got] == [{4.0}, {4.0}, {3.0}]


def test_fit_trains_on_what_it_gives(make):
    """A model gets x and y as they are after it, in training and in evaluation."""
    import keras

    loader = make("paths")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=False)
    model.fit(loader, epochs=1, verbose=0)
    assert model.predict(loader, verbose=0).shape == (SAMPLES, 1)


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda x, y, rng: (x[:2], y), ValueError, r"x of shape \(2, 2\).*4 samples.*len\(x\)"),
        (lambda x, y, rng: (x, y.sum()), ValueError, r"y of shape \(\)"),
        (lambda x, y, rng: x, TypeError, "batch_transform returned a ndarray, expected a tuple"),
        (
            lambda x, y, rng: 1 / 0,
            RuntimeError,
            "failed for batch 0 of epoch 0, with 4 samples: Zero",
        ),
    ],
)
def test_what_it_may_not_do(make, function, error, words):
    with pytest.raises(error, match=words):
        make("array", batch_transform=function)[0]


@pytest.mark.parametrize("value", [3, lambda x, y: (x, y)])
def test_a_wrong_function_is_refused_at_once(value):
    with pytest.raises(TypeError, match=r"batch_transform=.*function batch_transform\(x, y, rng\)"):
        kl.ArraySequenceLoader(rows(), batch_size=BATCH, batch_transform=value)


def test_native_records_take_no_python(records):
    pytest.importorskip("tensorflow")
    loader = kl.TFRecordSequenceLoader(records, {"x": "x"}, 4, batch_transform=noted)
    with pytest.raises(ValueError, match="batch_transform= is a function in Python"):
        kl.to_tf_dataset(loader, native=True)
