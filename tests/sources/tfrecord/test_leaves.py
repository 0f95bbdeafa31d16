"""Features that are missing, lists of steps, texts and raw pixels: which arrays come of them."""

import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.options import ImageOptions
from kloaders.formats.tfrecord.examples import encode_example, features_of
from kloaders.sources.tfrecord.features import Feature, resolved
from kloaders.sources.tfrecord.leaves import leaves_of
from tests.support.sequence_examples import block, sequence_example
from tests.support.tar_files import png_bytes


def leaf_of(first, feature, class_names=None, **images):
    options = ImageOptions(**images)
    parts = resolved({"x": "unused", "y": feature})
    leaf = leaves_of(parts, options, options, None, None, class_names)[1]
    leaf.settle(first, features_of(first))
    return leaf


def read(record, feature, first=None, class_names=None, **images):
    leaf = leaf_of(record if first is None else first, feature, class_names, **images)
    return leaf.read(record, features_of(record), None)


NO_KIND = block(1, block(1, block(1, b"v") + block(2, b"")))
WITHOUT = [encode_example({"other": 1}), NO_KIND, encode_example({"v": []})]


@pytest.mark.parametrize("record", WITHOUT, ids=["missing", "no kind", "not a whole number of"])
def test_what_has_any_length_is_empty_where_it_is_missing_as_in_tensorflow(record):
    tf = pytest.importorskip("tensorflow")
    for spec in (
        tf.io.VarLenFeature(tf.float32),
        tf.io.RaggedFeature(tf.float32),
        tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
        tf.io.FixedLenSequenceFeature([2], tf.float32, allow_missing=True),
    ):
        want = tf.io.parse_single_example(record, {"v": spec})["v"]
        want = tf.sparse.to_dense(want) if isinstance(want, tf.SparseTensor) else want
        found = read(record, _named(spec))
        assert (found.shape, found.dtype) == (tuple(want.shape), want.dtype.as_numpy_dtype)
        full = encode_example({"v": [1.0, 2.0, 3.0, 4.0]})
        theirs = tf.io.parse_single_example(full, {"v": spec})["v"]
        theirs = tf.sparse.to_dense(theirs) if isinstance(theirs, tf.SparseTensor) else theirs
        np.testing.assert_array_equal(read(full, _named(spec), first=record), theirs)


def _named(spec):
    """The feature "v" as TensorFlow describes it: resolved by its key."""
    return resolved({"x": {"v": spec}})["x"]["v"]


def test_what_holds_nothing_is_said_so():
    with pytest.raises(
        ValueError, match="its feature 'v' is empty: it has neither bytes nor numbers"
    ):
        read(NO_KIND, "v")
    full = encode_example({"v": 3})
    with pytest.raises(DecodeError, match=r"is empty.* kl.Feature\('v', default=0\)"):
        read(NO_KIND, "v", first=full)
    assert read(NO_KIND, Feature("v", default=7)) == 7


def test_texts_are_numbers_of_classes():
    names = ["dog", "cat"]
    record = encode_example({"v": "cat"})
    assert read(record, "v", class_names=names) == 1
    assert read(record, "v", class_names=names).dtype == np.int32
    many = encode_example({"v": ["cat", "dog", "cat"]})
    assert read(many, "v", class_names=names).tolist() == [1, 0, 1]
    assert read(encode_example({"v": 5}), "v", class_names=names) == 5
    with pytest.raises(
        DecodeError, match="its feature 'v' holds 'cow', which is not among class_names"
    ):
        read(encode_example({"v": "cow"}), "v", class_names=names)


def test_texts_that_are_missing_are_an_empty_list():
    tf = pytest.importorskip("tensorflow")
    spec = _named(tf.io.VarLenFeature(tf.string))
    found = read(WITHOUT[0], spec, class_names=["a"])
    assert (found.shape, found.dtype) == ((0,), np.int32)


def test_raw_pixels_are_images():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    record = encode_example({"v": pixels.tobytes(), "height": 2, "width": 4, "depth": 3})
    np.testing.assert_array_equal(read(record, "v"), pixels)
    assert read(record, "v", size=(4, 4), channels=1).shape == (4, 4, 1)
    flat = read(record, Feature("v", shape=(24,), dtype="uint8"))
    assert flat.tolist() == list(range(24))
    with pytest.raises(ValueError, match="holds 24 bytes that are not an image"):
        read(encode_example({"v": pixels.tobytes(), "height": 3, "width": 4}), "v")


def test_lists_of_numbers_have_an_axis_of_steps():
    record = sequence_example({}, {"v": [0.5, 1.5], "pair": [[1, 2], [3, 4], [5, 6]], "none": []})
    one, pair = read(record, "v"), read(record, "pair")
    assert (one.tolist(), one.dtype) == ([0.5, 1.5], np.float32)
    assert (pair.tolist(), pair.dtype) == ([[1, 2], [3, 4], [5, 6]], np.int64)
    assert read(record, Feature("pair", shape=(None, 2, 1))).shape == (3, 2, 1)
    assert read(record, Feature("pair", shape=(3, 2), dtype="float32")).dtype == np.float32
    assert read(record, Feature("none", shape=(None, 2), default=())).shape == (0, 2)
    ragged = sequence_example({}, {"v": [1, [2, 3]]})
    with pytest.raises(DecodeError, match="its list 'v' has steps of 1, 2 values"):
        read(ragged, "v")


def test_lists_of_bytes_are_raw_values_texts_or_images():
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    record = sequence_example({}, {"v": [row.tobytes() for row in rows]})
    found = read(record, Feature("v", shape=(None, 4), dtype="uint8"))
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_array_equal(read(record, Feature("v", dtype="uint8")), rows)
    with pytest.raises(DecodeError, match="steps of different lengths"):
        read(sequence_example({}, {"v": [b"ab", b"c"]}), Feature("v", dtype="uint8"))
    words = sequence_example({}, {"v": [b"a", b"b", b"a"]})
    assert read(words, "v", class_names=["a", "b"]).tolist() == [0, 1, 0]
    images = [np.full((2, 3, 3), k, np.uint8) for k in range(2)]
    encoded = sequence_example({}, {"v": [png_bytes(image) for image in images]})
    np.testing.assert_array_equal(read(encoded, "v"), images)
    counted = read(record, Feature("v", decode=len))
    assert counted.tolist() == [4, 4, 4]


def test_what_decides_an_array():
    record = encode_example({"v": "a"})
    plain = leaf_of(encode_example({"v": 1}), "v")
    assert plain.described() != leaf_of(record, "v", ["a"]).described()
