"""Renders an explanation as one self-contained HTML page that is readable on any screen.

Bars are inline SVG with lengths in percent, so that text keeps its size on a narrow screen.
"""

from __future__ import annotations

import html
import math

from kloaders.core.memory import format_bytes
from kloaders.core.messages import visible
from kloaders.diagnostics.explain.findings import Findings
from kloaders.diagnostics.explain.text import (
    limits_of,
    next_step,
    rate_of,
    stages_of,
    standing,
    time_of,
    verdict,
)

__all__ = ["in_a_notebook", "page"]

# If rates differ by more than this factor, the axis is logarithmic, since the lowest rates matter most.
_FAR_APART = 10

# Contrast: at least 4.5 for text, 3 for bars.
# The rules for `dt` override the notebook's own style of lists; names are not broken across lines.
_STYLE = """
.kle { --ground: #ffffff; --card: #f5f6f8; --ink: #17202b; --soft: #51606f; --line: #d7dce2;
  --bar: #7186a0; --mark: #b3470f; --good: #1d6f42;
  color: var(--ink); background: var(--ground); font: 16px/1.5 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; overflow-wrap: break-word; word-break: normal; }
@media (prefers-color-scheme: dark) {
  .kle { --ground: #12161c; --card: #1c222b; --ink: #e8ecf1; --soft: #a6b2c0; --line: #343d49;
    --bar: #7389a5; --mark: #f0935a; --good: #6cc594; }
}
.kle * { box-sizing: border-box; }
.kle main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
.kle h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; }
.kle h2 { font-size: 1.1rem; margin: 2rem 0 .25rem; }
.kle p { margin: .25rem 0; }
.kle .soft { color: var(--soft); font-size: .9rem; }
.kle .tiles { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  margin: 1.25rem 0; }
.kle .tile { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .75rem; }
.kle .tile b { display: block; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.kle .tile span { color: var(--soft); font-size: .85rem; }
.kle .bars { display: grid; grid-template-columns: minmax(8rem, 16rem) 1fr minmax(4.5rem, auto);
  gap: .35rem .75rem; align-items: center; margin: .75rem 0; }
.kle .bar { display: contents; }
.kle .bar > .value { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.kle .bars svg { display: block; width: 100%; height: 14px; }
.kle rect { fill: var(--bar); }
.kle rect.mark { fill: var(--mark); }
.kle rect.good { fill: var(--good); }
.kle line { stroke: var(--ground); stroke-width: 1.5; }
.kle rect.track { fill: var(--line); opacity: .45; }
.kle .key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .35em;
  background: var(--bar); }
.kle .said { white-space: nowrap; margin-right: 1rem; }
.kle .key.mark { background: var(--mark); }
.kle .key.good { background: var(--good); }
.kle .advice { background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--good);
  border-radius: .5rem; padding: .75rem 1rem; margin: .75rem 0; }
.kle code { font: .95em ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.kle dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .15rem 1rem;
  margin: .5rem 0; font-size: .9rem; }
.kle dt { color: var(--soft); float: none; width: auto; margin: 0; font-weight: normal; }
.kle dd { margin: 0; min-width: 0; }
@media (max-width: 36rem) {
  .kle .bars { display: block; }
  .kle .bar { display: grid; grid-template-columns: 1fr auto; gap: .1rem .75rem; margin: .5rem 0; }
  .kle .bar > .chart { grid-row: 2; grid-column: 1 / -1; }
}
"""


def page(found: Findings) -> str:
    """A complete page."""
    title = html.escape(f"Where the time goes: {found.title}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>{_STYLE}\nbody {{ margin: 0; }}</style>\n</head>\n"
        f'<body class="kle">\n{_body(found)}\n</body>\n</html>'
    )


def in_a_notebook(found: Findings) -> str:
    """The page as the output of a notebook cell."""
    return f'<div class="kle"><style>{_STYLE}</style>{_body(found)}</div>'


