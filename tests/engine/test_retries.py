"""What fails for lack of a disk, of memory or of processes is read again, and blames no sample."""

from __future__ import annotations

import errno
import os
import signal
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.core.errors import WorkerPoolError
from kloaders.engine import retries
from kloaders.engine.processes import pool

SAMPLES, BATCH = 12, 4
ALL = list(range(SAMPLES))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of arrays that hold their own number."""
    folder = tmp_path / "data"
    folder.mkdir()
    for k in ALL:
        np.save(folder / f"{k:02}.npy", np.full(2, k, np.float32))
    return folder


class Clock:
    """In place of sleeping: notes how long, and does what is to happen meanwhile."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.then: Any = None

    def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)
        if self.then is not None:
            self.then()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(retries, "_sleep", found)
    monkeypatch.setattr(retries, "_patience", retries._Patience())
    return found


def paths_of(folder: Path) -> list[str]:
    return [str(folder / f"{k:02}.npy") for k in ALL]


def epoch(loader: Any) -> list[int]:
    batches = [loader[k][:, 0].astype(int).tolist() for k in range(len(loader))]
    return list(chain.from_iterable(batches))


def listed(path: Path) -> list[str]:
    return [line.partition(",")[0] for line in path.read_text().splitlines()[1:]]


# ---------------------------------------------------------------- a folder that is away


@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
@pytest.mark.parametrize("workers", [{"workers": 0}, {"workers": 2}, {"processes": True}])
def test_a_folder_that_is_away_for_a_moment(
    data: Path, clock: Clock, keep: Any, policy: str, workers: Any
) -> None:
    """All samples come, none is counted as bad, and none is listed."""
    bad = data.parent / "bad.csv"
    options = {"on_error": policy, "quarantine": bad, "cache": None, "shuffle": False}
    if workers.get("processes"):
        workers = {"processes": True, "workers": 1}
    loader = keep(kl.PathSequenceLoader(paths_of(data), None, BATCH, **options, **workers))
    assert loader.raw_spec[0].shape == (2,)
    away = data.rename(data.parent / "away")

    def back() -> None:
        if away.exists():
            away.rename(data)

    clock.then = back
    assert epoch(loader) == ALL
    assert clock.waits
    assert not loader.errors
    assert not listed(bad)


def test_a_first_look_is_tried_again(data: Path, clock: Clock, keep: Any) -> None:
    """The sample whose shape is looked at first as well."""
    bad = data.parent / "bad.csv"
    loader = keep(kl.PathSequenceLoader(paths_of(data), None, BATCH, quarantine=bad))
    away = data.rename(data.parent / "away")
    clock.then = lambda: away.rename(data) if away.exists() else None
    assert epoch(loader) == ALL
    assert not listed(bad)


def test_a_folder_that_stays_away(data: Path, clock: Clock, keep: Any) -> None:
    """Nothing that is in it is listed: it is counted, and the limit ends the run."""
    bad = data.parent / "bad.csv"
    options = {"on_error": "skip", "quarantine": bad, "cache": None, "max_errors": 5}
    loader = keep(kl.PathSequenceLoader(paths_of(data), None, BATCH, workers=0, **options))
    assert loader[0].shape == (BATCH, 2)
    data.rename(data.parent / "away")
    with pytest.raises(kl.SampleError, match="max_errors=5"):
        epoch(loader)
    assert len(loader.errors) == 6
    assert not listed(bad)
    with pytest.raises(kl.SampleError, match="No such file"):
        epoch(keep(kl.PathSequenceLoader(paths_of(data), check_paths=False, quarantine=bad)))
    assert not listed(bad)


@pytest.mark.parametrize("batch", [1, BATCH])
def test_a_file_that_is_missing(data: Path, clock: Clock, keep: Any, batch: int) -> None:
    """Its neighbours load: it is listed at once, without a wait."""
    bad = data.parent / "bad.csv"
    options = {"on_error": "skip", "quarantine": bad, "cache": None}
    loader = keep(kl.PathSequenceLoader(paths_of(data), None, batch, **options))
    for k in (5, 6):
        os.remove(data / f"{k:02}.npy")
    assert sorted(set(epoch(loader))) == [k for k in ALL if k not in (5, 6)] or batch == 1
    assert sorted(listed(bad)) == [str(data / "05.npy"), str(data / "06.npy")]
    assert not clock.waits


def test_a_bad_sector(data: Path, clock: Clock, keep: Any) -> None:
    """An error of the disk at one file: tried with all patience, then listed."""
    tries = []

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path: str) -> Any:
            if path.endswith("07.npy"):
                tries.append(path)
                raise OSError(errno.EIO, "Input/output error", path)
            return np.load(path)

    bad = data.parent / "bad.csv"
    loader = keep(Own(paths_of(data), None, BATCH, on_error="skip", quarantine=bad))
    assert epoch(loader) == [k for k in ALL if k != 7]
    assert listed(bad) == [str(data / "07.npy")]
    assert clock.waits == [0.02, 0.1, 0.5, 2.0]
    assert len(tries) == 6


def test_content_is_not_tried_again(data: Path, clock: Clock, keep: Any) -> None:
    """What is damaged stays so: it is read once, and listed."""
    calls = []

    def decode(raw: bytes) -> Any:
        calls.append(raw)
        if len(raw) < 100:
            raise ValueError("damaged")
        return np.frombuffer(raw[-8:], np.float32)

    (data / "03.npy").write_bytes(b"short")
    bad = data.parent / "bad.csv"
    options = {"on_error": "skip", "quarantine": bad, "workers": 0, "decode": decode}
    loader = keep(kl.PathSequenceLoader(paths_of(data), None, BATCH, **options))
    assert epoch(loader) == [k for k in ALL if k != 3]
    assert listed(bad) == [str(data / "03.npy")]
    assert calls.count(b"short") == 1


