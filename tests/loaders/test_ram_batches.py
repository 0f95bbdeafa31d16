"""RamBatchSequenceLoader: what is read when, what stays in memory, and for how long.

That each kind of loader delivers every sample once is in tests/contract. Here a `decode=` hook
notes which files are read, in which order, and lets a test wait for it.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from kloaders.formats import files
from tests.support.recording import numbers_of, recording_model, row_of

SAMPLES, BATCH, RAM = 24, 4, 8  # three RAM batches of two batches an epoch

DRAWS = pytest.mark.parametrize("draw", ["global", "windows"])
WORKERS = pytest.mark.parametrize("workers", [0, 1, 2, None])


class Reads:
    """A `decode=` hook that notes which files were read; `numbers` are in order of reading.

    width: how many numbers a sample has. broken: files that do not decode. gate: files that are
    read only once it is set.
    """

    def __init__(self, width: int = 2) -> None:
        self.width = width
        self.numbers: list[int] = []
        self.broken: set[int] = set()
        self.gates: dict[int, threading.Event] = {}
        self.changed = threading.Condition()

    def __call__(self, content: bytes) -> Any:
        row = np.frombuffer(content, "<f4")
        number = int(row[0])
        with self.changed:
            self.numbers.append(number)
            self.changed.notify_all()
        if number in self.gates:
            assert self.gates[number].wait(30)
        if number in self.broken:
            raise OSError("the disk is gone")
        return np.resize(row, self.width)

    def __reduce__(self) -> Any:
        return Reads, (self.width,)

    def wait_for(self, count: int) -> None:
        """Until so many files were read."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.numbers) >= count, timeout=30), (
                f"{len(self.numbers)} files were read, expected {count}"
            )

    def clear(self) -> None:
        self.numbers.clear()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files that hold their own number."""
    folder = tmp_path_factory.mktemp("raw")
    found = [str(folder / f"{k:02}.raw") for k in range(SAMPLES)]
    for k, path in enumerate(found):
        row_of(k).tofile(path)
    return found


@pytest.fixture
def make(paths: list[str], keep: Any) -> Any:
    """make(**options) -> (loader, reads), after a first look at a sample."""

    def _make(n: int = SAMPLES, width: int = 2, **options: Any) -> tuple[Any, Reads]:
        reads = Reads(width)
        options = {"ram_batch_size": RAM, "seed": 3, "shuffle": True, **options}
        if "ram_budget" in options:
            del options["ram_batch_size"]
        loader = keep(
            kl.RamBatchSequenceLoader(
                paths[:n], np.arange(n, dtype=np.float32), BATCH, decode=reads, **options
            )
        )
        assert loader.sample_spec
        reads.clear()
        return loader, reads

    return _make


def plain(paths: list[str], **options: Any) -> Any:
    """The same samples from a loader with one level."""
    y = np.arange(len(paths), dtype=np.float32)
    options = {"seed": 3, "shuffle": True, "decode": Reads(), **options}
    return kl.PathSequenceLoader(paths, y, BATCH, **options)


def loop(loader: Any, epochs: int = 1) -> Iterator[Any]:
    """Batches of a hand-written training loop."""
    for _ in range(epochs):
        loader.on_epoch_begin()
        for index in range(len(loader)):
            yield loader[index]
        loader.on_epoch_end()


def samples(batches: Any) -> list[int]:
    return [number for x, _ in batches for number in numbers_of(x)]


def runs(numbers: list[int]) -> int:
    """Into how many stretches of neighbours a list of sample numbers falls; the last meets the first."""
    steps = np.diff(numbers) % SAMPLES
    return 1 + int((steps != 1).sum())


# ---------------------------------------------------------------- what is read, how often


@DRAWS
@WORKERS
def test_each_file_is_read_once_an_epoch(make: Any, draw: str, workers: int | None) -> None:
    """Over three epochs each file is read three times, and at most one RAM batch is read ahead."""
    loader, reads = make(draw=draw, workers=workers)
    assert sorted(samples(loop(loader, 3))) == sorted([*range(SAMPLES)] * 3)
    loader.close()
    counts = Counter(reads.numbers)
    assert set(counts.values()) <= {3, 4}
    assert len(reads.numbers) <= 3 * SAMPLES + (RAM if workers != 0 else 0)


@DRAWS
def test_reads_under_fit(make: Any, draw: str) -> None:
    """Under fit's default shuffle, with nothing set, each file is read once for each epoch."""
    model, received = recording_model()
    loader, reads = make(draw=draw, shuffle=None)
    model.fit(loader, epochs=3, verbose=0, callbacks=[kl.LoaderCallback(loader)])
    assert sorted(n for batch in received.trained for n in batch) == sorted([*range(SAMPLES)] * 3)
    counts = Counter(reads.numbers)
    assert min(counts.values()) >= 3
    # Keras looks at the batches 0 and 1 first; an epoch whose permutation happens to begin with
    # batch 0 reads a RAM batch in storage order before it is shuffled.
    begun_in_order = loader.ram_batches_read - 3 * SAMPLES // RAM
    assert 0 <= begun_in_order <= 3
    assert len(reads.numbers) <= 3 * SAMPLES + 2 * BATCH + begun_in_order * RAM


