"""ArraySequenceLoader over arrays that may be larger than RAM, and preload, which fills RAM once."""

from __future__ import annotations

import logging
import pickle
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from kloaders.loaders import arrays
from tests.support.recording import our_threads

SAMPLES, BATCH = 12, 4
MIB = 2**20


def loop(loader: Any, epochs: int = 1) -> Iterator[Any]:
    """Batches of a hand-written training loop."""
    for _ in range(epochs):
        loader.on_epoch_begin()
        for index in range(len(loader)):
            yield loader[index]
        loader.on_epoch_end()


def assert_same(a: Any, b: Any) -> None:
    """Two batches, or parts of one, are the same bits in the same structure."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (tuple, list)):
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    else:
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- memory maps


@pytest.fixture
def mapped(tmp_path: Path) -> Any:
    """A map of 1024 rows of 64 KiB; each row begins with its number. Sparse: the disk has less."""
    found = np.memmap(tmp_path / "x", np.float32, "w+", shape=(1024, 16384))
    found[:, 0] = np.arange(1024)
    found[:, -1] = np.arange(1024)
    return found


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "whole": lambda x: x,
    "some rows": lambda x: x[100:900],
    "every other row": lambda x: x[::2],
    "backwards": lambda x: x[::-1],
    "some columns": lambda x: x[:, ::2],
    "turned": lambda x: x.reshape(1024, 128, 128).transpose(0, 2, 1),
    "big-endian": lambda x: x.view(">f4"),
    "read-only": lambda x: np.memmap(x.filename, np.float32, "r", shape=x.shape),
    "a plain array over a map": np.asarray,
}


def layouts(names: Any) -> Any:
    return pytest.mark.parametrize("layout", names)


@layouts(LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"dtype": "float16"}], ids=["", "dtype"])
def test_a_map_is_never_copied_whole(mapped: Any, layout: str, options: Any) -> None:
    """An epoch over 64 MiB allocates a few batches, however the rows lie in the file."""
    x = LAYOUTS[layout](mapped)
    batch = x[:BATCH].nbytes
    tracemalloc.start()
    try:
        assert np.array(x[:64]).nbytes <= tracemalloc.get_traced_memory()[1]  # it counts arrays
        tracemalloc.reset_peak()
        with kl.ArraySequenceLoader(x, None, BATCH, shuffle=True, seed=1, **options) as loader:
            found = sum(len(part) for part in loop(loader))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == len(x)
    # Batches ahead, the one being made and what comes with it.
    assert peak < 16 * batch + 2 * MIB


@layouts(LAYOUTS)
def test_rows_of_a_map(mapped: Any, layout: str, keep: Any) -> None:
    """Whatever the layout, a batch has the rows of its samples, in native byte order."""
    x = LAYOUTS[layout](mapped)
    loader = keep(kl.ArraySequenceLoader(x, np.arange(len(x)), 64, seed=1, shuffle=True))
    for _ in range(3):
        rows, numbers = loader[3]
        assert rows.dtype == np.dtype("float32")
        np.testing.assert_array_equal(rows, np.asarray(x)[numbers])


def test_a_map_stays_on_disk(mapped: Any, keep: Any) -> None:
    """What is written to the file later is what a later batch holds: nothing was copied before."""
    loader = keep(kl.ArraySequenceLoader({"image": mapped}, None, BATCH, shuffle=False, workers=0))
    mapped[5, 1] = 7
    assert loader[1]["image"][1, 1] == 7


def test_a_batch_of_a_map_is_a_copy(mapped: Any, keep: Any) -> None:
    """Writing to a batch leaves the file as it is."""
    loader = keep(kl.ArraySequenceLoader(mapped, None, BATCH, shuffle=False))
    batch = loader[1]
    assert not np.shares_memory(batch, mapped)
    batch[...] = -1
    assert mapped[4:8, 0].tolist() == [4, 5, 6, 7]
    assert loader[1][:, 0].tolist() == [4, 5, 6, 7]


@layouts([name for name in LAYOUTS if name not in ("some columns", "turned", "big-endian")])
def test_a_pickled_map_is_a_file_name(mapped: Any, layout: str) -> None:
    """Rows of a map are sent to another process by name; where that cannot be, by their values."""
    mapped.flush()
    loader = kl.ArraySequenceLoader(LAYOUTS[layout](mapped), None, BATCH, shuffle=False)
    sent = pickle.dumps(loader)
    if layout in ("whole", "some rows", "read-only"):
        assert len(sent) < MIB / 16
    with pickle.loads(sent) as copy, loader:
        assert_same(copy[7], loader[7])


def test_a_pickled_npy_map(tmp_path: Path) -> None:
    """A map that np.load made begins behind the file's header, in the copy too."""
    np.save(tmp_path / "x.npy", np.arange(40_000).reshape(400, 100))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    loader = kl.ArraySequenceLoader(x[300:], None, 10, shuffle=False)
    with pickle.loads(pickle.dumps(loader)) as copy:
        assert copy[0][:, 0].tolist() == list(range(30_000, 31_000, 100))


