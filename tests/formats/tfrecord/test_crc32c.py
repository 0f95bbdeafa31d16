"""CRC-32C: the vectors of RFC 3720, in one piece or in several."""

import importlib

import numpy as np
import pytest

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


@pytest.fixture(params=["c", "python"])
def library(request, monkeypatch):
    """google-crc32c in both of its forms; the slow one is what a platform without a wheel gets."""
    form = importlib.import_module(
        {"c": "google_crc32c.cext", "python": "google_crc32c.python"}[request.param]
    )
    monkeypatch.setattr("google_crc32c.extend", form.extend)
    monkeypatch.setattr(checksums, "HARDWARE", request.param == "c")


@pytest.mark.parametrize(("data", "crc"), VECTORS)
def test_vectors_of_rfc_3720(library, data, crc):
    assert crc32c(data) == crc
    array = np.frombuffer(data, np.uint8).copy()
    assert crc32c(array) == crc
    if len(data) % 2 == 0:
        assert crc32c(array.reshape(2, -1)) == crc


@pytest.mark.parametrize("cut", [0, 1, 300, 599])
def test_in_two_pieces(library, cut):
    """The second piece goes on from the sum of the first."""
    data = np.random.default_rng(1).bytes(600)
    assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)


def test_computed_in_c():
    """On the machines that the tests run on there is a wheel."""
    assert checksums.HARDWARE


@pytest.mark.parametrize("size", [1, 8, 12])
def test_rows_at_once(size):
    rows = np.random.default_rng(0).integers(0, 256, (20, size), np.uint8)
    sums = [crc32c(row.tobytes()) for row in rows]
    assert checksums.of_rows(rows).tolist() == sums
    assert checksums.mask_all(checksums.of_rows(rows)).tolist() == [mask(crc) for crc in sums]
