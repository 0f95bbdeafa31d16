"""The bookkeeping of requests, with recorded requests of Keras and with random ones."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kloaders.keras_api.tickets import Request, Tickets
from kloaders.plan.epoch import Order
from tests.support.recorded_keras import (
    KERAS,
    assert_exact,
    batches_in,
    make,
    passes,
    replay,
    unknown,
)
from tests.support.threads import in_threads

CASES = [pytest.param(*key, id=f"{key[1]}, {key[0]}".replace(" ", "_")) for key in KERAS]
SHUFFLES = [None, True, False]


@pytest.mark.parametrize("callback", [False, True], ids=["alone", "callback"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize(("version", "name"), CASES)
def test_every_batch_once_a_pass_in_what_keras_was_seen_to_ask(version, name, shuffle, callback):
    """The batches that were trained on make exact passes, one epoch after another."""
    if name == "evaluated in fit" and not callback:
        pytest.skip("an evaluate inside an epoch looks like a new fit; only a callback can tell")
    if name == "validated on 2 steps" and callback:
        pytest.skip("the callbacks recorded there are those of another loader's fit")
    tickets, plan = make(batches_in(name), shuffle)
    at_once = 3 if name == "3 steps at once" else 1
    calls = replay(KERAS[version, name], tickets, callback=callback, at_once=at_once)
    epochs = []
    for call in calls:
        for stream in passes(call.trained, plan.batches):
            assert_exact(stream, plan)
            epochs.append(stream[0].order.epoch)
            # An evaluate in mid-epoch takes some of the tickets: the same batches, in another order.
            if shuffle is not False and name != "evaluated in fit":
                assert [r.batch for r in stream] == list(range(len(stream)))
            if shuffle is True:
                assert {r.order for r in stream} == {Order(epochs[-1], 0)}
        for reads in call.inferred:
            assert_exact([request for _, request in reads], plan)
            if shuffle is not True and name != "evaluated in fit":
                # Predictions line up with the data.
                assert all(r == Request(Order(r.order.epoch, 4), i, r.sequential) for i, r in reads)
    first = 2 if name == "initial epoch 2" and callback else 0
    assert epochs == sorted(set(epochs)), "an epoch's order came twice"
    # Evaluations and predictions take an epoch's number each, which only a callback can tell.
    elsewhere = ("evaluated", "predicted", "predicted before built")
    if name not in elsewhere and (callback or name != "validated on itself"):
        assert epochs == list(range(first, first + len(epochs)))


@pytest.mark.parametrize("version", sorted({version for version, _ in KERAS}))
def test_unshuffled_fit_gets_storage_order(version):
    """fit(shuffle=False) on a loader with shuffle=None is served as stored, epoch after epoch."""
    tickets, _ = make(4, None)
    (call,) = replay(KERAS[version, "not shuffled"], tickets)
    assert [r.batch for r in call.trained] == [0, 1, 2, 3] * 2
    assert [r.order for r in call.trained] == [Order(0, 4)] * 4 + [Order(1, 4)] * 4


@pytest.mark.parametrize("version", sorted({version for version, _ in KERAS}))
def test_index_is_honoured_where_the_user_says_so(version):
    """shuffle=False serves batch i for index i under a permuting fit, and notes that it was."""
    events = KERAS[version, "two epochs"]
    tickets, _ = make(4, False)
    (call,) = replay(events, tickets)
    asked = [int(event.rstrip("t*")) for event in events if event.endswith("*")]
    assert [r.batch for r in call.trained] == asked
    assert tickets.permuted


def test_two_level_loader_keeps_its_order():
    """by_index=False serves storage order whatever fit's permutation asks for."""
    tickets = Tickets(4, False, by_index=False, asker=unknown)
    (call,) = replay(KERAS["3.15.1 torch", "two epochs"], tickets)
    assert [r.batch for r in call.trained] == [0, 1, 2, 3] * 2
    assert all(r.order.head == 4 for r in call.trained)


def test_recordings_cover_what_is_promised():
    """Every recorded Keras has every scenario, save steps_per_execution, which torch refuses."""
    names = {name for _, name in KERAS}
    for version in {version for version, _ in KERAS}:
        missing = names - {name for v, name in KERAS if v == version}
        assert missing == ({"3 steps at once"} if version.endswith("torch") else set())
    assert {v.split()[0] for v, _ in KERAS} == {"3.8.0", "3.15.1"}


