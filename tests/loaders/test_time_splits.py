"""Splits in time, and what is said where windows of both parts share rows."""

import numpy as np
import pytest
from sklearn.model_selection import GroupShuffleSplit, KFold, TimeSeriesSplit

import kloaders as kl

SERIES = np.arange(100, dtype=np.float32)


def windows(series=SERIES, **options):
    return kl.WindowSequenceLoader(series, 8, **{"window": 5, "horizon": 3, "seed": 1, **options})


def rows_of(loader):
    """All rows that a loader's samples have, x and y."""
    found = set()
    for x, y in loader.epoch_batches():
        found |= set(x.ravel().astype(int).tolist()) | set(y.ravel().astype(int).tolist())
    return found


@pytest.mark.parametrize("gap", [0, 4])
def test_no_window_to_validate_with_shares_a_row(gap, keep, caplog):
    train, val = map(keep, kl.split(windows(), validation=0.2, order="time", gap=gap))
    assert max(rows_of(train)) + gap + 1 == min(rows_of(val))
    assert max(rows_of(val)) == 99
    assert val.samples == 19  # a fifth of 93
    assert f"{7 + gap} between them left out" in caplog.text


def test_each_series_is_cut(keep):
    both = windows([SERIES, SERIES[:60] + 1000])
    train, val = map(keep, kl.split(both, validation=0.2, order="time"))
    for first in (0, 1000):
        mine = [{r for r in rows_of(part) if first <= r < first + 500} for part in (train, val)]
        assert max(mine[0]) + 1 == min(mine[1])


def test_windows_that_share_nothing_may_be_drawn(keep):
    train, val = map(keep, kl.split(windows(stride=8), validation=0.25))
    assert not rows_of(train) & rows_of(val)


def test_a_random_split_of_windows_that_overlap_is_refused(keep):
    with pytest.raises(ValueError, match='order="time", which splits each series in time'):
        kl.split(windows())
    train, val = map(keep, kl.split(windows(), order="random"))
    assert train.samples + val.samples == 93


def test_groups_that_keep_windows_apart_are_no_fault(keep):
    both = windows([SERIES, SERIES + 1000, SERIES + 2000])
    series = [both.where(k)[0] for k in range(both.samples)]
    train, val = map(keep, kl.split(both, validation=0.3, groups=series))
    assert not rows_of(train) & rows_of(val)


def test_of_other_loaders_the_last_samples_validate(keep):
    loader = keep(kl.ArraySequenceLoader(np.arange(20), batch_size=4))
    train, val = map(keep, kl.split(loader, validation=0.25, order="time", gap=2))
    assert np.concatenate(list(train.epoch_batches())).tolist() == list(range(13))
    assert np.concatenate(list(val.epoch_batches())).tolist() == list(range(15, 20))


def test_paths_are_split_in_time_as_well(npy, keep):
    train, val = map(keep, kl.split(npy, validation=0.5, order="time"))
    assert [*train.paths, *val.paths] == npy


def test_folds_that_share_rows_are_logged(keep, caplog):
    loader = keep(windows())
    for splitter, said in ((KFold(3), True), (TimeSeriesSplit(3, gap=7), False)):
        caplog.clear()
        list(kl.folds(loader, splitter))
        assert ("share rows with windows for training" in caplog.text) is said
    groups = np.arange(93) // 50
    caplog.clear()
    list(kl.folds(loader, GroupShuffleSplit(1, random_state=0), groups=groups))
    assert "share rows" in caplog.text


REFUSED = {
    "order": ({"order": "shuffled"}, 'choose "time"'),
    "gap alone": ({"gap": 3}, 'pass order="time"'),
    "groups": ({"order": "time", "groups": np.arange(93)}, "groups= are both set"),
    "stratify": ({"order": "time", "stratify": True}, "stratify= are both set"),
    "all": ({"order": "time", "validation": 0.95}, "leaves none of 93 samples to train on"),
    "too wide": ({"order": "time", "gap": 80}, "none ends 80 rows before"),
    "none": ({"order": "time", "validation": 0.001}, "leaves none to validate with"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_named(name):
    options, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        kl.split(windows(), **options)
