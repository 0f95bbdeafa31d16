"""The methods of Keras' datasets, called on the loaders that replace them."""

import pickle

import numpy as np
import pytest

import kloaders as kl
from kloaders.migrate import image_dataset_from_directory, timeseries_dataset_from_array
from kloaders.migrate.datasets import check_format
from tests.support.keras_images import SIZE

ROWS = 20


def windows(**options):
    """Windows of 2 rows, whose first row is their number; 16 of them, in 4 batches."""
    series = np.arange(ROWS)
    return timeseries_dataset_from_array(
        series[:17], series[:17] * 2, 2, **{"batch_size": 4, **options}
    )


def firsts(batches):
    return [x[:, 0].tolist() for x, _ in batches]


def test_take_is_the_beginning_of_one_epoch_after_another(keep):
    loader = keep(windows(shuffle=True, seed=3))
    whole = [firsts(loader.epoch_batches(epoch)) for epoch in range(3)]
    assert [firsts(loader.take(2)) for _ in range(2)] == [whole[0][:2], whole[1][:2]]
    assert firsts(loader) == whole[2]
    assert whole[0] != whole[1]


def test_take_can_be_kept(keep):
    """It is read again, as one of a Dataset is, and has a length."""
    taken = keep(windows(seed=3)).take(1)
    assert len(taken) == 1
    assert firsts(taken) == firsts(taken) == [[0, 1, 2, 3]]


@pytest.mark.parametrize(("count", "batches"), [(0, 0), (3, 3), (4, 4), (9, 4), (-1, 4)])
def test_take_gives_as_many_as_there_are(keep, count, batches):
    loader = keep(windows())
    taken = loader.take(count)
    assert len(taken) == len(list(taken)) == batches
    assert firsts(loader) == [[k, k + 1, k + 2, k + 3] for k in range(0, 16, 4)]


def test_take_refuses_what_is_no_number(keep):
    loader = keep(windows())
    with pytest.raises(ValueError, match="count=-2 is too small"):
        loader.take(-2)
    with pytest.raises(TypeError, match=r"count=0\.5"):
        loader.take(0.5)


def test_single_windows(keep, caplog):
    """batch_size=None: a loop gives each window once; fit gets batches of one, which is logged."""
    loader = keep(windows(batch_size=None, shuffle=True, seed=1))
    assert "fit get batches of one sample" in caplog.text
    epochs = [list(loader) for _ in range(2)]
    for epoch in epochs:
        assert {(x.shape, y.shape) for x, y in epoch} == {((2,), ())}
        assert sorted(int(x[0]) for x, _ in epoch) == list(range(16))
        assert all(y == 2 * x[0] for x, y in epoch)
    assert [x[0] for x, _ in epochs[0]] != [x[0] for x, _ in epochs[1]]
    assert [x.shape for x, _ in loader.take(3)] == [(2,)] * 3
    assert loader[0][0].shape == (1, 2)
    assert len(loader) == 16


def test_single_samples_left_early_end_the_epoch(keep):
    loader = keep(windows(batch_size=None, shuffle=True, seed=1))
    first = next(iter(loader))[0][0]
    second = next(iter(loader))[0][0]
    order = [next(loader.epoch_batches(epoch))[0][0, 0] for epoch in (0, 1)]
    assert [first, second] == order


def test_single_images_and_what_is_made_of_the_loader(folder, keep):
    """A view, a part, and a pickled one are datasets as well."""
    loader = keep(image_dataset_from_directory(folder, batch_size=None, image_size=SIZE))
    for made in (loader, loader.view(), kl.take(loader, 5), pickle.loads(pickle.dumps(loader))):
        image, label = next(iter(keep(made)))
        assert (image.shape, label.shape) == ((*SIZE, 3), ())
    single = next(iter(kl.to_tf_dataset(loader).unbatch()))
    assert single[0].shape == (*SIZE, 3)


def test_a_model_is_trained_on_it(keep):
    """On batches, whatever `for` gives."""
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    loader = keep(windows(batch_size=None))
    assert len(model.fit(loader, epochs=2, steps_per_epoch=3, verbose=0).history["loss"]) == 2


@pytest.mark.parametrize("name", ["map", "prefetch", "batch", "element_spec"])
def test_what_belongs_to_a_dataset_is_named(keep, name):
    loader = keep(windows())
    with pytest.raises(AttributeError, match=f"'{name}', which belongs to tf.data.Dataset: kl.to"):
        getattr(loader, name)
    with pytest.raises(AttributeError, match=r"has no attribute 'mapp'$"):
        _ = loader.mapp
    assert not hasattr(loader, name)


@pytest.mark.parametrize("value", ["tf", "grain"])
def test_formats_of_keras(keep, value):
    assert firsts(keep(windows(format=value)))[0] == [0, 1, 2, 3]


def test_other_formats_are_refused():
    with pytest.raises(
        ValueError, match='`format` should be "tf" or "grain", and format=\'torch\''
    ):
        check_format("torch")
