"""RamBatchSequenceLoader: how large its RAM batches are, what it takes of memory, and for how long.

That each kind of loader delivers every sample once is in tests/contract; what is read when is in
tests/engine/test_ram_batches.py.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from kloaders.formats import files
from tests.support.ram_reads import BATCH, DRAWS, RAM, SAMPLES, loop, samples
from tests.support.recording import recording_model

# ---------------------------------------------------------------- sizes and memory


@DRAWS
def test_data_that_fit_are_read_once(two_level: Any, draw: str) -> None:
    """A budget that holds all samples: one read each, over three epochs and storage order too."""
    loader, reads = two_level(draw=draw, ram_budget="1MB")
    assert loader.ram_batch_size == SAMPLES
    assert sorted(samples(loop(loader, 3))) == sorted([*range(SAMPLES)] * 3)
    assert sorted(reads.numbers) == list(range(SAMPLES))
    assert loader.ram_batches_read == 1


def test_data_that_fit_are_read_once_under_fit(two_level: Any) -> None:
    """fit, evaluate and predict share what is in RAM; Keras' looks at batch 0 and 1 come before."""
    model, received = recording_model()
    loader, reads = two_level(shuffle=None, ram_budget="1MB")
    model.fit(loader, epochs=3, verbose=0)
    model.evaluate(loader, verbose=0)
    np.testing.assert_array_equal(model.predict(loader, verbose=0)[:, 1], np.arange(SAMPLES))
    assert loader.ram_batches_read == 1
    assert len(reads.numbers) <= SAMPLES + 3 * 2 * BATCH
    assert len(received.trained) == 18


@pytest.mark.parametrize("budget", [3_000, 5_000, 6_500, 20_000])
def test_the_size_follows_from_the_budget(two_level: Any, budget: int) -> None:
    """Two RAM batches of whole batches stay below the budget, unless all samples do."""
    loader, _ = two_level(width=25, ram_budget=budget)  # 100 bytes, and 4 for the label
    size = loader.ram_batch_size
    assert size % BATCH == 0
    assert size >= BATCH
    assert (1 if size == SAMPLES else 2) * size * 104 <= budget
    assert sorted(samples(loop(loader))) == list(range(SAMPLES))


def test_a_larger_budget_holds_no_less(two_level: Any) -> None:
    """The RAM batch grows with the budget, up to all samples."""
    sizes = [two_level(width=25, ram_budget=b)[0].ram_batch_size for b in range(2_500, 12_000, 500)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert sizes[-1] == SAMPLES


def test_what_a_transform_makes_is_within_the_budget(two_level: Any) -> None:
    """Batches of a transform that makes samples larger count, and leave less for RAM batches."""

    def widen(x: Any, y: Any, rng: Any) -> Any:
        return np.resize(x, 100), y

    small, _ = two_level(width=25, ram_budget=7_000)
    large, _ = two_level(width=25, ram_budget=7_000, transform=widen)
    assert large.ram_batch_size < small.ram_batch_size


# Run without Keras, whose own memory comes and goes; the loader is the same.
MEASURED = """
import json, sys
import numpy as np
import kloaders as kl
from kloaders.formats import files

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(field + ":"))

def half(x, y, rng):
    return x[::2], y

paths, options = json.loads(sys.argv[1])
if options.pop("transform", None):
    options["transform"] = half
kl.RamBatchSequenceLoader(paths[:4], None, 4, ram_batch_size=4)[0]  # all that is imported late
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak is counted from here
before = status("VmRSS")
loader = kl.RamBatchSequenceLoader(paths, np.arange(len(paths)), 4, seed=1, **options)
for epoch in range(2):
    loader.on_epoch_begin()
    for k in range(len(loader)):
        held = loader[k]  # as a framework holds the batch before while it asks for the next
    loader.on_epoch_end()
held = None
used = status("VmHWM") - before
loader.close()
left = status("VmRSS") - before
print(json.dumps({"peak": used, "left": left, "size": loader.ram_batch_size}))
"""
MIB = 2**20
# Threads' stacks and what malloc keeps of freed memory; measured: 1 to 4 MiB.
SLACK = 8 * MIB


def measured(folder: Path, **options: Any) -> dict[str, int]:
    """Bytes of a process over two epochs of 120 samples of 1 MiB, and after close()."""
    first = str(folder / "000.npy")
    np.save(first, np.ones(MIB, np.uint8))
    paths = [first, *(str(folder / f"{k:03}.npy") for k in range(1, 120))]
    for path in paths[1:]:
        os.link(first, path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, json.dumps([paths, options])],
        env={
            **os.environ,
            "KLOADERS_WORKER": "1",
            "PYTHONPATH": os.path.dirname(os.path.dirname(kl.__file__)),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


only_linux = pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="the peak is read from Linux' /proc"
)


@only_linux
@pytest.mark.parametrize(
    "options",
    [
        {"draw": "windows"},
        {"draw": "global"},
        {"shuffle": True, "workers": 4},
        {"draw": "windows", "echo": 2, "workers": 1},
        {"transform": True},
        {"ram_budget": 256 * MIB},  # more than all samples take
    ],
    ids=lambda options: " ".join(f"{k}={v}" for k, v in options.items()),
)
def test_peak_memory_stays_within_the_budget(tmp_path: Path, options: dict[str, Any]) -> None:
    """The resident memory of a process that loads more than its budget: no more than was given."""
    options = {"ram_budget": 64 * MIB, **options}
    peak = measured(tmp_path, **options)["peak"]
    assert peak <= options["ram_budget"] + SLACK
    assert peak >= 32 * MIB, "so much less was not asked for"


@only_linux
@pytest.mark.parametrize("draw", ["windows", "global"])
def test_close_frees_ram_batches(tmp_path: Path, draw: str) -> None:
    """After close() the process has given the memory back, though the loader is still there."""
    found = measured(tmp_path, draw=draw, ram_budget=64 * MIB)
    assert found["left"] <= SLACK


def test_a_pickle_carries_no_ram_batch(two_level: Any) -> None:
    """In mid-epoch, too, the pickle is as small as the paths, and the copy begins an epoch."""
    loader, _ = two_level(width=25_000, workers=1)
    loader.on_epoch_begin()
    loader[0]
    sent = pickle.dumps(loader)
    assert len(sent) < 100_000
    with pickle.loads(sent) as copy:
        assert sorted(samples(loop(copy))) == list(range(SAMPLES))
        assert copy.ram_batch_size == RAM


# ---------------------------------------------------------------- what it says


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["8 samples", "96 bytes", "3 per epoch", "from all samples"]),
        ({"draw": "windows"}, ["8 samples", "96 bytes", "3 per epoch", "storage order"]),
        ({"echo": 2}, ["8 samples", "served 2 times"]),
        ({"ram_budget": "1MB"}, ["24 samples", "288 bytes", "all samples", "read once"]),
    ],
    ids=["global", "windows", "echo", "all"],
)
def test_the_size_is_said_once(
    two_level: Any, caplog: pytest.LogCaptureFixture, options: Any, words: list[str]
) -> None:
    """How many samples a RAM batch has, and their bytes, is logged once in a loader's life."""
    caplog.set_level(logging.INFO, "kloaders")
    loader, _ = two_level(**options)
    list(loop(loader, 2))
    loader.close()
    list(loop(loader, 1))
    said = [record for record in caplog.records if "RAM batches" in record.message]
    assert [(record.name, record.levelname) for record in said] == [("kloaders", "INFO")]
    assert [word for word in words if word not in said[0].message] == []


