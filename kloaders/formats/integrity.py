"""Checks the content of one file, as far as its format allows.

Decoders tolerate damage: half a JPEG becomes an image whose lower part is gray. Therefore the
structure is visited to its end first, and then the image is decoded as a loader would decode it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import zipfile
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.errors import DecodeError, UnsupportedError
from kloaders.formats.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, suffix_of
from kloaders.formats.image_headers import image_shape
from kloaders.formats.image_structure import damage_of, kind_of, unfinished
from kloaders.formats.images import decode_image, each_page
from kloaders.formats.jpeg_structure import walk_jpeg
from kloaders.formats.npy_layout import (
    HEADER_LIMIT,
    layout_of,
)
from kloaders.formats.npz import ZIP_ERRORS, check_member
from kloaders.formats.options import ImageOptions
from kloaders.formats.tiff_header import page_offsets, tiff_facts
from kloaders.formats.tiff_runs import strip_damage
from kloaders.formats.videos import frame_times
from kloaders.places import access
from kloaders.places.urls import is_url

__all__ = [
    "Checked",
    "check_content",
    "check_file",
    "check_video",
    "is_image",
]


# OpenCV accepts no more bytes, and no image is this large.
_LARGEST = 2**31 - 1
_BLOCK = 2**20


@dataclass
class Checked:
    """The result for one file, or for one image in a record.

    problems: pairs of kind and message; empty if there are none. digest: 16 bytes that identify the
    content; empty if it could not be read. form: what should be the same in all files: ("picture", size,
    channels and dtype) or ("array", shape and dtype); empty if unknown.
    """

    problems: list[tuple[str, str]] = field(default_factory=list)
    digest: bytes = b""
    form: tuple[str, ...] = ()
    size: int = 0

    def add(self, kind: str, message: str) -> None:
        """Add a problem."""
        self.problems.append((kind, message))

    @staticmethod
    def digest_of(content: bytes) -> bytes:
        """A digest of content in memory."""
        return hashlib.blake2b(content, digest_size=16).digest()


_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WebP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "npy": (".npy",),
    "npz": (".npz",),
}


def check_file(path: str, max_pixels: int = ImageOptions.max_pixels) -> Checked:
    """Read an image or an array completely, and return its problems.

    Takes memory for one image, or for a block of an array. No content raises an error. A remote object
    is first fetched to a temporary file.
    """
    if is_url(path):
        return _check_object(path, max_pixels)
    found = Checked()
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would block
            found.add("unreadable", f"{path} is not a file, but a folder, a pipe or a device")
            return found
        with open(path, "rb") as file:
            found.size = os.fstat(file.fileno()).st_size
            if not found.size:
                found.add("empty", f"{path} is empty (0 bytes)")
                return found
            kind = kind_of(file.read(12))
            suffix = suffix_of(path)
            by_name = next((k for k, known in _SUFFIXES.items() if suffix in known), None)
            if kind is not None and by_name is not None and kind != by_name:
                found.add("misnamed", _misnamed(path, kind, suffix))
            file.seek(0)
            if (kind or by_name) in ("npy", "npz"):
                found.digest = _digest_of(file)
                _check_array(path, file, found, max_pixels)
            elif found.size > _LARGEST:
                found.add(
                    "too many pixels",
                    f"{path} has {found.size:,} bytes, more than OpenCV accepts for an image",
                )
            else:
                _check_picture(file.read(), path, found, max_pixels)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        found.add("unreadable", f"{path} cannot be read: {reason}")
    except MemoryError:
        found.add("too many pixels", f"{path} takes more memory to read than is available")
    return found


def check_video(path: str) -> Checked:
    """`check_file` for a video: decode all frames, and compare their number with the header."""
    found = Checked()
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            found.add("unreadable", f"{path} is not a file, but a folder, a pipe or a device")
            return found
        with open(path, "rb") as file:
            found.size = os.fstat(file.fileno()).st_size
            if not found.size:
                found.add("empty", f"{path} is empty (0 bytes)")
                return found
            found.digest = _digest_of(file)
        frame_times(path)
    except OSError as error:
        found.add("unreadable", f"{path} cannot be read: {error.strerror or error}")
    except DecodeError as error:
        found.add("truncated" if " is truncated" in str(error) else "broken", str(error))
    return found


def _check_object(url: str, max_pixels: int) -> Checked:
    """`check_file` for the object at a URL."""
    try:
        content = access.read(url)
    except OSError as error:
        return Checked([("unreadable", f"{url} cannot be read: {error}")])
    with tempfile.TemporaryDirectory(prefix="kloaders-") as folder:
        path = os.path.join(folder, f"object{suffix_of(url)}")
        with open(path, "wb") as file:
            file.write(content)
        found = check_file(path, max_pixels)
    found.problems = [(kind, said.replace(path, url)) for kind, said in found.problems]
    return found


def check_content(raw: bytes, name: str, max_pixels: int = ImageOptions.max_pixels) -> Checked:
    """`check_file` for an image in memory, such as one from a record."""
    found = Checked(size=len(raw))
    _check_picture(raw, name, found, max_pixels)
    return found


def is_image(value: bytes) -> bool:
    """Whether bytes are an image, judged by their first bytes."""
    kind = kind_of(value[:12])
    if kind == "BMP":  # two letters are not enough evidence
        return len(value) > 26 and value[14] in (12, 40, 52, 56, 108, 124) and not any(value[6:10])
    return kind not in (None, "npy", "npz")


def _misnamed(path: str, kind: str, suffix: str) -> str:
    right = _SUFFIXES[kind][0]
    both = {suffix, right} <= IMAGE_SUFFIXES or {suffix, right} <= ARRAY_SUFFIXES
    reads = "kloaders reads it anyway, other programs may not" if both else "it does not load"
    return f"{path} contains a {kind} but is named {suffix} ({reads}): rename it to {right}"


def _digest_of(file: IO[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    while block := file.read(_BLOCK):
        digest.update(block)
    file.seek(0)
    return digest.digest()


def _check_picture(raw: bytes, name: str, found: Checked, max_pixels: int) -> None:
    found.digest = Checked.digest_of(raw)
    sides = image_shape(raw)
    if sides is not None and sides[0] * sides[1] > max_pixels:
        found.add(
            "too many pixels",
            f"{name} is {sides[0]} x {sides[1]} by its header, {sides[0] * sides[1]:,} pixels, "
            f"but max_pixels allows {max_pixels:,}",
        )
        return
    missing = unfinished(raw)
    if missing is not None:
        mend = "; only the marker is missing: append the bytes ff d9" if lacks_end(raw) else ""
        found.add("truncated", f"{name} is truncated: {missing}{mend}")
        return
    options = ImageOptions(channels=None, max_pixels=max_pixels)
    try:
        pages = each_page(raw, options, name)
        picture = next(pages)
        count = 1 + sum(1 for _ in pages)
        _check_strips(raw, name)
        if raw.startswith(b"\xff\xd8") and data_end_early(raw, picture, options):
            found.add("truncated", f"{name} is truncated: its image data end before the image does")
    except DecodeError as error:
        said = str(error)
        damage = damage_of(raw)
        kind = "truncated" if " is truncated" in said or " in its header" in said else "broken"
        if isinstance(error, UnsupportedError) and not damage:
            kind = "unsupported"
        found.add(kind, f"{name} is broken: {damage}" if damage else said)
        return
    damage = damage_of(raw)
    if damage is not None:
        found.add("broken", f"{name} is broken: {damage}")
    height, width, channels = picture.shape
    plural = "s" if channels > 1 else ""
    several = f"{count} pages of " if count > 1 else ""
    found.form = (
        "picture",
        f"{several}{height} x {width}",
        f"{picture.dtype} of {channels} channel{plural}",
    )


def _check_strips(raw: bytes, name: str) -> None:
    """Raise DecodeError if a strip of a TIFF is known to be damaged, although it decodes."""
    if kind_of(raw[:12]) != "TIFF":
        return
    for at in page_offsets(raw):
        page = tiff_facts(raw, at)
        damage = None if page is None else strip_damage(raw, page)
        if damage is not None:
            raise DecodeError(f"{name} is broken: {damage}")


# Bytes that are data in any of the usual code tables, and not a marker.
_NOISE = np.random.default_rng(20).integers(1, 255, 256, np.uint8).tobytes()


def data_end_early(raw: bytes, picture: Array, options: ImageOptions) -> bool:
    """Whether a JPEG's coded data stop before the last block, even if there is an end marker.

    A decoder fills the missing part with zeros. If data are missing, bytes inserted after the data
    change the image; if the data are complete, the decoder ignores these bytes.
    """
    _, end = walk_jpeg(raw)
    more = raw[:end] + _NOISE + raw[end:]
    try:
        return not np.array_equal(picture, decode_image(more, options))
    except DecodeError:  # a complete image is not rejected because of inserted bytes
        return True


def lacks_end(raw: bytes) -> bool:
    """Whether a JPEG lacks nothing but its end marker."""
    ended = raw.removesuffix(b"\xff") + b"\xff\xd9"
    if not raw.startswith(b"\xff\xd8") or unfinished(ended) is not None:
        return False
    options = ImageOptions(channels=None)
    try:
        return not data_end_early(ended, decode_image(ended, options), options)
    except DecodeError:
        return False


def _check_array(path: str, file: IO[bytes], found: Checked, max_pixels: int) -> None:
    try:
        if file.read(2) == b"PK":
            _check_npz(path, found, max_pixels)
        else:
            file.seek(0)
            layout = layout_of(file.read(HEADER_LIMIT), found.size, path)
            found.form = ("array", f"{layout.native} of shape {layout.shape}")
    except DecodeError as error:
        kind = "truncated" if " is truncated" in str(error) else "broken"
        found.add(kind, str(error))


def _check_npz(path: str, found: Checked, max_pixels: int) -> None:
    """Read all members to their ends, block by block, because zipfile compares checksums there."""
    forms = []
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if not members:
                found.add("empty", f"{path} is an archive without arrays")
            for member in members:
                check_member(member, found.size, path)
                if member.file_size > max(3 * max_pixels, 100 * member.compress_size):
                    found.add(
                        "too many pixels",
                        f"{path} contains {member.filename} of {member.file_size:,} bytes in "
                        f"{member.compress_size:,}",
                    )
                    return
                with archive.open(member) as stream:
                    head = stream.read(HEADER_LIMIT)
                    if member.filename.endswith(".npy"):
                        form = _form_in(head, member, path, len(members) > 1)
                        forms.append(f"{member.filename[:-4]}: {form}")
                    while stream.read(_BLOCK):
                        pass
    except DecodeError:
        raise
    except ZIP_ERRORS as error:
        # A zip archive's list of members is at its end.
        cut = isinstance(error, (EOFError, zipfile.BadZipFile)) and "CRC" not in str(error)
        end = found.size and b"PK\5\6" not in _tail(path)
        said = "truncated" if cut and end else "broken"
        found.add(said, f"{path} is {said}: a zip archive ({error})")
        return
    if forms:
        found.form = ("array", "; ".join(sorted(forms)))


def _form_in(head: bytes, member: zipfile.ZipInfo, path: str, several: bool) -> str:
    """Dtype and shape of an array in an archive."""
    try:
        layout = layout_of(head, member.file_size, path)
    except DecodeError as error:
        # A user's load_sample() may select one of several arrays, and others may hold strings.
        if several and ("expected plain numbers" in str(error) or "unpickled" in str(error)):
            return "no numbers"
        raise
    return f"{layout.native} of shape {layout.shape}"


def _tail(path: str) -> bytes:
    with open(path, "rb") as file:
        file.seek(-min(os.path.getsize(path), 2**16 + 22), os.SEEK_END)
        return file.read()
