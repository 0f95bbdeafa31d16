"""Random numbers and the epoch reach every hook that asks for them by name, and preprocess= is data."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import kloaders as kl

N = 12
X = np.arange(N, dtype=np.float32)


class Window(kl.SequenceLoader):
    """A random window of a long series that is the same for all."""

    def load_sample(self, index, rng):
        start = int(rng.integers(1000))
        return np.array([index, start])


class Files(kl.PathSequenceLoader):
    def load_sample(self, path, rng, epoch):
        return np.array([int(path.split(".")[0]), int(rng.integers(1000)), epoch])


class ByBatch(kl.SequenceLoader):
    def load_batch(self, indices, rngs, epoch):
        return np.array(
            [[i, r.integers(1000), epoch] for i, r in zip(indices.tolist(), rngs, strict=True)]
        )


def make_window(**options):
    return Window(N, 4, **{"seed": 5, **options})


def make_files(**options):
    paths = [f"{k}.own" for k in range(N)]
    return Files(paths, None, 4, **{"seed": 5, "check_paths": False, **options})


def make_by_batch(**options):
    return ByBatch(N, 4, **{"seed": 5, **options})


EVERY = pytest.mark.parametrize(
    "make", [make_window, make_files, make_by_batch], ids=["index", "path", "batch"]
)


def rows(loader, epoch=0):
    with loader:
        return np.concatenate(list(loader.epoch_batches(epoch, shuffle=False)))


@EVERY
@pytest.mark.parametrize(
    "options",
    [{"workers": 0}, {"workers": 2, "processes": True}, {"batch_size": 1}],
    ids=["none", "processes", "one"],
)
def test_a_sample_follows_from_seed_epoch_and_number(make, options):
    if options.pop("batch_size", None):
        alone = make()
        found = np.stack([alone.runner.pipeline.sample(k, _moment(2))[0] for k in range(N)])
    else:
        found = rows(make(**options), 2)
    want = rows(make(), 2)
    np.testing.assert_array_equal(found, want)
    assert want[:, 0].tolist() == list(range(N))
    assert len(set(want[:, 1].tolist())) > N // 2
    assert not np.array_equal(want, rows(make(), 3))
    assert not np.array_equal(want, rows(make(seed=6), 2))
    if want.shape[1] > 2:
        assert set(want[:, 2]) == {2}


def _moment(epoch):
    from kloaders.plan.rng import Moment

    return Moment(epoch)


@EVERY
def test_parts_views_and_pickles_draw_alike(make):
    loader = make()
    want = rows(loader, 1)
    for other in (loader.view(), pickle.loads(pickle.dumps(loader))):
        np.testing.assert_array_equal(rows(other, 1), want)
    np.testing.assert_array_equal(rows(kl.subset(loader, [7, 2]), 1), want[[7, 2]])


@EVERY
def test_a_resumed_epoch_has_the_same_windows(make):
    whole = make(shuffle=True)
    batches = list(whole.epoch_batches(3))
    state = whole.state_dict(epoch=3, batch=1)
    again = make(shuffle=True)
    again.load_state_dict(state)
    for got, want in zip(again, batches[1:], strict=True):
        np.testing.assert_array_equal(got, want)


@EVERY
def test_what_differs_in_each_epoch_is_not_kept(make, tmp_path):
    with pytest.raises(ValueError, match="takes random numbers or the epoch"):
        kl.preload(make(), progress=False)
    with pytest.raises(ValueError, match="takes random numbers or the epoch"):
        kl.write_pack(make(), tmp_path / "pack", progress=False)
    if make is not make_by_batch:
        with pytest.raises(ValueError, match="takes random numbers or the epoch"):
            make(cache="ram")


def test_ram_batches_are_read_anew_in_each_epoch():
    class Ram(kl.RamBatchSequenceLoader):
        load_sample = Files.load_sample

    paths = [f"{k}.own" for k in range(N)]
    loader = Ram(paths, None, 4, ram_batch_size=N, seed=5, check_paths=False, shuffle=True)
    with loader:
        epochs = [np.concatenate(list(loader)) for _ in range(2)]
    for epoch, found in enumerate(epochs):
        assert sorted(found[:, 0].tolist()) == list(range(N))
        assert set(found[:, 2]) == {epoch}


def test_a_hook_that_takes_something_else_is_refused():
    class Three(kl.SequenceLoader):
        def load_sample(self, index, more, rng):
            return X[index]

    class OneRng(kl.SequenceLoader):
        def load_batch(self, indices, rng):
            return X[indices]

    with pytest.raises(TypeError, match=r"load_sample.*expected a function load_sample\(sample\)"):
        Three(N)
    with pytest.raises(TypeError, match="take rngs, a list with one generator"):
        OneRng(N)


# ---------------------------------------------------------------- transform(..., epoch)


def ramp(x, y, rng, epoch):
    return x + 100 * epoch, y


def test_transforms_get_the_epoch():
    for name in ("transform", "batch_transform"):
        loader = kl.ArraySequenceLoader(X, X, 4, seed=1, **{name: ramp})
        for epoch in (0, 2):
            got = np.concatenate([x for x, _ in loader.epoch_batches(epoch, shuffle=False)])
            np.testing.assert_array_equal(got, X + 100 * epoch)


def test_the_epoch_is_that_of_fit_with_look_ahead():
    loader = kl.ArraySequenceLoader(X, X, 4, seed=1, transform=ramp, shuffle=True)
    with loader:
        for epoch in range(3):
            got = np.concatenate([x for x, _ in loader])
            assert sorted(got.tolist()) == (X + 100 * epoch).tolist()


def test_a_hook_and_a_transform_do_not_draw_the_same_numbers():
    class Reads(kl.SequenceLoader):
        def load_sample(self, index, rng):
            return rng.random(3)

    loader = Reads(N, 4, seed=1, transform=lambda x, y, rng: (x - rng.random(3), y))
    assert np.abs(loader[0]).min() > 1e-6


# ---------------------------------------------------------------- preprocess=


def scale(x, y):
    return x / 10, y


def noisy(x, y, rng):
    return x + rng.random(), y


def test_both_parts_of_a_split_are_preprocessed():
    augment = lambda x, y, rng: (x + 100, y)  # noqa: E731
    loader = kl.ArraySequenceLoader(X, X, 4, preprocess=scale, transform=augment, seed=1)
    train, val = kl.split(loader, seed=1)
    np.testing.assert_allclose(val[0][0], val[0][1] / 10)
    np.testing.assert_allclose(train[0][0], train[0][1] / 10 + 100)
    train, val = kl.split(loader, seed=1, validation_transform=lambda x, y, rng: (x - 1, y))
    np.testing.assert_allclose(val[0][0], val[0][1] / 10 - 1, rtol=1e-5)


def test_what_is_kept_is_what_is_read(tmp_path):
    loader = kl.ArraySequenceLoader(X, X, 4, preprocess=noisy, seed=1)
    want = np.concatenate([x for x, _ in loader.epoch_batches(5, shuffle=False)])
    assert len(set((want - X).tolist())) == N
    kl.write_pack(loader, tmp_path / "pack", progress=False)
    paths = [str(tmp_path / f"{k}.npy") for k in range(N)]
    for path, x in zip(paths, X, strict=True):
        np.save(path, x)
    others = [
        kl.preload(loader, progress=False),
        kl.PackSequenceLoader(tmp_path / "pack", 4),
        kl.ArraySequenceLoader(X, X, 4, preprocess=noisy, seed=2, cache="ram"),
        kl.PathSequenceLoader(paths, X, 4, preprocess=noisy, cache="ram"),
        kl.PathSequenceLoader(paths, X, 4, preprocess=noisy, cache=tmp_path / "cache"),
        kl.PathSequenceLoader(paths, X, 4, preprocess=noisy, cache=tmp_path / "cache"),
        kl.PathSequenceLoader(paths, X, 4, preprocess=noisy, workers=1, processes=True),
    ]
    for other in others:
        with other:
            for _ in range(2):
                got = np.concatenate([x for x, _ in other.epoch_batches(0, shuffle=False)])
                np.testing.assert_array_equal(got, want)


def test_a_cache_keeps_preprocessed_samples_and_another_function_makes_others(tmp_path):
    calls = []

    def counted(x, y):
        calls.append(1)
        return x * 2, y

    loader = kl.ArraySequenceLoader(X, X, 4, preprocess=counted, cache="ram")
    with loader:
        for _ in range(3):
            for x, y in loader.epoch_batches(shuffle=False):
                np.testing.assert_array_equal(x, y * 2)
    assert len(calls) <= N + 2  # one look at the first one for its shape
    paths = [str(tmp_path / f"{k}.npy") for k in range(N)]
    for path, x in zip(paths, X, strict=True):
        np.save(path, x)
    for factor in (2, 3):
        made = kl.PathSequenceLoader(
            paths, X, 4, preprocess=lambda x, y, f=factor: (x * f, y), cache=tmp_path / "cache"
        )
        with made:
            for x, y in made.epoch_batches(shuffle=False):
                np.testing.assert_array_equal(x, y * factor)


def test_a_hook_is_preprocessed_too():
    class Own(kl.SequenceLoader):
        def load_sample(self, index):
            return X[index], X[index]

    loader = Own(N, 4, preprocess=scale, cache="ram")
    with loader:
        for x, y in loader.epoch_batches(shuffle=False):
            np.testing.assert_allclose(x, y / 10)


def test_a_validation_transform_needs_a_validation_part(tmp_path):
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "0.npy", X)
    table = {"path": [str(tmp_path / "a" / "0.npy")]}
    with pytest.raises(ValueError, match="validation_transform= is for the validation part"):
        kl.from_directory(tmp_path, validation=None, validation_transform=noisy)
    with pytest.raises(ValueError, match="validation_transform= is for the validation part"):
        kl.from_dataframe(table, "path", validation=None, validation_transform=noisy)


def test_every_front_door_takes_a_validation_transform(tmp_path):
    from sklearn.model_selection import KFold

    for name in "ab":
        (tmp_path / name).mkdir()
        for k in range(6):
            np.save(tmp_path / name / f"{k}.npy", np.float32(k))
    paths = sorted(map(str, tmp_path.glob("*/*.npy")))
    minus = lambda x, y, rng: (x - 100, y)  # noqa: E731
    plus = lambda x, y, rng: (x + 100, y)  # noqa: E731
    both = {"transform": plus, "validation_transform": minus, "batch_size": 4}
    whole = kl.PathSequenceLoader(paths, np.arange(12) % 2, 4, transform=plus)
    made = [
        kl.from_directory(tmp_path, **both),
        kl.from_dataframe({"path": paths, "label": [0, 1] * 6}, "path", "label", **both),
        kl.split(paths, np.arange(12) % 2, **both),
        *kl.folds(whole, KFold(3), validation_transform=minus),
    ]
    for train, val in made:
        assert train[0][0].min() >= 100
        assert val[0][0].max() < 0


def test_the_first_fold_warns_where_the_parts_differ(caplog):
    from sklearn.model_selection import KFold

    loader = kl.ArraySequenceLoader(X, X, 4, transform=lambda x, y, rng: (np.stack([x, x]), y))
    list(kl.folds(loader, KFold(3)))
    said = [r.getMessage() for r in caplog.records if "validation part" in r.getMessage()]
    assert len(said) == 1
    assert "preprocess=" in said[0]
