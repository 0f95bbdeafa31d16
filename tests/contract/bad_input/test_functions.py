"""Bad input: arguments of functions that take or make loaders."""

from __future__ import annotations

from pathlib import Path

import pytest

import kloaders as kl
from tests.support.bad_input import Files, Make, path, refused


@pytest.mark.parametrize("function", [kl.preload, kl.to_tf_dataset])
def test_functions_that_take_a_loader(files: Files, function: Make) -> None:
    """Objects that are not loaders are rejected by name, not with a missing attribute."""
    with refused(TypeError, function.__name__, "list", "loader"):
        function(files.npy)


def test_split_takes_no_batch_of_nothing(files: Files) -> None:
    """0 and False do not mean "the default"."""
    for value in (0, False, 0.0):
        with refused((ValueError, TypeError), f"batch_size={value!r}", "batch_size=32"):
            kl.split(files.npy, None, value)


def test_front_doors_given_what_they_do_not_take(files: Files, tmp_path: Path) -> None:
    """A loader in the place of a class, labels for folders, files in the place of labels."""
    with refused(TypeError, "split(loader)"):
        kl.split(files.npy, loader=path(files))
    with refused(TypeError, "label_mode="):
        kl.from_directory(tmp_path, labels="inferred")
    table = {"file": files.npy, "mask": files.npy, "class": [0, 1, 2] * 4}
    with refused(ValueError, "'mask' holds files", "split(paths, masks)"):
        kl.from_dataframe(table, "file", "mask")
    with refused(ValueError, "2 in column 'class'", "from 0 to 1"):
        kl.from_dataframe(table, "file", "class", class_names=["a", "b"])
