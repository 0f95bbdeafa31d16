"""Samples that are clips of video files. Seeking is exact to the frame."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

import cv2
import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.messages import warn
from kloaders.core.per_thread import PerThread
from kloaders.core.progress import Progress
from kloaders.core.structure import Structure, map_structure
from kloaders.core.threads import ThreadPool, usable_cores
from kloaders.formats import sidecar_index
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import OpenFile
from kloaders.formats.image_resize import resized
from kloaders.formats.options import ImageOptions
from kloaders.formats.sidecar_index import Index
from kloaders.formats.videos import container_of, frame_times, time_of
from kloaders.sources.columns import Column
from kloaders.sources.source import Source

__all__ = ["VideoSource"]

# The maximum number of files that a thread keeps open: a decoder takes some megabytes.
_OPEN_FILES = 2
# Up to this many frames are decoded and dropped instead of seeking, which starts at a keyframe anyway.
_SKIP = 16
# If seeking leads to a wrong frame, try this many frames earlier.
_BACK = (0, 32, 256)


class VideoSource(Source):
    """Clips of video files.

    Args:
        files: the paths of the files.
        labels: columns with one value for each file, nested; None for none.
        clip: frames per sample; None: a single frame, without the axis of frames.
        step: take every step-th frame.
        stride: frames between the starts of two clips; None: the length of a clip.
        options: size, interpolation and channels of frames.
        folder: the folder for indexes; None: next to the files.

    Raises:
        DecodeError: OpenCV finds no frames in a file, or fewer than its header says.
        ValueError: no file is as long as a clip.
    """

    def __init__(
        self,
        files: list[str],
        labels: Structure | None,
        clip: int | None,
        step: int,
        stride: int | None,
        options: ImageOptions,
        folder: str | None,
    ) -> None:
        self.files, self.label_columns = files, labels
        self.clip, self.step, self.options = clip, step, options
        taken = (clip or 1) * step
        self.stride = taken if stride is None else stride
        with (
            ThreadPool(usable_cores(), "kloaders-index") as threads,
            Progress(total=len(files), unit=" files", desc="frames", delay=1) as bar,
        ):
            self._times = []
            for times in threads.map(lambda path: _times_of(path, folder), files):
                self._times.append(times)
                bar.update(1)
        span = taken - step + 1  # from the first frame of a clip to the last
        counts = [max(0, (len(times) - span) // self.stride + 1) for times in self._times]
        if not sum(counts):
            longest = max(map(len, self._times))
            raise ValueError(
                f"a clip spans {span} frames, but the longest of {len(files)} files has "
                f"{longest}: lower clip or step."
            )
        self._firsts: Indices = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._open: PerThread[_Videos] = PerThread(_Videos)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def where(self, index: int) -> tuple[int, int]:
        """The number of a clip's file in `files`, and the clip's first frame in that file."""
        file = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return file, (index - int(self._firsts[file])) * self.stride

    def read(self, index: int) -> Any:
        file, first = self.where(index)
        frames = [
            self._finished(frame)
            for frame in self._open().read(
                self.files[file], self._times[file], first, self.clip or 1, self.step
            )
        ]
        x = frames[0] if self.clip is None else np.stack(frames)
        if self.options.dtype is not None:
            x = x.astype(self.options.dtype, copy=False)
        if self.label_columns is None:
            return x

        def label(column: Column) -> Array:
            return column.read(file)

        return x, map_structure(label, self.label_columns)

    def name(self, index: int) -> str:
        file, first = self.where(index)
        return f"{self.files[file]}, frame {first}"

    def close(self) -> None:
        self._open = PerThread(_Videos)

    def _finished(self, frame: Array) -> Array:
        options = self.options
        if options.channels == 1:
            frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        else:
            frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        if options.size is not None and frame.shape[:2] != options.size:
            frame = resized(frame, options.size, options, None, "a frame")
        return frame[..., None] if frame.ndim == 2 else frame


class _Videos:
    """The decoders of one thread."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Video] = OrderedDict()

    def read(self, path: str, times: Array, first: int, count: int, step: int) -> list[Array]:
        """Read `count` frames of a file, every step-th, in BGR."""
        video = self._open.pop(path, None) or _Video(path)
        try:
            frames = video.read(times, first, count, step)
        except DecodeError:
            frames = _Video(path).read(
                times, first, count, step
            )  # the old decoder's state may have been at fault
        self._open[path] = video
        while len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)
        return frames


