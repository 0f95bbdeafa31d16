"""A loader over frames of video files, each found exactly."""

from __future__ import annotations

import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm.auto import tqdm

from kloaders.core.checks import checked_dtype
from kloaders.core.per_thread import PerThread
from kloaders.core.structure import flatten, map_structure
from kloaders.core.threads import usable_cores
from kloaders.formats import sidecar_index
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import OpenFile
from kloaders.formats.options import INTERPOLATIONS, ImageOptions
from kloaders.formats.sidecar_index import Index
from kloaders.loaders.sequence import Options, SequenceLoader, _count, check_names
from kloaders.loaders.tfrecords import files_of
from kloaders.sources.columns import Column, columns_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["VideoSequenceLoader"]

Array = np.ndarray[Any, Any]

# Files that a thread holds open: a decoder is some megabytes.
_OPEN_FILES = 2
# So many frames ahead are decoded and dropped rather than sought: a seek begins at a keyframe anyway.
_SKIP = 16
# Where the container leads to another frame than was asked for, this many frames earlier are tried.
_BACK = (0, 32, 256)


class VideoSequenceLoader(SequenceLoader):
    """Batches of clips of video files, in any order.

    A sample is `clip` frames of one file, decoded by OpenCV. The frames of each file are counted
    once, by decoding it, and their times kept beside it, as `.NAME.frames.index`: headers of videos
    are often wrong about both. After each seek the time tells whether it led to the frame wanted.

    Only keyframes can be decoded by themselves: a frame costs all that lie between it and the
    keyframe before, 125 on average for the usual 250 between two. Encode with a keyframe every 10 to
    30 frames for training (`ffmpeg -g 15`), take long clips, or decode once with `write_pack`.

    Args:
        files: a path, a pattern such as `videos/*.mp4`, or a list of these. Files of a pattern are
            sorted by name.
        labels: one for each file, which all of its clips have: numbers, one-hot rows, or a tuple or
            dict of these. None for none. For a label a clip, override `load_sample(index)`;
            `self.where(index)` gives file and frame.
        batch_size: samples a batch.
        clip: frames a sample, uint8 of shape (clip, height, width, 3). None: one, without that axis.
        step: take every step-th frame of the file into a clip.
        stride: frames from the beginning of one clip to that of the next; by default clip * step,
            so that no frame is in two. What is left at the end of a file and fills no clip is left
            out.
        size: (height, width) to which frames are resized; None keeps them as they are.
        interpolation, channels: see `PathSequenceLoader`; channels is 3 or 1.
        index_folder: where to keep indexes; None: beside the files, or in a cache folder of the
            user's where that is not allowed.
        **options: see `SequenceLoader`.

    Raises:
        FileNotFoundError: a file does not exist, or none matches a pattern.
        DecodeError: OpenCV finds no frames in a file.
        ValueError: no file has as many frames as a clip.

    A decoder is opened by each thread for the file that it reads.
    """

    def __init__(
        self,
        files: Any,
        labels: Any = None,
        batch_size: int = 8,
        *,
        clip: int | None = 16,
        step: int = 1,
        stride: int | None = None,
        size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
        channels: int = 3,
        index_folder: str | os.PathLike[str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        check_names(
            self,
            options,
            (*Options.__annotations__, *(VideoSequenceLoader.__init__.__kwdefaults__ or {})),
        )
        if channels not in (1, 3):
            raise ValueError(f"channels={channels!r} of a video: choose 3 (RGB) or 1 (grey).")
        self.image_options = ImageOptions(
            size=size,
            interpolation=interpolation,
            channels=channels,
            dtype=checked_dtype(options.get("dtype")),
        )
        self.clip = None if clip is None else _count(clip, "clip", 1)
        self.step = _count(step, "step", 1)
        taken = (self.clip or 1) * self.step
        self.stride = taken if stride is None else _count(stride, "stride", 1)
        #: The files, in the order of their samples.
        self.files = files_of(files, "video files", "videos/*.mp4")
        folder = None if index_folder is None else os.fspath(index_folder)
        with (
            ThreadPoolExecutor(usable_cores(), "kloaders-index") as threads,
            tqdm(total=len(self.files), unit=" files", desc="frames", delay=1) as bar,
        ):
            self._times = []
            for times in threads.map(lambda path: _times_of(path, folder), self.files):
                self._times.append(times)
                bar.update(1)
        span = taken - self.step + 1  # from the first frame of a clip to its last
        counts = [max(0, (len(times) - span) // self.stride + 1) for times in self._times]
        if not sum(counts):
            longest = max(map(len, self._times))
            raise ValueError(
                f"a clip spans {span} frames, and the longest of {len(self.files)} files has "
                f"{longest}: lower clip or step."
            )
        self._firsts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._labels: Any = None
        if labels is not None:
            self._labels = columns_of(labels, "labels")
            for column in flatten(self._labels):
                if len(column) != len(self.files):
                    raise ValueError(
                        f"labels has {len(column)} values for {len(self.files)} files, expected "
                        "one a file."
                    )
        self._open: PerThread[_Videos] = PerThread(_Videos)
        super().__init__(int(self._firsts[-1]), batch_size, **options)

    def where(self, index: int) -> tuple[int, int]:
        """The file of a clip, by its number in `files`, and the clip's first frame there."""
        file = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return file, (index - int(self._firsts[file])) * self.stride

    def load_sample(self, index: int) -> Any:
        """One clip, and the label of its file. Override it for labels of another kind."""
        file, first = self.where(index)
        frames = [
            self._finished(frame)
            for frame in self._open().read(
                self.files[file], self._times[file], first, self.clip or 1, self.step
            )
        ]
        x = frames[0] if self.clip is None else np.stack(frames)
        if self._labels is None:
            return x

        def label(column: Column) -> Array:
            return column.read(file)

        return x, map_structure(label, self._labels)

    def _finished(self, frame: Array) -> Array:
        options = self.image_options
        if options.channels == 1:
            frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        else:
            frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        if options.size is not None:
            height, width = options.size
            frame = cv2.resize(
                frame, (width, height), interpolation=INTERPOLATIONS[options.interpolation]
            )
        return frame[..., None] if frame.ndim == 2 else frame

    def _overrides(self, hook: str) -> bool:
        return getattr(type(self), hook) is not getattr(VideoSequenceLoader, hook)

    def _name(self, index: int) -> str:
        file, first = self.where(index)
        return f"{self.files[file]}, frame {first}"

    def _release(self) -> None:
        super()._release()
        self._open = PerThread(_Videos)


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
            raise DecodeError(f"{path} is no video that OpenCV can read, or is damaged.")
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
        # Times that several frames share tell nothing.
        alone = np.count_nonzero(times[max(0, first - 1) : first + 2] == times[first]) == 1
        for back in _BACK if alone else ():
            start = max(0, first - back)
            self.capture.set(cv2.CAP_PROP_POS_FRAMES, start)
            # Wherever that led, the time of a frame says which one it is.
            while self.capture.grab():
                at = _time(self.capture)
                if at == times[first]:
                    self.next = first + 1
                    return
                if at > times[first]:
                    break
            if start == 0:
                break
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


def _time(capture: Any) -> int:
    """When the frame just grabbed is shown, in microseconds."""
    milliseconds: float = capture.get(cv2.CAP_PROP_POS_MSEC)
    return round(milliseconds * 1000)


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
    capture = cv2.VideoCapture(path)
    times = []
    while capture.grab():
        times.append(_time(capture))
    if not times:
        raise DecodeError(
            f"{path} has no frames that OpenCV can read: it is damaged, no video, or of a codec that "
            "this build of OpenCV lacks. Convert it: ffmpeg -i IN -c:v libx264 OUT.mp4."
        )
    # An index of rising numbers that begin with 0: times may begin there as well.
    shown = np.maximum.accumulate(np.array(times, np.int64))
    offsets = np.concatenate([[0], shown + 1]).astype(np.uint64)
    sidecar_index.save(Index(offsets, "", status.st_size, status.st_mtime_ns, ends), places)
    return shown


# A year, in microseconds.
_LATEST = 366 * 24 * 3600 * 10**6
