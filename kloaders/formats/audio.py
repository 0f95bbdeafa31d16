"""Decodes sound files to arrays of frames and channels, with the rate and length that a model needs."""

from __future__ import annotations

import importlib
import io
import math
from dataclasses import dataclass

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.checks import checked_count, checked_flag
from kloaders.formats.errors import DecodeError

__all__ = ["Audio"]


@dataclass(frozen=True)
class Audio:
    """A decoder of sound files for `decode=`: .wav, .flac, and other formats of libsndfile.

    `kl.from_directory("speech", decode=kl.Audio(rate=16000, mono=True, length=16000))` loads the files
    with these suffixes. Needs soundfile: `pip install "kloaders[audio]"`.

    Args:
        rate: frames per second; files with another rate are resampled (`scipy.signal.resample_poly`,
            which filters out frequencies that the lower rate cannot represent). None: as stored.
        mono: average the channels. Otherwise they are kept, and all files of a batch need the same
            number.
        length: frames; longer files are cut at the end, shorter ones padded with zeros. None: each
            file's own length, for `bucket_by_length` or a batch size of 1.

    Called with the bytes of a file, it returns float32 of shape (frames, channels), from -1 to 1.
    Threads may share it, and it can be pickled.

    When called, it raises:
        DecodeError: the bytes are not a sound file, are damaged, or contain no frame.
        ImportError: soundfile is not installed.
    """

    rate: int | None = None
    mono: bool = False
    length: int | None = None

    #: The suffixes that from_directory loads with this decoder.
    suffixes = (".wav", ".flac")

    def __post_init__(self) -> None:
        for name in ("rate", "length"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, checked_count(value, name, 1))
        object.__setattr__(self, "mono", checked_flag(self.mono, "mono"))

    def __call__(self, raw: bytes) -> Array:
        try:
            soundfile = importlib.import_module("soundfile")
        except ImportError:
            raise ImportError(
                'sound files need soundfile, which is not installed: pip install "kloaders[audio]".'
            ) from None
        try:
            found, rate = soundfile.read(io.BytesIO(raw), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise DecodeError(
                f"it is not a sound file, or damaged ({error}); it begins with {raw[:12]!r:.80}. Copy or "
                "download it again, or leave it out."
            ) from None
        if not len(found):
            raise DecodeError("it is a sound file without frames. Leave it out.")
        if self.mono:
            found = found.mean(axis=1, keepdims=True)
        if self.rate is not None and self.rate != rate:
            found = self._resampled(found, int(rate))
        if self.length is not None and len(found) != self.length:
            kept = found[: self.length]
            found = np.zeros((self.length, found.shape[1]), np.float32)
            found[: len(kept)] = kept
        return np.ascontiguousarray(found, np.float32)

    def _resampled(self, found: Array, rate: int) -> Array:
        resample_poly = importlib.import_module("scipy.signal").resample_poly  # slow to import
        assert self.rate is not None
        common = math.gcd(self.rate, rate)
        needed = None if self.length is None else -(-self.length * rate // self.rate)
        # Frames that are cut off later need not be computed; the filter reads a little further.
        part = found if needed is None else found[: needed + 20 * max(1, rate // self.rate)]
        made: Array = resample_poly(part, self.rate // common, rate // common, axis=0)
        return made
