"""Packs as loaders: what is written comes back as it was, in any order and process."""

from __future__ import annotations

import os
import pickle
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import kloaders as kl
from kloaders.core.structure import map_structure
from kloaders.engine import batches
from kloaders.formats.pack import read_manifest
from kloaders.plan.rng import Moment
from tests.support.packs import (
    BATCH,
    SAMPLES,
    Stored,
    assert_same,
    contents,
    epoch,
    rows,
    small,
    write,
)


@pytest.fixture
def ragged(tmp_path: Path) -> Path:
    """Sample k has k // 4 numbers."""
    write(Stored([np.full(k // 4, k, np.float32) for k in range(SAMPLES)], 1), tmp_path / "pack")
    return tmp_path / "pack"


DTYPES = ["bool", "uint8", "int16", "uint64", "float16", "float32", "float64", "complex64"]
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
LEAVES = st.tuples(st.sampled_from(DTYPES), st.one_of(SHAPES, st.none()))
FORMS = st.recursive(
    LEAVES.map(lambda leaf: {"leaf": leaf}),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, min_size=1, max_size=3),
    ),
    max_leaves=4,
)


def sample_of(form: Any, data: Any) -> Any:
    """A sample of a form: a leaf whose shape is None has another one in each sample."""
    if isinstance(form, tuple):
        return tuple(sample_of(part, data) for part in form)
    if set(form) == {"leaf"} and isinstance(form["leaf"][0], str):
        dtype, shape = form["leaf"]
        return data.draw(hnp.arrays(dtype, data.draw(SHAPES) if shape is None else shape))
    return {key: sample_of(part, data) for key, part in form.items()}


@settings(max_examples=60)
@given(
    form=st.tuples(FORMS) | st.tuples(FORMS, FORMS),
    samples=st.integers(1, 7),
    shard_size=st.integers(1, 300),
    data=st.data(),
)
def test_round_trip(form: Any, samples: int, shard_size: int, data: Any) -> None:
    """Any nesting, dtypes and shapes, in shards of any size, come back as the same bits."""
    stored = [sample_of(form, data) for _ in range(samples)]
    numbered = np.arange(samples, dtype=np.float32)
    weights = data.draw(st.sampled_from([None, numbered])) if len(form) == 2 else None
    with tempfile.TemporaryDirectory() as folder:
        loader = Stored(stored, 1, sample_weights=weights, shuffle=False, workers=0)
        write(loader, folder, shard_size=shard_size)
        for name in os.listdir(folder):
            if name.endswith(".npy"):
                np.load(os.path.join(folder, name), allow_pickle=False)
        with kl.PackSequenceLoader(folder, 1, shuffle=False, workers=0) as read:
            assert read.samples == samples
            for index in range(samples):
                assert_same(
                    *(one.runner.pipeline.sample(index, Moment()) for one in (loader, read))
                )
                assert_same(
                    map_structure(np.asarray, loader[index]), map_structure(np.asarray, read[index])
                )
            read.verify()


def test_options_of_the_reader(tmp_path: Path, keep: Any) -> None:
    """dtype casts x, a transform draws anew, weights of the user's are taken."""
    folder = small(tmp_path)
    x, y = keep(kl.PackSequenceLoader(folder, SAMPLES, dtype="float16"))[0]
    assert (x.dtype, y.dtype) == (np.dtype("float16"), np.dtype("int64"))
    noisy = keep(
        kl.PackSequenceLoader(
            folder, SAMPLES, seed=1, transform=lambda x, y, rng: (rng.random(), y)
        )
    )
    assert not np.array_equal(*[x for x, _ in epoch(noisy) + epoch(noisy)])
    weighted = keep(kl.PackSequenceLoader(folder, SAMPLES, sample_weights=np.arange(20)))
    assert weighted[0][2].tolist() == list(range(20))


def test_bfloat16(tmp_path: Path, keep: Any) -> None:
    """NumPy has no such type: np.load sees integers, the loader the type."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    write(kl.ArraySequenceLoader(rows(), None, 4, dtype=ml_dtypes.bfloat16), tmp_path)
    assert np.load(tmp_path / "x.npy").dtype == np.uint16
    x = keep(kl.PackSequenceLoader(tmp_path, SAMPLES, shuffle=False))[0]
    assert x.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(x, rows().astype(ml_dtypes.bfloat16))


def test_a_map_larger_than_what_is_allocated(tmp_path: Path, monkeypatch: Any) -> None:
    """64 MiB are packed, and read, with a few runs of samples in memory."""
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(1024, 16384))
    x[:, 0] = np.arange(1024)
    monkeypatch.setattr(batches, "_RUN_BYTES", 2**18)
    tracemalloc.start()
    try:
        with kl.ArraySequenceLoader(x, None, 4) as source:
            write(source, tmp_path / "pack", shard_size="8MiB")
        with kl.PackSequenceLoader(tmp_path / "pack", 4, shuffle=True, seed=1) as loader:
            loader.on_epoch_begin()
            numbers = [int(n) for k in range(len(loader)) for n in loader[k][:, 0]]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sorted(numbers) == list(range(1024))
    assert peak < 10 * 2**20
    assert len(read_manifest(str(tmp_path / "pack")).shards) == 8


def test_shapes_that_differ_in_a_batch(ragged: Path, keep: Any) -> None:
    """Both samples are named; what the message advises works."""
    loader = keep(kl.PackSequenceLoader(ragged, 8, shuffle=False))
    with pytest.raises(
        ValueError,
        match=r"row 0 of .*x-00000\.npy\): it is float32 of shape \(0,\), but row 4 of .*, in the same "
        r"batch, is float32 of shape \(1,\)\. Give them one shape in transform=, use batch_size=1",
    ):
        loader[0]
    assert len(epoch(keep(kl.PackSequenceLoader(ragged, 1)))) == SAMPLES
    padded = keep(
        kl.PackSequenceLoader(ragged, 8, transform=lambda x, y, rng: (np.resize(x, 5), y))
    )
    assert [batch.shape for batch in epoch(padded)] == [(8, 5), (8, 5), (4, 5)]


def test_to_tf_dataset(ragged: Path, tmp_path: Path) -> None:
    """Dimensions in which samples differ are None in the signature."""
    pytest.importorskip("tensorflow")
    dataset = kl.to_tf_dataset(kl.PackSequenceLoader(ragged, 4), shuffle=False)
    assert dataset.element_spec.shape.as_list() == [None, None]
    assert [tuple(batch.shape) for batch in dataset] == [(4, k) for k in range(5)]
    folder = small(tmp_path / "dense")
    x, y = next(iter(kl.to_tf_dataset(kl.PackSequenceLoader(folder, 4), shuffle=False)))
    assert x.numpy()[:, 0].tolist() == y.numpy().tolist() == [0, 1, 2, 3]


def test_a_pickled_pack_is_names_of_files(tmp_path: Path, keep: Any) -> None:
    """Nothing that was mapped travels; the copy serves the same."""
    loader = kl.ArraySequenceLoader(np.zeros((1000, 1000), np.float32), np.arange(1000), 10)
    write(loader, tmp_path)
    read = keep(kl.PackSequenceLoader(tmp_path, 10, shuffle=False))
    epoch(read)
    sent = pickle.dumps(read)
    assert len(sent) < 20_000
    copy = keep(pickle.loads(sent))
    assert_same(copy[7], read[7])


def test_processes(tmp_path: Path, keep: Any) -> None:
    """Worker processes map the files themselves."""
    options: dict[str, Any] = {"shuffle": True, "seed": 3}
    folder = small(tmp_path)
    ours = keep(kl.PackSequenceLoader(folder, BATCH, workers=1, processes=True, **options))
    for a, b in zip(
        epoch(ours), epoch(keep(kl.PackSequenceLoader(folder, BATCH, **options))), strict=True
    ):
        assert_same(a, b)


def test_from_pack_to_pack(tmp_path: Path, keep: Any) -> None:
    """preload, view, and a pack of a pack."""
    folder = small(tmp_path)
    loader = keep(kl.PackSequenceLoader(folder, SAMPLES, shuffle=False))
    for other in (loader.view(), kl.preload(loader, progress=False)):
        assert_same(keep(other)[0], loader[0])
    write(loader, tmp_path / "again", shard_size=8 * 16)
    ours, again = contents(folder), contents(tmp_path / "again")
    del ours["pack.json"], again["pack.json"]
    assert ours == again
