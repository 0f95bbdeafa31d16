"""The manifest of a pack: what does not agree with itself, or leads elsewhere, is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kloaders as kl
from tests.support.packs import (
    changed,
    small,
)


def of_file(name: str, value: Any, number: int = 1) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        content["shards"][number]["parts"][0]["values"][name] = value

    return change


def all_shards(name: str, value: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for number in range(len(content["shards"])):
            of_file(name, value, number)(content)

    return change


def keys(**values: Any) -> Callable[[Any], None]:
    return lambda content: content.update(values)


AGAIN = "write the pack again"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            of_file("shape", [8, 3]),
            rf"pack.json is damaged .*contradict each other about x\.npy.*{AGAIN}",
        ),
        (of_file("shape", [4, 2]), rf"pack.json is damaged .*x\.npy is not of 8.*{AGAIN}"),
        (of_file("first", 13), rf"x\.npy has 416 bytes, but pack.json says 424.*{AGAIN}"),
        (of_file("first", 2**60), r"x\.npy has 416 bytes, but pack.json says 9,"),
        (of_file("first", -1), r"pack.json is damaged .*first -1"),
        (of_file("first", True), r"pack.json is damaged .*first True"),
        (of_file("first", None), r"pack.json is damaged .*contradict each other about x\.npy"),
        (all_shards("shape", [8, 1, 2]), r"pack.json is damaged .*x\.npy is not of 4"),
        (of_file("shape", [8, -2]), rf"pack.json is damaged .*shape \(8, -2\).*{AGAIN}"),
        (of_file("shape", [8, 2.0]), r"pack.json is damaged"),
        (of_file("shape", 8), r"pack.json is damaged"),
        (of_file("name", "x-00009.npy"), rf"x-00009\.npy is missing, but pack.json.*{AGAIN}"),
        (of_file("name", 5), r"pack.json is damaged .*name 5"),
        (of_file("crc32", None), r"pack.json is damaged"),
        (keys(samples=21), r"pack.json is damaged .*do not add up to 21"),
        (keys(samples=True), r"pack.json is damaged"),
        (keys(samples=0, shards=[]), r"pack.json is damaged"),
        (keys(leaves=["float32"]), r"pack.json is damaged .*2 arrays for 1 leaves"),
        (keys(leaves=["int32", "int64"]), r"another header than pack.json says: int32 of shape"),
        (keys(leaves=["object", "int64"]), r"pack.json is damaged .*'object'"),
        (keys(leaves=["O4", "int64"]), r"pack.json is damaged"),
        (keys(leaves=["array", "int64"]), r"pack.json is damaged"),
        (keys(structure={"tuple": [0]}), r"pack.json is damaged .*structure does not fit"),
        (keys(structure={"tuple": [0, 1, 1]}), r"pack.json is damaged .*structure does not fit"),
        (keys(structure={"tuple": [1, 0]}), r"pack.json is damaged .*structure does not fit"),
        (keys(structure={"dict": {"x": 0, "y": 1}}), r"pack.json is damaged"),
        (keys(structure=0), r"pack.json is damaged"),
        (keys(shards=5), r"pack.json is damaged"),
        (keys(format="zip"), r"pack.json is damaged .*format 'zip'"),
        (keys(version=3), r"has version 3, but kloaders .* reads up to 2: upgrade"),
        (lambda content: content.pop("job"), r"pack.json is damaged .*'job'"),
    ],
)
def test_a_manifest_that_does_not_match(tmp_path: Path, change: Any, said: str) -> None:
    """What does not match is named, before anything is allocated."""
    folder = small(tmp_path)
    changed(folder, change)
    with pytest.raises((ValueError, OSError), match=said):
        kl.PackSequenceLoader(folder)


@pytest.mark.parametrize(
    "name",
    ["../x.npy", "/etc/x.npy", "sub/x.npy", "..", "", ".", "..\\x.npy", "x\0.npy", "pack.json"],
)
def test_a_manifest_that_leads_elsewhere(tmp_path: Path, name: str) -> None:
    """Only plain names of files in the folder are taken."""
    folder = small(tmp_path)
    shutil.copy(folder / "x.npy", tmp_path / "x.npy")
    changed(folder, all_shards("name", name))
    with pytest.raises(ValueError, match=r"names the file .*, expected the name"):
        kl.PackSequenceLoader(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[]", "is damaged"),
        (b"null", "is damaged"),
        (b"[" * 100_000, "is damaged"),
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, text: bytes, said: str) -> None:
    """Whatever lies there by that name."""
    (tmp_path / "pack.json").write_bytes(text)
    with pytest.raises(ValueError, match=said):
        kl.PackSequenceLoader(tmp_path)


def test_folders_that_are_no_pack(tmp_path: Path) -> None:
    """No folder, a file, an empty folder."""
    with pytest.raises(FileNotFoundError, match=r"does not exist\. Relative paths start at"):
        kl.PackSequenceLoader(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"contains no pack .*write_pack\(loader, folder\)"):
        kl.PackSequenceLoader(tmp_path)
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="is a file, expected the folder"):
        kl.PackSequenceLoader(tmp_path / "a")
