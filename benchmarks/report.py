"""Turns runs into medians, spreads and ratios, as Markdown tables and as a plot."""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import Any

from workloads import WORKLOADS

Run = dict[str, Any]
# If other processes used more cores than this during a run, the run is less reliable.
BUSY = 0.3
FIGURES = (
    "samples_per_second",
    "us_per_batch",
    "cpu_seconds_per_1000",
    "peak_mb",
    "first_batch_seconds",
    "others_cores",
    "read_mb",
)


def one_line(run: Run) -> str:
    if "samples_per_second" not in run:
        return f"{run['id']:50} {run.get('absent') or run.get('error')}"
    return (
        f"{run['id']:50} {run['samples_per_second']:10,.0f} samples/s, "
        f"others took {run['others_cores']:.2f} cores"
    )


def summary(runs: list[Run]) -> dict[str, list[Run]]:
    """One row per contestant, by workload: medians of its runs, limits first, then the fastest first.

    If a contestant has runs that other processes did not disturb, only these count.
    """
    grouped: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        grouped[run["id"]].append(run)
    tables: dict[str, list[Run]] = defaultdict(list)
    for name, all_of_it in grouped.items():
        good = [run for run in all_of_it if "samples_per_second" in run]
        good = [run for run in good if run["others_cores"] <= BUSY] or good
        bad = next((r for r in all_of_it if "samples_per_second" not in r), {})
        workload, _, contestant = name.partition("/")
        row: Run = {"name": contestant, "kind": all_of_it[0]["kind"], "runs": len(good)}
        row |= {key: bad[key] for key in ("absent", "error") if key in bad}
        if good:
            for figure in FIGURES:
                row[figure] = median([r[figure] for r in good]) if figure in good[0] else None
            rates = [run["samples_per_second"] for run in good]
            row["low"], row["high"] = min(rates), max(rates)
        tables[workload].append(row)
    for rows in tables.values():
        ran = [row for row in rows if row["runs"]]
        for kind in ("limit", "peer"):
            rates = [row["samples_per_second"] for row in ran if row["kind"] == kind]
            for row in ran:
                row[f"of_{kind}"] = row["samples_per_second"] / max(rates) if rates else None
        rank = {"limit": 0, "ours": 1, "peer": 1}
        rows.sort(key=lambda r: (rank[r["kind"]], -r.get("samples_per_second", 0)))
    order = list(WORKLOADS)
    return dict(sorted(tables.items(), key=lambda item: order.index(item[0])))


def tables(runs: list[Run]) -> str:
    """Markdown."""
    lines = []
    for workload, rows in summary(runs).items():
        spec = WORKLOADS[workload]
        lines += [f"### {workload}: {spec.title}", ""]
        heads = ["", "samples/s (min to max)", "us per batch", "of the limit", "of the best peer"]
        heads += ["CPU s per 1000", "peak MB", "first batch s", "others' cores", "runs"]
        lines += [_row(heads), _row(["---"] * len(heads))]
        for row in rows:
            if not row["runs"]:
                continue
            name = row["name"] if row["kind"] == "peer" else f"**{row['name']}**"
            rate = f"{row['samples_per_second']:,.0f} ({row['low']:,.0f} to {row['high']:,.0f})"
            cells = [name, rate, _number(row["us_per_batch"], ",.0f")]
            cells += [_number(row[k], ".2f") for k in ("of_limit", "of_peer")]
            cells += [_number(row["cpu_seconds_per_1000"], ".2f"), _number(row["peak_mb"], ",.0f")]
            cells += [_number(row[k], ".2f") for k in ("first_batch_seconds", "others_cores")]
            lines.append(_row([*cells, str(row["runs"])]))
        lines.append("")
        for row in rows:
            if why := row.get("error") or row.get("absent"):
                lines += [f"Left out: {row['name']}: {why}", ""]
            if row.get("read_mb") is not None:
                lines += [f"{row['name']}: {row['read_mb']:,.0f} MB came from the disk.", ""]
    disturbed = [run for run in runs if run.get("others_cores", 0) > BUSY]
    if disturbed:
        said = f"Others took more than {BUSY} cores during {len(disturbed)} of {len(runs)} runs. "
        said += "They count only where a contestant has no other run: there, trust CPU seconds "
        lines += [said + "before samples/s.", ""]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def plot(runs: list[Run], file: str) -> None:
    """One panel per workload: bars are medians, whiskers go from the slowest run to the fastest."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    found = {w: [r for r in rows if r["runs"]] for w, rows in summary(runs).items()}
    found = {w: rows for w, rows in found.items() if rows}
    heights = [1.1 + 0.28 * len(rows) for rows in found.values()]
    figure, axes = plt.subplots(
        len(found),
        figsize=(10, sum(heights)),
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    colours = {"limit": "0.75", "ours": "tab:orange", "peer": "tab:blue"}
    for axis, (workload, rows) in zip(axes[:, 0], found.items(), strict=True):
        rates = [row["samples_per_second"] for row in rows]
        spread = [
            [rate - row["low"] for rate, row in zip(rates, rows, strict=True)],
            [row["high"] - rate for rate, row in zip(rates, rows, strict=True)],
        ]
        places = range(len(rows), 0, -1)
        axis.barh(places, rates, xerr=spread, color=[colours[row["kind"]] for row in rows])
        axis.set_yticks(places, [row["name"] for row in rows])
        axis.set_title(f"{workload}: {WORKLOADS[workload].title}", loc="left", fontsize=10)
        axis.set_xlabel("samples/s: median, and from the slowest run to the quickest", fontsize=8)
    figure.savefig(file, dpi=80)
