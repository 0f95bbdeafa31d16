"""An image of a batch, as the model gets it. Draws with matplotlib, which is imported when it is used."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.protocols import Loader
from kloaders.core.structure import flatten, map_structure, names_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


__all__ = ["BOX_FORMATS", "show"]

Array = np.ndarray[Any, Any]

_FORMS = ("xyxy", "xywh", "yxyx", "center_xywh")
BOX_FORMATS = (*_FORMS, *(f"rel_{name}" for name in _FORMS))

# A row of numbers up to this long is read as numbers, a longer one as a line.
_SHORT = 12
# Rows of several values each are lines up to this many columns, and a heat map above.
_LINES = 8
# Frames drawn of a film, side by side.
_FRAMES = 4
# Distinct colours, that those who see no red or green can tell apart (Okabe and Ito).
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")


def show(
    loader: Loader,
    batch: int,
    samples: int,
    epoch: int,
    box_format: str | None,
    save: str | os.PathLike[str] | None,
) -> Figure:
    """`SequenceLoader.show` says what it does."""
    if box_format is not None and box_format not in BOX_FORMATS:
        raise ValueError(f"box_format={box_format!r} is unknown: choose {', '.join(BOX_FORMATS)}.")
    if samples < 1:
        raise ValueError(f"samples={samples} is too small, expected at least 1.")
    figure_class = _figure_class()
    rows = _rows(loader, batch, epoch, samples)
    cells = [_cell(row, loader.class_names, box_format) for row in rows]
    figure = _draw(figure_class, cells, f"batch {batch} of epoch {epoch}, {type(loader).__name__}")
    if save is not None:
        figure.savefig(os.fspath(save))
    return figure


@functools.cache
def _figure_class() -> Any:
    """A Figure of matplotlib's, which notebooks show without pyplot's list of open figures."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            'show() draws with matplotlib, which is not installed: pip install "matplotlib>=3.8".'
        ) from None

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue()

    return Shown


# ------------------------------------------------------------------------------------------ samples


@dataclass
class _Row:
    """One sample: x and y as they were delivered, its weight, and what it is called."""

    x: Any
    y: Any
    weight: Any
    name: str


def _rows(loader: Loader, batch: int, epoch: int, samples: int) -> list[_Row]:
    batches = loader.plan.batches
    if not 0 <= batch < batches:
        raise IndexError(
            f"batch {batch} of {type(loader).__name__}: batches are numbered from 0 to {batches - 1}."
        )
    # In this thread: no processes for one batch, and none of those of a fit.
    work = dataclasses.replace(loader.options.work, processes=False)
    view = loader.replace(work=work)
    runner, source = view.runner, view.source
    shuffled = view.options.effective_shuffle is not False
    build = runner.make_alone((runner.order_of(epoch, shuffled), batch), True)
    build.fill(0, build.rows)
    indices, leaves = build.finish_leaves()
    if not len(indices):
        indices, leaves = build.one_instead()
    form = iter(leaves)
    parts = map_structure(lambda _: next(form), build.form)
    weights = None if view.weights is None else view.weights[indices]
    rows = []
    for k, index in enumerate(indices.tolist()[:samples]):
        x, *y = map_structure(lambda a, k=k: a[k], tuple(parts))
        weight = None if weights is None else weights[k]
        rows.append(_Row(x, y[0] if y else None, weight, source.name(index)))
    return rows


@dataclass
class _Panel:
    """One drawing: what kind, the values, and what lies over it."""

    kind: str  # "image", "heat", "lines", "text"
    values: Any
    title: str = ""
    mask: Array | None = None
    boxes: list[tuple[float, float, float, float, str, int]] = field(default_factory=list)


@dataclass
class _Cell:
    """All drawings of one sample, and its caption."""

    panels: list[_Panel]
    caption: list[str]
    name: str


def _cell(row: _Row, names: list[str] | None, box_format: str | None) -> _Cell:
    xs = list(zip(names_of(row.x, "x"), flatten(row.x), strict=True))
    several = len(xs) > 1
    panels, caption = [], []
    for name, value in xs:
        panel = _panel(np.asarray(value))
        if panel.kind == "text" and several:
            caption.append(f"{name}: {panel.values}")
        else:
            panel.title = name if several else ""
            panels.append(panel)
    image = next((p for p in panels if p.kind == "image"), None)
    _labels(row.y, names, box_format, image, panels, caption)
    if row.weight is not None:
        caption.append(f"weight {_number(row.weight)}")
    return _Cell(panels or [_Panel("text", "")], caption, row.name)


