"""From a number to arrays as they are delivered: a pure function of seed, epoch, number and draw."""

import pickle

import numpy as np
import pytest

from kloaders.core.options import TransformOptions
from kloaders.core.rows import Rows
from kloaders.plan.rng import Moment
from kloaders.sources.pipeline import SamplePipeline
from tests.support.sources import Numbered


def doubled(x, y, rng):
    return 2 * x, 2 * y


def noisy(x, y, rng):
    return x + rng.random(2, np.float32), y


def without_labels(x, y, rng):
    return x, None


def pipeline_of(transform=None, source=None, **options):
    return SamplePipeline(source or Numbered(9), TransformOptions(transform=transform), **options)


def filled(pipeline, indices, moment=None, raw=False):
    arrays = [np.zeros((len(indices), 2), np.float32), np.zeros(len(indices), np.int64)]
    reports = []
    pipeline.fill(
        np.array(indices),
        Rows((None, None), arrays),
        lambda *found: reports.append(found),
        moment or Moment(),
        raw,
    )
    return arrays, reports


def test_samples_are_transformed_unless_they_are_asked_for_raw():
    pipeline = pipeline_of(doubled)
    assert pipeline.sample(4, Moment())[1] == 8
    assert pipeline.sample(4, Moment(), raw=True)[1] == 4
    for raw, expected in ((False, [8, 2, 8]), (True, [4, 1, 4])):
        (x, y), reports = filled(pipeline, [4, 1, 4], raw=raw)
        assert (x[:, 0].tolist(), y.tolist(), reports) == (expected, expected, [])


def test_without_a_transform_the_source_fills():
    (_, y), _ = filled(pipeline_of(), [4, 1])
    assert y.tolist() == [4, 1]
    assert not pipeline_of().runs_user_code
    assert pipeline_of(doubled).runs_user_code


@pytest.mark.parametrize(
    "change", [{"seed": 6}, {"moment": Moment(1)}, {"moment": Moment(0, 1)}, {"index": 4}]
)
def test_random_numbers_follow_from_seed_epoch_number_and_draw(change):
    """And from nothing else: whoever asks, in whatever order, gets the same."""
    index, moment = change.get("index", 3), change.get("moment", Moment())
    first = pipeline_of(noisy, seed=5).sample(3, Moment())[0] - 3
    again = pipeline_of(noisy, seed=5)
    again.sample(1, Moment())
    np.testing.assert_array_equal(again.sample(3, Moment())[0] - 3, first)
    other = pipeline_of(noisy, seed=change.get("seed", 5)).sample(index, moment)[0] - index
    assert not np.allclose(other, first)


def test_rows_are_as_single_samples():
    """A sample that comes twice in a batch is drawn twice."""
    pipeline = pipeline_of(noisy, seed=5)
    (x, _), _ = filled(pipeline, [3, 3, 7], Moment(2, np.array([0, 1, 0])))
    expected = [pipeline.sample(k, Moment(2, draw))[0] for k, draw in ((3, 0), (3, 1), (7, 0))]
    np.testing.assert_array_equal(x, expected)


def test_a_failure_is_reported_with_its_row():
    """One of the source, and one of the transform."""

    def picky(x, y, rng):
        if y == 2:
            raise LookupError("not two")
        return doubled(x, y, rng)

    pipeline = pipeline_of(picky, Numbered(9, broken=[5]))
    (_, y), reports = filled(pipeline, [1, 5, 2, 3])
    assert [(row, str(error)) for row, error in reports] == [
        (1, "number 5 is broken"),
        (2, "not two"),
    ]
    assert y[[0, 3]].tolist() == [2, 6]


def test_a_transform_may_drop_labels_and_nothing_else():
    assert len(pipeline_of(without_labels).sample(1, Moment())) == 1
    with pytest.raises(TypeError, match=r"transform returned a ndarray, expected a tuple \(x, y\)"):
        pipeline_of(lambda x, y, rng: x).sample(1, Moment())


