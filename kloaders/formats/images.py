"""Images decoded into arrays, as their options say. No order, no threads, no Keras."""

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


# Missing from OpenCV 4.10. Without it a JPEG comes as BGR and is swapped in place.
_READ_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)

# The decoder never turns an image: OpenCV turns JPEG always, PNG and WebP in late versions
# only, and none of them with IMREAD_UNCHANGED. Turned here, all versions agree.
_READ_JPEG = cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_COLOR if _READ_RGB is None else _READ_RGB)
_READ_JPEG_GRAY = cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_GRAYSCALE

# With IMREAD_COLOR_RGB the bit beside the factor that means BGR must not be set.
_REDUCED = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def read_image(path: str, options: ImageOptions, out: Array | None = None) -> Array:
    """`decode_image` of a file's content. OSError where it cannot be read."""
    return decode_image(read_bytes(path), options, out, path)


def decode_image(
    raw: bytes, options: ImageOptions, out: Array | None = None, name: str = "image"
) -> Array:
    """One image as (height, width, channels), RGB or RGBA; three axes for gray as well.

    raw: the encoded bytes; the kind is taken from them, never from the name.
    out: an array the caller would like filled. Where the result has its shape and dtype it is
        written there and `out` itself is returned; otherwise a new array is, and what `out`
        then holds is undefined. The caller tells by `is`.
    name: what messages call the image.

    The first frame of an animation is taken (of a PNG its default image), and the first page of a
    TIFF unless `pages` says otherwise. Images are turned as EXIF says, wherever a file has it, or
    else XMP. OpenCV decodes; Pillow and tifffile do where it gives other pixels than are stored:
    some TIFF and BMP files, GIF, animated WebP, CMYK. 16-bit PNG and TIFF stay uint16, float TIFF
    stays float, and TIFFs have as many bands as stored with channels=None. channels=3 drops
    transparency without blending; channels=4 makes an opaque image's alpha full (255, 65535, 1.0).
    Gray with alpha comes as RGBA from PNG and as two bands from TIFF, gray WebP as colour, CMYK and
    palettes as RGB(A).

    Raises DecodeError for whatever cannot be decoded whole: a truncated file never comes back
    as half an image. Damage inside is found where the format has checksums (PNG, TIFF by deflate);
    others have none, and changed bytes may decode to changed pixels. UnsupportedError, which is a
    DecodeError, for a variant that nothing here reads right.
    """
    if not isinstance(raw, bytes):
        raw = bytes(raw)
    try:  # not _opencv_errors, which makes a generator per image
        return _picture(raw, options, out, name)
    except cv2.error as error:
        raise _opencv_error(error, name) from error


@contextlib.contextmanager
def _opencv_errors(name: str) -> Iterator[None]:
    """Errors of OpenCV, as one that names the image."""
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
    """(pages, height, width, channels); one page if it is not a TIFF."""
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
            f"{name} has {len(offsets)} pages with {total} pixels, and max_pixels allows "
            f"{options.max_pixels}. Pass max_pixels={total} if you trust it."
        )
    pages: list[Array] = []
    for k, page in enumerate(_pages(raw, offsets, options, rows, name)):
        if pages and (page.shape, page.dtype) != (pages[0].shape, pages[0].dtype):
            raise DecodeError(
                f"{name}, page {k + 1} of {len(offsets)}, is {page.dtype} of shape {page.shape}, "
                f"and the first page is {pages[0].dtype} of shape {pages[0].shape}: pass size=, or "
                'pages="first".'
            )
        pages.append(page)
    if rows is not None and all(np.may_share_memory(page, rows[k]) for k, page in enumerate(pages)):
        return rows
    return np.stack(pages)


def each_page(raw: bytes, options: ImageOptions, name: str) -> Iterator[Array]:
    """The image, or one page of a TIFF after another: what `decode_image` gives, raises and takes."""
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


# The first file whose pages are left out, once it was reported: to count pages takes time.
_reported: list[str] = []


def _report_pages(raw: bytes, name: str) -> None:
    if _reported:
        return
    pages = sum(1 for _ in page_offsets(raw))
    if pages > 1:
        _reported.append(name)
        warn(
            f"{name} has {pages} pages, and only the first is read. "
            'pages="all" reads all of them, as (pages, height, width, channels).',
            once="pages of a TIFF",
        )


def _finished(
    raw: bytes, header: Header | None, options: ImageOptions, out: Array | None, name: str
) -> Array:
    """One image in its size, channels and type."""
    if options.reader == "pillow" and not same_by_opencv(raw, header, options.channels):
        check_coded_data(raw, header, name)
        image, turn = decoded_by_pillow(raw, header, options, name), 1
    else:
        image, turn = _decoded(raw, header, options, out, name)
    if image.shape[0] * image.shape[1] > options.max_pixels:  # a header not known here
        raise too_large(image.shape[0], image.shape[1], options.max_pixels, name)
    if turn != 1:
        image = _turned(image, turn)
    return _fitted(image, options, out, name)


