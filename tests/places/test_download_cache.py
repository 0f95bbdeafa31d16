"""The cache of downloads: what is kept, how much of it at most, and what becomes of damage."""

import logging
import os
import pickle
import sys

import pytest

from kloaders.places import download_cache as module
from kloaders.places.download_cache import BLOCK_BYTES, DownloadCache
from kloaders.places.segments import MARKER, clear, damaged_in, segments_of
from tests.support.writers import killed_while_they_write, used

MIB = 2**20
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")


def objects(server, count, size=100_000):
    """URLs of so many objects, and what is in each."""
    found = {}
    for k in range(count):
        data = (b"%06d" % k) * (size // 6)
        server.objects[f"d/{k}"] = data
        found[server.url(f"d/{k}")] = data
    return found


def read_all(cache, found):
    for url, data in found.items():
        assert cache.read(url, "") == data


def test_a_second_run_fetches_nothing(server, tmp_path):
    """Another process, as after a restart: objects are looked at (HEAD), not fetched."""
    found = objects(server, 20)
    read_all(DownloadCache(tmp_path / "c", None, 1, "a"), found)
    assert len(server.got("GET")) == 20
    again = pickle.loads(pickle.dumps(DownloadCache(tmp_path / "c", None, 1, "a")))
    read_all(again, found)
    assert (len(server.got("GET")), len(server.got("HEAD"))) == (20, 20)
    read_all(again, found)  # and that once
    assert (len(server.got("GET")), len(server.got("HEAD"))) == (20, 20)
    assert (again.hits, again.asked) == (40, 40)


def test_a_budget_keeps_the_same_part_in_each_epoch(server, tmp_path):
    """Half of the data: half of the requests are hits, every epoch, whoever asks."""
    found = objects(server, 200)
    total = sum(map(len, found.values()))
    cache = DownloadCache(tmp_path / "c", total // 2 + MIB, total, "a")
    read_all(cache, found)
    fetched = []
    for _ in range(3):
        server.requests.clear()
        read_all(cache, found)
        fetched.append(sorted(server.got("GET")))
    assert fetched[0] == fetched[1] == fetched[2]
    assert 60 <= len(fetched[0]) <= 140
    assert used(tmp_path / "c") <= total // 2 + MIB


def test_never_above_the_budget(server, tmp_path):
    """Even where the data set is larger than anybody said."""
    found = objects(server, 80)
    cache = DownloadCache(tmp_path / "c", 4 * MIB, 1, "a")
    read_all(cache, found)
    assert 3.8 * MIB < used(tmp_path / "c") <= 4 * MIB


def test_objects_of_any_size_keep_to_the_budget(server, tmp_path):
    """Whole objects, each larger than a block: as many of them as find room."""
    found = objects(server, 5, size=6 * MIB)
    cache = DownloadCache(tmp_path / "c", 16 * MIB, 1, "a")
    read_all(cache, found)
    assert 12 * MIB < used(tmp_path / "c") <= 16 * MIB
    read_all(cache, found)
    assert (len(server.got("GET")), cache.hits) == (8, 2)


def test_nothing_is_deleted_for_an_object_that_finds_no_room(server, tmp_path):
    """It is larger than the budget: what is there of another data set stays."""
    other = DownloadCache(tmp_path / "c", 4 * MIB, 1, "other")
    read_all(other, objects(server, 10))
    other.close()
    before = segments_of(tmp_path / "c")
    read_all(DownloadCache(tmp_path / "c", 4 * MIB, 1, "a"), objects(server, 1, size=5 * MIB))
    assert segments_of(tmp_path / "c") == before


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_the_share_of_the_blocks_of_each_object_is_that_of_the_budget(tmp_path, share):
    """To one block, and not as chance has it, which would be 5 % of 100 blocks."""
    cache = DownloadCache(tmp_path / "c", round(share * 1000 * MIB), 1000 * MIB, "a")
    blocks = [(k * BLOCK_BYTES, (k + 1) * BLOCK_BYTES) for k in range(100)]
    for url in (f"s3://b/{k}" for k in range(20)):
        kept = [span for span in blocks if cache.belongs(url, span)]
        assert abs(len(kept) - 100 * share) <= 1
    again = pickle.loads(pickle.dumps(cache))
    assert [again.belongs(url, span) for span in blocks] == [span in kept for span in blocks]


def test_what_is_there_is_read_whatever_the_budget(server, tmp_path):
    """A later run with a smaller share of the data: what is kept already is not fetched."""
    found = objects(server, 50)
    read_all(DownloadCache(tmp_path / "c", None, 1, "a"), found)
    server.requests.clear()
    read_all(DownloadCache(tmp_path / "c", 8 * MIB, 1000 * MIB, "a"), found)
    assert server.got("GET") == []


def test_what_was_compared_once_is_not_compared_again(server, tmp_path, monkeypatch):
    """A second epoch reads what a local file would be, and no more; it asks for nothing."""
    found = objects(server, 3)
    cache = DownloadCache(tmp_path / "c", None, 1, "a")
    url, data = next(iter(found.items()))
    assert cache.part(url, "") is None
    read_all(cache, found)
    assert cache.part(url, "") == data
    monkeypatch.setattr(module, "content_of", None)
    server.requests.clear()
    assert cache.part(url, "") == data
    assert cache.part(url, "another") is None
    assert server.requests == []


@pytest.mark.parametrize(
    ("budget", "said"), [(1000, r"download_budget=1000 bytes is less than one block of 4.0 MiB")]
)
def test_a_budget_of_nothing(tmp_path, budget, said):
    with pytest.raises(ValueError, match=said):
        DownloadCache(tmp_path / "c", budget, 1, "a")


def test_nothing_of_the_users_is_touched(server, tmp_path):
    """A folder with other files is refused; beside segments, other files stay."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"contains other files, such as 'thesis.tex'"):
        DownloadCache(tmp_path / "mine", None, 1, "a")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="expected a folder"):
        DownloadCache(tmp_path / "file", None, 1, "a")
    cache = DownloadCache(tmp_path / "c", None, 1, "a")
    read_all(cache, objects(server, 3))
    (tmp_path / "c" / "note.txt").write_text("mine")
    (tmp_path / "c" / "other.objects").write_text("mine, too")
    cache.close()
    gone, stay = clear(tmp_path / "c")
    assert (gone > 300_000, stay) == (True, 9)
    assert sorted(os.listdir(tmp_path / "c")) == [MARKER, "note.txt", "other.objects"]


def test_a_segment_in_use_is_not_deleted(server, tmp_path):
    cache = DownloadCache(tmp_path / "c", None, 1, "a")
    found = objects(server, 3)
    read_all(cache, found)
    assert clear(tmp_path / "c")[0] == 0
    read_all(cache, found)
    assert len(server.got("GET")) == 3


def test_another_data_set_takes_the_room_of_one_that_nobody_uses(server, tmp_path):
    first = DownloadCache(tmp_path / "c", 4 * MIB, 1, "a")
    read_all(first, objects(server, 38))
    first.close()
    second = DownloadCache(tmp_path / "c", 4 * MIB, 1, "b")
    others = {server.url(f"e/{k}"): b"e" * 100_000 for k in range(30)}
    server.objects |= {url.removeprefix("s3://bucket/"): data for url, data in others.items()}
    read_all(second, others)
    assert {segment.data for segment in segments_of(tmp_path / "c")} == {"b"}
    server.requests.clear()
    read_all(second, others)
    assert server.got("GET") == []


def test_a_new_version_is_never_taken_for_an_old_one(server, tmp_path):
    cache = DownloadCache(tmp_path / "c", None, 1, "a")
    (url,) = objects(server, 1)
    cache.read(url, "")
    server.objects["d/0"] = b"new"
    assert DownloadCache(tmp_path / "c", None, 1, "a").read(url, "") == b"new"
    etag = '"22af645d1859cb5ca6da0c484f1f37ea"'
    assert DownloadCache(tmp_path / "c", None, 1, "a").read(url, etag) == b"new"
    with pytest.raises(OSError, match="has changed since it was listed"):
        cache.read(url, '"another"')


def test_damage_is_found_and_fetched_again(server, tmp_path, caplog):
    found = objects(server, 3)
    cache = DownloadCache(tmp_path / "c", None, 1, "a")
    read_all(cache, found)
    (segment,) = segments_of(tmp_path / "c")
    with open(tmp_path / "c" / segment.name, "r+b") as file:
        file.seek(segment.size // 2)
        file.write(b"damage")
    assert damaged_in(tmp_path / "c", segment) == (2, 1)
    with caplog.at_level(logging.WARNING, "kloaders"):
        read_all(cache, found)
    assert len(server.got("GET")) == 4
    assert "s3://bucket/d/1 is damaged, and is fetched again" in caplog.text


def test_an_entry_that_was_cut_short(server, tmp_path):
    """As kill -9 leaves it: what is whole before it counts."""
    found = objects(server, 3)
    read_all(DownloadCache(tmp_path / "c", None, 1, "a"), found)
    (segment,) = segments_of(tmp_path / "c")
    os.truncate(tmp_path / "c" / segment.name, segment.size - 10)
    read_all(DownloadCache(tmp_path / "c", None, 1, "a"), found)
    assert len(server.got("GET")) == 4


@pytest.mark.parametrize("what", ["removed", "full"])
def test_training_goes_on_without_the_cache(server, tmp_path, monkeypatch, caplog, what):
    found = objects(server, 6)
    cache = DownloadCache(tmp_path / "c", None, 1, "a")
    read_all(cache, dict(list(found.items())[:2]))
    if what == "removed":
        for name in os.listdir(tmp_path / "c"):
            (tmp_path / "c" / name).unlink()
        (tmp_path / "c").rmdir()
    else:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
    with caplog.at_level(logging.WARNING, "kloaders"):
        read_all(cache, found)
        read_all(cache, found)
    assert caplog.text.count("stores no more objects") == 1


WRITER = """
import sys
from kloaders.places import download_cache as module
class Place:
    def read(self, name, etag): return name.encode() * 30_000, "tag"
    def head(self, name): raise AssertionError
module.place_of = lambda url: Place()
cache = module.DownloadCache(sys.argv[1], 8 * 2**20, 1, "a")
print("ready", flush=True)
sys.stdin.readline()
for k in range(100_000):
    url = f"s3://b/{sys.argv[2]}{k:05}"
    assert cache.read(url, "tag") == url[7:].encode() * 30_000
"""


def test_two_processes_and_one_cache_that_are_killed(tmp_path):
    """The budget holds all the time, also after kill -9, and all that is left is whole or no entry."""
    killed_while_they_write(tmp_path, WRITER, least=7 * MIB, most=8 * MIB)


def test_two_processes_that_are_killed_while_they_write_large_objects(tmp_path):
    """Whole objects of 6 MiB, which is more than a block."""
    writer = WRITER.replace("30_000", "600_000").replace("8 * 2**20", "32 * 2**20")
    killed_while_they_write(tmp_path, writer, least=20 * MIB, most=32 * MIB)


def test_a_fork_writes_a_segment_of_its_own(server, tmp_path):
    cache = DownloadCache(tmp_path / "c", None, 1, "a")
    read_all(cache, objects(server, 2))
    cache.after_fork()
    server.objects["new"] = b"n"
    cache.read(server.url("new"), "")
    assert len(segments_of(tmp_path / "c")) == 2


def test_what_is_no_cache_has_no_segments(tmp_path):
    (tmp_path / "x.objects").write_bytes(b"mine")
    assert segments_of(tmp_path) == []
    assert clear(tmp_path) == (0, 0)
