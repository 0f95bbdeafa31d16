"""What a loader knows of its samples' shapes: from which one, and whose fault it is if there is none."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.errors import SampleError, WorkerPoolError
from kloaders.core.options import FaultOptions, TransformOptions
from kloaders.core.structure import ArraySpec
from kloaders.engine.processes import pool
from kloaders.engine.specs import FIRST_TRIES, SampleSpecs
from kloaders.sources.error_log import ErrorLog
from kloaders.sources.pipeline import SamplePipeline
from tests.support.sources import Numbered, steps_of

LABEL = ArraySpec((), np.dtype("int64"))


def specs_of(source: Numbered, on_error: str = "raise", transform: Any = None) -> SampleSpecs:
    pipeline = SamplePipeline(source, TransformOptions(transform))
    return SampleSpecs(pipeline, ErrorLog(FaultOptions(on_error), len(source), source.name))


def test_one_sample_is_read_once():
    source = Numbered(10)
    specs = specs_of(source)
    for _ in range(2):
        assert specs.raw == specs.delivered == (ArraySpec((2,), np.dtype("float32")), LABEL)
    assert specs.raw_bytes == 2 * 4 + 8
    assert source.reads == [0]


def test_a_transform_is_tried_once():
    def widen(x, y, rng):
        return np.resize(x, 5).astype("f8"), y

    source = Numbered(10)
    specs = specs_of(source, transform=widen)
    for _ in range(2):
        assert specs.raw[0] == ArraySpec((2,), np.dtype("float32"))
        assert specs.delivered == (ArraySpec((5,), np.dtype("float64")), LABEL)
    assert source.reads == [0, 0]


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_the_first_sample_that_loads(on_error):
    """Those before it are recorded when their turn in a batch comes, and not here."""
    source = Numbered(10, broken=[0, 1, 2], make=lambda k: steps_of(k, k))
    specs = specs_of(source, on_error)
    assert specs.raw[0].shape == (3,)
    assert specs.model_sample == 3
    assert source.reads == [0, 1, 2, 3]
    assert not specs.log.errors


def test_the_first_sample_raises():
    specs = specs_of(Numbered(10, broken=[0]))
    with pytest.raises(SampleError, match=r"sample 0 \(index 0\): ValueError: number 0 is broken"):
        _ = specs.raw
    assert [error.index for error in specs.log.errors] == [0]
    assert specs.pipeline.source.reads == [0]


@pytest.mark.parametrize(("samples", "tries"), [(7, 7), (FIRST_TRIES + 50, FIRST_TRIES)])
def test_none_loads(samples, tries):
    """As many as are worth trying were tried, and the error says so."""
    source = Numbered(samples, broken=range(samples))
    with pytest.raises(SampleError, match=rf"number {tries - 1} is .*\(nor did the {tries - 1} be"):
        _ = specs_of(source, "skip").raw
    assert source.reads == list(range(tries))


class Elsewhere:
    """Looks at samples by other means, as a runner with worker processes does."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked = 0

    def looker(self) -> Any:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.look

    def look(self, index: int, raw: bool) -> Any:
        return (ArraySpec((index, raw), np.dtype("int8")),)


def test_samples_are_looked_at_elsewhere():
    source, elsewhere = Numbered(10), Elsewhere()
    specs = specs_of(source)
    specs.look_by(elsewhere.looker)
    assert specs.raw == (ArraySpec((0, True), np.dtype("int8")),)
    assert not source.reads


def test_what_looks_is_not_kept_alive():
    source, elsewhere = Numbered(10), Elsewhere()
    specs = specs_of(source)
    specs.look_by(elsewhere.looker)
    gone = weakref.ref(elsewhere)
    del elsewhere
    gc.collect()
    assert gone() is None
    assert specs.raw[0].shape == (2,)
    assert source.reads == [0]


@pytest.mark.parametrize("on_error", ["raise", "skip", "replace"])
@pytest.mark.parametrize(
    "error", [RuntimeError("no workers"), TypeError("does not pickle"), WorkerPoolError("gone")]
)
def test_where_nobody_can_look_no_sample_is_to_blame(on_error, error):
    """The error is raised as it is, at once, and no sample is recorded for it."""
    specs, elsewhere = specs_of(Numbered(10), on_error), Elsewhere(error)
    specs.look_by(elsewhere.looker)
    with pytest.raises(type(error)) as caught:
        _ = specs.raw
    assert caught.value is error
    assert elsewhere.asked == 1
    assert not specs.log.errors
    elsewhere.error = None  # and a later try may succeed
    assert specs.raw[0].shape == (0, True)


PROCESSES: Any = {"processes": True, "workers": 1, "batch_size": 4}


def _by_value() -> Any:
    """A class that is sent to a worker process as it is: this file is not imported there."""

    class Squares(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return np.float32(index), np.float32(index**2)

    return Squares


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_setting_of_processes_that_is_wrong(keep, monkeypatch, tmp_path, on_error, padded):
    """It is said as it is, and neither the loader's errors nor the quarantine has a sample."""
    bad = tmp_path / "bad.csv"
    loader = keep(_by_value()(300, on_error=on_error, quarantine=bad, **PROCESSES))
    if padded:
        loader = keep(kl.bucket_by_length(loader, np.arange(1, 301)))
    monkeypatch.setenv("KLOADERS_WORKER_TIMEOUT", "soon")
    with pytest.raises(ValueError, match="KLOADERS_WORKER_TIMEOUT") as caught:
        loader[0]
    assert not isinstance(caught.value, SampleError)
    assert not loader.errors
    assert not bad.exists() or len(bad.read_text().splitlines()) <= 1


def test_a_script_that_workers_import(keep, monkeypatch):
    """A worker process that asks for processes itself is told about the script, not a sample."""
    loader = keep(_by_value()(300, on_error="skip", **PROCESSES))
    monkeypatch.setattr(pool, "is_worker", lambda: True)
    with pytest.raises(RuntimeError, match="if __name__ == '__main__'"):
        loader[0]
    assert not loader.errors
