"""The files of a pack: sizes, and the sums of every byte."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from tests.support.packs import (
    Stored,
    small,
    write,
)


@pytest.mark.parametrize("cut", [0, 100, 256, 300])
def test_files_that_are_cut(tmp_path: Path, cut: int) -> None:
    """The size is looked at when the pack is opened."""
    folder = small(tmp_path)
    os.truncate(folder / "x.npy", cut)
    with pytest.raises(ValueError, match=rf"x\.npy has {cut} bytes, but pack.json says"):
        kl.PackSequenceLoader(folder)


def test_verify_finds_every_flipped_byte(tmp_path: Path) -> None:
    """In values, indices, headers and the manifest: the file is named."""
    ragged = [(np.full(k, k), k) for k in range(5)]
    write(Stored(ragged, 1, sample_weights=np.ones(5)), tmp_path / "pack")
    folder = tmp_path / "pack"
    loader = kl.PackSequenceLoader(folder, 1)
    loader.verify()
    rng = np.random.default_rng(0)
    for path in sorted(folder.glob("[!.]*")):  # the finished journal is no part of the pack
        good = path.read_bytes()
        for _ in range(15):
            bad = bytearray(good)
            bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
            path.write_bytes(bad)
            if path.name != "pack.json":
                with pytest.raises(ValueError, match=path.name.replace(".", r"\.")):
                    loader.verify()
                continue
            if json_of(bad) == json.loads(good):  # white space, or 1 for 1.0
                continue
            with pytest.raises((ValueError, OSError)):
                kl.PackSequenceLoader(folder, 1).verify()
        path.write_bytes(good)
    loader.verify()


def json_of(data: bytes) -> Any:
    try:
        return json.loads(bytes(data))
    except ValueError:
        return None


def test_verify_names_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All files that differ, and a bar if asked for."""
    folder = small(tmp_path)
    for name, at in (("x.npy", 256 + 8 * 8 + 3), ("y.npy", 256 + 16 * 8)):
        data = bytearray((folder / name).read_bytes())
        data[at] ^= 0x80
        (folder / name).write_bytes(data)
    words = r"x\.npy \(rows 8 to 15\), .*y\.npy \(rows 16 to 19\) changed since.*copy"
    with pytest.raises(ValueError, match=words):
        kl.PackSequenceLoader(folder).verify(progress=True)
    assert "verify: 100%" in capsys.readouterr().err
