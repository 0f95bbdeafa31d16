"""Describes a loader for a log, a terminal or a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np

from kloaders.core.memory import format_bytes
from kloaders.core.messages import visible
from kloaders.core.protocols import Loader
from kloaders.core.structure import flatten, in_words, names_of
from kloaders.engine.lookahead import AHEAD_BYTES
from kloaders.sources.columns import ArrayColumn

__all__ = ["Classes", "as_html", "as_text", "classes_of"]

# Up to this many classes are listed; beyond that only the smallest and the largest.
_LISTED = 10
# Integer labels up to this are classes; larger ones are other numbers.
_MOST_CLASSES = 100_000


@dataclass(frozen=True)
class Classes:
    """The names of the classes (or their numbers, as text) and the number of samples of each."""

    names: list[str]
    counts: list[int]

    @property
    def balance(self) -> str:
        """How balanced the classes are, in words."""
        least, most = min(self.counts), max(self.counts)
        if least == 0:
            empty = self.counts.count(0)
            return f"{empty} without samples"
        if most <= 1.1 * least:
            return "balanced"
        return f"the largest has {most / least:.1f} times as many as the smallest"

    def __str__(self) -> str:
        total = sum(self.counts)
        if len(self.counts) <= _LISTED:
            each = ", ".join(
                f"{name} {count:,} ({count / total:.0%})"
                for name, count in zip(self.names, self.counts, strict=True)
            )
        else:
            least, most = int(np.argmin(self.counts)), int(np.argmax(self.counts))
            each = (
                f"from {self.counts[least]:,} ({self.names[least]}) to {self.counts[most]:,} "
                f"({self.names[most]}) samples"
            )
        return f"{len(self.counts):,}, {each}; {self.balance}"


def classes_of(loader: Loader) -> Classes | None:
    """The number of samples of each class; None if labels are not classes, or not in RAM."""
    columns = loader.source.columns
    if columns is None or len(columns) < 2 or isinstance(columns[1], (tuple, dict)):
        return None
    values = _values(columns[1])
    names = loader.class_names
    if values is None or values.ndim > 2 or not len(values):
        return None
    if values.ndim == 2:  # one-hot rows, or several classes per sample
        if values.shape[1] < 2 or not np.isin(values[:1000], (0, 1)).all():
            return None
        counts = values.sum(0)
    else:
        whole = values.dtype.kind in "biu" or (names is not None and bool((values % 1 == 0).all()))
        if not whole or values.min() < 0 or values.max() >= _MOST_CLASSES:
            return None
        counts = np.bincount(values.astype(np.int64), minlength=len(names or ()))
        # Probably numbers that are not classes, such as rows, years or ids.
        if names is None and (len(counts) > 1000 or len(counts) * 2 > len(values)):
            return None
    numbers = [int(count) for count in counts]
    if names is None or len(names) != len(numbers):
        names = [str(k) for k in range(len(numbers))]
    return Classes(list(names), numbers)


def _values(column: Any) -> np.ndarray[Any, Any] | None:
    """All labels, if they are in RAM."""
    if isinstance(column, ArrayColumn):
        return None if isinstance(column.array, np.memmap) else column.array
    inner = getattr(column, "column", None)
    if inner is None or hasattr(column, "store"):
        return None
    values = _values(inner)
    numbers = getattr(column, "numbers", None)
    return values if values is None or numbers is None else values[numbers]


def facts(loader: Loader) -> list[tuple[str, str]]:
    """Name and value of each property."""
    specs = flatten(loader.sample_spec)
    each = sum(spec.nbytes for spec in specs)
    stored = sum(spec.nbytes for spec in flatten(loader.raw_spec))
    arrays = ", ".join(in_words(spec) for spec in specs)
    batch = format_bytes(each * loader.batch_size)
    order = {
        None: "as Keras asks: shuffled by fit, storage order for predict and evaluate",
        True: f"shuffled every epoch, seed {loader.seed}",
        False: "storage order",
    }[loader.options.effective_shuffle]
    if loader.sampling:
        order += f"; {loader.sampling}"
    several = loader.options.samples_per_file
    if several > 1:
        order += f"; {several} samples per file, which is read once for all of them"
    found = [("sample", f"{arrays}, {format_bytes(each)} ({batch} per batch)")]
    if len(specs) > 2:
        names = ("x", "y", "weights")
        parts = [
            f"{name} {in_words(spec)}"
            for part, called in zip(loader.sample_spec, names, strict=False)
            for name, spec in zip(names_of(part, called), flatten(part), strict=True)
        ]
        found[0] = ("sample", f"{', '.join(parts)}; {format_bytes(each)} ({batch} per batch)")
    found.append(("total", f"{format_bytes(stored * loader.samples)} decoded"))
    classes = classes_of(loader)
    if classes is not None:
        found.append(("classes", str(classes)))
    found.append(("order", order))
    if loader.shard[1] > 1:
        found.append(("shard", f"part {loader.shard[0]} of {loader.shard[1]}"))
    engine = loader.runner.engine
    found.append(("loading", engine.why(loader.batch_size) if engine else "no batch requested yet"))
    busy = engine.cores_busy if engine and engine.kind == "threads" else None
    if engine is not None and busy is not None and engine.count > 1:
        said = f"{engine.count} kept {busy:.1f} cores busy"
        if busy < 0.75 * engine.count and loader.runner.pipeline.runs_user_code:
            said += "; if they wait for the GIL, and not for a disk, pass processes=True"
        found.append(("threads", said))
    ahead = min(loader.queue_size, max(1, AHEAD_BYTES // max(1, each * loader.batch_size)))
    found.append(
        (
            "memory",
            f"at most {format_bytes(ahead * each * loader.batch_size)} in {ahead} prefetched batches",
        )
    )
    if loader.options.padding is not None:
        found.append(("lengths", str(loader.options.padding)))
    found += [("cache", str(store)) for store in loader.source.stores()]
    if loader.errors:
        found.append(("errors", f"{len(loader.errors)} samples; the first: {loader.errors[0]}"))
    return found


def title(loader: Loader) -> str:
    return (
        f"{type(loader).__name__}: {loader.samples:,} samples in {loader.plan.batches:,} batches of "
        f"{loader.batch_size}"
    )


def as_text(loader: Loader) -> str:
    return "\n".join(
        [title(loader), *(f"{name}: {visible(value)}" for name, value in facts(loader))]
    )


def as_html(loader: Loader) -> str:
    """The description for a notebook. If no sample loads, it shows the error."""
    try:
        rows = facts(loader)
        classes = classes_of(loader)
    except Exception as error:
        rows, classes = [("error", f"{type(error).__name__}: {error}")], None
    cells = "".join(
        "<tr><th style='text-align:left;vertical-align:top;font-weight:600'>"
        f"{html.escape(visible(name))}</th><td style='text-align:left'>{html.escape(visible(value))}</td></tr>"
        for name, value in rows
        if name != "classes" or classes is None or len(classes.counts) > _LISTED
    )
    if classes is not None and len(classes.counts) <= _LISTED:
        most = max(1, *classes.counts)
        bars = "".join(
            f"<tr><td style='text-align:left'>{html.escape(visible(name))}</td>"
            f"<td style='text-align:right'>{count:,}</td>"
            "<td style='text-align:left;width:12em'><svg width='100%' height='10' role='img' "
            f"aria-label='{count:,} samples'><rect width='{100 * count / most:.1f}%' height='10' rx='2' "
            "fill='currentColor' opacity='0.55'/></svg></td></tr>"
            for name, count in zip(classes.names, classes.counts, strict=True)
        )
        cells += (
            "<tr><th style='text-align:left;vertical-align:top;font-weight:600'>classes</th>"
            f"<td style='text-align:left'>{html.escape(classes.balance)}<table>{bars}</table></td></tr>"
        )
    return f"<div><strong>{html.escape(title(loader))}</strong><table>{cells}</table></div>"
