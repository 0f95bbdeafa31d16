"""Labels, files and classes that a loader knows without reading a sample."""

import pickle

import numpy as np
import pytest

import kloaders as kl

CLASSES = np.array([0, 2, 2, 1, 2, 0])


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{k}.npy" for k in range(6)]
    for k, path in enumerate(paths):
        np.save(path, np.full(2, k))
    return paths


def test_of_files(files):
    loader = kl.PathSequenceLoader(files, CLASSES, 4)
    assert loader.labels.tolist() == CLASSES.tolist()
    assert loader.file_paths == [str(path) for path in files]
    assert loader.num_classes == 3
    assert loader.class_counts() == {0: 2, 1: 1, 2: 3}
    loader.class_names = ["a", "b", "c", "d"]
    assert loader.class_counts() == {"a": 2, "b": 1, "c": 3, "d": 0}
    assert loader.num_classes == 4


@pytest.mark.parametrize("make", [lambda loader: pickle.loads(pickle.dumps(loader)), kl.preload])
def test_of_what_is_made_of_it(files, make):
    assert make(kl.PathSequenceLoader(files, CLASSES, 4)).labels.tolist() == CLASSES.tolist()


def test_of_a_part(files):
    part = kl.subset(kl.PathSequenceLoader(files, CLASSES, 4), [5, 1])
    assert part.labels.tolist() == [0, 2]
    assert part.file_paths == [str(files[5]), str(files[1])]
    assert part.class_counts() == {0: 1, 2: 1}


def test_of_one_hot_rows():
    loader = kl.ArraySequenceLoader(np.zeros(6), np.eye(4, dtype="float32")[CLASSES])
    assert loader.num_classes == 4
    assert loader.class_counts() == {0: 2, 1: 1, 2: 3}


def test_of_outputs_with_names():
    """class_names is then a dict by output: its length is not that of the classes."""
    x, y = np.zeros(6), {"kind": CLASSES}
    loader = kl.ArraySequenceLoader(x, y)
    loader.class_names = {"kind": ["a", "b", "c", "d"]}
    assert loader.num_classes == 4
    assert loader.class_counts() == {"a": 2, "b": 1, "c": 3, "d": 0}
    loader = kl.ArraySequenceLoader(x, {**y, "side": CLASSES % 2})
    loader.class_names = {"kind": ["a", "b", "c"], "side": ["left", "right"]}
    with pytest.raises(ValueError, match="several outputs"):
        loader.num_classes  # noqa: B018 (a property that raises)


def test_what_is_not_known(files):
    loader = kl.ArraySequenceLoader(np.zeros(6))
    assert loader.labels is None
    assert loader.file_paths is None
    with pytest.raises(ValueError, match=r"kl\.statistics\(loader\)\.class_counts reads them"):
        loader.class_counts()
    with pytest.raises(ValueError, match="classes"):
        kl.ArraySequenceLoader(np.zeros(3), np.array([0.5, 1.5, 2.5])).class_counts()


def test_names_of_a_subclass_are_its_own():
    class Own(kl.SequenceLoader):
        def __init__(self, labels):
            self.labels = labels
            super().__init__(len(labels), 2)

        def load_sample(self, index):
            return np.float32(index), self.labels[index]

    loader = Own([3, 4, 5])
    assert loader.labels == [3, 4, 5]
    assert loader.view()[0][1].tolist() == [3, 4]
