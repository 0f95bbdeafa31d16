"""Pages of TIFF files: every variant is read right, or refused by name."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import numpy as np
import pytest

from kloaders.formats.errors import DecodeError, UnsupportedError
from kloaders.formats.images import decode_image
from kloaders.formats.options import ImageOptions
from kloaders.formats.tiff_header import tiff_facts
from kloaders.formats.tiff_images import reader_of
from tests.support.odd_images import HEIGHT, WIDTH, bands, tiff_of

STORED = ImageOptions(channels=None)
TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
# Compressed without help of imagecodecs.
PACKINGS: list[dict[str, Any]] = [
    {},
    {"rowsperstrip": 3},
    {"tile": (16, 16)},
    {"compression": "deflate", "rowsperstrip": 3},
]


def read(raw: bytes, **options: Any) -> Any:
    return decode_image(raw, ImageOptions(**{"channels": None, **options}), name="x.tif")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_bands_of_every_type(dtype: str, planar: str) -> None:
    """One to six bands, in pixels or planes, strips or tiles: value by value as they were written."""
    for count, packing in itertools.product((1, 2, 3, 4, 6), PACKINGS):
        image = bands(count, dtype)
        got = read(tiff_of(image, planarconfig=planar, **packing))
        assert got.dtype == image.dtype
        np.testing.assert_array_equal(got, image)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("extra", [None, "unassalpha", "assocalpha"])
def test_colours_of_every_type(dtype: str, planar: str, extra: str | None) -> None:
    """Red is first, alpha multiplies nothing, and what it has multiplied stays as it is stored."""
    for packing in PACKINGS:
        image = bands(4 if extra else 3, dtype)
        options = {"extrasamples": [extra]} if extra else {}
        raw = tiff_of(image, "rgb", planarconfig=planar, **packing, **options)
        np.testing.assert_array_equal(read(raw), image)
        np.testing.assert_array_equal(read(raw, channels=3), image[..., :3])


@pytest.mark.parametrize("compression", ["lzw", "packbits"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_other_compressions(compression: str, dtype: str) -> None:
    pytest.importorskip("imagecodecs", reason="writes such files")
    for count, photometric in ((1, "minisblack"), (3, "rgb"), (4, "rgb"), (3, "minisblack")):
        image = bands(count, dtype)
        raw = tiff_of(image, photometric, compression=compression, rowsperstrip=3)
        np.testing.assert_array_equal(read(raw), image)


def test_bands_in_other_numbers_of_channels() -> None:
    """Alpha beside gray and colours is known; bands that are no colours are refused by name."""
    gray = bands(2)
    raw = tiff_of(gray, extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read(raw), gray)
    np.testing.assert_array_equal(read(raw, channels=1), gray[..., :1])
    np.testing.assert_array_equal(read(raw, channels=3), np.repeat(gray[..., :1], 3, axis=2))
    np.testing.assert_array_equal(read(raw, channels=4), gray[..., [0, 0, 0, 1]])
    more = bands(5)
    raw = tiff_of(more, "rgb", extrasamples=["unassalpha", "unspecified"])
    np.testing.assert_array_equal(read(raw), more)
    np.testing.assert_array_equal(read(raw, channels=3), more[..., :3])
    np.testing.assert_array_equal(read(raw, channels=4), more[..., :4])
    raw = tiff_of(bands(4))
    np.testing.assert_array_equal(read(raw, channels=4), bands(4))
    for channels in (1, 3):
        with pytest.raises(DecodeError, match=r"x.tif stores 4 bands.*not colours.*channels=None"):
            read(raw, channels=channels)


def test_white_is_zero() -> None:
    """Black comes as 0, whoever reads it."""
    for dtype in ("uint8", "uint16", "uint32"):
        image = bands(1, dtype)
        got = read(tiff_of(image, "miniswhite"))
        np.testing.assert_array_equal(got, np.iinfo(dtype).max - image)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes(bits: int) -> None:
    """Of two colours as well as of 256."""
    colours = np.random.default_rng(1).integers(0, 256, (2**bits, 3), np.uint8)
    numbers = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 2**bits
    raw = _palette_tiff(numbers.astype(np.uint8), colours, bits)
    np.testing.assert_array_equal(read(raw), colours[numbers])


def _palette_tiff(numbers: Any, colours: Any, bits: int) -> bytes:
    """By hand: uncompressed, one strip."""
    height, width = numbers.shape
    spread = np.unpackbits(numbers[..., None], axis=2)[..., 8 - bits :].reshape(height, -1)
    pixels = np.packbits(spread, axis=1).tobytes()
    table = (colours.astype("<u2") * 257).T.tobytes()
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 3),
        (273, 4, 1, 8 + len(table)),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, len(pixels)),
        (320, 3, len(table) // 2, 8),
    ]
    at = 8 + len(table) + len(pixels)
    raw = b"II*\0" + struct.pack("<I", at) + table + pixels + struct.pack("<H", len(tags))
    for tag, kind, count, value in tags:
        raw += struct.pack("<HHII", tag, kind, count, value)
    return raw + bytes(4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_damaged_strips_are_found(dtype: str, count: int) -> None:
    """Deflate has checksums: any other byte in any strip is an error, whoever reads it."""
    photometric = "rgb" if count > 2 else "minisblack"
    options = {"extrasamples": ["unassalpha"]} if count == 4 else {}
    raw = tiff_of(
        bands(count, dtype), photometric, compression="deflate", rowsperstrip=3, **options
    )
    facts = tiff_facts(raw)
    assert facts is not None
    rng = np.random.default_rng(0)
    for begin, size in facts.strips:
        for at in rng.integers(begin, begin + size, 3).tolist():
            damaged = bytearray(raw)
            damaged[at] ^= 1 + at % 255
            with pytest.raises(DecodeError, match=r"x\.tif"):
                read(bytes(damaged))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16"])
def test_strips_that_are_not_there(dtype: str) -> None:
    """Too few bytes of pixels, or none where some should be, give no zeros."""
    image = bands(2, dtype)
    raw = tiff_of(image, rowsperstrip=3)
    facts = tiff_facts(raw)
    assert facts is not None
    with pytest.raises(DecodeError, match=r"x.tif is truncated"):
        read(raw[: facts.strips[-1][0] + 3])
    sizes = struct.pack(f"<{len(facts.strips)}I", *(size for _, size in facts.strips))
    short = struct.pack(f"<{len(facts.strips)}H", *(size for _, size in facts.strips))
    for table, none in ((sizes, bytes(4)), (short, bytes(2))):
        if table in raw:
            with pytest.raises(UnsupportedError, match="part 0 has no pixels in the file"):
                read(raw.replace(table, none + table[len(none) :]))
            break
    else:
        pytest.fail("no table of sizes was found")


def test_variants_that_nothing_reads() -> None:
    """Are refused by name, with what they are."""
    with pytest.raises(UnsupportedError, match=r"x.tif is a TIFF \(CMYK, 4 samples of 16 bits\)"):
        read(tiff_of(bands(4, "uint16"), "separated"))
    complex_ = bands(1, "float32").astype(np.complex64)
    with pytest.raises(UnsupportedError, match=r"x.tif is a TIFF \(gray, 1 samples of 64 bits\)"):
        read(tiff_of(complex_))


def test_who_reads_what() -> None:
    """OpenCV where it is right on every version that is allowed: it is the quickest."""

    def reader(image: Any, *arguments: Any, **options: Any) -> str:
        facts = tiff_facts(tiff_of(image, *arguments, **options))
        assert facts is not None
        return reader_of(facts)

    assert reader(bands(3), "rgb") == "opencv"
    assert reader(bands(1, "uint16")) == "opencv"
    assert reader(bands(3, "float32"), "rgb", compression="deflate") == "opencv"
    assert reader(bands(3), "rgb", compression="deflate") == "pillow"
    assert reader(bands(3), "rgb", planarconfig="separate") == "pillow"
    assert reader(bands(3)) == "tifffile"
    assert reader(bands(1, "int16")) == "tifffile"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("count", "dtype", "photometric"),
    [(1, "uint8", "minisblack"), (6, "int32", "minisblack"), (3, "uint16", "rgb")],
)
def test_turned(orientation: int, count: int, dtype: str, photometric: str) -> None:
    """Whoever reads it, and also with more bands and other types than OpenCV turns."""
    from tests.support.images import turned

    image = bands(count, dtype)
    options = {"extratags": [(274, 3, 1, orientation, True)]}
    for more in ({}, {"compression": "deflate"}):
        raw = tiff_of(image, photometric, **options, **more)
        np.testing.assert_array_equal(read(raw), turned(image, orientation))


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint32", "float16", "uint8"])
def test_any_bands_come_in_another_size(dtype: str) -> None:
    """As each band would by itself; nearest invents no value."""
    image = bands(6, dtype)
    raw = tiff_of(image)
    for size in ((10, 12), (60, 40)):
        got = read(raw, size=size)
        assert (got.shape, got.dtype) == ((*size, 6), image.dtype)
        for band in range(6):
            alone = read(tiff_of(image[..., band : band + 1]), size=size)
            np.testing.assert_array_equal(got[..., band : band + 1], alone)
    assert set(np.unique(read(raw, size=(10, 12), interpolation="nearest"))) <= set(
        np.unique(image)
    )


# ---------------------------------------------------------------------- pages


def pages(count: int = 5, dtype: str = "uint16", channels: int = 1) -> Any:
    return np.stack([bands(channels, dtype, seed) for seed in range(count)])


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(("dtype", "channels"), [("uint16", 1), ("uint8", 1), ("int16", 2)])
def test_all_pages(bigtiff: bool, dtype: str, channels: int) -> None:
    """Each page in its row, into rows that are given where they fit."""
    import io

    import tifffile

    stack = pages(dtype=dtype, channels=channels)
    raw = tiff_of(stack)
    if bigtiff:
        stream = io.BytesIO()
        with tifffile.TiffWriter(stream, bigtiff=True) as writer:
            for page in stack:
                data = page[..., 0] if channels == 1 else page
                contig = "contig" if channels > 1 else None
                writer.write(data, metadata=None, photometric=1, planarconfig=contig)
        raw = stream.getvalue()
    np.testing.assert_array_equal(read(raw, pages="all"), stack)
    np.testing.assert_array_equal(read(raw), stack[0])
    out = np.zeros_like(stack)
    options = ImageOptions(channels=None, pages="all")
    assert decode_image(raw, options, out) is out
    np.testing.assert_array_equal(out, stack)
    wrong = np.zeros_like(stack[:2])
    np.testing.assert_array_equal(decode_image(raw, options, wrong), stack)
    assert read(raw, pages="all", size=(8, 9)).shape == (5, 8, 9, channels)


def test_one_page_of_other_kinds() -> None:
    """So that a folder of both has one shape."""
    from tests.support.images import encoded, picture

    for suffix in (".png", ".bmp"):
        raw = encoded(suffix, picture())
        out = np.zeros((1, 40, 60, 3), np.uint8)
        got = decode_image(raw, ImageOptions(pages="all"), out)
        assert got is out
        np.testing.assert_array_equal(got[0], picture())
        np.testing.assert_array_equal(decode_image(raw, ImageOptions(pages="all")), got)


def test_pages_left_out_are_reported(caplog: Any, monkeypatch: Any) -> None:
    """Once, and not for a preview."""
    monkeypatch.setattr("kloaders.core.messages._logged", set())
    monkeypatch.setattr("kloaders.formats.images._reported", [])
    caplog.set_level("WARNING", "kloaders")
    read(tiff_of(bands(1)))
    assert not caplog.text
    read(tiff_of(pages(3)))
    read(tiff_of(pages(3)))
    assert caplog.text.count('x.tif has 3 pages, but only the first is read. pages="all"') == 1


def test_previews_are_no_pages() -> None:
    import io

    import tifffile

    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(bands(1)[..., 0], metadata=None)
        writer.write(bands(1)[:8, :8, 0], metadata=None, subfiletype=1)
        writer.write(bands(1, seed=1)[..., 0], metadata=None)
    got = read(stream.getvalue(), pages="all")
    np.testing.assert_array_equal(got, pages(2, "uint8"))


def test_pages_that_differ_or_are_too_many() -> None:
    import io

    import tifffile

    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(bands(1)[..., 0], metadata=None)
        writer.write(bands(1)[:8, :8, 0], metadata=None)
    with pytest.raises(DecodeError, match=r"x.tif, page 2 of 2, is uint8 of shape \(8, 8, 1\)"):
        read(stream.getvalue(), pages="all")
    assert read(stream.getvalue(), pages="all", size=(9, 9)).shape == (2, 9, 9, 1)
    with pytest.raises(DecodeError, match=r"x.tif has 5 pages with 3885 pixels.*max_pixels=3885"):
        read(tiff_of(pages()), pages="all", max_pixels=1000)


def test_without_imagecodecs(monkeypatch: Any) -> None:
    """The error has the line that helps."""
    import tifffile

    pytest.importorskip("imagecodecs", reason="writes such files")
    raw = tiff_of(bands(3), compression="lzw")

    def lacking(*arguments: Any, **options: Any) -> Any:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", lacking)
    with pytest.raises(UnsupportedError, match=r'x.tif .*pip install "kloaders\[tiff\]"'):
        read(raw)
