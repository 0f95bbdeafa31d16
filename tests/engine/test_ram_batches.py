"""Two levels: what is read when, in which order, what is served, and what becomes of bad samples.

A `decode=` hook notes which files are read, in which order, and lets a test wait for it. Sizes and
memory are in tests/loaders/test_ram_batches.py.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from tests.support.ram_reads import BATCH, DRAWS, RAM, SAMPLES, WORKERS, Reads, loop, plain, samples
from tests.support.recording import numbers_of, recording_model


def runs(numbers: list[int]) -> int:
    """Into how many stretches of neighbours a list of sample numbers falls; the last meets the first."""
    steps = np.diff(numbers) % SAMPLES
    return 1 + int((steps != 1).sum())


# ---------------------------------------------------------------- what is read, how often


@DRAWS
@WORKERS
def test_each_file_is_read_once_an_epoch(two_level: Any, draw: str, workers: int | None) -> None:
    """Over three epochs each file is read three times, and at most one RAM batch is read ahead."""
    loader, reads = two_level(draw=draw, workers=workers)
    assert sorted(samples(loop(loader, 3))) == sorted([*range(SAMPLES)] * 3)
    loader.close()
    counts = Counter(reads.numbers)
    assert set(counts.values()) <= {3, 4}
    assert len(reads.numbers) <= 3 * SAMPLES + (RAM if workers != 0 else 0)


@DRAWS
def test_reads_under_fit(two_level: Any, draw: str) -> None:
    """Under fit's default shuffle, with nothing set, each file is read once for each epoch."""
    model, received = recording_model()
    loader, reads = two_level(draw=draw, shuffle=None)
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
def test_the_next_ram_batch_fills_while_this_one_is_served(two_level: Any, draw: str) -> None:
    """After the first batch the second RAM batch is read unasked, and no third one is."""
    loader, reads = two_level(draw=draw, workers=1)
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


def test_the_next_epoch_is_read_while_this_one_ends(two_level: Any) -> None:
    """While the last RAM batch is served, as while validation runs, the next epoch's first fills."""
    loader, reads = two_level(workers=1)
    list(loop(loader))
    reads.wait_for(SAMPLES + RAM)
    ahead = reads.numbers[SAMPLES:]
    loader.on_epoch_begin()
    assert sorted(numbers_of(loader[0][0]) + numbers_of(loader[1][0])) == sorted(ahead)


