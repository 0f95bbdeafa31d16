"""Raw pixels of an image in a record, with height and width in other features."""

from __future__ import annotations

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.tfrecord.examples import INT64, Found, values_of

__all__ = ["pixels_in"]

# Names that writers use for these, alone or with the image's prefix: "height", "image/height".
_HEIGHT = ("height", "image_height", "img_height", "rows")
_WIDTH = ("width", "image_width", "img_width", "cols")
_DEPTH = ("depth", "channels", "image_channels", "num_channels")
_CHANNELS = (1, 3, 4)


def pixels_in(raw: bytes, name: str, record: bytes, found: dict[str, Found]) -> Array | None:
    """A uint8 array (height, width, channels), if the number of bytes matches the record's sizes.

    Args:
        raw: bytes that may be pixels.
        name: the name of their feature.
        record: the whole record.
        found: its features.
    """
    folder = name.rpartition("/")[0]
    height, width, depth = (
        _number(record, found, folder, names) for names in (_HEIGHT, _WIDTH, _DEPTH)
    )
    if not height or not width:
        return None
    depths = _CHANNELS if depth is None else (depth,)
    channels = next((n for n in depths if height * width * n == len(raw)), None)
    if not channels:
        return None
    return np.frombuffer(raw, np.uint8).reshape(height, width, channels)


def _number(
    record: bytes, found: dict[str, Found], folder: str, names: tuple[str, ...]
) -> int | None:
    for name in names:
        for full in (f"{folder}/{name}", name):
            here = found.get(full)
            if here is not None and here.kind == INT64:
                values = values_of(record, here)
                if len(values) == 1:
                    return int(values[0])
    return None
