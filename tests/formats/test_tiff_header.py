"""What the directories of a TIFF say, in either order of bytes, small and big."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile

from kloaders.formats.tiff_header import (
    ORIENTATION,
    page_offsets,
    tags_of,
    tiff_facts,
    with_first_page,
)
from tests.support.odd_images import bands, tiff_of


def written(image: Any, order: str = "<", big: bool = False, **options: Any) -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, byteorder=order, bigtiff=big) as writer:  # type: ignore[arg-type]
        writer.write(image, metadata=None, **options)
        writer.write(image[:4, :5], metadata=None, subfiletype=1, **options)
        writer.write(image, metadata=None, **options)
    return stream.getvalue()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_facts(order: str, big: bool) -> None:
    image = bands(5, np.int16)
    options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"}
    raw = written(image, order, big, rowsperstrip=10, **options)
    facts = tiff_facts(raw)
    assert facts is not None
    assert (facts.height, facts.width, facts.samples) == image.shape
    assert (facts.bits, facts.form, facts.dtype) == (16, 2, np.int16)
    assert (facts.photometric, facts.compression, facts.planar, facts.tiled) == (1, 1, False, False)
    assert (facts.orientation, facts.colours) == (1, 0)
    assert len(facts.strips) == 4
    begin, size = facts.strips[1]
    stored = np.frombuffer(raw[begin : begin + size], np.dtype(f"{order}i2"))
    np.testing.assert_array_equal(stored.reshape(10, 21, 5), image[10:20])
    first, last = page_offsets(raw)  # not the preview between them
    assert facts.following not in (first, last)
    moved = tiff_facts(with_first_page(raw, last))
    assert moved is not None
    assert moved.strips != facts.strips
    assert (moved.height, moved.following) == (facts.height, 0)


@pytest.mark.parametrize(
    ("image", "photometric", "options", "colours"),
    [
        (bands(1), "minisblack", {}, 1),
        (bands(2), "minisblack", {}, 0),
        (bands(2), "minisblack", {"extrasamples": ["unassalpha"]}, 1),
        (bands(3), "rgb", {}, 3),
        (bands(5), "rgb", {}, 3),
        (bands(3), "minisblack", {}, 0),
    ],
)
def test_colours(image: Any, photometric: str, options: Any, colours: int) -> None:
    """How many of the samples are gray, or red, green and blue."""
    facts = tiff_facts(tiff_of(image, photometric, **options))
    assert facts is not None
    assert facts.colours == colours


def test_planes_and_tiles() -> None:
    facts = tiff_facts(tiff_of(bands(3), planarconfig="separate", tile=(16, 16)))
    assert facts is not None
    assert facts.planar
    assert facts.tiled
    assert len(facts.strips) == 3 * 3 * 2


def test_what_is_cut_or_a_circle_ends() -> None:
    """No exception, whatever is missing; a chain of pages that never ends does."""
    raw = written(bands(1)[..., 0])
    for cut in range(0, len(raw), 3):
        tiff_facts(raw[:cut])
        tags_of(raw[:cut], frozenset((ORIENTATION,)))
    first, last = page_offsets(raw)
    entries = struct.unpack_from("<H", raw, last)[0]
    circle = bytearray(raw)
    struct.pack_into("<I", circle, last + 2 + 12 * entries, first)
    assert list(page_offsets(bytes(circle))) == [first, last]
    assert tags_of(b"nothing", frozenset((ORIENTATION,))) == {}
    assert tiff_facts(b"II*\0\x08\0\0\0\0\0") is None
