"""What the bytes of one file mean: a decoder for each suffix. No order, no threads, no Keras."""

from __future__ import annotations

import contextlib
import errno
import math
import operator
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from io import BytesIO, FileIO
from typing import IO, Any, NamedTuple

import cv2
import numpy as np

__all__ = [
    "ARRAY_SUFFIXES",
    "IMAGE_SUFFIXES",
    "DecodeError",
    "ImageOptions",
    "check_picture",
    "check_suffix",
    "decode_array",
    "decode_image",
    "image_shape",
    "read_array",
    "read_bytes",
    "read_image",
    "read_sample",
    "suffix_of",
]

Array = np.ndarray[Any, np.dtype[Any]]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
)
ARRAY_SUFFIXES = frozenset({".npy", ".npz"})

# Keras' names. "nearest" is OpenCV's EXACT variant, which samples at pixel centres as
# tf.image.resize does; plain INTER_NEAREST is off by half a pixel. None of them antialiases
# except "area". "bicubic" is OpenCV's (a = -0.75), Keras' own has a = -0.5.
_INTERPOLATIONS: dict[str, int] = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
# Pillow's numbers for its filters. All but its "nearest" average over the pixels that a smaller one
# stands for; that one differs from ours by a rounding, in parts of pictures only.
_PILLOWS = {
    "pillow-nearest": 0,
    "pillow-lanczos": 1,
    "pillow-bilinear": 2,
    "pillow-bicubic": 3,
    "pillow-box": 4,
    "pillow-hamming": 5,
}
_ASPECTS = ("stretch", "crop", "pad")


class DecodeError(ValueError):
    """A file was read, and its content is damaged, cut short, too large or of the wrong kind."""


@dataclass(frozen=True)
class ImageOptions:
    """How a picture becomes an array. Checked when made; safe to pickle and to share.

    size: (height, width) in pixels, None for as stored.
    interpolation: nearest, bilinear, bicubic, area or lanczos (8 x 8, OpenCV's); or pillow-nearest,
        pillow-bilinear, pillow-bicubic, pillow-lanczos, pillow-hamming or pillow-box, for 8-bit
        pictures: Pillow's filters, which antialias. Pillow is then needed.
    aspect: what becomes of a picture whose sides are not in the ratio of `size`: "stretch" distorts
        it, "crop" takes the largest part from its middle, "pad" puts zeros beside it.
    channels: 1, 3 or 4, None for as stored (gray 1, colour 3, with transparency 4).
    dtype: None for as decoded (uint8; uint16 and float where the file stores them). Otherwise
        a plain cast that scales nothing: to an integer type it drops the fraction and wraps.
    rescale: every value is multiplied by it, as Keras' Rescaling(scale) does. The result is
        float32 unless dtype says otherwise.
    max_pixels: bound on height x width, looked up in the header before anything is decoded.
        The default is Pillow's decompression-bomb limit: 512 MiB as 8-bit RGB.
    dct_scaling: decode a JPEG at 1/2, 1/4 or 1/8 where that is still at least `size`. Off by
        default: over 226 ImageNet photographs at 128 x 128 it is 1.2 times as fast, and 5.8
        levels of 255 away from the full decode on average (20 for the worst picture), because
        bilinear does not antialias and the smaller decode does. With "area", which averages
        as well, it is 1.4 times as fast and 2.4 levels away (7.6 for the worst).
    """

    size: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    aspect: str = "stretch"
    channels: int | None = 3
    dtype: np.dtype[Any] | None = None
    rescale: float | None = None
    max_pixels: int = 178_956_970
    dct_scaling: bool = False

    def __post_init__(self) -> None:
        # object.__setattr__ because the class is frozen: the fields are normalised once, here.
        object.__setattr__(self, "size", _checked_size(self.size))
        known = ", ".join([*_INTERPOLATIONS, *_PILLOWS])
        if not isinstance(self.interpolation, str) or self.interpolation not in known.split(", "):
            raise ValueError(
                f"interpolation={self.interpolation!r} is unknown, expected one of {known}. "
                'Pass interpolation="bilinear", or resize in load_sample().'
            )
        if self.interpolation in _PILLOWS and find_spec("PIL") is None:
            raise ImportError(
                f"interpolation={self.interpolation!r} needs Pillow: pip install pillow, or pass "
                'interpolation="area", which averages as well.'
            )
        if self.aspect not in _ASPECTS:
            raise ValueError(
                f'aspect={self.aspect!r} is unknown, expected "stretch", "crop" or "pad".'
            )
        if self.aspect != "stretch" and self.size is None:
            raise ValueError(
                f"aspect={self.aspect!r} says how pictures come to a size, and there is none: pass "
                "size=(height, width)."
            )
        if self.channels is not None and self.channels not in (1, 3, 4):
            raise ValueError(
                f"channels={self.channels!r}, expected 1 (gray), 3 (RGB), 4 (RGBA) or None. "
                "Pass channels=None to keep what the file stores."
            )
        object.__setattr__(self, "dtype", checked_dtype(self.dtype))
        object.__setattr__(self, "rescale", _checked_rescale(self.rescale))
        try:
            max_pixels = operator.index(self.max_pixels)
        except TypeError:
            max_pixels = 0
        if max_pixels < 1:
            raise ValueError(
                f"max_pixels={self.max_pixels!r}, expected a whole number of at least 1: it keeps "
                "a small hostile file from filling the memory. Pass a larger number, as 10**9."
            )
        object.__setattr__(self, "max_pixels", max_pixels)
        if not isinstance(self.dct_scaling, (bool, np.bool_)):
            raise TypeError(f"dct_scaling={self.dct_scaling!r}: choose True or False.")
        object.__setattr__(self, "dct_scaling", bool(self.dct_scaling))


