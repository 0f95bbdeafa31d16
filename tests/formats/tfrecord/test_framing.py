"""The frame of a record, as TensorFlow reads it, and what a flipped byte does to it."""

import numpy as np
import pytest

from kloaders.formats.tfrecord.framing import (
    EMPTY_HEADER,
    FOOTER,
    HEADER,
    count_good_headers,
    data_matches,
    framed,
    headers_are_right,
    is_header,
    length_of,
)
from tests.support.records import DATA


def test_tensorflow_reads_what_is_framed(file):
    tf = pytest.importorskip("tensorflow")
    assert [r.numpy() for r in tf.data.TFRecordDataset(file())] == DATA


@pytest.mark.parametrize("data", [b"", b"a", bytes(1000)])
def test_a_frame(data):
    """Header, data, footer; and the header says how long the data are."""
    raw = framed(data)
    assert len(raw) == HEADER + len(data) + FOOTER
    assert raw[HEADER : HEADER + len(data)] == data
    assert is_header(raw[:HEADER])
    assert length_of(raw[:HEADER]) == len(data)
    assert data_matches(raw)
    assert (raw[:HEADER] == EMPTY_HEADER) == (data == b"")


def test_every_flipped_bit_of_a_frame_is_found():
    """In the length, the data, or either checksum."""
    whole = framed(b"some data")
    for at in range(8 * len(whole)):
        raw = bytearray(whole)
        raw[at // 8] ^= 1 << at % 8
        assert not (is_header(bytes(raw[:HEADER])) and data_matches(bytes(raw)))


def test_a_part_of_a_header_is_none():
    assert not is_header(framed(b"abc")[: HEADER - 1])


def test_headers_at_once():
    """Of many, which are right, and how many come before the first that is not."""
    heads = [framed(bytes(k))[:HEADER] for k in range(6)]
    assert count_good_headers(heads) == 6
    assert count_good_headers([]) == 0
    heads[4] = b"x" + heads[4][1:]
    assert count_good_headers(heads) == 4
    rows = np.frombuffer(b"".join(heads), np.uint8).reshape(-1, HEADER)
    assert headers_are_right(rows).tolist() == [True] * 4 + [False, True]
