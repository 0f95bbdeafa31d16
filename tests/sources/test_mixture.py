"""Samples of several pipelines under one numbering, each as its own pipeline delivers it."""

import numpy as np

from kloaders.core.options import TransformOptions
from kloaders.core.rows import RowMismatch, Rows
from kloaders.plan.rng import Moment
from kloaders.sources.mixture import MixtureSource
from kloaders.sources.pipeline import SamplePipeline
from kloaders.sources.source import Source
from tests.support.sources import Numbered, steps_of

SIZES = (3, 1, 4)


def plus(more):
    def transform(x, y, rng):
        return x + more, y + more

    return TransformOptions(transform=transform)


def noise(x, y, rng):
    return rng.random(2, np.float32), y


def mixed(*pipelines):
    return MixtureSource(list(pipelines))


def three(**changes):
    """Sizes 3, 1 and 4; numbers of the second from 100, of the third from 200."""
    sources = [Numbered(size, **changes) for size in SIZES]
    mixture = mixed(
        SamplePipeline(sources[0]),
        SamplePipeline(sources[1], plus(100)),
        SamplePipeline(sources[2], plus(200)),
    )
    return mixture, sources


EXPECTED = [0, 1, 2, 100, 200, 201, 202, 203]


def filled(source, indices, moment=None):
    arrays = [np.zeros((len(indices), 2), np.float32), np.zeros(len(indices), np.int64)]
    reports = []
    source.fill(
        np.array(indices),
        Rows((None, None), arrays),
        lambda *found: reports.append(found),
        moment or Moment(),
    )
    return arrays, reports


def test_samples_are_numbered_one_source_after_another():
    mixture, _ = three()
    assert len(mixture) == sum(SIZES)
    assert [int(mixture.sample(k, Moment())[1]) for k in range(len(mixture))] == EXPECTED


def test_rows_go_to_their_pipelines_in_any_order():
    mixture, sources = three()
    indices = [7, 0, 3, 4, 5, 1, 1, 6]
    (x, y), reports = filled(mixture, indices)
    assert reports == []
    assert y.tolist() == x[:, 0].tolist() == [EXPECTED[k] for k in indices]
    assert [source.reads for source in sources] == [[0, 1, 1], [0], [3, 0, 1, 2]]


def test_no_rows_are_none():
    mixture, sources = three()
    (x, _), reports = filled(mixture, np.zeros(0, np.int64))
    assert (x.shape, reports) == ((0, 2), [])
    assert [source.reads for source in sources] == [[], [], []]


def test_a_failure_has_its_row_in_the_batch_and_its_name():
    mixture, _ = three(broken=[2])
    (_, y), reports = filled(mixture, [3, 0, 6, 2, 1])
    assert [(row, str(error)) for row, error in reports] == [
        (2, "number 2 is broken"),
        (3, "number 2 is broken"),
    ]
    assert y[[0, 1, 4]].tolist() == [100, 0, 1]
    assert mixture.name(6) == "index 2"


def test_a_row_that_does_not_fit_keeps_its_row_in_the_batch():
    mixture, _ = three(make=lambda k: steps_of(k, 3 if k == 2 else 2))
    _, reports = filled(mixture, [3, 4, 6])
    assert [(row, type(error), error.row) for row, error in reports] == [(2, RowMismatch, 2)]


def test_random_numbers_are_those_of_the_sample_in_its_own_source():
    """As the loaders alone would draw them: by their seed, their numbering, the epoch and the draw."""
    options = TransformOptions(transform=noise)
    alone = SamplePipeline(Numbered(4), options, seed=8)
    mixture = mixed(SamplePipeline(Numbered(3), options, seed=5), alone)
    moment = Moment(2, np.array([0, 1, 0]))
    (x, _), _ = filled(mixture, [5, 5, 1], moment)
    for row, draw in ((0, 0), (1, 1)):
        np.testing.assert_array_equal(x[row], alone.sample(2, Moment(2, draw))[0])
    assert len(np.unique(x[:, 0])) == 3


def test_what_is_known_of_a_mixture():
    plain = mixed(SamplePipeline(Numbered(2)), SamplePipeline(Numbered(3)))
    assert plain.not_kept == ""
    assert not plain.runs_user_code
    transformed, _ = three()
    assert "then mix or concatenate" in transformed.not_kept
    assert transformed.runs_user_code
    assert set(plain.fingerprint()) == {"data of loader 0", "data of loader 1"}
    assert plain.fingerprint() != mixed(*reversed(plain.pipelines)).fingerprint()


def test_advice_is_that_of_the_samples_own_loader():
    mixture, (own, *_) = three()
    assert mixture.advice(0, 0, True) == own.advice(0, 0, True)
    assert "transform= return arrays of one shape" in mixture.advice(3, 0, True)


class Noting(Source):
    """Notes the calls that go to every source."""

    def __init__(self):
        self.calls = []

    def __len__(self):
        return 2

    def prepare(self):
        self.calls.append("prepare")

    def close(self):
        self.calls.append("close")

    def stores(self):
        return [self]

    def held(self):
        return Noting()


def test_every_source_is_prepared_and_closed():
    sources = [Noting(), Noting()]
    mixture = mixed(*map(SamplePipeline, sources))
    mixture.prepare()
    mixture.close()
    assert [source.calls for source in sources] == [["prepare", "close"]] * 2
    assert mixture.stores() == sources
    held = mixture.held()
    assert not {id(p.source) for p in held.pipelines} & {id(source) for source in sources}
    assert len(held.rebound(1, 2)) == len(held.for_worker()) == 4
