"""The frame of a record, as TensorFlow reads it."""

import pytest

from tests.support.records import DATA


def test_tensorflow_reads_what_is_framed(file):
    tf = pytest.importorskip("tensorflow")
    assert [r.numpy() for r in tf.data.TFRecordDataset(file())] == DATA
