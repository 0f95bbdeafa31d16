"""Photographs, sound and spoilt."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.spoilt_photos import spoil, write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of six sound images each, in a folder of their own."""
    return write_photos(tmp_path)


@pytest.fixture
def spoilt(photos: Path) -> dict[str, str]:
    """What is wrong in `photos` from now on: paths and kinds."""
    return spoil(photos)