def _panel(value: Array) -> _Panel:
    """What a tensor is drawn as."""
    value = np.abs(value) if value.dtype.kind == "c" else value
    shape = value.shape
    if value.ndim == 3 and shape[-1] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        value = np.moveaxis(value, 0, -1)  # channels first
        shape = value.shape
    if value.ndim >= 2 and min(shape[:2]) == 0:
        return _Panel("text", f"empty, of shape {shape}")
    if value.ndim == 3 and shape[-1] in (1, 3, 4):
        return _Panel("image", value)
    if value.ndim == 2 and value.dtype.kind in "bu" and min(shape) > 1:
        return _Panel("image", value[..., np.newaxis])
    if value.ndim == 4 and shape[-1] in (1, 3, 4):  # a film
        chosen = np.unique(np.linspace(0, shape[0] - 1, _FRAMES).astype(int))
        return _Panel("image", np.concatenate(list(value[chosen]), axis=1), f"{shape[0]} frames")
    if value.ndim == 2 and shape[1] <= _LINES and shape[0] > 2 * shape[1]:
        return _Panel("lines", value.astype(float))
    if value.ndim == 2:
        return _Panel("heat", value.astype(float))
    if value.ndim >= 3:
        middle = value.reshape(-1, *shape[-2:]) if value.ndim > 3 else value
        said = f"slice {len(middle) // 2} of {len(middle)}"
        return _Panel("heat", middle[len(middle) // 2].astype(float), said)
    if value.ndim == 1 and len(value) > _SHORT and value.dtype.kind == "f":
        return _Panel("lines", value[:, np.newaxis].astype(float))
    return _Panel("text", _numbers(value))


def _labels(
    y: Any,
    names: list[str] | None,
    box_format: str | None,
    image: _Panel | None,
    panels: list[_Panel],
    caption: list[str],
) -> None:
    """Draw masks and boxes over the image; the rest goes into the caption, or a panel of its own."""
    if y is None:
        return
    rest = dict(zip(names_of(y, "y"), flatten(y), strict=True))
    if isinstance(y, dict) and image is not None:
        boxes = next((key for key in ("boxes", "bboxes") if key in y), None)
        if boxes is not None:
            of = next((key for key in ("labels", "classes", "class") if key in y), None)
            kinds = None if of is None else np.asarray(y[of])
            image.boxes = _boxes(np.asarray(y[boxes]), kinds, names, box_format, image.values)
            for key in (boxes, of):
                rest.pop(f"y[{key!r}]", None)
            caption.append(f"{len(image.boxes)} box{'' if len(image.boxes) == 1 else 'es'}")
    for name, value in rest.items():
        label = np.asarray(value)
        size = None if image is None else image.values.shape[:2]
        if image is not None and label.ndim in (2, 3) and label.shape[:2] == size:
            if label.ndim == 3 and label.shape[-1] in (3, 4) and not _one_hot(label):
                panels.append(_Panel("image", label, name))  # an image to learn, as of x itself
            elif (
                label.dtype.kind == "f"
                and label.ndim == 3
                and label.shape[-1] == 1
                and _graded(label)
            ):
                panels.append(_Panel("image", label, name))
            else:
                image.mask = _classes_of(label)
            continue
        said = _label(label, names)
        if said is not None:
            caption.append(said if len(rest) == 1 else f"{name}: {said}")
            continue
        panel = _panel(label)
        panel.title = panel.title or name
        panels.append(panel)


def _one_hot(label: Array) -> bool:
    return bool(label.dtype.kind in "fbiu" and np.all(label.sum(-1) == 1) and label.max() == 1)


def _graded(label: Array) -> bool:
    """Whether it has more values than a mask of probabilities near 0 and 1 would."""
    return len(np.unique(label)) > 64


def _classes_of(label: Array) -> Array:
    """The class of each pixel."""
    if label.ndim == 3 and label.shape[-1] > 1:
        return np.asarray(label.argmax(-1))
    label = label.reshape(label.shape[:2])
    return np.round(label).astype(int) if label.dtype.kind == "f" else label.astype(int)


def _boxes(
    boxes: Array, kinds: Array | None, names: list[str] | None, form: str | None, image: Array
) -> list[tuple[float, float, float, float, str, int]]:
    """Left, top, width, height in pixels, name and class; without padding."""
    boxes = boxes.reshape(-1, 4).astype(float)
    classes = np.zeros(len(boxes), int)
    if kinds is not None and len(boxes):
        kinds = kinds.reshape(len(boxes), -1)
        classes = kinds.argmax(1) if kinds.shape[1] > 1 else kinds[:, 0].astype(int)
    if form is None:
        real = boxes[np.isfinite(boxes).all(1) & (boxes >= 0).all(1)]
        form = "rel_xyxy" if len(real) and 0 < real.max() <= 1 else "xyxy"
    height, width = image.shape[:2]
    found = []
    for box, kind in zip(boxes, classes.tolist(), strict=True):
        a, b, c, d = box
        kind_of = form.removeprefix("rel_")
        if kind_of == "yxyx":
            a, b, c, d = b, a, d, c
        if kind_of in ("xyxy", "yxyx"):
            c, d = c - a, d - b
        elif kind_of == "center_xywh":
            a, b = a - c / 2, b - d / 2
        if form.startswith("rel_"):
            a, c, b, d = a * width, c * width, b * height, d * height
        if kind >= 0 and c > 0 and d > 0 and np.isfinite(box).all():
            said = _class_name(kind, names) if kinds is not None else ""
            found.append((a, b, c, d, said, kind))
    return found


def _label(label: Array, names: list[str] | None) -> str | None:
    """A label in words; None for one that is better drawn."""
    if label.ndim == 0 or (label.ndim == 1 and label.shape == (1,)):
        value = label.reshape(()).item()
        if names and float(value).is_integer() and 0 <= value < len(names):
            return names[int(value)]
        return _number(value)
    if label.ndim > 1 or (len(label) > _SHORT and not (names and len(names) == len(label))):
        return None if label.size > _SHORT else _numbers(label)
    flags = bool(np.isin(label, (0, 1)).all())
    if flags and (names is None or len(names) == len(label)) and len(label) > 1:
        on = np.flatnonzero(label).tolist()
        return ", ".join(_class_name(k, names) for k in on) or "none"
    return _numbers(label)


def _class_name(number: int, names: list[str] | None) -> str:
    return names[number] if names and 0 <= number < len(names) else str(number)


def _number(value: Any) -> str:
    value = np.asarray(value).item()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _numbers(value: Array) -> str:
    flat = value.reshape(-1)
    shown = " ".join(_number(v) for v in flat[:_SHORT])
    return f"{shown} ... ({len(flat)})" if len(flat) > _SHORT else shown


# ------------------------------------------------------------------------------------------- drawing


def _draw(figure_class: Any, cells: list[_Cell], title: str) -> Figure:
    if all(panel.kind == "text" for cell in cells for panel in cell.panels):
        return _draw_table(figure_class, cells, title)
    panels = max(len(cell.panels) for cell in cells)
    columns = max(1, min(len(cells), math.ceil(math.sqrt(len(cells) * 1.6 / panels))))
    rows = -(-len(cells) // columns)
    lines = max(len(cell.caption) for cell in cells) + 1
    high = rows * (2.2 + 0.14 * lines) + 0.4
    figure: Figure = figure_class(
        figsize=(max(4.0, 2.0 * panels * columns), high), layout="constrained", dpi=110
    )
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(rows, columns * panels, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    scale = _scale([p.values for cell in cells for p in cell.panels if p.kind == "image"])
    for k, cell in enumerate(cells):
        row, column = divmod(k, columns)
        group = axes[row, column * panels : (column + 1) * panels]
        for axis, panel in zip(group, cell.panels, strict=False):
            _draw_panel(axis, panel, scale)
            if panel.title:
                axis.set_title(panel.title, fontsize=7, pad=2)
        said = [*cell.caption, _short(cell.name)]
        group[0].text(
            0, -0.04, "\n".join(_cut(line, 16 * panels + 14) for line in said), fontsize=7,
            va="top", ha="left", transform=group[0].transAxes,
        )  # fmt: skip
    return figure


def _draw_panel(axis: Axes, panel: _Panel, scale: tuple[float, float]) -> None:
    if panel.kind == "image":
        low, high = scale
        image = np.clip((np.nan_to_num(panel.values.astype(float)) - low) / (high - low), 0, 1)
        image = image[..., 0] if image.shape[-1] == 1 else image
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if panel.mask is not None:
            axis.imshow(_overlay(panel.mask), interpolation="nearest")
        for left, top, width, height, name, kind in panel.boxes:
            _draw_box(axis, (left, top, width, height), name, _COLOURS[kind % len(_COLOURS)])
    elif panel.kind == "heat":
        axis.imshow(panel.values, cmap="viridis", aspect="auto", interpolation="nearest")
        axis.text(
            1, 1.01, f"{_number(np.nanmin(panel.values))} to {_number(np.nanmax(panel.values))}",
            fontsize=6, ha="right", va="bottom", transform=axis.transAxes,
        )  # fmt: skip
    elif panel.kind == "lines":
        axis.axis("on")
        axis.tick_params(labelsize=6)
        for column, values in enumerate(panel.values.T):
            axis.plot(values, linewidth=0.8, color=_COLOURS[(column + 4) % len(_COLOURS)])
    else:
        axis.text(0, 0.5, _wrapped(panel.values), fontsize=7, va="center", transform=axis.transAxes)


def _draw_box(axis: Axes, box: tuple[float, float, float, float], name: str, colour: str) -> None:
    from matplotlib.patches import Rectangle

    left, top, width, height = box
    axis.add_patch(
        Rectangle(
            (left - 0.5, top - 0.5), width, height, fill=False, edgecolor=colour, linewidth=1.5
        )
    )
    if name:
        axis.text(
            left, top, name, fontsize=6, color="black", va="bottom", clip_on=True,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip


def _overlay(mask: Array) -> Array:
    """Half-transparent colours, one for each class; class 0 and below are left clear."""
    from matplotlib.colors import to_rgb

    found = np.zeros((*mask.shape, 4))
    for kind in np.unique(mask[mask > 0]).tolist():
        found[mask == kind] = (*to_rgb(_COLOURS[(kind - 1) % len(_COLOURS)]), 0.5)
    return found


def _scale(images: list[Array]) -> tuple[float, float]:
    """The values that are drawn black and white: one pair for all, so that they can be compared."""
    if not images:
        return 0.0, 1.0
    finite = [p[np.isfinite(p)] for p in images]
    low = float(min((p.min() for p in finite if p.size), default=0.0))
    high = float(max((p.max() for p in finite if p.size), default=1.0))
    kind = images[0].dtype
    if kind.kind == "b":
        return 0.0, 1.0
    if kind == np.uint8:
        return 0.0, 255.0
    if kind.kind == "f":
        for known in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
            if known[0] <= low and high <= known[1]:
                return known
    return (low, high) if high > low else (low, low + 1)


def _draw_table(figure_class: Any, cells: list[_Cell], title: str) -> Figure:
    """Rows of numbers, one per sample."""
    rows = [
        [*(v for panel in cell.panels for v in _columns(panel)), *cell.caption] for cell in cells
    ]
    width = max(map(len, rows))
    rows = [row + [""] * (width - len(row)) for row in rows]
    inputs = max(sum(len(_columns(panel)) for panel in cell.panels) for cell in cells)
    head = [f"x[{k}]" if k < inputs else "y" for k in range(width)]
    figure: Figure = figure_class(
        figsize=(max(4.0, 0.8 * width + 1.6), 0.28 * len(rows) + 1.0), layout="constrained", dpi=110
    )
    figure.suptitle(title, fontsize=10)
    axis = figure.subplots()
    axis.axis("off")
    table = axis.table(
        cellText=rows,
        colLabels=head,
        rowLabels=[_cut(_short(c.name), 20) for c in cells],
        loc="center",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    return figure


def _columns(panel: _Panel) -> list[str]:
    """The numbers of a row, and how many there are in all where it was cut."""
    return str(panel.values).split(" ", _SHORT)


def _short(name: str) -> str:
    """The last two parts of a path: the class and the file."""
    parts = name.replace(os.sep, "/").split("/")
    return "/".join(parts[-2:])


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width // 2 - 1]}…{text[-(width // 2) + 1 :]}"


def _wrapped(text: str, width: int = 22) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
