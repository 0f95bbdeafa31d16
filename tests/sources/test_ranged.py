"""Loaders over objects that hold many samples each: which samples arrive, and what is asked for."""

import logging
import pickle

import numpy as np
import pytest

import kloaders as kl
from kloaders.places import access
from kloaders.places.fetching import fetcher
from kloaders.sources import remote_pack
from tests.support.object_server import serving
from tests.support.range_files import KINDS, SAMPLES, WIDTH, made, put_folder
from tests.support.recording import recording_model
from tests.support.remote import epoch, numbers
from tests.support.s3 import moto
from tests.support.tar_files import write_tar

pytest.importorskip("obstore", reason="needs the extra `cloud`")

ALL = list(range(SAMPLES))
OPTIONS = {"shuffle": True, "seed": 3, "cache": None}
# Of these all of a column, or a row group, is read at once.
BY_SAMPLE = [kind for kind in KINDS if kind not in ("pack", "parquet")]


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(access, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(access, "_LONGEST_WAIT", 0.01)
    # Rows of x are fetched one by one, and labels as a whole.
    monkeypatch.setattr(remote_pack, "_WHOLE_BYTES", 2048)
    with serving() as found:
        yield found


@pytest.fixture(params=KINDS)
def kind(request):
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra `parquet`")
    return request.param


@pytest.fixture
def far(server, kind, tmp_path, keep):
    """far(batch_size, **options) -> a loader over the URL; `far.near` one over the local files."""
    folder = made(kind, tmp_path / "files")
    url = put_folder(server, folder)

    def load(*sizes, **options):
        return keep(KINDS[kind].load(url, *(sizes or (8,)), **(OPTIONS | options)))

    load.near = lambda: keep(KINDS[kind].load(folder, 8, **OPTIONS))
    return load


def asked(server):
    """Requests for content: name and range."""
    return [(name, span) for how, name, span in server.requests if how == "GET" and name]


@pytest.mark.parametrize("workers", [None, 0])
def test_the_same_batches_as_from_local_files(far, workers):
    """Every sample once per epoch, in the order that the seed fixes; shuffled as a whole."""
    loader, near = far(workers=workers), far.near()
    for _ in range(2):
        got = epoch(loader)
        for (x, y), (a, b) in zip(got, epoch(near), strict=True):
            np.testing.assert_array_equal(x, a)
            np.testing.assert_array_equal(y, b)
        order = numbers(got)
        assert sorted(order) == ALL
        assert max(np.diff(order)) > 20
    loader.close()
    assert not fetcher._objects


@pytest.mark.slow
def test_a_model_receives_each_sample_once(far):
    model, received = recording_model((WIDTH,))
    model.fit(far(), epochs=2, verbose=0)
    seen = [n for batch in received.trained for n in batch]
    assert sorted(seen[:SAMPLES]) == ALL
    assert sorted(seen[SAMPLES:]) == ALL


def test_a_run_goes_on(far):
    loader = far()
    loader.on_epoch_begin()
    seen = numbers([loader[k] for k in range(3)])
    state = loader.state_dict()
    after = far()
    after.load_state_dict(state)
    assert sorted(seen + numbers(epoch(after))) == ALL


def test_parts_and_shards_are_all_of_it(far):
    train, val = kl.split(far(), validation=0.25, seed=1)
    both = numbers(epoch(train)) + numbers(epoch(val))
    assert sorted(both) == ALL
    parts = [far(4, shard=(k, 2)) for k in range(2)]
    assert sorted(n for part in parts for n in numbers(epoch(part))) == ALL


def test_faults_of_the_server(far, server):
    """Bodies cut in the middle, lies about lengths, 503 and connections that break: an exact epoch."""
    loader = far()
    faults = ["cut", "short", (503, "SlowDown"), "drop"]

    def fault(method, name, count):
        return faults[count // 4 % 4] if count % 4 == 0 and method == "GET" else None

    server.fault = fault
    assert sorted(numbers(epoch(loader))) == ALL


def test_an_object_that_changes_between_ranges(far, server, kind):
    """One version of an object is read: another one is an error that names it."""
    loader = far()
    name = max(name for name in server.objects if name != "data/y.npy")
    server.objects[name] = server.objects[name][:-1] + b"?"
    loader._source.close()
    with pytest.raises(kl.SampleError, match=r"has changed since it was listed") as error:
        epoch(loader)
    assert name in str(error.value)


def test_warm_from_the_cache_nothing_is_asked_for(far, server, tmp_path):
    cache = tmp_path / "blocks"
    assert sorted(numbers(epoch(far(download_cache=cache)))) == ALL
    loader = far(download_cache=cache)
    server.requests.clear()
    assert sorted(numbers(epoch(loader))) == ALL
    assert asked(server) == []
    server.requests.clear()
    far(
        download_cache=cache
    )  # indexes are not made again: headers of a pack, and what lists shards
    assert {name for name, _ in asked(server)} <= {"data/pack.json", "data/index.json"}
    assert (cache / "indexes").is_dir() == any(".index" in f.name for f in cache.rglob("*"))


def test_indexes_are_kept_and_not_made_again(far, server, kind):
    far()
    server.requests.clear()
    loader = far(shuffle=False)
    if kind in ("tfrecord", "tar"):  # the first sample alone is looked at
        assert len(asked(server)) <= 3
    elif kind in ("text", "csv"):  # their first bytes say what they are
        assert len(asked(server)) <= 6 + 3
    assert numbers(epoch(loader)) == ALL


def test_neighbours_are_one_request(far, server, kind):
    loader = far(20, shuffle=False)
    server.requests.clear()
    assert numbers(epoch(loader)) == ALL
    assert len(asked(server)) <= 12


def test_credentials_are_in_no_pickle_and_no_state(far, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        loader = far(download_cache=tmp_path / "c")
        epoch(loader)
    texts = [pickle.dumps(loader), repr(loader).encode(), str(loader.state_dict()).encode()]
    texts += [caplog.text.encode(), *(f.read_bytes() for f in tmp_path.rglob("c/*") if f.is_file())]
    for text in texts:
        assert b"AKIDSECRETIVE" not in text
        assert b"verysecretkey" not in text
    again = pickle.loads(pickle.dumps(loader))
    assert sorted(numbers(epoch(again))) == ALL
    again.close()


def test_options_of_the_cache(far, tmp_path):
    with pytest.raises(ValueError, match="there is none: pass its folder"):
        far(download_budget="1GB")
    with pytest.raises(ValueError, match="less than one block"):
        far(download_cache=tmp_path / "c", download_budget=100)


def test_a_cache_of_local_files(kind, tmp_path):
    folder = made(kind, tmp_path / "files")
    with pytest.raises(ValueError, match="no path here is a URL"):
        KINDS[kind].load(folder, 8, download_cache=tmp_path / "c")


def test_an_object_that_is_missing(server, kind, tmp_path):
    url = put_folder(server, made(kind, tmp_path / "files"))
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        KINDS[kind].load(f"{url}/elsewhere", 8)


def test_decoded_samples_are_not_fetched_again(server, tmp_path, keep):
    """A cache in RAM in front of records: in the second epoch nothing is asked for."""
    url = put_folder(server, made("tar", tmp_path / "files"))
    loader = keep(KINDS["tar"].load(url, 8, shuffle=True, cache="ram"))
    assert sorted(numbers(epoch(loader))) == ALL
    server.requests.clear()
    assert sorted(numbers(epoch(loader))) == ALL
    assert asked(server) == []


def test_a_hook_for_whole_batches(server, tmp_path, keep):
    """`load_batch` over lines, as a tokenizer is called: neighbours and others are fetched at once."""
    url = put_folder(server, made("text", tmp_path / "files"))

    class Lines(kl.TextLineSequenceLoader):
        def load_batch(self, indices):
            return np.array([[float(line)] * 8 for line in self.read_lines(indices)], np.float32)

    loader = keep(Lines(f"{url}/*.txt", None, 8, **OPTIONS))
    assert sorted(numbers(epoch(loader))) == ALL


@pytest.mark.slow
@pytest.mark.parametrize("kind", BY_SAMPLE[:1], indirect=True)
def test_worker_processes(far):
    loader = far(processes=True, workers=2)
    assert sorted(numbers(epoch(loader))) == ALL


@pytest.mark.slow
def test_from_an_s3_server(kind, tmp_path, keep, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    folder = made(kind, tmp_path / "files")
    with moto() as s3:
        files = [path for path in (tmp_path / "files").iterdir() if path.name[0] != "."]
        s3.put({f"some where/{path.name}": path.read_bytes() for path in files})
        loader = KINDS[kind].load(s3.url("some where"), 8, **OPTIONS)
        near = keep(KINDS[kind].load(folder, 8, **OPTIONS))
        assert numbers(epoch(loader)) == numbers(epoch(near))
        loader.close()


def test_only_headers_of_large_members_are_fetched(server, tmp_path, keep):
    """The index of a tar file whose members are large takes little of it."""
    members = {f"{k}.bin": bytes([k]) * (3 * 2**20) for k in range(5)}
    write_tar(tmp_path / "a.tar", members)
    server.objects["a.tar"] = (tmp_path / "a.tar").read_bytes()

    def first(raw):
        return np.full(8, raw[0], np.float32)

    loader = keep(
        kl.TarSequenceLoader(server.url("a.tar"), 2, x="bin", decode=first, shuffle=False)
    )
    spans = [span.removeprefix("bytes=").split("-") for _, span in asked(server)]
    sizes = [int(stop) - int(start) + 1 for start, stop in spans]
    # All but one are headers: the first member is looked at.
    assert sum(sizes) <= 3 * 2**20 + 8 * 2**16
    assert numbers(epoch(loader)) == list(range(5))


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_compressed_records(server, tmp_path, keep, compression):
    """They are read from front to back, and shuffled in RAM batches, as local ones are."""
    rows = np.repeat(np.arange(SAMPLES, dtype=np.float32)[:, None], 16, axis=1)
    near = keep(kl.ArraySequenceLoader(rows, np.arange(SAMPLES), 8, shuffle=False))
    kl.write_tfrecords(near, out=tmp_path / "r/a", compression=compression, progress=False)
    url = put_folder(server, tmp_path / "r")
    loader = keep(kl.TFRecordSequenceLoader(f"{url}/a*", None, 8, shuffle=True, seed=1))
    assert sorted(numbers(epoch(loader))) == ALL


def test_a_changed_object_has_another_index(server, tmp_path, keep):
    """The index that is kept is for one version of an object."""
    url = put_folder(server, made("text", tmp_path / "files"))
    keep(KINDS["text"].load(url, 8))
    server.objects["data/0.txt"] = b"59\n5\n"
    loader = keep(KINDS["text"].load(url, 8, shuffle=False))
    assert numbers(epoch(loader)) == [59, 5, *range(20, SAMPLES)]
