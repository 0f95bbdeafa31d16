"""The base of all loaders: hooks, names of samples, what a hook may return, views and copies."""

import pickle

import numpy as np
import pytest

import kloaders as kl
from tests.support.sources import Numbered

# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"lables": 1}, TypeError, "SequenceLoader has no option lables=: it has shuffle, seed"),
        ({"shufle": True}, TypeError, r"no option shufle=: did you mean shuffle=\?"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"shard": (2, 2)}, ValueError, r"shard=\(2, 2\): k counts from 0"),
        ({"use_multiprocessing": True}, ValueError, "Keras' process pool"),
        ({"processes": True, "workers": 0}, ValueError, "needs workers=1 or more"),
    ],
)
def test_a_wrong_option_is_refused_at_once(options, error, words):
    with pytest.raises(error, match=words):
        kl.SequenceLoader(Numbered(4), **options)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match=r"^SequenceLoader got no samples"):
        kl.SequenceLoader(0)


def test_no_hook_is_refused_with_what_to_override():
    with pytest.raises(kl.SampleError, match=r"override load_sample\(index\)"):
        kl.SequenceLoader(4)[0]


# ---------------------------------------------------------------- what a hook returns


class Hooked(kl.SequenceLoader):
    """Samples that `give` makes of a number."""

    def __init__(self, give, samples=6, batch_size=3, **options):
        self.give = give
        super().__init__(samples, batch_size, **options)

    def load_sample(self, index):
        return self.give(np.float32(index))


def lists(batch):
    """A batch with lists in place of arrays."""
    if isinstance(batch, tuple):
        return tuple(map(lists, batch))
    if isinstance(batch, dict):
        return {key: lists(value) for key, value in batch.items()}
    return batch.tolist()


@pytest.mark.parametrize(
    ("give", "expected"),
    [
        (lambda n: n, [0, 1, 2]),
        (lambda n: (n, -n), ([0, 1, 2], [0, -1, -2])),
        (lambda n: {"a": n, "b": n + 1}, {"a": [0, 1, 2], "b": [1, 2, 3]}),
        (lambda n: ((n, n + 1), n + 2), (([0, 1, 2], [1, 2, 3]), [2, 3, 4])),
        (lambda n: ((n, n + 1),), (([0, 1, 2], [1, 2, 3]),)),
        (lambda n: (n, {"p": n, "q": -n}), ([0, 1, 2], {"p": [0, 1, 2], "q": [0, -1, -2]})),
    ],
    ids=["x", "(x, y)", "dict", "((a, b), y)", "((a, b),)", "(x, dict)"],
)
def test_a_tuple_is_inputs_and_labels(give, expected):
    """(x, y) is a sample; two inputs are a tuple within it."""
    assert lists(Hooked(give)[0]) == expected


def test_a_tuple_of_four_is_refused():
    """The third part is weights."""
    assert lists(Hooked(lambda n: (n, -n, 2.0))[0]) == ([0, 1, 2], [0, -1, -2], [2, 2, 2])
    with pytest.raises(kl.SampleError, match="tuple of 4 parts, expected x, "):
        Hooked(lambda n: (n, n, n, n))[0]


class FileHook(kl.PathSequenceLoader):
    """Reads a file as `give` says of its row."""

    def __init__(self, give, *arguments, **options):
        self.give = give
        super().__init__(*arguments, **options)

    def load_sample(self, path):
        return self.give(np.load(path))


def test_a_hook_over_files_may_give_labels(npy, keep):
    """Without labels= a tuple of a hook is (x, y)."""
    x, y = keep(FileHook(lambda row: (row, row[0] * 2), npy, None, 4))[1]
    expected = np.stack([np.load(path) for path in npy[4:8]])
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(y, expected[:, 0] * 2)


def test_a_hook_over_files_gives_two_inputs_beside_its_labels(npy, keep):
    (a, b), y = keep(FileHook(lambda row: ((row, row + 1), row[0]), npy, None, 4))[0]
    np.testing.assert_array_equal(b, a + 1)
    np.testing.assert_array_equal(y, a[:, 0])


