"""The commands that convert files: pack, tfrecord."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import click

from kloaders.cli.options import (
    Conversion,
    ImageCommand,
    ImageShape,
    TableColumns,
    conversion_options,
    image_options,
    json_option,
    source_argument,
    table_options,
)
from kloaders.cli.sources import loader_of
from kloaders.core.messages import visible
from kloaders.core.version import __version__
from kloaders.places import access
from kloaders.places.urls import is_url

__all__ = ["pack_command", "tfrecord_command"]


@click.command("pack", cls=ImageCommand)
@source_argument
@click.argument("out", type=click.Path(file_okay=False))
@image_options("the stored size of each")
@table_options
@click.option("--shard-size", help="Size of one file, such as 256MiB.  [default: 1GiB, or more]")
@click.option(
    "--workers", type=click.IntRange(0), help="Threads that decode.  [default: one per core]"
)
@conversion_options("the pack in OUT", "load")
@json_option
def pack_command(
    source: str,
    out: str,
    images: ImageShape,
    table: TableColumns,
    shard_size: str | None,
    workers: int | None,
    conversion: Conversion,
    as_json: bool,
) -> None:
    """Decode files once into a pack, which is read at memory speed.

    SOURCE is a folder with a folder of files for each class, or a CSV file with a column of paths
    and one of labels. OUT, a folder or a URL, gets .npy files and pack.json, for PackSequenceLoader.
    If it is interrupted, run the same command again: it continues where it stopped.

    \b
    Examples:
        kloaders pack photos/ packed/ --size 224 224
        kloaders pack train.csv packed/ --path-column file --label-column class
        kloaders pack photos/ s3://bucket/packed --staging /large-disk
        kloaders pack photos/ packed/ --on-error skip --json > report.json
        kloaders pack photos/ packed/ --ray auto
    """  # noqa: D301 (\b is for click)
    from kloaders.convert import packs as pack_writer
    from kloaders.core.memory import format_bytes

    begin = time.perf_counter()
    if conversion.finish:
        written = pack_writer.finish_pack(out, overwrite=conversion.overwrite)
    else:
        loader = loader_of(
            source,
            table,
            size=images.size,
            channels=images.channels,
            workers=None if conversion.ray else workers,
            on_error=conversion.on_error,
            exclude=conversion.exclude,
        )
        written = pack_writer.write_pack(
            loader,
            out,
            shard_size=shard_size,
            engine=conversion.ray.engine(workers) if conversion.ray else None,
            part=conversion.part,
            overwrite=conversion.overwrite,
            staging=conversion.staging,
            progress=None,
        )
    if conversion.part:
        _say_part(_report(begin, written, []), out, conversion.part, as_json)
        return
    manifest = json.loads(_content(written.files[-1]))
    report = {
        **_report(begin, written, written.files),
        "out": out,
        "shards": len(manifest["shards"]),
        "class_names": manifest["class_names"],
    }
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    click.echo(
        f"{visible(out)}: {report['samples']:,} samples, {format_bytes(report['bytes'])}, in "
        f"{report['seconds']:.0f} s"
    )
    click.echo("\nIn Python:\n    import kloaders as kl")
    classes = ", stratify=True" if manifest["class_names"] else ""
    click.echo(f"    train, val = kl.split(kl.PackSequenceLoader({out!r}, 32){classes})")


@click.command("tfrecord")
@source_argument
@click.argument("out", type=click.Path(file_okay=False))
@click.option(
    "--name",
    help="Prefix of the file names.  [default: the name of SOURCE; with --validation, train and validation]",
)
@click.option(
    "--shards", type=click.IntRange(1), default=1, show_default=True, help="Number of files."
)
@click.option(
    "--compression",
    type=click.Choice(["GZIP", "ZLIB"], case_sensitive=False),
    help="Compress the files; they can then be read in order only, and JPEGs hardly shrink.  [default: none]",
)
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of each class to write to separate validation files, such as 0.2.",
)
@click.option(
    "--shuffle", is_flag=True, help="Write in a random order, for readers without a full shuffle."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@table_options
@click.option(
    "--workers", type=click.IntRange(1), help="Threads that read.  [default: one per core]"
)
@conversion_options("files of these names", "read")
@json_option
def tfrecord_command(
    source: str,
    out: str,
    name: str | None,
    shards: int,
    compression: str | None,
    validation: float | None,
    shuffle: bool,
    seed: int,
    table: TableColumns,
    workers: int | None,
    conversion: Conversion,
    as_json: bool,
) -> None:
    """Write files into a few TFRecord files.

    They are for TFRecordSequenceLoader and for tf.data. SOURCE is a folder with a folder of files
    for each class, or a CSV file with a column of paths and one of labels. Records are
    tf.train.Example: image_raw (the unchanged file), label, id (its path), and class, if classes
    have names. OUT is a folder or its URL. If it is interrupted, run the same command again: it
    continues where it stopped.

    \b
    Examples:
        kloaders tfrecord photos/ records/ --shards 8 --validation 0.2
        kloaders tfrecord train.csv records/ --path-column file --label-column class
        kloaders tfrecord photos/ records/ --on-error skip --json > report.json
        kloaders tfrecord photos/ records/ --shards 64 --ray auto
    """  # noqa: D301 (\b is for click)
    from kloaders.convert import tfrecords as tfrecord_writer
    from kloaders.core.memory import format_bytes
    from kloaders.sources.columns import values_of

    begin = time.perf_counter()
    loader = loader_of(source, table, exclude=conversion.exclude)
    parts = loader.source.columns or ()
    labels = values_of(parts[1]) if len(parts) > 1 else None
    features = None
    if loader.class_names is not None and labels is not None:
        features = {"class": [loader.class_names[k] for k in labels.tolist()]}
    stem = os.path.splitext(os.path.basename(os.path.normpath(source)))[0]
    names = os.path.join(out, name or ("" if validation else stem))
    if conversion.finish:
        written = tfrecord_writer.finish_tfrecords(names, overwrite=conversion.overwrite)
    else:
        written = tfrecord_writer.write_tfrecords(
            loader.paths,
            labels,
            names,
            shards=shards,
            compression=compression,
            features=features,
            class_names=loader.class_names,
            validation=validation,
            stratify=True if validation and loader.class_names else None,
            shuffle=shuffle,
            seed=seed,
            workers=None if conversion.ray else workers,
            engine=conversion.ray.engine(workers) if conversion.ray else None,
            on_error=conversion.on_error,
            part=conversion.part,
            overwrite=conversion.overwrite,
            staging=conversion.staging,
            progress=None,
        )
    if conversion.part:
        _say_part(_report(begin, written, []), out, conversion.part, as_json)
        return
    files = written.files + written.validation
    report = {
        **_report(begin, written, files),
        "files": written.files,
        "validation": written.validation,
        "class_names": loader.class_names,
    }
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    click.echo(
        f"{visible(out)}: {written.samples:,} samples in {len(files)} files, "
        f"{format_bytes(report['bytes'])}, in {report['seconds']:.0f} s"
    )
    click.echo("\nIn Python:\n    import kloaders as kl")
    for variable, part in (("train", written.files), ("val", written.validation)):
        if part:
            pattern = part[0].rpartition("-00000-of-")[0] + "-*.tfrecord"
            click.echo(f"    {variable} = kl.TFRecordSequenceLoader({pattern!r}, batch_size=32)")


def _say_part(report: dict[str, Any], out: str, part: tuple[int, int], as_json: bool) -> None:
    """Print the result of a command with --part."""
    if as_json:
        click.echo(json.dumps({**report, "out": out, "part": part}, indent=2))
        return
    click.echo(
        f"{visible(out)}: part {part[0]} of {part[1]} is written, {report['samples']:,} samples in "
        f"{report['seconds']:.0f} s\nWhen all parts are written, run the same command with --finish "
        "in place of --part."
    )


def _report(begin: float, written: Any, files: list[str]) -> dict[str, Any]:
    """The part of the JSON output that all conversions have."""
    return {
        "version": __version__,
        "seconds": time.perf_counter() - begin,
        "samples": written.samples,
        "bytes": sum(map(_size, files)),
        "errors": [{"index": e.index, "name": e.name, "cause": e.cause} for e in written.errors],
    }


def _size(path: str) -> int:
    return access.head(path).size if is_url(path) else os.path.getsize(path)


def _content(path: str) -> bytes:
    if is_url(path):
        return access.read(path)
    with open(path, "rb") as file:
        return file.read()
