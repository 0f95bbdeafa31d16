"""No memory leaks: unreferenced loaders, stopped and failed fits, many fits."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

import kloaders as kl
from tests.support.assertions import samples_of
from tests.support.batches import digest, loop
from tests.support.kinds import (
    BATCH,
    SAMPLES,
    Flaky,
    IndexLoader,
    array,
    kinds,
    labels,
    npy,
    png,
    ram_windows,
    rows,
)
from tests.support.marks import TF, scenario
from tests.support.recording import numbers_of, our_threads, wait_for_device
from tests.support.training import Call, Interrupted, Stop, fit, model_for, sound_model

# The first one waits until all that other tests left is gone.
pytestmark = pytest.mark.timeout(220)


def handles():
    return len(os.listdir("/proc/self/fd"))


def narrow(x, y, rng):
    """4 MB of data, of which the model sees two numbers per sample."""
    return x[:, :2], y


def wide_array(n=SAMPLES):
    x = np.zeros((n, 100_000), np.float32)
    x[:, :2] = rows(n)
    return x


@scenario("an unreferenced loader is garbage collected, except small objects")
@pytest.mark.parametrize("callback", [False, True], ids=["", "callback"])
def test_a_forgotten_loader_is_collected(nothing_running, callback):
    """After del and gc a fitted loader is freed, except small objects that TensorFlow keeps."""
    model, _ = model_for()

    def train():
        x = wide_array()
        loader = kl.ArraySequenceLoader(x, labels(SAMPLES), BATCH, batch_transform=narrow)
        callbacks = [kl.LoaderCallback(loader)] if callback else []
        fit(model, loader, validation_data=loader, callbacks=callbacks)
        model.evaluate(loader, verbose=0)
        model.predict(loader, verbose=0)
        wait_for_device()
        return weakref.ref(loader), weakref.ref(x)

    loader, x = train()
    gc.collect()
    for thread in our_threads():
        thread.join(30)
    assert not our_threads()
    gc.collect()
    assert x() is None, "4 MB of data outlive the loader"
    if TF:
        kept = loader()
        assert kept is None or not vars(kept), "TensorFlow keeps more than an empty object"
    else:
        assert loader() is None


@kinds([ram_windows, png])
def test_a_forgotten_loader_of_files_is_collected(files, nothing_running, kind):
    """Paths, RAM batches and batches made ahead go with the loader that was stopped in mid-epoch."""
    model, _ = model_for(kind)
    loader = kind(files, SAMPLES)
    fit(model, loader, epochs=2, callbacks=[Stop(1)])
    wait_for_device()
    gone, paths = weakref.ref(loader), weakref.ref(loader.paths)
    del loader
    for thread in our_threads():  # one may just be making a batch
        thread.join(30)
    gc.collect()
    assert paths() is None
    assert gone() is None or not vars(gone())


def test_a_loader_that_only_fit_holds_is_not_taken_for_a_forgotten_one(files):
    """Full collections in mid-fit leave a loader alone that was made in the call."""
    model, received = model_for()
    collect = [
        Call(lambda _: gc.collect(), when) for when in ("on_train_batch_end", "on_epoch_end")
    ]
    fit(model, array(files, SAMPLES), epochs=3, callbacks=collect)
    assert sorted(samples_of(received.trained)) == sorted([*range(SAMPLES)] * 3)


@pytest.mark.parametrize("holder", ["closure", "dict", "attribute"])
def test_a_loader_that_somebody_holds_is_not_taken_for_a_forgotten_one(files, holder):
    """The same for references in other places."""
    model, _ = model_for()

    def held():
        loader = array(files, SAMPLES)
        fit(model, loader)
        match holder:
            case "closure":
                return lambda: loader
            case "dict":
                return {"loader": loader}.copy
            case _:
                return SimpleNamespace(loader=loader)

    kept = held()
    wait_for_device()
    gc.collect()
    match holder:
        case "closure":
            loader = kept()
        case "dict":
            loader = kept()["loader"]
        case _:
            loader = kept.loader
    assert len(loader[0]) == 2


def test_an_unpickled_or_unused_loader_leaves_nothing(files, nothing_running):
    """A loader that was only indexed is collected, threads and all."""
    loader = npy(files, SAMPLES, workers=2)
    list(loop(loader))
    gone = weakref.ref(loader)
    del loader
    gc.collect()
    assert gone() is None
    for thread in our_threads():
        thread.join(30)
    assert not our_threads()


@scenario("no threads or open files are left after five stopped fits")
@pytest.mark.parametrize("how", ["callback", "close", "forgotten"])
@kinds([npy, ram_windows])
def test_nothing_left_after_stopped_fits(files, nothing_running, kind, how):
    """Five fits stopped in mid-epoch leave no thread and no open file."""
    model, _ = model_for()
    fit(model, array(files, 19))
    gc.collect()
    before = handles(), len(our_threads())
    loader = None
    for _ in range(5):
        loader = kind(files, 19, workers=2)
        ours = [kl.LoaderCallback(loader)] if how == "callback" else []
        fit(model, loader, epochs=2, callbacks=[Stop(1), *ours])
        if how == "close":
            loader.close()
        # On TensorFlow what is left of the fit may ask for one more batch after that.
        if how != "forgotten" and not TF:
            assert not our_threads()
    del loader, ours
    gc.collect()
    for thread in our_threads():
        thread.join(30)
    assert (handles(), len(our_threads())) <= before


@scenario("LoaderCallback frees batches and RAM batches at the end of training")
@pytest.mark.parametrize("stopped", [False, True], ids=["finished", "stopped"])
@kinds([npy, ram_windows])
def test_callback_frees_at_train_end(make, kind, stopped):
    """Memory that only training needs is freed after fit, although the loader stays."""
    model, _ = model_for()
    loader = make(kind, 23, workers=2)
    stop = [Stop(1)] if stopped else []
    for _ in range(3):
        fit(model, loader, epochs=2, callbacks=[kl.LoaderCallback(loader), *stop])
        gc.collect()  # ends TensorFlow's iterator over the loader
        assert loader.runner.engine is None
        if kind is ram_windows:
            assert not loader.runner._windows


def _fail(model):
    raise Interrupted


def _press_ctrl_c(model):
    signal.raise_signal(signal.SIGINT)


@scenario("no threads are left after an exception or Ctrl-C")
@pytest.mark.parametrize("end", [_fail, _press_ctrl_c], ids=["exception", "Ctrl-C"])
@kinds([npy, ram_windows])
def test_nothing_left_after_an_exception(files, nothing_running, kind, end):
    """A with block frees the threads, whatever ended the fit inside it."""
    model, _ = model_for()
    over = contextlib.suppress(Interrupted, KeyboardInterrupt)
    with over, kind(files, 19, workers=2) as loader:
        fit(model, loader, callbacks=[Call(end, "on_train_batch_end", 1)])
    sound_model()
    gc.collect()
    if TF:  # what is left of the fit may ask for one more batch after the block
        for thread in our_threads():
            thread.join(30)
    assert not our_threads()


@scenario("memory does not grow over 30 fits")
@pytest.mark.parametrize("forgotten", [False, True], ids=["one loader", "a new loader each"])
def test_memory_over_30_fits(nothing_running, forgotten):
    """30 fits of 8 MB: where each left its data or a batch behind, 100 MB or more would be gone."""
    model, _ = model_for()
    x = wide_array(20)
    loader = None
    resident = []
    for _ in range(35):
        if loader is None or forgotten:
            loader = kl.ArraySequenceLoader(
                x.copy() if forgotten else x, labels(20), 5, batch_transform=narrow
            )
        fit(model, loader)
        wait_for_device()
        if forgotten:
            loader = None
            gc.collect()
        resident.append(psutil.Process().memory_info().rss)
    grown = np.median(resident[-5:]) - np.median(resident[5:10])  # after warming up
    assert grown < 40e6, f"{grown / 1e6:.0f} MB more after 25 fits"


@pytest.mark.parametrize("end", ["forgotten", "closed"])
def test_data_go_without_a_collection(nothing_running, end):
    """A script with a loader for each fit holds the data of one or two, whenever Python collects."""
    model, _ = model_for()
    fit(model, kl.ArraySequenceLoader(rows(20), labels(20), 5))  # TensorFlow's own first things
    gc.collect()
    alive, found = [], []
    gc.disable()
    try:
        for _ in range(6):
            x = rows(20).copy()
            alive.append(weakref.ref(x))
            loader = kl.ArraySequenceLoader(x, labels(20), 5)
            del x
            fit(model, loader)
            if end == "closed":
                loader.close()
                del loader
                wait_for_device()
            found.append(sum(one() is not None for one in alive))
    finally:
        gc.enable()
    assert max(found) <= (2 if end == "forgotten" else 1), found


def test_a_loader_is_closed_in_mid_fit(nothing_running):
    """By a callback, where Keras still reads from it: all samples come, once an epoch."""
    model, received = model_for()
    loader = kl.ArraySequenceLoader(rows(20), labels(20), 5)
    fit(
        model, loader, epochs=2, callbacks=[Call(lambda _: loader.close(), "on_train_batch_end", 1)]
    )
    assert sorted(samples_of(received.trained)) == sorted([*range(20)] * 2)


def test_an_error_met_ahead_is_not_kept(keep):
    """A batch that failed while it was made ahead is tried again when it is asked for."""
    loader = keep(Flaky(12, BATCH, shuffle=False, workers=1))
    loader.on_epoch_begin()
    loader[0]
    (job,) = [job for (_, batch), job in loader.runner.engine._ahead.items() if batch == 2]
    with pytest.raises(kl.SampleError):  # batch 2 holds the sample that does not load
        job.wait()
    loader.broken = False
    assert numbers_of(loader[1][0]) == [4, 5, 6, 7]
    assert numbers_of(loader[2][0]) == [8, 9, 10, 11]


def test_close_while_a_batch_is_awaited(keep):
    """close() from another thread, as at the end of a fit on TensorFlow, leaves no thread waiting."""
    started, go = threading.Event(), threading.Event()

    class Slow(IndexLoader):
        def load_sample(self, index):
            if index == 1:
                started.set()
                go.wait(30)
            return super().load_sample(index)

    loader = keep(Slow(4, 1, workers=1, shuffle=False))
    loader.on_epoch_begin()
    loader[0]
    ended = []

    def ask(index):
        with contextlib.suppress(Exception):  # an error is fine, a hang is not
            loader[index]
        ended.append(index)

    first = threading.Thread(target=ask, args=(1,), daemon=True)
    first.start()
    assert started.wait(30)
    second = threading.Thread(target=ask, args=(2,), daemon=True)  # queued behind the first
    second.start()
    engine = loader.runner.engine
    while len(engine.workers._state.soon) + len(engine._ahead) < 2:
        threading.Event().wait(0.01)
    closing = threading.Thread(target=loader.close, daemon=True)
    closing.start()
    while loader.runner.engine is engine:
        threading.Event().wait(0.01)
    go.set()
    for thread in (closing, first, second):
        thread.join(10)
    assert sorted(ended) == [1, 2]


def test_a_closed_loader_can_be_used_again(make):
    """close() frees memory, and the next epoch runs as usual."""
    loader, other = make(npy, shuffle=True, workers=2), make(npy, shuffle=True, workers=2)
    found = []
    for _ in range(3):
        found += list(loop(loader))
        loader.close()
    assert digest(found) == digest(loop(other, epochs=3))
