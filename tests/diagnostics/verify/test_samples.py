"""Loaders that are verified: their files, and their samples as they read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.verify.run import is_loader
from tests.support.pillow_images import picture, saved


def found(report: Any) -> dict[str, str]:
    return {one.path: one.kind for one in report.findings}


def test_what_is_a_loader() -> None:
    assert is_loader(kl.ArraySequenceLoader(np.zeros(3)))
    for other in ("a", Path("a"), ["a"], np.zeros(3)):
        assert not is_loader(other)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_checked_by_their_structure(
    photos: Path, spoilt: dict[str, str], workers: int
) -> None:
    """As in the folder, with the classes of the loader; a pipe is none of its samples."""
    loader, _ = kl.from_directory(
        photos, validation=None, check_paths=False, channels=None, on_error="skip"
    )
    report = kl.verify(loader, workers=workers, progress=False)
    wanted = {path: kind for path, kind in spoilt.items() if "pipe" not in path}
    assert found(report) == wanted
    assert (report.files, report.source) == (loader.samples, "PathSequenceLoader")


def test_only_the_samples_of_a_part_are_read(photos: Path) -> None:
    broken = photos / "dog" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    loader, _ = kl.from_directory(photos, validation=None, size=(8, 8))
    numbers = [k for k, path in enumerate(loader.paths) if path != str(broken)]
    assert kl.verify(kl.subset(loader, numbers), workers=0, progress=False).ok
    assert found(kl.verify(kl.subset(loader, [9]), workers=0, progress=False)) == {
        str(broken): "truncated"
    }


class Raw(kl.PathSequenceLoader):
    def load_sample(self, path: str) -> Any:
        content = np.fromfile(path, "<f4")
        if len(content) < 4:
            raise ValueError(f"{len(content)} numbers")
        return content


def raw_files(folder: Path) -> list[Path]:
    paths = [folder / f"{k}.raw" for k in range(8)]
    for k, path in enumerate(paths):
        np.full(4, k, "<f4").tofile(path)
    np.zeros(3, "<f4").tofile(paths[5])
    np.zeros(6, "<f4").tofile(paths[6])
    paths[7].unlink()
    return paths


@pytest.mark.parametrize("cache", [None, "ram"])
def test_a_format_of_ones_own(tmp_path: Path, cache: Any) -> None:
    paths = raw_files(tmp_path)
    loader = Raw(paths, check_paths=False, cache=cache, on_error="skip")
    report = kl.verify(loader, workers=0, progress=False)
    assert found(report) == {
        str(paths[5]): "broken",
        str(paths[6]): "inconsistent",
        str(paths[7]): "unreadable",
    }
    assert f"{paths[5]} failed to load: ValueError: 3 numbers" in [
        one.message for one in report.findings
    ]
    assert loader.errors == []  # nothing is counted against it


def test_a_function_that_decodes(tmp_path: Path) -> None:
    paths = raw_files(tmp_path)[:7]

    def decode(raw: bytes) -> Any:
        return np.frombuffer(raw, "<f4")[[0, 3]]

    loader = kl.PathSequenceLoader(paths, decode=decode)
    assert found(kl.verify(loader, workers=0, progress=False)) == {str(paths[5]): "broken"}


def test_masks_may_be_alike(tmp_path: Path) -> None:
    """And one that is cut is found."""
    images, masks = [], []
    for k in range(6):
        images.append(tmp_path / f"{k}.jpg")
        images[k].write_bytes(saved(picture(20, 30, k), "JPEG"))
        masks.append(tmp_path / f"{k}.png")
        masks[k].write_bytes(saved(np.zeros((20, 30), np.uint8), "PNG"))
    loader = kl.PathSequenceLoader(images, masks)
    assert found(kl.verify(loader, workers=0, progress=False)) == {}
    masks[2].write_bytes(masks[2].read_bytes()[:-5])
    assert found(kl.verify(loader, workers=0, progress=False)) == {str(masks[2]): "truncated"}


def test_rows_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("size,label\n1.5,0\n2,5,1\n3.5,1\n")
    ((name, kind),) = found(
        kl.verify(kl.CsvSequenceLoader(path), workers=0, progress=False)
    ).items()
    assert name == f"{path}, row 2 at byte 17"
    assert kind == "broken"


def test_videos(tmp_path: Path) -> None:
    """One that was cut after the loader was made."""
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for number in range(40):
        writer.write(np.full((48, 64, 3), number, np.uint8))
    writer.release()
    loader = kl.VideoSequenceLoader(path, clip=4)
    report = kl.verify(loader, workers=0, progress=False)
    assert report.ok
    assert report.files == 10
    path.write_bytes(path.read_bytes()[:-3000])
    assert found(kl.verify(loader, workers=0, progress=False))[str(path)] == "truncated"


def test_records_and_packs(tmp_path: Path) -> None:
    x = np.arange(40, dtype=np.float32).reshape(20, 2)
    kl.write_pack(kl.ArraySequenceLoader(x), tmp_path / "pack", progress=False)
    written = kl.write_tfrecords(
        kl.ArraySequenceLoader(x), None, tmp_path / "out", progress=False
    ).files
    pack = kl.PackSequenceLoader(tmp_path / "pack")
    records = kl.TFRecordSequenceLoader(written, {"x": "x"})
    report = kl.verify([pack, records], workers=0, progress=False)
    assert (report.ok, report.files) == (True, 40)
    raw = bytearray(Path(written[0]).read_bytes())
    raw[-10] ^= 1
    Path(written[0]).write_bytes(raw)
    values = tmp_path / "pack" / "x.npy"
    content = bytearray(values.read_bytes())
    content[-1] ^= 1
    values.write_bytes(content)
    kinds = found(kl.verify([pack, records], workers=0, progress=False))
    assert kinds[str(values)] == "broken"
    assert any("record 19" in name for name in kinds)
