"""Batches are the same bits on every request and for any number of workers, and share no memory."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

import kloaders as kl
from kloaders.plan.rng import sample_rng
from tests.support.assertions import assert_exact, assert_planned
from tests.support.batches import digest, leaves, loop
from tests.support.drawing import draw_number
from tests.support.kinds import (
    BATCH,
    FEW,
    KINDS,
    SAMPLES,
    array,
    by_batch,
    by_index,
    kinds,
    labels,
    npy,
    ram_global,
    ram_windows,
)
from tests.support.marks import SHUFFLES, scenario
from tests.support.recording import numbers_of
from tests.support.training import model_for


@pytest.mark.parametrize("shuffle", SHUFFLES)
@kinds(KINDS)
def test_batch_i_twice_is_the_same_batch(make, kind, shuffle):
    """loader[i] outside an epoch, and inside one, is the same batch when asked again."""
    loader = make(kind, shuffle=shuffle)
    order = [2, 0, 1, 0, 2]
    outside = [digest([loader[i]]) for i in order]
    assert outside[1] == outside[3]
    assert outside[0] == outside[4]
    loader.on_epoch_begin()
    inside = [digest([loader[i]]) for i in order]
    assert inside[1] == inside[3]
    assert inside[0] == inside[4]
    assert len(set(inside)) == 3


@kinds(KINDS)
def test_hand_written_loop(make, kind):
    """on_epoch_begin, loader[i], on_epoch_end: exact, and a new order each epoch."""
    loader = make(kind, shuffle=True)
    batches = [numbers_of(x) for x, _ in loop(loader, epochs=3)]
    found = assert_exact(batches, loader, passes=3)
    assert_planned(found, loader, epochs=[0, 1, 2])


@kinds(KINDS)
def test_no_aliasing(make, kind):
    """Writing into one batch changes no other, nor what the loader serves later."""
    loader = make(kind)
    expected = [digest([loader[i]]) for i in range(3)]
    batches = [loader[i] for i in range(3)]
    for leaf in leaves(batches[0]):
        leaf[...] = 99
    assert [digest([batches[i]]) for i in (1, 2)] == expected[1:]
    assert [digest([loader[i]]) for i in range(3)] == expected


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["array", "ram"])
def test_a_held_batch_is_never_overwritten(keep, tmp_path, kind, workers):
    """Memory of large batches is reused, but never while a batch is still referenced."""
    n, size = 12, 40_000
    x = np.repeat(np.arange(n, dtype=np.float32), size).reshape(n, size)
    if kind == "array":
        loader = kl.ArraySequenceLoader(x, labels(n), BATCH, workers=workers)
    else:
        paths = [str(tmp_path / f"{i}.npy") for i in range(n)]
        for path, row in zip(paths, x, strict=True):
            np.save(path, row)
        loader = kl.RamBatchSequenceLoader(
            paths, labels(n), BATCH, ram_batch_size=BATCH, workers=workers
        )
    keep(loader)
    held, dropped = [], 0
    for k, batch in enumerate(loop(loader, epochs=6)):
        if k % 2:
            held.append((batch, digest([batch])))
            # A view, or a tensor over the memory, holds it as well as the array itself.
            if k % 4 == 1:
                held[-1] = ((batch[0][1:3],), digest([(batch[0][1:3],)]))
        else:
            dropped += 1
        del batch
    assert dropped
    for batch, expected in held:
        assert digest([batch]) == expected


@kinds(KINDS)
def test_shuffle_changes_order_only(make, kind):
    """A shuffled epoch has the same samples, bit for bit, as an unshuffled one."""

    def samples(shuffle):
        batches = list(loop(make(kind, shuffle=shuffle)))
        found = {}
        for x, y in batches:
            for row, number in zip(x, y, strict=True):
                found[int(number)] = (row.dtype.str, row.tobytes())
        return [int(number) for _, y in batches for number in y], found

    (plain, stored), (shuffled, drawn) = samples(shuffle=False), samples(shuffle=True)
    assert stored == drawn
    assert plain != shuffled


@kinds(KINDS)
def test_pickles(make, kind):
    """An unpickled loader gives the same batches, epoch after epoch."""
    loader = make(kind, shuffle=True)
    list(loop(loader))
    copy = pickle.loads(pickle.dumps(loader))
    fresh = make(kind, shuffle=True)
    assert digest(loop(copy, epochs=2)) == digest(loop(fresh, epochs=2))
    copy.close()


def augment(x, y, rng):
    """A transform that draws integers and fractions."""
    return x + rng.integers(0, 100) + rng.random(x.shape, np.float32), y


# The order and the random numbers are a promise: trainings are repeated on other machines, with
# other versions. Changing this constant breaks them.
GOLDEN = {
    "array": "f924ef15c9873fb7117af9545b48f0ef6296b11eccf22d2260b70f7ac209bd86",
    "ram_windows": "879340379f8f9f6fc3c23b253b4d4b8cbf90376c07180666762cab5e46838536",
    "ram_global": "f924ef15c9873fb7117af9545b48f0ef6296b11eccf22d2260b70f7ac209bd86",  # one order, whether RAM batches are cut from it or not
}


@scenario("the same batches for any number of workers")
@pytest.mark.parametrize("workers", [0, 1, 2, 8, None])
@kinds(FEW)
def test_order_does_not_depend_on_the_machinery(make, kind, workers):
    """Batches with random transforms are the same bits for any number of threads, everywhere."""
    loader = make(kind, shuffle=True, transform=augment, workers=workers)
    found = digest(loop(loader, epochs=2))
    assert found == GOLDEN["array" if kind in (npy, by_index) else kind.__name__]


@scenario("the same random numbers in fit, for any number of threads or processes")
@pytest.mark.parametrize(
    ("workers", "processes"),
    [(0, False), (1, False), (2, False), (8, False), (1, True), (2, True), (8, True)],
    ids=["inline", "1 thread", "2 threads", "8 threads", "1 process", "2 processes", "8 processes"],
)
@kinds([npy, ram_global])
def test_random_numbers_under_fit(make, kind, workers, processes):
    """Random numbers in the model's batches depend on seed, epoch and sample number only."""
    model, received = model_for()
    loader = make(kind, shuffle=True, transform=draw_number, workers=workers, processes=processes)
    with warnings.catch_warnings():
        model.fit(loader, epochs=2, verbose=0)
    drawn = [
        [int(sample_rng(7, epoch, index).integers(2**20)) for index in indices.tolist()]
        for epoch in range(2)
        for indices in (
            loader.plan.indices(loader.plan.shuffled_order(epoch), batch) for batch in range(3)
        )
    ]
    assert received.trained == drawn


def draw(x, y, rng):
    return np.float32(rng.random()), y


@kinds([array, npy, ram_windows, by_batch])
def test_transform_draws_anew_each_epoch(make, kind):
    """A sample gets other random numbers in the next epoch, and no two samples the same."""
    loader = make(kind, shuffle=True, transform=draw)
    batches = list(loop(loader, epochs=2))
    drawn = [
        {int(n): float(v) for x, y in epoch for v, n in zip(x, y, strict=True)}
        for epoch in (batches[:3], batches[3:])
    ]
    assert len({*drawn[0].values(), *drawn[1].values()}) == 2 * SAMPLES
    again = list(loop(make(kind, shuffle=True, transform=draw), epochs=2))
    assert digest(again) == digest(batches)
