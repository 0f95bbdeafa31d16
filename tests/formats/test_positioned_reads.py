"""Many reads at once put the right bytes in the right rows, whichever way the machine has."""

import ctypes
import errno
import itertools
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kloaders.formats import positioned_reads as reads
from kloaders.formats.positioned_reads import Buffers, read_many
from tests.support.threads import in_threads

CONTENT = np.random.default_rng(0).integers(0, 256, 20_000, np.uint8).tobytes()


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    path = tmp_path_factory.mktemp("reads") / "file"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def need_io_submit():
    if reads._submitter() is None:
        pytest.skip("this machine has no io_submit, or forbids it")


@pytest.fixture(params=["one call", "one by one"])
def way(request, monkeypatch):
    if request.param == "one by one":
        monkeypatch.setattr(reads, "_submitter", lambda: None)
    else:
        need_io_submit()
    return request.param


@pytest.fixture
def submitter(monkeypatch):
    """One of the test's own, for what is to go wrong in it."""
    need_io_submit()
    made = reads._Submitter()
    monkeypatch.setattr(reads, "_submitter", lambda: made)
    return made


def rows_of(descriptor, starts, size=64):
    """Rows of `size` bytes from these places of the file, and whether each came whole."""
    out = np.zeros((len(starts), size), np.uint8)
    buffers = Buffers(len(starts))
    buffers.add(np.arange(len(starts)), [(out, None)])
    sizes, bounds = np.full(len(starts), size), np.arange(len(starts) + 1)
    whole = read_many([descriptor] * len(starts), np.array(starts), sizes, bounds, buffers)
    return out, whole


def assert_read(out, starts):
    for row, start in zip(out, starts, strict=True):
        assert row.tobytes() == CONTENT[start : start + len(row)]


# Reads, each of a group; how many records lie side by side; and how wide each group's parts are.
PLANS = st.tuples(
    st.lists(st.integers(0, 2), min_size=1, max_size=300),
    st.lists(st.booleans(), min_size=300, max_size=300),
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=3, max_size=3),
    st.randoms(use_true_random=False),
)


@given(plan=PLANS)
@settings(deadline=None)
@pytest.mark.parametrize("at_once", [True, False])
def test_every_row_gets_its_bytes(opened, plan, at_once):
    """Reads of several forms, some of them side by side in the file, into shuffled rows."""
    groups, follows, widths, random = plan
    groups = np.array(groups)
    sizes = np.array([sum(widths[group]) for group in groups])
    starts, position = [], 0
    for number, size in enumerate(sizes):
        position += 0 if number and follows[number] else random.randrange(1, 30)
        starts.append(position)
        position += int(size)
    bounds = [k for k in range(len(groups)) if not (k and follows[k])] + [len(groups)]
    buffers, filled = Buffers(len(groups)), []
    for group in range(3):
        members = np.flatnonzero(groups == group)
        if not len(members):
            continue
        parts = []
        for number, width in enumerate(widths[group]):
            rows = None
            if number % 2:  # a row of the batch; the others are columns of a wider matrix
                values = np.zeros((len(groups), width), np.uint8)
                rows = np.array(random.sample(range(len(groups)), len(members)))
            else:
                values = np.zeros((len(members), width + 3), np.uint8)[:, 2:-1]
            parts.append((values, rows))
        buffers.add(members, parts)
        filled.append(parts)
    first = np.array(starts)[bounds[:-1]]
    amounts = np.array([sizes[a:z].sum() for a, z in itertools.pairwise(bounds)])
    with pytest.MonkeyPatch.context() as patch:
        if not at_once:
            patch.setattr(reads, "_submitter", lambda: None)
        whole = read_many([opened] * len(first), first, amounts, np.array(bounds), buffers)
    assert whole.all()
    pieces = buffers.pieces()
    for read, start in enumerate(starts):
        got = b"".join(piece.tobytes() for piece in pieces[read])
        assert got == CONTENT[start : start + int(sizes[read])]
    for parts in filled:
        for values, rows in parts:  # and no other row of the batch was written to
            if rows is not None:
                others = np.setdiff1d(np.arange(len(values)), rows)
                assert not values[others].any()


