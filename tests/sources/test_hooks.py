"""Samples that a loader's hooks give: how they are called, and that no source keeps a loader alive."""

import gc
import pickle
import weakref

import numpy as np
import pytest

from kloaders.core.rows import RowMismatch, Rows
from kloaders.formats.options import ImageOptions
from kloaders.plan.rng import Moment
from kloaders.sources.columns import ArrayColumn, OneHotColumn, PathColumn
from kloaders.sources.files import FileReader, FileSource
from kloaders.sources.hooks import (
    HookSource,
    LabelledSource,
    LoaderGoneError,
    NamedSource,
    PathHookSource,
    default_hook,
    overrides,
)
from kloaders.sources.path_lists import PackedPaths
from tests.support.sources import Numbered, steps_of

COUNT = 5


class Loader:
    """Hooks over numbers; notes what it is asked for."""

    def __init__(self, broken=(), named="row"):
        self.broken, self.named, self.asked, self.changes = set(broken), named, [], {}

    def load_sample(self, index):
        self.asked.append(index)
        return steps_of(index), index

    def load_batch(self, indices):
        self.asked.append(indices.tolist())
        if self.broken & set(indices.tolist()):
            raise ValueError(f"broken among {indices.tolist()}")
        return np.stack([steps_of(k) for k in indices]), indices * 10

    def sample_name(self, index):
        return f"{self.named} {index}"

    def replace(self, **changes):
        other = type(self)(self.broken, self.named)
        other.changes = changes
        return other


def filled(source, indices, shape=(2,)):
    form = (None, None)
    arrays = [np.zeros((len(indices), *shape), np.float32), np.zeros(len(indices), np.int64)]
    reports = []
    source.fill(
        np.array(indices), Rows(form, arrays), lambda *found: reports.append(found), Moment()
    )
    return arrays, reports


# ---------------------------------------------------------------- which hooks are a user's


def test_a_hook_is_overridden_by_a_subclass_and_its_subclasses():
    class Ours:
        @default_hook
        def load_sample(self, index):
            return index

    class Theirs(Ours):
        def load_sample(self, index):
            return super().load_sample(index)

    class Further(Theirs):
        pass

    found = [overrides(kind, "load_sample") for kind in (Ours, Theirs, Further)]
    assert found == [False, True, True]


# ---------------------------------------------------------------- the loader


def test_a_source_does_not_keep_its_loader_alive():
    """A loader refers to its source: were it to keep the loader, only the collector would free both."""
    loader = Loader()
    source = HookSource(loader, COUNT)
    assert source.owner() is loader
    gc.disable()
    try:
        gone = weakref.ref(loader)
        del loader
        assert gone() is None
    finally:
        gc.enable()
    assert source.owner() is None
    with pytest.raises(LoaderGoneError):
        source.sample(0, Moment())
    with pytest.raises(LoaderGoneError):  # it says nothing about any sample
        filled(source, [0, 1])


@pytest.mark.parametrize("keep", [HookSource.held, lambda s: pickle.loads(pickle.dumps(s))])
def test_one_that_is_held_or_pickled_does(keep):
    loader = Loader()
    source = keep(HookSource(loader, COUNT))
    del loader
    gc.collect()
    assert source.sample(3, Moment())[1] == 3


def test_a_view_calls_its_own_hooks():
    old, new, other = Loader(named="old"), Loader(named="new"), Loader()
    source = NamedSource(HookSource(old, COUNT), old)
    moved = source.rebound(old, new)
    assert moved.name(1) == "new 1"
    moved.sample(1, Moment())
    assert (old.asked, new.asked) == ([], [1])
    assert moved.owner() is new
    assert source.rebound(other, new).owner() is old


def test_workers_get_hooks_without_what_they_do_not_need():
    loader = Loader(named="mine")
    source = NamedSource(HookSource(loader, COUNT), loader).for_worker()
    worker = source.owner()
    assert worker is not loader
    assert worker.changes["weights"] is worker.changes["ram"] is None
    assert source.name(2) == "mine 2"
    assert source.sample(2, Moment())[1] == 2


# ---------------------------------------------------------------- samples and batches


def test_only_x_is_cast():
    loader = Loader()
    for by_batch in (False, True):
        source = HookSource(loader, COUNT, np.dtype(np.float16), by_batch=by_batch)
        x, y = source.sample(2, Moment())
        assert (x.dtype, y.dtype) == (np.float16, np.int64)


def test_a_batch_is_one_call():
    loader = Loader()
    (x, y), reports = filled(HookSource(loader, COUNT, by_batch=True), [3, 1, 3])
    assert loader.asked == [[3, 1, 3]]
    assert (x[:, 0].tolist(), y.tolist(), reports) == ([3, 1, 3], [30, 10, 30], [])


