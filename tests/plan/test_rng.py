"""Random numbers of samples and batches: the same in every thread, and frozen for every seed."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kloaders.plan.rng import Moment, batch_rng, part_of, sample_rng
from tests.support.chi_squared import bound, chi_squared

RANDOM = {
    (0, 0, 0): [855755, 261546, 163424],
    (0, 0, 1): [854364, 997234, 204959],
    (0, 1, 0): [178686, 604122, 453988],
    (1, 0, 0): [183783, 718826, 657286],
    (0, 0, 0, 1): [554740, 729585, 703718],
}


def test_frozen_random_numbers():
    """The random numbers of a sample are a promise too."""
    drawn = [sample_rng(*key).integers(0, 10**6, 3).tolist() for key in RANDOM]
    assert drawn == list(RANDOM.values())


def test_neighbouring_seeds_and_samples_differ():
    """Seed s, sample i + 1 is not seed s + 1, sample i: keys are hashed, not added."""
    streams = {}
    for seed in range(6):
        for epoch in range(6):
            for sample in range(6):
                for draw in range(2):
                    found = tuple(sample_rng(seed, epoch, sample, draw).integers(0, 2**63, 2))
                    assert found not in streams, (streams[found], (seed, epoch, sample, draw))
                    streams[found] = seed, epoch, sample, draw


@given(
    keys=st.lists(
        st.tuples(st.integers(0, 2**31), st.integers(0, 10**6), st.integers(0, 10**12)),
        min_size=1,
        max_size=8,
        unique=True,
    )
)
def test_a_sample_draws_the_same_whoever_asks_first(keys):
    """The random numbers of a sample do not depend on the order of the calls."""
    forward = [sample_rng(*key).random(3).tolist() for key in keys]
    backward = [sample_rng(*key).random(3).tolist() for key in reversed(keys)]
    assert forward == backward[::-1]
    assert len({tuple(one) for one in forward}) == len(keys)


def test_random_numbers_of_samples_are_uniform():
    """First draws of many samples fill the unit interval evenly, and neighbours do not agree."""
    drawn = np.array([sample_rng(3, 1, sample).random() for sample in range(5000)])
    counts, _ = np.histogram(drawn, bins=50, range=(0, 1))
    assert chi_squared(counts) < bound(49)
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.06


def test_frozen_random_numbers_of_batches():
    drawn = [batch_rng(*key).integers(0, 10**6, 3).tolist() for key in BATCHES]
    assert drawn == list(BATCHES.values())


BATCHES = {
    (0, 0, 0): [620849, 110748, 922299],
    (0, 0, 1): [855404, 903433, 1516],
    (0, 1, 0): [83839, 912400, 267871],
    (1, 0, 0): [94294, 846480, 542844],
    (0, 0, 0, 1): [252394, 653893, 288372],
}


def test_batches_and_samples_never_meet():
    """A batch of some number draws otherwise than the sample of that number, in every shard."""
    keys = [(seed, epoch, number) for seed in range(4) for epoch in range(4) for number in range(4)]
    found = {tuple(sample_rng(*key).integers(0, 2**63, 2)) for key in keys}
    for part in range(3):
        found |= {tuple(batch_rng(*key, part).integers(0, 2**63, 2)) for key in keys}
    assert len(found) == 4 * len(keys)


def test_part_of_a_draw():
    """One number is that of every row; an array has one for each."""
    draws = np.arange(10, 16)
    assert part_of(3, slice(1, 4)) == part_of(3, 2) == 3
    assert part_of(draws, slice(1, 4)).tolist() == [11, 12, 13]
    assert part_of(draws, 2) == 12
    assert type(part_of(draws, 2)) is int


def test_a_moment_is_that_of_its_rows():
    """Whole, in part, or of one row: the same random numbers for a sample."""
    moment = Moment(4, np.arange(6))
    one = moment.part(slice(2, 5)).part(1)
    assert one == moment.part(3) == Moment(4, 3)
    expected = sample_rng(9, 4, 17, 3).integers(0, 2**60)
    assert one.rng(9, 17).integers(0, 2**60) == expected
    assert Moment().rng(9, 17).random() == sample_rng(9, 0, 17).random()
    same = Moment(2, 5)
    assert same.part(slice(0, 3)) is same


@given(st.integers(0, 2**32), st.integers(0, 1000), st.integers(0, 2**40), st.integers(0, 3))
def test_generators_are_those_of_philox_with_the_key(
    seed: int, epoch: int, sample: int, draw: int
) -> None:
    """The order of random numbers is frozen; only how the generator is made is ours."""
    made = sample_rng(seed, epoch, sample, draw)
    words = made.bit_generator.state["state"]["key"].tolist()
    theirs = np.random.Generator(np.random.Philox(key=words[0] | words[1] << 64))
    assert made.integers(2**63, size=3).tolist() == theirs.integers(2**63, size=3).tolist()
    assert made.normal() == theirs.normal()


def test_spawned_generators_follow_from_the_sample() -> None:
    """NumPy's Philox(key=...) would spawn from random bytes of the operating system."""

    def drawn(sample: int) -> list[float]:
        rng = sample_rng(7, 1, sample)
        return [child.random() for child in [*rng.spawn(2), *rng.spawn(1)]]

    assert drawn(3) == drawn(3)
    everything = [*drawn(3), *drawn(4), sample_rng(7, 1, 3).random(), sample_rng(7, 1, 4).random()]
    assert len(set(everything)) == 8
    assert [child.random() for child in batch_rng(7, 1, 3).spawn(2)] == [
        child.random() for child in batch_rng(7, 1, 3).spawn(2)
    ]


def test_a_pickled_generator_goes_on() -> None:
    rng = sample_rng(7, 1, 3)
    rng.random()
    again = pickle.loads(pickle.dumps(rng))
    assert again.random() == rng.random()
    assert again.spawn(1)[0].random() == rng.spawn(1)[0].random()
    other = np.random.PCG64(rng.bit_generator.seed_seq)  # asks for another number of words
    assert other.random_raw() == np.random.PCG64(rng.bit_generator.seed_seq).random_raw()
