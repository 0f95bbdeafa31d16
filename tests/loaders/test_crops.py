"""Loaders that leave images encoded, with transforms that decode a window: what arrives of each sample."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.formats import image_window
from tests.support.scripts import run_program
from tests.support.tar_files import write_tar
from tests.support.tfrecords import IMAGE

SAMPLES, BATCH, SIDE = 21, 4, 24


def photo(number: int) -> bytes:
    """The sample's number is its red; green and blue grow with rows and columns."""
    y, x = np.mgrid[: 60 + number, : 80 - number]
    image = np.stack([x * 2, y * 2, np.full_like(x, 10 * number)], axis=-1).astype(np.uint8)
    flags = [cv2.IMWRITE_JPEG_QUALITY, 100]
    flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", image, flags)[1].tobytes()


def crop(x: Any, y: Any, rng: Any) -> Any:
    def window(height: int, width: int) -> tuple[int, int, int, int]:
        return rng.integers(height - SIDE), rng.integers(width - SIDE), SIDE, SIDE

    return kl.decode_and_crop(x, window), y


def written_in(picture: Any) -> tuple[int, int, int]:
    """The sample's number, and the top and the left of its window."""
    number, top, left = picture[0, 0].astype(int)
    return round(number / 10), round(top / 2), round(left / 2)


def arrived(loader: Any, epochs: int = 2) -> list[tuple[int, int, int, int]]:
    """Each sample in order: what is written in its pixels, and its label."""
    found = []
    with loader:
        for epoch in range(epochs):
            for x, y in loader.epoch_batches(epoch, shuffle=True):
                assert x.shape[1:] == (SIDE, SIDE, 3)
                found += [(*written_in(p), int(n)) for p, n in zip(x, y, strict=True)]
    return found


@pytest.fixture
def paths(tmp_path: Any) -> list[str]:
    (tmp_path / "photos").mkdir()
    for k in range(SAMPLES):
        (tmp_path / "photos" / f"{k:02}.jpg").write_bytes(photo(k))
    return [str(tmp_path / "photos" / f"{k:02}.jpg") for k in range(SAMPLES)]


def files(paths: list[str], **options: Any) -> Any:
    options = {"transform": crop, "seed": 3, "workers": 0, **options}
    return kl.PathSequenceLoader(
        paths, np.arange(SAMPLES), BATCH, decode=kl.keep_encoded, **options
    )


@pytest.fixture
def expected(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int, int]]:
    """What must arrive: nothing is kept, and no library skips rows."""
    with monkeypatch.context() as patch:
        patch.setattr(image_window, "_library", lambda: None)
        found = arrived(files(paths))
    numbers = [number for number, *_ in found]
    assert numbers == [label for *_, label in found]
    assert sorted(numbers) == sorted([*range(SAMPLES)] * 2)
    assert len({tuple(one) for one in found}) > 2 * SAMPLES - 4  # new windows in each epoch
    return found


def test_the_windows_depend_on_nothing_but_the_seed(
    paths: list[str], expected: Any, tmp_path: Any
) -> None:
    """Number of workers, caches, and the library."""
    for options in (
        {},
        {"workers": 2},
        {"cache": "ram"},
        {"workers": 2, "cache": str(tmp_path / "kept")},
        {"cache": str(tmp_path / "kept")},
    ):
        assert arrived(files(paths, **options)) == expected, options


def test_processes(paths: list[str], expected: Any) -> None:
    assert arrived(files(paths, workers=1, processes=True)) == expected


def test_encoded_images_of_other_sources(paths: list[str], expected: Any, tmp_path: Any) -> None:
    """A tar file, TFRecord files, and a pack of the encoded bytes."""
    options: Any = {"transform": crop, "seed": 3, "workers": 0}
    members = {}
    for k in range(SAMPLES):
        members |= {f"{k:02}.jpg": photo(k), f"{k:02}.cls": str(k).encode()}
    tar = write_tar(tmp_path / "a.tar", members)
    read = kl.TarSequenceLoader(tar, BATCH, x="jpg", y="cls", decode=kl.keep_encoded, **options)
    assert arrived(read) == expected
    records = kl.write_tfrecords(
        paths, np.arange(SAMPLES), tmp_path / "records", shards=2, progress=False
    )
    read = kl.TFRecordSequenceLoader(records.files, IMAGE, BATCH, decode=kl.keep_encoded, **options)
    assert arrived(read) == expected
    with files(paths, transform=None) as plain:
        kl.write_pack(plain, tmp_path / "pack")
    assert arrived(kl.PackSequenceLoader(tmp_path / "pack", BATCH, **options)) == expected


def test_an_error_names_the_file_and_on_error_applies(paths: list[str]) -> None:
    with open(paths[5], "r+b") as file:
        file.truncate(900)
    with pytest.raises(kl.SampleError, match=r"sample 5 \(.*05.jpg\): image is truncated"):
        arrived(files(paths), epochs=1)
    left = [label for *_, label in arrived(files(paths, on_error="skip"), epochs=1)]
    assert sorted(left) == [k for k in range(SAMPLES) if k != 5]


def test_verify_finds_damaged_images(paths: list[str], tmp_path: Any) -> None:
    """The loader itself would read any bytes; those of an own format are not taken for images."""
    with open(paths[5], "r+b") as file:
        file.truncate(900)
    (tmp_path / "own.bin").write_bytes(b"a format of the user")
    with files([*paths[:-1], str(tmp_path / "own.bin")]) as loader:
        found = kl.verify(loader, progress=False).findings
    assert [(one.kind, one.path) for one in found] == [("truncated", paths[5])]


def test_without_a_transform(paths: list[str]) -> None:
    """Bytes of unequal lengths are no batch; the error says so."""
    with files(paths, transform=None) as loader, pytest.raises(ValueError, match="shape"):
        loader[0]


@pytest.mark.slow  # a process with TensorFlow
def test_a_program_ends_while_workers_decode(paths: list[str]) -> None:
    program = f"""
import numpy as np, kloaders as kl
from tests.loaders.test_crops import crop
loader = kl.PathSequenceLoader(
    {paths!r} * 50, np.arange({SAMPLES} * 50), 4, decode=kl.keep_encoded, transform=crop, workers=4
)
for k, _ in enumerate(loader):
    if k == 3:
        break
loader[7]
"""
    done = run_program(program, TF_CPP_MIN_LOG_LEVEL="3")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "terminate" not in done.stderr


def test_explain_knows_that_the_transform_decodes(paths: list[str]) -> None:
    """So it does not advise to leave the transform to the model."""
    for loader, expected in (
        (files(paths), True),
        (kl.PathSequenceLoader(paths[:1], np.arange(1), 1, transform=as_it_is), False),
    ):
        with loader:
            settings = loader.explain(seconds=0.05).measured.settings
        assert settings.transform_decodes is expected


def as_it_is(x: Any, y: Any, rng: Any) -> Any:
    return x, y
