"""A sentence and a table for a notebook: HTML in the notebook's own colours."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from kloaders.core.messages import visible

__all__ = ["sentence_and_table"]

# The maximum number of rows that a cell shows.
_ROWS = 50


def sentence_and_table(
    sentence: str, head: Sequence[str], rows: Iterable[Sequence[object]], more: int = 0
) -> str:
    """HTML of a sentence, followed by a table if there are rows.

    Args:
        sentence: what the table is about.
        head: the names of the columns.
        rows: the values of each row; rows after the 50th are only counted.
        more: the number of rows that are not in `rows`.
    """
    listed = list(rows)
    more += max(0, len(listed) - _ROWS)
    parts = [f"<div><p>{html.escape(visible(sentence))}</p>"]
    if listed:
        parts.append(f"<table>{_row('th', head)}")
        parts += [_row("td", row) for row in listed[:_ROWS]]
        parts.append("</table>")
    if more:
        parts.append(f"<p>and {more:,} more</p>")
    return "".join([*parts, "</div>"])


def _row(kind: str, values: Sequence[object]) -> str:
    style = "style='text-align:left;vertical-align:top;overflow-wrap:normal'"
    cells = (f"<{kind} {style}>{html.escape(visible(value))}</{kind}>" for value in values)
    return f"<tr>{''.join(cells)}</tr>"
