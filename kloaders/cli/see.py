"""The commands that show data and find the bottleneck: show, explain."""

from __future__ import annotations

import json
import os
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
    source_argument,
    table_options,
)
from kloaders.cli.sources import RESIZED_IF_THEY_DIFFER, any_loader
from kloaders.core.messages import visible

__all__ = ["explain_command", "show_command"]


@click.command("show", cls=ImageCommand)
@source_argument
@save_option(
    "--out", click.Path(dir_okay=False), "batch.png", "The file to write: .png, .pdf or .svg."
)
@click.option(
    "--batch", type=click.IntRange(0), default=0, show_default=True, help="Number of the batch."
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Maximum number of samples.",
)
@image_options(RESIZED_IF_THEY_DIFFER)
@batch_size_option
@table_options
@bad_file_options
@json_option
def show_command(
    source: str,
    save: str,
    batch: int,
    samples: int,
    images: ImageShape,
    batch_size: int,
    table: TableColumns,
    bad: BadFiles,
    as_json: bool,
) -> None:
    """Plot a batch with its labels, as the model gets it.

    SOURCE is a folder with a folder of files for each class, a folder of files, a CSV file, a pack
    or a TFRecord file. Needs matplotlib. In Python, loader.show() also shows your transforms, masks
    and boxes.

    \b
    Examples:
        kloaders show photos/ --size 224 224
        kloaders show photos/ --batch 3 --save batch-3.png
        kloaders show train.csv --path-column file --label-column class
    """  # noqa: D301 (\b is for click)
    loader = any_loader(source, table, images, batch_size, **bad.options())
    loader.show(batch, samples=samples, save=save)
    if as_json:
        from kloaders.core.structure import flatten

        shapes = [[str(spec.dtype), *spec.shape] for spec in flatten(loader.sample_spec)]
        content = {"file": save, "batch": batch, "samples": loader.samples, "arrays": shapes}
        click.echo(json.dumps({**content, "class_names": loader.class_names}, indent=2))
    else:
        click.echo(f"{visible(save)}: batch {batch} of {len(loader):,}")
        click.echo(loader.summary())


@click.command("explain", cls=ImageCommand)
@source_argument
@image_options(RESIZED_IF_THEY_DIFFER)
@batch_size_option
@table_options
@bad_file_options
@click.option(
    "--workers", type=click.IntRange(0), help="Threads that load.  [default: one per core]"
)
@click.option("--processes", is_flag=True, help="Processes instead of threads.")
@click.option(
    "--cache",
    help='Cache for decoded samples: "ram", "none" or a folder.  [default: free RAM]',
)
@click.option(
    "--model",
    "model_file",
    type=click.Path(exists=True),
    help="A compiled model saved with model.save() (.keras): its training step is measured too.",
)
@click.option(
    "--check", is_flag=True, help="Try each suggested change, and report its measured effect."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1),
    default=6.0,
    show_default=True,
    help="How long to measure.",
)
@save_option(
    "--html", click.Path(dir_okay=False), None, "Also write a page with charts: explain.html."
)
@json_option
def explain_command(
    source: str,
    images: ImageShape,
    batch_size: int,
    table: TableColumns,
    bad: BadFiles,
    workers: int | None,
    processes: bool,
    cache: str | None,
    model_file: str | None,
    check: bool,
    seconds: float,
    save: str | None,
    as_json: bool,
) -> None:
    """Find the bottleneck, and the settings that would help.

    Measures how fast SOURCE (see `kloaders show --help`) is read, decoded and copied, and, with
    --model, how fast the model trains on it. Reports the bottleneck (the disk, the processor, the
    GIL, copying, or the model itself) and settings that may increase throughput. In Python,
    loader.explain(model) does the same, including your transform.

    \b
    Examples:
        kloaders explain photos/ --size 224 224
        kloaders explain photos/ --size 224 224 --model model.keras --check
        kloaders explain photos/ --save explain.html
        kloaders explain photos/ --json > explain.json
    """  # noqa: D301 (\b is for click)
    options: dict[str, Any] = {"workers": workers, "processes": processes, **bad.options()}
    if cache is not None:
        options["cache"] = None if cache == "none" else cache
    loader = any_loader(source, table, images, batch_size, **options)
    model = None
    if model_file is not None:
        import keras

        model = keras.saving.load_model(model_file)
    found = loader.explain(model, check=check, seconds=seconds)
    loader.close()
    if save is not None:
        save = save if os.path.splitext(save)[1] else f"{save}.html"
        found.save(save)
    if as_json:
        click.echo(found.to_json())
    else:
        click.echo(str(found))
        if save is not None:
            click.echo(f"The same as a page with charts: {visible(save)}")