def test_a_batch_that_fails_is_asked_for_one_by_one():
    loader = Loader(broken=[1])
    (x, _), reports = filled(HookSource(loader, COUNT, by_batch=True), [3, 1, 2])
    assert loader.asked == [[3, 1, 2], [3], [1], [2]]
    assert [(row, str(error)) for row, error in reports] == [(1, "broken among [1]")]
    assert x[[0, 2], 0].tolist() == [3, 2]


def test_a_batch_of_another_shape_is_reported_row_by_row():
    _, reports = filled(HookSource(loader := Loader(), COUNT, by_batch=True), [3, 1], shape=(4,))
    assert [(row, type(error), error.row, error.leaf) for row, error in reports] == [
        (0, RowMismatch, 0, 0),
        (1, RowMismatch, 1, 0),
    ]
    assert loader.asked == [[3, 1]]


def test_a_batch_of_too_few_rows_blames_the_hook():
    class Short(Loader):
        def load_batch(self, indices):
            return super().load_batch(indices[:-1])

    loader = Short()
    with pytest.raises(ValueError, match=r"load_batch\(3 indices\) returned an array of 2 rows"):
        filled(HookSource(loader, COUNT, by_batch=True), [3, 1, 2])


def test_readers_of_a_batch_that_fails_find_the_sample():
    loader = Loader(broken=[1])
    source = HookSource(loader, COUNT, by_batch=True)
    readers = dict(source.readers(np.array([3, 1]), Moment()))
    assert readers[3]()[1] == 30
    with pytest.raises(ValueError, match=r"broken among \[1\]"):
        readers[1]()


def test_a_base_says_what_is_known_without_hooks():
    paths = PackedPaths(["a.png", "b.png"])
    base = FileSource((PathColumn(paths, FileReader(ImageOptions(), None)),), paths)
    loader = Loader()
    source = HookSource(loader, 2, base=base)
    assert source.name(1) == "b.png"
    assert source.paths is paths
    assert source.fingerprint() == base.fingerprint()
    assert source.advice(0, 0, False) == base.advice(0, 0, False)
    alone = HookSource(loader, 2)
    assert alone.name(1) == "index 1"
    assert alone.paths is None


# ---------------------------------------------------------------- hooks of paths, and labels


class OfPaths(Loader):
    def load_sample(self, path):
        self.asked.append(path)
        return steps_of(int(path))

    def load_batch(self, indices):
        return {"a": np.stack([steps_of(k) for k in indices]), "b": indices}


def path_source(loader, several=False, by_batch=False):
    paths = PackedPaths([str(k) for k in range(COUNT)])
    column = PathColumn(paths, FileReader(ImageOptions(), None))
    inputs = {"a": column, "b": ArrayColumn(np.arange(COUNT) * 10)} if several else column
    base = FileSource((inputs,), paths, hooked=True)
    return PathHookSource(loader, inputs, None, by_batch=by_batch, base=base)


def test_the_hook_gets_a_path_for_each_input_of_files():
    loader = OfPaths()
    (x,) = path_source(loader).sample(3, Moment())
    assert x.tolist() == [3, 3]
    ((both),) = path_source(loader, several=True).sample(2, Moment())
    assert (both["a"].tolist(), both["b"].tolist()) == ([2, 2], 20)
    assert loader.asked == ["3", "2"]


def test_a_batch_of_several_inputs_is_no_pair():
    loader = OfPaths()
    (x,) = path_source(loader, several=True, by_batch=True).sample(2, Moment())
    assert (x["a"].tolist(), x["b"]) == ([2, 2], 2)


def test_labels_are_those_of_columns():
    loader = OfPaths()
    inner = path_source(loader)
    labels = {"n": ArrayColumn(np.arange(COUNT)), "m": ArrayColumn(np.arange(COUNT) + 5)}
    source = LabelledSource(inner, labels, (inner.inputs, labels))
    x, y = source.sample(3, Moment())
    assert (x.tolist(), y["n"], y["m"]) == ([3, 3], 3, 8)
    assert source.labels() is None  # there are two
    ((_, read),) = source.readers(np.array([4]), Moment())
    assert read()[1]["m"] == 9


def test_known_labels_change_with_their_column():
    loader = OfPaths()
    inner = path_source(loader)
    labels = ArrayColumn(np.arange(COUNT) % 2)
    source = LabelledSource(inner, labels, (inner.inputs, labels))
    assert source.labels().tolist() == [0, 1, 0, 1, 0]
    changed = source.with_labels(lambda column: OneHotColumn(column, 2))
    assert changed.sample(1, Moment())[1].tolist() == [0, 1]
    assert source.sample(1, Moment())[1] == 1


def test_labels_from_the_hook_and_from_columns_are_one_too_many():
    labels = ArrayColumn(np.arange(COUNT))
    source = LabelledSource(Numbered(COUNT), labels, (labels, labels))
    with pytest.raises(TypeError, match=r"returned a tuple of 2.*loader also has labels"):
        source.sample(0, Moment())
