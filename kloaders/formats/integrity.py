"""What is wrong with the bytes of one file, as far as its format lets anybody tell. No folders.

Decoders forgive: half a JPEG becomes a picture that is grey below. Here the structure is walked to
its end first, and then the picture is decoded as a loader would.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from kloaders.formats import images as formats
from kloaders.formats.images import (
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    DecodeError,
    ImageOptions,
    suffix_of,
)

__all__ = ["Checked", "check_content", "check_file", "kind_of", "unfinished"]

Array = np.ndarray[Any, np.dtype[Any]]

# A walk takes so many steps at most: hostile files have millions of empty segments.
_STEPS = 100_000
# OpenCV cannot take more at a time, and no picture is as large.
_LARGEST = 2**31 - 1
_BLOCK = 2**20


@dataclass
class Checked:
    """What was found out about one file, or one picture in a record.

    problems: kind and message each; none if it is sound. digest: of the content, 16 bytes; empty
    if it could not be read. form: what is to be alike in all files: ("picture", sides, channels
    and type) or ("array", shape and type); empty if that is not known.
    """

    problems: list[tuple[str, str]] = field(default_factory=list)
    digest: bytes = b""
    form: tuple[str, ...] = ()
    size: int = 0

    def add(self, kind: str, message: str) -> None:
        """One problem more."""
        self.problems.append((kind, message))

    @staticmethod
    def digest_of(content: bytes) -> bytes:
        """Of content that is in memory."""
        return hashlib.blake2b(content, digest_size=16).digest()


# ------------------------------------------------------------------------------- kinds by content

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


def kind_of(head: bytes) -> str | None:
    """The kind of a file by its first bytes (12 are enough); None for one not known here."""
    if head.startswith(b"\xff\xd8"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK\3\4"):
        return "npz"
    return "BMP" if head.startswith(b"BM") else None


# ------------------------------------------------------------------------------------- whole files


def check_file(path: str, max_pixels: int = ImageOptions.max_pixels) -> Checked:
    """Read a picture or an array, all of it, and say what is wrong with it.

    Takes memory for one picture, and a block of an array. Does not raise for what is in the file.
    """
    found = Checked()
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for for ever
            found.add("unreadable", f"{path} is no file but a folder, a pipe or a device")
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
                    f"{path} has {found.size:,} bytes, more than OpenCV reads of a picture",
                )
            else:
                _check_picture(file.read(), path, found, max_pixels)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        found.add("unreadable", f"{path} cannot be read: {reason}")
    except MemoryError:
        found.add("too many pixels", f"{path} takes more memory to read than there is")
    return found


def check_content(raw: bytes, name: str, max_pixels: int = ImageOptions.max_pixels) -> Checked:
    """`check_file` for a picture that lies in memory, such as one from a record."""
    found = Checked(size=len(raw))
    _check_picture(raw, name, found, max_pixels)
    return found


def _misnamed(path: str, kind: str, suffix: str) -> str:
    right = _SUFFIXES[kind][0]
    both = {suffix, right} <= IMAGE_SUFFIXES or {suffix, right} <= ARRAY_SUFFIXES
    reads = "kloaders reads it all the same, other programs may not" if both else "it does not load"
    return f"{path} holds a {kind} and is named {suffix} ({reads}): rename it to {right}"


def _digest_of(file: IO[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    while block := file.read(_BLOCK):
        digest.update(block)
    file.seek(0)
    return digest.digest()


# ---------------------------------------------------------------------------------------- pictures


def _check_picture(raw: bytes, name: str, found: Checked, max_pixels: int) -> None:
    found.digest = Checked.digest_of(raw)
    sides = formats.image_shape(raw)
    if sides is not None and sides[0] * sides[1] > max_pixels:
        found.add(
            "too many pixels",
            f"{name} is {sides[0]} x {sides[1]} by its header, {sides[0] * sides[1]:,} pixels, "
            f"and max_pixels allows {max_pixels:,}",
        )
        return
    missing = unfinished(raw)
    if missing is not None:
        mend = "; only the marker is missing: append the bytes ff d9" if _lacks_end(raw) else ""
        found.add("truncated", f"{name} is truncated: {missing}{mend}")
        return
    options = ImageOptions(channels=None, max_pixels=max_pixels)
    try:
        picture = formats.decode_image(raw, options, None, name)
        if raw.startswith(b"\xff\xd8") and _data_end_early(raw, picture, options):
            found.add(
                "truncated", f"{name} is truncated: its picture data end before the picture does"
            )
    except DecodeError as error:
        said = str(error)
        damage = _damage(raw)
        kind = "truncated" if " is truncated" in said or " in its header" in said else "broken"
        found.add(kind, f"{name} is broken: {damage}" if damage else said)
        return
    damage = _damage(raw)
    if damage is not None:
        found.add("broken", f"{name} is broken: {damage}")
    height, width, channels = picture.shape
    plural = "s" if channels > 1 else ""
    found.form = (
        "picture",
        f"{height} x {width}",
        f"{picture.dtype} of {channels} channel{plural}",
    )


def unfinished(raw: bytes) -> str | None:
    """What a picture lacks at its end, if its structure ends too early; None if it does not.

    A kind not known here is taken to be whole. What follows the end is no concern: cameras append
    previews, and other programs their notes.

    >>> unfinished(b"GIF89a")
    'a GIF whose screen descriptor is cut off'
    """
    walks = {
        "JPEG": lambda raw: _jpeg(raw)[0],
        "PNG": _png,
        "GIF": _gif,
        "BMP": _bmp,
        "WebP": _webp,
        "TIFF": _tiff,
    }
    walk = walks.get(kind_of(raw[:12]) or "")
    if walk is None:
        return None
    try:
        return walk(raw)
    except (struct.error, IndexError, ValueError, OverflowError):  # ran over the end
        return f"its structure ends after {len(raw):,} bytes, in the middle"


# Within picture data a ff is followed by 00, or by the number of a restart (d0 ... d7).
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(raw: bytes) -> tuple[str | None, int]:
    """What is missing, and where the last scan's data end.

    Marker by marker to the end marker that is the picture's own.

    Those of thumbnails lie within segments, which are passed over by their length. At the end, all
    that the frame announces must have come: each component, in a progressive file each coefficient
    to its last bit, and each restart interval.
    """
    at, interval, data_end = 2, 0, 0
    frame: _Frame | None = None
    for _ in range(_STEPS):
        found = raw.find(b"\xff", at)
        if found < 0 or found + 2 > len(raw):
            break
        at, marker = found + 2, raw[found + 1]
        if marker == 0xFF:  # a fill byte
            at -= 1
            continue
        if marker == 0xD9:
            missing = "a JPEG without picture data" if frame is None else frame.missing()
            return missing, data_end
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            continue
        (length,) = struct.unpack_from(">H", raw, at)
        if at + length > len(raw):
            return f"a JPEG whose segment {marker:02x} of {length} bytes is cut off", 0
        if marker in _FRAMES and frame is None:
            frame = _Frame(raw, at, marker)
        elif marker == 0xDD:
            (interval,) = struct.unpack_from(">H", raw, at + 2)
        at += length
        if marker == 0xDA:
            end = _NEXT_MARKER.search(raw, at)
            if frame is not None:
                restarts = 0
                if interval:
                    stop = end.start() if end else len(raw)
                    restarts = sum(1 for _ in _RESTART.finditer(raw, at, stop))
                frame.scan(raw, at - length, interval, restarts)
            if end is None:
                break
            at = data_end = end.start()
    return f"a JPEG without end marker, after {len(raw):,} bytes", 0


class _Frame:
    """What a JPEG's frame announces, and which of it has come."""

    def __init__(self, raw: bytes, at: int, marker: int) -> None:
        self.height: int
        self.width: int
        _, self.height, self.width, count = struct.unpack_from(">BHHB", raw, at + 2)
        self.progressive: bool = marker in (0xC2, 0xC6, 0xCA, 0xCE)
        self.sampling: dict[int, tuple[int, int]] = {}
        for k in range(count):
            number, both, _ = struct.unpack_from(">BBB", raw, at + 8 + 3 * k)
            self.sampling[number] = both >> 4, both & 15
        # component -> for each coefficient how many of its lowest bits are still to come
        self.left = {number: [16] * (64 if self.progressive else 1) for number in self.sampling}
        self.short: str | None = None

    def scan(self, raw: bytes, at: int, interval: int, restarts: int) -> None:
        count = raw[at + 2]
        numbers = [raw[at + 3 + 2 * k] for k in range(count)]
        first, last, bits = struct.unpack_from(">BBB", raw, at + 3 + 2 * count)
        for number in numbers:
            for k in range(first, min(last, 63) + 1) if self.progressive else (0,):
                left = self.left.get(number, [])
                if k < len(left):
                    left[k] = min(left[k], bits & 15 if self.progressive else 0)
        if interval:
            wanted = -(-self._units(numbers) // interval) - 1
            if restarts < wanted and self.short is None:
                self.short = f"a JPEG with {restarts + 1:,} of {wanted + 1:,} restart intervals"

    def _units(self, numbers: list[int]) -> int:
        """Blocks of a scan of one component, or groups of blocks of one of several."""
        sampling = [self.sampling[number] for number in numbers if number in self.sampling]
        if not sampling:
            return 0
        most_h = max(h for h, _ in self.sampling.values()) or 1
        most_v = max(v for _, v in self.sampling.values()) or 1
        if len(sampling) == 1:
            (h, v), *_ = sampling
            return -(-self.width * h // (8 * most_h)) * -(-self.height * v // (8 * most_v))
        return -(-self.width // (8 * most_h)) * -(-self.height // (8 * most_v))

    def missing(self) -> str | None:
        """What has not come, at the end marker."""
        if self.short is not None:
            return self.short
        if not any(bits < 16 for left in self.left.values() for bits in left):
            return "a JPEG without picture data"
        if any(bits for left in self.left.values() for bits in left):
            return "a JPEG whose last scans are missing"
        return None


# Bits that mean something in any of the usual code tables, and no marker.
_NOISE = np.random.default_rng(20).integers(1, 255, 256, np.uint8).tobytes()


def _data_end_early(raw: bytes, picture: Array, options: ImageOptions) -> bool:
    """Whether a JPEG's coded data stop before the last block, an end marker notwithstanding.

    A decoder fills what is missing with zeros. So bytes put behind the data change the picture if
    some of it is still to come, and are passed over if all of it is there.
    """
    _, end = _jpeg(raw)
    more = raw[:end] + _NOISE + raw[end:]
    try:
        return not np.array_equal(picture, formats.decode_image(more, options))
    except DecodeError:  # nor would a whole one be refused for what follows it
        return True


def _lacks_end(raw: bytes) -> bool:
    """Whether a JPEG is whole but for its end marker."""
    ended = raw.removesuffix(b"\xff") + b"\xff\xd9"
    if not raw.startswith(b"\xff\xd8") or unfinished(ended) is not None:
        return False
    options = ImageOptions(channels=None)
    try:
        return not _data_end_early(ended, formats.decode_image(ended, options), options)
    except DecodeError:
        return False


def _png(raw: bytes) -> str | None:
    for at, size, kind in _png_chunks(raw):
        if at + 12 + size > len(raw):
            return f"a PNG whose chunk {kind!r} of {size:,} bytes is cut off"
        if kind == b"IEND":
            return None
    return f"a PNG without IEND chunk, after {len(raw):,} bytes"


def _png_chunks(raw: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 8
    for _ in range(_STEPS):
        if at + 8 > len(raw):
            return
        size, kind = struct.unpack_from(">I4s", raw, at)
        yield at, size, kind
        at += 12 + size


def _damage(raw: bytes) -> str | None:
    """A chunk of a PNG that does not match its checksum; other kinds have none."""
    if kind_of(raw[:12]) == "PNG":
        for at, size, kind in _png_chunks(raw):
            body = memoryview(raw)[at + 4 : at + 8 + size]
            if raw[at + 8 + size : at + 12 + size] != struct.pack(">I", zlib.crc32(body)):
                return f"its chunk {kind!r} at byte {at:,} does not match its checksum"
            if kind == b"IEND":
                break
    return None


def _gif(raw: bytes) -> str | None:
    if len(raw) < 13:
        return "a GIF whose screen descriptor is cut off"

    def after_table(flags: int, at: int) -> int:
        return at + 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else at

    def after_blocks(at: int) -> int:
        while raw[at]:
            at += 1 + raw[at]
        return at + 1

    at, frames = after_table(raw[10], 13), 0
    while at < len(raw):
        if raw[at] == 0x3B:
            return None if frames else "a GIF without a picture"
        if raw[at] == 0x21:
            at = after_blocks(at + 2)
        elif raw[at] == 0x2C:
            frames += 1
            at = after_blocks(after_table(raw[at + 9], at + 10) + 1)
        elif raw[at] == 0:  # written by some programs between blocks
            at += 1
        else:
            break
    mend = "; append the byte 3b if it has all its pictures" if frames and at == len(raw) else ""
    return f"a GIF without its end, after {len(raw):,} bytes{mend}"


def _bmp(raw: bytes) -> str | None:
    begin, head = struct.unpack_from("<II", raw, 10)
    if head == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", raw, 18)
        packing, size = 0, 0
    else:
        width, height, _, depth, packing, size = struct.unpack_from("<iiHHII", raw, 18)
    if packing in (0, 3, 6):
        size = (abs(width) * depth + 31) // 32 * 4 * abs(height)
    if begin + size > len(raw):
        return f"a BMP of {begin + size:,} bytes by its header, {len(raw):,} are there"
    return None


def _webp(raw: bytes) -> str | None:
    (size,) = struct.unpack_from("<I", raw, 4)
    if size + 8 > len(raw):
        return f"a WebP of {size + 8:,} bytes by its header, {len(raw):,} are there"
    at = 12
    for _ in range(_STEPS):
        if at + 8 > size + 8:
            break
        kind, length = struct.unpack_from("<4sI", raw, at)
        if at + 8 + length > size + 8:
            return f"a WebP whose chunk {kind!r} of {length:,} bytes is cut off"
        at += 8 + length + length % 2
    return None


_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_TIFF_TYPES = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}


def _tiff(raw: bytes) -> str | None:
    """Directory by directory: what it points at must lie within the file."""
    order = "<" if raw[:2] == b"II" else ">"
    big = raw[2:4] in (b"+\0", b"\0+")
    word, step, head = ("Q", 20, 8) if big else ("I", 12, 2)
    word_size = struct.calcsize(word)
    (at,) = struct.unpack_from(order + word, raw, 8 if big else 4)
    seen: set[int] = set()
    while at and at not in seen and len(seen) < _STEPS:
        seen.add(at)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), raw, at)
        at += head
        if at + count * step + word_size > len(raw):
            return "a TIFF whose directory is cut off"
        parts: dict[int, Array] = {}
        for entry in range(at, at + count * step, step):
            tag, form, number = struct.unpack_from(order + "HH" + word, raw, entry)
            place = entry + 4 + word_size
            size = number * _TIFF_SIZES.get(form, 1)
            if size > word_size:
                (place,) = struct.unpack_from(order + word, raw, place)
            if place + size > len(raw):
                return f"a TIFF whose tag {tag} lies behind its end"
            if tag in (273, 279, 324, 325) and form in _TIFF_TYPES:
                kind = np.dtype(order + _TIFF_TYPES[form])
                parts[tag] = np.frombuffer(raw, kind, number, place).astype(np.uint64)
        for begins, sizes in ((273, 279), (324, 325)):
            if begins in parts and sizes in parts and len(parts[begins]) == len(parts[sizes]):
                ends = parts[begins] + parts[sizes]
                if len(ends) and int(ends.max()) > len(raw):
                    return f"a TIFF of {int(ends.max()):,} bytes, {len(raw):,} are there"
        (at,) = struct.unpack_from(order + word, raw, at + count * step)
    return None


# ------------------------------------------------------------------------------------------ arrays


def _check_array(path: str, file: IO[bytes], found: Checked, max_pixels: int) -> None:
    try:
        if file.read(2) == b"PK":
            _check_npz(path, found, max_pixels)
        else:
            file.seek(0)
            layout = formats._layout(file.read(formats._HEADER_LIMIT), found.size, path)
            found.form = ("array", f"{layout.native} of shape {layout.shape}")
    except DecodeError as error:
        kind = "truncated" if " is truncated" in str(error) else "broken"
        found.add(kind, str(error))


def _check_npz(path: str, found: Checked, max_pixels: int) -> None:
    """All members to their ends, block by block: their checksums are compared there."""
    forms = []
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if not members:
                found.add("empty", f"{path} is an archive without arrays")
            for member in members:
                formats._check_member(member, found.size, path)
                if member.file_size > max(3 * max_pixels, 100 * member.compress_size):
                    found.add(
                        "too many pixels",
                        f"{path} holds {member.filename} of {member.file_size:,} bytes in "
                        f"{member.compress_size:,}",
                    )
                    return
                with archive.open(member) as stream:
                    head = stream.read(formats._HEADER_LIMIT)
                    if member.filename.endswith(".npy"):
                        form = _form_in(head, member, path, len(members) > 1)
                        forms.append(f"{member.filename[:-4]}: {form}")
                    while stream.read(_BLOCK):
                        pass
    except DecodeError:
        raise
    except formats._ZIP_ERRORS as error:
        # Its list of members lies at the end of an archive.
        cut = isinstance(error, (EOFError, zipfile.BadZipFile)) and "CRC" not in str(error)
        end = found.size and b"PK\5\6" not in _tail(path)
        said = "truncated" if cut and end else "broken"
        found.add(said, f"{path} is {said}: a zip archive ({error})")
        return
    if forms:
        found.form = ("array", "; ".join(sorted(forms)))


def _form_in(head: bytes, member: zipfile.ZipInfo, path: str, several: bool) -> str:
    """Type and shape of an array in an archive."""
    try:
        layout = formats._layout(head, member.file_size, path)
    except DecodeError as error:
        # Of several arrays somebody's load_sample() chooses, and texts beside them do no harm.
        if several and ("expected plain numbers" in str(error) or "unpickled" in str(error)):
            return "no numbers"
        raise
    return f"{layout.native} of shape {layout.shape}"


def _tail(path: str) -> bytes:
    with open(path, "rb") as file:
        file.seek(-min(os.path.getsize(path), 2**16 + 22), os.SEEK_END)
        return file.read()
