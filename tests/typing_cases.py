"""Types of the public functions: mypy checks this file; it is never run.

A function that gives a loader of the class that it got says so; setup.cfg lists this file for mypy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import KFold
from typing_extensions import assert_type

import kloaders as kl

Path = kl.PathSequenceLoader
Arrays = kl.ArraySequenceLoader
Ram = kl.RamBatchSequenceLoader


class Mine(kl.SequenceLoader):
    """A custom loader."""

    def load_sample(self, index: int) -> Any:
        return np.float32(index)


def an_array_loader() -> Arrays:
    return Arrays(np.arange(4), None, 2)


def from_folders() -> None:
    assert_type(kl.from_directory("d"), tuple[Path, Path])
    assert_type(kl.from_folders("a", "b"), tuple[Path, Path])
    assert_type(kl.from_folders("a", "b", validation=None, loader=Ram), tuple[Ram, None])
    assert_type(kl.from_directory("d", validation=0.3, size=(8, 8)), tuple[Path, Path])
    assert_type(kl.from_directory("d", validation=None), tuple[Path, None])
    assert_type(kl.from_directory("d", loader=Ram), tuple[Ram, Ram])
    assert_type(kl.from_directory("d", validation=None, loader=Ram), tuple[Ram, None])


def from_tables(frame: Any) -> None:
    assert_type(kl.from_dataframe(frame, "path", "label"), tuple[Path, Path])
    assert_type(kl.from_dataframe(frame, "path", validation=None), tuple[Path, None])


def splits() -> None:
    assert_type(kl.split(["a.png"], [1]), tuple[Path, Path])
    assert_type(kl.split(np.arange(4), [1], loader=Arrays), tuple[Arrays, Arrays])
    assert_type(kl.split(an_array_loader()), tuple[Arrays, Arrays])
    assert_type(kl.split(Mine(4)), tuple[Mine, Mine])


def parts() -> None:
    for_all = an_array_loader()
    assert_type(kl.subset(for_all, [1]), Arrays)
    assert_type(kl.take(for_all, 1), Arrays)
    assert_type(kl.repeat(for_all, 2), Arrays)
    assert_type(kl.bucket_by_length(for_all), Arrays)
    assert_type(kl.padded_batches(for_all), Arrays)
    assert_type(kl.inputs_as_labels(for_all), Arrays)
    assert_type(kl.take(Mine(4), 1), Mine)
    for train, validation in kl.folds(Mine(4), KFold(2)):
        assert_type(train, Mine)
        assert_type(validation, Mine)


def copies() -> None:
    assert_type(an_array_loader().view(), Arrays)
    assert_type(Mine(4).view(), Mine)
    assert_type(Mine(4).replace(batch_size=3), Mine)
    assert_type(kl.preload(Mine(4)), Arrays)
    with Mine(4) as loader:
        assert_type(loader, Mine)


def attributes(loader: Mine) -> None:
    assert_type(loader.samples, int)
    assert_type(loader.shuffle, bool | None)
    assert_type(loader.errors, list[kl.SampleError])
    assert_type(loader.state_dict(), dict[str, Any])