def test_a_late_read_after_a_fit_is_no_loop():
    """TensorFlow reads batches 0 and 1 before a fit, and may request batch 2 after its end."""
    tickets = Tickets(6, None, asker=unknown)
    assert [tickets.locate(k).sequential for k in (0, 1)] == [False, False]
    tickets.end()
    tickets.fit_begin(1)
    tickets.epoch_begin(0, 6)
    tickets.begin()
    tickets.locate(4)
    tickets.fit_end()
    assert not tickets.locate(2).sequential
    assert [tickets.locate(k).sequential for k in (0, 1, 2)] == [False, False, True]


# ---------------------------------------------------------------- what Keras might do


class Simulated:
    """Keras as far as a Sequence can see it, with every choice drawn at random."""

    def __init__(self, draw, batches, *, style, reads_first_len=3):
        self.draw, self.batches, self.style = draw, batches, style
        self.events = []
        self.built = False
        self.lens = ["#"] * reads_first_len
        self.t = "t" if style == "tensorflow" else ""  # where batches are asked for
        self.late = []  # reads that an abandoned tf.data iterator may still do

    def pick(self, low, high):
        return self.draw(st.integers(low, high))

    def order(self, shuffled):
        order = list(range(self.batches))
        return self.draw(st.permutations(order)) if shuffled else order

    def probe(self, *, ends):
        """What happens before the first epoch."""
        self.events += self.lens[:2]
        if self.style == "tensorflow":
            self.events += self.lens[2:]
            found = ["0", "1"][: self.batches]
            for late in self.late:
                found.insert(self.pick(0, len(found)), late)
            self.late = []
            self.events += [*found, "#", *(["E"] if ends else [])]
        elif not self.built:
            first = self.pick(0, self.batches - 1)
            self.events += ["B", "#", "#", str(first), "#", "E"]
        else:
            self.events += self.lens[2:] + (["E"] if ends else [])
        self.built = True

    def fit(self, epochs, steps=None, *, shuffled=True, stop=None, validate=False):
        self.events.append("|")
        self.probe(ends=True)
        left, fresh, early = [], True, []
        validated = False
        for epoch in range(epochs):
            self.events.append("B")
            if fresh:
                left, fresh = self.open(shuffled)
            taken, early = len(early), []
            while taken < (steps or self.batches):
                if not left and steps is not None and taken:
                    break
                if not left:
                    break
                self.events.append(f"{left.pop(0)}{self.t}*")
                taken += 1
                if stop is not None and taken == stop:
                    ahead = left[: self.pick(0, 2)] if self.style == "tensorflow" else []
                    kept = self.pick(0, len(ahead))
                    self.events += [f"{index}t" for index in ahead[:kept]]
                    self.late = [f"{index}t" for index in ahead[kept:]]
                    return
            if not left:
                # torch and jax look whether there is more; TensorFlow may find out later.
                if self.style != "tensorflow":
                    self.events.append("#")
                fresh = True
            self.events.append("E")
            if self.style == "tensorflow" and left:
                # The thread that prefetches may be slower than the main thread's E.
                most = min(self.pick(0, 2), len(left), steps or self.batches)
                used = "*" if epoch < epochs - 1 else ""
                early = [f"{left.pop(0)}t{used}" for _ in range(most)]
                self.events += early
            if validate:
                if validated:
                    self.events += ["#", "E"]
                else:
                    self.probe(ends=True)
                validated = True
                self.infer_pass()

    def open(self, shuffled):
        self.events += [f"#{self.t}"] * 2
        return self.order(shuffled), False

    def infer_pass(self, steps=None):
        self.events += ["B", f"#{self.t}", f"#{self.t}"]
        asked = min(steps or self.batches, self.batches)
        self.events += [f"{index}{self.t}v" for index in range(asked)]
        if self.style != "tensorflow" and steps is None:
            self.events.append("#")
        self.events.append("E")

    def infer(self, steps, *, ends):
        self.events.append("|")
        self.probe(ends=ends)
        self.infer_pass(steps)


