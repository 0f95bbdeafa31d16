"""All options of a loader in one value: what parts, validation and arrays in RAM make of them."""

import dataclasses

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.options import RamOptions
from kloaders.engine.padding import Padding
from kloaders.loaders.options import LoaderOptions
from kloaders.plan.sampling import Sampling
from tests.support.sources import Numbered

SAMPLES = 10


def identity(x, y, rng):
    return x, y


def options_of(batch_size=4, samples=SAMPLES, given=None, **more):
    return LoaderOptions.of(samples, batch_size, {} if given is None else given, **more)


# ---------------------------------------------------------------- as a user gives them


def test_options_are_sorted_into_their_groups():
    found = options_of(
        given={
            "seed": 7,
            "shuffle": True,
            "transform": identity,
            "workers": 2,
            "on_error": "skip",
            "max_errors": 3,
            "cache": None,
            "epoch_batches": 5,
        }
    )
    assert (found.order.seed, found.order.shuffle, found.transforms.transform) == (
        7,
        True,
        identity,
    )
    assert (found.work.workers, found.faults.on_error, found.faults.max_errors) == (2, "skip", 3)
    assert found.cache.cache is None
    assert found.sampling.length == 5


def test_each_option_has_its_attribute():
    """`flat` is what loader.<name> gives, options of one class with it."""
    flat = options_of(given={"seed": 7, "max_queue_size": 3}, more={"size": (2, 3)}, echo=2).flat
    assert (flat["batch_size"], flat["seed"], flat["queue_size"]) == (4, 7, 3)
    assert (flat["echo"], flat["draw"], flat["size"]) == (2, "global", (2, 3))
    ram = options_of(ram=RamOptions(ram_batch_size=4, draw="windows"))
    assert ram.flat["draw"] == "windows"


@pytest.mark.parametrize(
    ("given", "more", "error", "words"),
    [
        ({}, {"batch_size": 0}, ValueError, r"batch_size=0"),
        ({"sample_weights": [1, 2]}, {}, ValueError, r"sample_weights"),
        ({"sample_weights": ["a"] * SAMPLES}, {}, TypeError, r"sample_weights"),
        ({"sampling_weights": [0] * SAMPLES}, {}, ValueError, r"all sampling_weights are 0"),
        (
            {"sampling_weights": [1] * 9 + [-1]},
            {},
            ValueError,
            r"sampling_weights\[9\] is -1.0, expected a finite number of at least 0",
        ),
        ({"sampling_weights": [1] * 9}, {}, ValueError, r"has shape \(9,\), expected one number"),
        (
            {"sampling_weights": "a"},
            {},
            TypeError,
            r"sampling_weights is a str of .*, expected one number",
        ),
        ({"sampling_weights": [[1], [2, 3]]}, {}, TypeError, r"is a list of object"),
        (
            {"class_balance": [0, 1] * 5, "sampling_weights": [1] * SAMPLES},
            {},
            ValueError,
            r"class_balance and sampling_weights are both set",
        ),
        ({"replacement": True}, {}, ValueError, r"pass sampling_weights=np\.ones\(samples\)"),
        (
            {"class_balance": [0, 1] * 5, "shuffle": False},
            {},
            ValueError,
            r"class_balance= draws samples, which shuffle=False forbids",
        ),
        (
            {"sampling_weights": [1] * SAMPLES, "shuffle": False},
            {},
            ValueError,
            r"sampling_weights= draws samples, which shuffle=False forbids",
        ),
        ({"shuffle": False}, {"echo": 2}, ValueError, r"echo=2 .* shuffle=False forbids"),
    ],
)
def test_what_contradicts_itself_or_the_data_is_refused(given, more, error, words):
    with pytest.raises(error, match=words):
        options_of(given=given, **more)


def test_classes_are_those_of_the_source():
    """class_balance=True takes the labels that a source knows; a source without any is refused."""
    loader = kl.ArraySequenceLoader(np.zeros(6), np.array([5, 5, 9, 9, 5, 5]), 2)
    found = LoaderOptions.of(loader.source, 2, {"class_balance": True})
    assert found.sampling.codes.tolist() == [0, 0, 1, 1, 0, 0]
    with pytest.raises((TypeError, ValueError), match="class_balance"):
        LoaderOptions.of(Numbered(6), 2, {"class_balance": True})


# ---------------------------------------------------------------- the order


@pytest.mark.parametrize(
    ("given", "echo", "expected"),
    [
        ({}, 1, None),
        ({"shuffle": False}, 1, False),
        ({"shuffle": True}, 1, True),
        ({"epoch_batches": 2}, 1, True),
        ({"epoch_batches": 2, "shuffle": False}, 1, False),
        ({"class_balance": [0, 1] * 5}, 1, True),
        ({}, 2, True),
    ],
)
def test_the_effective_order(given, echo, expected):
    """What draws samples shuffles, where the user left it open."""
    assert options_of(given=given, echo=echo).effective_shuffle is expected


def test_another_order_is_given_if_nothing_is_drawn():
    plain = options_of()
    assert [plain.order_for(s) for s in (None, True, False)] == [None, True, False]
    drawn = options_of(given={"class_balance": [0, 1] * 5})
    assert drawn.order_for(None) is True
    assert drawn.order_for(True) is True
    with pytest.raises(
        ValueError,
        match=r"shuffle=False contradicts the order of this loader.*2 classes in equal parts",
    ):
        drawn.order_for(False)


