"""Threads that run jobs in order, leave when they are idle, and end with the program."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kloaders as kl
from kloaders.core import threads
from kloaders.core.threads import Workers
from tests.support.recording import our_threads
from tests.support.threads import in_thread


class Job:
    """Notes that it ran, or was dropped; `gate` holds it up."""

    def __init__(self, name: Any, done: list[Any], gate: threading.Event | None = None) -> None:
        self.name, self.done, self.gate = name, done, gate
        self.ran = threading.Event()

    def __call__(self) -> None:
        self.ran.set()
        if self.gate is not None:
            assert self.gate.wait(30)
        self.done.append(self.name)

    def dropped(self) -> None:
        self.done.append(("dropped", self.name))
        self.ran.set()


@pytest.fixture
def workers() -> Iterator[Callable[[int], Workers]]:
    made: list[Workers] = []

    def _workers(count: int) -> Workers:
        made.append(Workers(count))
        return made[-1]

    yield _workers
    for one in made:
        one.close()


def test_jobs_run_in_order_and_rank(workers: Any) -> None:
    """Jobs run in the order given, those for later after all others."""
    made, done, gate = workers(1), [], threading.Event()
    first = Job("first", done, gate)
    made.submit(first)
    assert first.ran.wait(30)
    for k in range(3):
        made.submit(Job(f"later {k}", done), later=True)
        made.submit(Job(f"soon {k}", done))
    last = Job("last", done)
    made.submit(last, later=True)
    gate.set()
    assert last.ran.wait(30)
    made.close()
    assert done == ["first", *(f"soon {k}" for k in range(3)), *(f"later {k}" for k in range(3)),
                    "last"]  # fmt: skip


def test_no_more_threads_than_asked_for(workers: Any, nothing_running: None) -> None:
    """Threads start with the work, up to the count, and not before."""
    made, gate = workers(3), threading.Event()
    assert not our_threads()
    jobs = [Job(k, [], gate) for k in range(10)]
    for started, job in enumerate(jobs, 1):
        made.submit(job)
        assert len(our_threads()) == min(started, 3)
    assert all(job.ran.wait(30) for job in jobs[:3])
    gate.set()
    assert jobs[-1].ran.wait(30)
    assert len(our_threads()) == 3


def test_few_threads_are_kept_busy(workers: Any, nothing_running: None) -> None:
    """`most` holds for jobs that are needed soon, from the last that was given on."""
    made, done, gate = workers(3), [], threading.Event()
    needed = [Job(k, done, gate) for k in range(3)]
    made.submit(needed[0], most=1)
    assert needed[0].ran.wait(30)
    made.submit(needed[1], most=1)
    assert len(our_threads()) == 1
    others = [Job("later", done, gate), Job("later, too", done, gate)]
    for job in others:  # of these as many as there are threads
        made.submit(job, later=True)
        assert job.ran.wait(30)
    assert not needed[1].ran.is_set()
    taken = made.take()
    assert taken is needed[1]
    assert made.take() is None
    gate.set()
    taken()
    made.submit(needed[2])
    assert needed[2].ran.wait(30)


def test_threads_leave_when_idle(workers: Any, nothing_running: None, monkeypatch: Any) -> None:
    """Without work threads end by themselves, and come back with the next job."""
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.01)
    made, done = workers(2), []
    for round_ in range(3):
        job = Job(round_, done)
        made.submit(job)
        assert job.ran.wait(30)
        for thread in our_threads():
            thread.join(30)
        assert made.alive == 0
    assert done == [0, 1, 2]


def test_close_drops_what_is_queued(workers: Any) -> None:
    """close() waits for the job under way, and tells the others that they will not be done."""
    made, done, gate = workers(1), [], threading.Event()
    running = Job("running", done, gate)
    made.submit(running)
    assert running.ran.wait(30)
    queued = [Job("soon", done), Job("later", done)]
    made.submit(queued[0])
    made.submit(queued[1], later=True)
    closing, _ = in_thread(made.close)
    assert all(job.ran.wait(30) for job in queued)
    assert ("dropped", "soon") in done
    assert ("dropped", "later") in done
    assert "running" not in done
    gate.set()
    closing.join(30)
    assert done[-1] == "running"


def test_forgotten_workers_end_their_threads(nothing_running: None, monkeypatch: Any) -> None:
    """Threads keep no reference to who made them, and leave with it at once."""
    monkeypatch.setattr(threads, "IDLE_SECONDS", 60)
    made = Workers(2)
    job = Job(0, [])
    made.submit(job)
    assert job.ran.wait(30)
    gone, running = weakref.ref(made), our_threads()
    del made
    gc.collect()
    assert gone() is None
    for thread in running:
        thread.join(30)
    assert not our_threads()


def test_a_done_job_is_let_go(workers: Any, monkeypatch: Any) -> None:
    """A thread that waits for work does not keep its last job, nor what that refers to."""
    monkeypatch.setattr(threads, "IDLE_SECONDS", 60)
    made = workers(1)
    job = Job(0, [])
    made.submit(job)
    assert job.ran.wait(30)
    gone = weakref.ref(job)
    del job
    following = Job(1, [])
    made.submit(following)
    assert following.ran.wait(30)
    gc.collect()
    assert gone() is None


FORKED = """
import os, sys, threading
from kloaders.core.threads import Workers

