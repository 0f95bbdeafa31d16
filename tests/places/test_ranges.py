"""Objects read by ranges: which bytes come, by how many requests, and what the cache keeps of them."""

import os
import pickle
import re
import sys
import threading

import numpy as np
import pytest

from kloaders.places import access
from kloaders.places.download_cache import BLOCK_BYTES
from kloaders.places.errors import BrokenTransferError, ChangedError, PlaceError
from kloaders.places.fetching import fetcher
from kloaders.places.ranges import RangeUrls, Walk, walking
from kloaders.places.segments import segments_of
from tests.support.threads import in_threads

SIZE = 3 * BLOCK_BYTES + 1000
CONTENT = np.random.default_rng(0).bytes(SIZE)


@pytest.fixture
def server(server, monkeypatch):
    monkeypatch.setattr(access, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(access, "_LONGEST_WAIT", 0.01)
    server.objects["a.bin"] = CONTENT
    return server


def opened(server, *cache):
    url = server.url("a.bin")
    return RangeUrls([url], *cache).open(url)


def spans(server):
    """What was asked for: first byte, and the one behind the last."""
    found = [re.fullmatch(r"bytes=(\d+)-(\d+)", span) for _, _, span in server.requests]
    return [(int(one[1]), int(one[2]) + 1) for one in found if one]


@pytest.mark.parametrize("cached", [False, True])
def test_any_range_is_right(server, tmp_path, cached):
    """Whatever is announced before, with blocks of a cache and without."""
    file = opened(server, *([tmp_path / "c", 2 * BLOCK_BYTES] if cached else []))
    rng = np.random.default_rng(1)
    for _ in range(8):
        starts = rng.integers(0, SIZE, 5)
        lengths = rng.choice([0, 1, 100, 70_000, BLOCK_BYTES, 2 * BLOCK_BYTES], 5)
        ranges = list(zip(starts.tolist(), (starts + lengths).tolist(), strict=True))
        claim = fetcher.announce_spans(file.pieces(ranges[:3]))
        for start, stop in ranges:
            assert file.read(stop - start, start) == CONTENT[start:stop]
        claim.release()
    assert not fetcher._objects
    assert not fetcher._spans
    if cached:
        used = sum(segment.size for segment in segments_of(tmp_path / "c"))
        assert used <= 2 * BLOCK_BYTES


def test_neighbours_are_one_request(server):
    file = opened(server)
    ranges = [(1000, 2000), (2000, 2500), (30_000, 30_010), (2 * BLOCK_BYTES, 2 * BLOCK_BYTES + 9)]
    claim = fetcher.announce_spans(file.pieces(ranges[::-1]))
    for start, stop in ranges:
        assert file.read(stop - start, start) == CONTENT[start:stop]
    assert sorted(spans(server)) == [(1000, 30_010), ranges[-1]]
    claim.release()


def test_much_is_several_requests_at_once(server):
    """No request is for more than a block, so that a transfer that breaks off costs little."""
    server.latency = 0.05
    assert opened(server).read(SIZE, 0) == CONTENT
    assert max(stop - start for start, stop in spans(server)) <= BLOCK_BYTES
    assert server.peak >= 3


def test_blocks_are_read_from_the_disk(server, tmp_path):
    """A block is fetched once; ranges of it are then read from the file, by another process as well."""
    file = opened(server, tmp_path / "c")
    assert file.read(10, 5) == CONTENT[5:15]
    assert spans(server) == [(0, BLOCK_BYTES)]
    for again in (file, opened(server, tmp_path / "c")):
        for start in (0, 77, BLOCK_BYTES - 3):
            assert again.read(3, start) == CONTENT[start : start + 3]
        assert again.pieces([(0, 100)]) == []
    assert len(spans(server)) == 1


def test_half_a_budget_saves_the_same_half_each_time(server, tmp_path):
    objects = {f"{k}.bin": CONTENT[: 2 * BLOCK_BYTES] for k in range(8)}
    server.objects |= objects
    urls = [server.url(name) for name in objects]
    files = RangeUrls(urls, tmp_path / "c", 8 * BLOCK_BYTES + 2**16)
    kept = []
    for _ in range(3):
        server.requests.clear()
        for url in urls:
            for start in (100, BLOCK_BYTES + 100):
                assert files.open(url).read(50, start) == CONTENT[start : start + 50]
        kept.append(16 - len(spans(server)))
    assert kept[1] == kept[2]
    assert 3 <= kept[1] <= 8
    # What belongs to the other half is asked for as it is, and not as a block.
    assert all(stop - start == 50 for start, stop in spans(server))


def test_damage_on_the_disk_is_fetched_again(server, tmp_path):
    opened(server, tmp_path / "c").read(10, 0)
    (segment,) = (tmp_path / "c").glob("*.objects")
    raw = bytearray(segment.read_bytes())
    raw[5000] ^= 1
    segment.write_bytes(raw)
    assert opened(server, tmp_path / "c").read(10, 4900) == CONTENT[4900:4910]
    assert len(spans(server)) == 2


def test_a_full_cache_is_no_reason_to_fetch_blocks(server, tmp_path, monkeypatch):
    """What finds no room is asked for as it is: a block for each range would be many times as much."""
    file = opened(server, tmp_path / "c", BLOCK_BYTES)
    monkeypatch.setattr(type(file.cache), "belongs", lambda *_: True)
    for k in range(3):
        file.read(10, k * BLOCK_BYTES)
    server.requests.clear()
    for k in range(3):
        assert file.read(10, k * BLOCK_BYTES) == CONTENT[k * BLOCK_BYTES :][:10]
    assert all(stop - start == 10 for start, stop in spans(server))


@pytest.mark.parametrize("fault", ["cut", "short", "drop", (503, "SlowDown")])
def test_a_fault_is_tried_again(server, fault):
    file = opened(server)
    server.fault = lambda method, name, count: fault if count % 2 == 0 else None
    for start in (10, 20_000, SIZE - 100):
        assert file.read(100, start) == CONTENT[start : start + 100]


@pytest.mark.parametrize("fault", ["short", "cut"])
def test_a_server_that_always_lies(server, fault):
    file = opened(server)
    server.fault = lambda method, name, count: fault
    with pytest.raises(BrokenTransferError, match=r"a\.bin never arrives completely"):
        file.read(100, 0)


def test_a_size_that_is_too_large(server):
    server.fault = lambda method, name, count: "longer" if method == "HEAD" else None
    file = opened(server)
    assert file.size == SIZE + 1000
    with pytest.raises(BrokenTransferError, match=r"a\.bin never arrives completely"):
        file.read(2000, SIZE - 1000)


def test_a_server_without_ranges_is_no_silent_mistake(server):
    file = opened(server)
    server.fault = lambda method, name, count: "whole"
    for start in (0, 50):
        with pytest.raises(PlaceError, match=r"returned all of s3://bucket/a\.bin when a part"):
            file.read(100, start)


def test_one_version_is_read(server):
    file = opened(server)
    assert file.read(10, 0) == CONTENT[:10]
    server.objects["a.bin"] = CONTENT[::-1]
    with pytest.raises(ChangedError, match=r"a\.bin has changed"):
        file.read(10, 100)
    assert opened(server).stamp() != file.stamp()


def test_what_is_announced_of_another_version_is_not_taken(server):
    """A longer one, of which another loader still waits for a part behind the end of this one."""
    old = opened(server)
    claim = fetcher.announce_spans(old.pieces([(0, 2000)]))
    assert fetcher.covering(old.url, old.etag, 10, 20) == (0, 2000)
    server.objects["a.bin"] = CONTENT[1000:2000]
    new = opened(server)
    assert fetcher.covering(new.url, new.etag, 10, 20) is None
    assert new.read(100, 900) == CONTENT[1900:2000]
    claim.release()
    assert not fetcher._objects


def test_another_version_is_not_taken_from_the_cache(server, tmp_path):
    opened(server, tmp_path / "c").read(10, 0)
    server.objects["a.bin"] = CONTENT[::-1]
    assert opened(server, tmp_path / "c").read(10, 0) == CONTENT[::-1][:10]


def test_a_walk_reads_on_in_large_ranges(server):
    """Headers of small members lie close to each other: all is read, in few requests."""
    walk = walking(opened(server))
    assert isinstance(walk, Walk)
    for at in range(0, SIZE, 10_000):
        assert walk.read(12, at) == CONTENT[at : at + 12]
    assert len(spans(server)) <= 14
    assert max(stop - start for start, stop in spans(server)) == BLOCK_BYTES
    walk.close()
    assert not fetcher._objects


def test_a_walk_leaves_out_what_is_large(server):
    walk = walking(opened(server))
    for at in range(0, SIZE, 2 * 2**20):
        assert walk.read(512, at) == CONTENT[at : at + 512]
    assert sum(stop - start for start, stop in spans(server)) < SIZE // 8
    assert walk.read(BLOCK_BYTES + 5, 3) == CONTENT[3 : BLOCK_BYTES + 8]
    assert walk.read(100, SIZE - 10) == CONTENT[-10:]


def test_local_files_are_walked_as_they_are():
    file = object()
    assert walking(file) is file


def test_it_pickles_without_credentials(server, tmp_path):
    urls = RangeUrls([server.url("a.bin")], tmp_path / "c")
    raw = pickle.dumps(urls)
    assert b"AKIDSECRETIVE" not in raw
    assert b"verysecretkey" not in raw
    assert pickle.loads(raw).open(server.url("a.bin")).read(5, 5) == CONTENT[5:10]
    assert urls.index_folder(None) == os.path.join(tmp_path / "c", "indexes")
    assert urls.index_folder("mine") == "mine"


def test_threads_share_a_block(server, tmp_path):
    """Many threads that want parts of one block: one request."""
    file = opened(server, tmp_path / "c")
    barrier, wrong = threading.Barrier(8), []

    def read(k):
        barrier.wait()
        if file.read(9, 100 * k) != CONTENT[100 * k : 100 * k + 9]:
            wrong.append(k)

    in_threads(read, 8)
    assert not wrong
    assert len(spans(server)) <= 2


READER = """
import sys
from kloaders.places import download_cache as module
from kloaders.places import fetching
from kloaders.places.ranges import RemoteFile
B = module.BLOCK_BYTES
class Place:
    patience = 20
    def read_range(self, name, start, stop, etag): return bytes([start // B % 251]) * (stop - start)
fetching.place_of = lambda url: Place()
cache = module.DownloadCache(sys.argv[1], 3 * B, 1, "a")
file = RemoteFile("s3://b/" + sys.argv[2], 10_000 * B, "tag", cache)
print("ready", flush=True)
sys.stdin.readline()
for k in range(10_000):
    assert file.read(100, k * B + 50) == bytes([k % 251]) * 100
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_two_readers_that_are_killed(tmp_path):
    """Never more than the budget, also after kill -9; what is left is whole blocks or no entry."""
    from tests.support.writers import killed_while_they_write

    killed_while_they_write(tmp_path, READER, least=2 * BLOCK_BYTES, most=3 * BLOCK_BYTES)
