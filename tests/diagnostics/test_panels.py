"""Each kind of array is drawn as what it is."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.panels import SampleRow, cell_of, number_text, spectrogram
from kloaders.diagnostics.show import rows_of
from tests.support.figures import IMAGES

pytest.importorskip("matplotlib")

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("x", "kinds"),
    [
        (IMAGES, ["image"]),
        (np.moveaxis(IMAGES, -1, 1), ["image"]),
        (IMAGES[..., 0], ["image"]),
        (IMAGES[..., :1].astype("f4") / 255, ["image"]),
        (IMAGES > 100, ["image"]),
        (IMAGES.astype("uint16") * 200, ["image"]),
        (IMAGES / 127.5 - 1, ["image"]),
        (np.stack([IMAGES] * 5, 1), ["image"]),
        (RNG.normal(size=(6, 20, 40)), ["heat"]),
        (RNG.normal(size=(6, 9, 20, 40)), ["slices"]),
        (RNG.normal(size=(6, 2, 16, 16, 12)), ["slices"]),
        (RNG.normal(size=(6, 16, 16, 12)), ["slices"]),
        (RNG.normal(size=(6, 4000)), ["lines", "spectrogram"]),
        (RNG.normal(size=(6, 1000, 2)).astype("f4"), ["lines", "spectrogram"]),
        (RNG.integers(-99, 99, (6, 1000, 1), "int16"), ["lines", "spectrogram"]),
        ({"a": RNG.normal(size=(6, 1000, 1)), "b": IMAGES}, ["lines", "spectrogram", "image"]),
        (RNG.normal(size=(6, 16, 16)) * 1j, ["heat"]),
        (RNG.normal(size=(6, 50, 3)), ["lines"]),
        (RNG.normal(size=(6, 50)), ["lines"]),
        (RNG.normal(size=(6, 5)), ["text"]),
        (RNG.integers(0, 99, (6, 50)), ["text"]),
        (np.arange(6), ["text"]),
        ((IMAGES, RNG.normal(size=(6, 3))), ["image"]),
        ({"a": IMAGES, "b": RNG.normal(size=(6, 50))}, ["image", "lines"]),
        (np.zeros((6, 8, 8)), ["heat"]),
        (np.full((6, 8, 8, 3), np.nan, "f4"), ["image"]),
    ],
)
def test_any_tensor_is_drawn_as_what_it_is(x, kinds, tmp_path):
    """And the figure can be written."""
    loader = kl.ArraySequenceLoader(x, np.arange(6), 6)
    (row, *_) = rows_of(loader, 0, 0, 1)
    assert [panel.kind for panel in cell_of(row, None, None).panels] == kinds
    loader.show(save=tmp_path / "batch.png")
    assert (tmp_path / "batch.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("y", "names", "said"),
    [
        (np.full(6, 1), ["cat", "dog"], ["dog"]),
        (np.full((6, 1), 1.0), ["cat", "dog"], ["dog"]),
        (np.full(6, 1), None, ["1"]),
        (np.full(6, 0.123456), None, ["0.1235"]),
        (np.full(6, 1234567.0), None, ["1234567"]),
        (np.tile([0.0, 1, 0], (6, 1)), ["a", "b", "c"], ["b"]),
        (np.tile([1, 1, 0], (6, 1)), ["a", "b", "c"], ["a, b"]),
        (np.tile([0, 0, 0], (6, 1)), ["a", "b", "c"], ["none"]),
        (np.tile([0.5, 2.25], (6, 1)), None, ["0.5 2.25"]),
        ((np.full(6, 1), np.full(6, 0.5)), ["cat", "dog"], ["y[0]: dog", "y[1]: 0.5"]),
        ({"a": np.full(6, 7)}, None, ["7"]),
    ],
)
def test_labels_in_words(y, names, said):
    """A class has its name, one-hot rows too; several outputs have theirs."""
    loader = kl.ArraySequenceLoader(IMAGES, y, 6, sample_weights=np.full(6, 0.5))
    loader.class_names = names
    (row, *_) = rows_of(loader, 0, 0, 1)
    assert cell_of(row, names, None).caption == [*said, "weight 0.5"]


def test_a_volume_is_drawn_as_slices_without_its_ends():
    """Which ones, and how many there are, is in the title; a mask of the volume lies over the same slices."""
    volume = np.arange(12.0)[:, None, None] * np.ones((12, 8, 8))
    mask = np.zeros((12, 8, 8), "uint8")
    mask[7] = 2
    for x, y in (
        (volume, mask),
        (volume[..., None], mask[..., None]),
        (volume, np.eye(3, dtype="f4")[mask]),
    ):
        (panel,) = cell_of(SampleRow(x, y, None, "a"), None, None).panels
        assert panel.title == "slices 2, 4, 7, 9 of 12"
        shown = panel.values.reshape(16, 16)
        assert shown[::8, ::8].tolist() == [[2, 4], [7, 9]]
        assert panel.mask[::8, ::8].tolist() == [[0, 0], [2, 0]]


def test_a_film_is_drawn_as_frames():
    """From the first to the last; wide ones below each other."""
    film = np.arange(5, dtype="uint8")[:, None, None, None] * np.ones((5, 4, 12, 3), "uint8")
    (panel,) = cell_of(SampleRow(film, None, None, "a"), None, None).panels
    assert panel.title == "frames 0, 1, 2, 4 of 5"
    assert panel.values[::4, 0, 0].tolist() == [0, 1, 2, 4]


def test_a_tone_is_a_line_of_its_frequency():
    """Row 0 is frequency 0, and the last is half the sampling rate."""
    tone = np.sin(np.pi * 0.5 * np.arange(8000))[:, None]  # a quarter of the sampling rate
    drawn = spectrogram(tone)
    assert drawn.argmax(0).tolist() == [len(drawn) // 2] * drawn.shape[1]
    assert drawn.max() == 0
    assert spectrogram(np.zeros((1000, 1))).max() == -80


def test_what_did_not_load_is_named():
    cell = cell_of(SampleRow(None, None, None, "a/b.png", "ValueError: " + "x" * 900), None, None)
    assert (cell.panels[0].kind, cell.caption, cell.name) == (
        "error",
        ["failed to load"],
        "a/b.png",
    )
    assert cell.panels[0].values.startswith("ValueError: xxx")
    assert len(cell.panels[0].values) < 310


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (np.float32(0.5), "0.5"),
        (123456.7, "123457"),
        (1.5e-9, "1.5e-09"),
        (2e12, "2e+12"),
        (7, "7"),
    ],
)
def test_numbers_keep_their_digits_before_the_point(number, said):
    assert number_text(number) == said
