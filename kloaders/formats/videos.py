"""Video files: their containers, whether they are truncated, and the times of all frames.

The frames of a sample are selected elsewhere.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import OpenFile

__all__ = ["VIDEO_SUFFIXES", "container_of", "frame_times", "time_of"]

#: The suffixes of files that count as videos when a folder is verified.
VIDEO_SUFFIXES = frozenset(
    {
        *(".3gp", ".asf", ".avi", ".flv", ".m1v", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4"),
        *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    }
)

# The maximum number of steps of a walk.
_STEPS = 10_000_000


class Container(NamedTuple):
    """The facts about a video file.

    Attributes:
        name: the name for messages.
        keeps_times: whether it stores the time of each frame, which identifies a frame after a seek.
            For other containers times are guessed after a seek, and may belong to another frame.
        counts: whether its header has the number of video frames, rather than the file's duration.
        unfinished: a function of the open file and its size that returns what is missing at the end;
            None if the container does not show this.
    """

    name: str
    keeps_times: bool = True
    counts: bool = False
    unfinished: Callable[[OpenFile, int], str | None] | None = None


def container_of(head: bytes) -> Container:
    """The container of a file, recognized by its first 12 bytes."""
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return Container("AVI", True, True, _avi)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return Container("MP4", True, True, _mp4)
    if head.startswith(b"\x1aE\xdf\xa3"):
        return Container("Matroska", True, False, _matroska)
    if head.startswith((b"FLV", b"0&\xb2u")):
        return Container("FLV" if head.startswith(b"FLV") else "WMV")
    known = {b"\0\0\1\xba": "an MPEG program stream", b"\0\0\1\xb3": "an MPEG video stream"}
    named = known.get(head[:4], "an MPEG stream" if head[:1] == b"G" else "a stream")
    return Container(named, False)


def time_of(capture: Any) -> int:
    """The presentation time, in microseconds, of the frame that was just grabbed."""
    milliseconds: float = capture.get(cv2.CAP_PROP_POS_MSEC)
    return round(milliseconds * 1000)


def frame_times(path: str) -> Array:
    """The presentation time of each frame in microseconds, ascending, found by decoding all frames.

    Raises:
        DecodeError: OpenCV finds no frames, the file is cut off, or has fewer frames than its
            header says.
        OSError: it cannot be read.
    """
    file = OpenFile(path)
    size = os.fstat(file.number).st_size
    container = container_of(file.read(12, 0))
    missing = None
    try:
        if container.unfinished is not None:
            missing = container.unfinished(file, size)
        elif size > _TAIL and not any(file.read(_TAIL, size - _TAIL)):
            missing = f"its last {_TAIL:,} bytes are zeros"
    except struct.error:
        missing = "its structure ends in the middle"
    capture = cv2.VideoCapture(path)
    claimed: float = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    rate: float = capture.get(cv2.CAP_PROP_FPS)
    times = []
    while capture.grab():
        times.append(time_of(capture))
    if not times and missing is None:
        os.stat(path)
        raise DecodeError(
            f"{path} has no frames that OpenCV can read: it is damaged, not a video, or needs a codec that "
            "this build of OpenCV lacks. Convert it: ffmpeg -i IN -c:v libx264 OUT.mp4."
        )
    found = np.maximum.accumulate(np.array(times, np.int64))
    if missing is None:
        missing = _too_short(found, claimed, rate, container, file, size)
    if missing is not None:
        raise DecodeError(
            f"{path} is truncated: {container.name}, {missing}, but {len(found):,} frames can be "
            "decoded. Copy or download it again, leave it out, or keep these frames: "
            "ffmpeg -i IN -c copy OUT."
        )
    return found


# A file without a structure that ends with this many zeros was truncated.
_TAIL = 4096


def _too_short(
    times: Array, claimed: float, rate: float, container: Container, file: OpenFile, size: int
) -> str | None:
    """What is missing, if the last frame is shown long before the end according to the header.

    Missing frames within the video are ignored, because recorders drop some. If a header has only
    the file's duration, including sound, it is an estimate of the video's.
    """
    if not 0 < claimed < 2**31 or not 0 < rate < 10_000:
        return None
    shown = max(len(times), int(times[-1]) * rate / 1e6 + 1)
    allowed = max(2.0, claimed / 100) if container.counts else max(2 * rate, claimed / 10)
    if claimed - shown <= allowed:
        return None
    if container.unfinished is _mp4 and _is_edited(file, size):  # some frames are not to be shown
        return None
    return f"{claimed:,.0f} frames by its header"


# ------------------------------------------------------------------------------------- structures


def _avi(file: OpenFile, size: int) -> str | None:
    """Visit RIFFs, lists and chunks."""
    at, ends = 0, [size]
    for _ in range(_STEPS):
        while len(ends) > 1 and at >= ends[-1]:
            ends.pop()
        if at + 8 > size:
            break
        kind, length = struct.unpack("<4sI", file.read(8, at))
        end = at + 8 + length
        if not length and kind == bytes(4):
            return _zeros(at, size) if len(ends) > 1 or at == 0 else None
        if kind == b"RIFF" and not length:  # the recording did not finish
            return f"its length was never written, after {size:,} bytes"
        if end > size:
            return _cut(end, size)
        lists = (b"AVI ", b"AVIX", b"movi", b"rec ")
        if kind in (b"RIFF", b"LIST") and file.read(4, at + 8) in lists:
            ends.append(end)
            at += 12
            continue
        at = end + length % 2
    return None


def _mp4(file: OpenFile, size: int) -> str | None:
    """Visit the outermost boxes."""
    at, found = 0, set()
    for _ in range(_STEPS):
        if at + 8 > size:
            break
        length, kind, head = *struct.unpack(">I4s", file.read(8, at)), 8
        if length == 1:
            (length,), head = struct.unpack(">Q", file.read(8, at + 8)), 16
        if kind == bytes(4):
            return None if b"moov" in found and b"mdat" in found else _zeros(at, size)
        found.add(kind)
        if length == 0:  # to the end of the file
            return None
        if length < head:
            return f"it has a box of {length} bytes at byte {at:,}"
        at += length
        if at > size:
            return _cut(at, size)
    return None


def _is_edited(file: OpenFile, size: int) -> bool:
    """Whether an MP4 has an edit list, which selects the frames to show."""
    at = 0
    while at + 8 <= size:
        length, kind = struct.unpack(">I4s", file.read(8, at))
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8, at + 8))
        if kind == b"moov" and length < 2**28:
            return _shows_part(file.read(length, at))
        if length < 8:
            break
        at += length
    return False


def _shows_part(moov: bytes) -> bool:
    place = moov.find(b"elst")
    while place >= 0:
        wide = moov[place + 4 : place + 5] == b"\1"
        (count,) = struct.unpack_from(">I", moov, place + 8)
        (begin,) = struct.unpack_from(
            *((">q", moov, place + 20) if wide else (">i", moov, place + 16))
        )
        if count > 1 or begin > 10_000:  # smaller values only reorder the first few frames
            return True
        place = moov.find(b"elst", place + 4)
    return False


_SEGMENT = 0x18538067


def _matroska(file: OpenFile, size: int) -> str | None:
    """Visit the outermost elements, and those of the segment."""
    at, end = 0, size
    for _ in range(_STEPS):
        if at + 2 > end:
            break
        head = file.read(12, at)
        if not head[0]:
            return _zeros(at, size)
        id_size = 9 - head[0].bit_length()
        if id_size > 4:
            return f"it has no element at byte {at:,}"
        number, length_size = int.from_bytes(head[:id_size], "big"), 9 - head[id_size].bit_length()
        if length_size > 8:
            return f"it has no element at byte {at:,}"
        mask = (1 << 7 * length_size) - 1
        length = int.from_bytes(head[id_size : id_size + length_size], "big") & mask
        at += id_size + length_size
        if length == mask:  # unknown length, as in a live stream
            return None
        if at + length > size:
            return _cut(at + length, size)
        if number == _SEGMENT:
            end = at + length
            continue
        at += length
    return None


def _cut(wanted: int, size: int) -> str:
    return f"{wanted:,} bytes by its structure, but {size:,} exist"


def _zeros(at: int, size: int) -> str:
    return f"with zeros in place of its data from byte {at:,} of {size:,} on"
