"""The commands that compare loaders: demo, bench."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import click

from kloaders.cli.options import (
    BadFiles,
    ImageCommand,
    ImageShape,
    TableColumns,
    bad_file_options,
    batch_size_option,
    image_options,
    json_option,
    save_option,
    table_options,
)
from kloaders.cli.sources import RESIZED_IF_THEY_DIFFER, any_loader
from kloaders.core.version import __version__

__all__ = ["bench_command", "demo_command"]

# The same names as `demo.METHODS`, which is imported only when a command runs.
_METHODS = click.Choice(["preload", "files", "two-level", "TFRecord", "tf.data"])


@click.command("demo")
@save_option("--out", click.Path(file_okay=False), ".", "Folder for the chart, kloaders-demo.png.")
@click.option("--epochs", type=click.IntRange(1), default=8, show_default=True)
@click.option(
    "--loader",
    "loaders",
    multiple=True,
    type=_METHODS,
    help="Run only this loader; may be given several times.  [default: all five]",
)
@click.option("--way", "older_name", multiple=True, type=_METHODS, hidden=True)
@click.option(
    "--crops",
    type=click.IntRange(20),
    default=300,
    show_default=True,
    help="Number of crops per photograph; more crops make longer epochs.",
)
@click.option(
    "--accuracy",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="Validation accuracy that each loader must reach; otherwise the exit code is 1.",
)
@json_option
def demo_command(
    save: str,
    epochs: int,
    loaders: tuple[str, ...],
    older_name: tuple[str, ...],
    crops: int,
    accuracy: float,
    as_json: bool,
) -> None:
    """Train a small model with five loaders, and compare them.

    Writes scikit-learn's digits as PNG files and crops of its two photographs as JPEG files to a
    temporary folder, trains the same model on them with each of five loaders, and prints samples per
    second, seconds to the first batch, memory, and the share of the time that the model waited.
    Takes about a minute and a half. KERAS_BACKEND chooses the backend.

    \b
    Examples:
        kloaders demo
        kloaders demo --save charts/ --epochs 20
        kloaders demo --loader files --loader two-level --json > costs.json
    """  # noqa: D301 (\b is for click)
    from kloaders.cli import demo

    begin = time.perf_counter()
    os.makedirs(save, exist_ok=True)
    wanted = loaders + older_name
    chosen = [method for method in demo.METHODS if not wanted or method in wanted]
    results: list[demo.Result] = []
    try:
        demo.compare(chosen, epochs, crops, results=results)
    except KeyboardInterrupt:
        if results:
            click.echo(f"\n{demo.table(results)}")
        raise
    file: str | None = os.path.join(save, "kloaders-demo.png")
    try:
        demo.plot(results, str(file))
    except ImportError:
        file = None
    if as_json:
        methods = demo.summary(results)
        report = {
            "version": __version__,
            "seconds": time.perf_counter() - begin,
            "epochs": epochs,
            "accuracy_wanted": accuracy,
            "plot": file,
            "methods": methods,
            # The old name, until 0.2.
            "ways": [{"way": one["method"], **one} for one in methods],
        }
        click.echo(json.dumps(report, indent=2))
    else:
        backend = next((r.backend for r in results if r.backend), "no backend")
        click.echo(f"\nOn {os.cpu_count()} cores, Keras on {backend}, {epochs} epochs:\n")
        click.echo(f"{demo.table(results)}\n")
        if file is None:
            click.echo("No chart: matplotlib is not installed (python -m pip install matplotlib).")
        else:
            click.echo(f"The same as a chart: {file}")
    poor = [result for result in results if demo.failed(result, accuracy)]
    for result in poor:
        click.echo(
            f"kloaders: {result.method} reached an accuracy of {result.accuracy:.3f}, expected at "
            f"least {accuracy:g}: try more --epochs.",
            err=True,
        )
    if poor:
        sys.exit(1)


@click.command("bench", cls=ImageCommand)
@click.argument("source", type=click.Path(exists=True), required=False)
@image_options(RESIZED_IF_THEY_DIFFER)
@batch_size_option
@table_options
@bad_file_options
@click.option(
    "--files",
    type=click.IntRange(8),
    default=600,
    show_default=True,
    help="Maximum number of files of SOURCE.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.05),
    default=2.0,
    show_default=True,
    help="Time to measure each row.",
)
@json_option
def bench_command(
    source: str | None,
    images: ImageShape,
    batch_size: int,
    table: TableColumns,
    bad: BadFiles,
    files: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Compare how fast each loader reads your files.

    SOURCE is a folder with a folder of files for each class, or a CSV file; the default is images that
    come with scikit-learn. The table has samples per second, without a model: of reading and decoding
    in bare threads, which is the limit, and of each loader over the same files. Packs and TFRecord
    files of them are written to a temporary folder.

    \b
    Examples:
        kloaders bench
        kloaders bench photos/ --size 224 224 --batch-size 64
        kloaders bench photos/ --json > bench.json
    """  # noqa: D301 (\b is for click)
    from kloaders.cli import bench

    with bench.made_or(source) as there:
        loader: Any = any_loader(there, table, images, batch_size, **bad.options())
        rates: dict[str, float] = {}
        try:
            rows = bench.compare(loader, files, seconds, rates=rates)
        except KeyboardInterrupt:
            for name, rate in rates.items():
                click.echo(f"{name}: {rate:,.0f} samples/s")
            raise
    if as_json:
        content = {"version": __version__, "source": source, "files": min(files, loader.samples)}
        click.echo(json.dumps({**content, "rows": bench.as_dicts(rows)}, indent=2))
    else:
        click.echo(bench.table(rows))
