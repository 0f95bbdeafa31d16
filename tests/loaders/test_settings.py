"""A loader's options are its attributes: read, refused once it is made, and told from the user's own."""

import inspect
import pickle

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.options import CHANGEABLE, defaults
from kloaders.loaders.paths import PathOptions

ROWS = np.arange(8, dtype=np.float32)


class Numbers(kl.SequenceLoader):
    """Samples that are their own number."""

    def load_sample(self, index):
        return np.float32(index), np.float32(-index)


class OwnBatches(Numbers):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 1000, y


def arrays(**options):
    return kl.ArraySequenceLoader(ROWS, -ROWS, 4, **options)


def files(npy, **options):
    return kl.PathSequenceLoader(npy, np.arange(len(npy)), 4, **options)


# ---------------------------------------------------------------- reading


def test_an_option_is_read_as_it_was_given():
    weights = np.linspace(0.5, 1, 8)
    loader = arrays(seed=5, shuffle=True, drop_last=True, sample_weights=weights, workers=3)
    found = loader.batch_size, loader.seed, loader.shuffle, loader.drop_last, loader.thread_count
    assert found == (4, 5, True, True, 3)
    np.testing.assert_allclose(loader.weights, weights)
    assert loader.samples == 8
    assert loader.plan is loader.runner.plan
    assert loader.errors == []
    assert loader.quarantine is None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'ArraySequenceLoader' object has no attribute 'nam'"):
        arrays().nam  # noqa: B018
    assert not hasattr(arrays(), "nam")
    assert getattr(arrays(), "nam", 3) == 3


@pytest.mark.parametrize("name", ["runner", "options", "plan", "samples", "shard"])
def test_a_loader_that_is_not_set_up_says_so(name):
    class Forgot(kl.SequenceLoader):
        def __init__(self):
            self.folder = "data"

    with pytest.raises(AttributeError, match=r"Forgot is not set up: its __init__ must call super"):
        getattr(Forgot(), name)


# ---------------------------------------------------------------- setting


@pytest.mark.parametrize("name", sorted({"batch_size", *defaults()} - {"max_queue_size"}))
@pytest.mark.parametrize("kind", [arrays, lambda: Numbers(8)], ids=["arrays", "own"])
def test_every_option_is_fixed(kind, name):
    """A new value would show, and change nothing of the batches."""
    loader = kind()
    before = [np.copy(part) for part in loader[0]]
    with pytest.raises((AttributeError, ValueError)) as caught:
        setattr(loader, name, True)
    if name == "use_multiprocessing":
        assert "use_multiprocessing=True is Keras' process pool" in str(caught.value)
    elif name in CHANGEABLE:
        assert f"cannot be assigned: call loader.set({name}=...), which changes it from" in str(
            caught.value
        )
    else:
        text = f"{name} of a loader is fixed when it is made: make another loader with {name}=True."
        assert str(caught.value) == text
    assert name not in vars(loader)
    for part, old in zip(loader[0], before, strict=True):
        np.testing.assert_array_equal(part, old)


@pytest.mark.parametrize(
    "name", sorted({"paths", "labels", *PathOptions.__annotations__} - {"max_queue_size"})
)
def test_every_option_of_files_is_fixed(npy, keep, name):
    loader = keep(files(npy))
    with pytest.raises(AttributeError, match=f"^{name} of a loader is fixed when it is made"):
        setattr(loader, name, None)


@pytest.mark.parametrize(
    "name", ["samples", "plan", "errors", "quarantine", "source", "runner", "options"]
)
def test_what_a_loader_lives_on_is_fixed(name):
    with pytest.raises(AttributeError, match=f"^{name} of a loader is fixed"):
        setattr(arrays(), name, None)


def test_labels_of_arrays_are_fixed_under_the_other_loaders_name_too():
    loader = arrays()
    text = "labels of a loader is fixed when it is made: make another loader with y=None."
    with pytest.raises(AttributeError, match=f"^{text}$"):
        loader.labels = None
    own = Numbers(8)
    own.labels = ROWS  # a class of the user's, whose labels are its own
    assert own.labels is ROWS


