"""Packs at URLs: rows one by one, small columns as a whole, samples of different shapes, damage."""

import re

import numpy as np
import pytest

import kloaders as kl
from kloaders.sources import remote_pack
from kloaders.sources.remote_pack import RemotePackColumn
from tests.support.object_server import serving
from tests.support.range_files import put_folder
from tests.support.remote import epoch

SAMPLES = 30


@pytest.fixture
def server():
    pytest.importorskip("obstore", reason="needs the extra `cloud`")
    with serving() as found:
        yield found


class Stored(kl.SequenceLoader):
    """A loader over a list of samples."""

    def __init__(self, stored, **options):
        self.stored = stored
        super().__init__(len(stored), 1, shuffle=False, **options)

    def load_sample(self, index):
        return self.stored[index]


def pack(folder, server, samples, **options):
    """A pack of samples, at a URL; and one loader over each."""
    loader = Stored(samples)
    kl.write_pack(loader, folder, progress=False, **options)
    loader.close()
    return put_folder(server, folder, "p")


@pytest.mark.parametrize("whole", [0, 2**30])
def test_samples_of_different_shapes(server, tmp_path, keep, monkeypatch, whole):
    monkeypatch.setattr(remote_pack, "_WHOLE_BYTES", whole)
    samples = [(np.full((k % 5 + 1, 3), k, np.float32), np.int64(k)) for k in range(SAMPLES)]
    url = pack(tmp_path / "p", server, samples, shard_size=8)
    loader = keep(kl.PackSequenceLoader(url, 1, shuffle=True, seed=2))
    near = keep(kl.PackSequenceLoader(tmp_path / "p", 1, shuffle=True, seed=2))
    seen = []
    for (x, y), (a, b) in zip(epoch(loader), epoch(near), strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)
        seen += y.tolist()
    assert sorted(seen) == list(range(SAMPLES))


def test_small_columns_are_fetched_once(server, tmp_path, keep, monkeypatch):
    """Labels as a whole, and rows of large arrays one by one."""
    monkeypatch.setattr(remote_pack, "_WHOLE_BYTES", 4096)
    rows = np.arange(SAMPLES * 100, dtype=np.float32).reshape(SAMPLES, 100)
    url = pack(tmp_path / "p", server, [(rows[k], np.int32(k % 3)) for k in range(SAMPLES)])
    loader = keep(kl.PackSequenceLoader(url, 5, shuffle=True, cache=None, class_balance=True))
    server.requests.clear()
    epoch(loader)
    epoch(loader)
    assert sum(name == "p/y.npy" for _, name, _ in server.requests) <= 1
    sizes = {
        int(found[2]) - int(found[1]) + 1
        for _, name, span in server.requests
        if name == "p/x.npy" and (found := re.fullmatch(r"bytes=(\d+)-(\d+)", span))
    }
    assert sizes
    assert max(sizes) <= 400 * SAMPLES


def test_names_and_weights(server, tmp_path, keep):
    loader = keep(
        kl.ArraySequenceLoader(
            np.ones((4, 2), np.float32), np.arange(4), 2, sample_weights=np.arange(4), shuffle=False
        )
    )
    kl.write_pack(loader, tmp_path / "p", progress=False)
    url = put_folder(server, tmp_path / "p", "p")
    far = keep(kl.PackSequenceLoader(url, 2, shuffle=False))
    assert far.sample_name(3) == f"row 3 of {url}/x.npy"
    assert [w for batch in epoch(far) for w in batch[2].tolist()] == [0, 1, 2, 3]
    assert far.folder == url


def test_verify(server, tmp_path, keep):
    url = pack(tmp_path / "p", server, [(np.full(50, k, np.float32), k) for k in range(6)])
    loader = keep(kl.PackSequenceLoader(url, 2))
    loader.verify(progress=False)
    assert kl.verify(url, workers=0, progress=False).ok
    raw = bytearray(server.objects["p/x.npy"])
    raw[300] ^= 1
    server.objects["p/x.npy"] = bytes(raw)
    with pytest.raises(ValueError, match=r"p/x\.npy .*changed since the pack was written"):
        loader.verify(progress=False)
    report = kl.verify(url, workers=0, progress=False)
    assert [one.path for one in report.errors] == [f"{url}/x.npy"]


def test_what_is_no_pack(server, tmp_path):
    with pytest.raises(FileNotFoundError, match="contains no pack"):
        kl.PackSequenceLoader(server.url("nothing"))
    url = pack(tmp_path / "p", server, [(np.zeros(5), k) for k in range(6)])
    server.objects["p/x.npy"] = server.objects["p/x.npy"][:-8]
    with pytest.raises(ValueError, match=r"x\.npy has \d+ bytes, but pack\.json says"):
        kl.PackSequenceLoader(url)
    del server.objects["p/x.npy"]
    with pytest.raises(FileNotFoundError, match=r"p/x\.npy does not exist"):
        kl.PackSequenceLoader(url)


def test_bytes_in_a_numpy_type_of_another_package(server, tmp_path, keep):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rows = np.arange(12).reshape(6, 2).astype(ml_dtypes.bfloat16)
    url = pack(tmp_path / "p", server, [rows[k] for k in range(6)])
    loader = keep(kl.PackSequenceLoader(url, 6, shuffle=False))
    np.testing.assert_array_equal(loader[0].astype(np.float32), rows.astype(np.float32))
    assert isinstance(loader.source.columns[0], RemotePackColumn)
