"""Raw pixels are known by the height and width beside them."""

import numpy as np
import pytest

from kloaders.formats.tfrecord.examples import encode_example, features_of
from kloaders.sources.tfrecord.pixels import pixels_in

PIXELS = np.arange(24, dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "sizes", "shape"),
    [
        ("image_raw", {"height": 2, "width": 4, "depth": 3}, (2, 4, 3)),
        ("image/encoded", {"image/height": 2, "image/width": 4, "image/channels": 3}, (2, 4, 3)),
        ("image/encoded", {"height": 4, "width": 2}, (4, 2, 3)),
        ("x", {"rows": 6, "cols": 4}, (6, 4, 1)),
        ("x", {"height": 2, "width": 3}, (2, 3, 4)),
        ("x", {"height": 2, "width": 4, "depth": 1}, None),
        ("x", {"height": 5, "width": 5}, None),
        ("x", {"height": [2, 2], "width": 4}, None),
        ("x", {"height": 0, "width": 4}, None),
        ("x", {"height": 2.0, "width": 4}, None),
        ("x", {"width": 4}, None),
    ],
)
def test_sizes_that_make_up_the_bytes(name, sizes, shape):
    record = encode_example({name: PIXELS.tobytes(), **sizes})
    found = pixels_in(PIXELS.tobytes(), name, record, features_of(record))
    if shape is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, PIXELS.reshape(shape))
