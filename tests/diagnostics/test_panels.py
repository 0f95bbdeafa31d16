"""Each kind of array is drawn as what it is."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.panels import cell_of
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
        (RNG.normal(size=(6, 9, 20, 40)), ["heat"]),
        (RNG.normal(size=(6, 16, 16, 12)), ["heat"]),
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
