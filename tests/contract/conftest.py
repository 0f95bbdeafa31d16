"""Files and loaders for the contract tests."""

from __future__ import annotations

import gc
import itertools

import pytest

from tests.support.kinds import SAMPLES, Shared


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    return Shared(tmp_path_factory.mktemp("samples"))


@pytest.fixture
def make(files, keep):
    """make(kind, samples, **options) -> a loader with a seed, closed when the test ends."""

    def _make(kind, n=SAMPLES, **options):
        return keep(kind(files, n, **{"seed": 7, **options}))

    return _make


_TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def graphs_go_with_their_tests():
    """Drop TensorFlow's graphs regularly, which takes milliseconds each, instead of all in one test."""
    yield
    if not next(_TESTS) % 16:
        gc.collect()
