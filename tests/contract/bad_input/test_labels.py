"""Bad input: labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from tests.support.bad_input import SAMPLES, Files, Make, numbers, read, refused


def made_with(y: Any) -> Any:
    return kl.ArraySequenceLoader(np.zeros((len(y), 2)), y, 3)


@pytest.mark.parametrize(
    "given_as",
    [list, tuple, np.array, lambda y: np.array(y, object), lambda y: np.array(y, "S")],
    ids=["list", "tuple", "str array", "object array", "bytes array"],
)
def test_text_labels(given_as: Make) -> None:
    """The message shows one and gives a line that encodes them; the line works."""
    labels = given_as(["dog", "cat", "dog"])
    line = "names, labels = np.unique(labels, return_inverse=True)"
    with refused(ValueError, "labels", "'dog'", "expected numbers", line):
        made_with(labels)
    found: dict[str, Any] = {"np": np, "labels": labels}
    exec(line, found)
    assert read(made_with(found["labels"]))[0][1].tolist() == [1, 0, 1]
    assert [str(np.asarray(n).astype(str)) for n in found["names"]] == ["cat", "dog"]


def test_text_labels_from_pandas() -> None:
    """Columns of tables get the same message."""
    pandas = pytest.importorskip("pandas")
    column = pandas.Series(["dog", "cat"])
    with refused(ValueError, "'dog'", "np.unique(labels, return_inverse=True)"):
        made_with(column)
    with refused(ValueError, "'dog'", "np.unique(labels, return_inverse=True)"):
        made_with(column.astype("category"))
    assert read(made_with(np.unique(column, return_inverse=True)[1]))[0][1].tolist() == [1, 0]


def test_text_labels_for_files(files: Files) -> None:
    """Loaders over files say the same, and the helpers that the message names do it."""
    text_labels = ["dog", "cat"]
    with refused(ValueError, "'dog'", "from_directory()", "from_dataframe()"):
        kl.PathSequenceLoader(files.npy[:2], text_labels)
    frame = {"file": files.npy[:2], "kind": text_labels}
    train, _ = kl.from_dataframe(frame, "file", "kind", validation=None)
    assert read(train)[0][1].tolist() == [1, 0]
    for kind in text_labels:
        (files.folder / "all" / kind).mkdir(parents=True)
        np.save(files.folder / "all" / kind / "a.npy", np.zeros(3))
    train, _ = kl.from_directory(files.folder / "all", validation=None)
    assert train.class_names == ["cat", "dog"]
    assert read(train)[0][1].tolist() == [0, 1]


def test_text_labels_in_a_dict(files: Files) -> None:
    """One text among several labels is found."""
    with refused(ValueError, "labels", "'dog'", "np.unique"):
        kl.PathSequenceLoader(files.npy[:2], {"age": [1, 2], "kind": ["dog", "cat"]})


def test_a_labels_function_that_gives_text(files: Files, caplog: Any) -> None:
    """Texts are names of classes; among numbers the file and the text are named."""
    names = [Path(file).stem for file in files.npy]
    last = files.npy[-1]
    with refused(kl.SampleError, last, "'odd'", "expected a number", "return only"):
        read(kl.PathSequenceLoader(files.npy, lambda path: "odd" if path == last else 0))
    assert kl.PathSequenceLoader(files.npy, lambda path: Path(path).stem).class_names == names
    assert "another text for each of" in caplog.text
    assert numbers(
        kl.PathSequenceLoader(files.npy, lambda path: names.index(Path(path).stem))
    ) == list(range(SAMPLES))