def test_more_reads_than_one_call_takes(opened, way):
    starts = [(37 * k) % 19_000 for k in range(3 * reads._AT_ONCE + 5)]
    out, whole = rows_of(opened, starts)
    assert whole.all()
    assert_read(out, starts)


def test_more_buffers_than_the_system_takes(opened, way):
    """Small records side by side: one read of thousands of rows."""
    out = np.zeros((2500, 8), np.uint8)
    buffers = Buffers(2500)
    buffers.add(np.arange(2500), [(out, None)])
    whole = read_many([opened], np.zeros(1, int), np.array([20_000]), np.array([0, 2500]), buffers)
    assert whole.all()
    assert out.tobytes() == CONTENT


def test_what_does_not_come_is_told_and_the_rest_comes(opened, way):
    """No file, a place behind the end, the end within a row."""
    out = np.zeros((5, 64), np.uint8)
    buffers = Buffers(5)
    buffers.add(np.arange(5), [(out, None)])
    starts = np.array([10, 20, 30_000, 19_990, 40])
    descriptors = [opened, -1, opened, opened, opened]
    whole = read_many(descriptors, starts, np.full(5, 64), np.arange(6), buffers)
    assert whole.tolist() == [True, False, False, False, True]
    assert_read(out[whole], starts[whole])


def test_short_reads_are_completed(opened, monkeypatch):
    """A signal, a network drive: fewer bytes than asked for, again and again."""
    real = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda number, buffers, at: real(number, [memoryview(buffers[0])[:7]], at)
    )
    first, second = np.empty(50, np.uint8), np.empty((2, 30), np.uint8)
    assert reads.read_at(opened, [first, second], 5, 110) == 110
    assert first.tobytes() + second.tobytes() == CONTENT[5:115]


def test_a_row_that_is_not_contiguous_is_refused():
    values = np.zeros((4, 10, 2), np.uint8)[:, :, 0]
    with pytest.raises(ValueError, match="contiguous"):
        Buffers(4).add(np.arange(4), [(values, None)])


def test_a_row_outside_of_the_array_is_refused():
    for rows in ([0, 4], [-1, 0], None):
        which = None if rows is None else np.array(rows)
        with pytest.raises(IndexError, match="array of 4"):
            Buffers(2).add(np.arange(2), [(np.zeros((4, 8), np.uint8), which)])


def test_memory_that_must_not_be_written_to_is_refused():
    values = np.zeros((4, 8), np.uint8)
    values.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        Buffers(4).add(np.arange(4), [(values, None)])


def test_threads_read_beside_one_another(opened, way):
    failed = []

    def run(seed):
        random = np.random.default_rng(seed)
        for _ in range(200):
            starts = random.integers(0, 19_000, 32).tolist()
            out, whole = rows_of(opened, starts)
            if not whole.all() or any(
                row.tobytes() != CONTENT[a : a + 64] for row, a in zip(out, starts, strict=True)
            ):
                failed.append(seed)

    in_threads(run, 8)
    assert not failed


def test_contexts_are_used_again(opened, submitter):
    for _ in range(50):
        rows_of(opened, [5, 6])
    assert len(submitter._all) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX")
def test_the_child_of_a_fork_reads(opened, submitter):
    rows_of(opened, [5])
    child = os.fork()
    if not child:
        out, whole = rows_of(opened, [7, 8])
        right = whole.all() and out[1].tobytes() == CONTENT[8:72] and len(submitter._all) == 1
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0


def refusing(submitter, monkeypatch, number, answers):
    """System call `number` answers so, or as these functions do, one after another; then as ever."""
    real, answers = submitter._call, list(answers)

    def call(what, *rest):
        if what == number and answers:
            answer = answers.pop(0)
            return answer(*rest) if callable(answer) else answer
        return real(what, *rest)

    monkeypatch.setattr(submitter, "_call", call)
    return answers


