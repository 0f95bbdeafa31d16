"""Bad input: paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from tests.support.bad_input import BATCH, OVER_FILES, SAMPLES, Files, Make, labels, read, refused


@OVER_FILES
def test_a_path_that_does_not_exist(files: Files, over: Make, monkeypatch: Any) -> None:
    """The error comes before training, with the number of other missing files and the folder."""
    monkeypatch.chdir(files.folder)
    with refused(FileNotFoundError, "gone.npy", "does not exist", str(files.folder)):
        over([*files.npy, "gone.npy"])
    with refused(FileNotFoundError, "gone0.npy", "6 others", "checked 19"):
        over([*files.npy, *(f"gone{k}.npy" for k in range(7))])
    # The advice: relative paths start at the current folder.
    assert over([Path(file).name for file in files.npy]).samples == SAMPLES


def test_a_missing_label_file(files: Files) -> None:
    """Files of labels, masks for example, are looked for as well."""
    with refused(FileNotFoundError, "gone.npy", "does not exist"):
        kl.PathSequenceLoader(files.npy[:2], [files.npy[0], str(files.folder / "gone.npy")])


def test_of_many_paths_some_are_looked_at(files: Files) -> None:
    """The check when a loader is made looks at a bounded number of files; True checks all."""
    many = [*files.npy * 500, *("gone.npy" for _ in range(6000))]
    with refused(FileNotFoundError, "gone.npy", "checked 2,000 of 12,000"):
        kl.PathSequenceLoader(many)
    few = [*files.npy * 500, "gone.npy", *files.npy * 500]
    with refused(FileNotFoundError, "gone.npy", "checked 12,001"):
        kl.PathSequenceLoader(few, check_paths=True)


@OVER_FILES
def test_the_check_of_paths_is_optional(files: Files, over: Make) -> None:
    """check_paths=False checks none; a missing file is named when it is read."""
    gone = str(files.folder / "gone.npy")
    with refused(FileNotFoundError, "check_paths=False"):
        over([*files.npy, gone], labels(13), BATCH)
    loader = over([*files.npy, gone], labels(13), BATCH, check_paths=False, shuffle=False)
    with refused(kl.SampleError, "sample 12", gone, "No such file"):
        read(loader)


def test_check_paths_of_another_kind(files: Files) -> None:
    """check_paths names its choices."""
    with refused(ValueError, "check_paths='all'", '"sample"', "True", "False"):
        kl.PathSequenceLoader(files.npy, check_paths="all")


@OVER_FILES
@pytest.mark.parametrize("name", ["folder", "folder.npy", "folder.d"])
def test_a_folder_among_the_paths(files: Files, over: Make, name: str) -> None:
    """It is named as a folder, whatever it is called; listing its files, as advised, works."""
    folder = files.folder / name
    folder.mkdir()
    np.save(folder / "a.npy", np.zeros(3, np.float32))
    with refused(IsADirectoryError, str(folder), "folder", "list its files", "from_directory"):
        over([*files.npy, str(folder)])
    assert over([*files.npy, *map(str, folder.iterdir())]).samples == SAMPLES + 1
    train, _ = kl.from_directory(files.folder, validation=None)  # a folder of the class's name
    assert train.samples == 1


def test_a_folder_met_while_reading(files: Files) -> None:
    """Without this check a folder is named when it is read."""
    folder = files.folder / "folder.npy"
    folder.mkdir()
    loader = kl.PathSequenceLoader([*files.npy, str(folder)], check_paths=False)
    with refused(kl.SampleError, "sample 12", str(folder), "directory"):
        read(loader)


@pytest.mark.parametrize("given_as", [str, Path])
def test_one_path_instead_of_a_list(files: Files, given_as: Make) -> None:
    """A lone path is not taken for a list of its letters: it is named, and [path] advised."""
    with refused(TypeError, "paths", files.npy[0], "list"):
        kl.PathSequenceLoader(given_as(files.npy[0]))


@OVER_FILES
def test_a_suffix_without_a_decoder(files: Files, over: Make) -> None:
    """The message names the suffixes known and both hooks, and both hooks work."""
    raw = [str(files.folder / f"{k}.raw") for k in range(8)]
    for k, file in enumerate(raw):
        np.full(3, k, "<f4").tofile(file)
    words = ["0.raw", "'.raw'", ".jpg", ".png", ".npy", "decode=", "load_sample(path)"]
    with refused(ValueError, *words):
        over(raw)

    loader = over(raw, np.arange(8), BATCH, decode=lambda content: np.frombuffer(content, "<f4"))
    assert all((x[:, 0] == y).all() for x, y in read(loader))

    class RawLoader(kl.PathSequenceLoader):
        def load_sample(self, path: str) -> Any:
            return np.fromfile(path, "<f4")

    assert all((x[:, 0] == y).all() for x, y in read(RawLoader(raw, np.arange(8), BATCH)))


def test_no_suffix_at_all(files: Files) -> None:
    """A file without a suffix is refused in the same words."""
    plain = files.folder / "plain"
    plain.write_bytes(b"1")
    with refused(ValueError, str(plain), "no suffix", ".png", "decode=", "load_sample(path)"):
        kl.PathSequenceLoader([str(plain)])


@pytest.mark.parametrize("bad", [3, None, np.zeros(2), ["a.npy"]], ids=type)
@pytest.mark.parametrize("place", [0, 3])
def test_something_else_among_the_paths(files: Files, bad: Any, place: int) -> None:
    """What is no path is named with its position and type."""
    mixed = [*files.npy[:place], bad, *files.npy[place:]]
    with refused(TypeError, f"paths[{place}]", type(bad).__name__, "str or pathlib.Path"):
        kl.PathSequenceLoader(mixed)


def test_something_else_among_the_label_paths(files: Files) -> None:
    """The error names the wrong argument: labels, not paths."""
    with refused(TypeError, "labels[1]", "3", "int"):
        kl.PathSequenceLoader(files.npy[:2], [files.npy[0], 3])


def test_a_path_with_a_nul_character() -> None:
    """No file name holds a NUL: the path is shown as it is."""
    with refused(ValueError, "'a\\x00.npy'", "NUL"):
        kl.PathSequenceLoader(["a\0.npy"], check_paths=False)


def test_arrays_for_a_path_loader(files: Files) -> None:
    """Arrays given as paths: the message names the loader for arrays, and it takes them."""
    for x in (np.zeros((12, 3)), [np.zeros(3)] * 12, {"a": np.zeros(12)}, [1, 2, 3]):
        with refused(TypeError, "paths", "str or pathlib.Path", "ArraySequenceLoader"):
            kl.PathSequenceLoader(x)
        assert kl.ArraySequenceLoader(x).samples in (3, 12)


@pytest.mark.parametrize("given_as", [list, np.array, lambda p: list(map(Path, p))])
def test_paths_for_an_array_loader(files: Files, given_as: Make) -> None:
    """Paths given as arrays: the message shows one and names the loader for files."""
    x = given_as(files.npy)
    with refused(TypeError, "x ", files.npy[0][:40], "PathSequenceLoader"):  # cut at 80
        kl.ArraySequenceLoader(x)
    assert kl.PathSequenceLoader(x).samples == SAMPLES


def test_labels_in_files_of_an_own_format(files: Files) -> None:
    """decode is for the inputs; label_options have their own, and the message says so."""
    with refused(ValueError, 'label_options={"decode"'):
        kl.PathSequenceLoader(files.npy, files.own)
    loader = kl.PathSequenceLoader(files.npy, files.own, label_options={"decode": len})
    assert loader[0][1].tolist() == [os.path.getsize(file) for file in files.own]


def test_several_inputs_through_a_hook(files: Files) -> None:
    """load_sample is asked for each input that is a file; no input is lost."""

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path: str) -> Any:
            return np.float32(Path(path).stem)

    x = {"a": files.npy, "b": files.npy[::-1], "c": np.arange(12)}
    inputs, y = Own(x, labels(), 12)[0]
    assert inputs["a"].tolist() == list(range(12))
    assert inputs["b"].tolist() == list(range(12))[::-1]
    assert inputs["c"].tolist() == list(range(12))
    assert y.tolist() == list(range(12))
