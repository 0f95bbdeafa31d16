"""tf.train.Example without TensorFlow: the same bytes mean the same, both ways."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kloaders.formats.errors import DecodeError
from kloaders.formats.tfrecord import examples
from kloaders.formats.tfrecord.examples import (
    array_features,
    encode_example,
    features_of,
    parse_example,
)

tf = pytest.importorskip("tensorflow")

INT64 = st.integers(-(2**63), 2**63 - 1)
LISTS = st.one_of(
    st.lists(st.binary(max_size=20), min_size=1, max_size=8),
    st.lists(INT64, min_size=1, max_size=40),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40),
)
EXAMPLES = st.dictionaries(st.text(max_size=12), LISTS, max_size=6)


def of_tensorflow(features):
    """The same features as TensorFlow's message."""
    made = {}
    for name, values in features.items():
        if isinstance(values[0], bytes):
            made[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif isinstance(values[0], int):
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        else:
            made[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Example(features=tf.train.Features(feature=made))


def lists(parsed):
    return {name: list(values) for name, values in parsed.items()}


@given(EXAMPLES)
def test_what_tensorflow_encodes_is_parsed(features):
    assert lists(parse_example(of_tensorflow(features).SerializeToString())) == features


@given(EXAMPLES)
def test_what_we_encode_tensorflow_parses(features):
    assert tf.train.Example.FromString(encode_example(features)) == of_tensorflow(features)


@given(hnp.arrays(np.int64, st.integers(0, 200), elements=INT64))
def test_numbers_at_once(values):
    """Varints of all lengths, as one array."""
    raw = encode_example({"v": values})
    found = parse_example(raw).get("v", np.empty(0, np.int64))
    np.testing.assert_array_equal(found, values)
    assert list(tf.train.Example.FromString(raw).features.feature["v"].int64_list.value) == list(
        values
    )


def test_order_of_features_is_fixed():
    assert encode_example({"b": 1, "a": 2}) == encode_example({"a": 2, "b": 1})


def test_wanted_features_only():
    raw = encode_example({"a": 1, "b": "two", "c": [3.0, 4.0]})
    assert parse_example(raw, {"b", "c", "d"}) == {"b": [b"two"], "c": pytest.approx([3.0, 4.0])}


def test_kinds_of_values():
    raw = encode_example(
        {
            "text": "é",
            "bytes": b"\xff\0",
            "texts": ["a", b"b"],
            "array of texts": np.array(["a", "bc"]),
            "true": True,
            "number": np.uint8(200),
            "float": 1.5,
            "none": [],
        }
    )
    assert lists(parse_example(raw)) == {
        "text": ["é".encode()],
        "bytes": [b"\xff\0"],
        "texts": [b"a", b"b"],
        "array of texts": [b"a", b"bc"],
        "true": [1],
        "number": [200],
        "float": [1.5],
        "none": [],
    }


# ---------------------------------------------------------------- other writers


def block(number, content):
    return bytes([number << 3 | 2, len(content)]) + content


def example_of(feature):
    """An Example with one feature "v" of these bytes."""
    return block(1, block(1, block(1, b"v") + block(2, feature)))


FLOATS = np.array([1, -2.5, 3], "<f4")


@pytest.mark.parametrize(
    "content",
    [
        b"".join(b"\x0d" + f.tobytes() for f in FLOATS),  # one by one
        block(1, FLOATS[:1].tobytes()) + block(1, FLOATS[1:].tobytes()),  # in two blocks
        b"\x0d" + FLOATS[:1].tobytes() + block(1, FLOATS[1:].tobytes()),
        b"\x10\x07" + block(1, FLOATS.tobytes()),  # beside a field that nobody knows
    ],
)
def test_floats_as_others_write_them(content):
    raw = example_of(block(2, content))
    np.testing.assert_array_equal(parse_example(raw)["v"], FLOATS)
    feature = tf.train.Example.FromString(raw).features.feature["v"]
    assert list(feature.float_list.value) == FLOATS.tolist()


@pytest.mark.parametrize(
    "content",
    [
        b"\x08\x01\x08\x96\x01\x08\x08",  # one by one
        block(1, b"\x01\x96\x01") + block(1, b"\x08"),
        b"\x08\x01" + block(1, b"\x96\x01\x08"),
        block(1, b"\x01\x96\x01\x08") + b"\x12\x01x",
    ],
)
def test_integers_as_others_write_them(content):
    raw = example_of(block(3, content))
    assert parse_example(raw)["v"].tolist() == [1, 150, 8]
    feature = tf.train.Example.FromString(raw).features.feature["v"]
    assert list(feature.int64_list.value) == [1, 150, 8]


def test_merging_is_protobufs():
    """Two messages for one field are one; of a oneof the last counts; of a key, too."""
    ints = block(3, block(1, b"\x01"))
    for raw in (
        example_of(ints) + example_of(block(3, block(1, b"\x02"))),
        example_of(ints + block(3, block(1, b"\x02"))),
        example_of(block(1, block(1, b"text")) + ints),
        example_of(b""),
        block(1, block(1, block(1, b"v"))),
        b"\x10\x01" + example_of(ints) + block(3, b"unknown"),
    ):
        want = tf.train.Example.FromString(raw).features.feature["v"]
        found = features_of(raw)["v"]
        assert (found.kind or None) == {"int64_list": 3, None: None}[want.WhichOneof("kind")]
        if found.kind:
            assert examples.values_of(raw, found).tolist() == list(want.int64_list.value)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_example_or_an_error(raw):
    """Never another exception, and never a loop."""
    try:
        parse_example(raw)
    except DecodeError as error:
        assert "not a tf.train.Example" in str(error)  # noqa: PT017


@given(EXAMPLES, st.data())
def test_damage_is_an_error_or_other_values(features, data):
    raw = bytearray(encode_example(features))
    if raw:
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(DecodeError):
        parse_example(bytes(raw))


def test_a_number_without_an_end():
    for content in (b"\x80" * 3, b"\xff" * 11 + b"\x01", b"\x01\x80"):
        with pytest.raises(DecodeError, match=r"not a tf.train.Example"):
            parse_example(example_of(block(3, block(1, content))))


# ---------------------------------------------------------------- errors of a writer


def test_values_that_have_no_place():
    with pytest.raises(
        ValueError, match=r"'v' holds 9223372036854775808, which does not fit into int64"
    ):
        encode_example({"v": np.array([2**63], np.uint64)})
    with pytest.raises(TypeError, match=r"'v' is \{\} \(dict\), expected text, bytes, numbers"):
        encode_example({"v": {}})
    with pytest.raises(TypeError, match=r"'v' holds 3 \(int\), expected text or bytes"):
        encode_example({"v": ["a", 3]})
    with pytest.raises(TypeError, match=r"'v' has shape \(2, 2\), expected a value or a list"):
        encode_example({"v": np.zeros((2, 2))})
    with pytest.raises(TypeError, match="array of datetime64"):
        array_features("v", np.zeros(2, "M8[s]"))


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float64", "bool", ">i4"])
@pytest.mark.parametrize("shape", [(3,), (1,), (2, 3), (0, 4)])
def test_tensorflow_decodes_our_arrays(dtype, shape):
    array = (np.arange(np.prod(shape)).reshape(shape) % 2).astype(dtype)
    raw = encode_example(array_features("a", array))
    parsed = parse_example(raw)
    flat = tf.io.decode_raw(parsed["a"][0], tf.as_dtype(parsed["a/dtype"][0].decode()))
    np.testing.assert_array_equal(flat.numpy().reshape(parsed["a/shape"]), array)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_tensorflow_parses_our_lists(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    spec = {"a": tf.io.FixedLenFeature(shape, dtype)}
    parsed = tf.io.parse_single_example(encode_example(array_features("a", array)), spec)
    np.testing.assert_array_equal(parsed["a"].numpy(), array)
