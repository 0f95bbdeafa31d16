"""How an image is to become an array: what is refused, and in which words."""

import pickle

import numpy as np
import pytest

from kloaders.formats.options import ImageOptions


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        (
            {"size": 2.5},
            TypeError,
            r"size=2.5, expected two integers, or one.*\(height, width\)",
        ),
        ({"size": True}, TypeError, "size=True, expected two integers"),
        ({"size": 0}, ValueError, "size=0, expected at least one pixel"),
        ({"size": (224.5, 3)}, TypeError, "two integers"),
        ({"size": (1, 2, 3)}, TypeError, "two integers"),
        ({"size": (0, 5)}, ValueError, "at least one pixel"),
        ({"interpolation": "lanczos3"}, ValueError, "'lanczos3' is unknown.*nearest, bilinear"),
        ({"channels": 2}, ValueError, "channels=2, expected 1.*None"),
        ({"dtype": "str"}, TypeError, "real numbers"),
        ({"dtype": "no such"}, TypeError, "not a NumPy dtype"),
        ({"rescale": "big"}, TypeError, "expected a number"),
        ({"rescale": float("nan")}, ValueError, "finite"),
        ({"max_pixels": None}, ValueError, "max_pixels=None"),
        ({"max_pixels": 0}, ValueError, "max_pixels=0"),
        ({"max_bytes": 0}, ValueError, "max_bytes=0"),
        ({"max_bytes": "much"}, ValueError, "max_bytes='much' is not a size"),
        ({"depth": 16}, ValueError, "depth=16, expected 8, for the upper 8 of 16 bits, or None"),
        ({"depth": True}, ValueError, "depth=True"),
        ({"reader": "cv2"}, ValueError, 'reader=\'cv2\' is unknown, expected "opencv" or "pillow"'),
        ({"pages": 0}, ValueError, 'pages=0 is unknown, expected "first" or "all"'),
    ],
)
def test_options_refuse(wrong, kind, words):
    """A wrong option is named with its value and what was expected."""
    with pytest.raises(kind, match=words):
        ImageOptions(**wrong)


def test_options_are_normalised_and_pickle():
    """Names become types and NumPy integers plain ones, and a worker process gets the same."""
    options = ImageOptions(size=np.array([4, 5]), dtype="float32", rescale=1 / 255)
    assert options.size == (4, 5)
    assert type(options.size[0]) is int
    assert options.dtype == np.dtype(np.float32)
    assert pickle.loads(pickle.dumps(options)) == options
    assert hash(options) == hash(pickle.loads(pickle.dumps(options)))


@pytest.mark.parametrize("size", [150, np.int64(150), np.array(150)])
def test_one_number_is_a_square(size):
    assert ImageOptions(size=size).size == (150, 150)


def test_aspect_needs_a_size():
    """And is one of three."""
    with pytest.raises(ValueError, match=r"size=\(height, width\)"):
        ImageOptions(aspect="crop")
    with pytest.raises(ValueError, match='aspect=\'fill\' is unknown, expected "stretch", "crop"'):
        ImageOptions(aspect="fill", size=(2, 2))
