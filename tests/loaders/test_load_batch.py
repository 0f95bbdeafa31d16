"""`load_batch` is called for whole batches, several of them at the same time; never for a cut of one."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import recording_model

BATCH, BATCHES = 8, 41
SAMPLES = BATCH * BATCHES


class Sized(kl.SequenceLoader):
    """The number of each sample, and as its label for how many samples the call was."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sizes: list[int] = []
        self.change = threading.Condition()
        self.together = self.most = 0
        self.wanted = 1

    def load_batch(self, indices: Any) -> Any:
        with self.change:
            self.sizes.append(len(indices))
            if len(indices) == 1:  # what one sample looks like
                return self.batch(indices)
            self.together += 1
            self.most = max(self.most, self.together)
            self.change.notify_all()
            # Until as many are under way at the same time; after that nobody waits.
            self.change.wait_for(lambda: self.most >= self.wanted, 30)
        try:
            return self.batch(indices)
        finally:
            with self.change:
                self.together -= 1

    def batch(self, indices: Any) -> Any:
        return indices.astype("f4"), np.full(len(indices), len(indices))


class PicklableSized(kl.SequenceLoader):
    """The same without the notes, for worker processes."""

    def load_batch(self, indices: Any) -> Any:
        return indices.astype("f4"), np.full(len(indices), len(indices))


