"""`loader.set(...)`: from the next epoch on, at whatever moment it is called, and in states."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

import kloaders as kl

N = 12
X = np.arange(N, dtype=np.float32)


def plus(n):
    return lambda x, y, rng: (x + n, y)


def arrays(**options):
    return kl.ArraySequenceLoader(X, X, 4, **{"seed": 3, "shuffle": True, **options})


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for k in range(N):
        paths.append(str(tmp_path / f"{k:02}.png"))
        cv2.imwrite(paths[-1], np.full((8, 8, 3), k, np.uint8))
    return paths


def epoch_of(loader):
    return np.concatenate([x for x, _ in loader])


def test_between_two_epochs_it_holds_for_the_next():
    with arrays(transform=plus(100)) as loader:
        assert sorted(epoch_of(loader)) == list(X + 100)
        loader.set(transform=plus(200))
        assert loader.transform(0, 0, None)[0] == 200
        assert sorted(epoch_of(loader)) == list(X + 200)
        loader.set(transform=None)
        assert sorted(epoch_of(loader)) == list(X)


@pytest.mark.parametrize("workers", [0, 2])
def test_in_an_epoch_it_waits_for_the_next(workers):
    with arrays(transform=plus(100), workers=workers) as loader:
        got = []
        for k, (x, _) in enumerate(loader):
            got.append(x)
            if k == 1:
                loader.set(transform=plus(200))
        assert sorted(np.concatenate(got)) == list(X + 100)
        assert sorted(epoch_of(loader)) == list(X + 200)


def test_the_order_goes_on():
    """What changes is what samples look like; which come when stays that of the seed."""
    plain = arrays()
    want = [epoch_of(plain) for _ in range(3)]
    with arrays() as loader:
        got = [epoch_of(loader)]
        loader.set(transform=plus(100))
        got.append(epoch_of(loader) - 100)
        loader.set(batch_transform=plus(50))
        got.append(epoch_of(loader) - 150)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_sampling_weights_change():
    ones = np.ones(N)
    first = np.r_[np.ones(4), np.zeros(8)]
    with arrays(sampling_weights=ones, seed=4) as loader:
        assert len(set(epoch_of(loader))) > 6
        loader.set(sampling_weights=first)
        assert set(epoch_of(loader)) <= set(X[:4])
        assert loader.sampling.weights.tolist() == first.tolist()
        with pytest.raises(ValueError, match="expected one number for each"):
            loader.set(sampling_weights=np.ones(3))
    with pytest.raises(ValueError, match="make it with sampling_weights"):
        arrays().set(sampling_weights=ones)


def test_class_weights_change():
    labels = np.arange(N) % 2
    loader = kl.ArraySequenceLoader(X, labels, 4)
    assert len(loader[0]) == 2
    loader.set(class_weight={0: 1.0, 1: 5.0})
    assert loader[0][2].tolist() == [1, 5, 1, 5]
    loader.set(class_weight=None)
    assert len(loader[0]) == 2


@pytest.mark.parametrize("kind", ["path", "masks", "ram", "subset", "cached", "hook"])
def test_a_size_changes(pictures, kind, tmp_path):
    options = {"size": (4, 4), "seed": 1, "shuffle": True}
    if kind == "masks":
        loader = kl.PathSequenceLoader(pictures, pictures, 4, **options)
    elif kind == "ram":
        loader = kl.RamBatchSequenceLoader(pictures, X, 4, ram_batch_size=8, **options)
    elif kind == "hook":

        class Own(kl.PathSequenceLoader):
            def load_sample(self, path):
                return super().load_sample(path)

        loader = Own(pictures, X, 4, **options)
    else:
        cache = tmp_path / "cache" if kind == "cached" else "auto"
        loader = kl.PathSequenceLoader(pictures, X, 4, cache=cache, **options)
    if kind == "subset":
        loader = kl.subset(loader, np.arange(N))
    with loader:
        for size in ((4, 4), (6, 6), (2, 2)):
            if size != (4, 4):
                loader.set(size=size)
            batches = list(loader)
            assert {x.shape[1:3] for x, _ in batches} == {size}
            if kind == "masks":
                assert {y.shape[1:3] for _, y in batches} == {size}
            numbers = np.concatenate([x[:, 0, 0, 0] for x, _ in batches])
            assert sorted(numbers) == list(range(N))
            assert loader.sample_spec[0].shape == (*size, 3)


def test_a_state_has_what_was_set(pictures):
    def made():
        return kl.PathSequenceLoader(pictures, X, 4, size=(4, 4), seed=1, shuffle=True)

    with made() as loader:
        assert "set" not in loader.state_dict()
        list(loader)
        loader.set(size=(6, 6))
        batches = iter(loader)
        next(batches)
        state = json.loads(json.dumps(loader.state_dict()))
        want = list(batches)
    with made() as again:
        again.load_state_dict(state)
        assert again.image_options.size == (6, 6)
        for (x, y), (a, b) in zip(again, want, strict=True):
            np.testing.assert_array_equal(x, a)
            np.testing.assert_array_equal(y, b)


def test_what_a_state_cannot_hold_has_to_be_set_again():
    with arrays() as loader:
        list(loader)
        loader.set(transform=plus(7))
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        want = [x for x, _ in batches]
    again = arrays()
    with pytest.raises(ValueError, match=r"taken after set\(transform=...\).*call loader.set"):
        again.load_state_dict(state)
    again.set(transform=plus(8))
    with pytest.raises(ValueError, match="has another transform"):
        again.load_state_dict(state)
    again.set(transform=plus(7))
    again.load_state_dict(state)
    for (x, _), y in zip(again, want, strict=True):
        np.testing.assert_array_equal(x, y)
    changed = arrays()
    changed.set(transform=plus(1))
    with pytest.raises(ValueError, match="from a loader that was not"):
        changed.load_state_dict(arrays().state_dict(epoch=1, batch=1))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"batch_size": 8}, TypeError, "batch_size is fixed when a loader is made; set"),
        ({"transfrom": None}, TypeError, "did you mean transform="),
        ({"transform": 3}, TypeError, "expected a function transform"),
        ({"size": (4, 4)}, TypeError, "for loaders of image files"),
        ({"class_weight": [1.0]}, TypeError, "expected a dict of class to weight"),
    ],
    ids=["batch_size", "misspelt", "not a function", "size", "class_weight"],
)
def test_what_cannot_be_set(changes, error, words):
    loader = arrays()
    with pytest.raises(error, match=words):
        loader.set(**changes)
    assert sorted(epoch_of(loader)) == list(X)


def test_an_assignment_says_that_there_is_set(pictures):
    loader = arrays()
    for name in ("transform", "batch_transform", "class_weight", "sampling_weights"):
        with pytest.raises(
            AttributeError,
            match=rf"cannot be assigned: call loader.set\({name}=...\), which changes",
        ):
            setattr(loader, name, None)
    with pytest.raises(AttributeError, match="fixed when it is made"):
        loader.preprocess = plus(1)
    with pytest.raises(AttributeError, match="fixed when it is made"):
        loader.sample_weights = X
    with pytest.raises(AttributeError, match="did you mean transform"):
        loader.transfrom = plus(1)
    with pytest.raises(AttributeError, match=r"set\(size="):
        kl.PathSequenceLoader(pictures, X).size = (3, 3)


def test_views_and_parts_have_it():
    loader = arrays()
    loader.set(transform=plus(100))
    for other in (loader.view(), kl.subset(loader, np.arange(N))):
        assert sorted(epoch_of(other)) == list(X + 100)
