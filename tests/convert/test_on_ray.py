"""Conversions on a Ray cluster: the bytes of one process, dead workers, dead drivers, errors."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.errors import WorkerPoolError
from kloaders.core.stall_watch import INTERVAL
from kloaders.engine.ray import overdue
from tests.support.packs import Stored
from tests.support.parts import SAMPLES, data, finish_records, pack, records, source
from tests.support.ray_cluster import no_cpu_free

KINDS = pytest.mark.parametrize(
    ("write", "finish"),
    [(pack, kl.finish_pack), (records, finish_records)],
    ids=["pack", "tfrecords"],
)


def test_engines() -> None:
    with pytest.raises(TypeError, match=r"engine='ray', expected None"):
        pack(Path("nowhere"), engine="ray")


class Fatal(kl.SequenceLoader):
    """Sample 21 kills its process this many times, counted in files."""

    def __init__(self, folder: str, times: int) -> None:
        self.folder, self.times = folder, times
        super().__init__(SAMPLES, 4, workers=0)

    def load_sample(self, index: int) -> Any:
        if index == 21:
            deaths = len(os.listdir(self.folder))
            if deaths < self.times:
                (Path(self.folder) / str(deaths)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return np.full(3, index)


@pytest.mark.ray
@KINDS
def test_the_bytes_of_one_process(ray: Any, tmp_path: Path, write: Any, finish: Any) -> None:
    """All at once, and in parts."""
    here = write(tmp_path / "here")
    there = write(tmp_path / "there", engine=kl.Ray(cpus=2))
    assert data(tmp_path / "there") == data(tmp_path / "here")
    assert there.samples == here.samples
    for engine in (None, kl.Ray(cpus=2)):  # it is kept, whoever wrote it
        assert write(tmp_path / "there", engine=engine) == there
    for k in range(2):
        write(tmp_path / "parts", part=(k, 2), engine=kl.Ray(cpus=2))
    finish(tmp_path / "parts")
    assert data(tmp_path / "parts") == data(tmp_path / "here")


@pytest.mark.ray
def test_a_worker_that_dies(ray: Any, tmp_path: Path, caplog: Any) -> None:
    """Its shard is written by another; after three deaths the call ends, and the same goes on."""
    for name in ("none", "one", "three"):
        (tmp_path / name).mkdir()
    pack(tmp_path / "here", Fatal(str(tmp_path / "none"), 0))
    pack(tmp_path / "a", Fatal(str(tmp_path / "one"), 1), engine=kl.Ray(cpus=2))
    assert "a Ray worker died while it wrote shard" in caplog.text
    assert f" on {os.uname().nodename} (" in caplog.text
    for name in ("x.npy",):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    fatal = Fatal(str(tmp_path / "three"), 3)
    with pytest.raises(WorkerPoolError, match="3 Ray workers died"):
        pack(tmp_path / "b", fatal, engine=kl.Ray(cpus=2))
    pack(tmp_path / "b", fatal, engine=kl.Ray(cpus=2))
    assert (tmp_path / "b" / "x.npy").read_bytes() == (tmp_path / "here" / "x.npy").read_bytes()


class Hangs(Fatal):
    """The first process that gets sample 21 writes its number, and waits."""

    def load_sample(self, index: int) -> Any:
        if index == 21 and not os.listdir(self.folder):
            (Path(self.folder) / str(os.getpid())).touch()
            threading.Event().wait()
        return np.full(3, index)


@pytest.mark.ray
def test_a_worker_that_hangs_is_named(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its shard and process, which ends by what the warning says; another one takes over."""
    monkeypatch.setenv(INTERVAL, "0.05")
    monkeypatch.setattr(overdue, "_LONG", 0)  # the first work may wait for a busy machine's imports
    (tmp_path / "hangs").mkdir()
    killed = []

    def warned(message: str) -> None:
        found = re.match(r"shard \d+ has taken .* so far on .* process (\d+)\), and", message)
        assert found is not None
        if found[1] in os.listdir(tmp_path / "hangs") and not killed:
            killed.append(int(found[1]))
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(overdue, "warn", warned)
    pack(tmp_path / "pack", Hangs(str(tmp_path / "hangs"), 0), engine=kl.Ray(cpus=1))
    assert killed
    written = np.load(tmp_path / "pack" / "x.npy")
    assert written[:, 0].tolist() == list(range(SAMPLES))


