"""Where a cache lies, and which sources may have one."""

import numpy as np
import pytest

from kloaders.core.options import CacheOptions, WorkOptions
from kloaders.sources.cache.policy import (
    cached_in_ram,
    check_single_samples,
    folder_of,
    place_of,
)
from kloaders.sources.cache.ram import Budget, spare_ram
from kloaders.sources.cache.source import CachedSource
from kloaders.sources.column_source import ColumnSource
from kloaders.sources.columns import ArrayColumn
from tests.support.sources import Numbered

HERE = WorkOptions(workers=0)


class ByBatch(Numbered):
    whole_batches = True


def arrays():
    return ColumnSource((ArrayColumn(np.arange(3)),))


def test_a_cache_without_a_budget_takes_what_is_spare():
    """Loaders with cache="auto" share it; each with cache="ram" has its own."""
    assert place_of(CacheOptions()) is place_of(CacheOptions()) is spare_ram
    own = place_of(CacheOptions(cache="ram"))
    assert isinstance(own, Budget)
    assert own is not spare_ram


@pytest.mark.parametrize("cache", ["auto", "ram"])
def test_a_budget_is_a_budget_in_ram(cache):
    place = place_of(CacheOptions(cache=cache, cache_budget=1000))
    assert place is not spare_ram
    assert place.reserve(5000, 100) == 1000


def test_a_folder_has_its_own_budget(tmp_path):
    options = CacheOptions(cache=tmp_path, cache_budget="1 KB")
    assert place_of(options) == (str(tmp_path), options.budget_bytes)
    assert options.budget_bytes
    assert folder_of(options) == str(tmp_path)
    assert folder_of(CacheOptions()) is folder_of(CacheOptions(cache="ram")) is None


@pytest.mark.parametrize("cache", [None, "auto"])
def test_no_cache_unless_it_is_asked_for(cache):
    """Only files are kept of their own accord."""
    source = Numbered(3)
    assert cached_in_ram(source, CacheOptions(cache=cache), HERE) is source


def test_samples_of_hooks_are_kept_in_ram():
    source = Numbered(3)
    cached = cached_in_ram(source, CacheOptions(cache="ram"), HERE)
    assert isinstance(cached, CachedSource)
    for _ in range(2):
        assert [int(cached.read(k)[1]) for k in range(3)] == [0, 1, 2]


def test_what_cannot_be_kept_is_said(tmp_path):
    ram = CacheOptions(cache="ram")
    with pytest.raises(ValueError, match=r"the samples are arrays already"):
        cached_in_ram(arrays(), ram, HERE)
    with pytest.raises(ValueError, match=r"a folder outlives the loader"):
        cached_in_ram(Numbered(3), CacheOptions(cache=tmp_path), HERE)
    with pytest.raises(
        ValueError, match=r"stores single samples, but load_batch returns whole batches"
    ):
        cached_in_ram(ByBatch(3), ram, HERE)
    with pytest.raises(ValueError, match=r"processes=True reads in other processes"):
        cached_in_ram(Numbered(3), ram, WorkOptions(workers=1, processes=True))


def test_processes_share_a_folder(tmp_path):
    check_single_samples(
        Numbered(3), CacheOptions(cache=tmp_path), WorkOptions(workers=1, processes=True)
    )
