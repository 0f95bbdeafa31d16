"""What each array of a sample is drawn as: an image with masks and boxes, lines, a heat map, or words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import visible
from kloaders.core.structure import flatten, names_of

__all__ = ["BOX_FORMATS", "SHORT", "Cell", "Panel", "SampleRow", "cell_of", "number_text"]

_FORMS = ("xyxy", "xywh", "yxyx", "center_xywh")
#: How four numbers may say where a box is.
BOX_FORMATS = (*_FORMS, *(f"rel_{name}" for name in _FORMS))

#: A row of numbers up to this long is read as numbers, a longer one as a line.
SHORT = 12
# Rows of several values each are lines up to this many columns, and a heat map above.
_LINES = 8
# Frames drawn of a film, side by side.
_FRAMES = 4


@dataclass
class SampleRow:
    """One sample: x and y as they were delivered, its weight, and what it is called."""

    x: Any
    y: Any
    weight: Any
    name: str


@dataclass
class Panel:
    """One drawing: what kind, the values, and what lies over it."""

    kind: str  # "image", "heat", "lines", "text"
    values: Any
    title: str = ""
    mask: Array | None = None
    boxes: list[tuple[float, float, float, float, str, int]] = field(default_factory=list)


@dataclass
class Cell:
    """All drawings of one sample, and its caption."""

    panels: list[Panel]
    caption: list[str]
    name: str


def cell_of(row: SampleRow, names: list[str] | None, box_format: str | None) -> Cell:
    """What one sample is drawn as.

    Args:
        row: the sample.
        names: of classes, or None.
        box_format: one of `BOX_FORMATS`; None: by what the numbers are.
    """
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
    _weights(row.weight, panels, caption)
    return Cell(
        panels or [Panel("text", "")], [visible(line) for line in caption], visible(row.name)
    )


def _weights(weight: Any, panels: list[Panel], caption: list[str]) -> None:
    """Single weights as text, maps of weights as panels."""
    if weight is None:
        return
    for name, value in zip(names_of(weight, "weight"), flatten(weight), strict=True):
        if np.size(value) == 1:
            caption.append(f"{name} {number_text(np.asarray(value).reshape(())[()])}")
        else:
            panel = _panel(np.asarray(value))
            panel.title = name
            panels.append(panel)


def _panel(value: Array) -> Panel:
    """What a tensor is drawn as."""
    value = np.abs(value) if value.dtype.kind == "c" else value
    shape = value.shape
    if value.ndim == 3 and shape[-1] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        value = np.moveaxis(value, 0, -1)  # channels first
        shape = value.shape
    if value.ndim >= 2 and min(shape[:2]) == 0:
        return Panel("text", f"empty, of shape {shape}")
    if value.ndim == 3 and shape[-1] in (1, 3, 4):
        return Panel("image", value)
    if value.ndim == 2 and value.dtype.kind in "bu" and min(shape) > 1:
        return Panel("image", value[..., np.newaxis])
    if value.ndim == 4 and shape[-1] in (1, 3, 4):  # a film
        chosen = np.unique(np.linspace(0, shape[0] - 1, _FRAMES).astype(int))
        return Panel("image", np.concatenate(list(value[chosen]), axis=1), f"{shape[0]} frames")
    if value.ndim == 2 and shape[1] <= _LINES and shape[0] > 2 * shape[1]:
        return Panel("lines", value.astype(float))
    if value.ndim == 2:
        return Panel("heat", value.astype(float))
    if value.ndim >= 3:
        middle = value.reshape(-1, *shape[-2:]) if value.ndim > 3 else value
        said = f"slice {len(middle) // 2} of {len(middle)}"
        return Panel("heat", middle[len(middle) // 2].astype(float), said)
    if value.ndim == 1 and len(value) > SHORT and value.dtype.kind == "f":
        return Panel("lines", value[:, np.newaxis].astype(float))
    return Panel("text", _numbers(value))


def _labels(
    y: Any,
    names: list[str] | None,
    box_format: str | None,
    image: Panel | None,
    panels: list[Panel],
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
                panels.append(Panel("image", label, name))  # an image to learn, as of x itself
            elif (
                label.dtype.kind == "f"
                and label.ndim == 3
                and label.shape[-1] == 1
                and _graded(label)
            ):
                panels.append(Panel("image", label, name))
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
        return number_text(value)
    if label.ndim > 1 or (len(label) > SHORT and not (names and len(names) == len(label))):
        return None if label.size > SHORT else _numbers(label)
    flags = bool(np.isin(label, (0, 1)).all())
    if flags and (names is None or len(names) == len(label)) and len(label) > 1:
        on = np.flatnonzero(label).tolist()
        return ", ".join(_class_name(k, names) for k in on) or "none"
    return _numbers(label)


def _class_name(number: int, names: list[str] | None) -> str:
    return visible(names[number]) if names and 0 <= number < len(names) else str(number)


def number_text(value: Any) -> str:
    """A number as people write it."""
    value = np.asarray(value).item()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _numbers(value: Array) -> str:
    flat = value.reshape(-1)
    shown = " ".join(number_text(v) for v in flat[:SHORT])
    return f"{shown} ... ({len(flat)})" if len(flat) > SHORT else shown
