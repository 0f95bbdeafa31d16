"""Which features of a record become x and y, and how each becomes an array."""

import pickle

import numpy as np
import pytest

from kloaders.core.structure import flatten
from kloaders.formats.errors import DecodeError
from kloaders.formats.options import ImageOptions
from kloaders.formats.tfrecord.examples import array_features, encode_example, features_of
from kloaders.sources.tfrecord.features import Feature, resolved
from kloaders.sources.tfrecord.guesses import guessed
from kloaders.sources.tfrecord.leaves import leaves_of
from tests.support.images import encoded, picture


def settled(features, record, options=None, decode=None):
    """The leaf of x, after a look at this first record."""
    plain = ImageOptions()
    leaves = leaves_of(resolved({"x": features}), options or plain, plain, decode, None)
    (leaf,) = flatten(leaves)
    leaf.settle(record, features_of(record))
    return pickle.loads(pickle.dumps(leaf))


def read(leaf, record, out=None):
    return leaf.read(record, features_of(record), out)


def value_of(features, values, **options):
    record = encode_example(values)
    return read(settled(features, record, **options), record)


# ---------------------------------------------------------------- what a user gives


def test_names_dicts_and_tuples():
    found = resolved({"x": {"a": "image", "b": ["n", Feature("m", shape=2)]}, "y": Feature()})
    assert found["x"]["a"] == Feature("image")
    assert found["x"]["b"] == (Feature("n"), Feature("m", shape=(2,)))
    assert found["y"] == Feature("y")  # by its key
    assert resolved("image") == {"x": Feature("image")}
    assert set(resolved({"x": "a", "y": None})) == {"x"}


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (5, ValueError, "features is 5, expected the features that are x and y"),
        ({"y": "label"}, ValueError, "features is a dict of 'y', expected"),
        ({"x": "a", "z": "b"}, ValueError, "a dict of 'x', 'z'"),
        ({"x": {}}, ValueError, r"features\['x'\] is empty"),
        ({"x": {"a": 3}}, TypeError, "'a' is 3, expected a feature's name"),
    ],
)
def test_what_names_no_features(features, error, message):
    with pytest.raises(error, match=message):
        resolved(features)


@pytest.mark.parametrize("shape", [(None, None), (-1,), (2, -3)])
def test_shapes_that_are_none(shape):
    with pytest.raises(ValueError, match=r"expected sizes, at most one of which is None"):
        Feature("a", shape=shape)


def test_a_decode_that_is_no_function():
    with pytest.raises(TypeError, match=r"decode=5 is not a function"):
        Feature("a", decode=5)


# ---------------------------------------------------------------- guessing


def test_a_picture_is_x_and_its_label_y():
    record = encode_example({"image": encoded(".png", picture(4, 4)), "label": 3, "id": "n3"})
    parts, said = guessed(record, None)
    assert parts == {"x": Feature("image"), "y": Feature("label")}
    assert said == "x is 'image', y is 'label'; left out: id"


def test_numbers_are_x_where_there_is_no_picture():
    parts, _ = guessed(encode_example({"b": [1.0, 2.0], "a": 1, "target": 0}), None)
    assert parts == {"x": {"a": Feature("a"), "b": Feature("b")}, "y": Feature("target")}


def test_an_array_with_its_shape_beside_it():
    record = encode_example({**array_features("v", np.zeros((2, 2), np.float32)), "n": 3})
    parts, _ = guessed(record, None)
    assert parts == {"x": Feature("v"), "y": Feature("n")}


def test_with_decode_the_longest_bytes_are_x_or_the_whole_record():
    record = encode_example({"short": b"12", "long": b"1" * 50, "label": 1})
    assert guessed(record, len)[0] == {"x": Feature("long"), "y": Feature("label")}
    assert guessed(b"no example at all", len)[0] == {"x": Feature("")}


def test_nothing_that_could_be_x():
    with pytest.raises(ValueError, match=r"the first record has 'id' \(1 bytes\), none of which"):
        guessed(encode_example({"id": "n3"}), None)


# ---------------------------------------------------------------- arrays


def test_numbers_and_lists_of_numbers():
    assert value_of("a", {"a": 5}).shape == ()
    assert value_of("a", {"a": [5, 6]}).tolist() == [5, 6]
    found = value_of(Feature("a", shape=(2, None), dtype="int8"), {"a": range(6)})
    assert (found.tolist(), found.dtype) == ([[0, 1, 2], [3, 4, 5]], np.int8)
    found = value_of("a", {"a": 5}, options=ImageOptions(dtype=np.dtype("f2")))
    assert (found, found.dtype) == (5, np.float16)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64", "float64"])
