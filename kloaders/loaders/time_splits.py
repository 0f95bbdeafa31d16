"""Splits a loader in time, and finds samples that two parts would share."""

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
    """Check the arguments of a split in time.

    others: other arguments that determine the side of a sample.

    Raises:
        ValueError, TypeError: order is unknown, or another argument contradicts it.
    """
    if order not in (None, "random", "time"):
        raise ValueError(
            f'order={order!r:.80}: choose "time", to validate with the later samples, or "random".'
        )
    if checked_count(gap, "gap", 0) and order != "time":
        raise ValueError(
            f'gap={gap} separates an earlier from a later part: pass order="time" with it.'
        )
    given = [name for name, value in others.items() if value is not None and value is not False]
    if order == "time" and given:
        raise ValueError(
            f'order="time" and {given[0]}= are both set: choose one, since time alone determines which '
            "side a sample is on."
        )


def sides_in_time(whole: SequenceLoader, share: float, gap: int) -> tuple[Indices, Indices]:
    """The sample numbers of the earlier and the later part; for the arguments see `split`.

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
            f"on: none ends{between} before the first one for validation. Lower validation or gap."
        )
    left = whole.samples - len(first) - len(second)
    if left:
        inform(
            f"{len(first):,} samples for training, {len(second):,} later ones for validation, and "
            f"{left:,} between them left out, because they overlap with the later ones or the gap."
        )
    return first, second


def check_apart(whole: SequenceLoader, first: Indices, second: Indices) -> None:
    """Raise an error if windows for validation share rows with windows for training.

    Raises:
        ValueError: samples of both sides share rows of a series.
    """
    shared = _sharing(whole, first, second)
    if shared:
        raise ValueError(
            f"{shared:,} of {len(second):,} windows for validation would share rows with windows for "
            "training, so that validation says nothing about new rows. Pass "
            'order="time", which splits each series in time; order="random" splits at random anyway.'
        )


def warn_where_parts_share_rows(whole: SequenceLoader, first: Indices, second: Indices) -> None:
    """Log how many samples for validation share rows with those for training."""
    shared = _sharing(whole, first, second)
    if shared:
        warn(
            f"{shared:,} of {len(second):,} windows for validation share rows with windows for training, "
            "so that validation says little about new rows. To keep them apart use a splitter with a gap "
            "of a window and its horizon, such as TimeSeriesSplit(5, gap=...)."
        )


def _sharing(whole: SequenceLoader, first: Indices, second: Indices) -> int:
    spans = whole.source.spans()
    return 0 if spans is None else len(spans.sharing(np.asarray(second), np.asarray(first)))