@DRAWS
def test_nothing_is_read_ahead_without_threads(two_level: Any, draw: str) -> None:
    """workers=0 reads the RAM batch that is asked for, when it is asked for."""
    loader, reads = two_level(draw=draw, workers=0)
    loader.on_epoch_begin()
    for k in range(len(loader)):
        loader[k]
        assert len(reads.numbers) == RAM * (1 + k * BATCH // RAM)


def test_a_batch_out_of_turn_is_read_alone(two_level: Any) -> None:
    """loader[i] outside an epoch reads the files of its batch and begins no RAM batch."""
    loader, reads = two_level(workers=1)
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


def test_windows_are_read_in_storage_order(two_level: Any) -> None:
    """Each RAM batch is a run of neighbouring files, read first to last; runs come shuffled."""
    loader, reads = two_level(draw="windows", workers=0)
    starts = []
    for _ in range(5):
        found = ram_batches(loader, reads)
        assert sorted(itertools.chain(*found)) == list(range(SAMPLES))
        assert [runs(window) for window in found] == [1, 1, 1]
        starts.append([window[0] for window in found])
    assert any(first != sorted(first) for first in starts)
    assert len({tuple(first) for first in starts}) == 5  # and are cut elsewhere each epoch


def test_windows_are_served_shuffled(two_level: Any) -> None:
    """Neighbours are parted inside RAM, though they were read together."""
    loader, _ = two_level(draw="windows")
    for _ in range(3):
        served = samples(loop(loader))
        for k in range(0, SAMPLES, RAM):
            assert runs(served[k : k + RAM]) > 2


def test_global_draws_are_no_runs(two_level: Any) -> None:
    """A RAM batch is a random part of everything: together a permutation, each no run."""
    loader, reads = two_level(draw="global", workers=0)
    for _ in range(5):
        found = ram_batches(loader, reads)
        assert sorted(itertools.chain(*found)) == list(range(SAMPLES))
        assert all(max(window) - min(window) >= RAM for window in found)


@WORKERS
def test_global_is_the_order_of_one_level(
    two_level: Any, raw_files: list[str], workers: Any
) -> None:
    """draw="global" changes when files are read, not a single batch."""
    loader, _ = two_level(draw="global", workers=workers)
    with plain(raw_files) as other:
        assert samples(loop(loader, 2)) == samples(loop(other, 2))


def test_shards_read_their_own_files_only(two_level: Any) -> None:
    """Two shards share the files of an epoch, and no file is read by both."""
    read = []
    for k in range(2):
        loader, reads = two_level(shard=(k, 2), ram_batch_size=BATCH, workers=0)
        assert sorted(samples(loop(loader))) == sorted(reads.numbers)
        read.append(set(reads.numbers))
    assert not read[0] & read[1]
    assert read[0] | read[1] == set(range(SAMPLES))


# ---------------------------------------------------------------- echo


@DRAWS
@pytest.mark.parametrize("workers", [0, 2])
def test_echo_serves_twice_and_reads_once(two_level: Any, draw: str, workers: int) -> None:
    """echo=2: a RAM batch is served twice, in two orders, before the next, and read once."""
    loader, reads = two_level(draw=draw, echo=2, workers=workers)
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


def test_echo_draws_transforms_anew(two_level: Any) -> None:
    """The second serving of a sample gets other random numbers, the same ones in every run."""

    def run() -> list[tuple[int, float]]:
        loader, _ = two_level(echo=2, transform=lambda x, y, rng: (np.float32(rng.random()), y))
        return [(int(n), float(v)) for x, y in loop(loader) for v, n in zip(x, y, strict=True)]

    drawn = run()
    assert len(set(drawn)) == len({value for _, value in drawn}) == 2 * SAMPLES
    assert run() == drawn


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
    two_level: Any, raw_files: list[str], workers: Any, on_error: str, transform: Any
) -> None:
    """Skipped and replaced samples are the same ones, bit for bit, as without RAM batches."""
    options = {"on_error": on_error, "transform": transform, "workers": workers}
    loader, reads = two_level(**options)
    other = plain(raw_files, **options)
    reads.broken = other.decode.broken = {0, 6, 7}
    batches, errors = outcome(loader)
    assert (batches, errors) == outcome(other)
    assert [index for index, _, _ in errors] == ([0, 6, 7] if not transform else [0, 6, 7, 13])
    arrived = [int(number) for _, y in batches for number in y]
    assert not {0, 6, 7} & set(arrived)
    assert len(arrived) == (2 * SAMPLES if on_error == "replace" else 2 * SAMPLES - 2 * len(errors))


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_on_error_where_all_samples_are_resident(two_level: Any, on_error: str) -> None:
    """A broken file is tried once, and left out or replaced for good."""
    loader, reads = two_level(ram_budget="1MB", on_error=on_error)
    reads.broken = {6}
    arrived = Counter(samples(loop(loader, 3)))
    assert 6 not in arrived
    assert all(count % 3 == 0 for count in arrived.values())
    assert arrived.total() == 3 * (SAMPLES if on_error == "replace" else SAMPLES - 1)
    assert reads.numbers.count(6) == 1
    assert [error.index for error in loader.errors] == [6]


