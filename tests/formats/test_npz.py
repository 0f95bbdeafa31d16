"""Archives of arrays: one each, sums that are compared, and claims that are not believed."""

import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

import kloaders as kl
from kloaders.formats.errors import DecodeError
from kloaders.formats.npy import read_array
from tests.support.images import npy_header


def test_npz_of_several(tmp_path):
    """Several arrays cannot be one sample: the keys are listed, and the hook that chooses."""
    path = str(tmp_path / "many.npz")
    np.savez(path, image=np.ones(3), mask=np.zeros(3))
    with pytest.raises(DecodeError, match=r"many.npz holds 2 arrays: 'image', 'mask'.*load_sample"):
        read_array(path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(DecodeError, match="holds 0 arrays: none"):
        read_array(path)


def test_npz_checksum(tmp_path):
    """A changed value is found by the archive's checksum."""
    path = tmp_path / "a.npz"
    np.savez(path, np.arange(100_000))
    raw = bytearray(path.read_bytes())
    raw[400_000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DecodeError, match=r"a.npz.*CRC"):
        read_array(str(path))


def test_npz_bombs(tmp_path):
    """A member that claims more than can come out of it is refused before memory is taken."""
    path = tmp_path / "bomb.npz"
    header = npy_header(shape="(100000000000,)")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header + bytes(1000))
    with pytest.raises(DecodeError, match=r"truncated.*400000000000 bytes"):
        read_array(str(path))
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"PK\1\2")
    raw[at + 24 : at + 28] = struct.pack("<I", 2**31)  # the size the directory declares
    path.write_bytes(raw)
    with pytest.raises(DecodeError, match=r"claims 2147483648 bytes for x.npy"):
        read_array(str(path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", header)
    with pytest.raises(DecodeError, match="compressed with method 14"):
        read_array(str(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_array_takes_its_memory_once(tmp_path, save):
    path = str(tmp_path / "a.npz")
    values = np.arange(6 << 20, dtype=np.float32)
    save(path, values)
    tracemalloc.start()
    try:
        found = read_array(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found, values)
    assert peak < 1.4 * values.nbytes


def test_an_array_above_the_bound_is_refused_before_it_is_decompressed(tmp_path):
    """By the loader's option, which may be larger; by the value that the message gives, too."""
    path = str(tmp_path / "a.npz")
    np.savez_compressed(path, np.zeros(2**20))
    size = 8 * 2**20 + 128
    with pytest.raises(DecodeError, match=rf"an array of {size:,} bytes.*Pass max_bytes={size} if"):
        read_array(path, max_bytes=2**20)
    loader = kl.PathSequenceLoader([path], None, 1, max_bytes="1MB")
    with pytest.raises(kl.SampleError, match=f"max_bytes={size}"):
        loader[0]
    assert kl.PathSequenceLoader([path], None, 1, max_bytes=size)[0].shape == (1, 2**20)
