"""Panels in a figure."""

import sys

import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.drawing import figure_class
from tests.support.figures import IMAGES, drawn, patches, texts

pytest.importorskip("matplotlib")


def test_masks_lie_over_their_pictures():
    """One colour a class, and none for class 0; one-hot masks are the same masks."""
    mask = np.zeros((6, 32, 32), "uint8")
    mask[:, 4:8] = 1
    mask[:, 20:30] = 2
    one_hot = np.eye(3, dtype="f4")[mask]
    for y in (mask, mask[..., None], one_hot):
        figure = kl.ArraySequenceLoader(IMAGES, y, 6).show(samples=1)
        _picture, over = drawn(figure)
        assert over.shape == (32, 32, 4)
        assert (over[..., 3] > 0).sum() == (mask[0] > 0).sum()
        assert len(np.unique(over[mask[0] > 0], axis=0)) == 2


@pytest.mark.parametrize(
    ("form", "box"),
    [
        ("xyxy", (4, 8, 20, 24)),
        ("xywh", (4, 8, 16, 16)),
        ("yxyx", (8, 4, 24, 20)),
        ("center_xywh", (12, 16, 16, 16)),
        ("rel_xyxy", (4 / 32, 8 / 32, 20 / 32, 24 / 32)),
        ("rel_center_xywh", (12 / 32, 16 / 32, 0.5, 0.5)),
        (None, (4, 8, 20, 24)),
        (None, (4 / 32, 8 / 32, 20 / 32, 24 / 32)),
    ],
)
def test_boxes_are_where_they_are_said_to_be(form, box):
    """In any form, with the class's name, and without the rows that pad."""
    boxes = np.tile(np.array([[box, (0, 0, 0, 0)]], "f4"), (6, 1, 1))
    y = {"boxes": boxes, "labels": np.tile([[1, -1]], (6, 1))}
    loader = kl.ArraySequenceLoader(IMAGES, y, 6)
    loader.class_names = ["cat", "dog"]
    figure = loader.show(samples=1, box_format=form)
    (patch,) = patches(figure)
    got = (patch.get_x() + 0.5, patch.get_y() + 0.5, patch.get_width(), patch.get_height())
    assert got == pytest.approx((4, 8, 16, 16), abs=1e-4)
    assert "dog" in texts(figure)
    assert any(t.startswith("1 box\n") for t in texts(figure))


def test_what_is_learnt_back_is_drawn_beside():
    """An autoencoder's y is a picture of its own, no mask."""
    loader = kl.ArraySequenceLoader(IMAGES, IMAGES.astype("f4") / 255, 6)
    assert len(drawn(loader.show(samples=2))) == 4


def test_rows_of_numbers_are_a_table():
    """One row a sample, the label in the last column."""
    x = np.arange(12.0).reshape(4, 3)
    loader = kl.ArraySequenceLoader(x, np.array([0, 1, 0, 1]), 4, shuffle=False)
    loader.class_names = ["no", "yes"]
    (axis,) = loader.show().axes
    (table,) = axis.tables
    cells = {key: cell.get_text().get_text() for key, cell in table.get_celld().items()}
    assert [cells[0, k] for k in range(4)] == ["x[0]", "x[1]", "x[2]", "y"]
    assert [cells[2, k] for k in range(4)] == ["3.0", "4.0", "5.0", "yes"] or [
        cells[2, k] for k in range(4)
    ] == ["3", "4", "5", "yes"]


def test_a_notebook_shows_the_figure():
    """Without pyplot, which would keep it open."""
    figure = kl.ArraySequenceLoader(IMAGES, batch_size=6).show()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_without_matplotlib_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    figure_class.cache_clear()
    with pytest.raises(ImportError, match=r'pip install "matplotlib>=3\.8"'):
        kl.ArraySequenceLoader(IMAGES, batch_size=6).show()
    figure_class.cache_clear()