def test_arrays_that_were_written_have_their_shape_and_dtype(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    found = value_of("a", array_features("a", array))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_raw_bytes_by_shape_and_dtype():
    """Little-endian, whatever the machine; the array is the caller's own."""
    raw = np.arange(6, dtype="<i2").tobytes()
    found = value_of(Feature("a", shape=(2, 3), dtype="int16"), {"a": raw})
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    found[...] = 0


def test_pictures_and_lists_of_pictures():
    image = picture(4, 6)
    raw = encoded(".png", image)
    np.testing.assert_array_equal(value_of("a", {"a": raw}), image)
    np.testing.assert_array_equal(value_of("a", {"a": [raw, raw]}), [image, image])
    assert value_of("a", {"a": raw}, options=ImageOptions(size=(2, 3))).shape == (2, 3, 3)


def test_a_picture_is_decoded_in_place():
    image = picture(4, 6)
    record = encode_example({"a": encoded(".png", image)})
    leaf, out = settled("a", record), np.zeros_like(image)
    assert leaf.encoded
    assert read(leaf, record, out) is out
    np.testing.assert_array_equal(out, image)


def first_byte(raw):
    return np.float32(raw[0])


def pair(raw):
    return raw[0], raw[0]


def test_functions_of_the_bytes():
    """That of the feature goes before that of the loader."""
    assert value_of(Feature("a", decode=first_byte), {"a": b"\7"}, decode=len) == 7
    assert value_of("a", {"a": b"\7\7"}, decode=len) == 2
    with pytest.raises(TypeError, match=r"decode returned a tuple, expected one array"):
        value_of(Feature("a", decode=pair), {"a": b"1"})


def test_defaults_fill_in():
    given = Feature("a", default=1.5, shape=(2,))
    assert value_of(given, {"b": 1}).tolist() == [1.5, 1.5]
    assert value_of(given, {"b": 1}).dtype == np.float32
    assert value_of(given, {"a": [3.0, 4.0]}).tolist() == [3, 4]


# ---------------------------------------------------------------- what is wrong


def test_a_first_record_without_the_feature():
    with pytest.raises(ValueError, match=r"it has no feature 'labl', it has 'label'.*mean 'label'"):
        value_of("labl", {"label": 1})


def test_bytes_that_say_nothing_of_themselves():
    with pytest.raises(
        ValueError, match=r"'a' holds 4 bytes that are not an image; they begin with"
    ):
        value_of("a", {"a": b"text"})


@pytest.mark.parametrize(
    ("features", "first", "later", "message"),
    [
        ("a", {"a": 1}, {"b": 1}, "it has no feature 'a', it has 'b'"),
        ("a", {"a": 1}, {"a": [1, 2]}, "'a' has 2 values, but the first record has one"),
        (
            Feature("a", shape=(2,)),
            {"a": [1, 2]},
            {"a": [1, 2, 3]},
            r"do not make an array of shape \(2,\)",
        ),
        (
            Feature("a", shape=(2,), dtype="int16"),
            {"a": bytes(4)},
            {"a": bytes(3)},
            "3 bytes, which do not make an array of shape",
        ),
        (
            Feature("a", shape=(None,), dtype="int16"),
            {"a": bytes(4)},
            {"a": bytes(3)},
            "3 bytes, which are not a whole number of 2-byte values",
        ),
        (
            Feature("a", shape=(4, 6, 3)),
            {"a": encoded(".png", picture(4, 6))},
            {"a": encoded(".png", picture(5, 6))},
            r"an array of shape \(5, 6, 3\), expected \(4, 6, 3\)",
        ),
    ],
)
def test_a_later_record_that_does_not_fit(features, first, later, message):
    leaf = settled(features, encode_example(first))
    read(leaf, encode_example(first))
    with pytest.raises(DecodeError, match=message):
        read(leaf, encode_example(later))


# ---------------------------------------------------------------- where values lie


@pytest.mark.parametrize(
    ("features", "values", "stored", "shape"),
    [
        ("a", {"a": [1.0, 2.0, 3.0]}, "<f4", (3,)),
        ("a", array_features("a", np.arange(6, dtype="u1").reshape(2, 3)), "|u1", (2, 3)),
        (
            Feature("a", shape=(2,), dtype="int16"),
            {"a": np.array([1, 2], "<i2").tobytes()},
            "<i2",
            (2,),
        ),
    ],
)
def test_a_slot_is_where_the_values_are(features, values, stored, shape):
    record = encode_example(values)
    leaf = settled(features, record)
    slot = leaf.slot(record, features_of(record))
    assert (slot.stored, slot.shape) == (np.dtype(stored), shape)
    block = np.frombuffer(record[slot.start : slot.stop], slot.stored).reshape(slot.shape)
    np.testing.assert_array_equal(block, read(leaf, record))


def test_what_is_encoded_has_no_slot():
    record = encode_example({"a": encoded(".png", picture(4, 6))})
    assert settled("a", record).slot(record, features_of(record)) is None


def test_leaves_tell_what_decides_their_arrays():
    """Equal for equal features and options, which caches go by."""
    record = encode_example({"a": [1, 2]})
    assert settled("a", record).described() == settled("a", record).described()
    others = [
        settled(Feature("a", dtype="int8"), record),
        settled("a", record, ImageOptions(dtype=np.dtype("f2"))),
        settled("a", encode_example({"a": 1})),
    ]
    assert all(other.described() != settled("a", record).described() for other in others)
