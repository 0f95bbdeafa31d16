"""Rows without those that a list names."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.sources.kept_rows import KeptRows, files_kept
from tests.support.tar_files import npy_bytes, write_tar


@pytest.fixture
def files(tmp_path):
    """Two tar files of nine numbered samples each, whose names may hold a comma."""
    for number in range(2):
        members = {}
        for k in range(9):
            name = f"{9 * number + k}, of many"
            members |= {f"{name}.npy": npy_bytes(np.full(3, 9 * number + k)), f"{name}.cls": b"7"}
        write_tar(tmp_path / f"{number}.tar", members)
    return str(tmp_path / "*.tar")


def excluding(tmp_path, *names):
    (tmp_path / "bad.csv").write_text("path\n" + "".join(f'"{name}"\n' for name in names))
    return tmp_path / "bad.csv"


def test_the_samples_that_stay(files, tmp_path, keep):
    """In order, as numbers of their own, with their labels, in one subset and a split too."""
    listed = excluding(tmp_path, tmp_path / "0.tar, 3, of many", tmp_path / "1.tar, 17, of many")
    loader = keep(kl.TarSequenceLoader(files, 4, "npy", "cls", shuffle=False, exclude=listed))
    got = [int(row[0]) for k in range(len(loader)) for row in loader[k][0]]
    assert got == [k for k in range(18) if k not in (3, 17)]
    assert isinstance(loader._rows, KeptRows)
    assert loader._rows.file_firsts.tolist() == [0, 8, 16]
    assert loader.sample_name(3).endswith("0.tar, 4, of many")
    train, val = kl.split(loader, validation=0.25, seed=1)
    both = [int(row[0]) for part in (train, val) for k in range(len(part)) for row in part[k][0]]
    assert sorted(both) == got


def test_relative_names(files, tmp_path, keep, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = excluding(tmp_path, "0.tar, 3, of many")
    assert keep(kl.TarSequenceLoader("*.tar", 4, "npy", exclude=listed)).samples == 17


def test_nothing_is_left(files, tmp_path):
    names = [tmp_path / f"0.tar, {k}, of many" for k in range(9)]
    with pytest.raises(ValueError, match="leaves out all 9 samples"):
        kl.TarSequenceLoader(tmp_path / "0.tar", 4, "npy", exclude=excluding(tmp_path, *names))


def test_what_is_not_among_them(files, tmp_path, keep, caplog):
    with caplog.at_level("INFO", "kloaders"):
        loader = keep(
            kl.TarSequenceLoader(files, 4, "npy", exclude=excluding(tmp_path, "other.jpg"))
        )
    assert loader.samples == 18
    assert "none of the listed paths is among these" in caplog.text


def test_the_file_of_a_run_that_is_its_own_list(files, tmp_path, keep):
    """quarantine= and exclude= of one name: what one run meets, the next leaves out."""
    raw = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(raw.replace(b"\x93NUMPY", b"\x93NUMPX", 1))
    options = {"quarantine": tmp_path / "bad.csv", "exclude": tmp_path / "bad.csv"}
    for samples in (18, 17):
        loader = keep(kl.TarSequenceLoader(files, 4, "npy", on_error="skip", cache=None, **options))
        assert loader.samples == samples
        for k in range(len(loader)):
            loader[k]
        loader.close()


def test_whole_files(tmp_path):
    files = [str(tmp_path / name) for name in "ab"]
    assert files_kept(files, None, None) == files
    assert files_kept(files, excluding(tmp_path, files[0]), None) == files[1:]
    with pytest.raises(ValueError, match="leaves out all 1 files"):
        files_kept(files[:1], excluding(tmp_path, files[0]), None)
