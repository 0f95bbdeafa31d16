"""The command that checks a whole data set before training: verify."""

from __future__ import annotations

import sys

import click

from kloaders.cli.options import RayOption, TableColumns, ray_option, table_options
from kloaders.core.messages import visible

__all__ = ["verify_command"]


@click.command("verify")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@table_options
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    help="Report larger images without decoding them.  [default: 178,956,970, as in loaders]",
)
@click.option("--follow-links", is_flag=True, help="Read linked folders inside classes.")
@click.option("--no-duplicates", is_flag=True, help="Do not compare files by content.")
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
@click.option(
    "--workers", type=click.IntRange(0), help="Processes that read.  [default: one per core]"
)
@ray_option
@click.option(
    "--json",
    "json_file",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="Print one JSON object, for scripts, or write it to FILE. Put this option after SOURCE.",
)
@click.option(
    "--csv",
    "csv_file",
    metavar="FILE",
    help="Write a list of bad files, for exclude= of loaders: path, error, first_seen.",
)
def verify_command(
    sources: tuple[str, ...],
    table: TableColumns,
    max_pixels: int | None,
    follow_links: bool,
    no_duplicates: bool,
    strict: bool,
    workers: int | None,
    ray: RayOption | None,
    json_file: str | None,
    csv_file: str | None,
) -> None:
    """Read a whole data set, and list every bad file.

    SOURCE is a folder, a CSV file with a column of paths, an image, an array, a video, a TFRecord
    file, the folder of a pack, a tar file (WebDataset), a Parquet file, an MDS folder, or the URL of one
    of these; you may pass several. In a folder, verify reads the same files as from_directory().

    \b
    Errors:   unreadable          missing, or no permission
              empty               0 bytes
              truncated           the end is missing (even one byte of a JPEG) or is all zeros;
                                  a video is shorter than its header says
              broken              does not decode, or does not match its checksum
              too many pixels     more than --max-pixels
              misnamed            PNG bytes in a .jpg, for example
    Warnings: conflicting labels  the same content with two labels
              duplicate           the same content again
              inconsistent        another shape or type than nearly all others

    \b
    Exit code: 0 no errors (with --strict: no warnings either), 1 findings, 2 nothing to read.

    \b
    Examples:
        kloaders verify photos/
        kloaders verify train.csv --path-column file --label-column class
        kloaders verify 'records/*.tfrecord' --json report.json
        kloaders verify photos/ --csv bad.csv
        kloaders verify photos/ --ray auto
    and then, in Python: kl.from_directory("photos", exclude="bad.csv")
    """  # noqa: D301 (\b is for click)
    from kloaders.diagnostics.verify.report import lines_of, summary
    from kloaders.diagnostics.verify.run import verify as verify_files
    from kloaders.formats.options import ImageOptions

    try:
        report = verify_files(
            sources,
            path_column=table.paths,
            label_column=table.labels,
            folder=table.folder,
            follow_links=follow_links,
            max_pixels=max_pixels or ImageOptions.max_pixels,
            duplicates=not no_duplicates,
            workers=None if ray else workers,
            engine=ray.engine(workers or None) if ray else None,
            progress=None,
        )
        rows = report.write_csv(csv_file, warnings=strict) if csv_file else 0
    except KeyboardInterrupt as stop:
        found = getattr(stop, "report", None)
        for line in () if found is None else lines_of(found):
            click.echo(visible(line))
        raise
    except (OSError, ValueError) as error:
        raise click.UsageError(visible(" ".join(str(error).split()))) from error
    if json_file == "-":
        click.echo(report.to_json())
    else:
        if json_file:
            with open(json_file, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(report.to_json() + "\n")
        for line in lines_of(report):
            click.echo(visible(line))
        click.echo(visible(summary(report)))
        if csv_file:
            click.echo(
                f"{visible(csv_file)}: {rows:,} bad files; pass exclude={csv_file!r} to a loader to leave "
                "them out"
            )
    if not report.ok or (strict and report.findings):
        sys.exit(1)