def test_two_inputs_of_a_hook_beside_labels_that_were_given(npy, keep):
    """The tuple in a tuple and the dict, as the message below advises."""
    labels = np.arange(len(npy))
    (a, b), y = keep(FileHook(lambda row: ((row, row + 1),), npy, labels, 4))[1]
    np.testing.assert_array_equal(b, a + 1)
    assert y.tolist() == [4, 5, 6, 7]
    x, y = keep(FileHook(lambda row: {"a": row, "b": row + 1}, npy, labels, 4))[1]
    np.testing.assert_array_equal(x["b"], x["a"] + 1)
    assert y.tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_tuple_of_a_hook_beside_labels_is_refused(npy, keep, workers):
    """It might be two inputs, or an input and a label: the message has a way for each."""
    loader = keep(FileHook(lambda row: (row, row[0]), npy, np.arange(len(npy)), 4, workers=workers))
    with pytest.raises(kl.SampleError) as caught:
        loader[0]
    assert isinstance(caught.value.__cause__, TypeError)
    assert npy[0] in (text := str(caught.value))
    assert "the hook returned a tuple of 2" in text
    assert "{'a': a, 'b': b}" in text
    assert "((a, b),)" in text
    assert "leave labels= out" in text


# ---------------------------------------------------------------- names of samples


class Fails(kl.SequenceLoader):
    """Sample 5 does not load; samples have names of their own."""

    def __init__(self, *arguments, **options):
        self.kind = "row"
        super().__init__(*arguments, **options)

    def load_sample(self, index):
        if index == 5:
            raise ValueError("broken")
        return np.float32(index)

    def sample_name(self, index):
        return f"{self.kind} <{super().sample_name(index)}>"


def name_in(loader, batch):
    with pytest.raises(kl.SampleError) as caught:
        loader[batch]
    assert "broken" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("workers", [0, 2])
def test_a_name_of_ones_own_is_in_the_error(workers, keep):
    error = name_in(keep(Fails(8, 4, workers=workers)), 1)
    assert error.index == 5
    assert "(row <index 5>)" in str(error)


@pytest.mark.parametrize(
    ("part", "batch"),
    [
        (lambda loader: kl.subset(loader, [7, 5, 1]), 0),
        (lambda loader: kl.subset(kl.subset(loader, slice(2, None)), [3, 0]), 0),
        (lambda loader: loader.view(), 1),
        (lambda loader: pickle.loads(pickle.dumps(loader)), 1),
        (lambda loader: pickle.loads(pickle.dumps(kl.subset(loader, [7, 5]))), 0),
    ],
    ids=["subset", "subset of a subset", "view", "pickled", "pickled subset"],
)
def test_the_name_is_that_of_the_whole(part, batch, keep):
    """The hook gets the number that the sample has in the whole, and keeps its own attributes."""
    assert "(row <index 5>)" in str(name_in(keep(part(keep(Fails(8, 4)))), batch))


def test_a_name_is_listed_where_a_sample_is_skipped(keep, tmp_path):
    loader = keep(Fails(8, 4, on_error="skip", quarantine=tmp_path / "bad.csv"))
    assert loader[1].tolist() == [4, 6, 7]
    (error,) = loader.errors
    assert "row <index 5>" in str(error)
    assert "row <index 5>" in (tmp_path / "bad.csv").read_text()


def test_a_file_has_its_path_for_a_name(npy, keep):
    """super().sample_name of a loader over files, in a part of it too."""

    class Named(kl.PathSequenceLoader):
        def sample_name(self, index):
            return f"[{super().sample_name(index)}]"

    loader = keep(Named(npy, np.arange(len(npy)), 4))
    assert loader.sample_name(3) == f"[{npy[3]}]"
    assert loader.source.name(3) == f"[{npy[3]}]"
    assert kl.subset(loader, [9, 3]).source.name(1) == f"[{npy[3]}]"