@pytest.mark.ray
def test_a_call_that_was_stopped(ray: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Finished shards stay, and either engine goes on."""
    from kloaders.convert.journal import Journal

    pack(tmp_path / "here")
    add = Journal.add

    def stop(self: Any, *arguments: Any) -> None:
        add(self, *arguments)
        raise KeyboardInterrupt

    for first, second in ((kl.Ray(cpus=2), None), (None, kl.Ray(cpus=2))):
        to = tmp_path / ("here second" if first else "there second")
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "add", stop)
            with pytest.raises(KeyboardInterrupt):
                pack(to, engine=first)
        assert (to / "unfinished.jsonl").exists()
        pack(to, engine=second)
        assert data(to) == data(tmp_path / "here")


@pytest.mark.ray
def test_a_sample_that_does_not_load(ray: Any, tmp_path: Path) -> None:
    """It is named as it is in one process."""
    stored = [np.array([k]) for k in range(12)]
    stored[7] = ValueError("bad")  # type: ignore[call-overload]
    with pytest.raises(kl.SampleError, match=r"sample 7.*bad") as caught:
        pack(tmp_path / "a", Stored(stored), engine=kl.Ray(cpus=2))
    assert caught.value.index == 7
    written = pack(tmp_path / "b", Stored(stored, on_error="skip"), engine=kl.Ray(cpus=2))
    assert ([error.index for error in written.errors], written.samples) == ([7], 11)


def _fails_at_7(x: Any, y: Any, rng: Any) -> Any:
    if y == 7:
        raise KeyError("no such class")
    return x, y


@pytest.mark.ray
def test_the_line_of_a_transform_is_named(ray: Any, tmp_path: Path) -> None:
    """As in one process: the error has come from another one."""
    found = []
    for engine in (None, kl.Ray(cpus=2)):
        loader = kl.ArraySequenceLoader(np.arange(12), np.arange(12), 4, transform=_fails_at_7)
        with pytest.raises(kl.SampleError, match=r"sample 7.*no such class") as caught:
            pack(tmp_path / str(engine is None), loader, transformed=True, engine=engine)
        found.append((caught.value.where, str(caught.value)))
    assert found[0] == found[1]
    assert "in _fails_at_7" in str(found[0][0])


@pytest.mark.ray
@KINDS
def test_no_worker_is_free(ray: Any, tmp_path: Path, write: Any, finish: Any, caplog: Any) -> None:
    """All CPUs are taken: this process writes the shards, with one warning, to the same bytes."""
    with no_cpu_free(ray):
        write(tmp_path / "there", engine=kl.Ray(cpus=2, patience=1))
    assert caplog.text.count("no Ray worker has been free for 1 seconds") == 1
    assert "2 CPUs, of which 0 are free" in caplog.text
    write(tmp_path / "here")
    assert data(tmp_path / "there") == data(tmp_path / "here")


@pytest.mark.ray
def test_shards_that_take_long_are_waited_for(ray: Any, tmp_path: Path, caplog: Any) -> None:
    """The time limit is for a worker's start, not for its work: shards may wait for it any time."""
    stored = [np.full(20, k) for k in range(24)]
    pack(tmp_path / "there", Slow(stored, workers=0), engine=kl.Ray(cpus=8, patience=1))
    assert "has been free" not in caplog.text


@pytest.mark.ray
def test_a_loader_that_cannot_be_sent(ray: Any, tmp_path: Path) -> None:
    import threading

    loader = source()
    loader.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"cannot be sent to the cluster.*leave engine= out"):
        pack(tmp_path / "a", loader, engine=kl.Ray(cpus=2))


class Slow(Stored):
    """Takes long enough to be killed in the middle."""

    def load_sample(self, index: int) -> Any:
        time.sleep(0.1)
        return super().load_sample(index)


@pytest.mark.ray
@pytest.mark.slow
def test_a_program_that_is_killed(ray: Any, tmp_path: Path) -> None:
    """After kill -9 of the process with the journal, the same call keeps the finished shards."""
    code = """
        import sys
        import numpy as np
        import kloaders as kl
        from pathlib import Path
        from tests.convert.test_on_ray import Slow
        from tests.support.parts import pack
        loader = Slow([np.full(20, k) for k in range(40)], workers=0)
        pack(Path(sys.argv[1]), loader, engine=kl.Ray(cpus=2, address=sys.argv[2]))
    """
    journal = tmp_path / "a" / "unfinished.jsonl"
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "a"), address]
    running = subprocess.Popen(command)
    try:
        while not (journal.exists() and b'"shard"' in journal.read_bytes()):
            assert running.poll() is None
            time.sleep(0.02)
    finally:
        running.kill()
        running.wait()
    assert not (tmp_path / "a" / "pack.json").exists()
    stored = [np.full(20, k) for k in range(40)]
    pack(tmp_path / "a", Slow(stored, workers=0), engine=kl.Ray(cpus=2))
    pack(tmp_path / "here", Slow(stored, workers=8))
    assert data(tmp_path / "a") == data(tmp_path / "here")
