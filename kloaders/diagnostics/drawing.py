"""Draws panels with matplotlib, which is imported only when it is used."""

from __future__ import annotations

import colorsys
import functools
import io
import itertools
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.diagnostics.panels import SHORT, Cell, Panel, class_name, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "figure_class"]

# Distinct colours, also for red-green colour blindness (Okabe and Ito).
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")
# Opacity of masks: the image stays visible.
_ALPHA = 0.5
# The width of a panel in inches, and how many characters of a caption fit below it.
_PANEL, _CHARACTERS = 2.0, 32
# The number of characters kept of a common ending of long names.
_ENDING = 8
# Maximum number of classes in a legend.
_LEGEND = 40


@functools.cache
def figure_class() -> Any:
    """A matplotlib Figure that notebooks show, without pyplot's list of open figures."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            'show() needs matplotlib, which is not installed: pip install "matplotlib>=3.8".'
        ) from None

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue()

    return Shown


def draw(kind: Any, cells: list[Cell], title: str, names: list[str] | None = None) -> Figure:
    """A figure of the class `kind` with all cells; `names` are the class names of masks."""
    drawn = [panel for cell in cells for panel in cell.panels]
    if all(panel.kind == "text" for panel in drawn):
        return _draw_table(kind, cells, title)
    panels = max(len(cell.panels) for cell in cells)
    columns = max(1, min(len(cells), math.ceil(math.sqrt(len(cells) * 1.6 / panels))))
    rows = -(-len(cells) // columns)
    width = _CHARACTERS * panels
    names_short = _shortened([cell.name for cell in cells], width)
    said = [
        "\n".join(_wrapped(line, width) for line in [*cell.caption, name])
        for cell, name in zip(cells, names_short, strict=True)
    ]
    lines = max(text.count("\n") + 1 for text in said)
    titled = any(panel.title or panel.kind == "heat" for panel in drawn)
    legend = _legend(drawn, names)
    high = rows * (_PANEL * _height(drawn) + 0.13 * lines + 0.2 + 0.15 * titled)
    wide = max(4.0, _PANEL * panels * columns)
    across = max(1, int(wide / 1.2))
    high += 0.4 + (0.1 + 0.22 * -(-len(legend) // across) if legend else 0)
    figure: Figure = kind(figsize=(wide, high), layout="constrained", dpi=110)
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(rows, columns * panels, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
        axis.set_anchor("NW")  # below a low image there is space for its caption
    scale = _scale([p.values for p in drawn if p.kind == "image"])
    for k, (cell, text) in enumerate(zip(cells, said, strict=True)):
        row, column = divmod(k, columns)
        group = axes[row, column * panels : (column + 1) * panels]
        for axis, panel in zip(group, cell.panels, strict=False):
            _draw_panel(axis, panel, scale)
            if panel.title:
                axis.set_title(panel.title, fontsize=6.5, pad=2, loc="left", parse_math=False)
        below = 14 if cell.panels[0].kind == "lines" else 3  # space for the numbers of the axis
        group[0].annotate(
            text, (0, 0), (0, -below), xycoords="axes fraction", textcoords="offset points",
            fontsize=7, va="top", ha="left", parse_math=False,
        )  # fmt: skip
    if legend:
        figure.legend(
            handles=legend, loc="outside lower left", ncols=across, fontsize=7, frameon=False
        )
    return figure


def _height(panels: list[Panel]) -> float:
    """The height of the highest panel, relative to its width."""
    shapes = [p.values.shape for p in panels if p.kind in ("image", "slices")]
    others = any(p.kind not in ("image", "slices", "text") for p in panels)
    found = max([shape[0] / shape[1] for shape in shapes] + [0.85] * others)
    return float(min(max(found, 0.3), 1.6))


def _colour(kind: int) -> str:
    """The colour of a class: the first eight are easy to tell apart, further ones less so."""
    if kind < len(_COLOURS):
        return _COLOURS[kind]
    found = colorsys.hsv_to_rgb(kind * 0.618 % 1, 0.85 - 0.3 * (kind % 2), 0.95 - 0.25 * (kind % 3))
    return "#" + "".join(f"{round(255 * part):02X}" for part in found)


def _legend(panels: list[Panel], names: list[str] | None) -> list[Any]:
    """A legend entry for each class in a mask; class 0 is transparent and gets a frame only."""
    from matplotlib.patches import Patch

    kinds = {k for p in panels if p.mask is not None for k in np.unique(p.mask).tolist() if k >= 0}
    found = []
    for kind in sorted(kinds)[:_LEGEND]:
        name = class_name(kind, names)
        # Matplotlib hides legend labels that begin with "_", and reads dollar signs as formulas.
        label = (name if name != str(kind) else f"class {kind}").replace("$", r"\$")
        label = label if len(label) <= _CHARACTERS else f"{label[: _CHARACTERS - 1]}…"
        label = f" {label}" if label.startswith("_") else label
        if kind == 0:
            found.append(Patch(facecolor="none", edgecolor="0.6", label=f"{label} (not coloured)"))
        else:
            found.append(Patch(facecolor=_colour(kind - 1), alpha=_ALPHA, label=label))
    return found


def _draw_panel(axis: Axes, panel: Panel, scale: tuple[float, float]) -> None:
    if panel.kind in ("image", "slices"):
        low, high = scale if panel.kind == "image" else _scale([panel.values])
        image = np.clip((np.nan_to_num(panel.values.astype(float)) - low) / (high - low), 0, 1)
        image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if panel.mask is not None:
            axis.imshow(_overlay(panel.mask), interpolation="nearest")
        for left, top, width, height, name, kind in panel.boxes:
            _draw_box(axis, (left, top, width, height), name, _colour(kind))
        for lines, size, draw_line in (
            (panel.grid[0], panel.values.shape[0], axis.axhline),
            (panel.grid[1], panel.values.shape[1], axis.axvline),
        ):
            for k in range(1, lines):
                draw_line(k * size / lines - 0.5, color="white", linewidth=1.5)
        if panel.kind == "slices":
            panel.title = f"{panel.title}; {number_text(low)} to {number_text(high)}"
    elif panel.kind == "heat":
        axis.imshow(panel.values, cmap="viridis", aspect="auto", interpolation="nearest")
        said = f"{number_text(np.nanmin(panel.values))} to {number_text(np.nanmax(panel.values))}"
        panel.title = f"{panel.title}: {said}" if panel.title else said
    elif panel.kind == "spectrogram":
        axis.imshow(
            panel.values, cmap="magma", aspect="auto", origin="lower", interpolation="nearest"
        )
    elif panel.kind == "lines":
        axis.axis("on")
        axis.tick_params(labelsize=6)
        axis.locator_params(nbins=5)
        for column, values in enumerate(panel.values.T):
            axis.plot(values, linewidth=0.8, color=_COLOURS[(column + 4) % len(_COLOURS)])
    elif panel.kind == "error":
        axis.axis("on")
        axis.set(xticks=[], yticks=[], facecolor="#FBEDE6")
        axis.text(
            0.05, 0.95, _wrapped(panel.values, _CHARACTERS - 4), fontsize=6, va="top",
            transform=axis.transAxes, parse_math=False, color="#8A2A00", clip_on=True,
        )  # fmt: skip
    else:
        axis.text(
            0, 0.5, _wrapped(panel.values), fontsize=7, va="center", transform=axis.transAxes,
            parse_math=False,
        )  # fmt: skip


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
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8}, parse_math=False,
        )  # fmt: skip


def _overlay(mask: Array) -> Array:
    """Half-transparent colours, one per class; class 0 and below are transparent."""
    from matplotlib.colors import to_rgb

    found = np.zeros((*mask.shape, 4))
    for kind in np.unique(mask[mask > 0]).tolist():
        found[mask == kind] = (*to_rgb(_colour(kind - 1)), _ALPHA)
    return found


def _scale(images: list[Array]) -> tuple[float, float]:
    """The values that are drawn as black and white, the same for all samples so that they compare."""
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


def _draw_table(kind: Any, cells: list[Cell], title: str) -> Figure:
    """A table with one row of numbers per sample."""
    rows = [
        [*(v for panel in cell.panels for v in _columns(panel)), *cell.caption] for cell in cells
    ]
    width = max(map(len, rows))
    rows = [row + [""] * (width - len(row)) for row in rows]
    inputs = max(sum(len(_columns(panel)) for panel in cell.panels) for cell in cells)
    head = [f"x[{k}]" if k < inputs else "y" for k in range(width)]
    if any(row[k].startswith("...") for row in rows for k in range(inputs)):
        head[inputs - 1] = "..."
    if rows and all(row[-1].startswith("weight ") for row in rows):
        head[-1] = "weight"
        rows = [[*row[:-1], row[-1].removeprefix("weight ")] for row in rows]
    names = _shortened([cell.name for cell in cells], _CHARACTERS)
    across = [max(len(line[k]) for line in [head, *rows]) for k in range(width)]
    characters = sum(across) + max(map(len, names))
    size = (max(4.0, 0.065 * characters + 0.16 * (width + 1)), 0.26 * (len(rows) + 1) + 0.5)
    figure: Figure = kind(figsize=size, layout="constrained", dpi=110)
    figure.suptitle(title, fontsize=10)
    axis = figure.subplots()
    axis.axis("off")
    bounds: Any = (0, 0, 1, 1)  # the whole axis; matplotlib's types know boxes only
    table = axis.table(cellText=rows, colLabels=head, rowLabels=names, loc="center", bbox=bounds)
    for cell in table.get_celld().values():
        cell.get_text().set_parse_math(False)  # a name may have two dollar signs
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    table.auto_set_column_width(list(range(-1, width)))
    return figure


def _columns(panel: Panel) -> list[str]:
    """The numbers of a row, and their count if the row was cut."""
    return str(panel.values).split(" ", SHORT)


def _shortened(names: list[str], width: int) -> list[str]:
    """Names as captions: without common folders, but always with the part that differs.

    The last two parts of a path, the class and the file, are kept. If names are still longer than two
    lines, their common beginning and ending are cut as well.
    """
    split = [name.replace(os.sep, "/").split("/") for name in names]
    same = _alike([parts[:-2] for parts in split])
    short = ["/".join(parts[same:]) for parts in split]
    if max(map(len, short)) <= 2 * width or len(set(short)) < 2:
        return short
    begin = short[0][: _alike(short)]
    first = max(begin.rfind(mark) for mark in "/ _-.") + 1
    last = _alike([name[first:][::-1] for name in short])
    start = "…" if first else ""
    if last < 2 * _ENDING:
        return [f"{start}{name[first:]}" for name in short]
    return [f"{start}{name[first : len(name) - last]}…{name[-_ENDING:]}" for name in short]


def _alike(rows: Sequence[Sequence[str]]) -> int:
    """Length of the common beginning."""
    return sum(1 for _ in itertools.takewhile(lambda k: len(set(k)) == 1, zip(*rows, strict=False)))


def _wrapped(text: str, width: int = 22) -> str:
    """Break a text into lines of limited length, after spaces or hyphens."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=True)) or text
