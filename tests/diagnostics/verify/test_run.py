"""Whole data sets: damaged files are found, and good files are not reported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.verify import run as verification
from kloaders.diagnostics.verify import worker as inspection
from kloaders.diagnostics.verify.report import ERRORS
from tests.support.pillow_images import JPEGS, picture, saved


@pytest.mark.parametrize("workers", [0, 2])
def test_each_kind_is_found(photos: Path, spoilt: dict[str, str], workers: int) -> None:
    """In this process or in others: the same report, the worst first."""
    report = kl.verify(photos, workers=workers, progress=False)
    assert {one.path: one.kind for one in report.findings} == spoilt
    assert len(report.findings) == len(spoilt)
    assert (report.files, report.left_out) == (12 + 10, 1)
    assert [one.kind for one in report.errors] == sorted(
        (kind for kind in spoilt.values() if kind in ERRORS),
        key=ERRORS.index,
    )
    assert not report.ok


@pytest.mark.parametrize("compression", [None, "GZIP"])
def test_records(photos: Path, tmp_path: Path, compression: Any) -> None:
    """A picture cut short inside a sound record, the same one with two labels, and file names."""
    paths = sorted(map(str, photos.glob("*/*.jpg")))
    Path(paths[2]).write_bytes(Path(paths[2]).read_bytes()[:-300])
    Path(paths[8]).write_bytes(Path(paths[1]).read_bytes())
    labels = [int("dog" in path) for path in paths]
    written = kl.write_tfrecords(
        paths, labels, tmp_path / "out" / "x", compression=compression, on_error="skip",
        progress=False,
    )  # fmt: skip
    assert written.samples == 11  # the converter sees it too; so it is put in by hand
    report = kl.verify(tmp_path / "out", progress=False)
    assert (report.files, [one.kind for one in report.findings]) == (11, ["conflicting labels"])
    assert "record 7 at byte" in report.findings[0].path


def test_a_cut_picture_in_a_record(tmp_path: Path) -> None:
    """Written by somebody else: the record is sound, and what is in it is not."""
    from kloaders.formats.tfrecord.examples import encode_example
    from kloaders.formats.tfrecord.framing import framed

    raw = JPEGS["baseline"]
    pictures = [raw, saved(picture(seed=3), "JPEG"), JPEGS["progressive"][:-100]]
    path = tmp_path / "a.tfrecord"
    examples = [encode_example({"image": p, "label": k}) for k, p in enumerate(pictures)]
    path.write_bytes(b"".join(map(framed, examples)))
    (one,) = kl.verify(path, progress=False).findings
    assert one.kind == "truncated"
    assert re.match(r".*a\.tfrecord, record 2 at byte \d+, image is truncated", one.message)


def test_packs(tmp_path: Path) -> None:
    """Sums, sizes, headers, and the manifest itself."""
    pack = tmp_path / "pack"
    x = np.random.default_rng(0).random((40, 30), np.float32)
    kl.write_pack(kl.ArraySequenceLoader(x, np.arange(40)), pack, shard_size=1500, progress=False)
    report = kl.verify(pack, progress=False)
    assert report.ok
    assert report.files == len(list(pack.glob("*.npy")))
    x, y = pack / "x.npy", pack / "y.npy"
    raw = bytearray(x.read_bytes())
    raw[-7] ^= 1
    x.write_bytes(raw)
    y.write_bytes(y.read_bytes()[:-1])
    found = {one.path: (one.kind, one.message) for one in kl.verify(pack, progress=False).findings}
    assert {path: kind for path, (kind, _) in found.items()} == {
        str(x): "broken",
        str(y): "truncated",
    }
    assert "x.npy (rows 33 to 39) changed since the pack was written" in found[str(x)][1]
    y.unlink()
    found = {one.path: one.kind for one in kl.verify(pack, progress=False).findings}
    assert found == {str(x): "broken", str(y): "unreadable"}
    (pack / "pack.json").write_text("{}")
    (one,) = kl.verify(pack, progress=False).findings
    assert "pack.json is damaged" in one.message


def test_nothing_is_left_of_one_that_was_stopped(photos: Path, monkeypatch: Any) -> None:
    """Ctrl-C in the middle: the processes end."""
    begun = []
    started = inspection.Inspector._started

    def noted(self: Any) -> Any:
        process = started(self)
        begun.append(process)
        return process

    monkeypatch.setattr(inspection.Inspector, "_started", noted)
    tasks = [(str(path), None) for path in photos.glob("*/*.jpg")]
    answers = verification._answers(tasks, 2, 10**6, None)
    next(answers)
    answers.close()
    assert begun
    assert all(process.poll() is not None for process in begun)


def as_said(report: Any) -> dict[str, Any]:
    """A report without its time."""
    return {name: value for name, value in vars(report).items() if name != "seconds"}


@pytest.mark.ray
def test_on_a_cluster_the_report_is_the_same(
    ray: Any, photos: Path, spoilt: dict[str, str], monkeypatch: Any
) -> None:
    """A folder, by a relative path, and loaders of a built-in format and of the user's own."""
    monkeypatch.chdir(photos.parent)
    loader, _ = kl.from_directory(
        photos, validation=None, check_paths=False, channels=None, on_error="skip"
    )

    class Own(kl.SequenceLoader):
        def load_sample(self, index: int) -> Any:
            if index == 3:
                raise ValueError("bad")
            return np.full(2 + (index == 70), index)

    own = Own(100, 4)
    for source in (photos.name, loader, own):
        here = kl.verify(source, progress=False)
        there = kl.verify(source, engine=kl.Ray(cpus=2), progress=False)
        assert as_said(there) == as_said(here)
        assert there.findings


def test_what_an_actor_reads_has_a_name(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the warning about one that takes long: the first file of a block, or its samples."""
    from kloaders.engine.ray import calls

    names = []

    def called(_: Any, function: Any, jobs: Any, name: Any) -> Any:
        for job in jobs:
            names.append(name(job))
            yield job, function(job)

    monkeypatch.setattr(calls, "called", called)
    paths = sorted(map(str, photos.glob("*/*.jpg")))
    loader = kl.PathSequenceLoader(paths, None, 4, size=(8, 8), on_error="skip")
    kl.verify(loader, engine=kl.Ray(cpus=1), progress=False)
    last = len(paths) - 1
    assert names == [
        f"one of {len(paths)} checks, of which the first is of {paths[0]},",
        f"one of samples 0 to {last} ({paths[0]} and the next)",
    ]


def test_a_wrong_engine(photos: Path) -> None:
    with pytest.raises(TypeError, match=r"engine='ray', expected None"):
        kl.verify(photos, engine="ray")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"workers=2 and engine=.*Leave workers= out"):
        kl.verify(photos, engine=kl.Ray(cpus=2), workers=2)
