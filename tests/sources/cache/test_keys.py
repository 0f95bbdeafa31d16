"""What decides a cached array: options and functions, by value."""

from __future__ import annotations

import os

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import kloaders as kl
from kloaders.sources.cache.keys import key_of
from tests.sources.cache.pictures import ALL, BATCH, SAMPLES, numbers


def test_other_options_are_another_cache(pictures, tmp_path, keep):
    """The size, the interpolation, the dtype, the decoder and its code."""
    folder = tmp_path / "cache"
    shapes = []
    for options in ({"size": (2, 2)}, {"size": (3, 3)}, {"channels": 1}, {"dtype": "float32"}):
        loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=folder, **options))
        x = loader[0]
        shapes.append((x.shape, x.dtype.name))
        assert numbers(loader) == ALL
    assert len(set(shapes)) == 4
    assert len(os.listdir(folder)) == 4


def test_another_code_is_another_cache(pictures, tmp_path, keep):
    folder = tmp_path / "cache"
    for decode in (lambda raw: np.full((1, 1, 1), 5), lambda raw: np.full((1, 1, 1), 6)):
        loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=folder, decode=decode))
        assert numbers(loader) == [int(decode(b"")[0, 0, 0])] * SAMPLES


@given(st.integers(), st.integers())
def test_keys_tell_options_apart(a, b):
    assert (key_of("", [a, "x"], {}) == key_of("", [b, "x"], {})) == (a == b)
