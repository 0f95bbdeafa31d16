"""Makes the figures of the docs: python docs/make_pictures.py [FOLDER], by default docs/pictures.

Each figure has a light and a dark version: a batch drawn by show(), the chart of docs/performance.md made from its table, and the
data flow. The page of explain() and the table of summary() are HTML, which adapts to the reader's colours. The script draws the
images itself and uses made-up timings, so the figures do not depend on the machine that runs it. It needs no network.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import kloaders as kl
from kloaders.diagnostics.explain.measured import Measured, Run, Settings
from kloaders.diagnostics.explain.verdict import judge

HERE = Path(__file__).parent
#: No picture is larger.
LIMIT = 60_000
_LOOKS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), "#e8ecf1"),
        **dict.fromkeys(("figure.facecolor", "savefig.facecolor", "axes.facecolor"), "#131416"),
        "axes.edgecolor": "#8793a1",
    },
}
_NAMES = ["ground", "circle", "square"]


def _samples(count: int) -> tuple[Any, Any]:
    """Images with a circle and a square each, and their masks."""
    rng = np.random.default_rng(5)
    down, right = np.mgrid[:48, :48]
    images, masks = [], []
    for _ in range(count):
        mask = np.zeros((48, 48), "uint8")
        a, b, c, d = rng.integers(12, 36, 4)
        mask[np.hypot(down - a, right - b) < rng.integers(7, 12)] = 1
        mask[c - 7 : c + 7, d - 7 : d + 7] = 2
        colours = rng.integers(60, 220, (3, 3))
        shade = (1 - 0.3 * (down + right) / 96)[..., None]
        images.append((colours[mask] * shade).astype("uint8"))
        masks.append(mask)
    return np.stack(images), np.stack(masks)


def _loader() -> Any:
    images, masks = _samples(24)
    loader = kl.ArraySequenceLoader(images, masks, 8, seed=7)
    loader.class_names = _NAMES
    return loader


def show() -> Figure:
    """A batch of images with their masks."""
    figure: Figure = _loader().show()
    figure.set_dpi(80)
    return figure


def performance() -> Figure:
    """The first table of docs/performance.md: samples per second of each library."""
    text = (HERE / "performance.md").read_text(encoding="utf-8")
    lines = text[text.index("|  | samples/s") :].splitlines()[2:]
    rows = []
    for line in lines:
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            break
        found = re.match(r"[\d,.]+", cells[1].strip("*"))
        if found:
            rows.append((cells[0].strip("*"), float(found[0].replace(",", ""))))
    figure = Figure(figsize=(7, 0.6 + 0.3 * len(rows)), layout="constrained")
    axis = figure.subplots()
    names, rates = zip(*reversed(rows), strict=True)
    ours = ["#E69F00" if "kloaders" in name else "#7186a0" for name in names]
    bars = axis.barh(names, rates, color=ours)
    axis.bar_label(bars, [f" {rate:,.0f}" for rate in rates], fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.12)
    axis.set_xlabel("samples per second", fontsize=8)
    return figure


def data_flow() -> Figure:
    """The parts from the files to the model, and what each part does."""
    steps = [
        ("Source", "numbered samples:\nfiles, arrays, packs,\nrecords, object stores"),
        ("Cache", "decoded samples\nin spare RAM\nor a folder"),
        ("Transform", "random numbers\ndepend on (seed,\nepoch, sample)"),
        ("Batch", "rows filled by threads\nor processes, and\nprefetched"),
        ("model.fit", "Keras takes\na ready batch"),
    ]
    figure = Figure(figsize=(9, 1.9))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 10 * len(steps)), ylim=(0, 10.5))
    axis.axis("off")
    edge = mpl.rcParams["text.color"]
    for k, (name, what) in enumerate(steps):
        box = FancyBboxPatch(
            (10 * k + 0.6, 1.2), 7.9, 8, boxstyle="round,pad=0.1,rounding_size=0.5",
            facecolor="#E69F0033" if k == len(steps) - 1 else "#7186a033", edgecolor=edge,
        )  # fmt: skip
        axis.add_patch(box)
        axis.text(10 * k + 4.6, 7.7, name, ha="center", va="center", fontsize=11, weight="bold")
        axis.text(10 * k + 4.6, 4, what, ha="center", va="center", fontsize=8)
        if k:
            arrow = FancyArrowPatch(
                (10 * k - 1.2, 5.2), (10 * k + 0.4, 5.2), arrowstyle="-|>", mutation_scale=12,
                color=edge,
            )  # fmt: skip
            axis.add_patch(arrow)
    return figure


def explain_page() -> str:
    """The page that explain() shows in a notebook, with made-up figures."""
    settings = Settings(
        samples=100_000, batch_size=32, cores=8, workers=8, sample_bytes=150_000, raw_bytes=150_000,
        stored_bytes=100_000.0, free_bytes=2**40, files_fit=True,
    )  # fmt: skip
    measured = Measured(
        settings, read_s=1e-4, read_cached_s=1e-5, decode_s=2e-3, copy_s=1e-5, cold=Run(3700, 7.8),
        warm=Run(3900, 7.9), ram=Run(300_000, 7.0), disk_rate=20_000, disk_rate_more=21_000,
        step_s=4e-3, fit_s=9e-3, model_from="model", probed=256, seconds=6.0,
    )  # fmt: skip
    found: Any = judge(measured, "PathSequenceLoader, 100,000 samples in batches of 32", {})
    return str(found._repr_html_())


def summary_table() -> str:
    """The table that a loader shows in a notebook."""
    images, _ = _samples(24)
    loader = kl.ArraySequenceLoader(images, np.arange(24) % 3 // 2, 6, seed=7)
    loader.class_names = ["bird", "boat"]
    return str(loader._repr_html_())


_FIGURES: dict[str, Callable[[], Figure]] = {
    "show.png": show,
    "performance.svg": performance,
    "data-flow.svg": data_flow,
}
_PAGES: dict[str, Callable[[], str]] = {"explain.html": explain_page, "summary.html": summary_table}


def make(folder: Path) -> list[Path]:
    """Write all figures.

    Raises:
        ValueError: a figure is larger than `LIMIT`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, draw in _FIGURES.items():
        for look, style in _LOOKS.items():
            path = folder / name.replace(".", f"-{look}.")
            # No date and no random names, so that the same figure gives the same file.
            with mpl.rc_context({**style, "svg.hashsalt": name, "svg.fonttype": "none"}):
                draw().savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
            if path.suffix == ".svg":
                lines = path.read_text(encoding="utf-8").splitlines()
                path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
            made.append(path)
    for name, page in _PAGES.items():
        path = folder / name
        path.write_text(page() + "\n", encoding="utf-8")
        made.append(path)
    for path in made:
        if path.stat().st_size > LIMIT:
            raise ValueError(
                f"{path} has {path.stat().st_size:,} bytes, expected at most {LIMIT:,}."
            )
    return made


if __name__ == "__main__":
    for picture in make(Path(sys.argv[1]) if sys.argv[1:] else HERE / "pictures"):
        sys.stdout.write(f"{picture}: {picture.stat().st_size:,} bytes\n")
