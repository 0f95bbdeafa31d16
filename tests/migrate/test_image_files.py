"""Pixels and labels of files beside those of Keras' iterators."""

import cv2
import numpy as np
import pytest
from PIL import Image

import kloaders as kl
from kloaders.migrate import ImageDataGenerator
from tests.support.keras_images import (
    OLD,
    SIZE,
    all_of_theirs,
    apart,
    assert_same,
    everything,
    photo,
)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos", "hamming", "box"])
@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("size", [(9, 8), (64, 50)])
def test_the_same_pixels(folder, keep, name, crop, size):
    """Bit for bit, smaller and larger, with every filter."""
    arguments = {
        "target_size": size,
        "interpolation": name,
        "keep_aspect_ratio": crop,
        "shuffle": False,
    }
    ours = keep(ImageDataGenerator().flow_from_directory(folder, **arguments))
    assert_same(ours, OLD["Keras 3"]().flow_from_directory(str(folder), **arguments))


# What docs/migrate.md says: levels of 255 between Pillow's filters and OpenCV's, at 64 x 64.
FILTERS = {
    ("bilinear", "bilinear"): 7.9,
    ("bicubic", "bicubic"): 8.9,
    ("lanczos", "lanczos"): 9.2,
    ("bilinear", "area"): 1.8,
    ("bicubic", "area"): 1.4,
    ("hamming", "area"): 0.8,
    ("lanczos", "area"): 1.9,
    ("box", "area"): 0.5,
}


@pytest.mark.parametrize(("theirs", "ours"), FILTERS)
def test_opencvs_filters_are_others(photographs, keep, theirs, ours):
    """As far apart as the page says, where photographs get smaller."""
    flow = OLD["Keras 3"]().flow_from_directory(
        str(photographs / "png"), (64, 64), class_mode=None, shuffle=False, interpolation=theirs
    )
    x, _ = everything(
        keep(
            kl.from_directory(
                photographs / "png",
                size=(64, 64),
                interpolation=ours,
                label_mode=None,
                validation=None,
            )[0]
        )
    )
    assert apart(flow[0], x)[0] == pytest.approx(FILTERS[theirs, ours], abs=0.06)


@pytest.mark.parametrize(("mode", "off"), [("grayscale", 1), ("rgba", 0)])
def test_colour_modes(folder, keep, mode, off):
    """Grey is within a level of Keras'; alpha is full where a file has none."""
    arguments = (SIZE, mode, None, None, 8, False)
    x, _ = everything(keep(ImageDataGenerator().flow_from_directory(folder, *arguments)))
    y, _ = all_of_theirs(OLD["Keras 3"]().flow_from_directory(str(folder), *arguments))
    assert x.shape == y.shape
    assert np.abs(x - y).max() <= off


def test_transparent_files(tmp_path, keep):
    """Alpha is dropped, as Keras does."""
    (tmp_path / "a").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (6, 7, 4), np.uint8)
    assert cv2.imwrite(str(tmp_path / "a" / "0.png"), picture)
    arguments = ((6, 7), "rgb", None, None, 8, False)
    x, _ = everything(keep(ImageDataGenerator().flow_from_directory(tmp_path, *arguments)))
    y, _ = all_of_theirs(OLD["Keras 3"]().flow_from_directory(str(tmp_path), *arguments))
    np.testing.assert_array_equal(x, y)


def test_photographs_are_upright(tmp_path, keep):
    """Keras leaves one lying that was taken with the camera on its side: ours turns it, on purpose."""
    pillow = pytest.importorskip("PIL.Image")
    (tmp_path / "a").mkdir()
    exif = pillow.Exif()
    exif[274] = 6  # turn clockwise
    pillow.fromarray(photo(1, 20, 20)).save(tmp_path / "a" / "0.jpg", exif=exif)
    arguments = ((20, 20), "rgb", None, None, 8, False)
    x, _ = everything(keep(ImageDataGenerator().flow_from_directory(tmp_path, *arguments)))
    y, _ = all_of_theirs(OLD["Keras 3"]().flow_from_directory(str(tmp_path), *arguments))
    np.testing.assert_array_equal(x[0], np.rot90(y[0], -1))


