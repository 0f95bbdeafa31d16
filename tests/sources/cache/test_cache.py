"""Decoded samples are kept, never served stale or half-written, and never cost the training."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import random
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kloaders as kl
from kloaders.formats import by_suffix
from kloaders.sources.cache import folder as folder_cache
from kloaders.sources.cache import ram as ram_cache
from kloaders.sources.cache import store as stores
from kloaders.sources.cache.folder import FolderCache, key_of
from kloaders.sources.cache.ram import Budget, RamCache

SAMPLES, BATCH = 12, 4
ROOT = Path(__file__).parents[3]


@pytest.fixture
def pictures(tmp_path):
    """PNG files of one colour each, the number of its sample."""
    paths = [tmp_path / f"{number:02}.png" for number in range(SAMPLES)]
    for number, path in enumerate(paths):
        write(path, number)
    return [str(path) for path in paths]


def write(path, number):
    assert cv2.imwrite(str(path), np.full((4, 4, 3), number, np.uint8))


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded, in order."""
    found = []
    real = by_suffix.read_sample

    def read(path, options, out=None):
        found.append(Path(path).name)
        return real(path, options, out)

    monkeypatch.setattr(by_suffix, "read_sample", read)
    return found


@pytest.fixture(autouse=True)
def no_grace(monkeypatch):
    """A file is looked at before each time that it is served."""
    monkeypatch.setattr(stores, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(folder_cache, "_REFRESH_SECONDS", 0.0)


def numbers(loader, epoch=0, shuffle=False):
    """The colour of each sample of an epoch."""
    batches = loader.epoch_batches(epoch, shuffle)
    return [
        int(x[0, 0, 0])
        for batch in batches
        for x in (batch[0] if isinstance(batch, tuple) else batch)
    ]


ALL = list(range(SAMPLES))


@pytest.fixture(params=["auto", "ram", "folder"])
def where(request, tmp_path):
    return tmp_path / "cache" if request.param == "folder" else request.param


# ---------------------------------------------------------------- what is kept


def test_each_file_is_decoded_once(pictures, decoded, where, keep):
    """Later epochs read nothing, in any order, and get the same samples."""
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where))
    assert numbers(loader) == ALL
    decoded.clear()
    assert numbers(loader) == ALL
    for epoch in range(3):
        assert sorted(numbers(loader, epoch, shuffle=True)) == ALL
    assert not decoded
    assert "12" in loader.summary().split("cache:")[1]


def test_the_default_keeps_and_none_does_not(pictures, decoded, keep):
    """cache="auto" is what a loader does by itself."""
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH))
    assert numbers(loader) == numbers(loader) == ALL
    assert len(decoded) == SAMPLES
    decoded.clear()
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=None))
    assert numbers(loader) == numbers(loader) == ALL
    assert len(decoded) == 2 * SAMPLES + 1
    assert "cache" not in loader.summary()


def test_masks_are_kept_beside_pictures(pictures, decoded, where, keep):
    loader = keep(kl.PathSequenceLoader(pictures, pictures[::-1], BATCH, cache=where))
    for epoch in range(2):
        for x, y in loader.epoch_batches(epoch, True):
            assert (x[:, 0, 0, 0] + y[:, 0, 0, 0] == SAMPLES - 1).all()
    decoded.clear()
    list(loader.epoch_batches(5, True))
    assert not decoded


def test_a_transform_draws_anew(pictures, decoded, where, keep):
    """What is kept is the sample before the transform, and no transform writes to it."""

    def noise(x, y, rng):
        x += np.uint8(rng.integers(100))
        return x, y

    options = {"transform": noise, "seed": 3}
    kept = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where, **options))
    plain = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=None, **options))
    for epoch in range(3):
        assert numbers(kept, epoch) == numbers(plain, epoch)
    assert numbers(kept, 0) != numbers(kept, 1)


def test_users_code_only_by_word(pictures, keep):
    """decode= and load_sample may be random: "auto" lets them be, "ram" keeps what they gave."""
    calls = []

    def decode(raw):
        calls.append(1)
        return np.full((1, 1, 1), len(calls), np.uint8)

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path):
            return decode(b"")

    class ByIndex(kl.SequenceLoader):
        def load_sample(self, index):
            return decode(b"")

    for make in (
        lambda **o: kl.PathSequenceLoader(pictures, None, BATCH, decode=decode, **o),
        lambda **o: Own(pictures, None, BATCH, **o),
        lambda **o: ByIndex(SAMPLES, BATCH, **o),
    ):
        loader = keep(make(workers=0))
        assert numbers(loader) != numbers(loader)
        loader = keep(make(workers=0, cache="ram"))
        assert numbers(loader) == numbers(loader)


def test_single_numbers_stay_single_numbers(pictures, where, keep):
    """What a hook gives comes back as it was, in RAM and in a folder."""

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path):
            return super().load_sample(path), np.int64(len(path))

    loader = keep(Own(pictures, None, BATCH, cache=where))
    for _ in range(2):
        assert [y.shape for _, y in loader.epoch_batches()] == [(BATCH,)] * 3


