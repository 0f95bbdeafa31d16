"""Samples that are clips of video files, each frame found exactly."""

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

# Files that a thread holds open: a decoder is some megabytes.
_OPEN_FILES = 2
# Up to this many frames ahead are decoded and dropped instead of seeking, which starts at a keyframe anyway.
_SKIP = 16
# Where the container leads to another frame than was asked for, this many frames earlier are tried.
_BACK = (0, 32, 256)


class VideoSource(Source):
    """Clips of video files.

    Args:
        files: their paths.
        labels: columns of one value for each file, nested; None for none.
        clip: frames per sample; None: one, without that axis.
        step: take every step-th frame.
        stride: frames from the beginning of a clip to that of the next; None: as many as it spans.
        options: size, interpolation and channels of frames.
        folder: folder for indexes; None: next to the files.

    Raises:
        DecodeError: OpenCV finds no frames in a file, or fewer than its header says.
        ValueError: no file has as many frames as a clip.
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
        span = taken - step + 1  # from the first frame of a clip to its last
        counts = [max(0, (len(times) - span) // self.stride + 1) for times in self._times]
        if not sum(counts):
            longest = max(map(len, self._times))
            raise ValueError(
                f"a clip spans {span} frames, and the longest of {len(files)} files has "
                f"{longest}: lower clip or step."
            )
        self._firsts: Indices = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._open: PerThread[_Videos] = PerThread(_Videos)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def where(self, index: int) -> tuple[int, int]:
        """The file of a clip, by its number in `files`, and the clip's first frame there."""
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
    """Decoders of a thread."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Video] = OrderedDict()

    def read(self, path: str, times: Array, first: int, count: int, step: int) -> list[Array]:
        """`count` frames of a file, every step-th, BGR."""
        video = self._open.pop(path, None) or _Video(path)
        try:
            frames = video.read(times, first, count, step)
        except DecodeError:
            frames = _Video(path).read(
                times, first, count, step
            )  # its state may have been at fault
        self._open[path] = video
        while len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)
        return frames


class _Video:
    """A decoder and the frame that it gives next."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.capture = cv2.VideoCapture(path)
        if not self.capture.isOpened():
            os.stat(path)  # an OSError where it is not there, which is no fault of its content
            raise DecodeError(f"{path} is no video that OpenCV can read, or is damaged.")
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
        # Times that several frames share tell nothing, nor do those that are guessed after a seek.
        alone = (
            self.container.keeps_times
            and np.count_nonzero(times[max(0, first - 1) : first + 2] == times[first]) == 1
        )
        for back in _BACK if alone else ():
            start = max(0, first - back)
            self.capture.set(cv2.CAP_PROP_POS_FRAMES, start)
            # Wherever that led, the time of a frame says which one it is.
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
                f"{self.path} is {self.container.name}, in which a frame is only found by decoding "
                "all before it: put it into another container, ffmpeg -i IN -c copy OUT.mp4.",
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
        number, self.next = self.next, 1 << 62  # where the decoder stands is not known
        return DecodeError(f"{self.path}: frame {max(frame, number)} cannot be decoded.")


def _times_of(path: str, folder: str | None) -> Array:
    """When each frame is shown, in microseconds: read from an index, else found by decoding."""
    file = OpenFile(path)
    status = os.fstat(file.number)
    places = sidecar_index.places(f"{path}.frames", folder)
    ends = sidecar_index.digest_of_ends(file, status.st_size)
    for place in places:
        found = sidecar_index.load(place, status.st_size, status.st_mtime_ns, ends, _LATEST)
        if found is not None:
            return found.offsets[1:].astype(np.int64) - 1
    shown = frame_times(path)
    # An index of rising numbers that begin with 0: times may begin there as well.
    offsets = np.concatenate([[0], shown + 1]).astype(np.uint64)
    sidecar_index.save(Index(offsets, "", status.st_size, status.st_mtime_ns, ends), places)
    return shown


# A year, in microseconds.
_LATEST = 366 * 24 * 3600 * 10**6
