"""Digests that identify a conversion: files, arrays, and functions with everything they use."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from kloaders.convert import digests as module
from kloaders.convert.digests import digest_of_files, digest_of_function, job_of, not_compared
from kloaders.sources.columns import PathColumn
from kloaders.sources.path_lists import PackedPaths


def test_digest_of_files(tmp_path: Path) -> None:
    """Another name, size or time is another digest; so is a file that is gone."""
    a = tmp_path / "a"
    a.write_bytes(b"1")
    digests = {digest_of_files([str(a)])}
    assert digest_of_files([str(a)]) in digests
    a.write_bytes(b"12")
    digests.add(digest_of_files([str(a)]))
    os.utime(a, ns=(1, 1))
    digests.add(digest_of_files([str(a)]))
    a.rename(tmp_path / "b")
    digests.add(digest_of_files([str(a)]))
    digests.add(digest_of_files([str(tmp_path / "b")]))
    assert len(digests) == 5


def test_digest_of_a_function() -> None:
    """Same code, same digest, in any place; an edit or another function changes it."""

    def made(text: str) -> Any:
        names: dict[str, Any] = {}
        exec(text, names)
        return names["f"]

    same = "def f(x):\n  return [y + 1 for y in x if y in {'a', 'b', 'c'}]"
    assert digest_of_function(made(same)) == digest_of_function(made("\n\n" + same))
    assert digest_of_function(made(same)) != digest_of_function(made(same.replace("1", "2")))
    partials = [functools.partial(made(same), k) for k in (1, 2, 1)]
    digests = [digest_of_function(partial) for partial in partials]
    assert digests[0] == digests[2] != digests[1]
    assert digest_of_function(np.load) != digest_of_function(np.save)
    assert str(digest_of_function(len)).startswith("len ")
    assert digest_of_function(None) is None


def test_digest_of_a_function_is_that_of_other_processes() -> None:
    """Sets of texts are hashed anew in each process; the digest is not."""
    code = (
        "from kloaders.convert.digests import digest_of_function as d\n"
        "print(d(lambda x: x in {'a', 'bc', 'def', 'ghij'}))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in "123"
    }
    assert len(told) == 1


def add(value: int) -> Any:
    """A transform that closes over a number."""
    return lambda x, y, rng: (x + value, y)


def add_with_lock(value: int) -> Any:
    """A transform that also closes over an object that cannot be compared."""
    lock = threading.Lock()

    def transform(x: Any, y: Any, rng: Any) -> Any:
        with lock:
            return x + value, y

    return transform


def stopped_pack(folder: Path, transform: Any) -> None:
    """A pack of twelve samples, two for each shard, of which the last one does not load."""

    def ends(x: Any, y: Any, rng: Any) -> Any:
        if x[0] == 11:
            raise ValueError("the end")
        return transform(x, y, rng)

    with pytest.raises(kl.SampleError, match="the end"):
        pack(folder, ends)


def pack(folder: Path, transform: Any) -> Any:
    x = np.repeat(np.arange(12, dtype=np.float32)[:, None], 2, axis=1)
    loader = kl.ArraySequenceLoader(x, None, 4, transform=transform, seed=1, workers=0)
    return kl.write_pack(loader, folder, transformed=True, shard_size=16, progress=False)


def test_a_conversion_does_not_go_on_with_another_value(tmp_path: Path) -> None:
    """What the transform closes over is part of it: half of a pack is not made by another one."""
    stopped_pack(tmp_path, add(100))
    with pytest.raises(FileExistsError, match=r"transform was .* is "):
        stopped_pack(tmp_path, add(200))


def test_what_cannot_be_compared_is_said(tmp_path: Path, caplog: Any) -> None:
    """The conversion resumes, since the code is the same, and warns about objects it cannot compare."""
    stopped_pack(tmp_path, add_with_lock(100))
    with caplog.at_level("INFO", "kloaders"):
        stopped_pack(tmp_path, add_with_lock(200))
    assert "is not known whether they were made with the same variable 'lock'" in caplog.text
    assert "overwrite=True" in caplog.text


def test_a_pipeline_of_augmentation_is_compared() -> None:
    """The digest depends on what it does, not on its generators, which differ in each process."""
    A = pytest.importorskip("albumentations")

    def digest(limit: int) -> str | None:
        pipeline = A.Compose([A.Rotate((limit, limit), p=1), A.HorizontalFlip()])
        return digest_of_function(kl.albumentations_transform(pipeline))

    assert digest(10) == digest(10) != digest(20)
    assert not not_compared(digest(10))


def test_a_hook_counts_with_what_it_reads() -> None:
    """Attributes of the loader that its hook reads are part of the job."""

    class Own(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            return np.float32([self.number])

    jobs = []
    for number in (1, 2, 1):
        loader = Own(3, 2, seed=1)
        loader.number = number
        jobs.append(job_of(loader, False))
    assert jobs[0] == jobs[2] != jobs[1]


def column_of(*paths: str) -> PathColumn:
    return PathColumn(PackedPaths(paths), np.load)


def test_objects_at_urls_are_said_to_be_unseen() -> None:
    """Whether one has changed since is not looked up, so that what is kept comes with a warning."""
    column = column_of("s3://bucket/a.png", "s3://bucket/b.png")
    job = {"source": {"data": [module._digest_of_column(column)]}}
    assert not_compared(job) == ["objects at URLs"]
    local = {"data": [module._digest_of_column(column_of("a.png"))]}
    assert not_compared(local) == []