def test_the_form_of_a_sample():
    pipeline = pipeline_of(lambda x, y, rng: ({"a": x[:1]}, y))
    x, y = pipeline.look(0, raw=False)
    assert (x["a"].shape, y.shape) == ((1,), ())
    assert pipeline.look(0, raw=True)[0].shape == (2,)


# ---------------------------------------------------------------- inputs as labels


def test_inputs_are_labels():
    class OfX(Numbered):
        def read(self, index):
            return super().read(index)[0]

    seen = []

    def transform(x, y, rng):
        seen.append(x is y)
        return -x, y

    x, y = pipeline_of(transform, OfX(3), inputs_as_labels=True).sample(2, Moment())
    assert (x.tolist(), y.tolist(), seen) == ([-2, -2], [2, 2], [True])
    pipeline = pipeline_of(source=OfX(3), inputs_as_labels=True)
    (x,) = pipeline.sample(2, Moment())
    twin = pipeline.twin((x,))
    assert twin[0] is twin[1] is x
    assert pipeline_of().twin((x,)) == (x,)


# ---------------------------------------------------------------- whole batches


def batch_pipeline(function, **options):
    return SamplePipeline(Numbered(9), TransformOptions(batch_transform=function), **options)


def batch(rows=3):
    return np.arange(2.0 * rows).reshape(rows, 2), np.arange(rows)


def test_a_batch_is_transformed_with_numbers_of_its_own():
    def shuffled(x, y, rng):
        return x + rng.random(), y * 2

    pipeline = batch_pipeline(shuffled, seed=4)
    x, y = pipeline.batch_transformed(batch(), 1, 2, np.arange(4))
    assert y.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(pipeline.batch_transformed(batch(), 1, 2, np.arange(4))[0], x)
    others = [
        pipeline.batch_transformed(batch(), 2, 2, np.arange(4)),
        pipeline.batch_transformed(batch(), 1, 3, np.arange(4)),
        batch_pipeline(shuffled, seed=4, part=1).batch_transformed(batch(), 1, 2, np.arange(4)),
        batch_pipeline(shuffled, seed=5).batch_transformed(batch(), 1, 2, np.arange(4)),
    ]
    assert len({float(x[0, 0]), *(float(other[0][0, 0]) for other in others)}) == 5


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (
            lambda x, y, rng: (x[:2], y),
            ValueError,
            r"returned x of shape \(2, 2\) for a batch of 3",
        ),
        (lambda x, y, rng: (x, y.sum()), ValueError, r"returned y of shape \(\) for a batch of 3"),
        (lambda x, y, rng: ({"a": x[0]}, y), ValueError, r"returned x\['a'\] of shape"),
        (lambda x, y, rng: x, TypeError, "batch_transform returned a ndarray"),
        (lambda x, y, rng: 1 / 0, RuntimeError, "failed for batch 2 of epoch 1, with 3 samples"),
    ],
)
def test_a_batch_transform_that_does_not_give_a_batch(function, error, message):
    with pytest.raises(error, match=message):
        batch_pipeline(function).batch_transformed(batch(), 1, 2, np.arange(4))


def test_workers_do_not_get_what_transforms_whole_batches():
    """It runs in the first process, and need not pickle."""
    options = TransformOptions(transform=doubled, batch_transform=lambda x, y, rng: (x, y))
    worker = pickle.loads(pickle.dumps(SamplePipeline(Numbered(9), options, 3).for_worker()))
    assert worker.transforms.batch_transform is None
    assert worker.sample(4, Moment())[1] == 8


@pytest.mark.parametrize(
    ("transform", "raw", "leaf", "words"),
    [
        (doubled, False, 0, "Let transform= return"),
        (doubled, True, 0, "in the hook or in transform="),
        (None, False, 0, "in the hook or in transform="),
        (None, False, 1, "Give labels of one shape"),
    ],
)
def test_advice_is_for_what_made_the_array(transform, raw, leaf, words):
    assert words in pipeline_of(transform).advice(2, leaf, False, raw, inputs=1)