def _checked_size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    try:
        height, width = (operator.index(side) for side in size)
    except (TypeError, ValueError):
        raise TypeError(
            f"size={size!r}, expected two whole numbers. Pass size=(height, width)."
        ) from None
    if height < 1 or width < 1:
        raise ValueError(
            f"size={size!r}, expected at least one pixel each way. Pass size=(height, width)."
        )
    return height, width


def checked_dtype(dtype: Any) -> np.dtype[Any] | None:
    """A dtype of numbers in this machine's byte order; TypeError for others."""
    if dtype is None:
        return None
    try:
        checked: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise TypeError(
            f'dtype={dtype!r} is no NumPy type. Pass a name such as "uint8" or "float32".'
        ) from None
    if checked.isbuiltin == 2:  # a registered number type, such as ml_dtypes.bfloat16
        return checked
    if checked.kind not in "biuf":
        raise TypeError(
            f"dtype={dtype!r}, expected a type of real numbers. "
            'Pass a name such as "uint8" or "float32".'
        )
    native: np.dtype[Any] = checked.newbyteorder("=")
    return native


def _checked_rescale(rescale: Any) -> float | None:
    if rescale is None:
        return None
    try:
        factor = float(rescale)
    except (TypeError, ValueError):
        raise TypeError(f"rescale={rescale!r}, expected a number. Pass rescale=1/255.") from None
    if not math.isfinite(factor):
        raise ValueError(f"rescale={rescale!r}, expected a finite number. Pass rescale=1/255.")
    return factor


def suffix_of(path: str) -> str:
    """The suffix in lower case with its dot: "a/B.JPG" -> ".jpg", "a.b/c" -> "", ".npy" -> ""."""
    start = max(path.rfind("/"), path.rfind(os.sep)) + 1
    dot = path.rfind(".", start)
    return path[dot:].lower() if dot > start else ""


def check_suffix(path: str) -> None:
    """Raise ValueError unless `read_sample` knows what a file with this name holds."""
    suffix = suffix_of(path)
    if suffix not in IMAGE_SUFFIXES and suffix not in ARRAY_SUFFIXES:
        known = " ".join(sorted(IMAGE_SUFFIXES | ARRAY_SUFFIXES))
        called = f"ends in {suffix!r}" if suffix else "has no suffix"
        raise ValueError(
            f"{path} {called}, and the suffixes known are {known}. Pass decode= (a function from "
            "bytes to array), or override load_sample(path), for a format of your own."
        )


# ---------------------------------------------------------------------------------------------
# Files

# O_BINARY is Windows' own: without it every b"\r\n" there would be read as b"\n".
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0)


def read_ahead(path: str) -> None:
    """Have the kernel begin to read a file, and do not wait for it. Nothing where it cannot."""
    _advise(path, "POSIX_FADV_WILLNEED")


def evict(path: str) -> None:
    """Ask the kernel to forget what it holds of a file. Nothing where it cannot."""
    _advise(path, "POSIX_FADV_DONTNEED")


def _advise(path: str, advice: str) -> None:
    if hasattr(os, "posix_fadvise"):  # not on macOS and Windows
        with contextlib.suppress(OSError):  # told by who reads the file
            descriptor = os.open(path, _OPEN_FLAGS)
            try:
                os.posix_fadvise(descriptor, 0, 0, getattr(os, advice))
            finally:
                os.close(descriptor)


def read_bytes(path: str) -> bytes:
    """The whole file. OSError with the path where it cannot be read, DecodeError if empty.

    Four system calls; nothing is left open, whatever happens.
    """
    descriptor = os.open(path, _OPEN_FLAGS)
    try:
        size = _size_of_file(descriptor, path)
        content = os.read(descriptor, size)
        # A read may stop early: a signal, a network drive, or more than 2 GiB.
        while 0 < len(content) < size:
            more = os.read(descriptor, size - len(content))
            if not more:
                break
            content += more
    except OSError as error:
        error.filename = error.filename or path
        raise
    finally:
        os.close(descriptor)
    if not content:
        raise _empty(path)
    return content


def _size_of_file(descriptor: int, path: str) -> int:
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(
            errno.EISDIR, "is a folder, expected a file; pass the files in it", path
        )
    return status.st_size


def _empty(name: str) -> DecodeError:
    return DecodeError(f"{name} is empty (0 bytes). Copy or download it again, or leave it out.")


