"""Loaders of some samples of another: subset, take, repeat and folds."""

import numpy as np
import pytest

import kloaders as kl
from tests.support.sampled import (
    CLASSES,
    LOADERS,
    epochs_of,
    flat,
    noisy,
    numbered,
    rows,
)


def test_subset_take_and_repeat_keep_every_option(npy, keep):
    """In storage order as asked; shuffled each sample once, or as often as it is repeated."""
    loader = keep(LOADERS["paths"](npy, seed=3, sample_weights=np.arange(23)))
    some = kl.subset(loader, [7, 1, 20, 3])
    assert [b.tolist() for b in (some[0][1], some[0][2])] == [[7, 1, 20, 3]] * 2
    assert kl.subset(loader, np.arange(23) % 2 == 1).samples == 11
    assert flat(epochs_of(kl.take(loader, 5), 1)) == [0, 1, 2, 3, 4]
    twice = kl.repeat(kl.subset(loader, slice(20, None)), 3)
    assert len(twice) == 3
    shuffled = [batch[1].astype(int).tolist() for batch in twice.epoch_batches(0, True)]
    assert sorted(flat(shuffled)) == [20, 20, 20, 21, 21, 21, 22, 22, 22]


def test_repeated_samples_are_augmented_anew():
    loader = kl.repeat(numbered(3, 12, transform=noisy), 4)
    x, y = loader[0]
    assert len(set(x[:, 1].tolist())) == 12
    assert y.tolist() == [0, 1, 2] * 4


@pytest.mark.parametrize(
    ("which", "error", "words"),
    [
        ([3, 5], IndexError, "sample 5: samples are numbered from 0 to 4"),
        ([-1], IndexError, "sample -1"),
        ([], ValueError, "selects no samples"),
        ([True, False], TypeError, "bool of shape"),
        ([0.5], TypeError, "float64 of shape"),
    ],
)
def test_a_choice_that_is_none_is_refused(which, error, words):
    with pytest.raises(error, match=words):
        kl.subset(numbered(5), which)


def test_take_and_repeat_say_what_is_wrong():
    with pytest.raises(ValueError, match="the loader has 5 samples"):
        kl.take(numbered(5), 6)
    with pytest.raises(ValueError, match="times=0 is too small"):
        kl.repeat(numbered(5), 0)
    with pytest.raises(TypeError, match="expected a loader"):
        kl.take([1, 2, 3], 2)


def test_a_subset_is_balanced_among_its_own():
    loader = kl.subset(numbered(23, 4, class_balance=CLASSES), slice(12, None))
    for batch in epochs_of(loader, 2):
        counts = np.bincount(CLASSES[batch])
        assert counts.max() - counts.min() <= 1
    kept = kl.subset(numbered(23, 4, class_balance=CLASSES), CLASSES != 1)  # a class is gone
    assert all(np.bincount(CLASSES[batch]).tolist() == [2, 0, 2] for batch in epochs_of(kept, 1))
    with pytest.raises(ValueError, match="all sampling_weights of these samples are 0"):
        kl.subset(numbered(5, sampling_weights=[1, 0, 0, 0, 1]), [1, 2])


def test_folds_have_each_sample_once(npy, keep):
    """Over the folds of scikit-learn's splitters; training parts keep transform and sampling."""
    from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

    loader = keep(LOADERS["paths"](npy, seed=3, transform=noisy, epoch_batches=2))
    seen = []
    for train, val in kl.folds(loader, KFold(5, shuffle=True, random_state=1)):
        inside = flat(epochs_of(val, 1))
        assert len(train) == 2
        assert not set(flat(epochs_of(train, 5))) & set(inside)
        assert val.transform is None
        assert val.samples + train.samples == 23
        seen += inside
    assert sorted(seen) == list(range(23))
    for _, val in kl.folds(loader, StratifiedKFold(2), labels=CLASSES):
        assert np.bincount(CLASSES[flat(epochs_of(val, 1))]).tolist()[2] == 1
    known = kl.ArraySequenceLoader(rows(23), CLASSES, 23)
    for _, val in kl.folds(known, StratifiedKFold(2)):
        assert np.bincount(val[0][1]).tolist()[2] == 1
    groups = np.arange(23) // 4
    for train, val in kl.folds(loader, GroupKFold(3), groups=groups):
        assert not set(groups[flat(epochs_of(val, 1))]) & set(groups[flat(epochs_of(train, 5))])


def test_folds_say_what_is_wrong():
    with pytest.raises(TypeError, match="expected the number of folds, a scikit-learn splitter, "):
        kl.folds(numbered(5), "3")


def test_folds_warn_once_where_their_parts_differ(caplog):
    from sklearn.model_selection import KFold

    def halved(x, y, rng):
        return x.astype("float16"), y

    x = np.arange(12, dtype=np.float32).reshape(-1, 1)
    loader = kl.ArraySequenceLoader(x, np.arange(12), 4, transform=halved)
    pairs = list(kl.folds(loader, KFold(3)))
    assert [train[0][0].dtype for train, _ in pairs] == ["float16"] * 3
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(said) == 1
    assert "delivers float16[1]" in said[0], said
    assert "validation part float32[1]" in said[0], said


def of_epoch(loader):
    """Numbers of the samples, in storage order."""
    return [int(n) for batch in loader.epoch_batches(0, shuffle=False) for n in batch[1]]


def test_a_number_of_folds():
    """Shuffled by the loader's seed; each sample is validated with once."""
    found = [of_epoch(val) for _, val in kl.folds(numbered(10, seed=3), 5)]
    assert [len(val) for val in found] == [2] * 5
    assert sorted(n for fold in found for n in fold) == list(range(10))
    assert found == [of_epoch(val) for _, val in kl.folds(numbered(10, seed=3), 5)]
    assert found != [of_epoch(val) for _, val in kl.folds(numbered(10, seed=4), 5)]
    assert found != [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    classes = np.arange(10) // 5
    for _, val in kl.folds(numbered(10), 5, labels=classes):
        assert sorted(classes[of_epoch(val)]) == [0, 1]
    groups = np.arange(10) // 2
    for options in ({"groups": groups}, {"groups": groups, "labels": np.arange(10) % 2}):
        for train, val in kl.folds(numbered(10), 5, **options):
            assert not set(groups[of_epoch(train)]) & set(groups[of_epoch(val)])


def test_folds_that_are_given():
    pairs = [([4, 0], [1, 2]), (np.arange(5) < 3, slice(3, 5))]
    found = [(of_epoch(train), of_epoch(val)) for train, val in kl.folds(numbered(5), pairs)]
    assert found == [([4, 0], [1, 2]), ([0, 1, 2], [3, 4])]


@pytest.mark.parametrize(
    ("given", "options", "error", "words"),
    [
        (1, {}, ValueError, r"folds\(loader, 1\): expected 2 to 5 folds"),
        (6, {}, ValueError, "expected 2 to 5 folds"),
        (True, {}, TypeError, "splitter=True.*expected the number of folds"),
        ([], {}, ValueError, "expected at least one"),
        ([1, 2], {}, TypeError, r"fold 0 is 1, expected \(train, validation\)"),
        ([([0, 1], [1, 2])], {}, ValueError, "fold 0 has sample 1 in both parts, and 0 others"),
        ([([0, 1], [5])], {}, IndexError, "sample 5"),
        ([([0], [1])], {"labels": [0, 0, 0, 1, 1]}, ValueError, "which only splitters use"),
    ],
    ids=str,
)
def test_folds_that_are_none(given, options, error, words):
    with pytest.raises(error, match=words):
        kl.folds(numbered(5), given, **options)