# ---------------------------------------------------------------- take


NUMBERS = np.array([9, 0, 4])


def test_take_takes_the_weights_of_the_samples():
    found = options_of(given={"sample_weights": np.arange(SAMPLES)}).take(NUMBERS, SAMPLES)
    assert found.weights.tolist() == [9, 0, 4]
    assert options_of().take(NUMBERS, SAMPLES).weights is None


def test_take_takes_the_classes_and_draws_by_those_that_are_left():
    found = options_of(given={"class_balance": np.arange(SAMPLES) % 5}).take(NUMBERS, SAMPLES)
    assert found.sampling.codes.tolist() == [1, 0, 1]  # classes 4, 0 and 4
    weights = options_of(given={"sampling_weights": np.arange(SAMPLES)}).take(NUMBERS, SAMPLES)
    assert weights.sampling.weights.tolist() == [9, 0, 4]
    with pytest.raises(ValueError, match="all sampling_weights of these samples are 0"):
        options_of(given={"sampling_weights": np.arange(SAMPLES)}).take(np.array([0]), SAMPLES)


def test_take_of_a_mixture_is_refused():
    loader = kl.mix(
        [kl.ArraySequenceLoader(np.arange(6)), kl.ArraySequenceLoader(np.arange(6))],
        batch_size=2,
    )
    with pytest.raises(ValueError, match="samples of a mixed loader cannot be selected"):
        loader.options.take(np.array([0]), 12)


def test_take_takes_the_lengths():
    padding = Padding(np.arange(1, SAMPLES + 1), np.array([4, 16]), 0, None, False)
    found = options_of(padding=padding).take(NUMBERS, SAMPLES)
    assert found.padding.lengths.tolist() == [10, 1, 5]
    assert found.padding.buckets.boundaries.tolist() == padding.buckets.boundaries.tolist()


@pytest.mark.parametrize(("budget", "expected"), [(1000, 300), ("1KB", 300), (2, 1)])
def test_take_takes_a_share_of_the_ram(budget, expected):
    """In proportion, for all parts together; never nothing."""
    found = options_of(ram=RamOptions(ram_budget=budget)).take(NUMBERS, SAMPLES)
    assert found.ram.ram_budget == expected


def test_take_leaves_a_size_in_samples():
    ram = RamOptions(ram_batch_size=6)
    assert options_of(ram=ram).take(NUMBERS, SAMPLES).ram == ram


def test_take_leaves_the_rest():
    whole = options_of(given={"seed": 3, "transform": identity, "workers": 1}, more={"size": 4})
    found = whole.take(NUMBERS, SAMPLES)
    for field in dataclasses.fields(whole):
        if field.name != "sampling":
            assert getattr(found, field.name) == getattr(whole, field.name), field.name
    assert str(found.sampling) == str(whole.sampling) == ""


# ---------------------------------------------------------------- for_validation


def test_validation_serves_every_sample_once_as_it_is_stored():
    whole = options_of(
        given={
            "shuffle": True,
            "drop_last": True,
            "transform": identity,
            "batch_transform": identity,
            "dtype": "float32",
            "class_balance": [0, 1] * 5,
            "epoch_batches": 3,
            "seed": 3,
        },
        echo=2,
    )
    found = whole.for_validation()
    assert (found.order.shuffle, found.order.drop_last, found.order.seed) == (False, False, 3)
    assert (found.transforms.transform, found.transforms.batch_transform) == (None, None)
    assert found.transforms.dtype == np.float32  # belongs to the data
    assert not found.sampling
    assert found.echo == 1
    assert whole.order.shuffle is True  # frozen, and so as it was


def test_validation_leaves_an_open_order_open():
    """evaluate and predict ask for storage order, and an order that nobody chose stays so."""
    assert options_of().for_validation().order.shuffle is None


def test_validation_of_several_hosts_has_equal_batches():
    given = {"drop_last": True, "shard": (0, 2), "shuffle": True, "seed": 1}
    assert options_of(given=given).for_validation().order.drop_last is True


def test_validation_keeps_weights_and_faults():
    weights = np.arange(SAMPLES, dtype=np.float32)
    given = {"sample_weights": weights, "on_error": "skip", "pad_last": True}
    found = options_of(given=given).for_validation()
    np.testing.assert_array_equal(found.weights, weights)
    assert (found.faults.on_error, found.order.pad_last) == ("skip", True)


# ---------------------------------------------------------------- in_ram


def test_in_ram_nothing_is_kept_a_second_time(tmp_path):
    whole = options_of(
        given={"cache": str(tmp_path), "cache_budget": "1GB", "cache_key": "v2", "seed": 3},
        ram=RamOptions(ram_batch_size=4),
        more={"size": (2, 2)},
    )
    found = whole.in_ram()
    assert (found.cache.cache, found.cache.cache_budget, found.cache.cache_key) == (
        "auto",
        None,
        None,
    )
    assert found.ram is None
    assert found.more == {}
    assert found.order == whole.order


@pytest.mark.parametrize(("transform", "expected"), [(None, False), (identity, True)])
def test_in_ram_processes_are_for_transforms_only(transform, expected):
    found = options_of(given={"processes": True, "workers": 2, "transform": transform}).in_ram()
    assert (found.work.processes, found.work.workers) == (expected, 2)


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        options_of().batch_size = 3
    assert isinstance(options_of().sampling, Sampling)
