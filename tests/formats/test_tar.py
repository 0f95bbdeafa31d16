"""Members of tar files are found where Python's own tarfile finds them, by headers only."""

import bz2
import gzip
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from kloaders.formats import tar
from kloaders.formats.errors import DecodeError
from kloaders.formats.ranges import RangeFiles
from kloaders.formats.tar import tar_index
from tests.support.tar_files import write_tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def index_of(path, folder=None):
    return tar_index(RangeFiles([str(path)]), 0, folder)


def contents(path, index):
    files = RangeFiles([str(path)])
    return {
        name: files.read(0, int(offset), int(size))
        for name, offset, size in zip(index.names, index.offsets, index.sizes, strict=True)
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_members_are_those_of_tarfile(tmp_path, kind):
    noise = np.random.default_rng(0)
    members = {"folder": None}
    for k in range(200):
        members[f"folder/{k:03}.bin"] = noise.bytes(int(noise.integers(0, 2000)))
    members["a/" * 60 + "deep.bin"] = b"long by folders"
    if kind != "ustar":
        members["é" * 150 + ".jpg"] = b"a name of 300 bytes"
    members["empty"] = b""
    path = write_tar(tmp_path / "a.tar", members, FORMATS[kind])
    with tarfile.open(path) as archive:
        want = [(i.name, i.offset_data, i.size) for i in archive if i.isfile()]
    index = index_of(path)
    found = list(zip(index.names, index.offsets.tolist(), index.sizes.tolist(), strict=True))
    assert found == want
    assert contents(path, index) == {k: v for k, v in members.items() if v is not None}


def test_a_size_beyond_octal_digits_is_read(tmp_path):
    assert tar._number(b"\x80" + (2**36).to_bytes(11, "big")) == 2**36
    assert tar._number(b"0000644\0") == 0o644
    # pax writes such a size into a record of its own
    assert tar._pax(b"20 size=68719476736\n18 path=caf\xc3\xa9.jpg\n") == {
        "size": "68719476736",
        "path": "café.jpg",
    }


def test_the_index_is_kept_and_taken(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", {f"{k}.x": bytes(k) for k in range(20)})
    first = index_of(path)
    assert os.path.exists(tmp_path / ".a.tar.members.index")
    with monkeypatch.context() as patch:
        patch.setattr(tar, "_members", lambda *_: pytest.fail("headers are read again"))
        again = index_of(path)
    assert again.names == first.names
    np.testing.assert_array_equal(again.offsets, first.offsets)
    np.testing.assert_array_equal(again.sizes, first.sizes)


def test_an_index_of_another_file_or_damaged_is_made_again(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.x": b"one"})
    index_of(path)
    kept = tmp_path / ".a.tar.members.index"
    whole = kept.read_bytes()
    for damaged in (b"", whole[:-1], whole[:20] + b"\xff" + whole[21:], whole[:-3] + b"abc"):
        kept.write_bytes(damaged)
        assert contents(path, index_of(path)) == {"1.x": b"one"}
        assert kept.read_bytes() == whole
    write_tar(path, {"2.x": b"other"})
    assert contents(path, index_of(path)) == {"2.x": b"other"}


def test_a_folder_for_indexes(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.x": b"one"})
    index_of(path, str(tmp_path / "indexes"))
    assert len(os.listdir(tmp_path / "indexes")) == 1
    assert not (tmp_path / ".a.tar.members.index").exists()


@pytest.mark.parametrize(
    ("compress", "said"), [(gzip.compress, "gunzip"), (bz2.compress, "bunzip2")]
)
def test_a_compressed_file_is_refused_with_advice(tmp_path, compress, said):
    path = write_tar(tmp_path / "a.tar", {"1.x": b"one"})
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(compress(Path(path).read_bytes()))
    with pytest.raises(DecodeError, match=rf"a\.tar\.gz is compressed .*{said} -k .*a\.tar\.gz"):
        index_of(packed)


def test_what_is_no_tar_file_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"hello" * 300)
    with pytest.raises(DecodeError, match=r"a\.tar is not a tar file: it begins with b'hellohel"):
        index_of(tmp_path / "a.tar")
    (tmp_path / "b.tar").write_bytes(b"")
    with pytest.raises(DecodeError, match=r"b\.tar is empty"):
        index_of(tmp_path / "b.tar")


def test_damage_between_members_names_the_place(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.x": b"one", "2.x": b"two"}, tarfile.USTAR_FORMAT)
    raw = bytearray(Path(path).read_bytes())
    raw[1024 + 10] ^= 1  # in the name of the second member
    Path(path).write_bytes(raw)
    with pytest.raises(DecodeError, match=r"a\.tar is damaged or cut short: at byte 1024"):
        index_of(path)


def test_a_file_cut_in_a_member_has_those_before(tmp_path):
    members = {"1.x": b"a" * 700, "2.x": b"b" * 700}
    path = write_tar(tmp_path / "a.tar", members, tarfile.USTAR_FORMAT)
    with open(path, "r+b") as file:
        file.truncate(512 + 1024 + 512 + 600)
    index = index_of(path)
    assert index.names == ["1.x", "2.x"]
    with pytest.raises(DecodeError, match="truncated: 700 bytes expected at byte 2048, 600 found"):
        contents(path, index)


def test_a_sparse_member_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.x": b"one"}, tarfile.GNU_FORMAT)
    raw = bytearray(Path(path).read_bytes())
    raw[156:157] = b"S"
    raw[148:156] = b" " * 8
    raw[148:156] = f"{sum(raw[:512]):06o}\0 ".encode()
    Path(path).write_bytes(raw)
    with pytest.raises(DecodeError, match="sparse member at byte 0"):
        index_of(path)
