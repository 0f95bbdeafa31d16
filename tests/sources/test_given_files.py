"""Files as a user names them: in their order, patterns by what matches, and a word for what is wrong."""

import pytest

from kloaders.sources.given_files import files_of


@pytest.fixture
def folder(tmp_path):
    for name in ("b.rec", "a.rec", "[c].rec", ".a.rec.index", "other.txt"):
        (tmp_path / name).touch()
    return tmp_path


def names(found):
    return [path.rpartition("/")[2] for path in found]


def test_files_stay_in_their_order_and_patterns_are_sorted(folder):
    """An index beside a file is no file of data."""
    assert names(files_of([folder / "b.rec", str(folder / "*.rec")])) == [
        "b.rec", "[c].rec", "a.rec", "b.rec",
    ]  # fmt: skip
    assert names(files_of(folder / "a.rec")) == ["a.rec"]
    assert names(files_of(str(folder / "?.rec"))) == ["a.rec", "b.rec"]


def test_indexes_are_left_out(folder):
    (folder / ".hidden").touch()
    assert names(files_of(str(folder / ".*"))) == [".hidden"]


def test_a_file_whose_name_looks_like_a_pattern(folder):
    assert names(files_of(folder / "[c].rec")) == ["[c].rec"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("none.rec", FileNotFoundError, "none.rec does not exist. Relative paths start at"),
        ("none-*.rec", FileNotFoundError, "no file matches 'none-"),
        ([], ValueError, "files is empty, expected at least one of text files"),
        ([3], TypeError, r"files holds 3 \(int\)"),
    ],
)
def test_what_is_wrong(given, error, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(error, match=message):
        files_of(given, "text files")