# ---------------------------------------------------------------- several users


def test_a_view_has_ram_batches_of_its_own(two_level: Any) -> None:
    """view() in mid-epoch: a whole pass over it, and closing it, leave the loader's epoch alone."""
    loader, _ = two_level(shuffle=None, workers=1)
    loader.on_epoch_begin()
    found = [loader[k] for k in (3, 1)]
    before = loader.ram_batches_read
    view = loader.view()
    assert samples(loop(view)) == list(range(SAMPLES))
    view.close()
    assert loader.ram_batches_read == before
    assert view.ram_batches_read == SAMPLES // RAM
    found += [loader[k] for k in (0, 2, 4, 5)]
    assert sorted(samples(found)) == list(range(SAMPLES))


def test_reading_ahead_tells_of_nothing(tmp_path: Path) -> None:
    """A file that is not there is the business of who reads it."""
    files.read_ahead(str(tmp_path / "gone"))
    files.read_ahead(str(tmp_path))


# ---------------------------------------------------------------- samples of unequal shape


def cut_to_two(x: Any, y: Any, rng: Any) -> Any:
    """A transform after which all samples have one shape and dtype."""
    return x.reshape(-1)[:2].astype(np.float32), y


class Unequal:
    """A `decode=` hook whose arrays have as many rows as their number, and two dtypes."""

    def __call__(self, content: bytes) -> Any:
        row = np.frombuffer(content, "<f4")
        number = int(row[0])
        return np.tile(row, (1 + number % 5, 1)).astype(np.float64 if number % 4 == 3 else "<f4")


@pytest.mark.parametrize(
    ("draw", "options"),
    [
        ("windows", {"workers": 0}),
        ("global", {"workers": 2}),
        ("global", {"workers": 1, "processes": True}),
    ],
    ids=str,
)
def test_shapes_may_differ_before_the_transform(
    raw_files: list[str], keep: Any, draw: str, options: Any
) -> None:
    """What counts is what the transform makes: in RAM samples may have any shape and dtype."""
    loader = keep(
        kl.RamBatchSequenceLoader(
            raw_files,
            np.arange(SAMPLES, dtype=np.float32),
            BATCH,
            ram_batch_size=RAM,
            decode=Unequal(),
            transform=cut_to_two,
            seed=3,
            **{"shuffle": True, "draw": draw, **options},
        )
    )
    for _ in range(2):
        found = list(loader)
        assert sorted(np.concatenate([y for _, y in found]).tolist()) == list(range(SAMPLES))
        for x, y in found:
            assert (x.shape[1:], x.dtype) == ((2,), np.float32)
            np.testing.assert_array_equal(x[:, 0], y)


def test_shapes_that_differ_without_a_transform_are_refused(
    raw_files: list[str], keep: Any
) -> None:
    loader = keep(
        kl.RamBatchSequenceLoader(raw_files, batch_size=BATCH, ram_batch_size=RAM, decode=Unequal())
    )
    with pytest.raises(kl.SampleError, match="the same shape, unless transform= gives it to them"):
        list(loader)


def test_a_transform_that_leaves_them_unequal_is_refused(raw_files: list[str], keep: Any) -> None:
    loader = keep(
        kl.RamBatchSequenceLoader(
            raw_files,
            batch_size=BATCH,
            ram_batch_size=RAM,
            decode=Unequal(),
            transform=lambda x, y, rng: (x.astype(np.float32), y),
        )
    )
    with pytest.raises(kl.SampleError, match=r"in the same batch, .*Let transform= return arrays"):
        list(loader)
