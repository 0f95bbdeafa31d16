"""What every source keeps to, whatever it reads: one suite over all kinds, and what the base class does.

A loader relies on nothing else, so this is what a source of a user's own has to hold, too.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from kloaders.core.rows import RowMismatch, Rows
from kloaders.core.structure import as_sample, flatten, map_structure
from kloaders.plan.rng import Moment
from kloaders.sources.source import Source, SubsetSource, WrappedSource
from tests.support.every_source import BROKEN, KINDS, ODD, SAMPLES, Data
from tests.support.sources import Numbered, steps_of

FIRST = 3
ORDER = np.array([4, 1, 6, 1, 0, 5, 2, 3], np.int64)  # sample 1 comes twice


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def make(kind, tmp_path):
    """make(**facts of Data) -> a source of the kind, over files of its own."""
    made = []

    def _make(**facts):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(kind.make(Data(folder, **{"first": FIRST, **facts})))
        return made[-1]

    yield _make
    for source in made:
        source.close()


@pytest.fixture
def source(make):
    return make()


def assert_equal(parts, others):
    """Two samples are the same: in structure, values and dtypes."""
    assert map_structure(lambda _: None, parts) == map_structure(lambda _: None, others)
    for array, other in zip(flatten(parts), flatten(others), strict=True):
        assert array.dtype == other.dtype
        np.testing.assert_array_equal(array, other)


def filled(source, indices, like=0):
    """What `fill` makes of these samples, each as parts, and what it reports of them."""
    form = source.sample(like, Moment())
    arrays = [np.zeros((len(indices), *leaf.shape), leaf.dtype) for leaf in flatten(form)]
    reports = []
    source.fill(
        np.asarray(indices, np.int64),
        Rows(form, arrays),
        lambda row, error: reports.append((row, error)),
        Moment(),
    )
    rows = []
    for row in range(len(indices)):
        leaves = iter([array[row] for array in arrays])
        rows.append(map_structure(lambda _, leaves=leaves: next(leaves), form))
    return rows, reports


def numbers_in(kind, source, indices):
    return [kind.number(source.sample(int(index), Moment())) for index in indices]


# ---------------------------------------------------------------- reading


def test_it_has_as_many_samples_as_its_data(make):
    assert len(make()) == SAMPLES
    assert len(make(samples=SAMPLES - 1)) == SAMPLES - 1


def test_sample_k_is_sample_k(kind, source):
    assert numbers_in(kind, source, range(SAMPLES)) == list(range(FIRST, FIRST + SAMPLES))


def test_sample_is_what_read_gives(kind, source):
    """`sample` gives parts of arrays, `read` the same in whatever form is handy."""
    for index in range(SAMPLES):
        parts = source.sample(index, Moment())
        assert isinstance(parts, tuple)
        assert len(parts) == 1 + kind.labelled
        assert all(isinstance(leaf, np.ndarray | np.generic) for leaf in flatten(parts))
        read = as_sample(source.read(index))
        assert [leaf.tolist() for leaf in flatten(read)] == [
            leaf.tolist() for leaf in flatten(parts)
        ]


def test_arrays_of_a_sample_are_the_callers(kind, source):
    """A transform may write to them: the next one who reads the sample does not see it."""
    for leaf in flatten(source.sample(1, Moment())):
        if isinstance(leaf, np.ndarray) and leaf.ndim:
            leaf[...] = 99
    assert numbers_in(kind, source, [1]) == [FIRST + 1]


def test_fill_gives_what_sample_gives(kind, source):
    """In any order, with one sample twice; and once more, when layouts are learnt and caches full."""
    for _ in range(2):
        rows, reports = filled(source, ORDER)
        assert reports == []
        assert [kind.number(row) for row in rows] == (FIRST + ORDER).tolist()
        for index, row in zip(ORDER.tolist(), rows, strict=True):
            assert_equal(row, source.sample(index, Moment()))


def test_fill_of_no_samples_reads_nothing(source):
    assert filled(source, []) == ([], [])


def test_readers_give_what_sample_gives(kind, source):
    """Readers may be called later, and carry the numbers of this source."""
    found = list(source.readers(ORDER, Moment()))
    assert [index for index, _ in found] == ORDER.tolist()
    for index, read in found:
        assert_equal(read(), source.sample(index, Moment()))


def test_prepare_and_prefetch_change_nothing(kind, source):
    source.prepare()
    source.prefetch(ORDER)
    assert numbers_in(kind, source, ORDER) == (FIRST + ORDER).tolist()


# ---------------------------------------------------------------- samples that fail


def test_a_sample_that_fails_is_reported_with_its_row(kind, make):
    """And all others are right, those beside it in the call as well as those after it."""
    if not kind.can_break:
        pytest.skip("its samples cannot fail")
    source = make(broken=True)
    with pytest.raises(Exception, match=r"."):
        source.sample(BROKEN, Moment())
    indices = [2, BROKEN, 0, 5, BROKEN]
    for _ in range(2):
        rows, reports = filled(source, indices)
        assert {row for row, _ in reports} == {1, 4}
        assert not any(isinstance(error, RowMismatch) for _, error in reports)
        assert [kind.number(rows[k]) for k in (0, 2, 3)] == [FIRST + 2, FIRST, FIRST + 5]


def test_a_sample_of_another_shape_is_reported_as_such(kind, make):
    """With its row and its array, which a loader may pad."""
    if not kind.can_differ:
        pytest.skip("its samples cannot differ in shape")
    source = make(odd=True)
    assert flatten(source.sample(ODD, Moment()))[0].shape == (3,)
    for _ in range(2):
        rows, reports = filled(source, [1, 0, ODD, 4])
        ((row, error),) = reports
        assert (row, type(error)) == (2, RowMismatch)
        assert (error.row, error.leaf) == (2, 0)
        assert error.array.tolist() == [FIRST + ODD] * 3
        assert [kind.number(rows[k]) for k in (0, 1, 3)] == [FIRST + 1, FIRST, FIRST + 4]


# ---------------------------------------------------------------- what is known of it


def test_every_sample_has_a_name(kind, source):
    """One that tells it from others of its source, since quarantine files name samples by it."""
    names = [source.name(index) for index in range(SAMPLES)]
    assert all(isinstance(name, str) and name for name in names)
    assert len(set(names)) == SAMPLES or not kind.own_names


def test_advice_is_a_sentence(source):
    for differs in (True, False):
        assert source.advice(1, 0, differs).endswith(".")


def test_the_fingerprint_is_that_of_the_data(kind, make):
    """Short texts, the same for the same data and others for other data."""
    prints = make().fingerprint()
    assert prints
    assert all(isinstance(text, str) and len(text) < 200 for text in prints.values())
    assert make().fingerprint() == prints
    assert make(samples=SAMPLES - 1).fingerprint() != prints
    if kind.known_by != "names":
        assert make(first=100).fingerprint() != prints


def test_labels_known_beforehand_are_those_of_the_samples(source):
    labels = source.labels()
    if labels is not None:
        assert labels.tolist() == list(range(FIRST, FIRST + SAMPLES))


def test_lengths_known_beforehand_are_those_of_the_samples(make):
    source = make()
    lengths = source.lengths()
    if lengths is not None:
        assert lengths.tolist() == [
            len(flatten(source.sample(index, Moment()))[0]) for index in range(SAMPLES)
        ]


# ---------------------------------------------------------------- sources made of it


def assert_is_part(kind, part, whole, numbers):
    """`part` has those samples of `whole` that have these numbers."""
    expected = [FIRST + number for number in numbers]
    assert len(part) == len(numbers)
    assert numbers_in(kind, part, range(len(numbers))) == expected
    rows, reports = filled(part, list(reversed(range(len(numbers)))))
    assert reports == []
    assert [kind.number(row) for row in rows] == expected[::-1]
    found = list(part.readers(np.arange(len(numbers)), Moment()))
    assert [index for index, _ in found] == list(range(len(numbers)))
    assert [kind.number(read()) for _, read in found] == expected
    for index, number in enumerate(numbers):
        assert part.name(index) == whole.name(number)
        assert part.advice(index, 0, True) == whole.advice(number, 0, True)
    assert (part.paths is None) == (whole.paths is None)
    if whole.paths is not None:
        assert list(part.paths) == [whole.paths[number] for number in numbers]
    for known in ("labels", "lengths"):
        values = getattr(whole, known)()
        if values is None:
            assert getattr(part, known)() is None
        else:
            assert getattr(part, known)().tolist() == values[list(numbers)].tolist()
    assert part.fingerprint() != whole.fingerprint()


def test_take_gives_those_samples(kind, source):
    """Samples, names, paths, labels and lengths: everything goes by the new numbers."""
    numbers = [5, 0, 3]
    assert_is_part(kind, source.take(np.array(numbers)), source, numbers)


def test_take_of_take(kind, source):
    part = source.take(np.array([5, 0, 3, 6])).take(np.array([2, 0]))
    assert_is_part(kind, part, source, [3, 5])


def test_a_failure_in_a_part_has_the_row_of_the_part(kind, make):
    if not kind.can_break:
        pytest.skip("its samples cannot fail")
    part = make(broken=True).take(np.array([BROKEN, 4, 2]))
    rows, reports = filled(part, [2, 0, 1], like=1)
    assert {row for row, _ in reports} == {1}
    assert [kind.number(rows[k]) for k in (0, 2)] == [FIRST + 2, FIRST + 4]


def test_a_pickled_copy_is_the_same_source(kind, source):
    """As worker processes get it, after samples were read."""
    filled(source, ORDER)
    for one in (source, source.take(np.array([5, 0, 3])), source.for_worker()):
        copy = pickle.loads(pickle.dumps(one))
        assert len(copy) == len(one)
        indices = list(range(len(one)))
        assert numbers_in(kind, copy, indices) == numbers_in(kind, one, indices)
        rows, reports = filled(copy, indices)
        assert reports == []
        assert [kind.number(row) for row in rows] == numbers_in(kind, one, indices)
        assert [copy.name(k) for k in indices] == [one.name(k) for k in indices]
        assert copy.fingerprint() == one.fingerprint()
        copy.close()


def test_it_reads_again_after_it_was_closed(kind, source):
    before = numbers_in(kind, source, ORDER)
    source.close()
    source.close()
    assert numbers_in(kind, source, ORDER) == before
    rows, reports = filled(source, ORDER)
    assert reports == []
    assert [kind.number(row) for row in rows] == before


def test_what_it_reads_with_is_kept_alive(kind, source):
    """A held source, one for workers, and one with a seed have the same samples."""
    for one in (source.held(), source.for_worker(), source.with_seed(5)):
        assert numbers_in(kind, one, ORDER) == (FIRST + ORDER).tolist()


def test_other_columns_of_labels(kind, source):
    """Where labels are columns, they may be changed; x stays, and so does the source itself."""
    changed = source.with_labels(lambda column: _Plus(column, 50))
    if changed is None:
        return
    x, y = changed.sample(2, Moment())
    assert flatten(y)[0] == FIRST + 2 + 50
    assert_equal((x,), source.sample(2, Moment())[:1])
    rows, _ = filled(changed, [4])
    assert flatten(rows[0][1])[0] == FIRST + 4 + 50
    assert numbers_in(kind, source, [2]) == [FIRST + 2]


class _Plus:
    """The values of a column, and something more."""

    def __init__(self, column, more):
        self.column, self.more = column, more

    def __len__(self):
        return len(self.column)

    def read(self, index):
        return self.column.read(index) + self.more

    def fill(self, indices, out, leaf, report):
        self.column.fill(indices, out, leaf, report)
        out += self.more

    def name(self, index):
        return self.column.name(index)


# ---------------------------------------------------------------- the base class


class _Half(Source):
    """Overrides nothing but `__len__`."""

    def __len__(self):
        return 2


class _Drawn(Source):
    """Samples that differ from epoch to epoch: `sample` in place of `read`."""

    random = True

    def __len__(self):
        return 4

    def sample(self, index, moment):
        return (np.array([index, moment.epoch, moment.draw]),)


def test_a_source_without_read_says_so():
    with pytest.raises(NotImplementedError, match=r"_Half must override read\(index\)"):
        _Half().read(0)
    with pytest.raises(NotImplementedError):
        len(Source())


def test_read_is_sample_where_only_that_is_there():
    (x,) = _Drawn().read(3)
    assert x.tolist() == [3, 0, 0]


def test_each_row_has_its_own_draw():
    """A sample that comes twice in a batch is drawn twice, in `fill` as in `readers`."""
    source, moment = _Drawn(), Moment(7, np.array([0, 1, 0]))
    indices = np.array([2, 2, 1])
    out = np.zeros((3, 3), np.int64)
    source.fill(indices, Rows((None,), [out]), lambda *failed: pytest.fail(str(failed)), moment)
    assert out.tolist() == [[2, 7, 0], [2, 7, 1], [1, 7, 0]]
    assert [read()[0].tolist() for _, read in source.readers(indices, moment)] == out.tolist()


def test_a_sample_of_another_structure_is_reported():
    """Not as one of another shape, which may be padded."""
    source = Numbered(3, make=lambda k: {"a": steps_of(k)} if k == 1 else steps_of(k))
    rows, reports = filled(source, [0, 1, 2])
    ((row, error),) = reports
    assert (row, type(error)) == (1, TypeError)
    assert "nested differently" in str(error)
    assert [int(rows[k][1]) for k in (0, 2)] == [0, 2]


def test_what_a_base_source_knows():
    source = Numbered(3)
    assert source.labels() is source.lengths() is source.with_labels(str) is source.owner() is None
    assert source.stores() == []
    assert source.delivered("spec") == "spec"
    assert source.with_seed(3) is source.held() is source.rebound(1, 2) is source.for_worker()


# ---------------------------------------------------------------- wrapped, and some of one


def test_a_wrapped_source_takes_over_what_is_known():
    """Every fact that the base class lists, so that a new one cannot be forgotten."""

    class Facts(Numbered):
        runs_user_code = random = reads_many = whole_batches = in_order = True
        not_kept = "no reason"
        columns = ("x",)
        paths = ("a", "b", "c")

    facts = {name for name, value in vars(Source).items() if name[0] != "_" and not callable(value)}
    inner = Facts(3)
    wrapped = WrappedSource(inner)
    assert {name: getattr(wrapped, name) for name in facts} == {
        name: getattr(inner, name) for name in facts
    }
    assert "random" in facts
    assert wrapped.with_seed(1) is wrapped


def test_a_subset_asks_by_the_numbers_of_the_whole():
    """A hook may look samples up by number in a store of its own."""
    source = Numbered(9)
    part = source.take(np.array([7, 2]))
    filled(part, [1, 0])
    assert source.reads == [7, 2, 7]  # the first one for its form


def test_a_subset_takes_four_bytes_a_sample():
    part = SubsetSource(Numbered(1000), np.arange(500))
    assert part.numbers.nbytes == 2000
