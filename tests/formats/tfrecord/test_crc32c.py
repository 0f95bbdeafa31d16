"""CRC-32C: the vectors of RFC 3720, in one piece or in several."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kloaders.formats.tfrecord import crc32c as checksums
from kloaders.formats.tfrecord.crc32c import crc32c, mask

# RFC 3720, B.4, and the usual check value.
VECTORS = [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (
        bytes.fromhex(  # an iSCSI read command
            "01c00000 00000000 00000000 00000000 14000000 00000400"
            "00000014 00000018 28000000 00000000 02000000 00000000"
        ),
        0xD9963A56,
    ),
    (b"123456789", 0xE3069283),
    (b"", 0),
]


@pytest.mark.parametrize("extend", [checksums._extend, checksums._in_numpy])
@pytest.mark.parametrize(("data", "crc"), VECTORS)
def test_vectors_of_rfc_3720(extend, data, crc):
    assert extend(0, data) == crc


def test_hardware_is_used_where_it_is_installed():
    pytest.importorskip("google_crc32c")
    assert checksums.HARDWARE


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_numpy_agrees_and_goes_on(first, second):
    """Without the wheel the sums are the same, in one piece or in two."""
    whole = crc32c(first + second)
    assert checksums._in_numpy(checksums._in_numpy(0, first), second) == whole
    assert crc32c(second, crc32c(first)) == whole


@pytest.mark.parametrize("size", [47, 48, 49, 4095, 4096, 4097, 150_528])
def test_numpy_agrees_on_long_data(size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    assert checksums._in_numpy(7, data) == crc32c(data.tobytes(), 7)


def test_rows_at_once():
    rows = np.random.default_rng(0).integers(0, 256, (20, 8), np.uint8)
    sums = [crc32c(row.tobytes()) for row in rows]
    assert checksums.of_rows(rows).tolist() == sums
    assert checksums.mask_all(checksums.of_rows(rows)).tolist() == [mask(crc) for crc in sums]
