"""The command line. A command imports what it needs when it runs: `--help` is quick."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import click

from kloaders.cli.see import bench, explain, show
from kloaders.cli.sources import loader_of as _loader_of
from kloaders.cli.sources import table_options as _table_options
from kloaders.core.version import __version__

__all__ = ["main"]


class _Kind(click.Group):
    """Errors in one line, as they are meant for people; the traceback on request."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            said = " ".join(str(error).split()) or type(error).__name__
            if not isinstance(error, (ValueError, OSError, MemoryError, ImportError, RuntimeError)):
                # Our mistake rather than the user's: its kind is half of what it says.
                said = f"{type(error).__name__}: {said} (kloaders --debug ... shows where)"
            click.echo(f"kloaders: {said}", err=True)
            ctx.exit(1)


@click.group(
    cls=_Kind,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`kloaders COMMAND --help` tells more about a command.",
)
@click.version_option(__version__, prog_name="kloaders")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def cli(debug: bool) -> None:
    """Data loaders for Keras: more data than RAM, and a model that does not wait.

    \b
    See it train, on pictures that come with scikit-learn:
        kloaders demo

    \b
    Look at your own data, and at where the time goes:
        kloaders show photos/ --size 224 224
        kloaders explain photos/ --size 224 224

    \b
    In Python:
        import kloaders as kl
        train, val = kl.from_directory("photos", size=(224, 224), seed=7)
        model.fit(train, validation_data=val, epochs=10)
    """  # noqa: D301 (\b is the character that click looks for)


@cli.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    default=".",
    show_default="this folder",
    help="Folder for the picture, kloaders-demo.png.",
)
@click.option("--epochs", type=click.IntRange(1), default=8, show_default=True)
@click.option(
    "--way",
    "ways",
    multiple=True,
    type=click.Choice(["preload", "files", "two-level", "TFRecord", "tf.data"]),
    help="Only this way; may be given several times.  [default: all five]",
)
@click.option(
    "--crops",
    type=click.IntRange(20),
    default=300,
    show_default=True,
    help="Pieces cut from each photograph; more files, longer epochs.",
)
@click.option(
    "--accuracy",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="What each way must reach on files held out; else the exit code is 1.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def demo(
    out: str, epochs: int, ways: tuple[str, ...], crops: int, accuracy: float, as_json: bool
) -> None:
    """Train one small model through five loaders, and show what each costs.

    Writes scikit-learn's digits as PNG files and pieces of its two photographs as JPEG files to a
    temporary folder, trains the same model on them in five ways, and prints samples a second,
    seconds to the first batch, memory, and the share of the time that the model waited. Takes
    about a minute and a half. KERAS_BACKEND chooses the backend.

    \b
    Examples:
        kloaders demo
        kloaders demo --out charts/ --epochs 20
        kloaders demo --way files --way two-level --json > costs.json
    """  # noqa: D301
    from kloaders.cli import demo as show

    begin = time.perf_counter()
    os.makedirs(out, exist_ok=True)
    chosen = [way for way in show.WAYS if not ways or way in ways]
    results = show.compare(chosen, epochs, crops)
    file: str | None = os.path.join(out, "kloaders-demo.png")
    try:
        show.plot(results, str(file))
    except ImportError:
        file = None
    poor = [result for result in results if show.failed(result, accuracy)]
    if as_json:
        report = {
            "version": __version__,
            "seconds": time.perf_counter() - begin,
            "epochs": epochs,
            "accuracy_wanted": accuracy,
            "plot": file,
            "ways": show.summary(results),
        }
        print(json.dumps(report, indent=2))
    else:
        backend = next((r.backend for r in results if r.backend), "no backend")
        print(f"\nOn {os.cpu_count()} cores, Keras on {backend}, {epochs} epochs:\n")
        print(show.table(results))
        print()
        if file is None:
            print("No picture: matplotlib is not installed (python -m pip install matplotlib).")
        else:
            print(f"The same as a picture: {file}")
    for result in poor:
        click.echo(
            f"kloaders: {result.way} reached an accuracy of {result.accuracy:.3f}, expected at "
            f"least {accuracy:g}: try more --epochs.",
            err=True,
        )
    if poor:
        sys.exit(1)