class _Video:
    """A decoder, and the number of the frame that it returns next."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.capture = cv2.VideoCapture(path)
        if not self.capture.isOpened():
            os.stat(path)  # raises OSError if the file is missing, rather than damaged
            raise DecodeError(f"{path} is not a video that OpenCV can read, or is damaged.")
        self.container = container_of(OpenFile(path).read(12, 0))
        self.next = 0

    def read(self, times: Array, first: int, count: int, step: int) -> list[Array]:
        self._go_to(times, first)
        frames = []
        for k in range(count):
            if k:
                for _ in range(step - 1):
                    self._grab(times)
                self._grab(times)
            found, frame = self.capture.retrieve()
            if not found:
                raise self._error(first + k * step)
            frames.append(frame)
        return frames

    def _go_to(self, times: Array, first: int) -> None:
        """Grab frame `first`."""
        ahead = first - self.next
        if 0 <= ahead <= _SKIP:
            for _ in range(ahead + 1):
                self._grab(times)
            return
        # A time shared by several frames identifies none, and some containers guess times after a seek.
        alone = (
            self.container.keeps_times
            and np.count_nonzero(times[max(0, first - 1) : first + 2] == times[first]) == 1
        )
        for back in _BACK if alone else ():
            start = max(0, first - back)
            self.capture.set(cv2.CAP_PROP_POS_FRAMES, start)
            # Wherever the seek led, a frame's time shows which frame it is.
            while self.capture.grab():
                at = time_of(self.capture)
                if at == times[first]:
                    self.next = first + 1
                    return
                if at > times[first]:
                    break
            if start == 0:
                break
        if not self.container.keeps_times:
            warn(
                f"{self.path} is {self.container.name}, in which finding a frame requires decoding all "
                "frames before it: convert it to another container, ffmpeg -i IN -c copy OUT.mp4.",
                once=f"no seeking in {self.path}",
            )
        self.capture = cv2.VideoCapture(self.path)
        self.next = 0
        for _ in range(first + 1):
            self._grab(times)

    def _grab(self, times: Array) -> None:
        if not self.capture.grab():
            raise self._error(self.next)
        self.next += 1

    def _error(self, frame: int) -> DecodeError:
        number, self.next = self.next, 1 << 62  # the decoder's position is now unknown
        return DecodeError(f"{self.path}: frame {max(frame, number)} cannot be decoded.")


def _times_of(path: str, folder: str | None) -> Array:
    """The presentation time of each frame in microseconds, from an index or by decoding the file."""
    file = OpenFile(path)
    status = os.fstat(file.number)
    places = sidecar_index.places(f"{path}.frames", folder)
    ends = sidecar_index.digest_of_ends(file, status.st_size)
    for place in places:
        found = sidecar_index.load(place, status.st_size, status.st_mtime_ns, ends, _LATEST)
        if found is not None:
            return found.offsets[1:].astype(np.int64) - 1
    shown = frame_times(path)
    # An index has ascending numbers that begin with 0. Add 1, because times may also begin with 0.
    offsets = np.concatenate([[0], shown + 1]).astype(np.uint64)
    sidecar_index.save(Index(offsets, "", status.st_size, status.st_mtime_ns, ends), places)
    return shown


# About a year, in microseconds.
_LATEST = 366 * 24 * 3600 * 10**6
