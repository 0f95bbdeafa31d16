"""Loaders over URLs: which samples arrive, what is fetched for it, and what becomes of faults."""

import logging
import pickle
import threading

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.places import access
from kloaders.places.errors import AccessError
from kloaders.places.fetching import fetcher
from kloaders.sources.remote_files import ListedPaths
from tests.support.object_server import serving
from tests.support.remote import SAMPLES, epoch, fill, npy, numbers
from tests.support.threads import in_thread

pytest.importorskip("obstore", reason="needs the extra `cloud`")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(access, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(access, "_LONGEST_WAIT", 0.01)
    with serving() as found:
        yield found


def local_copies(server, folder):
    """The same objects as files."""
    for name, data in server.objects.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.mark.parametrize("workers", [None, 0, 2])
@pytest.mark.parametrize("cache", ["auto", None])
def test_the_same_batches_as_from_local_files(server, keep, tmp_path, workers, cache):
    """Every sample once per epoch, in the order that the seed fixes."""
    urls = fill(server)
    local_copies(server, tmp_path)
    labels, options = np.arange(SAMPLES), {"shuffle": True, "seed": 3, "cache": cache}
    paths = [tmp_path / f"data/{k:04}.npy" for k in range(SAMPLES)]
    near = keep(kl.PathSequenceLoader(paths, labels, 8, **options))
    far = keep(kl.PathSequenceLoader(urls, labels, 8, workers=workers, **options))
    for _ in range(2):
        for (x, y), (a, b) in zip(epoch(far), epoch(near), strict=True):
            np.testing.assert_array_equal(x, a)
            np.testing.assert_array_equal(y, b)


def test_an_epoch_fetches_each_object_once(server, keep):
    loader = keep(kl.PathSequenceLoader(fill(server), None, 8, shuffle=True, check_paths=False))
    assert sorted(numbers(epoch(loader))) == list(range(SAMPLES))
    assert sorted(set(server.got())) == sorted(server.objects)
    first = len(server.got())
    assert first <= SAMPLES + 1  # one was looked at for its shape
    assert sorted(numbers(epoch(loader))) == list(range(SAMPLES))
    assert len(server.got()) == first  # the cache in RAM has them all


def test_many_requests_at_once(server, keep, monkeypatch):
    monkeypatch.setattr(fetcher, "limit", 16)  # which places of other tests have asked to lower
    server.latency = 0.2  # longer than a busy machine takes to begin the next requests
    loader = keep(kl.PathSequenceLoader(fill(server), None, 8, workers=2, check_paths=False))
    assert numbers(epoch(loader)) == list(range(SAMPLES))
    assert server.peak >= 12


def test_nothing_is_left_behind(server):
    loader = kl.PathSequenceLoader(fill(server), None, 8, shuffle=True, cache=None)
    loader[0]
    loader.close()
    assert fetcher.traffic.in_flight <= 16
    loader = kl.PathSequenceLoader(fill(server), None, 8, shuffle=True, cache=None)
    assert sorted(numbers(epoch(loader))) == list(range(SAMPLES))
    loader.close()


def test_pictures_masks_and_arrays(server, keep):
    """By their suffixes, several inputs, labels that are files, options of images."""
    for k in range(6):
        image = np.full((4, 6, 3), 10 * k, np.uint8)
        server.objects[f"i/{k}.png"] = cv2.imencode(".png", image)[1].tobytes()
        server.objects[f"m/{k}.png"] = cv2.imencode(".png", image[..., 0] // 10)[1].tobytes()
        server.objects[f"a/{k}.npy"] = npy(k)
    x = {
        "image": [server.url(f"i/{k}.png") for k in range(6)],
        "array": [server.url(f"a/{k}.npy") for k in range(6)],
    }
    masks = [server.url(f"m/{k}.png") for k in range(6)]
    loader = keep(kl.PathSequenceLoader(x, masks, 6, size=(2, 3), seed=1))
    inputs, labels = loader[0]
    assert inputs["image"].shape == (6, 2, 3, 3)
    assert inputs["image"][:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]
    assert inputs["array"][:, 0].tolist() == labels[:, 0, 0, 0].tolist() == list(range(6))


def test_decode_and_dtype(server, keep):
    for k in range(4):
        server.objects[f"{k}.raw"] = bytes([k] * 3)
    urls = [server.url(f"{k}.raw") for k in range(4)]

    def decode(data):
        return np.frombuffer(data, np.uint8)

    loader = keep(kl.PathSequenceLoader(urls, None, 4, decode=decode, dtype="float32"))
    assert loader[0].dtype == np.float32
    assert loader[0].tolist() == [[k] * 3 for k in range(4)]


def test_a_hook_is_given_the_url(server, keep):
    """And super().load_sample(url) reads it."""
    seen = []

    class Loader(kl.PathSequenceLoader):
        def load_sample(self, path):
            seen.append(path)
            return super().load_sample(path) + 1

    urls = fill(server, 10)
    loader = keep(Loader(urls, None, 5))
    assert numbers(epoch(loader)) == list(range(1, 11))
    assert set(seen) == set(urls)


def test_a_cache_in_a_folder(server, keep, tmp_path):
    """What is decoded is kept by URL: another loader fetches nothing."""
    urls = fill(server, 20)
    for _ in range(2):
        loader = keep(kl.PathSequenceLoader(urls, None, 5, cache=tmp_path, check_paths=False))
        assert numbers(epoch(loader)) == list(range(20))
        loader.close()
    assert len(server.got()) <= 21


def test_local_files_and_urls_in_one_list(server, keep, tmp_path):
    urls = fill(server, 4)
    (tmp_path / "x.npy").write_bytes(npy(9))
    loader = keep(kl.PathSequenceLoader([*urls, tmp_path / "x.npy"], None, 5))
    assert numbers([loader[0]]) == [0, 1, 2, 3, 9]


def test_a_pattern(server, keep):
    fill(server, 12)
    server.objects["data/readme.txt"] = b"no array"
    loader = keep(kl.PathSequenceLoader(server.url("data/*.npy"), None, 12))
    assert numbers([loader[0]]) == list(range(12))
    with pytest.raises(FileNotFoundError, match=r"no object matches 's3://bucket/none/\*'"):
        kl.PathSequenceLoader(server.url("none/*"))


def test_web_servers(server, keep):
    fill(server, 4, "with space")
    urls = [server.web_url(f"with space/{k:04}.npy") for k in range(4)]
    assert numbers([keep(kl.PathSequenceLoader(urls, None, 4))[0]]) == list(range(4))


@pytest.mark.slow
def test_worker_processes_have_clients_of_their_own(server, keep):
    """With the credentials that this one was given, and many requests at once."""
    server.latency = 0.01
    loader = keep(
        kl.PathSequenceLoader(
            fill(server), None, 20, processes=True, workers=1, transform=_plus_one, cache=None
        )
    )
    assert numbers(epoch(loader)) == list(range(1, SAMPLES + 1))
    assert server.peak >= 12


def _plus_one(x, y, rng):
    return x + 1, y


def test_two_levels(server, keep):
    loader = keep(
        kl.RamBatchSequenceLoader(fill(server), None, 4, ram_batch_size=16, shuffle=True, seed=1)
    )
    for _ in range(2):
        assert sorted(numbers(epoch(loader))) == list(range(SAMPLES))


def test_a_mixture_fetches_what_each_part_needs(server, keep):
    parts = [
        keep(kl.PathSequenceLoader(fill(server, 20, name), None, 8, seed=1, check_paths=False))
        for name in ("a", "b")
    ]
    loader = keep(kl.mix(parts, [0.5, 0.5], batch_size=8, seed=1, epoch_batches=5))
    assert loader.source.fetches
    assert len(numbers(epoch(loader))) == 40
    assert {name[0] for name in server.got()} == {"a", "b"}


def test_both_parts_of_a_split_are_all_of_it(server, keep):
    urls = fill(server)
    train, val = kl.split(urls, np.arange(SAMPLES), 8, validation=0.25, seed=2, shuffle=True)
    keep(train), keep(val)
    assert sorted(numbers(epoch(train)) + numbers(epoch(val))) == list(range(SAMPLES))


# ---------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_object_that_is_missing(server, keep, on_error, caplog):
    urls = fill(server, 20)
    del server.objects["data/0013.npy"]
    with pytest.raises(FileNotFoundError, match=r"s3://bucket/data/0013.npy does not exist"):
        kl.PathSequenceLoader(urls)
    loader = keep(kl.PathSequenceLoader(urls, None, 5, check_paths=False, on_error=on_error))
    if on_error == "raise":
        with pytest.raises(kl.SampleError, match=r"sample 13 \(s3://bucket/data/0013.npy\)"):
            epoch(loader)
        return
    with caplog.at_level(logging.ERROR, "kloaders"):
        assert numbers(epoch(loader)) == [k for k in range(20) if k != 13]
    (error,) = loader.errors
    assert error.name == "s3://bucket/data/0013.npy"
    assert server.got().count("data/0013.npy") <= 4  # it is not asked for again and again


@pytest.mark.parametrize("on_error", ["skip", "replace"])
@pytest.mark.parametrize(
    "code", [(403, "AccessDenied"), (400, "ExpiredToken")], ids=["denied", "expired"]
)
def test_a_place_that_refuses_is_never_skipped(server, keep, on_error, code):
    """Credentials that expire in the epoch end it, with advice, whatever `on_error` says."""
    loader = keep(
        kl.PathSequenceLoader(
            fill(server), None, 8, on_error=on_error, cache=None, check_paths=False
        )
    )
    assert numbers([loader[0]]) == list(range(8))
    loader.close()
    server.fault = lambda *_: code
    with pytest.raises(kl.SampleError, match=r"kloaders.storage\(") as caught:
        loader[5]
    assert isinstance(caught.value.__cause__, AccessError)
    assert loader.errors == []
    assert "verysecretkey" not in str(caught.value)
    assert "AKIDSECRETIVE" not in str(caught.value)
    server.fault = None
    assert numbers([loader[5]]) == list(range(40, 48))


def test_an_object_that_changed_since_it_was_listed(server, keep):
    fill(server, 8)
    loader = keep(kl.PathSequenceLoader(server.url("data/*.npy"), None, 8, on_error="skip"))
    server.objects["data/0003.npy"] = npy(99)
    assert numbers([loader[0]]) == [0, 1, 2, 4, 5, 6, 7]
    assert "s3://bucket/data/0003.npy has changed since it was listed" in str(loader.errors[0])


def test_an_epoch_through_faults_is_exact(server, keep):
    """503, dropped connections, bodies that break off, and all of it away for a moment."""
    urls = fill(server)
    faults = [(503, "SlowDown"), "drop", "cut", (500, "InternalError")]

    def fault(method, name, count):
        return faults[count % 4] if count % 7 == 0 or 30 < count < 60 else None

    server.fault = fault
    loader = keep(kl.PathSequenceLoader(urls, None, 8, shuffle=True, seed=1, check_paths=False))
    assert sorted(numbers(epoch(loader))) == list(range(SAMPLES))
    assert loader.errors == []


def test_a_loader_can_be_closed_in_an_outage(server):
    """Whoever waits for a batch meanwhile gets an error, and `close` does not wait for minutes."""
    loader = kl.PathSequenceLoader(fill(server), None, 8, workers=2, check_paths=False, cache=None)
    loader[0]
    loader.close()
    down = threading.Event()

    def fault(*_):
        down.set()
        return 503, "SlowDown"

    server.fault = fault
    loader.on_epoch_begin()
    thread, outcome = in_thread(lambda: loader[0])
    assert down.wait(20)
    loader.close()
    server.fault = None  # who waited makes the batch itself, and finds the place there again
    thread.join(20)
    assert numbers(outcome) == list(range(8))


def test_credentials_are_in_no_pickle_and_no_state(server, keep):
    loader = keep(kl.PathSequenceLoader(fill(server), None, 8, seed=1))
    loader[0]
    for text in (pickle.dumps(loader), repr(loader.state_dict()).encode(), str(loader).encode()):
        assert b"AKIDSECRETIVE" not in text
        assert b"verysecretkey" not in text


def test_urls_with_credentials_are_refused_before_anything_is_read(server):
    with pytest.raises(ValueError, match="user name or password") as caught:
        kl.PathSequenceLoader(["https://me:secret@host/a.jpg"])
    assert "secret" not in str(caught.value)


def test_listed_paths_keep_their_etags():
    paths = ListedPaths(["s3://b/1", "s3://b/2", "s3://b/3"], ["a", "", "c"])
    taken = pickle.loads(pickle.dumps(paths.take(np.array([2, 1]))))
    assert (list(taken), list(taken.etags)) == (["s3://b/3", "s3://b/2"], ["c", ""])


# ---------------------------------------------------------------------------------------- download_cache


def test_downloads_are_kept_for_the_next_run(server, keep, tmp_path):
    fill(server)
    for _ in range(2):
        loader = kl.PathSequenceLoader(
            server.url("data/*.npy"), None, 8, cache=None, download_cache=tmp_path / "c"
        )
        assert numbers(epoch(loader)) == list(range(SAMPLES))
        loader.close()
        del loader
    assert len(server.got()) == SAMPLES


def test_what_the_download_cache_has_is_read_as_local_files_are(server, keep, tmp_path):
    """By the threads that decode: nothing is announced, and no thread stands between."""
    urls = fill(server)
    loader = kl.PathSequenceLoader(urls, batch_size=8, cache=None, download_cache=tmp_path / "c")
    keep(loader)
    epoch(loader)
    before = fetcher.traffic.objects
    server.requests.clear()
    assert sorted(numbers(epoch(loader))) == list(range(SAMPLES))
    assert fetcher.traffic.objects == before
    assert server.requests == []


def test_parts_of_a_loader_share_the_cache(server, keep, tmp_path):
    """Views, subsets, splits, pickles: what one has fetched, no other fetches."""
    urls = fill(server)
    options = {"cache": None, "download_cache": tmp_path / "c", "download_budget": "8MiB"}
    loader = keep(kl.PathSequenceLoader(urls, None, 8, **options))
    assert numbers(epoch(loader)) == list(range(SAMPLES))
    server.requests.clear()
    for part in (
        loader.view(),
        kl.subset(loader, np.arange(20)),
        kl.split(loader, validation=0.5, seed=1)[1],
        pickle.loads(pickle.dumps(loader)),
    ):
        epoch(keep(part))
    assert server.got() == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"download_budget": "1GiB"}, "is the size of a download cache, but there is none"),
        ({"download_cache": "c", "download_budget": "1kB"}, "less than one block"),
        ({"download_cache": "c", "download_budget": "much"}, "is not a size"),
    ],
)
def test_what_is_no_download_cache(server, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        kl.PathSequenceLoader(fill(server, 3), **options)


def test_a_download_cache_of_local_files(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ValueError, match="no path here is a URL"):
        kl.PathSequenceLoader([tmp_path / "a.npy"], download_cache=tmp_path / "c")