def _body(found: Findings) -> str:
    m, s = found.measured, found.measured.settings
    parts = [
        f"<main>\n<h1>{html.escape(verdict(found))}</h1>",
        f'<p class="soft">{html.escape(visible(found.title))}</p>',
        f"<p>{html.escape('' if found.busy else found.why)} {html.escape(standing(found))}</p>",
        "" if found.busy else _tiles(found),
    ]
    if found.best is not None and not found.busy:
        parts.append(_step(found))
    parts.append("" if found.busy else "<h2>Suggested changes</h2>")
    parts += [_advice(found, k) for k in range(len(found.advice))]
    if not found.advice and not found.busy:
        nothing = (
            "Nothing to change: a faster loader would gain nothing."
            if found.bottleneck == "model"
            else "No setting is expected to gain more than 10%."
        )
        parts.append(f"<p>{nothing}</p>")
    parts.append(f"<p><b>Next:</b> {html.escape(next_step(found))}</p>")
    parts.append("<h2>Throughput of each part</h2>")
    limits = limits_of(found)
    low, high = _decades([rate for _, _, rate in limits])
    said = "Samples per second, each measured alone; the lowest limits the others."
    if low:
        said += (
            f" Logarithmic scale from {low:,.0f}; each white line is ten times the previous one."
        )
    parts.append(f'<p class="soft">{said}</p>')
    parts.append(
        _bars(
            [
                (words, _share(rate, low, high), rate_of(found, rate), _colour(name))
                for name, words, rate in limits
            ],
            round(math.log10(high / low)) if low else 1,
        )
    )
    parts.append("<h2>Time per sample</h2>")
    stages = stages_of(found)
    said = "In one thread; the time of a model's step is divided by the batch size."
    if any(name == found.stage for name, _, _ in stages):
        said += ' <span class="said"><span class="key mark"></span>the bottleneck</span>'
    parts.append(f'<p class="soft">{said}</p>')
    most = max([seconds for _, _, seconds in stages], default=1.0) or 1.0
    parts.append(
        _bars(
            [
                (
                    words,
                    seconds / most,
                    time_of(seconds),
                    "mark" if name == found.stage else "",
                )
                for name, words, seconds in stages
            ]
        )
    )
    if found.best is None:
        parts.append(
            "<p>No model was given, so it is not known whether it waits for data: call "
            "<code>loader.explain(model)</code>, or <code>explain()</code> after a fit with "
            "<code>LoaderCallback</code>.</p>"
        )
    parts.append("<h2>How it was measured</h2>")
    rows = [
        (
            "first epoch",
            f"{rate_of(found, found.first)} samples/s for the loader alone; {found.first_why}",
        ),
        ("cache", f"holds {s.kept:.0%} of the samples after the first epoch"),
        (
            "sample",
            f"{format_bytes(s.sample_bytes)} delivered, {format_bytes(s.raw_bytes)} decoded",
        ),
        (
            "files",
            "-" if s.stored_bytes is None else f"{format_bytes(s.stored_bytes)} each, on average",
        ),
        ("workers", f"{s.workers} {'processes' if s.processes else 'threads'}, {s.cores} cores"),
        ("measured on", f"{m.probed} samples, in {m.seconds:.0f} s"),
        (
            "model measured in",
            {"model": "fits of a few steps", "fit": "the last fit"}.get(m.model_from or "", "-"),
        ),
        *((name, str(value)) for name, value in found.machine.items() if name != "cores"),
    ]
    terms = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in rows
    )
    parts.append(f"<dl>{terms}</dl>\n</main>")
    return "\n".join(parts)


