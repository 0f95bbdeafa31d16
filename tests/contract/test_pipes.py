"""A named pipe among the files does not block: opening one would wait for a writer, perhaps for ever."""

import contextlib
import os
import threading

import numpy as np
import pytest

import kloaders as kl
from kloaders.formats.tfrecord.scan import index_of
from kloaders.sources.quarantine import excluded

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")

PIPE = "is a pipe, expected a file"


def within_seconds(function):
    """The result or exception of the function; fails if the function blocks."""
    came = []

    def run():
        try:
            came.append((function(), None))
        except BaseException as error:
            came.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert came, "blocked"
    result, error = came[0]
    if error is not None:
        raise error
    return result


@pytest.fixture
def pipe(tmp_path):
    """Replaces a file by a pipe; threads that a pipe blocks are released at the end."""
    made = []

    def make(name):
        path = tmp_path / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        made.append(path)
        return str(path)

    yield make
    for path in made:
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


def arrays(tmp_path, count=4):
    for k in range(count):
        np.save(tmp_path / f"{k}.npy", np.float32([k]))
    return [str(tmp_path / f"{k}.npy") for k in range(count)]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", ".xyz"])
def test_a_pipe_among_paths_is_an_error_of_its_sample(tmp_path, pipe, suffix):
    decode = (lambda raw: np.float32([len(raw)])) if suffix == ".xyz" else None
    loader = kl.PathSequenceLoader([pipe(f"p{suffix}")], None, 1, decode=decode, check_paths=False)
    with pytest.raises(kl.SampleError, match=PIPE) as caught:
        within_seconds(lambda: loader[0])
    assert f"p{suffix}" in str(caught.value)


@pytest.mark.parametrize("check_paths", [True, "sample"])
def test_paths_that_are_checked_may_be_no_pipes(tmp_path, pipe, check_paths):
    paths = [*arrays(tmp_path), pipe("p.npy")]
    with pytest.raises(OSError, match=PIPE) as caught:
        within_seconds(lambda: kl.PathSequenceLoader(paths, None, 2, check_paths=check_paths))
    assert caught.value.filename == paths[-1]


def test_a_pipe_is_skipped_as_what_else_does_not_load(tmp_path, pipe):
    paths = [*arrays(tmp_path), pipe("p.npy")]
    loader = kl.PathSequenceLoader(paths, None, 5, check_paths=False, on_error="skip")
    batch = within_seconds(lambda: loader[0])
    np.testing.assert_array_equal(batch.reshape(-1), [0, 1, 2, 3])
    assert [error.index for error in loader.errors] == [4]


def test_ram_batches_read_no_pipe(tmp_path, pipe):
    """Neither the kernel's read-ahead nor the threads of the loader wait for one."""
    paths = [*arrays(tmp_path), pipe("p.npy")]
    loader = kl.RamBatchSequenceLoader(
        paths, None, 5, ram_batch_size=5, check_paths=False, on_error="skip"
    )
    batch = within_seconds(lambda: next(iter(loader)))
    np.testing.assert_array_equal(np.sort(batch.reshape(-1)), [0, 1, 2, 3])
    loader.close()


def test_a_pipe_among_segments_of_a_cache(tmp_path, pipe):
    folder = tmp_path / "cache"
    loader = kl.PathSequenceLoader(arrays(tmp_path), None, 4, cache=str(folder))
    wanted = loader[0]
    loader.close()
    (keyed,) = folder.iterdir()
    pipe(os.path.join("cache", keyed.name, "0-x.segment"))
    again = kl.PathSequenceLoader(arrays(tmp_path), None, 4, cache=str(folder))
    np.testing.assert_array_equal(within_seconds(lambda: again[0]), wanted)
    again.close()


def test_a_pipe_among_indexes(tmp_path, pipe, monkeypatch):
    """A pipe is not an index, so a new index is made, in another folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    loader = kl.ArraySequenceLoader(np.arange(8.0), None, 4)
    kl.write_tfrecords(loader, out=str(tmp_path / "a"), progress=False)
    (path,) = tmp_path.glob("a*")
    pipe(f".{path.name}.index")
    assert len(within_seconds(lambda: index_of(str(path), "auto", None))) == 8


@pytest.mark.parametrize(
    "make",
    [
        kl.TFRecordSequenceLoader,
        lambda path: kl.TextLineSequenceLoader(path, len, 1),
        lambda path: kl.CsvSequenceLoader(path, batch_size=1),
        lambda path: kl.VideoSequenceLoader([path], None, 1, clip=1),
        excluded,
        lambda path: kl.from_dataframe(path, "x", "y"),
    ],
    ids=["tfrecord", "lines", "csv", "video", "exclude", "dataframe"],
)
def test_a_pipe_in_place_of_a_file(pipe, make):
    path = pipe("p.csv")
    with pytest.raises(OSError, match=PIPE):
        within_seconds(lambda: make(path))


def test_a_pipe_in_place_of_a_manifest(tmp_path, pipe):
    pipe("pack.json")
    with pytest.raises(OSError, match=PIPE):
        within_seconds(lambda: kl.PackSequenceLoader(str(tmp_path), 1))


def test_a_pipe_in_place_of_an_array_of_a_pack(tmp_path, pipe):
    loader = kl.ArraySequenceLoader(np.arange(8.0), None, 4)
    kl.write_pack(loader, str(tmp_path), progress=False)
    pipe("x.npy")
    with pytest.raises(OSError, match=PIPE):
        within_seconds(lambda: kl.PackSequenceLoader(str(tmp_path), 1))


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="a device of POSIX")
def test_a_device_never_ends_either():
    loader = kl.PathSequenceLoader(["/dev/zero"], None, 1, decode=len, check_paths=False)
    with pytest.raises(kl.SampleError, match="is a device, expected a file"):
        within_seconds(lambda: loader[0])
