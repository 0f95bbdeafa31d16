"""Marks of the tests that make up the table of scenarios; see tests/conftest.py."""

from __future__ import annotations

import pytest

from kloaders.core.memory import references_are_counted
from tests.support.recording import BACKEND

SHUFFLES = [None, True, False]
TF = BACKEND == "tensorflow"

scenario = pytest.mark.scenario
not_on_torch = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras' torch backend takes one step per execution"
)
only_tf = pytest.mark.skipif(not TF, reason="a part of TensorFlow")
only_jax = pytest.mark.skipif(BACKEND != "jax", reason="a part of JAX")
only_recycling = pytest.mark.skipif(
    not references_are_counted(), reason="no memory is reused without the GIL"
)
