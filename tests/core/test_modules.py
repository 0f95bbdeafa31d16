"""Whose a module is: ours, a library's, or the user's."""

from __future__ import annotations

import sys
import types

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.core.modules import is_ours, library_name, module_of, version_of


def test_versions() -> None:
    assert version_of("numpy.linalg") == np.__version__
    assert version_of("cv2") == cv2.__version__
    assert version_of("json.decoder") == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert version_of("builtins") is not None
    for users in (__name__, "__main__", "not_there_at_all", None):
        assert version_of(users) is None


def test_ours() -> None:
    assert is_ours("kloaders.loaders.paths")
    assert is_ours("kloaders")
    assert not is_ours("kloaders_of_mine")
    assert not is_ours(None)


def test_names_in_libraries() -> None:
    """Only of what a library has under that very name."""
    assert library_name(np.load) == f"numpy.load {np.__version__}"
    assert library_name(len) is not None
    assert library_name(kl.split) is None
    assert library_name(test_ours) is None
    fake = types.FunctionType(test_ours.__code__, {}, "load")
    fake.__module__ = fake.__qualname__ = "numpy"
    assert library_name(fake) is None


def test_imports_are_resolved() -> None:
    assert module_of("json", 0, {}) is sys.modules["json"]
    inside = {"__package__": "kloaders.core"}
    assert module_of("errors", 1, inside) is sys.modules["kloaders.core.errors"]
    assert module_of("formats", 2, inside) is sys.modules["kloaders.formats"]
    with pytest.raises(ImportError):
        module_of("not_there_at_all", 0, {})
