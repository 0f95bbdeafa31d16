"""`for batch in loader` is an epoch."""

import contextlib
import json
import threading

import numpy as np
import pytest

import kloaders as kl
from kloaders.keras_api.iteration import iterate
from kloaders.keras_api.tickets import Tickets
from tests.support.recording import numbers_of, recording_model, row_of
from tests.support.scripts import run_program

SAMPLES, BATCH, BATCHES = 23, 4, 6
SHUFFLES = [None, True, False]

scenario = pytest.mark.scenario


class Numbers(kl.SequenceLoader):
    """Samples that are their number; one fails while `broken` is set."""

    broken = False

    def load_sample(self, index):
        if self.broken and index == 13:
            raise OSError("Expected exception")
        return row_of(index), np.float32(index)


@pytest.fixture
def make(keep, tmp_path):
    """make(kind, **options) -> a loader of 23 samples."""
    rows = np.stack([row_of(k) for k in range(SAMPLES)])
    labels = np.arange(SAMPLES, dtype=np.float32)
    paths = [str(tmp_path / f"{k:02}.npy") for k in range(SAMPLES)]
    for path, row in zip(paths, rows, strict=True):
        np.save(path, row)

    def _make(kind="array", **options):
        options = {"seed": 7, **options}
        if kind == "array":
            return keep(kl.ArraySequenceLoader(rows, labels, BATCH, **options))
        if kind == "ram":
            return keep(
                kl.RamBatchSequenceLoader(paths, labels, BATCH, ram_batch_size=8, **options)
            )
        return keep(Numbers(SAMPLES, BATCH, **options))

    return _make


def planned(loader, epoch, shuffle=True):
    order = loader.plan.shuffled_order(epoch) if shuffle else loader.plan.storage_order(epoch)
    return [loader.plan.indices(order, k).tolist() for k in range(len(loader))]


def epoch_of(loader):
    return [numbers_of(x) for x, _ in loader]


@scenario("for batch in loader")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("kind", ["array", "ram", "own"])
def test_each_iteration_is_the_next_epoch(make, kind, shuffle, workers):
    loader = make(kind, shuffle=shuffle, workers=workers)
    for epoch in range(3):
        assert epoch_of(loader) == planned(loader, epoch, shuffle)


@scenario("for batch in loader, between two fits")
def test_iterations_and_fits_take_turns(make):
    loader = make(shuffle=True)
    model, received = recording_model()
    for epoch in (0, 2):
        assert epoch_of(loader) == planned(loader, epoch)
        received.clear()
        model.fit(loader, verbose=0)
        assert received.trained == planned(loader, epoch + 1)


def test_a_transform_draws_anew(make):
    loader = make(transform=lambda x, y, rng: (x + rng.random(x.shape, np.float32), y))
    first, second = [[x for x, _ in loader] for _ in range(2)]
    assert all(np.all(a != b) for a, b in zip(first, second, strict=True))


@scenario("state_dict() in a loop over the loader, and resuming there")
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("stop", range(1, BATCHES + 1))
def test_the_position_in_the_body(make, stop, shuffle):
    """The position is after the current batch; another loader resumes with the rest of the epoch."""
    loader = make(shuffle=shuffle, workers=2)
    found = []
    for x, _ in loader:
        found.append(numbers_of(x))
        if len(found) == stop:
            state = json.loads(json.dumps(loader.state_dict()))
            break
    assert loader.state_dict() == state
    again = make(shuffle=shuffle)
    again.load_state_dict(state)
    if stop < BATCHES:
        assert found + epoch_of(again) == planned(loader, 0, shuffle)
    assert epoch_of(again) == planned(loader, 1, shuffle)


def test_after_a_break(make):
    """The position is still known, loader[i] is batch i, and the next iteration is the next epoch."""
    loader = make(shuffle=True)
    for number, _ in enumerate(loader):
        if number == 2:
            break
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, 3)
    assert [numbers_of(loader[k][0]) for k in (4, 0)] == [planned(loader, 1)[k] for k in (4, 0)]
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, 3)
    assert epoch_of(loader) == planned(loader, 1)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (2, 0)


def test_after_an_error_in_the_body(make):
    loader = make(shuffle=True)
    with contextlib.suppress(KeyError):
        for _ in loader:
            raise KeyError
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, 1)
    assert numbers_of(loader[0][0]) == planned(loader, 1)[0]