@pytest.mark.parametrize("name", ["weights", "sampling", "queue_size", "thread_count"])
def test_names_that_only_attributes_have_are_fixed(name):
    with pytest.raises(AttributeError, match=f"^{name} of a loader is fixed"):
        setattr(arrays(), name, None)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("lables", "labels"),
        ("shufle", "shuffle"),
        ("batchsize", "batch_size"),
        ("droplast", "drop_last"),
        ("sample_weight", "sample_weights"),
        ("tranform", "transform"),
    ],
)
def test_a_misspelt_option_is_refused(npy, keep, misspelt, meant):
    loader = keep(files(npy))
    said = f"PathSequenceLoader has no attribute {misspelt}: did you mean {meant}\\?"
    with pytest.raises(AttributeError, match=said):
        setattr(loader, misspelt, None)
    assert not hasattr(loader, misspelt)


def test_attributes_of_ones_own_are_allowed():
    """Before super().__init__, behind it, and later; they travel through pickling and views."""

    class Store(kl.SequenceLoader):
        def __init__(self, offset):
            self.offset = offset
            super().__init__(8, 4)
            self.folder = "data"

        def load_sample(self, index):
            return np.float32(index + self.offset)

    loader = Store(100)
    loader.note = {"a": 1}
    loader.offset = 200  # its own, so it may change
    loader._labels = [1]  # private names too, however alike
    for other in (loader, loader.view(), kl.take(loader, 4)):
        assert (other.folder, other.note, other._labels) == ("data", {"a": 1}, [1])
        assert other[0].tolist() == [200, 201, 202, 203]


def test_a_property_of_a_subclass_is_set():
    """However alike its name is to an option."""

    class Wide(Numbers):
        @property
        def lables(self):
            return self._kept

        @lables.setter
        def lables(self, value):
            self._kept = value

    loader = Wide(4)
    loader.lables = 3
    assert loader.lables == 3


def test_what_may_be_set():
    loader = arrays()
    loader.class_names = ["a", "b"]
    loader.max_queue_size = 3
    assert (loader.class_names, loader.max_queue_size) == (["a", "b"], 3)
    assert loader.options.work.max_queue_size == 3
    with pytest.raises(ValueError, match="max_queue_size=-1"):
        loader.max_queue_size = -1
    assert loader.max_queue_size == 3


# ---------------------------------------------------------------- __getitem__ of a subclass


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("to_tf_dataset", lambda loader, folder: kl.to_tf_dataset(loader)),
        ("epoch_batches", lambda loader, folder: loader.epoch_batches()),
        ("preload", lambda loader, folder: kl.preload(loader)),
        ("mix", lambda loader, folder: kl.mix([loader, Numbers(8)])),
        ("write_pack", lambda loader, folder: kl.write_pack(loader, folder / "pack")),
        ("write_tfrecords", lambda loader, folder: kl.write_tfrecords(loader, out=folder / "r")),
    ],
)
def test_batches_of_ones_own_are_refused(name, call, tmp_path):
    """These read samples, and would give other data than loader[i], which works."""
    loader = OwnBatches(8, 4)
    assert loader[0][0].tolist() == [1000, 1001, 1002, 1003]
    with pytest.raises(
        TypeError, match=rf"^OwnBatches overrides __getitem__, which {name}\(\) does not call"
    ):
        call(loader, tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_an_override_they_work(tmp_path):
    loader = Numbers(8, 4)
    assert [x.tolist() for x, _ in loader.epoch_batches()] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert kl.preload(loader)[1][0].tolist() == [4, 5, 6, 7]


# ---------------------------------------------------------------- which names are known


def test_the_names_are_those_of_the_nearest_class_of_ours():
    """A subclass with a signature of its own has the options of the class it is derived from."""

    class Mine(kl.PathSequenceLoader):
        def __init__(self, folder):
            super().__init__(folder, None, 4)

    names = set(inspect.signature(kl.PathSequenceLoader).parameters)
    assert {"size", "labels", "sample_weights"} <= names

    with pytest.raises(AttributeError, match=r"^size of a loader is fixed"):
        pickle.loads(pickle.dumps(kl.PathSequenceLoader(["a.png"], check_paths=False))).size = 3
    loader = Mine.__new__(Mine)
    super(Mine, loader).__init__(["a.png"], None, 4, check_paths=False)
    with pytest.raises(AttributeError, match=r"^size of a loader is fixed"):
        loader.size = (3, 3)
    with pytest.raises(AttributeError, match="did you mean interpolation"):
        loader.interpolaton = "area"
