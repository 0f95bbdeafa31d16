"""Samples in a folder: for later runs and other processes, whole or not at all."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import kloaders as kl
from kloaders.sources.cache import folder as folder_cache
from kloaders.sources.cache.files import SampleFiles
from kloaders.sources.cache.folder import FolderCache
from tests.sources.cache.pictures import ALL, BATCH, ROOT, SAMPLES, numbers, segments


def test_a_later_run_decodes_nothing(pictures, decoded, tmp_path, keep):
    """What one loader kept, another one serves, once it has looked at a sample's shape."""
    folder = tmp_path / "cache"
    with kl.PathSequenceLoader(pictures, None, BATCH, cache=folder) as loader:
        assert numbers(loader) == ALL
    decoded.clear()
    assert numbers(keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=folder))) == ALL
    assert not decoded
    half = keep(kl.PathSequenceLoader(pictures[::-2], None, BATCH, cache=folder))
    assert numbers(half) == ALL[::-2]
    assert not decoded


def test_a_half_filled_folder_is_of_use(pictures, decoded, tmp_path, keep):
    folder = tmp_path / "cache"
    with kl.PathSequenceLoader(pictures, None, BATCH, cache=folder, workers=0) as loader:
        loader[1]
    decoded.clear()
    assert numbers(keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=folder))) == ALL
    assert len(decoded) == SAMPLES - BATCH - 1  # sample 0 was looked at for its shape


def filled(pictures, folder):
    with kl.PathSequenceLoader(pictures, None, BATCH, cache=folder) as loader:
        assert numbers(loader) == ALL
    (segment,) = segments(folder)
    return segment


def test_cut_anywhere_nothing_wrong_is_served(pictures, decoded, tmp_path, keep):
    """What a process that was killed in the middle of a write leaves: whole entries count."""
    folder = tmp_path / "cache"
    segment = filled(pictures, folder)
    whole = segment.read_bytes()
    each = len(whole) // SAMPLES
    for cut in (0, 1, each - 1, each, each + 1, 3 * each + 30, len(whole) - 1):
        segment.write_bytes(whole[:cut])
        decoded.clear()
        with kl.PathSequenceLoader(pictures, None, BATCH, cache=folder, cache_budget=1) as loader:
            assert numbers(loader) == ALL
        assert SAMPLES - cut // each <= len(decoded) <= SAMPLES - cut // each + 1


def test_damaged_anywhere_nothing_wrong_is_served(pictures, tmp_path, keep):
    """A flipped bit in a head, a key, a description or a picture loses entries, and no more."""
    folder = tmp_path / "cache"
    segment = filled(pictures, folder)
    whole = segment.read_bytes()
    generator = random.Random(5)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        segment.write_bytes(damaged)
        with kl.PathSequenceLoader(
            pictures, None, BATCH, cache=folder, cache_budget=1, workers=0
        ) as loader:
            assert numbers(loader) == ALL


def test_a_sample_that_two_threads_put_is_written_once(tmp_path):
    """Batches of two epochs may read it at the same time."""
    store = FolderCache(str(tmp_path), "k", 2, ["a", "b"])
    for number in (5, 5, 7):
        store.put(0, bytes([number] * 16), np.full(4, number))
    assert store.get(0, lambda _: bytes([7] * 16)).tolist() == [7] * 4
    store.clear()
    (segment,) = tmp_path.rglob("*.segment")
    assert len(list(folder_cache._entries(os.open(segment, os.O_RDONLY), 0))) == 2


def test_a_full_disk_stops_the_cache_only(pictures, tmp_path, keep, monkeypatch, caplog):
    """The write that fails leaves no half of an entry; it is said, and training goes on."""
    caplog.set_level("INFO", "kloaders")
    folder = tmp_path / "cache"
    real, written = os.pwritev, []

    def full(file, parts, offset):
        written.append(1)
        if len(written) == 5:
            real(file, [bytes(parts[0])[:7]], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, parts, offset)

    monkeypatch.setattr(os, "pwritev", full)
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=folder, workers=0))
    assert numbers(loader) == numbers(loader) == ALL
    assert "No space left on device" in caplog.text
    assert "training continues" in caplog.text
    (segment,) = segments(folder)
    assert len(list(folder_cache._entries(os.open(segment, os.O_RDONLY), 0))) == 4
    assert segment.stat().st_size % 4 == 0