def test_after_an_error_of_the_loader(make):
    """The batch that failed was not delivered: the position is before it."""
    loader = make("own")
    loader.broken = True
    found = []

    def run():
        for x, _ in loader:
            found.append(numbers_of(x))

    with pytest.raises(kl.SampleError, match="index 13"):
        run()
    loader.broken = False
    again = make("own")
    again.load_state_dict(loader.state_dict())
    assert found + epoch_of(again) == planned(loader, 0, None)


def test_fit_after_a_break(make):
    loader = make(shuffle=True)
    for _ in loader:
        break
    model, received = recording_model()
    model.fit(loader, verbose=0)
    assert received.trained == planned(loader, 1)


def test_a_collection_may_end_an_iteration_anywhere():
    """Even in a thread that holds the lock of the tickets: there is no deadlock."""
    tickets = Tickets(3, True)

    class Bare:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return tickets.locate(index).batch

        def on_epoch_begin(self):
            tickets.begin()

        def on_epoch_end(self):
            tickets.end()

    iterator = iterate(Bare(), tickets)
    assert next(iterator) == 0

    def collect():
        with tickets._lock:
            iterator.close()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert list(iterate(Bare(), tickets)) == [0, 1, 2]


# ---------------------------------------------------------------- two at a time


def test_an_iterator_may_be_left_open_when_the_program_ends():
    """The interpreter closes it when the modules are empty already."""
    program = (
        "import numpy as np, kloaders as kl\n"
        "batches = iter(kl.ArraySequenceLoader(np.zeros(8), None, 2))\n"
        "next(batches)"
    )
    ended = run_program(program)
    assert ended.returncode == 0, ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_nested_iterations_are_refused(make):
    loader = make()

    def run():
        for _ in loader:
            list(loader)

    with pytest.raises(RuntimeError, match=r"loader\.view\(\)"):
        run()


def test_two_iterators_are_refused(make):
    loader = make()
    with pytest.raises(RuntimeError, match=r"loader\.view\(\)"):
        list(zip(loader, loader, strict=True))


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_keras_in_the_body_is_refused(make, method):
    loader = make()
    model, _ = recording_model()
    done = []

    def run():
        for _ in loader:
            getattr(model, method)(loader, verbose=0)
            done.append(True)

    with pytest.raises(RuntimeError, match=r"loader\.view\(\)"):
        run()
    assert done == [True]


def test_views_may_be_nested(make):
    loader = make(shuffle=True)
    found = []
    for x, _ in loader:
        found.append(numbers_of(x))
        assert epoch_of(loader.view()) == planned(loader, 0)
    assert found == planned(loader, 0)


# ---------------------------------------------------------------- hooks and warnings


def test_hooks_of_a_subclass_are_honoured(keep):
    called = []

    class Own(Numbers):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + 100, y

        def on_epoch_begin(self):
            called.append("begin")
            super().on_epoch_begin()

        def on_epoch_end(self):
            called.append("end")
            super().on_epoch_end()

    loader = keep(Own(SAMPLES, BATCH, seed=7))
    for _ in range(2):
        found = [numbers_of(x - np.float32([100, 0])) for x, _ in loader]
        assert found == planned(loader, 0, None)
        assert {int(x[0, 0]) // 100 for x, _ in [loader[0]]} == {1}
    assert called == ["begin", "end"] * 2


def test_an_epoch_that_was_begun_by_hand_is_served(make):
    """on_epoch_begin() before the loop and on_epoch_end() after it change nothing."""
    loader = make(shuffle=True)
    for epoch in range(3):
        loader.on_epoch_begin()
        assert epoch_of(loader) == planned(loader, epoch)
        loader.on_epoch_end()


@pytest.mark.parametrize(
    "options",
    [
        {"epoch_batches": 7},
        {"class_balance": np.arange(SAMPLES) % 2},
        {"sampling_weights": np.arange(SAMPLES) + 1},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("loop", ["iteration", "by hand", "predict"])
def test_rows_that_do_not_line_up_are_a_matter_of_predict(make, options, loop, caplog):
    caplog.set_level("INFO", "kloaders")
    loader = make(**options)
    for _ in range(2):
        if loop == "iteration":
            list(loader)
        elif loop == "by hand":
            loader.on_epoch_begin()
            assert len([loader[k] for k in range(len(loader))]) == len(loader)
            loader.on_epoch_end()
        else:
            recording_model()[0].predict(loader, verbose=0)
    assert any("rows do not line up" in said for said in caplog.messages) is (loop == "predict")
