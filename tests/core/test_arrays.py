"""The names of array types: what they stand for, at run time too."""

from typing import Any, get_args, get_origin

import numpy as np
import pytest

from kloaders.core import arrays


@pytest.mark.parametrize(
    ("hint", "dtype"),
    [
        (arrays.Array, Any),
        (arrays.Indices, np.dtype[np.int64]),
        (arrays.Mask, np.dtype[np.bool_]),
    ],
)
def test_hints_are_arrays_of_any_shape(hint, dtype):
    """A hint that were evaluated to something else would let mypy pass what it must not."""
    assert get_origin(hint) is np.ndarray
    assert get_args(hint)[-1] == dtype


def test_all_names_are_public():
    found = {name for name, value in vars(arrays).items() if get_origin(value) is np.ndarray}
    assert found == set(arrays.__all__)
