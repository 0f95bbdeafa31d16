"""Images decoded into arrays, as their options say. No order, no threads, no Keras."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from kloaders.core.arrays import Array
from kloaders.formats.errors import DecodeError
from kloaders.formats.files import fits, read_bytes
from kloaders.formats.image_bounds import check_whole, too_large
from kloaders.formats.image_headers import Header, header_of
from kloaders.formats.image_resize import resized
from kloaders.formats.options import ImageOptions
from kloaders.formats.pillow_images import decoded_by_pillow, same_by_opencv

__all__ = [
    "check_picture",
    "decode_image",
    "picture_of",
    "read_image",
]


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
# The same for RGB order, which is what arrays of pixels have.
_PIXEL_CONVERSIONS: dict[tuple[int, int], int] = {
    (1, 3): cv2.COLOR_GRAY2RGB,
    (1, 4): cv2.COLOR_GRAY2RGBA,
    (3, 1): cv2.COLOR_RGB2GRAY,
    (3, 4): cv2.COLOR_RGB2RGBA,
    (4, 1): cv2.COLOR_RGBA2GRAY,
    (4, 3): cv2.COLOR_RGBA2RGB,
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
    header = header_of(raw)
    check_whole(raw, header, options, name)
    turn = 1
    image: Array | None
    if options.reader == "pillow" and not same_by_opencv(raw, header, options.channels):
        image = decoded_by_pillow(raw, header, options, name)
    else:
        image, turn = _decoded(raw, header, options, out, name)
    if image is None:
        raise _undecodable(raw, header, name)
    if image.shape[0] * image.shape[1] > options.max_pixels:  # a header not known here
        raise too_large(image.shape[0], image.shape[1], options, name)
    if turn != 1:
        image = _TURNS[turn](image)
    return _finished(image, options, out, name)


def picture_of(
    pixels: Array, options: ImageOptions, out: Array | None = None, name: str = "image"
) -> Array:
    """`decode_image` of an image that is not encoded: (height, width) or (height, width, channels).

    pixels: gray, RGB or RGBA, by its channels. Other arguments as in `decode_image`.

    Raises DecodeError where OpenCV cannot make these channels those of `options`.
    """
    image = pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
    stored = image.shape[2]
    if options.channels not in (None, stored):
        conversion = _PIXEL_CONVERSIONS.get((stored, options.channels or stored))
        if conversion is None or image.dtype not in _CONVERTIBLE:
            raise DecodeError(
                f"{name} stores {stored} channels of {image.dtype}, and OpenCV cannot make them "
                f"{options.channels}. Pass channels=None to keep them as they are."
            )
        image = cv2.cvtColor(np.ascontiguousarray(image), conversion)
    return _finished(image, options, out, name)


def _finished(image: Array, options: ImageOptions, out: Array | None, name: str) -> Array:
    """Size, three axes and type, as the options say."""
    size = options.size
    casts = options.rescale is not None or options.dtype not in (None, image.dtype)
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


def check_picture(raw: bytes, name: str) -> None:
    """Raise DecodeError unless this is a whole picture, as far as its header and end tell.

    Takes microseconds: pixels are decoded only where the header is of no kind known here.
    """
    options = ImageOptions(channels=None, max_pixels=2**62)
    header = header_of(raw)
    check_whole(raw, header, options, name)
    if header is None:
        decode_image(raw, options, None, name)


def _undecodable(raw: bytes, header: Header | None, name: str) -> DecodeError:
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
    raw: bytes, header: Header | None, options: ImageOptions, out: Array | None, name: str
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
    if options.depth == 8 and image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
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
        and fits(out, (*image.shape[:2], wanted), image.dtype)
    )
    return cv2.cvtColor(image, conversion, dst=out if direct else None), turn


_CONVERTIBLE = frozenset(np.dtype(name) for name in ("uint8", "uint16", "float32"))


def _reduction(header: Header, size: tuple[int, int]) -> int:
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