@cli.command()
@click.argument("source", type=click.Path(exists=True))
@click.argument("out", type=click.Path(file_okay=False))
@click.option(
    "--size",
    type=click.IntRange(1),
    nargs=2,
    metavar="HEIGHT WIDTH",
    help="Resize pictures to this.  [default: as they are, each its own]",
)
@click.option(
    "--channels",
    type=click.Choice(["1", "3", "4"]),
    default="3",
    show_default=True,
    help="Grey, RGB or RGBA.",
)
@_table_options
@click.option("--shard-size", help="Of one file, such as 256MiB.  [default: 1GiB, or more]")
@click.option(
    "--workers", type=click.IntRange(0), help="Threads that decode.  [default: one a core]"
)
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="Stop at a file that does not load, or leave it out and list it at the end.",
)
@click.option(
    "--exclude",
    type=click.Path(exists=True, dir_okay=False),
    help="Leave out what this CSV file lists, as `kloaders verify --csv` writes it.",
)
@click.option("--overwrite", is_flag=True, help="Replace a pack that is in OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def pack(
    source: str,
    out: str,
    size: tuple[int, int] | None,
    channels: str,
    path_column: str,
    label_column: str,
    folder: str | None,
    shard_size: str | None,
    workers: int | None,
    on_error: str,
    exclude: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Decode files once, into a folder that is read at memory speed.

    SOURCE is a folder with a folder of files for each class, or a CSV file with a column of paths
    and one of labels. OUT gets .npy files and pack.json, for PackSequenceLoader. Stopped at any
    moment, the same command goes on where it was.

    \b
    Examples:
        kloaders pack photos/ packed/ --size 224 224
        kloaders pack train.csv packed/ --path-column file --label-column class
        kloaders pack photos/ packed/ --on-error skip --json > report.json
    """  # noqa: D301
    from kloaders.convert import packs as pack_writer
    from kloaders.core.memory import format_bytes
    from kloaders.formats import pack as pack_format

    begin = time.perf_counter()
    loader = _loader_of(
        source,
        (path_column, label_column or None, folder),
        size=size,
        channels=int(channels),
        workers=workers,
        on_error=on_error,
        exclude=exclude,
    )
    written = pack_writer.write_pack(
        loader, out, shard_size=shard_size, overwrite=overwrite, progress=None
    )
    manifest = pack_format.read_manifest(out)
    report: dict[str, Any] = {
        "version": __version__,
        "seconds": time.perf_counter() - begin,
        "out": out,
        "samples": written.samples,
        "shards": len(manifest.shards),
        "bytes": sum(map(os.path.getsize, written.files)),
        "class_names": manifest.class_names,
        "errors": [{"index": e.index, "name": e.name, "cause": e.cause} for e in written.errors],
    }
    if as_json:
        print(json.dumps(report, indent=2))
        return
    print(
        f"{out}: {report['samples']:,} samples, {format_bytes(report['bytes'])}, in "
        f"{report['seconds']:.0f} s"
    )
    print("\nIn Python:\n    import kloaders as kl")
    classes = ", stratify=True" if manifest.class_names else ""
    print(f"    train, val = kl.split(kl.PackSequenceLoader({out!r}, 32){classes})")


@cli.command()
@click.argument("source", type=click.Path(exists=True))
@click.argument("out", type=click.Path(file_okay=False))
@click.option(
    "--name",
    help="How the files' names begin.  [default: as SOURCE; train and validation, if it is split]",
)
@click.option("--shards", type=click.IntRange(1), default=1, show_default=True, help="Files.")
@click.option(
    "--compression",
    type=click.Choice(["GZIP", "ZLIB"], case_sensitive=False),
    help="Smaller, and readable front to back only; not for JPEGs.  [default: none]",
)
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="The share to write to files of their own, such as 0.2, with every class's share the same.",
)
@click.option("--shuffle", is_flag=True, help="Write in a random order, for other readers.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@_table_options
@click.option("--workers", type=click.IntRange(1), help="Threads that read.  [default: one a core]")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="Stop at a file that does not read, or leave it out and list it at the end.",
)
@click.option(
    "--exclude",
    type=click.Path(exists=True, dir_okay=False),
    help="Leave out what this CSV file lists, as `kloaders verify --csv` writes it.",
)
@click.option("--overwrite", is_flag=True, help="Replace files of these names.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def tfrecord(
    source: str,
    out: str,
    name: str | None,
    shards: int,
    compression: str | None,
    validation: float | None,
    shuffle: bool,
    seed: int,
    path_column: str,
    label_column: str,
    folder: str | None,
    workers: int | None,
    on_error: str,
    exclude: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Put files into a few TFRecord files, for TFRecordSequenceLoader and for tf.data.

    SOURCE is a folder with a folder of files for each class, or a CSV file with a column of paths
    and one of labels. Records are tf.train.Example: image_raw (the file as it is), label, id (its
    path), and class, where classes have names. OUT is a folder. Stopped at any moment, the same
    command goes on where it was.

    \b
    Examples:
        kloaders tfrecord photos/ records/ --shards 8 --validation 0.2
        kloaders tfrecord train.csv records/ --path-column file --label-column class
        kloaders tfrecord photos/ records/ --on-error skip --json > report.json
    """  # noqa: D301
    from kloaders.convert import tfrecords as tfrecord_writer
    from kloaders.core.memory import format_bytes
    from kloaders.sources.columns import values_of

    begin = time.perf_counter()
    loader = _loader_of(source, (path_column, label_column or None, folder), exclude=exclude)
    parts = loader.source.columns or ()
    labels = values_of(parts[1]) if len(parts) > 1 else None
    features = None
    if loader.class_names is not None and labels is not None:
        features = {"class": [loader.class_names[k] for k in labels.tolist()]}
    stem = os.path.splitext(os.path.basename(os.path.normpath(source)))[0]
    written = tfrecord_writer.write_tfrecords(
        loader.paths,
        labels,
        os.path.join(out, name or ("" if validation else stem)),
        shards=shards,
        compression=compression,
        features=features,
        validation=validation,
        stratify=True if validation and loader.class_names else None,
        shuffle=shuffle,
        seed=seed,
        workers=workers,
        on_error=on_error,
        overwrite=overwrite,
        progress=None,
    )
    files = written.files + written.validation
    report: dict[str, Any] = {
        "version": __version__,
        "seconds": time.perf_counter() - begin,
        "files": written.files,
        "validation": written.validation,
        "samples": written.samples,
        "bytes": sum(os.path.getsize(file) for file in files),
        "class_names": loader.class_names,
        "errors": [{"index": e.index, "name": e.name, "cause": e.cause} for e in written.errors],
    }
    if as_json:
        print(json.dumps(report, indent=2))
        return
    print(
        f"{out}: {written.samples:,} samples in {len(files)} files, "
        f"{format_bytes(report['bytes'])}, in {report['seconds']:.0f} s"
    )
    print("\nIn Python:\n    import kloaders as kl")
    chosen = '{"x": "image_raw", "y": "label"}' if labels is not None else '{"x": "image_raw"}'
    for variable, part in (("train", written.files), ("val", written.validation)):
        if part:
            pattern = part[0].rpartition("-00000-of-")[0] + "-*.tfrecord"
            print(f"    {variable} = kl.TFRecordSequenceLoader({pattern!r}, {chosen}, 32)")


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@_table_options
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    help="Pictures with more are reported, and not decoded.  [default: 178,956,970, as loaders]",
)
@click.option("--no-duplicates", is_flag=True, help="Do not compare files by content.")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option(
    "--workers", type=click.IntRange(0), help="Processes that read.  [default: one a core]"
)
@click.option("--json", "json_file", metavar="FILE", help='Write a JSON report; "-": print it.')
@click.option(
    "--csv",
    "csv_file",
    metavar="FILE",
    help="Write a list of what is wrong, for exclude= of loaders: path, error, first_seen.",
)
def verify(
    sources: tuple[str, ...],
    path_column: str,
    label_column: str,
    folder: str | None,
    max_pixels: int | None,
    no_duplicates: bool,
    strict: bool,
    workers: int | None,
    json_file: str | None,
    csv_file: str | None,
) -> None:
    """Read a data set, all of it, and name every file that would break a training.

    SOURCE is a folder, a CSV file with a column of paths, a TFRecord file, the folder of a pack, or
    several of these.

    \b
    Errors:   unreadable          missing, or no permission
              empty               0 bytes
              truncated           cut short, a JPEG at whatever byte
              broken              does not decode, or does not match its checksum
              too many pixels     more than --max-pixels
              misnamed            PNG bytes in a .jpg, for example
    Warnings: conflicting labels  the same content with two labels
              duplicate           the same content again
              inconsistent        another shape or type than nearly all others

    \b
    Exit code: 0 no errors (with --strict: nothing at all), 1 something found, 2 nothing to read.

    \b
    Examples:
        kloaders verify photos/
        kloaders verify train.csv --path-column file --label-column class
        kloaders verify 'records/*.tfrecord' --json report.json
        kloaders verify photos/ --csv bad.csv
    and then, in Python: kl.from_directory("photos", exclude="bad.csv")
    """  # noqa: D301
    from kloaders.diagnostics.verify.report import lines_of, summary
    from kloaders.diagnostics.verify.run import verify as verify_files
    from kloaders.formats.options import ImageOptions

    try:
        report = verify_files(
            sources,
            path_column=path_column,
            label_column=label_column or None,
            folder=folder,
            max_pixels=max_pixels or ImageOptions.max_pixels,
            duplicates=not no_duplicates,
            workers=workers,
            progress=None,
        )
        rows = report.write_csv(csv_file, warnings=strict) if csv_file else 0
    except (OSError, ValueError) as error:
        raise click.UsageError(" ".join(str(error).split())) from error
    if json_file == "-":
        print(report.to_json())
    else:
        if json_file:
            with open(json_file, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(report.to_json() + "\n")
        for line in lines_of(report):
            print(_shown(line))
        print(_shown(summary(report)))
        if csv_file:
            print(f"{csv_file}: {rows:,} to leave out, by exclude={csv_file!r} of a loader")
    if not report.ok or (strict and report.findings):
        sys.exit(1)


def _shown(text: str) -> str:
    """What any terminal can print: names of files are bytes, and not always UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


for _command in (show, explain, bench):
    cli.add_command(_command)


def main() -> None:
    """The entry point of the command `kloaders`."""
    cli(prog_name="kloaders")
