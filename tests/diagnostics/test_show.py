"""Images of batches: the samples are those of the plan, and each kind of tensor is drawn as what it is."""

import os
import subprocess
import sys

import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics import show
from kloaders.plan.epoch import Order

pytest.importorskip("matplotlib")
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 255, (6, 32, 32, 3), "uint8")


def texts(figure):
    """Everything that is written in a figure."""
    from matplotlib.text import Text

    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def drawn(figure):
    """Arrays of the pictures in it, in the order of the axes."""
    return [image.get_array() for axis in figure.axes for image in axis.images]


def patches(figure):
    from matplotlib.patches import Rectangle

    # No patch of matplotlib's own lies in an axis: backgrounds are the axis's `patch`.
    return [p for axis in figure.axes for p in axis.patches if isinstance(p, Rectangle)]


def test_the_batch_of_the_plan_is_drawn_after_its_transform():
    """The samples that fit would get, in its order, with their labels' names."""
    x = np.arange(24, dtype="uint8")[:, None, None, None] * np.ones((1, 8, 8, 3), "uint8")

    def plus(x, y, rng):
        return x + 100, y

    loader = kl.ArraySequenceLoader(x, np.arange(24) % 2, 6, seed=3, transform=plus)
    loader.class_names = ["even", "odd"]
    for epoch, batch in ((0, 0), (0, 2), (1, 2)):
        numbers = loader.plan.indices(Order(epoch, 0), batch).tolist()
        figure = loader.show(batch, epoch=epoch)
        got = [round(float(picture.mean()) * 255) - 100 for picture in drawn(figure)]
        assert got == numbers
        captions = [t for t in texts(figure) if "row " in t]
        assert captions == [f"{'odd' if k % 2 else 'even'}\nrow {k}" for k in numbers]
    ordered = kl.ArraySequenceLoader(x, np.arange(24), 6, shuffle=False)
    assert [round(float(p.mean()) * 255) for p in drawn(ordered.show(1))] == [6, 7, 8, 9, 10, 11]


def test_a_look_during_an_epoch_takes_no_batch_from_it():
    """Between on_epoch_begin and on_epoch_end an index is a ticket; a picture must not be one."""
    loader = kl.ArraySequenceLoader(np.arange(12.0), batch_size=4, seed=1, shuffle=True)
    loader.on_epoch_begin()
    seen = []
    for k in range(3):
        loader.show(k)
        seen += loader[k].tolist()
    loader.on_epoch_end()
    assert sorted(seen) == list(range(12))


def test_a_skipped_sample_leaves_names_and_pictures_together(tmp_path):
    """Rows and names come from the same numbers."""
    cv2 = pytest.importorskip("cv2")
    paths = []
    for k in range(5):
        paths.append(str(tmp_path / f"{k}.png"))
        cv2.imwrite(paths[-1], np.full((8, 8, 3), 10 * k, "uint8"))
    (tmp_path / "2.png").write_bytes(b"no picture")
    loader = kl.PathSequenceLoader(paths, batch_size=5, shuffle=False, on_error="skip", size=(8, 8))
    figure = loader.show()
    assert [round(float(p.mean()) * 255) for p in drawn(figure)] == [0, 10, 30, 40]
    names = [t.rsplit("/")[-1] for t in texts(figure) if t.endswith(".png")]
    assert names == ["0.png", "1.png", "3.png", "4.png"]
    assert loader.errors == []


def test_masks_lie_over_their_pictures():
    """One colour a class, and none for class 0; one-hot masks are the same masks."""
    mask = np.zeros((6, 32, 32), "uint8")
    mask[:, 4:8] = 1
    mask[:, 20:30] = 2
    one_hot = np.eye(3, dtype="f4")[mask]
    for y in (mask, mask[..., None], one_hot):
        figure = kl.ArraySequenceLoader(PICTURES, y, 6).show(samples=1)
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
    loader = kl.ArraySequenceLoader(PICTURES, y, 6)
    loader.class_names = ["cat", "dog"]
    figure = loader.show(samples=1, box_format=form)
    (patch,) = patches(figure)
    got = (patch.get_x() + 0.5, patch.get_y() + 0.5, patch.get_width(), patch.get_height())
    assert got == pytest.approx((4, 8, 16, 16), abs=1e-4)
    assert "dog" in texts(figure)
    assert any(t.startswith("1 box\n") for t in texts(figure))