def _fits(out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether a result of this shape and type can be written into `out` as it is."""
    return (
        out is not None
        and out.shape == shape
        and out.dtype == dtype
        and out.flags.c_contiguous
        and out.flags.writeable
    )


# ---------------------------------------------------------------------------------------------
# Picture headers: a few bytes looked at with struct, so that a bomb costs nothing


class _Header(NamedTuple):
    kind: str
    height: int  # as stored, before the picture is turned
    width: int
    orientation: int = 1  # EXIF: 1 upright ... 8; from 5 on height and width change places
    gray: bool = False  # only known for JPEG
    scan: int = 0  # JPEG: where the compressed pixels begin


# Segments or chunks walked over at most: real files have a few dozen, and a hostile one of many
# empty ones must not hold the interpreter for seconds.
_STEPS = 10_000
_SEGMENT = struct.Struct(">BBH")
_FRAME = struct.Struct(">BHHB")
_CHUNK = struct.Struct(">I4s")
# C4, C8 and CC lie between the frame markers and mean something else.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})  # without a length: TEM, RST0 ... RST7


def _jpeg_header(raw: bytes) -> _Header | None:
    """Walks the segments up to the pixels. None where there are no pixels to be found."""
    orientation, height, width, components = 1, -1, 0, 0
    at = 2
    try:
        for _ in range(_STEPS):
            mark, marker, length = _SEGMENT.unpack_from(raw, at)
            if mark != 0xFF:
                at = raw.index(b"\xff", at)  # stray bytes between segments: decoders skip them
            elif marker in _FRAME_MARKERS and height < 0:
                _, height, width, components = _FRAME.unpack_from(raw, at + 4)
                at += 2 + length
            elif marker == 0xDA:
                if height < 0:
                    return None
                return _Header("jpeg", height, width, orientation, components == 1, at)
            elif marker == 0xE1 and raw.startswith(b"Exif\0\0", at + 4):
                orientation = _orientation(raw[at + 10 : at + 2 + length])
                at += 2 + length
            elif marker == 0xFF:
                at += 1  # a fill byte
            elif marker in _BARE_MARKERS:
                at += 2
            else:
                at += 2 + length
    except (struct.error, ValueError):  # ran over the end
        pass
    return None


def _png_header(raw: bytes) -> _Header:
    width, height = struct.unpack_from(">II", raw, 16)
    orientation, at = 1, 33
    # An eXIf chunk behind the pixels is allowed and rare; only those before them are found.
    for _ in range(_STEPS):
        if at + 8 > len(raw):
            break
        length, kind = _CHUNK.unpack_from(raw, at)
        if kind == b"IDAT":
            break
        if kind == b"eXIf":
            orientation = _orientation(raw[at + 8 : at + 8 + length])
        at += 12 + length
    return _Header("png", height, width, orientation)


def _webp_header(raw: bytes) -> _Header | None:
    kind = raw[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", raw, 26)
        return _Header("webp", height & 0x3FFF, width & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", raw, 21)
        return _Header("webp", (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    if kind != b"VP8X":
        return None
    width = int.from_bytes(raw[24:27], "little") + 1
    height = int.from_bytes(raw[27:30], "little") + 1
    orientation, at = 1, 30
    for _ in range(_STEPS if raw[20] & 8 else 0):  # 8: there is an EXIF chunk
        if at + 8 > len(raw):
            break
        chunk, length = struct.unpack_from("<4sI", raw, at)
        if chunk == b"EXIF":
            exif = raw[at + 8 : at + 8 + length]
            orientation = _orientation(exif.removeprefix(b"Exif\0\0"))
            break
        at += 8 + length + length % 2  # padded to even
    return _Header("animated webp" if raw[20] & 2 else "webp", height, width, orientation)


def _bmp_header(raw: bytes) -> _Header:
    (header_size,) = struct.unpack_from("<I", raw, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", raw, 18)
    return _Header("bmp", abs(height), width)  # a negative height: the rows run downwards


def _tiff_header(raw: bytes) -> _Header | None:
    tags = _tiff_tags(raw)
    if 256 not in tags or 257 not in tags:
        return None
    return _Header("tiff", tags[257], tags[256], _orientation(raw))


def _orientation(exif: bytes) -> int:
    """EXIF's number from 1 (upright) to 8, 1 where it is missing or senseless."""
    value = _tiff_tags(exif).get(274, 1)
    return value if 1 <= value <= 8 else 1


def _tiff_tags(raw: bytes) -> dict[int, int]:
    """Whole-number tags up to 274 (Orientation) of the first directory of a TIFF, or of EXIF."""
    order = {b"II": "<", b"MM": ">"}.get(raw[:2])
    tags: dict[int, int] = {}
    if order is None:
        return tags
    try:
        (version,) = struct.unpack_from(order + "H", raw, 2)
        if version == 43:  # BigTIFF
            (at,) = struct.unpack_from(order + "Q", raw, 8)
            (count,) = struct.unpack_from(order + "Q", raw, at)
            at, step, value_at = at + 8, 20, 12
        else:
            (at,) = struct.unpack_from(order + "I", raw, 4)
            (count,) = struct.unpack_from(order + "H", raw, at)
            at, step, value_at = at + 2, 12, 8
        for entry in range(at, at + step * min(count, 512), step):
            tag, kind = struct.unpack_from(order + "HH", raw, entry)
            if tag > 274:  # they are sorted
                break
            form = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
            if form:
                (tags[tag],) = struct.unpack_from(order + form, raw, entry + value_at)
    except (struct.error, OverflowError):  # cut short, or an offset that leads out of the file
        pass
    return tags


def _header(raw: bytes) -> _Header | None:
    """Kind and dimensions by content, whatever the file is called. None: not one we know."""
    try:
        if raw.startswith(b"\xff\xd8"):
            return _jpeg_header(raw)
        if raw.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png_header(raw)
        if raw.startswith(b"RIFF") and raw[8:12] == b"WEBP":
            return _webp_header(raw)
        if raw.startswith((b"GIF87a", b"GIF89a")):
            width, height = struct.unpack_from("<HH", raw, 6)
            return _Header("gif", height, width)
        if raw.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
            return _tiff_header(raw)
        if raw.startswith(b"BM"):
            return _bmp_header(raw)
    except (struct.error, IndexError):
        pass
    return None


def image_shape(raw: bytes) -> tuple[int, int] | None:
    """(height, width) as `decode_image` gives them, turned by EXIF, from the header alone.

    None where the header is damaged or of no kind known here. Takes a few microseconds.
    """
    header = _header(raw)
    if header is None:
        return None
    if header.orientation >= 5:
        return header.width, header.height
    return header.height, header.width


# ---------------------------------------------------------------------------------------------
# Pictures

# Missing from OpenCV 4.10. Without it a JPEG comes as BGR and is swapped in place.
_READ_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)
# The decoder never turns a picture: OpenCV turns JPEG always, PNG and WebP in late versions
# only, and none of them with IMREAD_UNCHANGED. Turned here, all versions agree.
_READ_JPEG = cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_COLOR if _READ_RGB is None else _READ_RGB)
_READ_JPEG_GRAY = cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_GRAYSCALE
# With IMREAD_COLOR_RGB the bit beside the factor that means BGR must not be set.
_REDUCED = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}