def test_names_without_a_hook_are_those_of_the_source():
    assert kl.SequenceLoader(Numbered(4)).sample_name(2) == Numbered(4).name(2)


# ---------------------------------------------------------------- batches


def numbered(**options):
    return Hooked(lambda n: n, 10, 4, **options)


def test_the_last_batch_is_short_left_out_or_filled_up():
    assert [numbered()[i].tolist() for i in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(numbered(drop_last=True)) == 2
    loader = Hooked(lambda n: (n, n), 10, 4, pad_last=True)
    *_, weights = loader[2]
    assert weights.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("index", [3, -4, 100])
def test_a_batch_that_is_none_is_an_index_error(index):
    with pytest.raises(IndexError):
        numbered()[index]


def test_iterations_are_epochs_of_the_plan():
    loader = numbered(shuffle=True, seed=3)
    epochs = [[n for batch in loader for n in batch.tolist()] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]
    again = numbered(shuffle=True, seed=3)
    for number, epoch in enumerate(epochs):
        found = [n for batch in again.epoch_batches(number) for n in batch.tolist()]
        assert found == epoch


def test_epoch_batches_take_another_order():
    loader = numbered(shuffle=True, seed=3)
    assert [b.tolist() for b in loader.epoch_batches(0, shuffle=False)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]


def test_load_batch_gets_the_numbers_in_the_order_of_delivery():
    class ByBatch(kl.SequenceLoader):
        def load_batch(self, indices):
            assert indices.dtype == np.int64
            return indices.astype(np.float32), -indices

    loader = ByBatch(10, 4, shuffle=True, seed=1)
    for (x, y), numbers in zip(loader, [b[0] for b in loader.epoch_batches(0)], strict=True):
        np.testing.assert_array_equal(x, numbers)
        np.testing.assert_array_equal(y, -x)


def test_load_batch_with_too_few_rows_is_refused():
    class Short(kl.SequenceLoader):
        def load_batch(self, indices):
            return np.zeros(max(1, len(indices) - 1))

    with pytest.raises(ValueError, match="one row for each index, in their order"):
        Short(8, 4)[0]


# ---------------------------------------------------------------- a source of one's own


class Doubles(kl.SequenceLoader):
    """Reads what a source has, times two."""

    def load_sample(self, index):
        x, y = self._base.read(index)
        return x * 2, y


def test_a_source_is_read():
    x, y = kl.SequenceLoader(Numbered(6), 3)[1]
    expected = [Numbered(6).read(k) for k in (3, 4, 5)]
    np.testing.assert_array_equal(x, np.stack([one[0] for one in expected]))
    np.testing.assert_array_equal(y, np.stack([one[1] for one in expected]))


def test_a_hook_stands_in_front_of_a_source():
    source = Numbered(6)
    loader = Doubles(source, 3)
    loader._base = source
    plain = kl.SequenceLoader(source, 3)[0]
    np.testing.assert_array_equal(loader[0][0], plain[0] * 2)


# ---------------------------------------------------------------- copies


def test_views_share_data_and_have_a_position_of_their_own():
    loader = numbered(shuffle=True, seed=3)
    view = loader.view()
    assert type(view) is Hooked
    first = [b.tolist() for b in loader]
    assert [b.tolist() for b in view] == first
    assert [b.tolist() for b in loader] != first


def test_replace_changes_a_field_and_leaves_the_loader():
    loader = numbered(seed=3)
    other = loader.replace(batch_size=5)
    assert (len(loader), len(other)) == (3, 2)
    assert other[1].tolist() == [5, 6, 7, 8, 9]
    assert other.seed == 3


def test_a_loader_used_with_with_is_closed_and_can_be_used_again():
    with numbered(workers=2) as loader:
        assert loader[0].tolist() == [0, 1, 2, 3]
    assert loader[2].tolist() == [8, 9]
    loader.close()


def test_what_it_is_called():
    assert repr(numbered(seed=3)) == "Hooked(10 samples, batch_size=4, shuffle=None, seed=3)"
