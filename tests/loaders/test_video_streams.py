"""Frames of MPEG streams as ffmpeg writes them: OpenCV's seek leads to others, and loaders give the right ones.

Containers that OpenCV writes by itself are in test_video.py.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess

import cv2
import numpy as np
import pytest

import kloaders as kl

FRAMES, READS = 240, 200


def ffmpeg() -> str:
    """The program: of imageio-ffmpeg, or the system's."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return shutil.which("ffmpeg") or pytest.skip("needs ffmpeg: pip install imageio-ffmpeg")


def frame_of(number: int) -> np.ndarray:
    """A frame that shows its number: eight stripes, black or white."""
    bits = np.repeat((number >> np.arange(8)) % 2 * 255, 16).astype(np.uint8)
    return np.broadcast_to(bits[None, :, None], (96, 128, 3))


def number_of(frame: np.ndarray) -> int:
    return int(((frame[48, 8::16, 0] > 128) << np.arange(8)).sum())


@pytest.fixture
def streams(tmp_path):
    """streams(codec, format, frames between keyframes, B-frames between others) -> a path."""
    program = ffmpeg()
    raw = b"".join(frame_of(number).tobytes() for number in range(FRAMES))

    def write(codec: str, form: str, group: int, between: int) -> str:
        path = str(tmp_path / f"{codec}-{group}-{between}.{form}")
        reading = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "128x96", "-r", "25", "-i", "-"]
        writing = ["-c:v", codec, "-g", str(group), "-bf", str(between), "-q:v", "3", "-f", form]
        subprocess.run([program, "-v", "error", *reading, *writing, path], input=raw, check=True)
        return path

    return write


def sought(path: str, numbers: list[int]) -> list[int]:
    """What OpenCV gives for these frames."""
    capture, found = cv2.VideoCapture(path), []
    for number in numbers:
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        found.append(number_of(capture.read()[1]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("group", "between"), [(1, 0), (12, 2), (15, 3), (50, 2), (300, 0)])
@pytest.mark.parametrize(
    ("codec", "form"),
    [
        ("mpeg1video", "mpeg"),
        ("mpeg2video", "mpeg"),
        ("mpeg2video", "vob"),
        ("mpeg2video", "mpegts"),
    ],
)
def test_random_reads_are_exact(streams, codec, form, group, between):
    path = streams(codec, form, group, between)
    source = kl.VideoSequenceLoader(path, clip=None).source
    assert [number_of(source.read(k)) for k in range(len(source))] == [*range(FRAMES)]
    rng = random.Random(group)
    numbers = [rng.randrange(FRAMES) for _ in range(READS)]
    assert sought(path, numbers) != numbers, "OpenCV's seek is exact: nothing is tested here"
    assert [number_of(source.read(k)) for k in numbers] == numbers


def test_a_program_stream(streams):
    """One of them with every change; B-frames between, and two workers."""
    path = streams("mpeg2video", "vob", 15, 3)
    with kl.VideoSequenceLoader(path, clip=None, shuffle=True, seed=1, workers=2) as loader:
        found = [number_of(frame) for x in loader.epoch_batches(0) for frame in x]
    assert sorted(found) == [*range(FRAMES)]
    assert found != sorted(found)
    assert sought(path, found[:50]) != found[:50]
    report = kl.verify(os.path.dirname(path), progress=False, workers=1)
    assert (report.files, report.findings) == (1, [])
