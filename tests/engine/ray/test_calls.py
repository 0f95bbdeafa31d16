"""A function called by actors: each job is done once, whatever happens to the actors."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

import kloaders as kl
from kloaders.core.errors import WorkerPoolError
from kloaders.core.stall_watch import INTERVAL
from kloaders.engine.ray import overdue
from kloaders.engine.ray.calls import called
from tests.support.ray_cluster import no_cpu_free

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


class Deadly:
    """Job 7 ends its process so many times, counted by files."""

    def __init__(self, folder: Path, times: int) -> None:
        self.folder, self.times = str(folder), times

    def __call__(self, job: int) -> int:
        if job == 7 and len(os.listdir(self.folder)) < self.times:
            open(os.path.join(self.folder, str(os.getpid())), "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return 10 * job


def test_each_job_is_done_though_an_actor_dies(ray: Any, tmp_path: Path, caplog: Any) -> None:
    done = list(called(kl.Ray(cpus=2), Deadly(tmp_path, 1), range(20)))
    assert sorted(done) == [(k, 10 * k) for k in range(20)]
    assert len(os.listdir(tmp_path)) == 1
    assert f"a Ray actor on {os.uname().nodename} (" in caplog.text


class Hangs:
    """The first process that gets job 3 writes its number, and waits."""

    def __init__(self, folder: Path) -> None:
        self.pid = str(folder / "pid")

    def __call__(self, job: int) -> int:
        with contextlib.suppress(FileExistsError):
            if job == 3:
                with open(self.pid, "x") as file:
                    file.write(str(os.getpid()))
                threading.Event().wait()
        return 10 * job


def test_a_job_that_hangs_is_named(
    ray: Any, tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the process, which ends by what the warning says, and another one does the job."""
    monkeypatch.setenv(INTERVAL, "0.5")
    monkeypatch.setattr(overdue, "_LONG", 0)  # the first work may wait for a busy machine's imports
    hangs = Hangs(tmp_path)
    real = overdue.warn

    def warned(message: str) -> None:
        real(message)
        if message.startswith("part 3 has taken ") and os.path.exists(hangs.pid):
            assert f" seconds so far on {os.uname().nodename} (" in message
            pid = re.search(r", process (\d+)\), and continues", message)
            assert pid is not None
            os.kill(int(pid[1]), signal.SIGKILL)

    monkeypatch.setattr(overdue, "warn", warned)
    done = list(called(kl.Ray(cpus=1), hangs, range(6), "part {}".format))
    assert sorted(done) == [(k, 10 * k) for k in range(6)]
    assert "other actors do its jobs" in caplog.text


def test_a_job_that_kills_all_is_an_error(ray: Any, tmp_path: Path) -> None:
    with pytest.raises(WorkerPoolError, match="3 Ray actors died while they did the same job"):
        list(called(kl.Ray(cpus=1), Deadly(tmp_path, 9), range(5, 9)))


def test_what_the_function_raises(ray: Any) -> None:
    with pytest.raises(WorkerPoolError, match=r"(?s)could not do its work.*ZeroDivisionError"):
        list(called(kl.Ray(cpus=1), lambda job: 1 // job, [1, 0]))


class _LoadsHereOnly:
    def __call__(self, job: int) -> int:
        return job

    def __reduce__(self) -> Any:
        return _made_here, (os.getpid(),)


def _made_here(pid: int) -> Any:
    if pid != os.getpid():
        raise ModuleNotFoundError("No module named 'onlyhere'")
    return _LoadsHereOnly()


def test_a_worker_without_a_package(ray: Any) -> None:
    """The error says so at once."""
    with pytest.raises(
        WorkerPoolError, match=r"(?s)needs the packages.*No module named 'onlyhere'"
    ):
        list(called(kl.Ray(cpus=1), _LoadsHereOnly(), [1]))


def test_what_cannot_be_sent(ray: Any) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"cannot be sent to the cluster.*leave engine= out"):
        list(called(kl.Ray(cpus=1), lambda job: lock, [1]))


def test_nobody_answers(ray: Any, caplog: Any) -> None:
    """All CPUs are taken: this process does the work, and one warning says so."""
    with no_cpu_free(ray):
        done = list(called(kl.Ray(cpus=2, patience=2), lambda job: os.getpid(), range(5)))
    assert sorted(done) == [(k, os.getpid()) for k in range(5)]
    assert caplog.text.count("no Ray actor has answered for 2 seconds") == 1
