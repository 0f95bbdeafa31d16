"""Loaders on other people's servers: nginx that is slow, away or drops connections, and Azure's protocol."""

from __future__ import annotations

import time

import numpy as np
import pytest

import kloaders as kl
from kloaders.places import access
from kloaders.places.errors import ChangedError
from tests.support.parts import data, pack, source
from tests.support.remote import epoch, npy, numbers
from tests.support.servers import azurite, nginx

SAMPLES = 200


@pytest.fixture
def files(tmp_path):
    """A folder that nginx serves, and one for what it writes."""
    pytest.importorskip("obstore", reason="needs the extra `cloud`")
    root, own = tmp_path / "root", tmp_path / "nginx"
    (root / "data").mkdir(parents=True)
    own.mkdir()
    for k in range(SAMPLES):
        (root / "data" / f"{k:04}.npy").write_bytes(npy(k))
    return root, own


def urls(server: str) -> list[str]:
    return [f"{server}/data/{k:04}.npy" for k in range(SAMPLES)]


@pytest.mark.parametrize("latency", [0.02, 0.08])
def test_latency_is_hidden_by_many_requests(files, latency) -> None:
    """Every sample once, and much sooner than one request after the other would take."""
    with nginx(*files, latency=latency) as server:
        loader = kl.PathSequenceLoader(urls(server), batch_size=20, seed=3, cache=None)
        begin = time.monotonic()
        assert sorted(numbers(epoch(loader))) == list(range(SAMPLES))
        assert time.monotonic() - begin < max(0.5 * SAMPLES * latency, 4)


@pytest.mark.parametrize(("errors", "resets"), [(5, 2), (0, 20), (30, 0)])
def test_a_server_with_faults_costs_no_sample(files, errors, resets) -> None:
    """503 and closed connections, at random: each epoch is whole, in the order of the seed."""
    local = [str(files[0] / "data" / f"{k:04}.npy") for k in range(SAMPLES)]
    expected = numbers(epoch(kl.PathSequenceLoader(local, batch_size=20, seed=3)))
    with nginx(*files, errors=errors, resets=resets) as server:
        loader = kl.PathSequenceLoader(urls(server), batch_size=20, seed=3, cache=None)
        assert numbers(epoch(loader)) == expected
        assert loader.errors == []


def test_azure(tmp_path, monkeypatch) -> None:
    """Listed, read, trained on, written to, and written only if absent or unchanged."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    with azurite(tmp_path) as url:
        for k in range(30):
            access.put(f"{url}/data/{k % 3}/{k:04}.npy", [npy(k)])
        loader = kl.PathSequenceLoader(f"{url}/data/*/*.npy", batch_size=7, cache=None)
        assert sorted(numbers(epoch(loader))) == list(range(30))
        with pytest.raises(FileExistsError):
            access.put(f"{url}/data/0/0000.npy", [b"other"], only_if_absent=True)
        with pytest.raises(ChangedError):
            access.put(f"{url}/data/0/0000.npy", [b"other"], etag='"0x0"')
        kl.write_pack(source(), f"{url}/packed", shard_size=500, progress=False)
        found = {
            name: access.read(f"{url}/packed/{name}")
            for name, _ in access.list_below(f"{url}/packed")
            if "finished" not in name
        }
        pack(tmp_path / "local")
        assert found == data(tmp_path / "local")
        large = np.random.default_rng(1).bytes(17 * 2**20)
        (tmp_path / "large").write_bytes(large)
        access.put_file(f"{url}/large", str(tmp_path / "large"), only_if_absent=True)
        assert access.read(f"{url}/large") == large
        assert (
            kl.write_pack(source(), f"{url}/packed", shard_size=500, progress=False).samples == 40
        )
