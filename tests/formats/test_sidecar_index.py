"""The index beside a file: made once, made anew where it is stale or damaged, and never believed."""

import gzip
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from kloaders.formats import sidecar_index
from kloaders.formats.sidecar_index import is_index
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.tfrecord.framing import framed
from kloaders.formats.tfrecord.scan import index_of
from tests.support.records import DATA, index_path, read_all


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress])
def test_the_index_is_made_once(file, walks, squeeze):
    path = file(raw=squeeze(b"".join(map(framed, DATA))))
    first = index_of(path)
    again = index_of(path)
    assert len(walks) == 1
    assert again.offsets.tolist() == first.offsets.tolist()
    assert again.compression == first.compression
    assert os.path.getsize(index_path(path)) == 60 + 4 * (len(DATA) + 1)
    assert is_index(index_path(path))
    assert not is_index(path)


def test_a_stale_index_is_made_anew(file, walks):
    path = file()
    index_of(path)
    file([b"other", b"records"])
    assert len(index_of(path)) == 2
    os.utime(path, ns=(1, 1))
    index_of(path)
    assert len(walks) == 3


def test_the_index_of_another_file(file, walks):
    """One of the same size and time is told by what the files begin and end with."""
    a, b = file([b"aaaa", b"bb"], "a"), file([b"cc", b"dddd"], "b")
    for path in (a, b):
        os.utime(path, ns=(10**18, 10**18))
    index_of(a)
    shutil.copy(index_path(a), index_path(b))
    assert read_all(RecordFiles([b])) == [b"cc", b"dddd"]
    assert len(walks) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "longer", "text"])
def test_a_damaged_index_is_made_anew(file, walks, damage):
    path = file()
    index_of(path)
    with open(index_path(path), "rb") as handle:
        raw = handle.read()
    for at in range(len(raw)) if damage == "flip" else [0]:
        broken = {
            "flip": raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :],
            "cut": raw[:-3],
            "empty": b"",
            "longer": raw + bytes(4),
            "text": b"no index at all, but long enough to have a header in front of it, "
            b"as one may see by counting",
        }[damage]
        before = len(walks)
        with open(index_path(path), "wb") as handle:
            handle.write(broken)
        assert len(index_of(path)) == len(DATA)
        # Two bytes of padding say nothing.
        assert len(walks) == before + 1 or at in (38, 39)


@pytest.mark.parametrize(
    "offsets", [[0, 2**31, 40], [0, 2**50, 2**60], [5, 10, 20], [0, 70, 2**40]]
)
def test_an_index_that_lies_is_made_anew(file, walks, offsets):
    """Its sums are right, and its offsets impossible."""
    path = file([b"one", b"two"])
    found = index_of(path)
    lie = sidecar_index.Index(
        np.array(offsets, np.uint64), found.compression, found.size, found.modified, found.ends
    )
    sidecar_index.save(lie, [index_path(path)])
    assert read_all(RecordFiles([path])) == [b"one", b"two"]
    assert len(walks) == 2


def test_a_folder_for_indexes(file, tmp_path, walks):
    path = file()
    folder = str(tmp_path / "kept" / "here")
    index_of(path, folder=folder)
    assert not os.path.exists(index_path(path))
    assert len(os.listdir(folder)) == 1
    index_of(path, folder=folder)
    assert len(walks) == 1


def unwritable(monkeypatch, folders):
    real = sidecar_index.whole_file

    def refuse(path, on_disk=True):
        if any(path.startswith(folder) for folder in folders):
            raise PermissionError(13, "Permission denied", path)
        return real(path, on_disk)

    monkeypatch.setattr(sidecar_index, "whole_file", refuse)


def test_where_data_cannot_be_written_a_cache_folder_is_used(file, tmp_path, walks, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    path = file()
    unwritable(monkeypatch, [index_path(path)])
    index_of(path)
    index_of(path)
    assert len(walks) == 1
    assert len(os.listdir(cache / "kloaders" / "indexes")) == 1


def test_where_nothing_can_be_written_it_says_so(file, tmp_path, walks, monkeypatch, caplog):
    caplog.set_level("INFO", "kloaders")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("kloaders.core.messages._logged", set())
    unwritable(monkeypatch, [str(tmp_path)])
    path = file()
    assert len(index_of(path)) == len(index_of(path)) == len(DATA)
    assert len(walks) == 2
    assert caplog.text.count("pass index_folder=, a writable folder") == 1


def test_two_processes_make_one_index_at_a_time(file):
    """Many at once, and whoever reads gets a whole one."""
    path = file([b"%d" % k for k in range(3000)])
    code = (
        "import sys, os; from kloaders.formats.tfrecord import files, scan\n"
        "for k in range(30):\n"
        "    try: os.unlink(sys.argv[2])\n"
        "    except FileNotFoundError: pass\n"
        "    assert len(scan.index_of(sys.argv[1])) == 3000\n"
        "    assert files.RecordFiles([sys.argv[1]]).read(2999) == b'2999'\n"
    )
    command = [sys.executable, "-c", code, path, index_path(path)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, said = process.communicate(timeout=100)
        assert process.returncode == 0, said.decode()
    assert sorted(os.listdir(os.path.dirname(path))) == [".a.tfrecord.index", "a.tfrecord"]


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
@pytest.mark.parametrize("there", [True, False])
def test_what_a_killed_process_left_of_an_index_is_removed(file, there):
    """When the index is made, and when it is there and is only read."""
    path = file(raw=b"".join(map(framed, DATA)))
    if there:
        index_of(path)
    left = [index_path(path).replace(".index", f".index.{k}.part") for k in (0, 2)]
    left = [os.path.join(os.path.dirname(p), "." + os.path.basename(p)) for p in left]
    for part in left:
        with open(part, "wb") as handle:
            handle.write(bytes(90))
    index_of(path)
    assert os.path.exists(index_path(path))
    assert not [part for part in left if os.path.exists(part)]


def test_an_index_that_a_loss_of_power_left_empty_is_made_anew(file, walks):
    """Indexes do not wait for the disk: they have checksums, and are made again."""
    path = file()
    want = index_of(path).offsets.tolist()
    for left in (b"", bytes(60)):
        with open(index_path(path), "wb") as index:
            index.write(left)
        assert index_of(path).offsets.tolist() == want
    assert len(walks) == 3