@DRAWS
def test_the_next_ram_batch_fills_while_this_one_is_served(make: Any, draw: str) -> None:
    """After the first batch the second RAM batch is read unasked, and no third one is."""
    loader, reads = make(draw=draw, workers=1)
    loader.on_epoch_begin()
    first = numbers_of(loader[0][0])
    reads.wait_for(2 * RAM)  # nothing else is asked for meanwhile
    here, following = reads.numbers[:RAM], reads.numbers[RAM : 2 * RAM]
    assert not set(here) & set(following)
    assert sorted(first + numbers_of(loader[1][0])) == sorted(here)
    assert len(reads.numbers) == 2 * RAM
    second = numbers_of(loader[2][0])  # the first batch of the second RAM batch
    reads.wait_for(3 * RAM)
    assert sorted(second + numbers_of(loader[3][0])) == sorted(following)


def test_the_next_epoch_is_read_while_this_one_ends(make: Any) -> None:
    """While the last RAM batch is served, as while validation runs, the next epoch's first fills."""
    loader, reads = make(workers=1)
    list(loop(loader))
    reads.wait_for(SAMPLES + RAM)
    ahead = reads.numbers[SAMPLES:]
    loader.on_epoch_begin()
    assert sorted(numbers_of(loader[0][0]) + numbers_of(loader[1][0])) == sorted(ahead)