# ---------------------------------------------------------------- structures


@pytest.mark.parametrize("shuffle", [True, False])
def test_structures_of_arrays(keep: Any, shuffle: bool) -> None:
    """Tuples and dicts, nested, come back as they were given, every part of the same samples."""
    n = np.arange(SAMPLES)
    x = {"image": np.stack([n, n], 1), "more": (n.astype(np.uint8), [float(k) for k in n])}
    y = (n, {"mask": [np.full((2, 2), k) for k in n]})
    loader = keep(kl.ArraySequenceLoader(x, y, BATCH, sample_weights=n, shuffle=shuffle, seed=1))
    for found_x, found_y, weights in loop(loader):
        numbers = found_y[0]
        assert list(found_x) == ["image", "more"]
        assert found_x["image"][:, 1].tolist() == numbers.tolist()
        assert [part.dtype.name for part in found_x["more"]] == ["uint8", "float32"]
        assert all(part.tolist() == numbers.tolist() for part in found_x["more"])
        assert found_y[1]["mask"][:, 1, 1].tolist() == numbers.tolist()
        assert weights.tolist() == numbers.tolist()


def test_arrays_of_the_caller_stay_as_they_are(keep: Any) -> None:
    """No option writes to the arrays that were given."""
    x, y = np.arange(24.0).reshape(12, 2), np.arange(12)
    before = x.copy(), y.copy()

    def spoil(a: Any, b: Any, rng: Any) -> Any:
        a[...] = -1
        return a, b

    for options in ({"shuffle": True}, {"transform": spoil}, {"pad_last": True, "batch_size": 5}):
        loader = keep(kl.ArraySequenceLoader(x, y, **{"batch_size": BATCH, **options}))
        for batch in loop(loader):
            batch[0][...] = -2
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


# ---------------------------------------------------------------- preload


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Arrays of three numbers, the first the sample's own."""
    paths = [str(tmp_path / f"{k:02}.npy") for k in range(SAMPLES)]
    for k, path in enumerate(paths):
        np.save(path, np.array([k, 1, 2], np.float32))
    return paths


def labels(n: int = SAMPLES) -> Any:
    return np.arange(n, dtype=np.float32)


def noisy(x: Any, y: Any, rng: np.random.Generator) -> Any:
    """A transform that draws, and changes the shape."""
    return np.append(x, rng.random(2, np.float32)), y


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": False},
        {"transform": noisy},
        {"transform": noisy, "workers": 0},
        {"dtype": "float64"},
        {"sample_weights": np.arange(12.0)},
        {"drop_last": True},
        {"pad_last": True},
        {"shard": (1, 2)},
        {"max_queue_size": 1, "workers": 3},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
@pytest.mark.parametrize("size", [BATCH, 5])
def test_preload_serves_what_the_loader_does(
    files: list[str], keep: Any, options: dict[str, Any], size: int
) -> None:
    """Every batch of two epochs is the same bits, in whatever order and with whatever draws."""
    options = {"shuffle": True, "seed": 7, **options}
    loader = keep(kl.PathSequenceLoader(files, labels(), size, **options))
    loaded = keep(kl.preload(loader, progress=False))
    assert isinstance(loaded, kl.ArraySequenceLoader)
    assert_same(list(loop(loaded, 2)), list(loop(loader, 2)))


def test_preload_keeps_structure(files: list[str], keep: Any) -> None:
    """Several inputs, and labels in a dict, files among them, are kept as they are."""
    x = {"image": files, "number": labels()}
    y = {"class": np.arange(SAMPLES), "mask": files[::-1]}
    loader = keep(kl.PathSequenceLoader(x, y, BATCH, shuffle=False))
    assert_same(list(loop(keep(kl.preload(loader, progress=False)))), list(loop(loader)))


def test_preload_reads_each_file_once(files: list[str], keep: Any) -> None:
    """Each file is read once beside the first look, and not at all later."""
    reads: Counter[int] = Counter()

    class Counting(kl.PathSequenceLoader):
        def load_sample(self, path: str) -> Any:
            x = np.load(path)
            reads[int(x[0])] += 1
            return x

    loaded = keep(kl.preload(keep(Counting(files, labels(), BATCH, workers=0)), progress=False))
    list(loop(loaded, 3))
    assert reads == Counter(range(SAMPLES)) + Counter([0])


