"""A Dataset of known length ends, also where fewer batches come than it is known to have."""

import itertools

import pytest

from kloaders.interop.tf_cardinality import with_cardinality

tf = pytest.importorskip("tensorflow")

SPEC = tf.TensorSpec((), tf.int64)


class Numbers:
    """0 ... count - 1; an error in the place of some."""

    def __init__(self, count, bad=()):
        self.left, self.bad = iter(range(count)), bad

    def __iter__(self):
        return self

    def __next__(self):
        number = next(self.left)
        if number in self.bad:
            raise ValueError("bad")
        return number


def dataset_of(count, bad=(), known=None):
    numbers = tf.data.Dataset.from_generator(lambda: Numbers(count, bad), output_signature=SPEC)
    return with_cardinality(numbers, known or count, errors=count)


def some(dataset):
    """Its first elements: more than there can be."""
    return [n.numpy().item() for n in itertools.islice(dataset, 100)]


def test_all_elements_and_their_number():
    dataset = dataset_of(5)
    assert len(dataset) == 5
    assert some(dataset) == some(dataset) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("bad", [{0}, {4}, {1, 3}, set(range(5))])
def test_what_is_bad_is_left_out_and_it_ends(bad):
    dataset = dataset_of(5, bad)
    assert some(dataset.ignore_errors()) == [n for n in range(5) if n not in bad]
    with pytest.raises(tf.errors.InvalidArgumentError, match="bad"):
        some(dataset)


def test_too_few_are_an_error():
    """TensorFlow says so."""
    with pytest.raises(tf.errors.FailedPreconditionError, match="7 elements but contained only 5"):
        some(dataset_of(5, known=7))


def test_it_can_be_given_on():
    dataset = dataset_of(5, {2}).prefetch(2)
    assert len(dataset) == 5
    assert some(dataset.map(lambda n: n + 10).ignore_errors()) == [10, 11, 13, 14]