class Job:
    def __init__(self):
        self.ran = threading.Event()
    def __call__(self):
        self.ran.set()
    def dropped(self):
        pass

def runs(workers):
    job = Job()
    workers.submit(job)
    return job.ran.wait(20)

workers = Workers(2)
assert runs(workers)
child = os.fork()
if child == 0:
    fine = runs(workers) and threading.active_count() == 2
    workers.close()
    os._exit(0 if fine else 1)
_, status = os.waitpid(child, 0)
assert runs(workers)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run_alone(code: str, *arguments: str, **environment: str) -> Any:
    """Run a program in a process of its own."""
    package = os.path.dirname(os.path.dirname(kl.__file__))
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": package, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_gets_threads_of_its_own() -> None:
    """After os.fork the child starts threads anew, and the parent's go on."""
    done = run_alone(FORKED)
    assert done.returncode == 0, done.stderr[-2000:]


ENDS_WHILE_DECODING = """
import sys
import cv2
import numpy as np
import kloaders as kl

noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
content = cv2.imencode(".jpg", noise)[1].tobytes()
paths = [f"{sys.argv[1]}/{k}.jpg" for k in range(24)]
for path in paths:
    with open(path, "wb") as file:
        file.write(content)
loader = kl.PathSequenceLoader(paths, None, 4, size=(32, 32), cache=None, shuffle=True, workers=2)
loader.on_epoch_begin()
loader[0]
print("done")
"""


def test_a_program_ends_while_threads_decode(tmp_path: Path) -> None:
    """Threads come back from OpenCV before the interpreter is gone, or all ends in an abort."""
    done = run_alone(ENDS_WHILE_DECODING, str(tmp_path), KLOADERS_WORKER="1")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "20000 100000"}, 1),
        ({"cpu.max": "9900000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu.max": "lots"}, 8),
    ],
)
def test_usable_cores(tmp_path: Path, monkeypatch: Any, files: dict[str, str], cores: int) -> None:
    """Cores of the affinity, bounded by the container's quota, rounded up, at least one."""
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")

    def opened(name: str) -> Any:
        return (tmp_path / name.removeprefix("/sys/fs/cgroup/")).open()

    monkeypatch.setattr(threads, "open", opened, raising=False)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert threads.usable_cores() == cores


# ---------------------------------------------------------------- a system that starts no more


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """limit(n): no more than n threads are started from now on, as with a pids limit."""
    real, left = threading.Thread.start, [0]

    def start(self: threading.Thread) -> None:
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        real(self)

    def _limit(count: int) -> None:
        left[0] = count
        monkeypatch.setattr(threading.Thread, "start", start)

    monkeypatch.setattr("kloaders.core.messages._logged", set())
    return _limit