@pytest.mark.parametrize("kind", ["array", "ram", "own", "preloaded"])
def test_preload_of_any_loader(files: list[str], keep: Any, kind: str) -> None:
    """Loaders of every kind can be put into RAM."""

    class Own(kl.SequenceLoader):
        def load_batch(self, indices: Any) -> Any:
            return indices[:, None] + np.zeros((1, 3), np.float32), indices.astype(np.float32)

    loader = {
        "array": lambda: kl.ArraySequenceLoader(np.zeros((SAMPLES, 3)), labels(), BATCH),
        "ram": lambda: kl.RamBatchSequenceLoader(files, labels(), BATCH, ram_batch_size=8),
        "own": lambda: Own(SAMPLES, BATCH),
        "preloaded": lambda: kl.preload(kl.PathSequenceLoader(files, labels()), progress=False),
    }[kind]()
    loaded = keep(kl.preload(keep(loader), progress=False))
    assert sorted(int(y) for _, part in loop(loaded) for y in part) == list(range(SAMPLES))


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_preload_of_broken_files(files: list[str], keep: Any, on_error: str) -> None:
    """Broken files are left out or replaced for good; labels and weights stay with their samples."""
    for k in (0, 5):
        Path(files[k]).write_bytes(b"no array")
    loader = kl.PathSequenceLoader(
        files,
        {"a": labels(), "b": labels() * 2},
        BATCH,
        on_error=on_error,
        sample_weights=labels() * 3,
        seed=1,
    )
    loaded = keep(kl.preload(keep(loader), progress=False))
    assert loaded.samples == (10 if on_error == "skip" else 12)
    assert [error.index for error in loaded.errors] == [0, 5]
    arrived = set()
    for x, y, weights in loop(loaded, 2):
        for number, a, b, weight in zip(x[:, 0], y["a"], y["b"], weights, strict=True):
            assert (a, b, weight) == (number, 2 * number, 3 * number)
            arrived.add(int(number))
    assert arrived >= set(range(SAMPLES)) - {0, 5} if on_error == "skip" else True
    assert not arrived & {0, 5}


def test_preload_skips_a_large_broken_file(files: list[str], keep: Any) -> None:
    """Where samples are so large that each is read by itself, a broken one is skipped as well."""

    def decode(content: bytes) -> Any:
        if b"broken" in content:
            raise ValueError("broken")
        return np.zeros(33 * MIB, np.uint8)

    Path(files[1]).write_bytes(b"broken")
    loader = keep(kl.PathSequenceLoader(files[:3], labels(3), 2, decode=decode, on_error="skip"))
    loaded = keep(kl.preload(loader, progress=False))
    assert loaded.samples == 2
    assert [error.index for error in loaded.errors] == [1]


def test_preload_where_no_file_loads(files: list[str]) -> None:
    """With nothing to keep, the first file and its cause are named."""
    for path in files:
        Path(path).write_bytes(b"no array")
    loader = kl.PathSequenceLoader(files, labels(), on_error="skip")
    with pytest.raises(kl.SampleError, match=r"sample \d+ .*npy.*not an \.npy file"):
        kl.preload(loader, progress=False)


def test_preload_names_a_broken_file(files: list[str], nothing_running: None) -> None:
    """on_error="raise" names the file, and leaves no thread behind."""
    Path(files[7]).write_bytes(b"no array")
    with pytest.raises(kl.SampleError, match=r"sample 7 .*07\.npy.*not an \.npy file"):
        kl.preload(kl.PathSequenceLoader(files, labels(), workers=2), progress=False)
    assert not our_threads()


def test_preload_of_samples_of_different_shape(files: list[str], keep: Any) -> None:
    """Each is kept as an array of its own; a batch of two shapes is refused, as before."""
    wide = np.arange(70, 74, dtype=np.float32)
    np.save(files[7], wide)
    single, mixed = (
        keep(kl.preload(kl.PathSequenceLoader(files, labels(), size), progress=False))
        for size in (1, BATCH)
    )
    for path in files:
        Path(path).unlink()
    for k in range(SAMPLES):
        x, y = single[k]
        assert y.tolist() == [k]
        np.testing.assert_array_equal(x, [wide if k == 7 else np.array([k, 1, 2], np.float32)])
    assert single.delivered_spec()[0].shape == (None,)
    assert mixed[0][0].shape == (BATCH, 3)
    with pytest.raises(ValueError, match=r"row 7\): it is float32 of shape \(4,\).*row 4.*\(3,\)"):
        mixed[1]