def test_a_disk_that_is_nearly_full_is_left_alone(pictures, tmp_path, keep, monkeypatch, caplog):
    caplog.set_level("INFO", "kloaders")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=tmp_path / "cache"))
    assert numbers(loader) == ALL
    assert "has less than" in caplog.text
    assert not any(segment.stat().st_size for segment in segments(tmp_path))


def test_worker_processes_share_a_folder(pictures, tmp_path, keep):
    """Each writes a segment of its own, and all read all."""
    folder = tmp_path / "cache"
    options = {"cache": folder, "processes": True, "workers": 2}
    with kl.PathSequenceLoader(pictures, None, BATCH, **options) as loader:
        for epoch in range(3):
            assert numbers(loader, epoch) == ALL
    assert len(segments(folder)) >= 1
    files = SampleFiles([pictures])
    store = FolderCache(str(folder), segments(folder)[0].parent.name, SAMPLES, files)
    assert all(store.get(k, files.stamp) is not None for k in ALL)


KILLING = """
    import os, random, shutil, signal, sys, time
    from pathlib import Path
    import numpy as np
    from kloaders.sources.cache.folder import FolderCache

    folder, names = sys.argv[1], [str(k) for k in range(500)]
    generator, served, killed = random.Random(1), 0, 0

    def write_for_ever(seed):
        generator = random.Random(seed)
        store = FolderCache(folder, "k", 500, names)
        while True:
            k = generator.randrange(500)
            store.put(k, bytes(16), np.full(generator.randrange(1, 30_000), k, np.uint16))

    while killed < 200:
        writers = []
        for _ in range(4):
            writers.append(os.fork())
            if not writers[-1]:
                write_for_ever(killed + len(writers))
        for writer in writers:
            time.sleep(generator.uniform(0, 0.01))
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
            killed += 1
        store = FolderCache(folder, "k", 500, names)
        for k in range(500):
            found = store.get(k, lambda _: bytes(16))
            if found is not None:
                served += 1
                assert (found == k).all()
        store.clear()
        if sum(path.stat().st_size for path in Path(folder).rglob("*.segment")) > 100e6:
            shutil.rmtree(folder)
    print(served)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_killed_200_times(tmp_path):
    """kill -9 at any moment of the writing, 200 times: what is served is whole and right.

    Four processes write at a time; after each round of kills, all that is there is read.
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLING), str(tmp_path / "cache")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KLOADERS_WORKER": "1"},
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 200


# ---------------------------------------------------------------- Ctrl-C


def interrupted_at(moment, function):
    """Call it, with Ctrl-C at this one of the moments at which Python looks; whether there was one.

    These are the beginnings of functions in Python, and the ends of those in C.
    """
    package = str(Path(kl.__file__).parent)
    left = [moment]

    def profile(frame, event, arg):
        code = frame.f_code
        # Between pop and close a descriptor is nobody's: that moment cannot be helped.
        ours = code.co_filename.startswith(package) and code.co_name != "_close_all"
        if ours and event in ("call", "c_return"):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(before)
    return left[0] <= 0


# What is raised in a finalizer is printed by Python, and goes no further.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_moment_of_close(pictures, decoded, tmp_path):
    """The loader serves right samples after it, from the folder, and is closed by another close()."""
    folder = tmp_path / "cache"
    filled(pictures, folder)
    loader = kl.PathSequenceLoader(pictures, None, BATCH, cache=folder, workers=0)
    assert numbers(loader) == ALL
    loader.close()
    moment, again = 1, True
    while again:
        assert numbers(loader) == ALL
        again = interrupted_at(moment, loader.close)
        assert numbers(loader) == ALL
        loader.close()
        moment += 1
    assert moment > 30
