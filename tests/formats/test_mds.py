"""MDS: what an index says, and what the bytes of columns mean."""

import json

import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.mds import decoder_of, read_index, split_sample
from tests.support.mds_files import write_mds

SAMPLES = [{"n": n, "text": "é" * n} for n in range(10)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


def test_an_index_describes_shards(folder):
    write_mds(folder, {"n": "int", "text": "str"}, SAMPLES)
    shards = read_index(str(folder))
    assert [shard.samples for shard in shards] == [4, 4, 2]
    assert shards[1].path == str(folder / "shard.00001.mds")
    assert shards[0].names == ("n", "text")
    assert shards[0].encodings == ("int", "str")
    assert shards[0].sizes == (8, None)


def test_columns_of_a_sample(folder):
    write_mds(folder, {"a": "str", "n": "int", "z": "bytes"}, [{"a": "xy", "n": 5, "z": b"end"}])
    (shard,) = read_index(str(folder))
    raw = (folder / "shard.00000.mds").read_bytes()
    start = int(np.frombuffer(raw, "<u4", 1, 4)[0])
    found = split_sample(shard, raw[start:])
    assert found == {"a": b"xy", "n": np.int64(5).tobytes(), "z": b"end"}
    for wrong in (raw[start:-1], raw[start:] + b"1", raw[start : start + 3], b""):
        with pytest.raises(DecodeError, match="it is damaged: its columns have"):
            split_sample(shard, wrong)


@pytest.mark.parametrize(
    ("encoding", "raw", "want"),
    [
        ("int", b"\xff" * 8, np.int64(-1)),
        ("uint16", b"\1\2", np.uint16(513)),
        ("float32", np.float32(1.5).tobytes(), np.float32(1.5)),
        ("str", "é".encode(), "é"),
        ("str_int", b"-12", -12),
        ("str_float", b"1.5", 1.5),
        ("str_decimal", b"1.25", 1.25),
        ("bytes", b"abc", b"abc"),
        ("jpeg", b"abc", b"abc"),
        ("json", b'{"a": [1]}', {"a": [1]}),
        ("list[png]", b"\0\0\0\0\2\0\0\0\1\0\0\0\2\0\0\0abc", [b"a", b"bc"]),
        ("jpeg_array", b"\1\0\0\0\2\0\0\0bc", [b"bc"]),
    ],
)
def test_values(encoding, raw, want):
    found = decoder_of(encoding, "x")(raw)
    assert found == want
    assert type(found) is type(want)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16", "uint32", "int64", "float64"])
def test_arrays_of_any_dtype_and_shape(dtype):
    kind = {"uint8": 8, "int16": 17, "float16": 18, "uint32": 32, "int64": 65, "float64": 66}[dtype]
    want = np.arange(6).astype(dtype).reshape(2, 3)
    values = want.tobytes()
    for encoding, raw in [
        ("ndarray", bytes([kind, 2 << 2, 2, 3]) + values),
        ("ndarray", bytes([kind, 2 << 2 | 1, 2, 0, 3, 0]) + values),
        (f"ndarray:{dtype}", bytes([2 << 2, 2, 3]) + values),
        (f"ndarray:{dtype}:2,3", values),
    ]:
        found = decoder_of(encoding, "x")(raw)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, want)
        with pytest.raises(ValueError, match=r"."):
            decoder_of(encoding, "x")(raw + b"0")


def test_images_that_are_not_encoded():
    want = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    raw = np.array([4, 2, 3], "<u4").tobytes() + b"RGB" + want.tobytes()
    kind, found = decoder_of("pil", "x")(raw)
    assert kind == "pixels"
    np.testing.assert_array_equal(found, want)
    with pytest.raises(ValueError, match="Pillow's mode 'CMYK'"):
        decoder_of("pil", "x")(np.array([4, 2, 4], "<u4").tobytes() + b"CMYK" + bytes(32))


def test_encodings_that_are_not_read():
    with pytest.raises(DecodeError, match=r"column 'x' is pickled, .* pass decode="):
        decoder_of("pkl", "x")
    with pytest.raises(DecodeError, match="column 'x' has the encoding 'video', which is unknown"):
        decoder_of("video", "x")


def test_what_is_wrong_with_an_index_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"index\.json does not exist"):
        read_index(str(tmp_path))
    write_mds(folder / "train", {"n": "int"}, [{"n": 1}])
    with pytest.raises(FileNotFoundError, match="Its folders train have one each"):
        read_index(str(folder))
    folder = folder / "train"
    index = folder / "index.json"
    content = json.loads(index.read_text())
    for change, said in [
        ({"version": 1}, "format 'mds', version 1, expected 'mds', version 2"),
        ({"format": "json"}, "format 'json'"),
        (
            {"raw_data": {"basename": "gone.mds", "bytes": 1}},
            r"gone\.mds does not exist, but .*index",
        ),
        ({"column_sizes": []}, r"index\.json is damaged, or not an MDS index"),
        ({"samples": "many"}, r"index\.json is damaged"),
    ]:
        shard = {**content["shards"][0], **change}
        index.write_text(json.dumps({"shards": [shard]}))
        with pytest.raises((DecodeError, FileNotFoundError), match=said):
            read_index(str(folder))
    other = {**content["shards"][0], "column_names": ["m"]}
    index.write_text(json.dumps({"shards": [content["shards"][0], other]}))
    with pytest.raises(DecodeError, match=r"has the columns m, but .* has n"):
        read_index(str(folder))
    index.write_text("{")
    with pytest.raises(DecodeError, match=r"index\.json is damaged"):
        read_index(str(folder))


def test_a_compressed_shard_is_refused_with_advice(folder):
    packed = {"basename": "shard.00000.mds.zstd", "bytes": 3, "hashes": {}}
    write_mds(folder, {"n": "int"}, [{"n": 1}], zip_data=packed, compression="zstd")
    assert len(read_index(str(folder))) == 1  # decompressed beside it
    (folder / "shard.00000.mds").rename(folder / "shard.00000.mds.zstd")
    with pytest.raises(
        DecodeError, match=r"mds\.zstd is compressed \(zstd\): .* Decompress it once"
    ):
        read_index(str(folder))