def test_preload_of_samples_of_different_dtype(files: list[str]) -> None:
    """Two files and their dtypes are named, with what to do."""
    np.save(files[7], np.zeros(3, np.float64))
    with pytest.raises(
        ValueError, match=r"07\.npy\): it is float64, but .*00\.npy is float32.*dtype="
    ):
        kl.preload(kl.PathSequenceLoader(files, labels()), progress=False)


def test_preload_says_what_it_needs_once(
    files: list[str], keep: Any, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    """Bytes needed and bytes free are logged before anything is read, once."""
    caplog.set_level(logging.INFO, "kloaders")
    monkeypatch.setattr(arrays, "available_bytes", lambda: 3 * MIB)
    loaded = keep(kl.preload(keep(kl.PathSequenceLoader(files, labels())), progress=False))
    list(loop(loaded, 2))
    (said,) = [record.message for record in caplog.records if record.name == "kloaders"]
    for words in ("192 bytes", "12 samples", "3.0 MiB are free"):
        assert words in said


@pytest.mark.parametrize("free", [0, 191, 200])
def test_preload_refuses_what_does_not_fit(
    files: list[str], keep: Any, monkeypatch: Any, free: int
) -> None:
    """Too much for the memory that is free, with a share left to the model: nothing is read."""
    read: list[str] = []

    class Noting(kl.PathSequenceLoader):
        def load_sample(self, path: str) -> Any:
            read.append(path)
            return np.load(path)

    monkeypatch.setattr(arrays, "available_bytes", lambda: free)
    loader = keep(Noting(files, labels(), BATCH))
    with pytest.raises(MemoryError) as caught:
        kl.preload(loader, progress=False)
    said = str(caught.value)
    for words in (
        "192 bytes",
        "12 samples",
        f"{free} bytes",
        "RamBatchSequenceLoader",
        "ram_budget",
    ):
        assert words in said
    assert len(read) == 1  # the first look, to know the size
    # The loader that the message names takes the same data.
    other = keep(kl.RamBatchSequenceLoader(files, labels(), BATCH, ram_budget="1MB"))
    assert sorted(int(y) for _, part in loop(other) for y in part) == list(range(SAMPLES))


def test_preload_shows_its_progress(
    files: list[str], keep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bar counts samples while they are read; progress=False shows none."""
    loader = keep(kl.PathSequenceLoader(files, labels()))
    keep(kl.preload(loader))
    assert "12/12" in capsys.readouterr().err
    keep(kl.preload(loader, progress=False))
    assert "12/12" not in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [{"y": "float32"}, {"x": "float16", "y": "int8"}, {"x": "int32"}])
def test_labels_have_a_dtype_of_their_own(dtype, tmp_path):
    x, y = np.arange(6.0)[:, None], np.arange(6) % 3
    paths = tuple(tmp_path / f"{k}.npy" for k in range(6))  # of pathlib: one column
    for path, value in zip(paths, x, strict=True):
        np.save(path, value)

    class Own(kl.SequenceLoader):
        def load_sample(self, index):
            return x[index], y[index]

    loaders = [
        kl.ArraySequenceLoader(x, y, 4, dtype=dtype),
        kl.PathSequenceLoader(paths, y, 4, dtype=dtype),
        Own(6, 4, dtype=dtype),
    ]
    for loader in (*loaders, *kl.split(loaders[0], stratify=True, validation=0.5, seed=1)):
        got = loader[0]
        assert got[0].dtype == np.dtype(dtype.get("x", "float64"))
        assert got[1].dtype == np.dtype(dtype.get("y", "int64"))
        np.testing.assert_array_equal(got[1], got[0][:, 0].astype(int) % 3)


def test_a_dtype_of_another_part_is_refused():
    for wrong in ({"w": "float32"}, {}, {"x": "text"}):
        with pytest.raises(TypeError, match="dtype="):
            kl.ArraySequenceLoader(np.arange(3), dtype=wrong)


@pytest.mark.parametrize("part", ["x", "y"])
def test_masked_arrays_are_refused(part):
    """NumPy would drop the mask, and train on what lies below."""
    masked = np.ma.masked_array(np.arange(3.0), [0, 1, 0])
    with pytest.raises(TypeError, match=r"masked array.*filled"):
        kl.ArraySequenceLoader(**{"x": np.arange(3), part: masked})
    with pytest.raises(TypeError, match=r"masked array.*filled"):
        kl.ArraySequenceLoader(**{"x": np.zeros((3, 3)), part: [masked] * 3})

    class Own(kl.SequenceLoader):
        def load_sample(self, index):
            return masked

    with pytest.raises(kl.SampleError, match="masked array"):
        Own(3)[0]