@pytest.mark.parametrize("rows", [5, 5.9])
def test_a_budget_is_shared_by_the_arrays_of_a_sample(pictures, keep, rows):
    """None takes the room of another, without which it is of no use."""
    loaded = []

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path):
            loaded.append(path)
            x = super().load_sample(path)
            return x, x[:1].copy()

    budget = int(rows * (48 + 12))
    loader = keep(Own(pictures, None, BATCH, cache="ram", cache_budget=budget))
    assert numbers(loader) == ALL
    loaded.clear()
    assert numbers(loader) == ALL
    assert SAMPLES - 5 <= len(loaded) <= SAMPLES - 4


def test_samples_of_other_shapes_are_read_again(pictures, decoded, keep):
    """What does not have the shape of the others is not kept, and comes as it is."""
    assert cv2.imwrite(pictures[5], np.full((6, 6, 3), 5, np.uint8))
    loader = keep(kl.PathSequenceLoader(pictures, None, 1))
    assert numbers(loader) == numbers(loader) == ALL
    assert decoded.count("05.png") == 2
    assert decoded.count("04.png") == 1


def test_a_split_shares_the_cache(pictures, decoded, where, keep):
    """Training and validation part keep in one store, under the number in the whole."""
    train, val = kl.split(pictures, None, BATCH, seed=1, cache=where)
    keep(train), keep(val)
    for _ in range(2):
        assert sorted(numbers(train) + numbers(val)) == ALL
    assert len(decoded) <= SAMPLES + 2
    assert train._stores()[0] is val._stores()[0]


def test_views_share_and_the_last_one_frees(pictures, decoded, keep):
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH))
    other = keep(loader.view())
    assert numbers(loader) == numbers(other) == ALL
    decoded.clear()
    other.close()
    assert numbers(loader) == ALL
    assert not decoded
    assert loader._stores()[0].nbytes
    loader.close()
    assert not loader._stores()[0].nbytes
    assert numbers(loader) == ALL  # it comes back


def test_preload_does_not_keep_twice(pictures, keep):
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH))
    keep(kl.preload(loader, progress=False))
    assert loader._stores()[0].nbytes <= 48  # sample 0, whose shape was looked at


def test_bad_samples_are_not_kept(pictures, where, keep):
    """on_error deals with them each time, and one that was mended is served."""
    raw = Path(pictures[3]).read_bytes()
    Path(pictures[3]).write_bytes(raw[:20])
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where, on_error="skip"))
    for _ in range(2):
        assert numbers(loader) == [n for n in ALL if n != 3]
    write(pictures[3], 3)
    assert numbers(loader) == ALL


def test_pickled_loaders_start_empty(pictures, where, keep):
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where))
    assert numbers(loader) == ALL
    assert len(pickle.dumps(loader)) < 10_000
    assert numbers(keep(pickle.loads(pickle.dumps(loader)))) == ALL


def test_under_fit(pictures, decoded, where, keep):
    """The model gets every sample once an epoch, from files and from the cache."""
    from tests.support.recording import recording_model

    model, received = recording_model((4, 4, 3), "uint8")
    paths = pictures[:11]
    for number, path in enumerate(paths):
        image = np.zeros((4, 4, 3), np.uint8)
        image[..., 2] = number  # BGR
        assert cv2.imwrite(path, image)
    loader = keep(kl.PathSequenceLoader(paths, np.arange(11, dtype="f4"), BATCH, cache=where))
    model.fit(loader, epochs=4, verbose=0)
    trained = [number for batch in received.trained for number in batch]
    for epoch in range(4):
        assert sorted(trained[11 * epoch : 11 * (epoch + 1)]) == list(range(11))
    assert len(decoded) <= 11 + 2 * BATCH + 1  # and the looks that Keras takes


# ---------------------------------------------------------------- budgets


def test_a_part_is_kept_where_not_all_fits(pictures, decoded, where, keep):
    """What fits is served from the cache, the rest is read."""
    budget = 5 * 48 if not isinstance(where, Path) else 5 * (48 + 60)
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where, cache_budget=budget))
    assert numbers(loader) == ALL
    decoded.clear()
    assert sorted(numbers(loader, 1, shuffle=True)) == ALL
    assert SAMPLES - 6 <= len(decoded) <= SAMPLES - 3


def test_one_budget_for_all_loaders(pictures, monkeypatch, keep):
    """A quarter of what is free, together; it comes back with the loaders."""
    gc.collect()
    monkeypatch.setattr(ram_cache, "available_bytes", lambda: 4 * 48 * 15)
    budget = Budget(None, 0.25)
    monkeypatch.setattr(ram_cache, "spare_ram", budget)
    stores = [RamCache(SAMPLES, budget) for _ in range(2)]
    for store in stores:
        for number in range(SAMPLES):
            store.put(number, (1, 1), np.full((4, 4, 3), number, np.uint8))
    assert [store.nbytes for store in stores] == [12 * 48, 3 * 48]
    stores[0].clear()
    assert budget.reserve(10**6, 1) == 12 * 48