@DRAWS
def test_nothing_is_read_ahead_without_threads(make: Any, draw: str) -> None:
    """workers=0 reads the RAM batch that is asked for, when it is asked for."""
    loader, reads = make(draw=draw, workers=0)
    loader.on_epoch_begin()
    for k in range(len(loader)):
        loader[k]
        assert len(reads.numbers) == RAM * (1 + k * BATCH // RAM)


def test_a_batch_out_of_turn_is_read_alone(make: Any) -> None:
    """loader[i] outside an epoch reads the files of its batch and begins no RAM batch."""
    loader, reads = make(workers=1)
    for k in (4, 1):
        x, _ = loader[k]
        assert sorted(reads.numbers) == sorted(numbers_of(x))
        reads.clear()
    assert loader.ram_batches_read == 0


# ---------------------------------------------------------------- in which order


def ram_batches(loader: Any, reads: Reads) -> list[list[int]]:
    """What one epoch reads for each RAM batch, in order; the loader has workers=0."""
    reads.clear()
    list(loop(loader))
    return [reads.numbers[k : k + RAM] for k in range(0, SAMPLES, RAM)]


def test_windows_are_read_in_storage_order(make: Any) -> None:
    """Each RAM batch is a run of neighbouring files, read first to last; runs come shuffled."""
    loader, reads = make(draw="windows", workers=0)
    starts = []
    for _ in range(5):
        found = ram_batches(loader, reads)
        assert sorted(itertools.chain(*found)) == list(range(SAMPLES))
        assert [runs(window) for window in found] == [1, 1, 1]
        starts.append([window[0] for window in found])
    assert any(first != sorted(first) for first in starts)
    assert len({tuple(first) for first in starts}) == 5  # and are cut elsewhere each epoch


def test_windows_are_served_shuffled(make: Any) -> None:
    """Neighbours are parted inside RAM, though they were read together."""
    loader, _ = make(draw="windows")
    for _ in range(3):
        served = samples(loop(loader))
        for k in range(0, SAMPLES, RAM):
            assert runs(served[k : k + RAM]) > 2


def test_global_draws_are_no_runs(make: Any) -> None:
    """A RAM batch is a random part of everything: together a permutation, each no run."""
    loader, reads = make(draw="global", workers=0)
    for _ in range(5):
        found = ram_batches(loader, reads)
        assert sorted(itertools.chain(*found)) == list(range(SAMPLES))
        assert all(max(window) - min(window) >= RAM for window in found)


@WORKERS
def test_global_is_the_order_of_one_level(make: Any, paths: list[str], workers: Any) -> None:
    """draw="global" changes when files are read, not a single batch."""
    loader, _ = make(draw="global", workers=workers)
    with plain(paths) as other:
        assert samples(loop(loader, 2)) == samples(loop(other, 2))


def test_shards_read_their_own_files_only(make: Any) -> None:
    """Two shards share the files of an epoch, and no file is read by both."""
    read = []
    for k in range(2):
        loader, reads = make(shard=(k, 2), ram_batch_size=BATCH, workers=0)
        assert sorted(samples(loop(loader))) == sorted(reads.numbers)
        read.append(set(reads.numbers))
    assert not read[0] & read[1]
    assert read[0] | read[1] == set(range(SAMPLES))


# ---------------------------------------------------------------- echo


@DRAWS
@pytest.mark.parametrize("workers", [0, 2])
def test_echo_serves_twice_and_reads_once(make: Any, draw: str, workers: int) -> None:
    """echo=2: a RAM batch is served twice, in two orders, before the next, and read once."""
    loader, reads = make(draw=draw, echo=2, workers=workers)
    assert len(loader) == 2 * SAMPLES // BATCH
    served = samples(loop(loader))
    loader.close()
    for k in range(0, 2 * SAMPLES, 2 * RAM):
        once, again = served[k : k + RAM], served[k + RAM : k + 2 * RAM]
        assert sorted(once) == sorted(again)
        assert once != again
    assert sorted(served) == sorted([*range(SAMPLES)] * 2)
    assert set(Counter(reads.numbers).values()) <= {1, 2}
    assert len(reads.numbers) <= SAMPLES + (RAM if workers else 0)


def test_echo_draws_transforms_anew(make: Any) -> None:
    """The second serving of a sample gets other random numbers, the same ones in every run."""

    def run() -> list[tuple[int, float]]:
        loader, _ = make(echo=2, transform=lambda x, y, rng: (np.float32(rng.random()), y))
        return [(int(n), float(v)) for x, y in loop(loader) for v, n in zip(x, y, strict=True)]

    drawn = run()
    assert len(set(drawn)) == len({value for _, value in drawn}) == 2 * SAMPLES
    assert run() == drawn


# ---------------------------------------------------------------- sizes and memory


@DRAWS
def test_data_that_fit_are_read_once(make: Any, draw: str) -> None:
    """A budget that holds all samples: one read each, over three epochs and storage order too."""
    loader, reads = make(draw=draw, ram_budget="1MB")
    assert loader.ram_batch_size == SAMPLES
    assert sorted(samples(loop(loader, 3))) == sorted([*range(SAMPLES)] * 3)
    assert sorted(reads.numbers) == list(range(SAMPLES))
    assert loader.ram_batches_read == 1


def test_data_that_fit_are_read_once_under_fit(make: Any) -> None:
    """fit, evaluate and predict share what is in RAM; Keras' looks at batch 0 and 1 come before."""
    model, received = recording_model()
    loader, reads = make(shuffle=None, ram_budget="1MB")
    model.fit(loader, epochs=3, verbose=0)
    model.evaluate(loader, verbose=0)
    np.testing.assert_array_equal(model.predict(loader, verbose=0)[:, 1], np.arange(SAMPLES))
    assert loader.ram_batches_read == 1
    assert len(reads.numbers) <= SAMPLES + 3 * 2 * BATCH
    assert len(received.trained) == 18


@pytest.mark.parametrize("budget", [3_000, 5_000, 6_500, 20_000])
def test_the_size_follows_from_the_budget(make: Any, budget: int) -> None:
    """Two RAM batches of whole batches stay below the budget, unless all samples do."""
    loader, _ = make(width=25, ram_budget=budget)  # 100 bytes, and 4 for the label
    size = loader.ram_batch_size
    assert size % BATCH == 0
    assert size >= BATCH
    assert (1 if size == SAMPLES else 2) * size * 104 <= budget
    assert sorted(samples(loop(loader))) == list(range(SAMPLES))


def test_a_larger_budget_holds_no_less(make: Any) -> None:
    """The RAM batch grows with the budget, up to all samples."""
    sizes = [make(width=25, ram_budget=b)[0].ram_batch_size for b in range(2_500, 12_000, 500)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert sizes[-1] == SAMPLES


def test_what_a_transform_makes_is_within_the_budget(make: Any) -> None:
    """Batches of a transform that makes samples larger count, and leave less for RAM batches."""

    def widen(x: Any, y: Any, rng: Any) -> Any:
        return np.resize(x, 100), y

    small, _ = make(width=25, ram_budget=7_000)
    large, _ = make(width=25, ram_budget=7_000, transform=widen)
    assert large.ram_batch_size < small.ram_batch_size


# Run without Keras, whose own memory comes and goes; the loader is the same.
MEASURED = """
import json, sys
import numpy as np
import kloaders as kl
from kloaders.formats import files

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(field + ":"))

def half(x, y, rng):
    return x[::2], y

paths, options = json.loads(sys.argv[1])
if options.pop("transform", None):
    options["transform"] = half
kl.RamBatchSequenceLoader(paths[:4], None, 4, ram_batch_size=4)[0]  # all that is imported late
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak is counted from here
before = status("VmRSS")
loader = kl.RamBatchSequenceLoader(paths, np.arange(len(paths)), 4, seed=1, **options)
for epoch in range(2):
    loader.on_epoch_begin()
    for k in range(len(loader)):
        held = loader[k]  # as a framework holds the batch before while it asks for the next
    loader.on_epoch_end()
held = None
used = status("VmHWM") - before
loader.close()
left = status("VmRSS") - before
print(json.dumps({"peak": used, "left": left, "size": loader.ram_batch_size}))
"""
MIB = 2**20
# Threads' stacks and what malloc keeps of freed memory; measured: 1 to 4 MiB.
SLACK = 8 * MIB


def measured(folder: Path, **options: Any) -> dict[str, int]:
    """Bytes of a process over two epochs of 120 samples of 1 MiB, and after close()."""
    first = str(folder / "000.npy")
    np.save(first, np.ones(MIB, np.uint8))
    paths = [first, *(str(folder / f"{k:03}.npy") for k in range(1, 120))]
    for path in paths[1:]:
        os.link(first, path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, json.dumps([paths, options])],
        env={
            **os.environ,
            "KLOADERS_WORKER": "1",
            "PYTHONPATH": os.path.dirname(os.path.dirname(kl.__file__)),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


only_linux = pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="the peak is read from Linux' /proc"
)


@only_linux
@pytest.mark.parametrize(
    "options",
    [
        {"draw": "windows"},
        {"draw": "global"},
        {"shuffle": True, "workers": 4},
        {"draw": "windows", "echo": 2, "workers": 1},
        {"transform": True},
        {"ram_budget": 256 * MIB},  # more than all samples take
    ],
    ids=lambda options: " ".join(f"{k}={v}" for k, v in options.items()),
)
def test_peak_memory_stays_within_the_budget(tmp_path: Path, options: dict[str, Any]) -> None:
    """The resident memory of a process that loads more than its budget: no more than was given."""
    options = {"ram_budget": 64 * MIB, **options}
    peak = measured(tmp_path, **options)["peak"]
    assert peak <= options["ram_budget"] + SLACK
    assert peak >= 32 * MIB, "so much less was not asked for"


@only_linux
@pytest.mark.parametrize("draw", ["windows", "global"])
def test_close_frees_ram_batches(tmp_path: Path, draw: str) -> None:
    """After close() the process has given the memory back, though the loader is still there."""
    found = measured(tmp_path, draw=draw, ram_budget=64 * MIB)
    assert found["left"] <= SLACK


def test_a_pickle_carries_no_ram_batch(make: Any) -> None:
    """In mid-epoch, too, the pickle is as small as the paths, and the copy begins an epoch."""
    loader, _ = make(width=25_000, workers=1)
    loader.on_epoch_begin()
    loader[0]
    sent = pickle.dumps(loader)
    assert len(sent) < 100_000
    with pickle.loads(sent) as copy:
        assert sorted(samples(loop(copy))) == list(range(SAMPLES))
        assert copy.ram_batch_size == RAM


# ---------------------------------------------------------------- what it says


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["8 samples", "96 bytes", "3 an epoch", "from all samples"]),
        ({"draw": "windows"}, ["8 samples", "96 bytes", "3 an epoch", "storage order"]),
        ({"echo": 2}, ["8 samples", "served 2 times"]),
        ({"ram_budget": "1MB"}, ["24 samples", "288 bytes", "all samples", "read once"]),
    ],
    ids=["global", "windows", "echo", "all"],
)
def test_the_size_is_said_once(
    make: Any, caplog: pytest.LogCaptureFixture, options: Any, words: list[str]
) -> None:
    """How many samples a RAM batch has, and their bytes, is logged once in a loader's life."""
    caplog.set_level(logging.INFO, "kloaders")
    loader, _ = make(**options)
    list(loop(loader, 2))
    loader.close()
    list(loop(loader, 1))
    said = [record for record in caplog.records if "RAM batches" in record.message]
    assert [(record.name, record.levelname) for record in said] == [("kloaders", "INFO")]
    assert [word for word in words if word not in said[0].message] == []