def written(folder, kind):
    """The folder of a class with one file in it, of a kind that two decoders may read differently."""
    noise, path = np.random.default_rng(0), folder / kind / "a"
    path.mkdir(parents=True)
    values = noise.integers(0, 256, (20, 24, 4), np.uint8)
    deep = noise.integers(0, 65536, (20, 24, 4), np.uint16)
    colour, gray = Image.fromarray(values[..., :3]), Image.fromarray(values[..., 0])
    if kind == "dim gray 16 bits.png":  # below and above 255
        assert cv2.imwrite(str(path / "x.png"), deep[..., 0] // 150)
    elif "16 bits" in kind:
        channels = {"gray": 0, "colour": slice(3), "alpha": slice(4)}[kind.split(" ", 1)[0]]
        assert cv2.imwrite(str(path / f"x{kind[-4:]}"), deep[..., channels])
    elif kind == "float.tif":
        assert cv2.imwrite(str(path / "x.tif"), deep[..., 0].astype(np.float32) / 100 - 50)
    elif kind == "gray with alpha.png":
        Image.fromarray(values[..., :2], "LA").save(path / "x.png")
    elif kind == "gray with alpha.tif":
        Image.fromarray(values[..., :2], "LA").save(path / "x.tif")
    elif kind == "palette with alpha.png":
        Image.fromarray(values, "RGBA").quantize(16).save(path / "x.png")
    elif kind == "one bit.png":
        gray.convert("1").save(path / "x.png")
    elif kind == "CMYK.jpg":
        colour.convert("CMYK").save(path / "x.jpg", quality=95)
    elif kind == "gray.jpg":
        gray.save(path / "x.jpg")
    elif kind == "palette.bmp":
        colour.quantize(16).save(path / "x.bmp")
    else:
        colour.save(path / f"x{kind[-4:]}")
    return str(folder / kind)


KINDS = [
    *("gray 16 bits.png", "dim gray 16 bits.png", "colour 16 bits.png", "alpha 16 bits.png"),
    *("gray 16 bits.tif", "colour 16 bits.tif", "float.tif", "gray with alpha.tif"),
    *("gray with alpha.png", "palette with alpha.png", "one bit.png", "colour.png"),
    *("CMYK.jpg", "gray.jpg", "colour.jpg", "palette.bmp", "colour.bmp", "colour.tif"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["rgb", "rgba", "grayscale"])
def test_any_kind_of_image_has_keras_values(tmp_path, keep, kind, mode):
    """16 bits, palettes, CMYK, gray of colour: bit for bit, as stored and in another size."""
    root = written(tmp_path, kind)
    for size, name in (((20, 24), "nearest"), ((11, 9), "nearest"), ((11, 9), "bilinear")):
        arguments = {"target_size": size, "color_mode": mode, "interpolation": name}
        ours = keep(ImageDataGenerator().flow_from_directory(root, shuffle=False, **arguments))
        assert_same(ours, OLD["Keras 3"]().flow_from_directory(root, shuffle=False, **arguments))


def test_the_kinds_differ_where_opencv_reads_them(tmp_path):
    """The test above compares something: OpenCV's own pixels are others for some of these."""
    for kind in ("gray 16 bits.png", "alpha 16 bits.png", "colour 16 bits.tif"):
        file = f"{written(tmp_path, kind)}/a/x{kind[-4:]}"
        ours, pillow = (
            kl.PathSequenceLoader([file], channels=4, dtype="float32", reader=reader, workers=0)[0]
            for reader in ("opencv", "pillow")
        )
        assert np.abs(ours - pillow).max() >= 1


def test_values_that_are_cut_off_are_reported(tmp_path, keep, caplog, monkeypatch):
    """Keras turns gray of 16 bits into white without a word: ours does so with one."""
    monkeypatch.setattr("kloaders.core.messages._logged", set())
    caplog.set_level("INFO", "kloaders")
    root = written(tmp_path, "gray 16 bits.png")
    loader = keep(ImageDataGenerator().flow_from_directory(root, (20, 24), "grayscale"))
    assert loader[0][0].max() > 60_000
    assert "clips its values" not in caplog.text
    loader = keep(ImageDataGenerator().flow_from_directory(root, (20, 24)))
    assert loader[0][0].max() == 255
    assert "clips its values at 255, and so does Keras. channels=1 keeps 16 bits" in caplog.text


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("class_mode", ["categorical", "sparse", "input"])
def test_labels_have_the_dtype_of_the_generator(folder, keep, dtype, class_mode):
    """As Keras' batches do: numbers, one-hot rows and images."""
    ours = keep(
        ImageDataGenerator(dtype=dtype, rescale=1 / 3).flow_from_directory(
            folder, SIZE, class_mode=class_mode, shuffle=False
        )
    )
    theirs = OLD["Keras 3"](dtype=dtype, rescale=1 / 3)
    assert_same(
        ours,
        theirs.flow_from_directory(str(folder), SIZE, class_mode=class_mode, shuffle=False),
    )