def test_memory_is_given_back_where_it_is_short(monkeypatch):
    """Half of the rows go; what is left is right, what went is missing."""
    free = [10**9]
    monkeypatch.setattr(ram_cache, "available_bytes", lambda: free[0])
    monkeypatch.setattr(ram_cache, "_MEMORY_SECONDS", -1.0)
    store = RamCache(SAMPLES, Budget(None, 0.25, 0.1))
    for number in range(SAMPLES):
        store.put(number, (1, 1), np.full(10_000, number, np.uint8))
    out = np.empty((SAMPLES, 10_000), np.uint8)
    everything = np.arange(SAMPLES)
    assert not len(store.serve(everything, out, lambda _: (1, 1)))
    free[0] = 10**7
    missing = store.serve(everything, out, lambda _: (1, 1))
    assert missing.tolist() == list(range(6, SAMPLES))
    assert (out[:6] == np.arange(6)[:, None]).all()
    assert store.nbytes == 6 * 10_000
    store.put(9, (1, 1), np.full(10_000, 9, np.uint8))  # it does not grow again
    assert store.nbytes == 6 * 10_000


def test_never_a_torn_row(monkeypatch):
    """Rows that change or go while others are copied are never served mixed."""
    store = RamCache(64, Budget(10**8))
    stop, wrong = threading.Event(), []
    stamps = [(0, 0)] * 64

    def serve():
        out = np.empty((64, 4096), np.uint16)
        everything = np.arange(64)
        while not stop.is_set():
            missing = set(store.serve(everything, out, lambda k: stamps[k]).tolist())
            for row in range(64):
                assert row in missing or len(np.unique(out[row])) == 1, wrong.append(row)

    def change(seed):
        generator = random.Random(seed)
        for _ in range(1500):
            k = generator.randrange(64)
            value = generator.randrange(2**16)
            store.put(k, stamps[k], np.full(4096, value, np.uint16))
            if generator.random() < 0.002:
                store.shrink()
            if generator.random() < 0.002:
                store.clear()

    threads = [threading.Thread(target=serve) for _ in range(2)]
    changers = [threading.Thread(target=change, args=(seed,)) for seed in range(2)]
    for thread in [*threads, *changers]:
        thread.start()
    for thread in changers:
        thread.join()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


# ---------------------------------------------------------------- never stale


def test_a_changed_file_is_read_again(pictures, where, keep):
    """By size or modification time, in this process and in the next."""
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where))
    assert numbers(loader) == ALL
    write(pictures[7], 99)
    os.utime(pictures[7], ns=(0, 12345))
    assert numbers(loader)[7] == 99
    assert numbers(loader)[7] == 99
    other = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where))
    assert numbers(other)[7] == 99


def test_a_file_that_is_gone_is_an_error(pictures, where, keep):
    """Also where its picture is still kept: the data are not what they were."""
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where))
    assert numbers(loader) == ALL
    os.remove(pictures[2])
    with pytest.raises(kl.SampleError, match=r"02\.png"):
        numbers(loader)


def test_other_options_are_another_cache(pictures, tmp_path, keep):
    """The size, the interpolation, the dtype, the decoder and its code."""
    folder = tmp_path / "cache"
    shapes = []
    for options in ({"size": (2, 2)}, {"size": (3, 3)}, {"channels": 1}, {"dtype": "float32"}):
        loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=folder, **options))
        x = loader[0]
        shapes.append((x.shape, x.dtype.name))
        assert numbers(loader) == ALL
    assert len(set(shapes)) == 4
    assert len(os.listdir(folder)) == 4


def test_another_code_is_another_cache(pictures, tmp_path, keep):
    folder = tmp_path / "cache"
    for decode in (lambda raw: np.full((1, 1, 1), 5), lambda raw: np.full((1, 1, 1), 6)):
        loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=folder, decode=decode))
        assert numbers(loader) == [int(decode(b"")[0, 0, 0])] * SAMPLES


@given(st.integers(), st.integers())
def test_keys_tell_options_apart(a, b):
    assert (key_of(a, "x") == key_of(b, "x")) == (a == b)


# ---------------------------------------------------------------- a folder


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


def segments(folder):
    return sorted(Path(folder).rglob("*.segment"))


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
    assert "training goes on" in caplog.text
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
    store = FolderCache(str(folder), segments(folder)[0].parent.name, SAMPLES, pictures)
    assert all(store.get(k, lambda k: stores.stamp_of(pictures[k])) is not None for k in ALL)


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
            store.put(k, (1, 1), np.full(generator.randrange(1, 30_000), k, np.uint16))

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
            found = store.get(k, lambda _: (1, 1))
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