# ---------------------------------------------------------------- samples that fail


def outcome(loader: Any, epochs: int = 2) -> Any:
    """Batches and errors of some epochs, comparable."""
    with loader:
        batches = [tuple(part.tolist() for part in batch) for batch in loop(loader, epochs)]
    return batches, sorted((error.index, error.name, error.cause) for error in loader.errors)


def noisy(x: Any, y: Any, rng: np.random.Generator) -> Any:
    """A transform that draws, and fails for sample 13."""
    if y == 13:
        raise ValueError("thirteen")
    return x + rng.random(x.shape, np.float32), y


@pytest.mark.parametrize("transform", [None, noisy], ids=["stored", "transformed"])
@pytest.mark.parametrize("on_error", ["skip", "replace"])
@WORKERS
def test_on_error_is_that_of_one_level(
    make: Any, paths: list[str], workers: Any, on_error: str, transform: Any
) -> None:
    """Skipped and replaced samples are the same ones, bit for bit, as without RAM batches."""
    options = {"on_error": on_error, "transform": transform, "workers": workers}
    loader, reads = make(**options)
    other = plain(paths, **options)
    reads.broken = other.decode.broken = {0, 6, 7}
    batches, errors = outcome(loader)
    assert (batches, errors) == outcome(other)
    assert [index for index, _, _ in errors] == ([0, 6, 7] if not transform else [0, 6, 7, 13])
    arrived = [int(number) for _, y in batches for number in y]
    assert not {0, 6, 7} & set(arrived)
    assert len(arrived) == (2 * SAMPLES if on_error == "replace" else 2 * SAMPLES - 2 * len(errors))


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_on_error_where_all_samples_are_resident(make: Any, on_error: str) -> None:
    """A broken file is tried once, and left out or replaced for good."""
    loader, reads = make(ram_budget="1MB", on_error=on_error)
    reads.broken = {6}
    arrived = Counter(samples(loop(loader, 3)))
    assert 6 not in arrived
    assert all(count % 3 == 0 for count in arrived.values())
    assert arrived.total() == 3 * (SAMPLES if on_error == "replace" else SAMPLES - 1)
    assert reads.numbers.count(6) == 1
    assert [error.index for error in loader.errors] == [6]


