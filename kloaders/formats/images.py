"""Decodes images to arrays according to their options."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import warn
from kloaders.formats import jpeg_decoder
from kloaders.formats.bmp_header import BmpFacts
from kloaders.formats.channels import Stored, in_channels, with_clear_gray
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import fits, read_bytes
from kloaders.formats.image_bounds import check_coded_data, check_whole, too_large
from kloaders.formats.image_headers import Header, header_of
from kloaders.formats.image_resize import FAST_TYPES, resized
from kloaders.formats.options import ImageOptions
from kloaders.formats.pillow_images import (
    decoded_by_pillow,
    same_by_opencv,
    stored_by_pillow,
)
from kloaders.formats.png_header import PngFacts, still
from kloaders.formats.tiff_header import (
    TiffFacts,
    page_offsets,
    tiff_facts,
    with_first_page,
)
from kloaders.formats.tiff_images import (
    check_page,
    page_by_opencv,
    page_by_tifffile,
    reader_of,
)

__all__ = [
    "check_picture",
    "decode_image",
    "decoders",
    "each_page",
    "picture_of",
    "read_image",
]


# Missing in OpenCV 4.10. Without it a JPEG is decoded as BGR, and swapped in place.
_READ_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)

# OpenCV must not rotate images: it always rotates JPEG, PNG and WebP only in newer versions, and
# none with IMREAD_UNCHANGED. Rotating here gives the same result with all versions.
_READ_JPEG = cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_COLOR if _READ_RGB is None else _READ_RGB)
_READ_JPEG_GRAY = cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_GRAYSCALE

# With IMREAD_COLOR_RGB, the bit next to the reduction factor that means BGR must not be set.
_REDUCED = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def read_image(path: str, options: ImageOptions, out: Array | None = None) -> Array:
    """`decode_image` for a file. Raises OSError if the file cannot be read."""
    return decode_image(read_bytes(path), options, out, path)


def decode_image(
    raw: bytes, options: ImageOptions, out: Array | None = None, name: str = "image"
) -> Array:
    """Decode one image to (height, width, channels), RGB or RGBA; gray images have three axes, too.

    raw: the encoded bytes; the kind is detected from them, and never from the name.
    out: an array to fill. If the result has its shape and dtype, it is written to `out`, and `out`
        itself is returned. Otherwise a new array is returned, and the content of `out` is undefined.
        The caller distinguishes these cases with `is`.
    name: the name of the image in messages.

    The result is the first frame of an animation (for PNG the default image), and the first page of a
    TIFF unless `pages` says otherwise. Images are rotated according to EXIF, wherever a file stores it,
    or else XMP. OpenCV decodes, except where its pixels differ from the stored ones: some TIFF and BMP
    files, GIF, animated WebP and CMYK are decoded by Pillow or tifffile. 16-bit PNG and TIFF stay uint16,
    float TIFF stays float, and with channels=None a TIFF keeps all its bands. channels=3 drops transparency
    without blending; channels=4 makes an opaque image's alpha full (255, 65535, 1.0). Gray with alpha
    becomes RGBA for PNG and two bands for TIFF; gray WebP becomes colour; CMYK and palettes become RGB(A).

    Raises DecodeError if the image cannot be decoded completely: a truncated file never returns half an
    image. Damage inside is detected if the format has checksums (PNG, TIFF with deflate); in other formats
    changed bytes may decode to changed pixels. Raises UnsupportedError, a DecodeError, for a variant that
    this package cannot read correctly.
    """
    if not isinstance(raw, bytes):
        raw = bytes(raw)
    try:  # not _opencv_errors, which would create a generator per image
        return _picture(raw, options, out, name)
    except cv2.error as error:
        raise _opencv_error(error, name) from error


@contextlib.contextmanager
def _opencv_errors(name: str) -> Iterator[None]:
    """Turn OpenCV's errors into one that names the image."""
    try:
        yield
    except cv2.error as error:
        raise _opencv_error(error, name) from error


def _opencv_error(error: cv2.error, name: str) -> DecodeError:
    cause = " ".join(str(error).split())
    return DecodeError(
        f"{name} cannot be decoded: OpenCV says {cause!r:.80}. "
        "Save it again as PNG or JPEG, or read it in load_sample()."
    )


def _picture(raw: bytes, options: ImageOptions, out: Array | None, name: str) -> Array:
    header = header_of(raw)
    check_whole(raw, header, options, name)
    if options.pages == "all":
        return _all_pages(raw, header, options, out, name)
    if header is not None and isinstance(header.facts, TiffFacts) and header.facts.following:
        _report_pages(raw, name)
    return _finished(raw, header, options, out, name)


