"""What is taken for x and y of records that hold more than pictures and numbers."""

import numpy as np
import pytest

from kloaders.formats.tfrecord.examples import encode_example
from kloaders.sources.tfrecord.features import Feature
from kloaders.sources.tfrecord.guesses import guessed
from tests.support.sequence_examples import sequence_example


def test_raw_pixels_are_a_picture():
    record = encode_example(
        {"image_raw": bytes(12), "height": 2, "width": 2, "depth": 3, "label": 1}
    )
    parts, said = guessed(record, None)
    assert parts == {"x": Feature("image_raw"), "y": Feature("label")}
    assert "left out: depth, height, width" in said


def test_a_label_in_words_where_classes_have_names():
    record = encode_example({"n": [1.0, 2.0], "label": "cat"})
    assert guessed(record, None)[0] == {"x": Feature("n")}
    assert guessed(record, None, True)[0] == {"x": Feature("n"), "y": Feature("label")}


def test_lists_of_a_sequence_example():
    record = sequence_example({"label": 1}, {"score": [0.5, 1.5]})
    assert guessed(record, None)[0] == {"x": Feature("score"), "y": Feature("label")}


def test_nothing_to_take_says_what_there_is():
    record = sequence_example({"id": b"a"}, {"rgb": [b"ab", np.uint8(3).tobytes()]})
    with pytest.raises(ValueError, match=r"'id' \(1 bytes\), 'rgb' \(2 bytes\), none of which is"):
        guessed(record, None)
