"""split: who gets which samples, what is refused, and what is logged where the parts differ."""

import logging

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.structure import flatten
from kloaders.loaders.splits import made, of_kept, sides

SAMPLES = 20
X = np.arange(SAMPLES, dtype=np.float32).reshape(-1, 1)
CLASSES = np.array([0] * 10 + [1] * 10)


def loader_of(x=X, y=CLASSES, **options):
    return kl.ArraySequenceLoader(x, y, 4, **{"seed": 3, **options})


def numbers(loader):
    return [n for batch in loader.epoch_batches(0, shuffle=False) for n in flatten(batch)[0][:, 0]]


@pytest.fixture
def warnings_of(caplog):
    """warnings_of() -> texts of the WARNINGs so far."""
    caplog.set_level(logging.WARNING, logger="kloaders")
    return lambda: [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


# ---------------------------------------------------------------- who gets what


@pytest.mark.parametrize("stratify", [None, True, CLASSES])
def test_each_sample_is_in_one_part(stratify):
    train, validation = kl.split(loader_of(), validation=0.3, stratify=stratify)
    assert (train.samples, validation.samples) == (14, 6)
    first, second = numbers(train), numbers(validation)
    assert first == sorted(first)  # in storage order
    assert sorted(first + second) == list(range(SAMPLES))


def test_stratified_parts_have_the_share_of_every_class():
    for stratify in (True, CLASSES):
        train, validation = kl.split(loader_of(), validation=0.3, stratify=stratify)
        for loader, each in ((train, 7), (validation, 3)):
            found = np.concatenate([y for _, y in loader.epoch_batches(0, shuffle=False)])
            assert np.bincount(found).tolist() == [each, each]


@pytest.mark.parametrize("count", [1, 12, np.int64(12)])
def test_validation_with_so_many_samples(count):
    for stratify in (None, True) if count > 1 else (None,):
        train, validation = kl.split(loader_of(), validation=count, stratify=stratify)
        assert (train.samples, validation.samples) == (SAMPLES - count, count)
        assert sorted(numbers(train) + numbers(validation)) == list(range(SAMPLES))
    _, validation = kl.split(loader_of(), validation=2, groups=np.arange(SAMPLES) // 2)
    assert validation.samples == 4  # of two groups
    with pytest.raises(ValueError, match="validation=20 of 20 samples leaves none to train on"):
        kl.split(loader_of(), validation=20)


def test_a_loader_in_a_list_is_refused():
    """The message does not ask for paths only."""
    with pytest.raises(TypeError, match=r"paths contains a loader.*pass the loader itself"):
        kl.split([loader_of()])


def test_groups_stay_together():
    groups = np.arange(SAMPLES) // 4
    train, validation = kl.split(loader_of(), validation=0.4, groups=groups)
    in_train = {int(n) // 4 for n in numbers(train)}
    in_validation = {int(n) // 4 for n in numbers(validation)}
    assert not in_train & in_validation
    assert (len(in_train), len(in_validation)) == (3, 2)


def test_a_seed_fixes_the_split():
    parts = [numbers(kl.split(loader_of(), seed=seed)[1]) for seed in (1, 1, 2)]
    assert parts[0] == parts[1] != parts[2]
    own = numbers(kl.split(loader_of(seed=1))[1])
    assert own == parts[0]  # without seed= that of the loader


def test_data_of_any_loader_are_split():
    """What loader= names is called with the data and options; it may be a function too."""

    def by_function(*data, **options):
        return kl.ArraySequenceLoader(*data, **options)

    for make in (kl.ArraySequenceLoader, by_function):
        train, validation = kl.split(X, CLASSES, 5, seed=1, loader=make, drop_last=True)
        assert type(train) is type(validation) is kl.ArraySequenceLoader
        assert (train.batch_size, train.drop_last, validation.drop_last) == (5, True, False)


def test_validation_has_nothing_of_training():
    options = {"transform": lambda x, y, rng: (x + 100, y), "shuffle": True, "class_balance": True}
    train, validation = kl.split(loader_of(**options))
    assert train[0][0].min() >= 100
    assert numbers(validation) == sorted(numbers(validation))
    assert max(numbers(validation)) < SAMPLES
    assert not validation.sampling


# ---------------------------------------------------------------- a warning


def bigger(x, y, rng):
    return np.concatenate([x, x]), y


def scaled(x, y, rng):
    return x.astype(np.float64) / 255, y


def same(x, y, rng):
    return x + 1, y


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (bigger, ["training part delivers float32[2]", "validation part float32[1]"]),
        (scaled, ["training part delivers float64[1]", "validation part float32[1]"]),
    ],
    ids=["shape", "dtype"],
)
def test_a_transform_that_changes_the_form_is_warned_of(transform, words, warnings_of):
    """Both parts are named, and where such work belongs."""
    kl.split(loader_of(transform=transform))
    (text,) = warnings_of()
    for word in (*words, "preprocess=", "validation_transform="):
        assert word in text


def test_a_batch_transform_that_changes_the_form_is_warned_of(warnings_of):
    kl.split(loader_of(batch_transform=lambda x, y, rng: (x, np.stack([y, y], axis=1))))
    (text,) = warnings_of()
    assert "float32[1], int64[2]" in text
    assert "float32[1], int64[]" in text


@pytest.mark.parametrize(
    "options", [{}, {"transform": same}, {"batch_transform": same}], ids=["none", "sample", "batch"]
)
def test_parts_of_one_form_are_not_warned_of(options, warnings_of):
    kl.split(loader_of(**options))
    assert warnings_of() == []


def test_a_transform_that_fails_is_not_split_s_to_report(warnings_of):
    """The error comes with the first batch, and names its sample."""

    def fails(x, y, rng):
        raise RuntimeError("no such thing")

    train, _ = kl.split(loader_of(transform=fails))
    assert warnings_of() == []
    with pytest.raises(kl.SampleError, match="no such thing"):
        train[0]


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize("share", [0, 1.0, -0.2, -3, 5.0, "0.2", None, True])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(
        ValueError, match=r"expected a share between 0 and 1, where 0\.2 is a fifth"
    ):
        kl.split(loader_of(), validation=share)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"validation": 0.99}, "0.99 of 20 samples leaves none to train on"),
        (
            {"validation": 0.9, "groups": np.arange(SAMPLES) // 10},
            "0.9 of 2 groups leaves none to train on",
        ),
        ({"stratify": True, "groups": CLASSES}, "stratify and groups are both set"),
        ({"stratify": [0] * 19 + [1]}, "class 1 has one sample; stratify needs two of each"),
        (
            {"stratify": [0] * 17 + [1, 2, 3]},
            "class 1 has one sample, and so do 2 others",
        ),
        (
            {"stratify": np.arange(SAMPLES) // 2, "validation": 0.2},
            "16 samples to train on and 4 to validate with, too few to include each of 10 classes",
        ),
        ({"stratify": [0, 1]}, "stratify"),
        ({"groups": [0, 1]}, "groups"),
    ],
)
def test_a_split_that_cannot_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        kl.split(loader_of(), **options)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"labels": CLASSES}, "labels"),
        ({"batch_size": 4}, "batch_size"),
        ({"labels": CLASSES, "shuffle": True}, "labels, shuffle"),
    ],
)
def test_a_loader_with_more_is_refused(given, named):
    with pytest.raises(
        TypeError, match=rf"split\(\) got a loader together with {named}: pass these"
    ):
        kl.split(loader_of(), **given)


def test_what_makes_no_loader_is_refused():
    with pytest.raises(TypeError, match=r"makes no loaders, expected a class.*split.loader"):
        kl.split(X, CLASSES, loader=loader_of())
    with pytest.raises(TypeError, match="returned a list, expected a loader"):
        made(lambda *data: list(data), X)


# ---------------------------------------------------------------- helpers of the other front doors


def test_values_of_what_was_left_out_are_left_out(npy, tmp_path, keep):
    listed = tmp_path / "bad.csv"
    listed.write_text(f"path\n{npy[1]}\n")
    loader = keep(kl.PathSequenceLoader(npy, np.arange(23), 4, exclude=listed))
    assert of_kept(loader, np.arange(23)).tolist() == [0, *range(2, 23)]
    assert of_kept(loader, np.arange(22)).tolist() == list(range(22))  # of those that are left
    assert of_kept(loader, None) is None
    assert of_kept(loader, True) is True
    assert of_kept(loader_of(), [3, 4]) == [3, 4]


def test_a_class_is_called_by_its_name():
    with pytest.raises(ValueError, match="class 'dog' has one sample"):
        sides(loader_of(), 0.2, [0] * 19 + [1], None, 1, ["cat", "dog"])