@st.composite
def programs(draw):
    """A user's calls on one loader, as events."""
    batches = draw(st.integers(1, 6))
    style = draw(st.sampled_from(["tensorflow", "other"]))
    keras = Simulated(draw, batches, style=style, reads_first_len=draw(st.integers(2, 3)))
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["fit", "fit", "stopped", "evaluate", "predict"]))
        if kind == "fit":
            steps = draw(st.none() | st.integers(1, batches + 2))
            keras.fit(draw(st.integers(1, 4)), steps, shuffled=draw(st.booleans()))
        elif kind == "stopped":
            keras.fit(1, stop=draw(st.integers(1, batches)))
        else:
            steps = draw(st.none() | st.integers(1, batches))
            keras.infer(steps, ends=kind == "evaluate")
    return batches, keras.events


@given(program=programs(), shuffle=st.sampled_from(SHUFFLES))
def test_any_program_of_calls_is_exact(program, shuffle):
    """Fits, stopped fits, evaluations and predictions in any order keep every pass exact."""
    batches, events = program
    tickets, plan = make(batches, shuffle)
    for call in replay(events, tickets):
        for stream in passes(call.trained, batches):
            assert_exact(stream, plan)
        for reads in call.inferred:
            assert_exact([request for _, request in reads], plan)
            if shuffle is not True:
                assert all(r.batch == i and r.order.head == batches for i, r in reads)


@given(program=programs())
def test_no_order_comes_twice(program):
    """A training pass always has the order of a new epoch, after any other calls."""
    batches, events = program
    tickets, _ = make(batches, True)
    calls = replay(events, tickets)
    streams = [stream for call in calls for stream in passes(call.trained, batches)]
    epochs = [stream[0].order.epoch for stream in streams]
    assert epochs == sorted(set(epochs))


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_a_read_may_come_between_two_epochs(shuffle):
    """With steps_per_epoch below the length, TensorFlow's thread may ask after on_epoch_end.

    This batch is trained on in the next epoch, so it belongs to the continuing pass.
    """
    events = "| # # # 0 1 # E B #t #t 3t* 1t* E 2t* B 4t* 0t* E B #t #t 2t* 0t* E 1t* 3t* B 4t* E"
    tickets, plan = make(5, shuffle)
    (call,) = replay(events.split(), tickets)
    for stream in passes(call.trained, 5):
        assert_exact(stream, plan)


def test_stop_at_the_last_step_of_an_epoch():
    """Keras skips on_epoch_end in this case, too; the next two fits get different orders.

    Found by test_no_order_comes_twice.
    """
    events = "| # # # E B # # 0* 1* 2* | # # # E B # # 1* | # # # E B # # 2* 0* 1* # E"
    tickets, _ = make(3, True)
    epochs = [call.trained[0].order.epoch for call in replay(events.split(), tickets)]
    assert epochs == [0, 1, 2]


@given(
    order=st.integers(1, 8).flatmap(lambda n: st.permutations(range(n))),
    again=st.lists(st.integers(0, 7)),
    shuffle=st.sampled_from(SHUFFLES),
    seed=st.integers(0, 99),
)
def test_an_index_asked_again_is_the_same_batch(order, again, shuffle, seed):
    """In one epoch any mixture of new and repeated indices gives each its own batch, for good."""
    tickets, plan = make(len(order), shuffle)
    tickets.begin()
    asked = list(order)
    for repeat in again:
        asked.insert(random.Random(seed).randrange(len(asked)), repeat % len(order))
    found = {}
    for index in asked:
        request = tickets.locate(index)
        samples = plan.indices(request.order, request.batch).tolist()
        assert found.setdefault(index, samples) == samples
    assert sorted(n for samples in found.values() for n in samples) == list(range(plan.samples))


@given(order=st.integers(1, 9).flatmap(lambda n: st.permutations(range(n))))
def test_an_epoch_that_begins_in_order_stays_exact(order):
    """shuffle=None serves the in-order start as stored, and shuffles exactly what remains."""
    tickets, plan = make(len(order), None)
    tickets.begin()
    tickets.starting()
    requests = [tickets.locate(index) for index in order]
    head = next((k for k, index in enumerate(order) if k != index), len(order))
    assert [r.batch for r in requests] == list(range(len(order)))
    assert all(r.order.head == len(order) for r in requests[:head])
    assert all(r.order == Order(0, head) for r in requests[head:])
    assert_exact(requests, plan)


