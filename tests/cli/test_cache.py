"""kloaders cache: what a download cache holds, whether it is whole, and clearing it."""

import os

import pytest
from click.testing import CliRunner

from kloaders.cli.main import cli
from kloaders.places import download_cache
from kloaders.places.download_cache import DownloadCache
from kloaders.places.segments import segments_of


class Place:
    """Objects without a server."""

    patience = 1

    def read(self, name, etag):
        return name.encode() * 1000, "tag"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(download_cache, "place_of", lambda url: Place())
    found = DownloadCache(str(tmp_path / "c"), None, 1, "abc")
    for k in range(3):
        found.read(f"s3://b/object-{k}", "tag")
    yield found
    found.close()


def run(*arguments):
    result = CliRunner().invoke(cli, ["cache", *map(str, arguments)])
    return result.exit_code, result.output


def test_what_it_holds(cache):
    code, said = run(cache.folder)
    assert code == 0
    assert "data set abc: 23.6 KiB" in said
    assert "KiB in total" in said
    assert "objects intact" not in said


def test_whether_it_is_whole(cache):
    assert "3 objects intact, 0 damaged" in run(cache.folder, "--check")[1]
    (segment,) = segments_of(cache.folder)
    with open(os.path.join(cache.folder, segment.name), "r+b") as file:
        file.seek(200)
        file.write(b"damage")
    code, said = run(cache.folder, "--check")
    assert (code, "2 objects intact, 1 damaged" in said) == (1, True)


def test_clearing_leaves_what_is_in_use(cache):
    assert "are in use and were kept" in run(cache.folder, "--clear")[1]
    cache.close()
    code, said = run(cache.folder, "--clear")
    assert (code, "KiB deleted" in said) == (0, True)
    assert segments_of(cache.folder) == []
    assert "0 bytes in total" in run(cache.folder)[1]


def test_what_is_no_cache(tmp_path):
    (tmp_path / "a.objects").write_bytes(b"mine")
    code, said = run(tmp_path, "--clear")
    assert (code, "is not a download cache" in said) == (2, True)
    assert (tmp_path / "a.objects").exists()