def _all_pages(
    raw: bytes, header: Header | None, options: ImageOptions, out: Array | None, name: str
) -> Array:
    """All pages as (pages, height, width, channels); one page if it is not a TIFF."""
    if header is None or header.kind != "tiff":
        row = out[0] if out is not None and out.shape[:1] == (1,) else None
        image = _finished(raw, header, options, row, name)
        return out if image is row and out is not None else image[np.newaxis]
    offsets = list(page_offsets(raw))
    rows = out if out is not None and out.shape[:1] == (len(offsets),) else None
    facts = [tiff_facts(raw, at) for at in offsets]
    total = sum(one.height * one.width for one in facts if one is not None)
    if total > options.max_pixels:
        raise DecodeError(
            f"{name} has {len(offsets)} pages with {total} pixels, but max_pixels allows "
            f"{options.max_pixels}. Pass max_pixels={total} if you trust it."
        )
    pages: list[Array] = []
    for k, page in enumerate(_pages(raw, offsets, options, rows, name)):
        if pages and (page.shape, page.dtype) != (pages[0].shape, pages[0].dtype):
            raise DecodeError(
                f"{name}, page {k + 1} of {len(offsets)}, is {page.dtype} of shape {page.shape}, "
                f"but the first page is {pages[0].dtype} of shape {pages[0].shape}: pass size=, or "
                'pages="first".'
            )
        pages.append(page)
    if rows is not None and all(np.may_share_memory(page, rows[k]) for k, page in enumerate(pages)):
        return rows
    return np.stack(pages)


def each_page(raw: bytes, options: ImageOptions, name: str) -> Iterator[Array]:
    """The image, or the pages of a TIFF one after another; arguments and errors as in `decode_image`."""
    facts = getattr(header_of(raw), "facts", None)
    if isinstance(facts, TiffFacts) and facts.following:
        with _opencv_errors(name):
            yield from _pages(raw, list(page_offsets(raw)), options, None, name)
    else:
        yield decode_image(raw, options, None, name)


def _pages(
    raw: bytes, offsets: list[int], options: ImageOptions, rows: Array | None, name: str
) -> Iterator[Array]:
    for k, at in enumerate(offsets):
        file = with_first_page(raw, at)
        first = header_of(file)
        called = f"{name}, page {k + 1} of {len(offsets)}"
        check_whole(file, first, options, called)
        yield _finished(file, first, options, None if rows is None else rows[k], called)


# The first file whose further pages are not read. Only one is reported, as counting pages takes time.
_reported: list[str] = []


def _report_pages(raw: bytes, name: str) -> None:
    if _reported:
        return
    pages = sum(1 for _ in page_offsets(raw))
    if pages > 1:
        _reported.append(name)
        warn(
            f"{name} has {pages} pages, but only the first is read. "
            'pages="all" reads all of them, as (pages, height, width, channels).',
            once="pages of a TIFF",
        )


def _finished(
    raw: bytes, header: Header | None, options: ImageOptions, out: Array | None, name: str
) -> Array:
    """One image with the requested size, channels and dtype."""
    if options.reader == "pillow" and not same_by_opencv(raw, header, options.channels):
        check_coded_data(raw, header, name)
        image, turn = decoded_by_pillow(raw, header, options, name), 1
    else:
        image, turn = _decoded(raw, header, options, out, name)
    if image.shape[0] * image.shape[1] > options.max_pixels:  # the header was of an unknown kind
        raise too_large(image.shape[0], image.shape[1], options.max_pixels, name)
    if turn != 1:
        image = _turned(image, turn)
    return _fitted(image, options, out, name)


def picture_of(
    pixels: Array, options: ImageOptions, out: Array | None = None, name: str = "image"
) -> Array:
    """Like `decode_image`, for an array that is not encoded: (height, width) or (height, width, channels).

    pixels: gray, RGB or RGBA, depending on the number of channels. Other arguments: see `decode_image`.

    Raises:
        DecodeError: OpenCV cannot convert between these numbers of channels.
    """
    image = pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
    colours = {1: 1, 2: 1, 3: 3, 4: 3}.get(image.shape[2], 0)
    stored = Stored(np.ascontiguousarray(image), 1, False, colours, image.shape[2] in (2, 4))
    return _fitted(in_channels(stored, options.channels, None, name), options, out, name)