def test_an_error_names_the_sample_and_is_tried_again(make: Any) -> None:
    """A file that fails in a RAM batch read ahead is named in its turn, and mended, goes on."""
    loader, reads = make(draw="windows", shuffle=False, workers=1)
    reads.broken = {13}
    loader.on_epoch_begin()
    before = [numbers_of(loader[k][0]) for k in range(2)]
    assert before == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(kl.SampleError, match=r"sample 13 .*13\.raw.*the disk is gone"):
        [loader[k] for k in (2, 3)]
    reads.broken.clear()
    after = [numbers_of(loader[k][0]) for k in range(2, 6)]
    assert list(itertools.chain(*before, *after)) == list(range(SAMPLES))


@pytest.mark.parametrize("odd", [[13], [12, 13, 14, 15]], ids=["one", "a whole batch"])
def test_samples_of_different_shape_in_a_ram_batch(
    paths: list[str], keep: Any, odd: list[int]
) -> None:
    """Both files and shapes are named, whether one sample differs or all of a batch do."""

    class Odd(kl.RamBatchSequenceLoader):
        def load_sample(self, path: str) -> Any:
            row = np.fromfile(path, "<f4")
            return np.resize(row, 3) if row[0] in odd else row

    loader = keep(Odd(paths, None, BATCH, ram_batch_size=SAMPLES, shuffle=False))
    with pytest.raises(ValueError) as caught:
        list(loop(loader))
    said = str(caught.value)
    assert paths[odd[0]] in said
    assert "(3,)" in said
    assert "(2,)" in said
    assert any(path in said for k, path in enumerate(paths) if k not in odd)
    assert "load_sample()" in said


