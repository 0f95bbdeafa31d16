"""Panels drawn with matplotlib, which is imported when it is used."""

from __future__ import annotations

import functools
import io
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.diagnostics.panels import SHORT, Cell, Panel, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "figure_class"]

# Distinct colours, that those who see no red or green can tell apart (Okabe and Ito).
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")


@functools.cache
def figure_class() -> Any:
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


def draw(kind: Any, cells: list[Cell], title: str) -> Figure:
    """A figure of the class `kind` with all of these."""
    if all(panel.kind == "text" for cell in cells for panel in cell.panels):
        return _draw_table(kind, cells, title)
    panels = max(len(cell.panels) for cell in cells)
    columns = max(1, min(len(cells), math.ceil(math.sqrt(len(cells) * 1.6 / panels))))
    rows = -(-len(cells) // columns)
    lines = max(len(cell.caption) for cell in cells) + 1
    high = rows * (2.2 + 0.14 * lines) + 0.4
    figure: Figure = kind(
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
                axis.set_title(panel.title, fontsize=7, pad=2, parse_math=False)
        said = [*cell.caption, _short(cell.name)]
        group[0].text(
            0, -0.04, "\n".join(_cut(line, 16 * panels + 14) for line in said), fontsize=7,
            va="top", ha="left", transform=group[0].transAxes, parse_math=False,
        )  # fmt: skip
    return figure


def _draw_panel(axis: Axes, panel: Panel, scale: tuple[float, float]) -> None:
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
            1, 1.01, f"{number_text(np.nanmin(panel.values))} to {number_text(np.nanmax(panel.values))}",
            fontsize=6, ha="right", va="bottom", transform=axis.transAxes,
        )  # fmt: skip
    elif panel.kind == "lines":
        axis.axis("on")
        axis.tick_params(labelsize=6)
        for column, values in enumerate(panel.values.T):
            axis.plot(values, linewidth=0.8, color=_COLOURS[(column + 4) % len(_COLOURS)])
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


def _draw_table(kind: Any, cells: list[Cell], title: str) -> Figure:
    """Rows of numbers, one per sample."""
    rows = [
        [*(v for panel in cell.panels for v in _columns(panel)), *cell.caption] for cell in cells
    ]
    width = max(map(len, rows))
    rows = [row + [""] * (width - len(row)) for row in rows]
    inputs = max(sum(len(_columns(panel)) for panel in cell.panels) for cell in cells)
    head = [f"x[{k}]" if k < inputs else "y" for k in range(width)]
    figure: Figure = kind(
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
    for cell in table.get_celld().values():
        cell.get_text().set_parse_math(False)  # a name may have two dollar signs
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    return figure


def _columns(panel: Panel) -> list[str]:
    """The numbers of a row, and how many there are in all where it was cut."""
    return str(panel.values).split(" ", SHORT)


def _short(name: str) -> str:
    """The last two parts of a path: the class and the file."""
    parts = name.replace(os.sep, "/").split("/")
    return "/".join(parts[-2:])


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width // 2 - 1]}…{text[-(width // 2) + 1 :]}"


def _wrapped(text: str, width: int = 22) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