def test_an_error_names_the_sample_and_is_tried_again(two_level: Any) -> None:
    """A file that fails in a RAM batch read ahead is named in its turn, and mended, goes on."""
    loader, reads = two_level(draw="windows", shuffle=False, workers=1)
    reads.broken = {13}
    loader.on_epoch_begin()
    before = [numbers_of(loader[k][0]) for k in range(2)]
    assert before == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(kl.SampleError, match=r"sample 13 .*13\.raw.*the content is spoilt"):
        [loader[k] for k in (2, 3)]
    reads.broken.clear()
    after = [numbers_of(loader[k][0]) for k in range(2, 6)]
    assert list(itertools.chain(*before, *after)) == list(range(SAMPLES))


@pytest.mark.parametrize("odd", [[13], [12, 13, 14, 15]], ids=["one", "a whole batch"])
def test_samples_of_different_shape_in_a_ram_batch(
    raw_files: list[str], keep: Any, odd: list[int]
) -> None:
    """Both files and shapes are named, whether one sample differs or all of a batch do."""

    class Odd(kl.RamBatchSequenceLoader):
        def load_sample(self, path: str) -> Any:
            row = np.fromfile(path, "<f4")
            return np.resize(row, 3) if row[0] in odd else row

    loader = keep(Odd(raw_files, None, BATCH, ram_batch_size=SAMPLES, shuffle=False))
    with pytest.raises(ValueError) as caught:
        list(loop(loader))
    said = str(caught.value)
    assert raw_files[odd[0]] in said
    assert "(3,)" in said
    assert "(2,)" in said
    assert any(path in said for k, path in enumerate(raw_files) if k not in odd)
    assert "load_sample()" in said


# ---------------------------------------------------------------- transforms


@DRAWS
@WORKERS
def test_a_sample_draws_as_in_any_loader(
    two_level: Any, raw_files: list[str], draw: str, workers: Any
) -> None:
    """One seed, epoch and sample give one draw, with RAM batches as without."""

    def drawn(loader: Any) -> list[dict[int, float]]:
        batches = list(loop(loader, 2))
        rows = [[(int(n), float(v)) for x, y in part for v, n in zip(x, y, strict=True)]
                for part in (batches[: len(loader)], batches[len(loader) :])]  # fmt: skip
        return [dict(part) for part in rows]

    def transform(x: Any, y: Any, rng: np.random.Generator) -> Any:
        return np.float32(rng.random()), y

    loader, _ = two_level(draw=draw, workers=workers, transform=transform)
    with plain(raw_files, transform=transform) as other:
        assert drawn(loader) == drawn(other)


def test_a_transform_cannot_spoil_what_is_in_ram(two_level: Any) -> None:
    """A transform may write to its x: the next epoch sees the sample as it is stored."""

    def spoil(x: Any, y: Any, rng: Any) -> Any:
        was = x.copy()
        x[...] = -1
        return was, y

    loader, reads = two_level(ram_budget="1MB", transform=spoil)
    reads.clear()
    assert sorted(samples(loop(loader, 3))) == sorted([*range(SAMPLES)] * 3)


@pytest.mark.parametrize("half", [False, True])
def test_the_kernel_is_told_what_comes_next(
    raw_files: list[str], monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    """Of a disk that is waited for, parts behind those that the threads are at; each file once."""
    told: list[str] = []
    monkeypatch.setattr("kloaders.formats.files.read_ahead", told.append)
    monkeypatch.setattr("kloaders.engine.ram_batches._WAITING", -1)
    loader = kl.RamBatchSequenceLoader(
        raw_files, None, BATCH, ram_batch_size=RAM, decode=Reads(), shuffle=False, workers=1
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
    assert set(told) < set(raw_files[: loader.samples] if not half else raw_files)
    assert len(told) >= loader.samples // 2


def test_close_while_a_ram_batch_is_awaited(two_level: Any) -> None:
    """Who waits for a RAM batch when another thread closes the loader gets the batch all the same."""
    loader, reads = two_level(workers=1, shuffle=False)
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