def refusals(caplog: pytest.LogCaptureFixture) -> int:
    return sum("starts no more threads" in message for message in caplog.messages)


def test_without_a_thread_the_caller_does_the_jobs(
    workers: Any, limit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """In their order, at once, and said once."""
    limit(0)
    made, done = workers(3), []
    for k in range(4):
        made.submit(Job(k, done), later=k == 1)
    assert done == [0, 1, 2, 3]
    assert made.refused
    assert made.alive == 0
    assert refusals(caplog) == 1


def test_threads_that_there_are_do_what_others_cannot(workers: Any, limit: Any) -> None:
    limit(1)
    made, done, gate = workers(3), [], threading.Event()
    first, second = Job("first", done, gate), Job("second", done)
    made.submit(first)
    assert first.ran.wait(30)
    made.submit(second)
    assert done == []
    assert not made.refused
    gate.set()
    assert second.ran.wait(30)
    assert done[0] == "first"


def test_another_thread_is_tried_after_a_while(
    workers: Any, limit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(0)
    made, done = workers(1), []
    made.submit(Job("here", done))
    monkeypatch.setattr(threads, "REFUSED_SECONDS", 0.0)
    assert not made.refused
    limit(1)
    job = Job("there", done)
    made.submit(job)
    assert job.ran.wait(30)
    assert done[0] == "here"


def test_another_error_of_a_thread_is_raised() -> None:
    thread = threading.Thread(target=int)
    assert threads.started(thread)
    with pytest.raises(RuntimeError, match="once"):
        threads.started(thread)
    thread.join()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_pool_without_threads_works_here(
    limit: Any, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    """Each call is made once, errors come with the result, and what is cancelled is not done."""
    limit(count)
    made, submitted = [], threading.Event()

    def one(k: int) -> int:
        if threading.current_thread() is not threading.main_thread():
            submitted.wait(30)  # an idle thread would make another one unnecessary
        made.append(k)
        return 10 // (k - 3)

    with threads.ThreadPool(4, "test") as pool:
        futures = [pool.submit(one, k) for k in range(6)]
        submitted.set()
        assert [f.result() for k, f in enumerate(futures) if k != 3] == [-4, -5, -10, 10, 5]
        with pytest.raises(ZeroDivisionError):
            futures[3].result()
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
    assert sorted(made) == list(range(6))
    assert refusals(caplog) == 1


def test_a_pool_that_is_closed_still_says_so() -> None:
    pool = threads.ThreadPool(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"workers": 4, "max_queue_size": 1}])
def test_batches_come_without_threads(
    limit: Any, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    """All, in order, made where they are asked for, and no more of them ahead than one."""
    limit(0)
    made_in = set()

    class Numbers(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            made_in.add(threading.get_ident())
            return index

    loader = Numbers(20, 4, shuffle=False, **options)
    for _ in range(2):
        assert [x.tolist() for x in loader] == [[4 * k + j for j in range(4)] for k in range(5)]
    assert made_in == {threading.get_ident()}
    assert refusals(caplog) <= 1
    loader.close()


def test_ram_batches_come_without_threads(tmp_path: Path, limit: Any) -> None:
    import numpy as np

    for k in range(12):
        np.save(tmp_path / f"{k}.npy", np.int64(k))
    paths = [str(tmp_path / f"{k}.npy") for k in range(12)]
    limit(0)
    loader = kl.RamBatchSequenceLoader(paths, None, 2, ram_batch_size=4, shuffle=True, workers=2)
    assert sorted(n for x in loader for n in x.tolist()) == list(range(12))
    loader.close()


def test_indexes_are_made_without_threads(tmp_path: Path, limit: Any) -> None:
    for k in range(3):
        (tmp_path / f"{k}.txt").write_text(f"{k}0\n{k}1\n")
    limit(0)
    loader = kl.TextLineSequenceLoader(str(tmp_path / "*.txt"), int, 6, shuffle=False)
    assert loader[0].tolist() == [0, 1, 10, 11, 20, 21]
    loader.close()