def _tiles(found: Findings) -> str:
    tiles = [
        (f"{found.now:,.0f}", "samples per second now"),
        (f"{found.reached:.0%}", "of what this machine can do"),
    ]
    if found.best is not None:
        tiles.append((f"{found.best:,.0f}", "samples per second if the model never waited"))
    if found.wait is not None:
        tiles.append((f"{found.wait:.0%}", "of the time the model waits for data"))
    if found.best is None:
        tiles.append((f"{found.ceiling:,.0f}", "samples per second that this machine can do"))
    inside = "".join(
        f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(words)}</span></div>'
        for value, words in tiles
    )
    return f'<div class="tiles">{inside}</div>'


def _step(found: Findings) -> str:
    """One bar for the time of a step: the model's share, and the waiting."""
    m = found.measured
    if not m.fit_s or m.step_s is None:
        return ""
    wait = found.wait or 0.0
    waited = m.fit_s * wait
    return (
        "<h2>A training step</h2>"
        f'<p class="soft">{time_of(m.fit_s)} per step.</p>'
        '<svg width="100%" height="22" role="img" '
        f'aria-label="{1 - wait:.0%} the model, {wait:.0%} waiting for data">'
        f'<rect class="good" x="0" width="{100 * (1 - wait):.2f}%" height="22"></rect>'
        f'<rect class="mark" x="{100 * (1 - wait):.2f}%" width="{100 * wait:.2f}%" height="22"></rect></svg>'
        '<p><span class="said"><span class="key good"></span>the model, '
        f"{time_of(m.fit_s - waited)}</span> "
        '<span class="said"><span class="key mark"></span>waiting for data, '
        f"{time_of(waited)}</span></p>"
    )


def _advice(found: Findings, k: int) -> str:
    advice = found.advice[k]
    rates = [("now", found.now, ""), ("predicted", advice.predicted, "good")]
    if advice.measured is not None:
        rates.append(("measured", advice.measured, "mark"))
    most = max(rate for _, rate, _ in rates) or 1.0
    rows = [
        (
            name,
            rate / most,
            f"{rate:,.0f} ({rate / found.now:.1f} times)" if name != "now" else f"{rate:,.0f}",
            colour,
        )
        for name, rate, colour in rates
    ]
    return (
        f'<div class="advice"><p><code>{html.escape(advice.setting)}</code></p>'
        f'<p class="soft">{html.escape(advice.why)}</p>{_bars(rows)}</div>'
    )


def _decades(rates: list[float]) -> tuple[float, float]:
    """Start and end of the axis: powers of ten if the rates differ much, otherwise from 0 to the highest."""
    most = max(rates, default=1.0)
    if not rates or most < _FAR_APART * min(rates):
        return 0.0, most
    return 10.0 ** math.floor(math.log10(min(rates)) - 0.3), 10.0 ** math.ceil(math.log10(most))


def _share(rate: float, low: float, high: float) -> float:
    """The position of a rate on that axis, from 0 to 1."""
    return math.log(rate / low) / math.log(high / low) if low else rate / high


def _bars(rows: list[tuple[str, float, str, str]], parts: int = 1) -> str:
    """A bar chart.

    Args:
        rows: for each bar its name, its length from 0 to 1, its value as text, and its CSS class.
        parts: the number of parts into which white lines divide the axis.
    """
    marks = "".join(
        f'<line x1="{100 * k / parts:.2f}%" x2="{100 * k / parts:.2f}%" y1="0" y2="14"></line>'
        for k in range(1, parts)
    )
    cells = "".join(
        f'<div class="bar"><div class="name">{html.escape(name)}</div>'
        f'<div class="chart"><svg height="14" role="img" aria-label="{html.escape(name)}: '
        f'{html.escape(value)}"><rect class="track" width="100%" height="14" rx="3"></rect>'
        f'<rect class="{colour}" width="{max(0.4, 100 * share):.2f}%" height="14" rx="3"></rect>{marks}</svg></div>'
        f'<div class="value">{html.escape(value)}</div></div>'
        for name, share, value, colour in rows
    )
    return f'<div class="bars">{cells}</div>'


def _colour(name: str) -> str:
    return {"model": "good", "fit": "mark"}.get(name, "")
