"""What tells whether a file is still the one that was read."""

from __future__ import annotations

import os
import shutil

import kloaders as kl
from kloaders.sources.cache.store import stamp_of
from tests.sources.cache.pictures import ALL, BATCH, numbers, write


def replaced(path, number, way):
    """Another picture of the same size and time in place of this one."""
    before = os.stat(path)
    if way == "another file":  # rsync -t, tar
        write(f"{path}.new.png", number)
        os.utime(f"{path}.new.png", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(f"{path}.new.png", path)
    else:
        write(path, number)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def test_a_file_of_the_same_size_and_time(pictures, where, keep):
    """Time of change and inode tell it apart, in RAM and in a folder, now and in the next run."""
    loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where))
    assert numbers(loader) == ALL
    replaced(pictures[3], 30, "another file")
    replaced(pictures[4], 40, "the same file")
    expected = [0, 1, 2, 30, 40, *ALL[5:]]
    assert numbers(loader) == numbers(loader) == expected
    assert numbers(keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=where))) == expected


def test_stamps(tmp_path):
    """Of one file, of several in their order; another file, time or size is another stamp."""
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    shutil.copy2(a, b)
    stamps = [
        stamp_of(str(a)),
        stamp_of(str(b)),
        stamp_of(str(a), str(b)),
        stamp_of(str(b), str(a)),
    ]
    os.utime(a, ns=(1, 1))
    stamps.append(stamp_of(str(a)))
    a.write_bytes(b"12")
    stamps.append(stamp_of(str(a)))
    assert len(set(stamps)) == 6
    assert stamp_of(str(a)) == stamps[-1]
    assert stamp_of(str(a), str(tmp_path / "c")) is None