def one_by_one(seed: int) -> list[list[int]]:
    """The batches of the first epoch, as `load_sample` gives them."""

    class OneByOne(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return index

    with OneByOne(SAMPLES, BATCH, shuffle=True, seed=seed, workers=0) as loader:
        return [x.tolist() for x in loader.epoch_batches(0)]


def epoch(loader: Any) -> tuple[list[list[int]], set[int]]:
    """The batches of an epoch, and the sizes of the calls that they came from."""
    batches = list(loader)
    sizes = {int(size) for _, y in batches for size in y}
    return [x.astype(int).tolist() for x, _ in batches], sizes


@pytest.mark.parametrize("workers", [0, 1, 4, None])
def test_a_call_is_for_a_whole_batch(workers: int | None) -> None:
    loader = Sized(SAMPLES, BATCH, workers=workers, shuffle=True, seed=1)
    batches, sizes = epoch(loader)
    loader.close()
    assert batches == one_by_one(seed=1)
    assert sizes == {BATCH}
    calls = Counter(loader.sizes)
    assert calls.pop(1) == 1  # what one sample looks like
    assert set(calls) == {BATCH}
    # Of the next epoch some batches are begun, as far as the look-ahead goes.
    assert BATCHES <= calls[BATCH] <= BATCHES + loader.max_queue_size + 1


def test_four_workers_make_four_batches_at_the_same_time() -> None:
    loader = Sized(SAMPLES, BATCH, workers=4)
    loader.wanted = 4
    epoch(loader)
    loader.close()
    assert loader.most == 4


class Columns(Sized):
    """The number twice, as the model of these tests wants it."""

    def batch(self, indices: Any) -> Any:
        x, y = super().batch(indices)
        return np.stack([x, x], axis=1), y


def test_fit_gets_whole_calls() -> None:
    model, received = recording_model()
    loader = Columns(SAMPLES, BATCH, workers=4)
    model.fit(loader, epochs=2, verbose=0)
    loader.close()
    assert sorted(n for batch in received.trained for n in batch) == sorted([*range(SAMPLES)] * 2)
    assert Counter(loader.sizes)[1] == 1
    assert set(loader.sizes) == {1, BATCH}


def test_a_short_last_batch_is_one_call() -> None:
    loader = PicklableSized(3 * BATCH + 3, BATCH, workers=4)
    assert [y.tolist() for _, y in loader] == [[BATCH] * BATCH] * 3 + [[3] * 3]
    loader.close()


@pytest.mark.slow
def test_worker_processes_get_whole_batches() -> None:
    loader = PicklableSized(5 * BATCH, BATCH, workers=2, processes=True)
    batches, sizes = epoch(loader)
    loader.close()
    assert sizes == {BATCH}
    assert sorted(itertools.chain(*batches)) == list(range(5 * BATCH))


def test_an_epoch_resumes_with_the_same_whole_batches() -> None:
    loader = Sized(SAMPLES, BATCH, workers=4, shuffle=True, seed=5)
    iterator = iter(loader)
    head = [next(iterator) for _ in range(17)]
    state = loader.state_dict()
    again = Sized(SAMPLES, BATCH, workers=2, shuffle=True, seed=5)
    again.load_state_dict(state)
    batches, sizes = epoch(again)
    assert sizes == {BATCH}
    assert [x.astype(int).tolist() for x, _ in head] + batches == one_by_one(seed=5)
    loader.close()
    again.close()


class Broken(Sized):
    """One of its samples does not load."""

    def batch(self, indices: Any) -> Any:
        if 13 in indices:
            raise OSError("13 is broken")
        return super().batch(indices)


def test_the_sample_at_fault_is_found_by_calls_of_one_index() -> None:
    loader = Broken(5 * BATCH, BATCH, workers=4, on_error="skip", shuffle=False)
    batches, _ = epoch(loader)
    loader.close()
    assert batches[1] == [8, 9, 10, 11, 12, 14, 15]
    assert [error.index for error in loader.errors] == [13]
    # One look, four batches that load, and the samples of the fifth one by one.
    assert Counter(loader.sizes)[BATCH] >= 5
    raised = Broken(5 * BATCH, BATCH, workers=4, shuffle=False)
    with pytest.raises(kl.SampleError, match="13 is broken"):
        epoch(raised)
    raised.close()


@pytest.mark.parametrize("workers", [0, 3])
def test_ram_batches_are_read_by_whole_batches(workers: int, tmp_path: Any) -> None:
    sizes: list[int] = []

    class Read(kl.RamBatchSequenceLoader):
        def load_batch(self, indices: Any) -> Any:
            sizes.append(len(indices))
            return indices.astype("f4")

    paths = [tmp_path / f"{k}.npy" for k in range(6 * BATCH)]
    for path in paths:
        path.touch()
    loader = Read(paths, None, BATCH, ram_batch_size=3 * BATCH, workers=workers)
    seen = sorted(int(n) for x in loader for n in (x[0] if isinstance(x, tuple) else x))
    loader.close()
    assert seen == list(range(6 * BATCH))
    assert set(sizes) <= {1, BATCH}
    assert Counter(sizes)[1] <= 3  # how many bytes samples have


def test_preload_reads_by_whole_batches() -> None:
    loader = Sized(3 * BATCH, BATCH)
    ready = kl.preload(loader)
    assert {int(size) for _, y in ready for size in y} == {BATCH}
    assert set(loader.sizes) == {1, BATCH}


def test_a_mixture_asks_each_loader_once_for_a_batch() -> None:
    """Its samples are apart in the batch, and still come by one call."""
    one, other = (
        PicklableSized(40, BATCH),
        kl.ArraySequenceLoader(np.arange(40, dtype="f4"), np.zeros(40, int)),
    )
    mixed = kl.mix([one, other], batch_size=BATCH, seed=1)
    for x, y in mixed:
        of_one = y > 0
        assert len(x) == BATCH
        assert set(y[of_one].tolist()) <= {int(of_one.sum())}
    mixed.close()


def test_a_mixture_finds_the_sample_at_fault() -> None:
    one, other = (
        Broken(40, BATCH),
        kl.ArraySequenceLoader(np.arange(100.0, 140.0, dtype="f4"), np.zeros(40, int)),
    )
    mixed = kl.mix([one, other], batch_size=BATCH, seed=1, on_error="skip")
    seen = {int(n) for x, _ in mixed for n in x}
    mixed.close()
    assert seen == {*range(40), *range(100, 140)} - {13}
    assert [error.index for error in mixed.errors] == [13]
