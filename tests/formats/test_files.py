"""Names of files and their bytes."""

import os
import subprocess
import sys

import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.files import (
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    check_suffix,
    read_bytes,
    suffix_of,
)
from kloaders.formats.images import read_image
from kloaders.formats.npy import read_array
from kloaders.formats.options import ImageOptions

STORED = ImageOptions(channels=None)


pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.mark.parametrize(
    ("path", "suffix"),
    [("a/B.JPG", ".jpg"), ("x.tar.npy", ".npy"), ("a.b/c", ""), (".npy", ""), ("d/.png", ""), ("e.", ".")],
)  # fmt: skip
def test_suffix_of(path, suffix):
    """Lower case, with the dot, of the last part only; hidden files have none."""
    assert suffix_of(path) == suffix


def test_check_suffix():
    """Known suffixes pass; others are named together with the known ones and the hooks."""
    for suffix in IMAGE_SUFFIXES | ARRAY_SUFFIXES:
        check_suffix("a" + suffix.upper())
    with pytest.raises(
        ValueError, match=r"a/b.raw ends in '.raw'.*\.jpg.*\.npy.*decode=.*load_sample"
    ):
        check_suffix("a/b.raw")
    with pytest.raises(ValueError, match="a/b has no suffix"):
        check_suffix("a/b")


def test_read_bytes(tmp_path):
    """The content as it is, up to the last byte."""
    content = bytes(range(256)) * 300 + b"\r\n\x1a"
    (tmp_path / "f").write_bytes(content)
    assert read_bytes(str(tmp_path / "f")) == content


def test_read_bytes_short_reads(tmp_path, monkeypatch):
    """A system that hands out seven bytes at a time costs patience, not content."""
    (tmp_path / "f").write_bytes(bytes(range(100)))
    read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: read(descriptor, min(size, 7)))
    assert read_bytes(str(tmp_path / "f")) == bytes(range(100))


@pytest.mark.parametrize("reader", [read_bytes, read_array, lambda p: read_image(p, STORED)])
def test_unreadable_files(tmp_path, reader):
    """Missing file, folder and empty file: each error names the path and leaves nothing open."""
    with pytest.raises(FileNotFoundError, match="gone"):
        reader(str(tmp_path / "gone.npy"))
    with pytest.raises(IsADirectoryError, match=r"folder.*" + tmp_path.name):
        reader(str(tmp_path))
    (tmp_path / "void.npy").write_bytes(b"")
    with pytest.raises(DecodeError, match=r"void.npy is empty \(0 bytes\)"):
        reader(str(tmp_path / "void.npy"))


AT_EXIT = """
import os, sys
from kloaders.formats import files

file = files.OpenFile(sys.argv[1])
number = file.number
for name in vars(files):  # as the interpreter leaves a module behind
    setattr(files, name, None)
del file
try:
    os.fstat(number)
except OSError:
    print("closed")
"""


def test_files_are_closed_when_the_module_is_gone(tmp_path):
    """A loader that outlives its module at exit says nothing on stderr."""
    (tmp_path / "a").write_bytes(b"0")
    command = [sys.executable, "-c", AT_EXIT, str(tmp_path / "a")]
    environment = {**os.environ, "KLOADERS_WORKER": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=100, check=False)
    assert (done.stdout.split(), done.stderr) == ([b"closed"], b"")
