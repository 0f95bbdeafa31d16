"""A cache in front of rows of files: what is kept, and when."""

import numpy as np
import pytest

from kloaders.core.options import CacheOptions, WorkOptions
from kloaders.sources.cache.encoded import cached_rows
from kloaders.sources.cache.source import CachedSource
from kloaders.sources.source import Source


class Numbers(Source):
    def __init__(self):
        self.reads = []

    def __len__(self):
        return 4

    def read(self, index):
        self.reads.append(index)
        return np.float32(index)


def cached(source, cache, path, decoded=True, processes=False, made_by=("v", 1)):
    return cached_rows(
        source,
        CacheOptions(cache=cache),
        WorkOptions(processes=processes),
        decoded=decoded,
        name=lambda index: f"row {index}",
        file_of=lambda index: str(path),
        paths=[str(path)],
        made_by=made_by,
        functions={},
    )


@pytest.fixture
def path(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"data")
    return tmp_path / "data.bin"


@pytest.mark.parametrize(
    ("cache", "options", "keeps"),
    [
        (None, {}, False),
        ("auto", {}, True),
        ("auto", {"decoded": False}, False),
        ("auto", {"processes": True}, False),
        ("ram", {"decoded": False}, True),
    ],
)
def test_when_samples_are_kept(path, cache, options, keeps):
    source = Numbers()
    assert isinstance(cached(source, cache, path, **options), CachedSource) == keeps


def test_what_a_users_function_makes_is_not_kept_unasked(path):
    source = Numbers()
    source.runs_user_code = True
    assert cached(source, "auto", path) is source
    assert cached(source, "ram", path) is not source


def test_each_sample_is_read_once(path):
    source = Numbers()
    rows = cached(source, "ram", path)
    assert [rows.sample(k, None)[0] for k in (1, 3, 1)] == [1, 3, 1]
    assert source.reads == [1, 3]


def test_a_folder_tells_options_and_data_apart(path, tmp_path):
    folder = tmp_path / "cache"

    def reads(made_by):
        source = Numbers()
        rows = cached(source, folder, path, made_by=made_by)
        # The first one is always read: it tells how many arrays there are.
        assert [rows.sample(k, None)[0] for k in (0, 2)] == [0, 2]
        return source.reads[1:]

    assert (reads(("v", 1)), reads(("v", 1)), reads(("v", 2))) == ([2], [], [2])
    path.write_bytes(b"other data")
    assert reads(("v", 1)) == [2]
