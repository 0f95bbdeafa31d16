"""Which sample a batch waits for: in the log, soon, and no longer than it is read."""

import gc
import logging
import operator
import os
import threading
import weakref

import numpy as np
import pytest

import kloaders as kl
from kloaders.core import stall_watch, threads


class Files:
    """An owner of samples."""

    def name(self, index):
        return f"file-{index}.bin"


class Broken:
    def name(self, index):
        raise RuntimeError("no name")


class Reader(threading.Thread):
    """A watched thread that is at one sample until it is told to go on."""

    def __init__(self, owner, index):
        super().__init__(daemon=True)
        self.owner, self.index = owner, index
        self.there, self.leave, self.cleared = (threading.Event() for _ in range(3))

    def run(self):
        with stall_watch.watched():
            stall_watch.at(self.owner, self.index)
            self.there.set()
            assert self.leave.wait(60)
            stall_watch.done()
            self.cleared.set()


class Released(logging.Handler):
    """Sets an event when a report is there, so that no test sleeps."""

    def __init__(self, event, reports=1):
        super().__init__(logging.WARNING)
        self.event, self.left, self.lines, self.levels = event, reports, [], []

    def emit(self, record):
        self.lines.append(record.getMessage())
        self.levels.append(record.levelno)
        self.left -= 1
        if self.left == 0:
            self.event.set()


@pytest.fixture
def reports(monkeypatch):
    """reports(n) -> (event, handler): the event is set by the nth report."""
    monkeypatch.setenv(stall_watch.INTERVAL, "0.02")
    log, handlers = logging.getLogger("kloaders"), []

    def begin(count=1):
        handler = Released(threading.Event(), count)
        handlers.append(handler)
        log.addHandler(handler)
        return handler.event, handler

    yield begin
    for handler in handlers:
        log.removeHandler(handler)


def test_names_what_threads_are_at(reports):
    """Of all watched threads, sorted; the level is WARNING."""
    readers = [Reader(Files(), index) for index in (7, 3)]
    for reader in readers:
        reader.start()
        assert reader.there.wait(60)
    event, handler = reports()
    stall_watch.wait(event)
    assert (
        "0.02 seconds: still loading sample 3 (file-3.bin); sample 7 (file-7.bin)."
        in handler.lines[0]
    )
    assert handler.levels == [logging.WARNING]
    for reader in readers:
        reader.leave.set()
        reader.join(60)
    event, handler = reports()
    stall_watch.wait(event)
    assert "its threads wait" in handler.lines[0]


def test_reports_come_at_growing_intervals(reports):
    event, handler = reports(4)
    stall_watch.wait(event)
    found = [line.split(" for ")[1].split(" seconds")[0] for line in handler.lines]
    assert found == ["0.02", "0.04", "0.08", "0.16"]


def test_no_report_where_it_is_there(reports):
    event, handler = reports()
    event.set()
    stall_watch.wait(event)
    assert handler.lines == []


def test_a_name_that_fails_is_left_out(reports):
    """A report never becomes an error of the training."""
    reader = Reader(Broken(), 1)
    reader.start()
    assert reader.there.wait(60)
    event, handler = reports()
    stall_watch.wait(event)
    assert "its threads wait" in handler.lines[0]
    reader.leave.set()


def test_each_sample_is_noted_as_it_is_taken():
    """at_each() gives what each sample has in order; only a watched thread's are noted, one at a time."""
    owner, ident, indices, names = Files(), threading.get_ident(), np.array([4, 2]), ["d", "b"]

    def noted():
        who, index = stall_watch._slots[ident]
        assert who is owner
        return operator.index(index)

    assert list(stall_watch.at_each(owner, indices, names)) == names
    assert ident not in stall_watch._slots
    with stall_watch.watched():
        each = stall_watch.at_each(owner, indices, names)
        assert [(name, noted()) for name in each] == [("d", 4), ("b", 2)]
        assert noted() == 2
        stall_watch.done()
        assert stall_watch._slots[ident] is None


