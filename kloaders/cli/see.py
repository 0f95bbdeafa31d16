"""The commands that look: show, explain, bench. `kloaders.cli.main` puts them beside the others."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from kloaders.cli.sources import any_loader, batch_options, table_options

__all__ = ["bench", "explain", "show"]

_SOURCE = click.argument("source", type=click.Path(exists=True))


@click.command()
@_SOURCE
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    default="batch.png",
    show_default=True,
    help="The picture: .png, .pdf or .svg.",
)
@click.option("--batch", type=click.IntRange(0), default=0, show_default=True, help="Its number.")
@click.option("--samples", type=click.IntRange(1), default=16, show_default=True, help="At most.")
@batch_options
@table_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def show(
    source: str,
    out: str,
    batch: int,
    samples: int,
    size: tuple[int, int] | None,
    channels: str,
    batch_size: int,
    path_column: str,
    label_column: str,
    folder: str | None,
    as_json: bool,
) -> None:
    """Draw a batch, with its labels, as a model would get it.

    SOURCE is a folder with a folder of files for each class, a folder of files, a CSV file, a pack
    or a TFRecord file. Needs matplotlib. In Python, loader.show() draws your own transforms, masks
    and boxes too.

    \b
    Examples:
        kloaders show photos/ --size 224 224
        kloaders show photos/ --batch 3 --out batch-3.png
        kloaders show train.csv --path-column file --label-column class
    """  # noqa: D301
    columns = (path_column, label_column or None, folder)
    loader = any_loader(source, columns, size, channels, batch_size)
    loader.show(batch, samples=samples, save=out)
    if as_json:
        shapes = [[str(spec.dtype), *spec.shape] for spec in _leaves(loader)]
        told = {"file": out, "batch": batch, "samples": loader.samples, "arrays": shapes}
        click.echo(json.dumps({**told, "class_names": loader.class_names}, indent=2))
    else:
        click.echo(f"{out}: batch {batch} of {len(loader):,}")
        click.echo(loader.summary())


def _leaves(loader: Any) -> list[Any]:
    from kloaders.core.structure import flatten

    return flatten(loader.sample_spec)


@click.command()
@_SOURCE
@batch_options
@table_options
@click.option("--workers", type=click.IntRange(0), help="Threads that load.  [default: one a core]")
@click.option("--processes", is_flag=True, help="Processes instead of threads.")
@click.option(
    "--cache",
    help='Where decoded samples are kept: "ram", "none" or a folder.  [default: spare RAM]',
)
@click.option(
    "--model",
    "model_file",
    type=click.Path(exists=True),
    help="A compiled model, as model.save() wrote it (.keras): its step is measured too.",
)
@click.option(
    "--check", is_flag=True, help="Try each change that is advised, and tell what came of it."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1),
    default=6.0,
    show_default=True,
    help="How long to measure.",
)
@click.option("--html", type=click.Path(dir_okay=False), help="Write a page with charts, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def explain(
    source: str,
    size: tuple[int, int] | None,
    channels: str,
    batch_size: int,
    path_column: str,
    label_column: str,
    folder: str | None,
    workers: int | None,
    processes: bool,
    cache: str | None,
    model_file: str | None,
    check: bool,
    seconds: float,
    html: str | None,
    as_json: bool,
) -> None:
    """Tell where the time goes, and what to change.

    Measures reading, decoding and copying of SOURCE (see `kloaders show --help`), what they make
    together, and, with --model, a training on it. Names what binds: the disk, the processor,
    Python's lock, copying, or the model itself; and settings that promise more. In Python,
    loader.explain(model) does so with your own transform.

    \b
    Examples:
        kloaders explain photos/ --size 224 224
        kloaders explain photos/ --size 224 224 --model model.keras --check
        kloaders explain photos/ --html explain.html
        kloaders explain photos/ --json > explain.json
    """  # noqa: D301
    columns = (path_column, label_column or None, folder)
    options: dict[str, Any] = {"workers": workers, "processes": processes}
    if cache is not None:
        options["cache"] = None if cache == "none" else cache
    loader = any_loader(source, columns, size, channels, batch_size, **options)
    model = None
    if model_file is not None:
        import keras

        model = keras.saving.load_model(model_file)
    found = loader.explain(model, check=check, seconds=seconds)
    loader.close()
    if html is not None:
        found.save(html if os.path.splitext(html)[1] else f"{html}.html")
    if as_json:
        click.echo(found.to_json())
    else:
        click.echo(str(found))
        if html is not None:
            click.echo(f"The same as a page with charts: {html}")


@click.command()
@click.argument("source", type=click.Path(exists=True), required=False)
@batch_options
@table_options
@click.option(
    "--files",
    type=click.IntRange(8),
    default=600,
    show_default=True,
    help="At most so many of SOURCE.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.05),
    default=2.0,
    show_default=True,
    help="How long each row is measured.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def bench(
    source: str | None,
    size: tuple[int, int] | None,
    channels: str,
    batch_size: int,
    path_column: str,
    label_column: str,
    folder: str | None,
    files: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure the ways to load your files, beside the least that they cost.

    SOURCE is a folder with a folder of files for each class, or a CSV file; without it, pictures
    that come with scikit-learn are used. Rows are samples a second, without a model: reading and
    decoding by bare threads, which is the limit, and each loader over the same files. Packs and
    TFRecord files are made of them in a temporary folder.

    \b
    Examples:
        kloaders bench
        kloaders bench photos/ --size 224 224 --batch-size 64
        kloaders bench photos/ --json > bench.json
    """  # noqa: D301
    from kloaders.cli import bench as benches
    from kloaders.core.version import __version__

    columns = (path_column, label_column or None, folder)
    with benches.made_or(source) as there:
        loader: Any = any_loader(there, columns, size, channels, batch_size)
        rows = benches.compare(loader, files, seconds)
    if as_json:
        told = {"version": __version__, "source": source, "files": min(files, loader.samples)}
        click.echo(json.dumps({**told, "rows": benches.as_dicts(rows)}, indent=2))
    else:
        click.echo(benches.table(rows))
