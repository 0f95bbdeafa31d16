"""Parts of a loader that are earlier and later, and samples that two parts would share."""

from __future__ import annotations

from typing import Any

import numpy as np

from kloaders.core.arrays import Indices
from kloaders.core.checks import checked_count
from kloaders.core.messages import inform, warn
from kloaders.loaders.sequence import SequenceLoader
from kloaders.sources.spans import Spans

__all__ = ["check_apart", "checked_order", "sides_in_time", "warn_where_parts_share_rows"]


def checked_order(order: Any, gap: Any, **others: Any) -> None:
    """Refuse what `split` cannot do in time.

    others: arguments that have a say in what goes to which side.

    Raises:
        ValueError, TypeError: order is not known, or another argument contradicts it.
    """
    if order not in (None, "random", "time"):
        raise ValueError(
            f'order={order!r:.80}: choose "time", the later samples to validate with, or "random".'
        )
    if checked_count(gap, "gap", 0) and order != "time":
        raise ValueError(
            f'gap={gap} lies between an earlier and a later part: pass order="time" with it.'
        )
    given = [name for name, value in others.items() if value is not None and value is not False]
    if order == "time" and given:
        raise ValueError(
            f'order="time" and {given[0]}= are both given: choose one, since time alone says which '
            "sample is on which side."
        )


def sides_in_time(whole: SequenceLoader, share: float, gap: int) -> tuple[Indices, Indices]:
    """Sample numbers of the earlier and the later part; `split` says what the arguments are.

    Raises:
        ValueError: a side would be empty.
    """
    spans = whole.source.spans() or Spans.of_single(whole.samples)
    first, second = spans.cut(share, gap)
    if not len(second):
        raise ValueError(
            f"validation={share:g} of {whole.samples} samples leaves none to validate with: raise "
            "validation, or add samples."
        )
    if not len(first):
        between = f" {gap} rows" if gap and spans.length > 1 else f" {gap}" if gap else ""
        raise ValueError(
            f'validation={share:g} with order="time" leaves none of {whole.samples} samples to train '
            f"on: none ends{between} before the first one to validate with. Lower validation or gap."
        )
    left = whole.samples - len(first) - len(second)
    if left:
        inform(
            f"{len(first):,} samples to train on, {len(second):,} later ones to validate with, and "
            f"{left:,} between them left out, which reach into the later ones or the gap."
        )
    return first, second


def check_apart(whole: SequenceLoader, first: Indices, second: Indices) -> None:
    """Refuse to validate with windows whose rows are trained on.

    Raises:
        ValueError: samples of both sides share rows of a series.
    """
    shared = _sharing(whole, first, second)
    if shared:
        raise ValueError(
            f"{shared:,} of {len(second):,} windows to validate with would share rows with windows to "
            "train on, so that validation tells nothing about rows that are new. Pass "
            'order="time", which cuts each series in time; order="random" splits at random all the same.'
        )


def warn_where_parts_share_rows(whole: SequenceLoader, first: Indices, second: Indices) -> None:
    """Log how many samples to validate with share rows with those to train on."""
    shared = _sharing(whole, first, second)
    if shared:
        warn(
            f"{shared:,} of {len(second):,} windows to validate with share rows with windows to train "
            "on, so that validation tells little about rows that are new. A splitter with a gap of "
            "a window and its horizon keeps them apart, as TimeSeriesSplit(5, gap=...)."
        )


def _sharing(whole: SequenceLoader, first: Indices, second: Indices) -> int:
    spans = whole.source.spans()
    return 0 if spans is None else len(spans.sharing(np.asarray(second), np.asarray(first)))
