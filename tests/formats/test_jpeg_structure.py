"""JPEGs from marker to marker: what is missing is found, wherever it was cut."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kloaders as kl
from kloaders.formats import jpeg_structure
from kloaders.formats.errors import DecodeError
from kloaders.formats.images import decode_image
from kloaders.formats.integrity import check_content
from kloaders.formats.jpeg_structure import walk_jpeg
from kloaders.formats.options import ImageOptions
from tests.support.pillow_images import JPEGS, with_thumbnail


def kinds(raw: bytes) -> list[str]:
    return [kind for kind, _ in check_content(raw, "it").problems]


@settings(max_examples=80)
@given(st.sampled_from(sorted(JPEGS)), st.data())
def test_a_loader_sees_a_cut_jpeg(name: str, data: Any) -> None:
    """Half a picture is never trained on: decoding refuses it, so that on_error sees it."""
    cut = data.draw(st.integers(0, len(JPEGS[name]) - 1))
    with pytest.raises(DecodeError):
        decode_image(JPEGS[name][:cut], ImageOptions())


@pytest.mark.parametrize("name", JPEGS)
def test_an_end_marker_behind_half_the_data(name: str) -> None:
    """Cut and given a new end, as some programs leave files: the data tell."""
    raw = JPEGS[name]
    scan = raw.rfind(b"\xff\xda")
    cuts = list(range(scan + 20, len(raw) - 8, 11))
    missed = [cut for cut in cuts if not kinds(raw[:cut].rstrip(b"\xff") + b"\xff\xd9")]
    assert len(missed) <= len(cuts) // 50


@pytest.mark.parametrize("name", JPEGS)
def test_only_the_end_marker_is_missing(name: str) -> None:
    """It is said, and what to do works; where data are missing as well it is not."""
    raw = JPEGS[name]
    for cut in (1, 2):
        ((kind, said),) = check_content(raw[:-cut], "it").problems
        assert (kind, said.endswith("append the bytes ff d9")) == ("truncated", True)
    whole = decode_image(raw, ImageOptions())
    np.testing.assert_array_equal(decode_image(raw[:-2] + b"\xff\xd9", ImageOptions()), whole)
    ((_, said),) = check_content(raw[:-40], "it").problems
    assert "append" not in said


def test_scans_that_are_missing() -> None:
    """A progressive JPEG that ends well after its first scans is blurred, and not whole."""
    raw = JPEGS["progressive"]
    scans = [found.start() for found in re.finditer(rb"\xff\xda", raw)]
    for at in scans[1:]:
        table = raw.rfind(b"\xff\xc4", 0, at)  # the tables of a scan lie before it
        end = table if table > scans[0] and raw[table - 2 : table - 1] != b"\xff" else at
        assert kinds(raw[:end] + b"\xff\xd9") == ["truncated"]


def test_restart_intervals_that_are_missing() -> None:
    """Cut between two intervals, and given an end."""
    raw = JPEGS["restart markers"]
    for found in re.finditer(rb"\xff[\xd0-\xd7]", raw[raw.rfind(b"\xff\xda") :]):
        cut = raw.rfind(b"\xff\xda") + found.start()
        assert kinds(raw[:cut] + b"\xff\xd9") == ["truncated"]


# ---------------------------------------------------------------- another picture behind a cut


def begun_in_exif(raw: bytes) -> bytes:
    """A JPEG whose EXIF segment ends with the begin of another one, as some programs leave it."""
    return raw[:2] + b"\xff\xe1\0\x0cExif\0\0II\xff\xd8" + raw[2:]


ANOTHER = [("baseline", 0.5), ("baseline", 0.9), ("progressive", 0.3), ("progressive", 0.8)]


@pytest.mark.parametrize(("kind", "share"), [*ANOTHER, ("baseline", 0.01), ("progressive", 0.02)])
@pytest.mark.parametrize("second", ["baseline", "progressive"])
def test_a_cut_jpeg_and_another_one(kind, share, second, tmp_path):
    """Two files in one, of which the first is not whole: no picture is half of each."""
    raw = JPEGS[kind]
    cut = raw[: int(len(raw) * share)] + JPEGS[second]
    assert "where another one begins" in walk_jpeg(cut)[0]
    ((problem, _),) = check_content(cut, "it").problems
    assert problem == "truncated"
    (tmp_path / "a.jpg").write_bytes(cut)
    with pytest.raises(kl.SampleError, match=r"a.jpg is truncated: a JPEG that is cut off before"):
        kl.PathSequenceLoader([tmp_path / "a.jpg"])[0]


@pytest.mark.parametrize("kind", JPEGS)
def test_cut_anywhere(kind):
    """In the header, too, where a segment takes what follows for its own."""
    raw = JPEGS[kind]
    header = raw.find(b"\xff\xda")
    places = [*range(2, header), *range(header, len(raw) - 2, max(1, len(raw) // 50))]
    missed = [at for at in places if walk_jpeg(raw[:at] + JPEGS["baseline"])[0] is None]
    # A header that is cut within two bytes of a segment's length may end where the next one begins.
    assert len(missed) <= len(places) // 50, missed


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("wrap", [bytes, with_thumbnail, begun_in_exif])
def test_a_preview_before_or_behind_is_fine(kind, wrap):
    raw = wrap(JPEGS[kind])
    for whole in (raw, raw + JPEGS["baseline"], raw + b"film" + JPEGS["progressive"][:99]):
        assert walk_jpeg(whole) == walk_jpeg(raw)
        assert check_content(whole, "it").problems == []


@given(st.lists(st.sampled_from((0xFF, 0xD8, 0x00)), max_size=40), st.integers(0, 4))
def test_where_another_may_begin(values: list[int], scan: int) -> None:
    """The search without the GIL finds what bytes.find() finds, at odd and even places."""
    raw = bytes(values)
    assert jpeg_structure._holds_start(raw, scan) == (raw.find(b"\xff\xd8", scan) >= 0)