def test_an_unknown_form_of_boxes_is_refused():
    loader = kl.ArraySequenceLoader(PICTURES, batch_size=6)
    with pytest.raises(ValueError, match="box_format='corners' is unknown: choose xyxy, xywh"):
        loader.show(box_format="corners")
    with pytest.raises(ValueError, match="samples=0 is too small"):
        loader.show(samples=0)
    with pytest.raises(IndexError, match="batches are numbered from 0 to 0"):
        loader.show(1)


@pytest.mark.parametrize(
    ("x", "kinds"),
    [
        (PICTURES, ["image"]),
        (np.moveaxis(PICTURES, -1, 1), ["image"]),
        (PICTURES[..., 0], ["image"]),
        (PICTURES[..., :1].astype("f4") / 255, ["image"]),
        (PICTURES > 100, ["image"]),
        (PICTURES.astype("uint16") * 200, ["image"]),
        (PICTURES / 127.5 - 1, ["image"]),
        (np.stack([PICTURES] * 5, 1), ["image"]),
        (RNG.normal(size=(6, 20, 40)), ["heat"]),
        (RNG.normal(size=(6, 9, 20, 40)), ["heat"]),
        (RNG.normal(size=(6, 16, 16, 12)), ["heat"]),
        (RNG.normal(size=(6, 16, 16)) * 1j, ["heat"]),
        (RNG.normal(size=(6, 50, 3)), ["lines"]),
        (RNG.normal(size=(6, 50)), ["lines"]),
        (RNG.normal(size=(6, 5)), ["text"]),
        (RNG.integers(0, 99, (6, 50)), ["text"]),
        (np.arange(6), ["text"]),
        ((PICTURES, RNG.normal(size=(6, 3))), ["image"]),
        ({"a": PICTURES, "b": RNG.normal(size=(6, 50))}, ["image", "lines"]),
        (np.zeros((6, 8, 8)), ["heat"]),
        (np.full((6, 8, 8, 3), np.nan, "f4"), ["image"]),
    ],
)
def test_any_tensor_is_drawn_as_what_it_is(x, kinds, tmp_path):
    """And the figure can be written."""
    loader = kl.ArraySequenceLoader(x, np.arange(6), 6)
    (row, *_) = show._rows(loader, 0, 0, 1)
    assert [panel.kind for panel in show._cell(row, None, None).panels] == kinds
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
    loader = kl.ArraySequenceLoader(PICTURES, y, 6, sample_weights=np.full(6, 0.5))
    loader.class_names = names
    (row, *_) = show._rows(loader, 0, 0, 1)
    assert show._cell(row, names, None).caption == [*said, "weight 0.5"]


def test_what_is_learnt_back_is_drawn_beside():
    """An autoencoder's y is a picture of its own, no mask."""
    loader = kl.ArraySequenceLoader(PICTURES, PICTURES.astype("f4") / 255, 6)
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
    figure = kl.ArraySequenceLoader(PICTURES, batch_size=6).show()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_without_matplotlib_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    show._figure_class.cache_clear()
    with pytest.raises(ImportError, match=r'pip install "matplotlib>=3\.8"'):
        kl.ArraySequenceLoader(PICTURES, batch_size=6).show()
    show._figure_class.cache_clear()


def test_looking_imports_nothing_before_it_is_used():
    """The base class has the methods; what draws and measures comes with the first call."""
    code = (
        "import sys, kloaders as kl\nkl.ArraySequenceLoader\n"
        "late = {'kloaders.diagnostics.show', 'kloaders.diagnostics.explain.run', 'kloaders.diagnostics.explain.html'}\n"
        "print(sorted(late & set(sys.modules)))"
    )
    # As in a worker process, which has the base class without Keras, and so is quick.
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KLOADERS_WORKER": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
