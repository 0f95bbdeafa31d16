"""A loader of frames of video files, with exact seeking."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kloaders.core.checks import check_names, checked_count, checked_dtype
from kloaders.core.options import Options, shows_options
from kloaders.core.structure import flatten
from kloaders.formats.options import ImageOptions, checked_size
from kloaders.loaders.sequence import SequenceLoader
from kloaders.places.urls import local_path
from kloaders.sources.given_columns import columns_of
from kloaders.sources.given_files import files_of
from kloaders.sources.hooks import default_hook
from kloaders.sources.video import VideoSource

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["VideoSequenceLoader"]


class VideoSequenceLoader(SequenceLoader):
    """Batches of clips of video files, in any order.

    A sample is `clip` frames of one file, decoded by OpenCV. On first use each file is decoded once to
    count its frames and to store their times in `.NAME.frames.index` next to it, because the headers of
    videos are often wrong about both. The times show whether a seek reached the right frame. In MPEG
    program, transport and video streams it does not; such files are decoded from the beginning, with
    a warning.

    Only keyframes can be decoded directly: reading a frame decodes all frames since the last keyframe, 125
    on average for the usual interval of 250. For training, encode with a keyframe every 10 to 30 frames
    (`ffmpeg -g 15`), use long clips, or decode once with `write_pack`.

    Args:
        files: a path, a pattern such as `videos/*.mp4`, or a list of these. Files of a pattern are
            sorted by name.
        labels: one for each file, shared by all of its clips: numbers, one-hot rows, or a tuple or
            dict of these. None for none. For one label per clip, override `load_sample(index)`;
            `self.where(index)` gives file and frame.
        batch_size: samples per batch.
        clip: frames per sample, uint8 of shape (clip, height, width, 3). None: one, without that axis.
        step: use every step-th frame of the file.
        stride: frames between the starts of two clips; by default clip * step, so that clips do not
            overlap. Frames at the end of a file that do not fill a clip are left out.
        size: (height, width), or one number for both, to which frames are resized; None keeps their size.
        interpolation, channels: see `PathSequenceLoader`; channels is 3 or 1.
        index_folder: folder for indexes; None: next to the files, or in the user's cache folder if
            that is not writable.
        **options: see `SequenceLoader`.

    Raises:
        FileNotFoundError: a file does not exist, or none matches a pattern.
        DecodeError: OpenCV finds no frames in a file, it is cut off, or it has fewer frames than its
            header says.
        ValueError: no file is as long as a clip.

    Each thread opens a decoder for the file that it reads.
    """

    @shows_options(Options)
    def __init__(
        self,
        files: Any,
        labels: Any = None,
        batch_size: int = 8,
        *,
        clip: int | None = 16,
        step: int = 1,
        stride: int | None = None,
        size: tuple[int, int] | int | None = None,
        interpolation: str = "auto",
        channels: int = 3,
        index_folder: str | os.PathLike[str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        known = (*Options.__annotations__, *(VideoSequenceLoader.__init__.__kwdefaults__ or {}))
        check_names(type(self).__name__, options, known)
        if channels not in (1, 3):
            raise ValueError(f"channels={channels!r:.80} of a video: choose 3 (RGB) or 1 (gray).")
        self.image_options = ImageOptions(
            size=checked_size(size),
            interpolation=interpolation,
            channels=channels,
            dtype=checked_dtype(options.get("dtype")),
        )
        self.clip = None if clip is None else checked_count(clip, "clip", 1)
        self.step = checked_count(step, "step", 1)
        every = None if stride is None else checked_count(stride, "stride", 1)
        #: The files, in the order of their samples.
        self.files = [
            local_path(path, "files") for path in files_of(files, "video files", "videos/*.mp4")
        ]
        columns = None if labels is None else columns_of(labels, "labels")
        for column in () if columns is None else flatten(columns):
            if len(column) != len(self.files):
                raise ValueError(
                    f"labels has {len(column)} values for {len(self.files)} files, expected "
                    "one per file."
                )
        folder = None if index_folder is None else local_path(index_folder, "index_folder")
        self._videos = VideoSource(
            self.files, columns, self.clip, self.step, every, self.image_options, folder
        )
        self.stride = self._videos.stride
        self._begin(self._videos, batch_size, options)

    def where(self, index: int) -> tuple[int, int]:
        """The number of a clip's file in `files`, and the clip's first frame in that file."""
        return self._videos.where(index)

    @default_hook
    def load_sample(self, index: int) -> Any:
        """One clip, and the label of its file. Override it for other labels."""
        return self._videos.read(index)
