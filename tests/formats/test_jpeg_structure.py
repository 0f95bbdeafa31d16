"""JPEGs from marker to marker: what is missing is found, wherever it was cut."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kloaders.formats.errors import DecodeError
from kloaders.formats.images import decode_image
from kloaders.formats.integrity import check_content
from kloaders.formats.options import ImageOptions
from tests.support.pillow_images import JPEGS


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