def picture_of(
    pixels: Array, options: ImageOptions, out: Array | None = None, name: str = "image"
) -> Array:
    """`decode_image` of an image that is not encoded: (height, width) or (height, width, channels).

    pixels: gray, RGB or RGBA, by its channels. Other arguments as in `decode_image`.

    Raises:
        DecodeError: OpenCV cannot make these channels those of `options`.
    """
    image = pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
    colours = {1: 1, 2: 1, 3: 3, 4: 3}.get(image.shape[2], 0)
    stored = Stored(np.ascontiguousarray(image), 1, False, colours, image.shape[2] in (2, 4))
    return _fitted(in_channels(stored, options.channels, None, name), options, out, name)


def _fitted(image: Array, options: ImageOptions, out: Array | None, name: str) -> Array:
    """Size, three axes and type, as the options say."""
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
    """Names and versions of what decodes images: with others, pixels may be others."""
    found = (cv2.__version__, f"pillow {version('pillow')}", f"tifffile {version('tifffile')}")
    return (*found, f"simplejpeg {version('simplejpeg')}") if jpeg_decoder.available() else found


def check_picture(raw: bytes, name: str) -> None:
    """Raise DecodeError unless this is a whole image, as far as its header and end tell.

    Takes microseconds: pixels are decoded only where the header is of no kind known here.
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
            f"{name} is no picture that OpenCV knows, or cut short: it begins with {raw[:12]!r:.80}. "
            "Pass decode=, or override load_sample(path), for a format of your own."
        )
    return DecodeError(
        f"{name} ({header.kind}, {header.height} x {header.width}, {len(raw)} bytes) is damaged, "
        "cut short, or of a variant that OpenCV does not read. "
        "Copy it again, save it as PNG, or leave it out."
    )


def _decoded(
    raw: bytes, header: Header | None, options: ImageOptions, out: Array | None, name: str
) -> tuple[Array, int]:
    """Pixels in RGB order with the channels wanted, and how they are still to be turned."""
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
            f"{name} stores 16 bits, and depth=8 keeps the upper 8 of them, as tf.io.decode_image "
            "does: depth=None keeps all.",
            once="images of 16 bits brought to 8",
        )
    last_step = turn == 1 and options.rescale is None and options.size in (None, image.shape[:2])
    direct = last_step and options.dtype in (None, stored.image.dtype)
    return in_channels(stored, wanted, out if direct else None, name), turn


def _jpeg(
    raw: bytes, header: Header, options: ImageOptions, out: Array | None, name: str
) -> Array | None:
    """A gray or colour JPEG whose decoder converts it; None if that fails."""
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
    """The memory for a JPEG's pixels: `out`, or a temporary array if a copy follows."""
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
    """Unchanged channels: asked for colours, OpenCV would swap, blend or drop some."""
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
    """Whether every OpenCV that is allowed decodes it, to the pixels that are stored."""
    if isinstance(header.facts, BmpFacts):
        return header.facts.plain
    return header.kind in ("png", "webp")


def _reduction(header: Header, size: tuple[int, int]) -> int:
    """The flag of the largest reduction that leaves at least `size`, 0 for none."""
    height, width = size if header.orientation < 5 else size[::-1]
    for factor in (8, 4, 2):
        if header.height >= factor * height and header.width >= factor * width:
            return _REDUCED[factor]
    return 0


# EXIF's number -> what makes the stored image upright
_TURNS: dict[int, Callable[[Array], Array]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


# The same for bands and types that OpenCV does not turn.
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


# Options that cast -> the type of the first image read with them, and its name.
_depths: dict[ImageOptions, tuple[np.dtype[Any], str]] = {}


def _note_depth(options: ImageOptions, dtype: np.dtype[Any], name: str) -> None:
    """Report images of 8 and of 16 bits that are cast alike: the latter are 257 times as bright."""
    if len(_depths) > 64:
        _depths.clear()
    first, other = _depths.setdefault(options, (dtype, name))
    if first != dtype and {first, dtype} == _MIXED:
        warn(
            f"{name} is {dtype} and {other} is {first}: cast alike, one of them is 257 times as "
            "bright as the other. Pass depth=8, which brings images of 16 bits to 8.",
            once="images of 8 and 16 bits that are cast",
        )


_MIXED = {np.dtype(np.uint8), np.dtype(np.uint16)}


def _cast(image: Array, options: ImageOptions, out: Array | None) -> Array:
    """Scale and change the type in one pass, into `out` where that fits."""
    dtype = options.dtype or np.dtype(np.float32)
    target = out if out is not None and fits(out, image.shape, dtype) else None
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
