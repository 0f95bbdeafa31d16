"""Panels in a figure."""

import sys

import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.drawing import _shortened, figure_class
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


def test_a_legend_names_the_classes_of_masks():
    """Those that are there, in the colours of the masks, which one can see through."""
    mask = np.zeros((6, 32, 32), "uint8")
    mask[:, 4:8] = 1
    mask[:, 20:30] = 3
    mask[:, 31] = 11
    loader = kl.ArraySequenceLoader(IMAGES, mask, 6)
    loader.class_names = ["ground", "$a$ of $b$", "not there", "_roof"]
    figure = loader.show()
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["ground (not coloured)", r"\$a\$ of \$b\$", " _roof", "class 11"]
    colours = [patch.get_facecolor() for patch in legend.get_patches()]
    over = drawn(figure)[1]
    for kind, colour in ((1, colours[1]), (3, colours[2]), (11, colours[3])):
        assert np.allclose(over[mask[0] == kind][0], colour, atol=0.01)
        assert colour[3] == 0.5
    assert len(set(colours)) == 4


def test_no_text_is_cut_off(tmp_path):
    """Whatever is written lies within the picture, and names keep what differs."""
    long = "2024-05-17T12-00-00-camera-front-left-of-the-vehicle-frame-{:06d}-rectified-and-cropped.png"
    names = [f"/data/of/all/recordings/{k % 2}/{long.format(k)}" for k in range(6)]

    class Drawn(kl.PathSequenceLoader):
        def load_sample(self, path):
            return IMAGES[0]

    loader = Drawn(names, np.arange(6) * 1e6, 6, check_paths=False)
    table = kl.ArraySequenceLoader(
        np.arange(40.0).reshape(4, 10) * 123456, np.zeros(4, int), 4, shuffle=False
    )
    table.class_names = ["a class with a name of several words"]
    extra = kl.ArraySequenceLoader(
        {"image": IMAGES, "income of the household in each year": np.full((6, 9), 12345.5)},
        {"a": np.arange(6), "the name of an output that is long": np.arange(6.0)},
        6,
    )
    for shown in (loader, table, extra):
        figure = shown.show()
        figure.savefig(tmp_path / "a.png")
        width, height = figure.canvas.get_width_height()
        written = [t for axis in figure.axes for t in (*axis.texts, axis._left_title)]
        written += [
            c.get_text() for a in figure.axes for t in a.tables for c in t.get_celld().values()
        ]
        for text in (*figure.texts, *written):
            if text.get_text():
                box = text.get_window_extent()
                assert min(box.x0, box.y0) >= 0, text.get_text()
                assert box.x1 <= width + 1, text.get_text()
                assert box.y1 <= height + 1, text.get_text()
    said = [t.replace("\n", "") for t in texts(loader.show())]
    assert [f"{k:06d}" in "".join(said) for k in range(6)] == [True] * 6
    cells = {c.get_text().get_text() for c in table.show().axes[0].tables[0].get_celld().values()}
    assert "a class with a name of several words" in cells
    assert "4814784" in cells


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["/a/b/cat/1.png", "/a/b/dog/2.png"], ["cat/1.png", "dog/2.png"]),
        (["/a/b/cat/1.png", "/a/b/cat/2.png"], ["cat/1.png", "cat/2.png"]),
        (["/a/x/images/1.png", "/a/y/images/1.png"], ["x/images/1.png", "y/images/1.png"]),
        (["row 1", "row 2"], ["row 1", "row 2"]),
        (["a" * 90], ["a" * 90]),
        (
            [f"{'w' * 40} {'q' * 40} 0{k}-{'z' * 30}.png" for k in range(2)],
            ["…00…zzzz.png", "…01…zzzz.png"],
        ),
    ],
)
def test_names_keep_the_part_that_differs(names, said):
    assert _shortened(names, 32) == said


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