# (channels decoded by OpenCV: BGR order, channels wanted: RGB order) -> conversion
_CONVERSIONS: dict[tuple[int, int], int] = {
    (1, 3): cv2.COLOR_GRAY2RGB,
    (1, 4): cv2.COLOR_GRAY2RGBA,
    (3, 1): cv2.COLOR_BGR2GRAY,
    (3, 3): cv2.COLOR_BGR2RGB,
    (3, 4): cv2.COLOR_BGR2RGBA,
    (4, 1): cv2.COLOR_BGRA2GRAY,
    (4, 3): cv2.COLOR_BGRA2RGB,
    (4, 4): cv2.COLOR_BGRA2RGBA,
}

_OPENCV_VERSION = tuple(int(part) for part in cv2.__version__.split(".")[:2])


def read_image(path: str, options: ImageOptions, out: Array | None = None) -> Array:
    """`decode_image` of a file's content. OSError where it cannot be read."""
    return decode_image(read_bytes(path), options, out, path)


def decode_image(
    raw: bytes, options: ImageOptions, out: Array | None = None, name: str = "image"
) -> Array:
    """One picture as (height, width, channels), RGB or RGBA; three axes for gray as well.

    raw: the encoded bytes; the kind is taken from them, never from the name.
    out: an array the caller would like filled. Where the result has its shape and dtype it is
        written there and `out` itself is returned; otherwise a new array is, and what `out`
        then holds is undefined. The caller tells by `is`.
    name: what messages call the picture.

    The first frame of an animation and the first page of a TIFF are taken. Pictures are turned
    as their EXIF tag says: JPEG, WebP, TIFF, and PNG where the tag lies before the pixels.
    16-bit PNG and TIFF stay uint16, float TIFF stays float. channels=3 drops transparency
    without blending; channels=4 makes an opaque picture's alpha full (255, 65535, 1.0). OpenCV
    decides the rest: an 8-bit RGBA TIFF comes with its colours multiplied by alpha, gray with
    alpha comes as RGBA from PNG and as gray from TIFF, gray WebP and GIF come as colour, CMYK
    and palettes as RGB(A).

    Raises DecodeError for whatever cannot be decoded whole: a file cut short never comes back
    as half a picture. Damage inside is found where the format has checksums (PNG); JPEG, BMP,
    WebP and TIFF have none, and changed bytes may decode to changed pixels.
    """
    if not isinstance(raw, bytes):
        raw = bytes(raw)
    try:
        return _picture(raw, options, out, name)
    except cv2.error as error:
        cause = " ".join(str(error).split())
        raise DecodeError(
            f"{name} cannot be decoded: OpenCV says {cause!r}. "
            "Save it again as PNG or JPEG, or read it in load_sample()."
        ) from error


def _picture(raw: bytes, options: ImageOptions, out: Array | None, name: str) -> Array:
    header = _header(raw)
    _check_whole(raw, header, options, name)
    image, turn = _decoded(raw, header, options, out, name)
    if image is None:
        raise _undecodable(raw, header, name)
    if image.shape[0] * image.shape[1] > options.max_pixels:  # a header not known here
        raise _too_large(image.shape[0], image.shape[1], options, name)
    if turn != 1:
        image = _TURNS[turn](image)
    size = options.size
    casts = options.rescale is not None or options.dtype not in (None, image.dtype)
    if size is not None and image.shape[:2] != size:
        image = _resized(image, size, options, None if casts else out, name)
    if out is not None and image is out:
        return out
    if image.ndim == 2:
        image = image[:, :, np.newaxis]
    if casts:
        return _cast(image, options, out)
    if out is not None and _fits(out, image.shape, image.dtype):
        np.copyto(out, image)
        return out
    return image


