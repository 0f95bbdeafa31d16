"""Pictures of records kept decoded."""

import os
from pathlib import Path

import numpy as np
import pytest

import kloaders as kl
from kloaders.formats.tfrecord.files import RecordFiles
from tests.support.recording import numbers_of
from tests.support.tfrecords import IMAGE, SAMPLES, everything, png


@pytest.fixture(params=["auto", "ram", "folder"])
def where(request, tmp_path):
    return tmp_path / "cache" if request.param == "folder" else request.param


def test_each_picture_is_decoded_once(of_pictures, decoded, where):
    """Later epochs decode nothing, in any order, nor does a view; labels come along."""
    with kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, cache=where) as loader:
        first = everything(loader)
        decoded.clear()
        for x, y in (everything(loader), everything(loader.view())):
            assert numbers_of(x) == list(range(SAMPLES))
            np.testing.assert_array_equal(y, first[1])
        x, y = everything(loader, shuffle=True)
        np.testing.assert_array_equal(y, np.array(numbers_of(x)) % 5)
        assert not decoded
        assert loader.summary().count("cache:") == 2
    with kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, cache=None) as loader:
        everything(loader)
        assert len(decoded) >= SAMPLES
        assert "cache:" not in loader.summary()


def test_a_split_and_a_transform_share_the_cache(of_pictures, decoded, where):
    """A transform runs anew each time, on what is kept; both sides read one cache."""
    drawn = []

    def transform(x, y, rng):
        drawn.append(np.ndim(y))
        x[:] = 0  # the sample that is kept is another array
        return x, y

    whole = kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, cache=where, transform=transform)
    with whole, kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, cache=where) as plain:
        train, validation = kl.split(whole, validation=0.3, seed=1)
        with train, validation:
            sides = [everything(train, epoch=epoch) for epoch in range(2)]
            decoded.clear()
            everything(train)
            assert len(drawn) - 3 * train.samples in (0, 1)  # one to see what it gives
            assert not sides[1][0].any()
            x, y = everything(validation)
            assert len(decoded) <= validation.samples
            np.testing.assert_array_equal(y, np.array(numbers_of(x)) % 5)
        assert numbers_of(everything(plain)[0]) == list(range(SAMPLES))


def test_numbers_and_users_functions_are_kept_only_by_word(write, decoded, of_pictures):
    """Arrays lie in the file as they are wanted, and a function may draw random numbers."""
    path = write([{"x": np.arange(4.0), "label": k} for k in range(SAMPLES)])
    calls = []

    def decode(raw):
        calls.append(len(raw))
        return np.full(3, len(calls))

    numbers = kl.TFRecordSequenceLoader(path, {"x": "x", "y": "label"}, 4)
    own = kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, decode=decode)
    for loader in (numbers, own):
        with loader:
            everything(loader)
            everything(loader)
            assert "cache:" not in loader.summary()
    assert len(calls) >= 2 * SAMPLES
    with kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, decode=decode, cache="ram") as loader:
        first = everything(loader)
        calls.clear()
        np.testing.assert_array_equal(everything(loader)[0], first[0])
        assert not calls

    class Own(kl.TFRecordSequenceLoader):
        def load_sample(self, index):
            calls.append(index)
            return super().load_sample(index)

    for kept, expected in (("auto", SAMPLES), ("ram", 0)):
        with Own(of_pictures, IMAGE, 4, cache=kept) as loader:
            everything(loader)
            calls.clear()
            assert numbers_of(everything(loader)[0]) == list(range(SAMPLES))
            assert len(calls) == expected


def test_a_later_run_finds_what_a_folder_keeps(of_pictures, decoded, tmp_path):
    """With the same options nothing is decoded, with others all of it."""
    for size, more in (((4, 4), SAMPLES), ((4, 4), 0), ((8, 8), SAMPLES)):
        loader = kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, size=size, cache=tmp_path / "c")
        decoded.clear()
        with loader:
            assert everything(loader)[0].shape == (SAMPLES, *size, 3)
        assert len(decoded) - more in (0, 1)  # the first one is looked at for what it is


@pytest.mark.parametrize("rows", [7, 7.9, SAMPLES])
def test_a_budget_is_shared_by_the_arrays_of_a_sample(of_pictures, decoded, rows):
    """No picture takes the room of the label without which it could not be served."""
    loader = kl.TFRecordSequenceLoader(
        of_pictures, IMAGE, 4, cache="ram", cache_budget=int(rows * (4 * 4 * 3 + 8))
    )
    with loader:
        for _ in range(2):
            decoded.clear()
            x, y = everything(loader, shuffle=True)
            assert sorted(numbers_of(x)) == list(range(SAMPLES))
            np.testing.assert_array_equal(y, np.array(numbers_of(x)) % 5)
        assert SAMPLES - int(rows) <= len(decoded) <= SAMPLES - int(rows) + 1


def test_a_damaged_record_and_a_changed_file_are_not_served(write, decoded, where):
    """What does not load is met each time; a file that is another one now is read again."""
    samples = [{"image_raw": png(k), "label": k} for k in range(SAMPLES)]
    path = write(samples)
    offsets = RecordFiles([path])._offsets
    content = bytearray(Path(path).read_bytes())
    content[int(offsets[5]) + 20] ^= 1
    Path(path).write_bytes(content)
    loader = kl.TFRecordSequenceLoader(path, IMAGE, 4, cache=where, on_error="skip")
    with loader:
        for _ in range(2):
            assert 5 not in everything(loader)[1]
        assert len(loader.errors) == 1
        write([{**sample, "label": 1} for sample in samples])  # its records lie elsewhere
        os.truncate(path, os.path.getsize(path) - 1)
        os.utime(path, (1, 1))
        assert set(everything(loader)[1][1:].tolist()) <= {0, 1}


def test_what_the_cache_cannot_do_is_refused(of_pictures, tmp_path):
    """RAM batches have a budget of their own; RAM is not shared by processes."""
    with pytest.raises(ValueError, match="cache=<folder>, which processes share"):
        kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, cache="ram", processes=True)
    loader = kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, ram_batch_size=8)
    everything(loader)
    assert loader.source.stores() == []

    class Many(kl.TFRecordSequenceLoader):
        def load_batch(self, indices):
            return np.zeros((len(indices), 2))

    with pytest.raises(ValueError, match="load_batch returns whole batches"):
        Many(of_pictures, None, 4, cache=tmp_path / "c")
    kept = kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, cache="ram")
    with pytest.raises(ValueError, match=r"cache='ram' is kept in Python"):
        kl.to_tf_dataset(kept, shuffle=False, native=True)


def test_processes_share_a_folder(of_pictures, tmp_path):
    """What workers have decoded is there for a loader without them."""
    folder = tmp_path / "c"
    options = {"cache": folder, "seed": 1}
    with kl.TFRecordSequenceLoader(
        of_pictures, IMAGE, 4, processes=True, workers=2, **options
    ) as loader:
        x, y = everything(loader, shuffle=True)
    np.testing.assert_array_equal(y, np.array(numbers_of(x)) % 5)
    assert list(folder.glob("*/*.segment"))
    with kl.TFRecordSequenceLoader(of_pictures, IMAGE, 4, **options) as loader:
        np.testing.assert_array_equal(everything(loader, shuffle=True)[0], x)