def test_nothing_is_held():
    """What a thread has read is let go by done(), and in a thread that is not watched at once."""
    owner = Files()
    gone = weakref.ref(owner)
    reader = Reader(owner, 1)
    stall_watch.at(owner, 5)  # in this thread, which nobody waits for
    reader.start()
    assert reader.there.wait(60)
    reader.owner = None
    del owner
    gc.collect()
    assert gone() is not None
    reader.leave.set()
    assert reader.cleared.wait(60)
    gc.collect()
    assert gone() is None
    reader.join(60)
    assert reader.ident not in stall_watch._slots


def test_a_bad_interval_is_an_error(monkeypatch):
    monkeypatch.setenv(stall_watch.INTERVAL, "soon")
    with pytest.raises(ValueError, match="KLOADERS_STALL_SECONDS is 'soon'"):
        stall_watch.wait(threading.Event())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_forgets_the_parents_threads():
    reader = Reader(Files(), 1)
    reader.start()
    assert reader.there.wait(60)
    assert reader.ident in stall_watch._slots
    pid = os.fork()
    if not pid:
        os._exit(3 if stall_watch._slots else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    reader.leave.set()


class ByIndex(kl.SequenceLoader):
    def __init__(self, event, **options):
        super().__init__(20, 4, **options)
        self.event = event

    def load_sample(self, index):
        if index == 13:
            assert self.event.wait(60)
        return np.float32([index])


def by_index(event, folder):
    return ByIndex(event, workers=2, shuffle=False), "sample 13 (index 13)"


def by_transform(event, folder):
    def wait(x, y, rng):
        if x[0] == 13:
            assert event.wait(60)
        return x, y

    x = np.arange(20, dtype=np.float32)[:, None]
    return (
        kl.ArraySequenceLoader(x, batch_size=4, workers=2, shuffle=False, transform=wait),
        "sample 13 (row 13)",
    )


def by_path(kind, **options):
    def make(event, folder):
        paths = []
        for k in range(20):
            paths.append(f"{folder}/{k}.npy")
            np.save(paths[-1], np.float32([k]))

        def decode(raw):
            value = np.frombuffer(raw[-4:], np.float32)
            if value[0] == 13:
                assert event.wait(60)
            return value

        return (
            kind(paths, batch_size=4, workers=2, shuffle=False, decode=decode, **options),
            f"sample 13 ({paths[13]})",
        )

    make.__name__ = kind.__name__
    return make


@pytest.mark.parametrize(
    "make",
    [
        by_index,
        by_transform,
        by_path(kl.PathSequenceLoader),
        # With a size, since samples are measured otherwise: as the loader is made, where nothing waits.
        by_path(kl.RamBatchSequenceLoader, ram_batch_size=8),
    ],
)
def test_a_loader_that_hangs_names_the_sample(make, tmp_path, reports, keep):
    """Its file or number; when the sample comes, the epoch is whole."""
    event, handler = reports()
    loader, name = make(event, tmp_path)
    keep(loader)
    assert np.concatenate([loader[b] for b in range(5)]).ravel().tolist() == list(range(20))
    assert name in next(line for line in handler.lines if "has not arrived" in line)


def test_threads_of_ours_are_watched(nothing_running):
    """A job of Workers is, and its slot is empty when it is done."""
    found, seen = threading.Event(), []

    class Job:
        def __call__(self):
            stall_watch.at(Files(), 4)
            seen.append(stall_watch._slots[threading.get_ident()])

        def dropped(self):
            raise AssertionError

    class Next(Job):
        def __call__(self):
            seen.append(stall_watch._slots[threading.get_ident()])
            found.set()

    workers = threads.Workers(1)
    workers.submit(Job())
    workers.submit(Next())
    assert found.wait(60)
    assert seen[0][1] == 4
    assert seen[1] is None
    workers.close()