def _resized(
    image: Array, size: tuple[int, int], options: ImageOptions, out: Array | None, name: str
) -> Array:
    """A picture in another size, as `options` say; in `out` where it fits there."""
    if options.aspect == "pad":
        return _padded(image, size, options, name)
    top, left = 0, 0
    height, width = image.shape[:2]
    if options.aspect == "crop":
        whole = height, width
        height = max(1, min(height, width * size[0] // size[1]))
        width = max(1, min(width, whole[0] * size[1] // size[0]))
        top, left = (whole[0] - height) // 2, (whole[1] - width) // 2
    if options.interpolation in _PILLOWS:
        return _by_pillow(image, size, options, (left, top, left + width, top + height), name)
    image = image[top : top + height, left : left + width]
    channels = 1 if image.ndim == 2 else image.shape[2]
    resized: Array = cv2.resize(
        image,
        (size[1], size[0]),
        dst=out if _fits(out, (*size, channels), image.dtype) else None,
        interpolation=_INTERPOLATIONS[options.interpolation],
    )
    return resized


def _padded(image: Array, size: tuple[int, int], options: ImageOptions, name: str) -> Array:
    """The whole picture in the middle of zeros; below and to the right may be up to two more."""
    (rows, columns), (height, width) = size, image.shape[:2]
    tall = height * columns >= width * rows
    inner = (rows, width * rows // height) if tall else (height * columns // width, columns)
    inner = max(1, inner[0]), max(1, inner[1])
    # As tf.image.resize_with_pad, which halves what is left before it drops the fraction.
    top = 0 if tall else (rows * width - height * columns) // (2 * width)
    left = (columns * height - width * rows) // (2 * height) if tall else 0
    whole = replace(options, size=inner, aspect="stretch")
    shown = image if image.shape[:2] == inner else _resized(image, inner, whole, None, name)
    padded = np.zeros((*size, *image.shape[2:]), image.dtype)
    padded[top : top + inner[0], left : left + inner[1]] = shown
    return padded


def _by_pillow(
    image: Array,
    size: tuple[int, int],
    options: ImageOptions,
    box: tuple[int, int, int, int],
    name: str,
) -> Array:
    from PIL import Image

    if image.dtype != np.uint8 or image.shape[2:] not in ((), (1,), (3,), (4,)):
        raise DecodeError(
            f"{name} holds {image.dtype}, and Pillow resizes pictures of 8 bits only: pass "
            'interpolation="area", or another one of OpenCV\'s.'
        )
    if image.shape[2:] == (1,):
        image = image[:, :, 0]
    picture = Image.fromarray(image)
    filtering = Image.Resampling(_PILLOWS[options.interpolation])
    return np.asarray(picture.resize((size[1], size[0]), filtering, box))


def check_picture(raw: bytes, name: str) -> None:
    """Raise DecodeError unless this is a whole picture, as far as its header and end tell.

    Takes microseconds: pixels are decoded only where the header is of no kind known here.
    """
    options = ImageOptions(channels=None, max_pixels=2**62)
    header = _header(raw)
    _check_whole(raw, header, options, name)
    if header is None:
        decode_image(raw, options, None, name)


def _check_whole(raw: bytes, header: _Header | None, options: ImageOptions, name: str) -> None:
    """Refuse what is too large or cut short, before a decoder spends memory or prints on it.

    What OpenCV, libpng and libjpeg print on damage inside a file is left alone: the level is one
    for the whole process, and the user's own cv2.imread may depend on it.
    """
    if not raw:
        raise _empty(name)
    if header is None:
        # Let a kind unknown here through (OpenCV reads more than we list), but not a headless
        # JPEG: it is cut short, or OpenCV would have to guess.
        if raw.startswith(b"\xff\xd8"):
            raise _truncated(name, "a JPEG without picture data", raw)
        return
    if header.height < 1 or header.width < 1:
        raise DecodeError(
            f"{name} is {header.height} x {header.width} by its header, expected at least one "
            "pixel each way. Save it again, or leave it out."
        )
    if header.height * header.width > options.max_pixels:
        raise _too_large(header.height, header.width, options, name)
    if header.kind == "jpeg":
        # OpenCV 4.10 returns half a picture for a JPEG cut short, and says nothing (4.12 not). The
        # end marker cannot occur within compressed pixels (ff is followed by 00 there); a
        # thumbnail's own end lies before them. What follows the end marker is no concern. A picture
        # that lacks nothing but the marker is refused as well: only decoding every block would
        # tell it from one that is cut, and OpenCV from 4.12 on takes neither.
        if not raw.endswith(b"\xff\xd9") and raw.rfind(b"\xff\xd9", header.scan) < 0:
            raise _truncated(name, "a JPEG without end marker", raw)
    elif header.kind == "png":
        if raw.rfind(b"IEND") < 0:
            raise _truncated(name, "a PNG without IEND chunk", raw)
        # Deflate makes 1032 bytes of one at the most: what cannot be there is not allocated.
        bits = raw[24] * {2: 3, 4: 2, 6: 4}.get(raw[25], 1)
        if header.height * header.width * bits // 8 > 1032 * len(raw):
            raise DecodeError(
                f"{name} claims {header.height} x {header.width} pixels, more than its {len(raw)} "
                "bytes can hold. Copy or download it again, or leave it out."
            )
        _check_chunks(raw, name)
    elif header.kind.endswith("webp"):
        (size,) = struct.unpack_from("<I", raw, 4)
        if size + 8 > len(raw):
            raise _truncated(name, f"a WebP of {size + 8} bytes by its header", raw)


# A PNG of a gigabyte has as many of the usual size, 8 KiB.
_CHUNKS = 125_000


def _check_chunks(raw: bytes, name: str) -> None:
    """Each chunk of a PNG lies in the file: OpenCV 4.12 allocates what a length says, up to 4 GiB."""
    at = 8
    for _ in range(_CHUNKS):
        if at + 8 > len(raw):
            break
        length, kind = _CHUNK.unpack_from(raw, at)
        if kind == b"IEND":
            return
        at += 12 + length
    raise _truncated(name, f"a PNG whose chunks do not end before byte {at}", raw)


def _truncated(name: str, what: str, raw: bytes) -> DecodeError:
    return DecodeError(
        f"{name} is truncated: {what}, after {len(raw)} bytes. "
        "Copy or download it again, or leave it out."
    )


def _too_large(height: int, width: int, options: ImageOptions, name: str) -> DecodeError:
    return DecodeError(
        f"{name} is {height} x {width}, {height * width} pixels, and max_pixels allows "
        f"{options.max_pixels}. Pass max_pixels={height * width} if you trust it."
    )


def _undecodable(raw: bytes, header: _Header | None, name: str) -> DecodeError:
    if header is None:
        return DecodeError(
            f"{name} is no picture that OpenCV knows, or cut short: it begins with {raw[:12]!r}. "
            "Pass decode=, or override load_sample(path), for a format of your own."
        )
    if header.kind in ("gif", "animated webp") and _OPENCV_VERSION < (4, 12):
        return DecodeError(
            f"{name} is of kind {header.kind}, which OpenCV {cv2.__version__} does not read. "
            'Run: pip install "opencv-python-headless>=4.12"'
        )
    return DecodeError(
        f"{name} ({header.kind}, {header.height} x {header.width}, {len(raw)} bytes) is damaged, "
        "cut short, or of a variant that OpenCV does not read. "
        "Copy it again, save it as PNG, or leave it out."
    )


def _decoded(
    raw: bytes, header: _Header | None, options: ImageOptions, out: Array | None, name: str
) -> tuple[Array | None, int]:
    """Pixels in RGB order with the channels wanted, and how they are still to be turned."""
    buffer = np.frombuffer(raw, np.uint8)
    wanted = options.channels
    turn = 1 if header is None else header.orientation
    image: Array | None
    if header is not None and header.kind == "jpeg":
        if wanted is None:
            wanted = 1 if header.gray else 3
        flags = _READ_JPEG_GRAY if wanted == 1 else _READ_JPEG
        if options.dct_scaling and options.size is not None:
            flags |= _reduction(header, options.size)
        image = cv2.imdecode(buffer, flags)
        if image is not None and wanted != 1 and _READ_RGB is None:
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
        if image is not None and wanted == 4:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
        return image, turn
    # Everything else as stored, then converted here: asked for colours, OpenCV swaps red and
    # blue of 16-bit TIFFs, refuses float ones, and blends or drops alpha as the kind has it.
    image = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    if image is None:
        return None, turn
    if header is not None and header.kind == "tiff":
        turn = 1  # OpenCV's TIFF decoder turns by itself, whatever the flags
    stored = 1 if image.ndim == 2 else image.shape[2]
    wanted = wanted or stored
    conversion = _CONVERSIONS.get((stored, wanted))
    if conversion is None and stored == wanted:  # gray, or a number of channels without order
        return image, turn
    if conversion is None or image.dtype not in _CONVERTIBLE:
        if stored == wanted:
            return np.ascontiguousarray(image[:, :, [2, 1, 0, 3][:stored]]), turn
        raise DecodeError(
            f"{name} stores {stored} channels of {image.dtype}, and OpenCV cannot make them "
            f"{wanted}. Pass channels=None to keep them as they are."
        )
    last_step = turn == 1 and options.rescale is None and options.size in (None, image.shape[:2])
    direct = (
        last_step
        and options.dtype in (None, image.dtype)
        and _fits(out, (*image.shape[:2], wanted), image.dtype)
    )
    return cv2.cvtColor(image, conversion, dst=out if direct else None), turn


_CONVERTIBLE = frozenset(np.dtype(name) for name in ("uint8", "uint16", "float32"))


def _reduction(header: _Header, size: tuple[int, int]) -> int:
    """The flag of the largest reduction that leaves at least `size`, 0 for none."""
    height, width = size if header.orientation < 5 else size[::-1]
    for factor in (8, 4, 2):
        if header.height >= factor * height and header.width >= factor * width:
            return _REDUCED[factor]
    return 0


# EXIF's number -> what makes the stored picture upright
_TURNS: dict[int, Callable[[Array], Array]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def _cast(image: Array, options: ImageOptions, out: Array | None) -> Array:
    """Scale and change the type in one pass, into `out` where that fits."""
    dtype = options.dtype or np.dtype(np.float32)
    target = out if out is not None and _fits(out, image.shape, dtype) else None
    if target is None:
        target = np.empty(image.shape, dtype)
    if options.rescale is None:
        np.copyto(target, image, casting="unsafe")
        return target
    # float32 holds every value of 8 and 16 bits; more only where more goes in or comes out.
    wide = np.float64 in (dtype, image.dtype) or image.dtype in (np.int32, np.uint32)
    working = np.dtype(np.float64 if wide else np.float32)
    factor = working.type(options.rescale)
    np.multiply(image, factor, out=target, dtype=working, casting="unsafe")
    return target


# ---------------------------------------------------------------------------------------------
# Arrays


class _Layout(NamedTuple):
    """What an .npy header says."""

    header: bytes  # from the magic to the padding; the values follow
    shape: tuple[int, ...]
    stored: np.dtype[Any]  # with the file's byte order
    native: np.dtype[Any]  # the same type in this machine's byte order
    fortran: bool
    body_size: int


# Headers met, by their bytes; and by shape and type those whose values can be read as they lie.
# A folder mostly has one of them, and parsing takes longer than reading 48 KB. Threads share
# both without a lock: entries are whole, and the worst a race costs is to parse again.
_LAYOUTS: dict[bytes, _Layout] = {}
_PLAIN_LAYOUTS: dict[tuple[tuple[int, ...], np.dtype[Any]], _Layout] = {}
_LAYOUTS_KEPT = 256

# NumPy's own bound for headers from untrusted files, and the magic and length before them.
_HEADER_LIMIT = 10_000 + 12
_HAS_PREADV = hasattr(os, "preadv")  # not on Windows


def read_array(path: str, out: Array | None = None) -> Array:
    """The array of an .npy file, or of an .npz file that holds one. Never unpickled.

    C-contiguous and in this machine's byte order, whatever the file has: the values are
    np.load's. `out` as in `decode_image`; where it fits, the values are read straight into it.

    Raises OSError where the file cannot be read, and DecodeError where the content is damaged,
    cut short, a pickle, text, dates or records, or claims to be larger than the file.
    """
    descriptor = os.open(path, _OPEN_FLAGS)
    try:
        if _HAS_PREADV and out is not None:
            layout = _PLAIN_LAYOUTS.get((out.shape, out.dtype))
            if layout is not None and out.flags.c_contiguous and out.flags.writeable:
                # One call for header and values: if the header is the one expected, done.
                header = bytearray(len(layout.header))
                got = os.preadv(descriptor, (header, out.data), 0)
                if got == len(header) + layout.body_size and header == layout.header:
                    return out
        return _read_npy(descriptor, path, out)
    except OSError as error:
        error.filename = error.filename or path
        raise
    finally:
        os.close(descriptor)


def decode_array(raw: bytes, out: Array | None = None, name: str = "array") -> Array:
    """`read_array` of the content of an .npy file; `name` is what messages call it."""
    layout = _layout(raw[:_HEADER_LIMIT], len(raw), name)

    def fill(body: memoryview) -> None:
        begin = len(layout.header)
        body[:] = memoryview(raw)[begin : begin + layout.body_size]

    return _filled(layout, fill, out, name)


def _read_npy(descriptor: int, path: str, out: Array | None) -> Array:
    size = _size_of_file(descriptor, path)
    if not size:
        raise _empty(path)
    head = os.read(descriptor, _HEADER_LIMIT)
    if head.startswith(b"PK"):
        return _read_npz(path, size, out)
    layout = _layout(head, size, path)

    def fill(body: memoryview) -> None:
        os.lseek(descriptor, len(layout.header), os.SEEK_SET)
        _read_fully(FileIO(descriptor, closefd=False), body, path)

    return _filled(layout, fill, out, path)


# What zipfile raises on damaged archives, found by changing bytes at random. RuntimeError: it has
# a password. NotImplementedError: a compression not built in.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def _read_npz(path: str, size: int, out: Array | None) -> Array:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if len(members) != 1:
                keys = ", ".join(repr(info.filename[:-4]) for info in members[:20])
                raise DecodeError(
                    f"{path} holds {len(members)} arrays: {keys or 'none'}, expected one. "
                    'Override load_sample(path) to choose, as in return np.load(path)["x"].'
                )
            member = members[0]
            _check_member(member, size, path)
            with archive.open(member) as file:
                head = file.read(_HEADER_LIMIT)
                layout = _layout(head, member.file_size, path)
                begun = head[len(layout.header) :][: layout.body_size]

                def fill(body: memoryview) -> None:
                    body[: len(begun)] = begun
                    _read_fully(file, body[len(begun) :], path)
                    while file.read(1 << 16):  # the checksum is compared at the end only
                        pass

                return _filled(layout, fill, out, path)
    except DecodeError:
        raise
    except (*_ZIP_ERRORS, OSError) as error:
        # A damaged offset makes zipfile seek to before the file, which the system calls invalid.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise DecodeError(
            f"{path} is a damaged or foreign zip archive ({error}). "
            "Write it again with np.savez, or leave it out."
        ) from error


def _check_member(member: zipfile.ZipInfo, size: int, path: str) -> None:
    # Deflate makes 1032 bytes of one at the most, so that a few bytes cannot claim a terabyte.
    possible = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}.get(member.compress_type)
    if possible is None:
        raise DecodeError(
            f"{path} is compressed by method {member.compress_type}, expected what np.savez "
            "writes. Write it again with np.savez_compressed."
        )
    if member.compress_size > size or member.file_size > possible * member.compress_size:
        raise DecodeError(
            f"{path} claims {member.file_size} bytes for {member.filename}, more than its "
            f"{size} bytes can hold. Write it again with np.savez, or leave it out."
        )


def _read_fully(file: FileIO | IO[bytes], body: memoryview, name: str) -> None:
    done = 0
    while done < len(body):
        got = file.readinto(body[done:])  # type: ignore[union-attr]  # zipfile's has it
        if not got:
            raise DecodeError(
                f"{name} is truncated: {len(body)} bytes of values expected, {done} found. "
                "Copy or download it again, or leave it out."
            )
        done += got


def _filled(
    layout: _Layout, fill: Callable[[memoryview], None], out: Array | None, name: str
) -> Array:
    """Have the values read into `out` where they can lie there as stored, else bring them there."""
    native = layout.native
    plain = not layout.fortran and layout.stored == native
    direct = plain and _fits(out, layout.shape, native)
    if direct and out is not None:
        stored = out
    else:
        shape = layout.shape[::-1] if layout.fortran else layout.shape
        try:
            stored = np.empty(shape, layout.stored)
        except (ValueError, MemoryError) as error:
            raise DecodeError(
                f"{name} holds an array of shape {layout.shape} that cannot be made: {error}. "
                "Save smaller arrays, or override load_sample(path)."
            ) from error
    fill(stored.reshape(-1).view(np.uint8).data)
    if plain:
        if len(_PLAIN_LAYOUTS) >= _LAYOUTS_KEPT:
            _PLAIN_LAYOUTS.clear()
        _PLAIN_LAYOUTS[layout.shape, native] = layout
        return stored
    values = stored.T if layout.fortran else stored
    if out is not None and _fits(out, layout.shape, native):
        np.copyto(out, values)
        return out
    return np.asarray(values, native, order="C")


def _layout(head: bytes, size: int, name: str) -> _Layout:
    """The layout that `head`, the first bytes of a file of `size` bytes, announces."""
    if not head.startswith(b"\x93NUMPY"):
        raise DecodeError(
            f"{name} is no .npy file: it begins with {head[:12]!r}. "
            "Write it with np.save, or override load_sample(path) for a format of your own."
        )
    if head[6:8] not in (b"\1\0", b"\2\0", b"\3\0"):
        version = ".".join(str(part) for part in head[6:8])
        raise DecodeError(
            f"{name} has .npy version {version}, expected 1.0, 2.0 or 3.0. "
            "Write it again with np.save."
        )
    length_at_most = 10 if head[6] == 1 else 12
    length = int.from_bytes(head[8:length_at_most], "little")
    header = head[: length_at_most + length]
    if len(header) < length_at_most + length:
        too_long = len(head) == _HEADER_LIMIT
        problem = f"has a header of {length} bytes" if too_long else "is truncated in its header"
        raise DecodeError(f"{name} {problem}. Write it again with np.save, or leave it out.")
    layout = _LAYOUTS.get(header)
    if layout is None:
        layout = _parsed(header, name)
        if len(_LAYOUTS) >= _LAYOUTS_KEPT:
            _LAYOUTS.clear()
        _LAYOUTS[header] = layout
    if len(header) + layout.body_size > size:
        raise DecodeError(
            f"{name} is truncated: {layout.stored} values of shape {layout.shape} take "
            f"{layout.body_size} bytes, and {size - len(header)} follow the header. "
            "Copy or download it again, or leave it out."
        )
    return layout


def _parsed(header: bytes, name: str) -> _Layout:
    stream = BytesIO(header[8:])
    # Version 3.0 differs from 2.0 in the names of record fields only, which are refused below.
    one = header[6] == 1
    parse = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = parse(stream)
    except Exception as error:  # whatever its tokenizer and literal_eval raise on damaged text
        raise DecodeError(
            f"{name} has a damaged .npy header ({type(error).__name__}: {error}). "
            "Write it again with np.save, or leave it out."
        ) from error
    if dtype.hasobject:
        raise DecodeError(
            f"{name} holds Python objects, which are never unpickled: a pickle can run code. "
            "Save numbers instead: np.save(path, np.asarray(x, dtype=np.float32))."
        )
    if dtype.kind not in "biufc":
        raise DecodeError(
            f"{name} holds values of type {dtype}, expected plain numbers. "
            "Save one numeric column as an array of its own, or override load_sample(path)."
        )
    if any(side < 0 for side in shape):
        raise DecodeError(
            f"{name} has a damaged .npy header: shape {shape}. Write it again with np.save."
        )
    native = dtype.newbyteorder("=")
    return _Layout(header, shape, dtype, native, fortran, math.prod(shape) * dtype.itemsize)


# ---------------------------------------------------------------------------------------------


def read_sample(path: str, options: ImageOptions, out: Array | None = None) -> Array:
    """One file by its suffix: a picture as `options` say, or an array as it was saved.

    `out` as in `decode_image`. ValueError for a suffix not known.
    """
    if path.endswith(".npy"):  # a tenth of the time that a small array takes is this look
        return read_array(path, out)
    suffix = suffix_of(path)
    if suffix in ARRAY_SUFFIXES:
        return read_array(path, out)
    if suffix not in IMAGE_SUFFIXES:
        check_suffix(path)
    return read_image(path, options, out)
