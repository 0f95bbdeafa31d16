"""SequenceExamples as TensorFlow reads them, and lists of Examples named for what they are."""

import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.tfrecord.examples import (
    BYTES,
    FLOAT,
    INT64,
    encode_example,
    features_of,
    values_of,
)
from tests.support.sequence_examples import list_with_context, sequence_example

RECORD = sequence_example(
    {"id": b"video", "labels": [3, 7]},
    {"rgb": [b"ab", b"cd", b"ef"], "score": [0.5, 1.5, 2.5], "pair": [[1, 2], [3, 4]], "none": []},
)


def test_context_and_lists_are_features_by_name():
    found = features_of(RECORD)
    assert {
        name: (f.kind, None if f.steps is None else len(f.steps)) for name, f in found.items()
    } == {
        "id": (BYTES, None),
        "labels": (INT64, None),
        "rgb": (BYTES, 3),
        "score": (FLOAT, 3),
        "pair": (INT64, 2),
        "none": (0, 0),
    }
    assert values_of(RECORD, found["rgb"]) == [b"ab", b"cd", b"ef"]
    assert values_of(RECORD, found["pair"]).tolist() == [1, 2, 3, 4]
    assert values_of(RECORD, found["pair"].steps[1]).tolist() == [3, 4]
    assert len(values_of(RECORD, found["none"])) == 0


def test_steps_without_a_kind():
    record = sequence_example({}, {"x": [None, 5]})
    steps = features_of(record)["x"].steps
    assert [step.kind for step in steps] == [0, INT64]


def test_a_list_that_is_called_like_a_feature_of_the_context():
    found = features_of(sequence_example({"x": 1}, {"x": [2, 3]}))
    assert found["x"].steps is None
    assert len(found["feature_lists/x"].steps) == 2


def test_it_is_what_tensorflow_writes_and_reads():
    tf = pytest.importorskip("tensorflow")
    record = tf.train.SequenceExample()
    record.context.feature["id"].bytes_list.value.append(b"video")
    for k in range(300):
        record.feature_lists.feature_list["rgb"].feature.add().bytes_list.value.append(
            bytes([k % 7]) * 5
        )
        record.feature_lists.feature_list["n"].feature.add().int64_list.value.extend([-k, k * 1000])
    raw = record.SerializeToString()
    found = features_of(raw)
    context, lists = tf.io.parse_single_sequence_example(
        raw,
        {"id": tf.io.FixedLenFeature([], tf.string)},
        {
            "rgb": tf.io.FixedLenSequenceFeature([], tf.string),
            "n": tf.io.FixedLenSequenceFeature([2], tf.int64),
        },
    )
    assert values_of(raw, found["id"]) == [context["id"].numpy()]
    assert values_of(raw, found["rgb"]) == lists["rgb"].numpy().tolist()
    np.testing.assert_array_equal(values_of(raw, found["n"]).reshape(-1, 2), lists["n"])
    ours = tf.train.SequenceExample.FromString(RECORD)
    assert [f.bytes_list.value[0] for f in ours.feature_lists.feature_list["rgb"].feature] == [
        b"ab", b"cd", b"ef",
    ]  # fmt: skip


def test_a_list_of_examples_is_named():
    examples = [{"relevance": k, "doc": b"text"} for k in range(3)]
    for record in (
        list_with_context({"query": b"q"}, examples),
        list_with_context({}, examples),
        list_with_context({"query": b"q"}, []),
    ):
        with pytest.raises(DecodeError, match=r"it is an ExampleListWithContext .* pass decode="):
            features_of(record)


def test_a_feature_without_a_value_is_none_of_that():
    assert features_of(encode_example({"x": []}))["x"].kind == FLOAT
    # an entry with a name only, as protobuf allows for a map
    assert features_of(b"\x0a\x06\x0a\x04\x0a\x02xy")["xy"].kind == 0
