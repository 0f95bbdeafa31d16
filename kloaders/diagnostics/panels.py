"""Chooses how to draw each array of a sample: image or slices with masks and boxes, lines, sound, or text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import visible
from kloaders.core.structure import flatten, names_of

__all__ = [
    "BOX_FORMATS",
    "SHORT",
    "Cell",
    "Panel",
    "SampleRow",
    "cell_of",
    "class_name",
    "number_text",
    "spectrogram",
]

_FORMS = ("xyxy", "xywh", "yxyx", "center_xywh")
#: The formats of the four numbers of a box.
BOX_FORMATS = (*_FORMS, *(f"rel_{name}" for name in _FORMS))

#: A row up to this length is shown as numbers, a longer one as a line.
SHORT = 12
# An array with up to this many columns is drawn as lines, a wider one as a heat map.
_LINES = 8
# Frames of a video, or slices of a volume, in one panel.
_FRAMES = 4
# One or two columns with at least this many steps are a sound. A row needs more: it may be an embedding.
_SOUND_STEPS, _SOUND_ROW = 1000, 4000
# The maximum number of columns of a spectrogram, and its range in dB below the loudest value.
_SPECTROGRAM_COLUMNS, _SPECTROGRAM_DB = 200, 80.0
# The maximum number of characters of an error shown in its tile.
_ERROR_LENGTH = 300


@dataclass
class SampleRow:
    """One sample.

    Attributes:
        x: the input, as delivered.
        y: the label, or None.
        weight: the sample weight, or None.
        name: the name of the sample.
        error: why it failed to load; None if it loaded.
    """

    x: Any
    y: Any
    weight: Any
    name: str
    error: str | None = None


@dataclass
class Panel:
    """One drawing.

    Attributes:
        kind: "image", "slices", "heat", "lines", "spectrogram", "text" or "error".
        values: the data to draw.
        title: the text above it.
        mask: the class of each pixel, drawn over an image or slices.
        boxes: left, top, width, height, name and class of each box.
        taken: the numbers of the frames or slices in `values`, which form a grid; None for one image.
        grid: the rows and columns of that grid.
    """

    kind: str
    values: Any
    title: str = ""
    mask: Array | None = None
    boxes: list[tuple[float, float, float, float, str, int]] = field(default_factory=list)
    taken: Array | None = None
    grid: tuple[int, int] = (1, 1)


@dataclass
class Cell:
    """All drawings of one sample, and its caption."""

    panels: list[Panel]
    caption: list[str]
    name: str


def cell_of(row: SampleRow, names: list[str] | None, box_format: str | None) -> Cell:
    """The drawings of one sample.

    Args:
        row: the sample.
        names: the names of the classes, or None.
        box_format: one of `BOX_FORMATS`; None to guess it from the numbers.
    """
    if row.error is not None:
        error = row.error if len(row.error) <= _ERROR_LENGTH else f"{row.error[:_ERROR_LENGTH]}..."
        return Cell([Panel("error", visible(error))], ["failed to load"], visible(row.name))
    xs = list(zip(names_of(row.x, "x"), flatten(row.x), strict=True))
    several = len(xs) > 1
    panels: list[Panel] = []
    caption: list[str] = []
    volume: Array | None = None
    for name, value in xs:
        found = _panels(np.asarray(value))
        if found[0].kind == "text" and several:
            caption.append(f"{name}: {found[0].values}")
            continue
        for panel in found:
            panel.title = _titled(name, panel) if several else panel.title
        if found[0].taken is not None and volume is None:
            volume = np.asarray(value)
        panels += found
    image = next((p for p in panels if p.kind in ("image", "slices")), None)
    whole = None if image is None or image.taken is None or volume is None else volume.shape
    _labels(row.y, names, box_format, image, whole, panels, caption)
    _weights(row.weight, panels, caption)
    return Cell(
        panels or [Panel("text", "")], [visible(line) for line in caption], visible(row.name)
    )


def _weights(weight: Any, panels: list[Panel], caption: list[str]) -> None:
    """Add a single weight to the caption, a map of weights as a panel."""
    if weight is None:
        return
    for name, value in zip(names_of(weight, "weight"), flatten(weight), strict=True):
        if np.size(value) == 1:
            caption.append(f"{name} {number_text(np.asarray(value).reshape(())[()])}")
        else:
            panel = _panel(np.asarray(value))
            panel.title = _titled(name, panel)
            panels.append(panel)


def _titled(name: str, panel: Panel) -> str:
    return f"{name}: {panel.title}" if panel.title else name


def _panels(value: Array) -> list[Panel]:
    """The panels of an array: two for a sound, otherwise one."""
    sound = value[:, np.newaxis] if value.ndim == 1 else value
    steps = _SOUND_ROW if value.ndim == 1 else _SOUND_STEPS
    whole = value.dtype.kind == "f" or value.dtype == np.int16
    if whole and sound.ndim == 2 and sound.shape[1] in (1, 2) and len(sound) >= steps:
        wave = Panel("lines", sound.astype(float), "waveform")
        return [wave, Panel("spectrogram", spectrogram(sound), "spectrogram, dB")]
    return [_panel(value)]


def spectrogram(sound: Array) -> Array:
    """Compute the loudness of each frequency over time.

    Args:
        sound: shape (steps, channels); the channels are averaged.

    Returns:
        Shape (frequencies, columns), in dB below the loudest value; row 0 is frequency 0, the last row
        half the sampling rate.
    """
    wave = np.nan_to_num(sound.astype(float)).mean(1)
    width = min(512, 2 ** int(np.log2(max(16, len(wave) // 16))))
    columns = min(_SPECTROGRAM_COLUMNS, 1 + (len(wave) - width) * 4 // width)
    starts = np.linspace(0, len(wave) - width, columns).astype(int)
    pieces = wave[starts[:, np.newaxis] + np.arange(width)] * np.hanning(width)
    power = np.abs(np.fft.rfft(pieces, axis=1)).T
    loudest = power.max()
    if loudest == 0:
        return np.full(power.shape, -_SPECTROGRAM_DB)
    floor = 10 ** (-_SPECTROGRAM_DB / 20)
    return np.asarray(20 * np.log10(np.maximum(power / loudest, floor)))


def _in_a_grid(value: Array, taken: Array, grid: tuple[int, int]) -> Array:
    """Arrange some items of the first axis in a grid."""
    rows, columns = grid
    lines = [
        np.concatenate(list(value[taken[r * columns : (r + 1) * columns]]), axis=1)
        for r in range(rows)
    ]
    return np.concatenate(lines, axis=0)


def _several(value: Array, kind: str, what: str) -> Panel:
    """The panel of a video or volume: some of its frames or slices."""
    n = len(value)
    if n <= _FRAMES:
        taken = np.arange(n)
    elif what == "frames":
        taken = np.linspace(0, n - 1, _FRAMES).astype(int)
    else:  # the outer slices of a volume are often empty
        taken = np.linspace(0, n - 1, _FRAMES + 2).round().astype(int)[1:-1]
    square = len(taken) == 4 and 0.5 < value.shape[1] / value.shape[2] < 2
    upright = value.shape[1] >= value.shape[2]
    grid = (2, 2) if square else (1, len(taken)) if upright else (len(taken), 1)
    numbers = ", ".join(map(str, taken.tolist()))
    title = f"{what} {numbers} of {n}" if n > 1 else ""
    return Panel(kind, _in_a_grid(value, taken, grid), title, taken=taken, grid=grid)


def _panel(value: Array) -> Panel:
    """The panel of an array."""
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
    if value.ndim == 4 and shape[-1] in (1, 3, 4):  # a video
        return _several(value, "image", "slices" if shape[-1] == 1 else "frames")
    if value.ndim == 2 and shape[1] <= _LINES and shape[0] > 2 * shape[1]:
        return Panel("lines", value.astype(float))
    if value.ndim == 2:
        return Panel("heat", value.astype(float))
    if value.ndim >= 3:
        volume = value.reshape(-1, *shape[-2:]) if value.ndim > 3 else value
        return _several(volume.astype(float), "slices", "slices")
    if value.ndim == 1 and len(value) > SHORT and value.dtype.kind == "f":
        return Panel("lines", value[:, np.newaxis].astype(float))
    return Panel("text", _numbers(value))


def _labels(
    y: Any,
    names: list[str] | None,
    box_format: str | None,
    image: Panel | None,
    whole: tuple[int, ...] | None,
    panels: list[Panel],
    caption: list[str],
) -> None:
    """Draw masks and boxes over the image; add other labels to the caption, or as panels."""
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
        if image is not None and _is_mask_of(whole, label) and image.taken is not None:
            image.mask = _in_a_grid(_classes_of(label, 3), image.taken, image.grid)
            continue
        if image is not None and whole is None and label.ndim in (2, 3) and label.shape[:2] == size:
            if label.ndim == 3 and label.shape[-1] in (3, 4) and not _one_hot(label):
                panels.append(Panel("image", label, name))  # a target image, drawn like x
            elif (
                label.dtype.kind == "f"
                and label.ndim == 3
                and label.shape[-1] == 1
                and _graded(label)
            ):
                panels.append(Panel("image", label, name))
            else:
                image.mask = _classes_of(label, 2)
            continue
        said = _label(label, names)
        if said is not None:
            caption.append(said if len(rest) == 1 else f"{name}: {said}")
            continue
        panel = _panel(label)
        panel.title = _titled(name, panel)
        panels.append(panel)


def _is_mask_of(whole: tuple[int, ...] | None, label: Array) -> bool:
    """Whether a label has a class for each voxel of a volume, or pixel of a video."""
    if whole is None or label.ndim not in (3, 4) or label.shape[:3] != whole[:3]:
        return False
    return (label.ndim == 3 or label.shape[-1] == 1 or _one_hot(label)) and not _graded(label)


def _one_hot(label: Array) -> bool:
    return bool(label.dtype.kind in "fbiu" and np.all(label.sum(-1) == 1) and label.max() == 1)


def _graded(label: Array) -> bool:
    """Whether it has more distinct values than a mask of probabilities near 0 and 1."""
    return len(np.unique(label)) > 64


def _classes_of(label: Array, dimensions: int) -> Array:
    """The class of each pixel or voxel."""
    if label.ndim > dimensions and label.shape[-1] > 1:
        return np.asarray(label.argmax(-1))
    label = label.reshape(label.shape[:dimensions])
    return np.round(label).astype(int) if label.dtype.kind == "f" else label.astype(int)


def _boxes(
    boxes: Array, kinds: Array | None, names: list[str] | None, form: str | None, image: Array
) -> list[tuple[float, float, float, float, str, int]]:
    """Left, top, width and height in pixels, name and class of each box; padding is left out."""
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
            said = class_name(kind, names) if kinds is not None else ""
            found.append((a, b, c, d, said, kind))
    return found


def _label(label: Array, names: list[str] | None) -> str | None:
    """A label as text; None if it should be drawn instead."""
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
        return ", ".join(class_name(k, names) for k in on) or "none"
    return _numbers(label)


def class_name(number: int, names: list[str] | None) -> str:
    """The name of a class; its number if it has no name."""
    return visible(names[number]) if names and 0 <= number < len(names) else str(number)


def number_text(value: Any) -> str:
    """A number in readable form."""
    value = np.asarray(value).item()
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def _numbers(value: Array) -> str:
    flat = value.reshape(-1)
    shown = " ".join(number_text(v) for v in flat[:SHORT])
    return f"{shown} ... ({len(flat)})" if len(flat) > SHORT else shown