def _fitted(image: Array, options: ImageOptions, out: Array | None, name: str) -> Array:
    """Apply size, three axes and dtype according to the options."""
    size = options.size
    casts = options.rescale is not None or options.dtype not in (None, image.dtype)
    if casts and options.depth is None:
        _note_depth(options, image.dtype, name)
    if size is not None and image.shape[:2] != size:
        image = resized(image, size, options, None if casts else out, name)
    if out is not None and image is out:
        return out
    if image.ndim == 2:
        image = image[:, :, np.newaxis]
    if casts:
        return _cast(image, options, out)
    if out is not None and fits(out, image.shape, image.dtype):
        np.copyto(out, image)
        return out
    return image


@functools.cache
def decoders() -> tuple[str, ...]:
    """Names and versions of the decoders: pixels may differ between versions."""
    found = (cv2.__version__, f"pillow {version('pillow')}", f"tifffile {version('tifffile')}")
    return (*found, f"simplejpeg {version('simplejpeg')}") if jpeg_decoder.available() else found


def check_picture(raw: bytes, name: str) -> None:
    """Raise DecodeError unless this is a complete image, as far as its header and end show.

    Takes microseconds: pixels are decoded only if the header is of an unknown kind.
    """
    options = ImageOptions(channels=None, max_pixels=2**62)
    header = header_of(raw)
    check_whole(raw, header, options, name)
    check_coded_data(raw, header, name)
    if header is None:
        decode_image(raw, options, None, name)


def _undecodable(raw: bytes, header: Header | None, name: str) -> DecodeError:
    if header is None:
        return DecodeError(
            f"{name} is not an image that OpenCV can read, or cut short: it begins with {raw[:12]!r:.80}. "
            "For your own format pass decode=, or override load_sample(path)."
        )
    return DecodeError(
        f"{name} ({header.kind}, {header.height} x {header.width}, {len(raw)} bytes) is damaged, "
        "cut short, or of a variant that OpenCV cannot read. "
        "Copy it again, save it as PNG, or leave it out."
    )


def _decoded(
    raw: bytes, header: Header | None, options: ImageOptions, out: Array | None, name: str
) -> tuple[Array, int]:
    """Pixels in RGB order with the requested channels, and the orientation that is still to be applied."""
    wanted = options.channels
    if header is not None and header.kind == "jpeg" and header.components != 4:
        image = _jpeg(raw, header, options, out, name)
        if image is None:
            raise _undecodable(raw, header, name)
        return image, header.orientation
    stored = _stored(raw, header, options, name)
    image, turn = stored.image, stored.turn
    if options.depth == 8 and image.dtype == np.uint16:
        stored = stored._replace(image=(image >> 8).astype(np.uint8))
        warn(
            f"{name} stores 16 bits, but depth=8 keeps only the upper 8, as tf.io.decode_image "
            "does: depth=None keeps all.",
            once="images of 16 bits brought to 8",
        )
    last_step = turn == 1 and options.rescale is None and options.size in (None, image.shape[:2])
    direct = last_step and options.dtype in (None, stored.image.dtype)
    return in_channels(stored, wanted, out if direct else None, name), turn


def _jpeg(
    raw: bytes, header: Header, options: ImageOptions, out: Array | None, name: str
) -> Array | None:
    """A gray or colour JPEG, converted by the decoder itself; None if decoding fails."""
    wanted = options.channels
    if wanted is None:
        wanted = 1 if header.gray else 3
    reduction = 0
    if options.dct_scaling and options.size is not None:
        reduction = _reduction(header, options.size)
    image: Array | None = None
    if wanted != 1 and header.components == 3 and not reduction and jpeg_decoder.available():
        room = _room(header, options, out)
        image = room if jpeg_decoder.decode_rgb(raw, room) else None
    if image is None:
        check_coded_data(raw, header, name)
        flags = (_READ_JPEG_GRAY if wanted == 1 else _READ_JPEG) | reduction
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), flags)
        if image is not None and wanted != 1 and _READ_RGB is None:
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    if image is not None and wanted == 4:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    return image


def _room(header: Header, options: ImageOptions, out: Array | None) -> Array:
    """Memory for a JPEG's pixels: `out`, or a temporary array if another step follows."""
    shape = header.height, header.width, 3
    upright = shape[:2] if header.orientation < 5 else (header.width, header.height)
    copied = options.channels == 4 or header.orientation != 1
    copied |= options.rescale is not None or options.dtype not in (None, np.dtype(np.uint8))
    if copied or options.size not in (None, upright):
        return jpeg_decoder.lent(shape)
    if out is not None and fits(out, shape, np.dtype(np.uint8)):
        return out
    return np.empty(shape, np.uint8)