def test_patience_has_an_end(clock: Clock) -> None:
    """A thousand bad sectors do not take an hour."""
    for k in range(1000):
        failed: dict[int, Exception] = {k: OSError(errno.EIO, "Input/output error")}
        error = failed[k]
        names = retries.Names(1000, str)
        retries.read_again(failed, lambda _, e=error: e, lambda _: None, int, names)
        assert failed == {k: error}
    assert sum(clock.waits) < retries._PATIENCE + 5


def test_records_are_written_of_a_folder_that_was_away(data: Path, clock: Clock) -> None:
    """A conversion reads again, too."""
    away = data.parent / "away"
    clock.then = lambda: away.rename(data) if away.exists() else None

    def label(path: str) -> int:
        if path.endswith("03.npy") and not clock.waits:
            data.rename(away)
        return int(Path(path).stem)

    target = data.parent / "all"
    options: Any = {"on_error": "skip", "progress": False, "shuffle": False, "workers": 1}
    written = kl.write_tfrecords(paths_of(data), label, target, **options)
    assert clock.waits
    assert (written.samples, written.errors) == (SAMPLES, [])


# ---------------------------------------------------------------- memory, descriptors


@pytest.mark.parametrize(
    "make",
    [
        MemoryError,
        lambda: OSError(errno.EMFILE, "Too many open files"),
        lambda: cv2.error("(-4:Insufficient memory) Failed to allocate 9 bytes"),
    ],
)
def test_a_shortage_passes(data: Path, clock: Clock, keep: Any, make: Any) -> None:
    """Or does not: then the sample is skipped, and not to blame."""
    short: list[int] = []
    limits = [2, 100]

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path: str) -> Any:
            if path.endswith("07.npy") and len(short) < limits[0]:
                short.append(1)
                raise make()
            return np.load(path)

    bad = data.parent / "bad.csv"
    for expected in (ALL, [k for k in ALL if k != 7]):
        loader = keep(Own(paths_of(data), None, BATCH, on_error="skip", quarantine=bad))
        assert epoch(loader) == expected
        assert not listed(bad)
        del limits[0]


def test_a_shortage_of_opencv(tmp_path: Path, clock: Clock, keep: Any, monkeypatch: Any) -> None:
    """Where it cannot allocate an image, that is memory, in a thread as in a process."""
    paths = [str(tmp_path / f"{k}.png") for k in range(3)]
    for path in paths:
        cv2.imwrite(path, np.zeros((4, 4, 3), np.uint8))
    bad = tmp_path / "bad.csv"
    options = {"on_error": "skip", "quarantine": bad, "cache": None, "workers": 0}
    loader = keep(kl.PathSequenceLoader(paths, None, 3, **options))
    assert loader[0].shape == (3, 4, 4, 3)
    real = cv2.imdecode

    def imdecode(*arguments: Any) -> Any:
        if len(clock.waits) < 2:
            raise cv2.error("OpenCV(5.0.0) error: (-4:Insufficient memory) Failed to allocate 48")
        return real(*arguments)

    monkeypatch.setattr(cv2, "imdecode", imdecode)
    assert loader[0].shape == (3, 4, 4, 3)
    assert len(clock.waits) == 2
    assert not loader.errors
    assert not listed(bad)


# ---------------------------------------------------------------- processes


class Hook(kl.PathSequenceLoader):
    def load_sample(self, path: str) -> Any:
        if path.endswith("07.npy") and os.environ.get("KILLED_AT_07"):
            os.kill(os.getpid(), signal.SIGKILL)
        return np.load(path)


OPTIONS: Any = {"processes": True, "workers": 1, "on_error": "skip", "cache": None}


@pytest.mark.parametrize("when", ["first", "later"])
def test_processes_that_do_not_start(
    data: Path, keep: Any, monkeypatch: Any, when: str, clock: Clock
) -> None:
    """An error of its own: no sample is skipped for it, nor counted, nor listed."""
    bad = data.parent / "bad.csv"
    loader = keep(Hook(paths_of(data), None, BATCH, quarantine=bad, **OPTIONS))
    if when == "later":
        assert loader[0].shape == (BATCH, 2)
        loader.close()

    def refuse(*arguments: Any) -> Any:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(pool, "WorkerHandle", refuse)
    with pytest.raises(WorkerPoolError, match=r"cannot be started .*unavailable.*smaller workers="):
        epoch(loader)
    assert not loader.errors
    assert not listed(bad)


def test_a_loader_that_is_closed_blames_nobody(data: Path, keep: Any, monkeypatch: Any) -> None:
    """Where the look at the first sample is cut short."""
    bad = data.parent / "bad.csv"
    loader = keep(Hook(paths_of(data), None, BATCH, quarantine=bad, **OPTIONS))
    workers = loader.runner.process_pool()
    workers.close()
    with monkeypatch.context() as patched:
        patched.setattr(loader.runner, "process_pool", lambda: workers)
        with pytest.raises(WorkerPoolError, match="closed"):
            _ = loader.sample_spec
    assert not loader.errors
    assert not listed(bad)


def test_a_process_that_linux_killed(data: Path, keep: Any, monkeypatch: Any) -> None:
    """Most likely for lack of memory: the sample is skipped, and not listed."""
    monkeypatch.setenv("KILLED_AT_07", "1")
    bad = data.parent / "bad.csv"
    loader = keep(Hook(paths_of(data), None, BATCH, quarantine=bad, **OPTIONS))
    assert epoch(loader) == [k for k in ALL if k != 7]
    assert [error.index for error in loader.errors] == [7]
    assert not listed(bad)
