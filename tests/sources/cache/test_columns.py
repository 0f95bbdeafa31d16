"""Decoded samples are kept, never served stale, and never cost the training."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

import kloaders as kl
from tests.sources.cache.pictures import ALL, BATCH, SAMPLES, numbers, write


def test_each_file_is_decoded_once(pictures, decoded, where, keep):
    """Later epochs read nothing, in any order, and get the same samples."""
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where))
    assert numbers(loader) == ALL
    decoded.clear()
    assert numbers(loader) == ALL
    for epoch in range(3):
        assert sorted(numbers(loader, epoch, shuffle=True)) == ALL
    assert not decoded
    assert "12" in loader.summary().split("cache:")[1]


def test_the_default_keeps_and_none_does_not(pictures, decoded, keep):
    """cache="auto" is what a loader does by itself."""
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH))
    assert numbers(loader) == numbers(loader) == ALL
    assert len(decoded) == SAMPLES
    decoded.clear()
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=None))
    assert numbers(loader) == numbers(loader) == ALL
    assert len(decoded) == 2 * SAMPLES + 1
    assert "cache" not in loader.summary()


def test_masks_are_kept_beside_pictures(pictures, decoded, where, keep):
    loader = keep(kl.PathSequenceLoader(pictures, pictures[::-1], BATCH, cache=where))
    for epoch in range(2):
        for x, y in loader.epoch_batches(epoch, True):
            assert (x[:, 0, 0, 0] + y[:, 0, 0, 0] == SAMPLES - 1).all()
    decoded.clear()
    list(loader.epoch_batches(5, True))
    assert not decoded


def test_a_transform_draws_anew(pictures, decoded, where, keep):
    """What is kept is the sample before the transform, and no transform writes to it."""

    def noise(x, y, rng):
        x += np.uint8(rng.integers(100))
        return x, y

    options = {"transform": noise, "seed": 3}
    kept = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where, **options))
    plain = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=None, **options))
    for epoch in range(3):
        assert numbers(kept, epoch) == numbers(plain, epoch)
    assert numbers(kept, 0) != numbers(kept, 1)


def test_users_code_only_by_word(pictures, keep):
    """decode= and load_sample may be random: "auto" lets them be, "ram" keeps what they gave."""
    calls = []

    def decode(raw):
        calls.append(1)
        return np.full((1, 1, 1), len(calls), np.uint8)

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path):
            return decode(b"")

    class ByIndex(kl.SequenceLoader):
        def load_sample(self, index):
            return decode(b"")

    for make in (
        lambda **o: kl.PathSequenceLoader(pictures, None, BATCH, decode=decode, **o),
        lambda **o: Own(pictures, None, BATCH, **o),
        lambda **o: ByIndex(SAMPLES, BATCH, **o),
    ):
        loader = keep(make(workers=0))
        assert numbers(loader) != numbers(loader)
        loader = keep(make(workers=0, cache="ram"))
        assert numbers(loader) == numbers(loader)


def test_single_numbers_stay_single_numbers(pictures, where, keep):
    """What a hook gives comes back as it was, in RAM and in a folder."""

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path):
            return super().load_sample(path), np.int64(len(path))

    loader = keep(Own(pictures, None, BATCH, cache=where))
    for _ in range(2):
        assert [y.shape for _, y in loader.epoch_batches()] == [(BATCH,)] * 3


@pytest.mark.parametrize("rows", [5, 5.9])
def test_a_budget_is_shared_by_the_arrays_of_a_sample(pictures, keep, rows):
    """None takes the room of another, without which it is of no use."""
    loaded = []

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path):
            loaded.append(path)
            x = super().load_sample(path)
            return x, x[:1].copy()

    budget = int(rows * (48 + 12))
    loader = keep(Own(pictures, None, BATCH, cache="ram", cache_budget=budget))
    assert numbers(loader) == ALL
    loaded.clear()
    assert numbers(loader) == ALL
    assert SAMPLES - 5 <= len(loaded) <= SAMPLES - 4


def of_all_sizes(pictures):
    """Give each picture a size of its own."""
    for number, path in enumerate(pictures):
        assert cv2.imwrite(path, np.full((4 + number, 20 - number, 3), number, np.uint8))


def cut(x, y, rng):
    """A random crop of 2 x 2 pixels."""
    top, left = rng.integers(x.shape[0] - 1), rng.integers(x.shape[1] - 1)
    return x[top : top + 2, left : left + 2], y


@pytest.mark.parametrize(
    ("options", "make"),
    [
        ({"batch_size": 1}, lambda loader: loader),
        ({"batch_size": BATCH, "transform": cut}, lambda loader: loader),
        ({"batch_size": BATCH}, kl.padded_batches),
    ],
    ids=["one by one", "random crop", "padded"],
)
def test_samples_of_any_shape_are_kept(pictures, decoded, where, keep, options, make):
    """Photographs of their own size: each is decoded once, and comes as it is."""
    of_all_sizes(pictures)
    loader = keep(make(kl.PathSequenceLoader(pictures, None, cache=where, **options)))
    shapes = []
    for epoch in range(3):
        assert numbers(loader) == ALL
        shapes.append([batch.shape for batch in loader.epoch_batches(epoch)])
        if not epoch:
            once = len(decoded)
    assert len(decoded) == once
    assert shapes[0] == shapes[1] == shapes[2]
    (store,) = loader.source.stores()
    assert str(store).startswith(f"{SAMPLES} ")
    if where == "ram":
        assert f"{SAMPLES} of {SAMPLES} samples" in str(store)
        loader.close()
        assert store.nbytes == store.budget._used == 0


def test_a_changed_file_of_another_shape_is_read_again(pictures, where, keep, monkeypatch):
    monkeypatch.setattr("kloaders.sources.cache.store.CHECK_SECONDS", -1)
    of_all_sizes(pictures)
    loader = keep(kl.PathSequenceLoader(pictures, None, 1, cache=where))
    assert numbers(loader) == ALL
    for size in ((4, 20), (9, 9)):
        assert cv2.imwrite(pictures[5], np.full((*size, 3), 105, np.uint8))
        found = list(loader.epoch_batches())
        assert found[5].shape == (1, *size, 3)
        assert [int(batch[0, 0, 0, 0]) for batch in found] == [105 if n == 5 else n for n in ALL]


def test_a_budget_holds_for_samples_of_any_shape(pictures, decoded, keep):
    """No more is kept than it says, and what is kept is read no more."""
    of_all_sizes(pictures)
    budget = 2000  # about half of them
    loader = keep(kl.PathSequenceLoader(pictures, None, 1, cache="ram", cache_budget=budget))
    assert numbers(loader) == ALL
    decoded.clear()
    assert numbers(loader) == ALL
    (store,) = loader.source.stores()
    assert 0 < store.nbytes <= budget
    assert 0 < len(decoded) < SAMPLES


def test_a_split_shares_the_cache(pictures, decoded, where, keep):
    """Training and validation part keep in one store, under the number in the whole."""
    train, val = kl.split(pictures, None, BATCH, seed=1, cache=where)
    keep(train), keep(val)
    for _ in range(2):
        assert sorted(numbers(train) + numbers(val)) == ALL
    assert len(decoded) <= SAMPLES + 2
    assert train.source.stores()[0] is val.source.stores()[0]


def test_views_share_and_the_last_one_frees(pictures, decoded, keep):
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH))
    other = keep(loader.view())
    assert numbers(loader) == numbers(other) == ALL
    decoded.clear()
    other.close()
    assert numbers(loader) == ALL
    assert not decoded
    assert loader.source.stores()[0].nbytes
    loader.close()
    assert not loader.source.stores()[0].nbytes
    assert numbers(loader) == ALL  # it comes back


def test_preload_does_not_keep_twice(pictures, keep):
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH))
    keep(kl.preload(loader, progress=False))
    assert loader.source.stores()[0].nbytes <= 48  # sample 0, whose shape was looked at


def test_bad_samples_are_not_kept(pictures, where, keep):
    """on_error deals with them each time, and one that was mended is served."""
    raw = Path(pictures[3]).read_bytes()
    Path(pictures[3]).write_bytes(raw[:20])
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where, on_error="skip"))
    for _ in range(2):
        assert numbers(loader) == [n for n in ALL if n != 3]
    write(pictures[3], 3)
    assert numbers(loader) == ALL


def test_pickled_loaders_start_empty(pictures, where, keep):
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where))
    assert numbers(loader) == ALL
    assert len(pickle.dumps(loader)) < 10_000
    assert numbers(keep(pickle.loads(pickle.dumps(loader)))) == ALL


def test_under_fit(pictures, decoded, where, keep):
    """The model gets every sample once an epoch, from files and from the cache."""
    from tests.support.recording import recording_model

    model, received = recording_model((4, 4, 3), "uint8")
    paths = pictures[:11]
    for number, path in enumerate(paths):
        image = np.zeros((4, 4, 3), np.uint8)
        image[..., 2] = number  # BGR
        assert cv2.imwrite(path, image)
    loader = keep(kl.PathSequenceLoader(paths, np.arange(11, dtype="f4"), BATCH, cache=where))
    model.fit(loader, epochs=4, verbose=0)
    trained = [number for batch in received.trained for number in batch]
    for epoch in range(4):
        assert sorted(trained[11 * epoch : 11 * (epoch + 1)]) == list(range(11))
    assert len(decoded) <= 11 + 2 * BATCH + 1  # and the looks that Keras takes


def test_a_part_is_kept_where_not_all_fits(pictures, decoded, where, keep):
    """What fits is served from the cache, the rest is read."""
    budget = 5 * 48 if not isinstance(where, Path) else 5 * (48 + 60)
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where, cache_budget=budget))
    assert numbers(loader) == ALL
    decoded.clear()
    assert sorted(numbers(loader, 1, shuffle=True)) == ALL
    assert SAMPLES - 6 <= len(decoded) <= SAMPLES - 3


def test_a_changed_file_is_read_again(pictures, where, keep):
    """By size or modification time, in this process and in the next."""
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where))
    assert numbers(loader) == ALL
    write(pictures[7], 99)
    os.utime(pictures[7], ns=(0, 12345))
    assert numbers(loader)[7] == 99
    assert numbers(loader)[7] == 99
    other = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where))
    assert numbers(other)[7] == 99


def test_a_file_that_is_gone_is_an_error(pictures, where, keep):
    """Also where its picture is still kept: the data are not what they were."""
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where))
    assert numbers(loader) == ALL
    os.remove(pictures[2])
    with pytest.raises(kl.SampleError, match=r"02\.png"):
        numbers(loader)