# ---------------------------------------------------------------- transforms


@DRAWS
@WORKERS
def test_a_sample_draws_as_in_any_loader(
    make: Any, paths: list[str], draw: str, workers: Any
) -> None:
    """One seed, epoch and sample give one draw, with RAM batches as without."""

    def drawn(loader: Any) -> list[dict[int, float]]:
        batches = list(loop(loader, 2))
        rows = [[(int(n), float(v)) for x, y in part for v, n in zip(x, y, strict=True)]
                for part in (batches[: len(loader)], batches[len(loader) :])]  # fmt: skip
        return [dict(part) for part in rows]

    def transform(x: Any, y: Any, rng: np.random.Generator) -> Any:
        return np.float32(rng.random()), y

    loader, _ = make(draw=draw, workers=workers, transform=transform)
    with plain(paths, transform=transform) as other:
        assert drawn(loader) == drawn(other)


def test_a_transform_cannot_spoil_what_is_in_ram(make: Any) -> None:
    """A transform may write to its x: the next epoch sees the sample as it is stored."""

    def spoil(x: Any, y: Any, rng: Any) -> Any:
        was = x.copy()
        x[...] = -1
        return was, y

    loader, reads = make(ram_budget="1MB", transform=spoil)
    reads.clear()
    assert sorted(samples(loop(loader, 3))) == sorted([*range(SAMPLES)] * 3)


# ---------------------------------------------------------------- several users


def test_a_view_has_ram_batches_of_its_own(make: Any) -> None:
    """view() in mid-epoch: a whole pass over it, and closing it, leave the loader's epoch alone."""
    loader, _ = make(shuffle=None, workers=1)
    loader.on_epoch_begin()
    found = [loader[k] for k in (3, 1)]
    before = loader.ram_batches_read
    view = loader.view()
    assert samples(loop(view)) == list(range(SAMPLES))
    view.close()
    assert loader.ram_batches_read == before
    assert view.ram_batches_read == SAMPLES // RAM
    found += [loader[k] for k in (0, 2, 4, 5)]
    assert sorted(samples(found)) == list(range(SAMPLES))


@pytest.mark.parametrize("half", [False, True])
def test_the_kernel_is_told_what_comes_next(
    paths: list[str], monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    """Of a disk that is waited for, parts behind those that the threads are at; each file once."""
    told: list[str] = []
    monkeypatch.setattr("kloaders.formats.files.read_ahead", told.append)
    monkeypatch.setattr("kloaders.engine.ram_batches._WAITING", -1)
    loader = kl.RamBatchSequenceLoader(
        paths, None, BATCH, ram_batch_size=RAM, decode=Reads(), shuffle=False, workers=1
    )
    if half:
        loader, _ = kl.split(loader, validation=0.5)
    with loader:
        loader.on_epoch_begin()
        for batch in range(len(loader)):
            loader[batch]
    # The first part of each RAM batch is read before anything is known to be slow, and parts of one
    # sample follow it: one thread is at the next one already.
    assert sorted(set(told)) == sorted(told)
    assert set(told) < set(paths[: loader.samples] if not half else paths)
    assert len(told) >= loader.samples // 2


def test_reading_ahead_tells_of_nothing(tmp_path: Path) -> None:
    """A file that is not there is the business of who reads it."""
    files.read_ahead(str(tmp_path / "gone"))
    files.read_ahead(str(tmp_path))


def test_close_while_a_ram_batch_is_awaited(make: Any) -> None:
    """Who waits for a RAM batch when another thread closes the loader gets the batch all the same."""
    loader, reads = make(workers=1, shuffle=False)
    gate = reads.gates[2] = threading.Event()
    loader.on_epoch_begin()
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(loader[0]), daemon=True)
    asking.start()
    with reads.changed:
        assert reads.changed.wait_for(lambda: 2 in reads.numbers, timeout=30)
    closing = threading.Thread(target=loader.close, daemon=True)
    closing.start()
    gate.set()
    for thread in (asking, closing):
        thread.join(30)
        assert not thread.is_alive()
    assert samples(found) == [0, 1, 2, 3]
