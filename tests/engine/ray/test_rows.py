"""What an actor does with the pipeline that it holds, without Ray."""

import pickle

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.rows import RowMismatch
from kloaders.engine.ray import rows
from kloaders.plan.rng import Moment
from tests.engine.processes.hooks import fails_at_19, grows, noisy

SAMPLES = np.arange(30)


def job(transform, indices, stored=None):
    loader = kl.ArraySequenceLoader(
        SAMPLES[:, None].repeat(3, 1), SAMPLES, 8, seed=4, transform=transform
    )
    runner = loader.runner
    form = runner.specs.delivered
    needs = [
        ((len(indices), 3), np.dtype(np.float64)),
        ((len(indices),), np.dtype(np.int64)),
    ]
    job = pickle.dumps((np.array(indices), needs, form, Moment(), False))
    pieces, troubles, seconds = rows.fill(runner.pipeline, job, stored)
    assert seconds > 0
    arrays = [np.full(shape, 77, dtype) for shape, dtype in needs]
    for array, found in zip(arrays, pieces, strict=True):
        rows.put_pieces(found, array)
    return arrays, troubles


def test_rows_are_those_of_the_samples():
    (x, y), troubles = job(noisy, [3, 7])
    assert not troubles
    assert np.floor(x[:, 0]).tolist() == [3, 7]
    assert (y % 1 == 0).all()


def test_remote_objects_are_fetched_at_once(monkeypatch):
    """A batch is announced before a transform takes its samples one by one, unless they are there."""
    announced, held, seen = [], [], []

    class Claim:
        def release(self):
            held.remove(self)

    def fetch_ahead(source, indices):
        announced.append(indices.tolist())
        held.append(Claim())
        return held[:]

    def sees(x, y, rng):
        seen.append(bool(held))
        return noisy(x, y, rng)

    monkeypatch.setattr(source_of_arrays(), "fetch_ahead", fetch_ahead)
    assert not job(sees, [3, 7])[1]
    assert announced == [[3, 7]]
    assert seen == [False, True, True]  # the first, for its shape, is not of the batch
    assert not held
    leaves = [np.array([[3, 3, 3]]), np.array([3])]
    job(noisy, [3], (kl.ArraySequenceLoader(leaves[0], leaves[1], 8).runner.specs.raw, leaves))
    assert announced == [[3, 7]]


def source_of_arrays():
    return type(kl.ArraySequenceLoader(SAMPLES, SAMPLES, 8).runner.pipeline.source)


@pytest.mark.parametrize("row_bytes", [0, 1, 2**18, 2**20, 2**20 + 1])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_arrays_come_in_pieces_that_ray_copies_in_place(count, row_bytes):
    """Whole rows of at most 1 MiB, unless one row is larger, and nothing of them copied."""
    array = np.arange(count * row_bytes, dtype=np.uint8).reshape(count, row_bytes)
    pieces = rows._pieces(array)
    assert all(piece.nbytes <= 2**20 or len(piece) == 1 for piece in pieces)
    assert all(np.shares_memory(piece, array) for piece in pieces if piece.size)
    found = np.full_like(array, 99)
    rows.put_pieces(pieces, found)
    np.testing.assert_array_equal(found, array)


def test_stored_samples_are_transformed_only():
    """The same numbers as when they are read: they follow from the sample, not from the row."""
    read, _ = job(noisy, [3, 7])
    loader = kl.ArraySequenceLoader(SAMPLES[:, None].repeat(3, 1), SAMPLES, 8)
    form = loader.runner.specs.raw
    leaves = [np.array([[3, 3, 3], [7, 7, 7]]), np.array([3, 7])]
    given, troubles = job(noisy, [3, 7], (form, leaves))
    assert not troubles
    for a, b in zip(read, given, strict=True):
        np.testing.assert_array_equal(a, b)


def test_troubles_cross():
    """Each with its row: an error with its file, or an array that does not fit."""
    _, troubles = job(fails_at_19, [18, 19, 20])
    (row, error), *others = [rows.trouble_of(t) for t in troubles if t[1] is None]
    assert row == 1
    assert not others
    assert "no such class" in str(error)
    _, troubles = job(grows, [0, 9])
    assert all(isinstance(rows.trouble_of(t)[1], RowMismatch) for t in troubles)


def test_look():
    loader = kl.ArraySequenceLoader(SAMPLES, SAMPLES, 8, transform=fails_at_19)
    pipeline = loader.runner.pipeline
    well, spec = rows.look(pipeline, 3, False)
    assert well
    assert spec[0].shape == ()
    well, packed = rows.look(pipeline, 19, False)
    assert not well
    assert "no such class" in str(rows.trouble_of((0, None, packed))[1])
