"""What tests of caches start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from kloaders.formats import by_suffix
from kloaders.sources.cache import folder as folder_cache
from kloaders.sources.cache import store as stores
from tests.sources.cache.pictures import SAMPLES, write


@pytest.fixture
def pictures(tmp_path):
    """PNG files of one colour each, the number of its sample."""
    paths = [tmp_path / f"{number:02}.png" for number in range(SAMPLES)]
    for number, path in enumerate(paths):
        write(path, number)
    return [str(path) for path in paths]


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded, in order."""
    found = []
    real = by_suffix.read_sample

    def read(path, options, out=None):
        found.append(Path(path).name)
        return real(path, options, out)

    monkeypatch.setattr(by_suffix, "read_sample", read)
    return found


@pytest.fixture(autouse=True)
def no_grace(monkeypatch):
    """A file is looked at before each time that it is served."""
    monkeypatch.setattr(stores, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(folder_cache, "_REFRESH_SECONDS", 0.0)


@pytest.fixture(params=["auto", "ram", "folder"])
def where(request, tmp_path):
    return tmp_path / "cache" if request.param == "folder" else request.param