def _stored(raw: bytes, header: Header | None, options: ImageOptions, name: str) -> Stored:
    """The image with its stored channels: if asked for colours, OpenCV would swap, blend or drop some."""
    check_coded_data(raw, header, name)
    facts = None if header is None else header.facts
    turn = 1 if header is None else header.orientation
    image: Array | None
    if isinstance(facts, TiffFacts):
        check_page(raw, facts, name)
        reader, alpha = reader_of(facts), facts.extra[:1] in ((1,), (2,))
        if reader == "tifffile":
            image = page_by_tifffile(raw, facts, name)
            return Stored(image, turn, bgr=False, colours=facts.colours, alpha=alpha)
        if reader == "opencv":
            image = page_by_opencv(raw, facts, name)
            if image is None:
                raise _undecodable(raw, header, name)
            return Stored(image, 1, bgr=True, colours=facts.colours, alpha=alpha)
    if header is not None and not _opencv_reads(header):
        image = stored_by_pillow(raw, header, options.max_pixels, name)
        return _as_stored(image, turn=1, bgr=False)
    if isinstance(facts, PngFacts) and facts.animated:
        raw = still(raw)
    image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise _undecodable(raw, header, name)
    if isinstance(facts, PngFacts) and facts.clear is not None and options.channels == 4:
        image = with_clear_gray(image, facts.clear, raw[24])
    return _as_stored(image, turn, bgr=True)


def _as_stored(image: Array, turn: int, bgr: bool) -> Stored:
    channels = 1 if image.ndim == 2 else image.shape[2]
    return Stored(image, turn, bgr, colours=1 if channels < 3 else 3, alpha=channels in (2, 4))


def _opencv_reads(header: Header) -> bool:
    """Whether every supported OpenCV version decodes it to the stored pixels."""
    if isinstance(header.facts, BmpFacts):
        return header.facts.plain
    return header.kind in ("png", "webp")


def _reduction(header: Header, size: tuple[int, int]) -> int:
    """The flag of the largest reduction whose result is at least `size`; 0 for none."""
    height, width = size if header.orientation < 5 else size[::-1]
    for factor in (8, 4, 2):
        if header.height >= factor * height and header.width >= factor * width:
            return _REDUCED[factor]
    return 0


# EXIF orientation -> the operation that makes the stored image upright
_TURNS: dict[int, Callable[[Array], Array]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


# The same for bands and dtypes that OpenCV does not rotate.
_ANY_TURNS: dict[int, Callable[[Array], Array]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}


def _turned(image: Array, turn: int) -> Array:
    if image.dtype in FAST_TYPES and (image.ndim == 2 or image.shape[2] <= 4):
        return _TURNS[turn](image)
    return np.ascontiguousarray(_ANY_TURNS[turn](image))


# Options with a cast -> the dtype and name of the first image that was read with them.
_depths: dict[ImageOptions, tuple[np.dtype[Any], str]] = {}


def _note_depth(options: ImageOptions, dtype: np.dtype[Any], name: str) -> None:
    """Warn if 8-bit and 16-bit images are cast with the same options: the latter are 257 times as bright."""
    if len(_depths) > 64:
        _depths.clear()
    first, other = _depths.setdefault(options, (dtype, name))
    if first != dtype and {first, dtype} == _MIXED:
        warn(
            f"{name} is {dtype}, but {other} is {first}: after the same cast, one is 257 times as "
            "bright as the other. Pass depth=8, which converts 16-bit images to 8 bits.",
            once="images of 8 and 16 bits that are cast",
        )


_MIXED = {np.dtype(np.uint8), np.dtype(np.uint16)}


def _cast(image: Array, options: ImageOptions, out: Array | None) -> Array:
    """Scale and cast in a single pass, into `out` if the result fits."""
    dtype = options.dtype or np.dtype(np.float32)
    target = out if out is not None and fits(out, image.shape, dtype) else None
    if target is None:
        target = np.empty(image.shape, dtype)
    if options.rescale is None:
        np.copyto(target, image, casting="unsafe")
        return target
    # float32 holds all 8-bit and 16-bit values; float64 is needed only for larger input or output.
    wide = np.float64 in (dtype, image.dtype) or image.dtype in (np.int32, np.uint32)
    working = np.dtype(np.float64 if wide else np.float32)
    factor = working.type(options.rescale)
    np.multiply(image, factor, out=target, dtype=working, casting="unsafe")
    return target
