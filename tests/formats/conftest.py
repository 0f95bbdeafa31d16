"""Files of records, for tests of their format and of their index; and a watch over open files."""

from pathlib import Path

import pytest

from kloaders.formats.tfrecord import scan
from kloaders.formats.tfrecord.framing import framed
from tests.support.records import DATA


@pytest.fixture
def file(tmp_path):
    """file(records, name) -> the path of a file of them."""

    def _file(data=DATA, name="a.tfrecord", raw=None):
        path = tmp_path / name
        path.write_bytes(b"".join(map(framed, data)) if raw is None else raw)
        return str(path)

    return _file


@pytest.fixture
def walks(monkeypatch):
    """How often a file was walked."""
    count = []
    for name in ("_walk", "_walk_stream"):
        real = getattr(scan, name)
        monkeypatch.setattr(scan, name, lambda *a, real=real: count.append(a) or real(*a))
    return count


def _open_descriptors():
    """How many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def no_leaks():
    """Whatever a test does, no file stays open behind it."""
    if not Path("/proc/self/fd").is_dir():
        yield
        return
    before = _open_descriptors()
    yield
    assert _open_descriptors() <= before
