"""Loaders with the names of Keras' iterators."""

import itertools
import pickle

import numpy as np
import pytest

import kloaders as kl
from kloaders.migrate import ImageDataGenerator, image_dataset_from_directory
from tests.support.keras_images import OLD, SIZE

# What is about Keras' own way through the data, or about files that are not written here.
INNER = {
    *("lock", "index_array", "index_generator", "batch_index", "total_batches_seen", "split"),
    *("save_to_dir", "save_prefix", "save_format", "dtype", "x", "x_misc", "y"),
}


def public(thing):
    """The names of its attributes."""
    return {name for name in vars(thing) if not name.startswith("_")} - INNER


def same(mine, yours):
    if isinstance(yours, (list, tuple, np.ndarray)):
        return list(mine) == list(yours)
    return mine == yours


@pytest.mark.parametrize("subset", [None, "training"])
def test_attributes_of_a_folder(folder, old, keep, subset):
    """Each that Keras' iterator has, and its value."""
    options = {"target_size": SIZE, "color_mode": "rgba", "shuffle": False, "subset": subset}
    options["seed"] = 7
    ours = keep(ImageDataGenerator(validation_split=0.5).flow_from_directory(folder, **options))
    theirs = old(validation_split=0.5).flow_from_directory(str(folder), **options)
    names = public(theirs) | {"filepaths", "labels", "sample_weight"}
    assert {"n", "image_shape", "color_mode", "directory"} <= names
    for name in sorted(names - {"image_data_generator"}):
        assert same(getattr(ours, name), getattr(theirs, name)), name


@pytest.mark.parametrize("class_mode", ["categorical", "raw", None])
def test_attributes_of_a_table(folder, old, keep, class_mode):
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    import pandas as pd

    table = pd.DataFrame(
        {"filename": files, "class": [f[:3] for f in files], "w": range(len(files))}
    )
    options = {"target_size": SIZE, "class_mode": class_mode, "shuffle": False, "seed": 7}
    options["y_col"] = "w" if class_mode == "raw" else "class"
    ours = keep(ImageDataGenerator().flow_from_dataframe(table, folder, **options))
    theirs = old().flow_from_dataframe(table, str(folder), **options)
    for name in sorted(public(theirs) - {"image_data_generator"}):
        assert same(getattr(ours, name), getattr(theirs, name)), name
    assert ours.image_data_generator.dtype == np.float32


def test_attributes_of_arrays(old, keep):
    x, y, w = np.zeros((6, 2, 2, 3)), np.arange(6), np.linspace(0, 1, 6, dtype=np.float32)
    ours = keep(ImageDataGenerator().flow(x, y, 4, False, w, 7))
    theirs = old().flow(x, y, 4, False, w, 7)
    for name in sorted(public(theirs) - {"image_data_generator"}):
        assert same(getattr(ours, name), getattr(theirs, name)), name


def numbered(samples=7):
    """Images that hold their number."""
    return np.arange(samples, dtype=np.float32).reshape(-1, 1, 1, 1)


def numbers(batch):
    return batch[:, 0, 0, 0].astype(int).tolist()


def test_next_goes_on_without_end(keep):
    """Epoch after epoch, each with every sample; `reset` begins again."""
    flow = keep(ImageDataGenerator().flow(numbered(), batch_size=3, shuffle=False))
    taken = [numbers(next(flow)) for _ in range(5)]
    assert taken == [[0, 1, 2], [3, 4, 5], [6], [0, 1, 2], [3, 4, 5]]
    flow.reset()
    assert numbers(next(flow)) == [0, 1, 2]
    assert numbers(flow[1]) == [3, 4, 5]


def test_next_shuffles_as_keras_iterators_do(keep):
    """They are made with shuffle=True; each pass has another order."""
    flow = keep(ImageDataGenerator().flow(numbered(40), batch_size=10, seed=3))
    passes = [[number for _ in range(4) for number in numbers(next(flow))] for _ in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(40))
    assert passes[0] != passes[1]
    assert passes[0] != list(range(40))


def test_next_leaves_a_fit_alone(keep):
    """It reads on a view: the batches of an epoch are all there."""
    flow = keep(ImageDataGenerator().flow(numbered(), batch_size=3, shuffle=False))
    flow.on_epoch_begin()
    first = numbers(flow[0])
    next(flow)
    rest = [numbers(flow[k]) for k in (1, 2)]
    flow.on_epoch_end()
    assert list(itertools.chain(first, *rest)) == list(range(7))


def test_views_parts_and_copies_keep_the_names(folder, keep):
    """Also where another process gets the loader."""
    flow = keep(ImageDataGenerator().flow_from_directory(folder, SIZE, seed=1))
    next(flow)
    for made in (flow.view(), pickle.loads(pickle.dumps(flow))):
        assert made.class_indices == flow.class_indices
        assert made.image_shape == (*SIZE, 3)
        assert len(next(keep(made))) == 2
    part = keep(kl.take(flow, 5))
    assert part.n == part.samples == 5
    assert part.filepaths == flow.filepaths[:5]


def test_options_are_those_of_a_loader_and_stay(folder, keep):
    """A misspelt one is refused, and so is a change afterwards."""
    with pytest.raises(TypeError, match="did you mean workers="):
        ImageDataGenerator().flow_from_directory(folder, SIZE, worker=1)
    flow = keep(ImageDataGenerator().flow_from_directory(folder, SIZE))
    with pytest.raises(AttributeError, match="labels of a loader is fixed"):
        flow.labels = [1]
    with pytest.raises(AttributeError, match="size of a loader is fixed"):
        flow.size = (3, 3)
    data = keep(image_dataset_from_directory(folder, image_size=SIZE))
    assert data.file_paths == list(data.paths)


def test_there_is_something_to_compare_with():
    assert "Keras 3" in OLD
