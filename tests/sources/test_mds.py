"""Samples of MDS folders: which sample is which, and what is broken is named."""

import pickle

import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.mds import read_index
from kloaders.formats.options import ImageOptions
from kloaders.plan.rng import Moment
from kloaders.sources.encoded import fields_of
from kloaders.sources.mds import MDSSource
from tests.support.mds_files import write_mds

COLUMNS = {"n": "int", "half": "float32", "text": "str", "json": "json", "array": "ndarray"}
SAMPLES = [
    {
        "n": n,
        "half": n / 2,
        "text": "ab"[n % 2],
        "json": {"box": [n, 1]},
        "array": np.full((2, 3), n, np.float32),
    }
    for n in range(10)
]


@pytest.fixture
def folder(tmp_path):
    write_mds(tmp_path / "data", COLUMNS, SAMPLES)
    return tmp_path / "data"


def source_of(folder, x="n", y=None, decode=None, class_names=None):
    options = ImageOptions(), decode
    fields = fields_of(x, y, options, (ImageOptions(), None), class_names)
    return MDSSource(read_index(str(folder)), fields)


def test_samples_come_by_number(folder):
    x = {"n": "n", "array": "array", "box": "json:box", "row": ["half", "json:box:0"]}
    source = source_of(folder, x, "text", class_names=["a", "b"])
    assert len(source) == 10
    for n in (0, 3, 4, 9):
        x, y = source.sample(n, Moment())
        assert (x["n"], y, x["box"].tolist(), x["row"].tolist()) == (n, n % 2, [n, 1], [n / 2, n])
        np.testing.assert_array_equal(x["array"], np.full((2, 3), n, np.float32))


def test_names_and_files(folder):
    source = source_of(folder)
    assert source.name(5).startswith(f"{folder / 'shard.00001.mds'}, sample 1 at byte ")
    assert source.file_of(9) == str(folder / "shard.00002.mds")
    assert len(source.paths_of_all) == 3


def test_decode_gets_the_bytes(folder):
    assert source_of(folder, "json", decode=len).sample(3, Moment())[0] == len(b'{"box": [3, 1]}')


def test_images_that_are_not_encoded(tmp_path):
    want = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    raw = np.array([4, 2, 3], "<u4").tobytes() + b"RGB" + want.tobytes()
    write_mds(tmp_path, {"image": "pil"}, [{"image": raw}])
    np.testing.assert_array_equal(source_of(tmp_path, "image").sample(0, Moment())[0], want)


def test_what_is_broken_is_named(folder):
    with pytest.raises(
        ValueError, match="there is no column 'm', the columns are array, half, json"
    ):
        source_of(folder, "m")
    with pytest.raises(DecodeError, match="'json' has no 'cat', it has 'box'"):
        source_of(folder, "json:cat").sample(0, Moment())
    shard = folder / "shard.00001.mds"
    raw = bytearray(shard.read_bytes())
    raw[:4] = b"\7\0\0\0"
    shard.write_bytes(raw)
    with pytest.raises(DecodeError, match=r"shard\.00001\.mds is damaged: its sample table"):
        source_of(folder)
    shard.write_bytes(raw[:-1])
    with pytest.raises(DecodeError, match=r"shard\.00001\.mds has \d+ bytes, but its index says"):
        source_of(folder)


def test_a_column_that_makes_no_value_is_named(tmp_path):
    write_mds(tmp_path, {"x": "json"}, [{"x": 1}, {"x": 2}])
    shard = tmp_path / "shard.00000.mds"
    shard.write_bytes(shard.read_bytes()[:-1] + b"{")
    source = source_of(tmp_path, "x")
    assert source.sample(0, Moment())[0] == 1
    with pytest.raises(DecodeError, match="its column 'x' is damaged"):
        source.sample(1, Moment())


def test_it_pickles_and_closes(folder):
    source = source_of(folder)
    source.close()
    assert pickle.loads(pickle.dumps(source)).sample(7, Moment())[0] == 7


def test_other_data_have_another_fingerprint(folder, tmp_path):
    one = source_of(folder).fingerprint()
    assert one == source_of(folder).fingerprint()
    write_mds(tmp_path / "other", COLUMNS, SAMPLES[:9])
    assert one != source_of(tmp_path / "other").fingerprint()
