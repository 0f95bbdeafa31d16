"""What modules below the loaders may ask a loader for is what loaders have."""

import inspect

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.protocols import Loader

MEMBERS = sorted(
    {name for name in vars(Loader) if not name.startswith("_")}
    | set(Loader.__annotations__)
    | {"__len__", "__getitem__"}
)


@pytest.fixture(scope="module")
def loader():
    return kl.ArraySequenceLoader(np.arange(8.0), np.arange(8), 4, seed=1)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_loader_has_each_member(loader, name):
    """Read without an argument, or called with those of the protocol."""
    mine, wanted = getattr(loader, name), getattr(Loader, name, None)
    if inspect.isfunction(wanted):
        ours = list(inspect.signature(mine).parameters)
        assert set(list(inspect.signature(wanted).parameters)[1:]) <= set(ours)


def test_the_protocol_is_not_empty():
    assert {"source", "runner", "plan", "options", "replace", "sample_spec"} <= set(MEMBERS)