def test_where_the_machine_has_no_context_left(opened, submitter, monkeypatch):
    refusing(submitter, monkeypatch, submitter._setup, [-1])
    out, whole = rows_of(opened, [1, 2, 3])
    assert whole.all()
    assert_read(out, [1, 2, 3])
    assert not submitter._all


def test_what_the_kernel_does_not_take_is_read_by_itself(opened, submitter, monkeypatch):
    """io_submit may take fewer than it is given, or fail as a whole."""
    real = submitter._call

    def fewer(context, count, *rest):
        return real(submitter._submit, context, count // 2, *rest)

    answers = refusing(submitter, monkeypatch, submitter._submit, [fewer, -1])
    for _ in range(2):
        out, whole = rows_of(opened, [11, 12, 13, 14])
        assert whole.all()
        assert_read(out, [11, 12, 13, 14])
    assert not answers


def test_a_signal_while_it_waits(opened, submitter, monkeypatch):

    def interrupted(*_):
        ctypes.set_errno(errno.EINTR)
        return -1

    answers = refusing(submitter, monkeypatch, submitter._events, [interrupted, interrupted])
    out, whole = rows_of(opened, [21, 22])
    assert whole.all()
    assert_read(out, [21, 22])
    assert not answers


def test_an_interrupt_leaves_the_memory_to_the_kernel(opened, submitter, monkeypatch):
    """Ctrl-C between two calls: the context and its rows are kept, and not used again."""

    def stop(*_):
        raise KeyboardInterrupt

    refusing(submitter, monkeypatch, submitter._events, [stop])
    with pytest.raises(KeyboardInterrupt):
        rows_of(opened, [31])
    (kept,) = submitter._all
    assert kept.held is not None
    out, whole = rows_of(opened, [32])
    assert whole.all()
    assert_read(out, [32])
    assert submitter._all[0] is kept
    assert len(submitter._all) == 2


def test_a_machine_without_it_reads_one_by_one(opened, monkeypatch):
    monkeypatch.setattr(reads.platform, "machine", lambda: "riscv64")
    reads._submitter.cache_clear()
    try:
        assert reads._submitter() is None
        out, whole = rows_of(opened, [41, 42])
        assert whole.all()
        assert_read(out, [41, 42])
    finally:
        reads._submitter.cache_clear()


def test_a_kernel_that_forbids_it_is_noticed(monkeypatch):
    """As seccomp does in a container: the calls fail."""
    need_io_submit()
    monkeypatch.setattr(reads._Submitter, "_new", lambda self: None)
    reads._submitter.cache_clear()
    try:
        assert reads._submitter() is None
    finally:
        reads._submitter.cache_clear()


@pytest.fixture
def looked_up_anew():
    """What the environment says is asked once in a process."""
    reads._submitter.cache_clear()
    yield
    reads._submitter.cache_clear()


def test_turned_off_by_the_environment(opened, monkeypatch, looked_up_anew):
    """Then no call of it is made, not even the one that tries it out; reads come one by one."""
    monkeypatch.setenv("KLOADERS_IO_SUBMIT", "0")
    monkeypatch.setattr(reads, "_Submitter", None)
    out, whole = rows_of(opened, [51, 7, 900])
    assert whole.all()
    assert_read(out, [51, 7, 900])


@pytest.mark.parametrize("value", ["1", None])
def test_turned_on_by_the_environment(monkeypatch, looked_up_anew, value):
    need_io_submit()
    reads._submitter.cache_clear()
    if value is None:
        monkeypatch.delenv("KLOADERS_IO_SUBMIT", raising=False)
    else:
        monkeypatch.setenv("KLOADERS_IO_SUBMIT", value)
    assert reads._submitter() is not None


def test_another_value_in_the_environment(opened, monkeypatch, looked_up_anew):
    monkeypatch.setenv("KLOADERS_IO_SUBMIT", "off")
    with pytest.raises(ValueError, match=r"KLOADERS_IO_SUBMIT='off' .*expected 0 .* unset it"):
        rows_of(opened, [1])