# ---------------------------------------------------------------- loops written by hand


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_hand_written_loop_with_both_hooks(shuffle):
    """on_epoch_begin, loader[i] in order, on_epoch_end: a new exact epoch each time."""
    tickets, plan = make(3, shuffle)
    for epoch in range(3):
        tickets.begin()
        requests = [tickets.locate(index) for index in range(3)]
        tickets.end()
        assert_exact(requests, plan)
        assert {r.order for r in requests} == {Order(epoch, 0 if shuffle else 3)}


@pytest.mark.parametrize("reads_len", [False, True], ids=["plain", "num_batches_read"])
def test_hand_written_loop_left_early(reads_len):
    """A loop that breaks starts a new pass at its next on_epoch_begin."""
    tickets, plan = make(4, True)
    for epoch in range(3):
        tickets.begin()
        if reads_len:
            tickets.starting()
        requests = [tickets.locate(index) for index in range(2)]
        tickets.end()
        assert [(r.batch, r.order.epoch) for r in requests] == [(0, epoch), (1, epoch)]
        assert_exact(requests, plan)


def test_hand_written_loop_that_fails_begins_anew():
    """A loop that raised, without on_epoch_end, resumes with the batches it had not requested."""
    tickets, plan = make(4, True)
    tickets.begin()
    tickets.locate(0), tickets.locate(1)
    tickets.begin()
    requests = [tickets.locate(index) for index in range(4)]
    tickets.end()
    assert_exact(requests, plan)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_hand_written_loop_without_begin(shuffle):
    """loader[i] and on_epoch_end alone, as in Keras 2: every epoch exact, and a new order."""
    tickets, plan = make(3, shuffle)
    for epoch in range(3):
        requests = [tickets.locate(index) for index in range(3)]
        tickets.end()
        assert_exact(requests, plan)
        assert {r.order for r in requests} == {Order(epoch, 0 if shuffle else 3)}


def test_loop_by_index_alone_repeats_one_epoch():
    """Without any hook, loader[i] is always batch i of the coming epoch."""
    tickets, _ = make(3, True)
    first = [tickets.locate(index) for index in (2, 0, 1)]
    again = [tickets.locate(index) for index in (2, 0, 1)]
    assert [(r.order, r.batch) for r in first] == [(r.order, r.batch) for r in again]
    assert [r.batch for r in first] == [2, 0, 1]


def test_a_look_at_a_batch_does_not_use_up_an_epoch():
    """x, y = loader[0] before fit leaves the order of the fit as it was."""
    events = KERAS["3.15.1 tensorflow", "two epochs"]
    plain, looked = make(4, True)[0], make(4, True)[0]
    looked.locate(0)
    assert replay(events, plain)[0].trained == replay(events, looked)[0].trained


def test_many_threads_get_different_batches():
    """Eight concurrent threads get eight batches, since TensorFlow reads from several threads."""
    tickets, plan = make(8, True)
    tickets.begin()
    tickets.starting()
    gate, found = threading.Barrier(8), {}

    def ask(index):
        gate.wait()
        found[index] = tickets.locate(index)

    in_threads(ask, 8)
    assert_exact(list(found.values()), plan)


# ---------------------------------------------------------------- what a callback tells


def test_callback_sets_the_epoch_of_a_restored_run():
    """epoch_begin(5) means the order of epoch 5, in every fit that starts later than 0."""
    for version in ("3.15.1 jax", "3.15.1 tensorflow", "3.8.0 torch"):
        tickets, _ = make(4, True)
        (call,) = replay(KERAS[version, "initial epoch 2"], tickets, callback=True)
        assert [r.order.epoch for r in call.trained] == [2] * 4 + [3] * 4


def test_callback_counts_a_second_fit_on():
    """A second fit from epoch 0 does not repeat the orders of the first."""
    tickets, _ = make(4, True)
    calls = replay(KERAS["3.15.1 jax", "three fits"], tickets, callback=True)
    assert [call.trained[0].order.epoch for call in calls] == [0, 1, 2]
