"""Video files that are whole, and those that are not."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.videos import container_of, frame_times

FRAMES = 60
KINDS = {
    "avi": "MJPG",
    "mp4": "mp4v",
    "mov": "mp4v",
    "webm": "VP80",
    "mkv": "XVID",
    "mpg": "PIM1",
    "flv": "FLV1",
}


def written(path: Path, codec: str, frames: int = FRAMES) -> Path:
    """Noise, so that frames are large."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV writes no {codec}")
    rng = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    return path


@pytest.fixture(params=KINDS)
def whole(request, tmp_path):
    return written(tmp_path / f"a.{request.param}", KINDS[request.param])


def streamed(raw: bytes) -> bytes:
    """An MP4 with its index before its frames, as those made for the web."""
    at, boxes = 0, {}
    while at < len(raw):
        size, kind = struct.unpack_from(">I4s", raw, at)
        boxes[kind] = raw[at : at + size]
        at += size
    moov, mdat = bytearray(boxes[b"moov"]), boxes[b"mdat"]
    place = moov.find(b"stco") + 8
    (count,) = struct.unpack_from(">I", moov, place)
    shift = len(boxes[b"ftyp"]) + len(moov) - raw.find(mdat)
    for k in range(count):
        (offset,) = struct.unpack_from(">I", moov, place + 4 + 4 * k)
        struct.pack_into(">I", moov, place + 4 + 4 * k, offset + shift)
    return boxes[b"ftyp"] + bytes(moov) + mdat


def test_a_whole_file_has_all_its_frames(whole):
    times = frame_times(str(whole))
    assert len(times) == FRAMES
    assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize("share", [0.4, 0.9])
@pytest.mark.parametrize("tail", [b"", b"\0"], ids=["cut", "zeros"])
def test_a_file_that_is_not_whole(whole, share, tail):
    raw = whole.read_bytes()
    keep = int(len(raw) * share)
    whole.write_bytes(raw[:keep] + tail * (len(raw) - keep))
    if whole.suffix in (".mpg", ".flv") and not (tail and len(raw) - keep > 4096):
        pytest.skip("a stream ends anywhere")
    with pytest.raises(DecodeError, match=r"a\.\w+ (is truncated|has no frames)"):
        frame_times(str(whole))


@pytest.mark.parametrize("tail", [b"", b"\0"], ids=["cut", "zeros"])
def test_an_mp4_whose_index_comes_first(tmp_path, tail):
    raw = streamed(written(tmp_path / "a.mp4", "mp4v").read_bytes())
    path = tmp_path / "b.mp4"
    path.write_bytes(raw)
    assert len(frame_times(str(path))) == FRAMES
    keep = len(raw) // 2
    path.write_bytes(raw[:keep] + tail * (len(raw) - keep))
    with pytest.raises(DecodeError, match=r"b\.mp4 is truncated: MP4"):
        frame_times(str(path))


def test_fewer_frames_than_the_header_says(tmp_path):
    """The file is whole, and its header is of a longer one."""
    path = written(tmp_path / "a.avi", "MJPG", 30)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, 48, 90)  # dwTotalFrames
    struct.pack_into("<I", raw, raw.find(b"strh") + 8 + 32, 90)  # dwLength
    path.write_bytes(raw)
    with pytest.raises(DecodeError, match=r"90 frames by its header, but 30 frames can be decoded"):
        frame_times(str(path))


def test_one_frame_less_is_what_headers_are_wrong_about(tmp_path):
    path = written(tmp_path / "a.avi", "MJPG", 30)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, 48, 31)
    struct.pack_into("<I", raw, raw.find(b"strh") + 8 + 32, 31)
    path.write_bytes(raw)
    assert len(frame_times(str(path))) == 30


def test_what_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(DecodeError, match=r"a\.mp4 has no frames that OpenCV can read"):
        frame_times(str(path))
    with pytest.raises(FileNotFoundError):
        frame_times(str(tmp_path / "none.mp4"))


@pytest.mark.parametrize(
    ("head", "name", "keeps_times"),
    [
        (b"RIFF\0\0\0\0AVI ", "AVI", True),
        (b"\0\0\0\x1cftypisom", "MP4", True),
        (b"\x1aE\xdf\xa3", "Matroska", True),
        (b"\0\0\1\xba!\0", "an MPEG program stream", False),
        (b"\0\0\1\xb3", "an MPEG video stream", False),
        (b"G@\x11\x10", "an MPEG stream", False),
        (b"", "a stream", False),
    ],
)
def test_containers(head, name, keeps_times):
    found = container_of(head)
    assert (found.name, found.keeps_times) == (name, keeps_times)
