"""How large RAM batches are: by a size, by a budget, and with several samples from each that is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.options import FaultOptions, RamOptions
from kloaders.engine.ram_size import RamSize
from kloaders.engine.specs import SampleSpecs
from kloaders.sources.error_log import ErrorLog
from kloaders.sources.pipeline import SamplePipeline


class Source(kl.Source):
    """1,000 samples of 1,000 bytes, which counts what is read."""

    reads = 0

    def __len__(self) -> int:
        return 1000

    def read(self, index: int) -> Any:
        self.reads += 1
        return np.zeros(1000, np.uint8)


def size_of(copies: int = 1, batch: int = 10, shards: int = 1, **options: Any) -> RamSize:
    source = Source()
    specs = SampleSpecs(SamplePipeline(source), ErrorLog(FaultOptions(), 1000, source.name))
    return RamSize(RamOptions(**options), specs, batch, 10, shards, copies)


@pytest.mark.parametrize("copies", [1, 3, 4])
@pytest.mark.parametrize("batch", [1, 10, 12])
def test_whole_batches_and_whole_files(copies: int, batch: int) -> None:
    for options in ({"ram_batch_size": 100}, {"ram_budget": 300_000}, {"most_batches": 4}):
        size = size_of(copies, batch, **options)
        assert size.samples % batch == size.samples % copies == 0
        assert size.held == size.samples // copies > 0


def test_a_budget_holds_as_many_samples_however_often_each_is_used() -> None:
    once, often = (size_of(copies, ram_budget=300_000) for copies in (1, 4))
    assert once.held == pytest.approx(often.held, abs=10)
    assert 2 * often.held * 1000 < 300_000
    assert size_of(4, ram_budget=2_000_000).resident
    assert not size_of(4, ram_budget=2_000_000, shards=2).resident


def test_a_cap_in_batches() -> None:
    """Where nobody chose; reads the one sample whose shape is needed anyway."""
    size = size_of(4, most_batches=32)
    assert (size.samples, size.held) == (320, 80)
    assert size.specs.pipeline.source.reads == 1  # type: ignore[attr-defined]
    assert size_of(4, most_batches=32, batch=500).resident


def test_too_small() -> None:
    with pytest.raises(ValueError, match="ram_batch_size=8 is smaller than batch_size=10"):
        size_of(ram_batch_size=8)
    with pytest.raises(ValueError, match=r"samples are 1000 bytes each.* needs [\d.]+ KiB or more"):
        size_of(4, ram_budget=20_000)
