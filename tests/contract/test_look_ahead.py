"""How much work is done, and when: RAM batches read once, batches loaded ahead of the model."""

from __future__ import annotations

import threading

import keras
import numpy as np
import pytest

import kloaders as kl
from tests.support.assertions import assert_exact, assert_planned, in_storage_order, samples_of
from tests.support.batches import loop
from tests.support.kinds import BATCH, array, labels
from tests.support.marks import SHUFFLES, scenario
from tests.support.recording import row_of
from tests.support.training import Call, fit, model_for


class CountingRamLoader(kl.RamBatchSequenceLoader):
    """Counts how often each file is read."""

    def __init__(self, paths, *args, **options):
        self.reads = dict.fromkeys(paths, 0)
        self.reads_lock = threading.Lock()
        super().__init__(paths, *args, **options)

    def load_sample(self, path):
        with self.reads_lock:
            self.reads[path] += 1
        return np.fromfile(path, "<f4")


@scenario("each RAM batch is read once per epoch")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("chosen", ["windows", "global"])
def test_locality(files, keep, chosen, shuffle, callback):
    """Under fit's default shuffle a two-level loader reads each RAM batch once an epoch."""
    model, received = model_for()
    loader = keep(
        CountingRamLoader(
            files.raw, labels(24), BATCH, ram_batch_size=8, draw=chosen, shuffle=shuffle, seed=3
        )
    )
    epochs = 4
    ours = [kl.LoaderCallback(loader)] if callback else []
    fit(model, loader, epochs=epochs, callbacks=ours)
    found = assert_exact(received.trained, loader, passes=epochs)
    # An epoch that begins in order has read RAM batches in storage order before it is shuffled:
    # the first one, what was read ahead after it, and what the epoch before had read ahead.
    in_order = sum(one[0] == in_storage_order(loader)[0] for one in found)
    extra = 4 * in_order if shuffle is None else 0
    # Without the callback one is prefetched for an epoch that never starts.
    extra += not callback
    assert 3 * epochs <= loader.ram_batches_read <= 3 * epochs + extra
    # Beside the RAM batches: a first look at sample 0, and the batches 0 and 1 that Keras probes.
    assert sum(loader.reads.values()) <= 8 * loader.ram_batches_read + 2 * BATCH + 2
    assert min(loader.reads.values()) >= epochs


@pytest.mark.parametrize("chosen", ["windows", "global"])
def test_data_that_fit_are_read_once(files, keep, chosen):
    """A RAM batch that holds all samples is read once, for all epochs."""
    model, received = model_for()
    loader = keep(
        CountingRamLoader(files.raw, labels(24), BATCH, ram_batch_size=24, draw=chosen, seed=3)
    )
    fit(model, loader, epochs=3)
    assert_exact(received.trained, loader, passes=3)
    assert loader.ram_batches_read == 1
    assert sum(loader.reads.values()) <= 24 + 2 * BATCH + 2


def test_echo(files, keep):
    """echo=2 serves each sample twice an epoch, from RAM batches that are read once."""
    model, received = model_for()
    loader = keep(CountingRamLoader(files.raw, labels(24), BATCH, ram_batch_size=8, echo=2, seed=3))
    assert len(loader) == 12
    fit(model, loader, epochs=2, callbacks=[kl.LoaderCallback(loader)])
    numbers = samples_of(received.trained)
    for epoch in (numbers[:48], numbers[48:]):
        assert sorted(epoch) == sorted([*range(24), *range(24)])
    assert loader.ram_batches_read == 6


class Watched(kl.SequenceLoader):
    """Counts requested and started batches; a test can wait for a count."""

    def __init__(self, *args, **options):
        self.changed = threading.Condition()
        self.asked, self.begun, self.most_ahead = 0, [], 0
        super().__init__(*args, **options)

    def __getitem__(self, index):
        with self.changed:
            self.asked += 1
        return super().__getitem__(index)

    def load_sample(self, index):
        with self.changed:
            self.begun.append(index)
            ahead = -(-len(self.begun) // self.batch_size) - self.asked
            self.most_ahead = max(self.most_ahead, ahead)
            self.changed.notify_all()
        threading.Event().wait(0.001)  # as long as reading a small file may take
        return row_of(index), np.float32(index)

    def ready(self):
        """Read the shape of a sample now, so that this does not count as a started batch."""
        assert self.sample_spec
        self.begun.clear()
        self.most_ahead = 0
        return self

    def ahead(self):
        return len(self.begun) // self.batch_size - self.asked

    def wait_until_ahead(self, batches):
        with self.changed:
            assert self.changed.wait_for(lambda: self.ahead() >= batches, timeout=30), (
                f"{self.ahead()} batches were begun ahead of the request, expected {batches}"
            )


@scenario("batches are prefetched while the model computes")
@pytest.mark.parametrize("workers", [None, 1, 2])
def test_look_ahead_under_fit(keep, workers):
    """While a step runs, later batches are started: counted, not timed.

    test_speedup in Keras' py_dataset_adapter_test.py times the same.
    """
    model, received = model_for()
    loader = keep(Watched(40, BATCH, shuffle=True, seed=1, workers=workers).ready())
    # No matter how long the step takes, there is something ready for the next one.
    step = Call(lambda model: loader.wait_until_ahead(2), "on_train_batch_end")
    fit(model, loader, epochs=2, callbacks=[step])
    assert_planned(assert_exact(received.trained, loader, passes=2), loader, epochs=[0, 1])


@pytest.mark.parametrize("depth", [1, 3])
def test_look_ahead_is_bounded(keep, depth):
    """Never more than max_queue_size batches are begun ahead of the one asked for."""
    loader = keep(Watched(40, BATCH, shuffle=True, seed=1, workers=2, max_queue_size=depth).ready())
    loader.on_epoch_begin()
    for index in range(len(loader)):
        loader[index]
        loader.wait_until_ahead(depth)
    assert loader.most_ahead == depth


def test_no_look_ahead_without_threads(keep):
    """workers=0 loads in the caller's thread, and only what is asked for."""
    loader = keep(Watched(40, BATCH, seed=1, workers=0).ready())
    list(loop(loader))
    assert loader.most_ahead <= 0
    assert len(loader.begun) == 40
    assert not loader.runner.running().workers.alive


@scenario("the first batches of the next epoch are prefetched during validation")
@pytest.mark.parametrize(
    ("shuffle", "told"),
    [(None, {}), (True, {}), (None, {"shuffle": False}), (False, {"shuffle": False})],
    ids=["None", "True", "None, fit(shuffle=False)", "False"],
)
def test_next_epoch_is_prefetched_during_validation(keep, make, shuffle, told):
    """When validation begins, the first batches of the next epoch are on their way.

    In storage order only a callback knows that the pass is not one of predict.
    """
    model, _ = model_for()
    loader = keep(Watched(20, BATCH, shuffle=shuffle, seed=1, workers=2).ready())
    seen = []

    def validation(logs=None):
        if len(seen) == 0:
            loader.wait_until_ahead(1)
        seen.append(1)

    waiting = keras.callbacks.Callback()
    waiting.on_test_begin = validation
    ours = [kl.LoaderCallback(loader)] if told else []
    fit(model, loader, epochs=2, validation_data=make(array), callbacks=[*ours, waiting], **told)
    assert len(seen) == 2
