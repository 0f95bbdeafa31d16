"""Options that several commands have, each written once: decorators that hand them over as one value."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from kloaders.places.urls import is_url

__all__ = [
    "Conversion",
    "ImageShape",
    "TableColumns",
    "batch_size_option",
    "conversion_options",
    "image_options",
    "json_option",
    "source_argument",
    "table_options",
]

Command = Callable[..., None]


@dataclass(frozen=True)
class TableColumns:
    """How a CSV file is read.

    Attributes:
        paths: the column of paths.
        labels: the column of labels; None for none.
        folder: where relative paths start; None: the current folder.
    """

    paths: str = "path"
    labels: str | None = "label"
    folder: str | None = None


@dataclass(frozen=True)
class ImageShape:
    """What images become.

    Attributes:
        size: (height, width); None for as they are.
        channels: 1, 3 or 4.
    """

    size: tuple[int, int] | None = None
    channels: int = 3


@dataclass(frozen=True)
class Conversion:
    """What a command that writes files does about those that are bad, or there already.

    Attributes:
        on_error: "raise" or "skip".
        exclude: a CSV file of what to leave out.
        overwrite: replace what is there.
        part: (k, n): write that part only; None: all.
        finish: the parts are written, and only to be put together.
        staging: the folder where what goes to a URL is made; None: one in the user's cache folder.
    """

    on_error: str = "raise"
    exclude: str | None = None
    overwrite: bool = False
    part: tuple[int, int] | None = None
    finish: bool = False
    staging: str | None = None


class _PathOrUrl(click.Path):
    """A file or folder that exists, or a URL, which is looked at by who reads it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if is_url(value) else super().convert(value, param, ctx)


source_argument = click.argument("source", type=_PathOrUrl(exists=True))
batch_size_option = click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Samples per batch.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, for scripts."
)


def table_options(command: Command) -> Command:
    """--path-column, --label-column and --folder, as `table`."""

    @click.option("--path-column", default="path", show_default=True, help="Of a CSV file.")
    @click.option(
        "--label-column",
        default="label",
        show_default=True,
        help='Of a CSV file; "" for no labels.',
    )
    @click.option(
        "--folder",
        type=_PathOrUrl(exists=True, file_okay=False),
        help="Where relative paths of a CSV file start.  [default: this folder]",
    )
    @functools.wraps(command)
    def with_table(
        *, path_column: str, label_column: str, folder: str | None, **others: Any
    ) -> None:
        command(table=TableColumns(path_column, label_column or None, folder), **others)

    return with_table


def image_options(otherwise: str) -> Callable[[Command], Command]:
    """--size and --channels, as `images`; `otherwise` is what becomes of images without --size."""

    def decorate(command: Command) -> Command:
        @click.option(
            "--size",
            type=click.IntRange(1),
            nargs=2,
            metavar="HEIGHT WIDTH",
            help=f"Resize images to this.  [default: {otherwise}]",
        )
        @click.option(
            "--channels",
            type=click.Choice(["1", "3", "4"]),
            default="3",
            show_default=True,
            help="Gray, RGB or RGBA.",
        )
        @functools.wraps(command)
        def with_images(*, size: tuple[int, int] | None, channels: str, **others: Any) -> None:
            command(images=ImageShape(size, int(channels)), **others)

        return with_images

    return decorate


def _part(_: Any, __: Any, text: str | None) -> tuple[int, int] | None:
    """K/N as numbers."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise click.BadParameter(
            f"{text!r:.80}: expected K/N with 0 <= K < N, such as 0/4 for the first of four parts."
        )
    return int(found[1]), int(found[2])


def conversion_options(what: str, does: str) -> Callable[[Command], Command]:
    """--on-error, --exclude, --overwrite, --part, --finish and --staging, as `conversion`.

    Args:
        what: what --overwrite replaces.
        does: what a bad file does not, such as "load".
    """

    def decorate(command: Command) -> Command:
        @click.option(
            "--on-error",
            type=click.Choice(["raise", "skip"]),
            default="raise",
            show_default=True,
            help=f"Stop at a file that does not {does}, or leave it out and list it at the end.",
        )
        @click.option(
            "--exclude",
            type=_PathOrUrl(exists=True, dir_okay=False),
            help="Leave out what this CSV file lists, as `kloaders verify --csv` writes it.",
        )
        @click.option("--overwrite", is_flag=True, help=f"Replace {what}.")
        @click.option(
            "--part",
            metavar="K/N",
            callback=_part,
            help="Write part K of N only, from 0/N on: one for each process or host that shares OUT.",
        )
        @click.option(
            "--finish",
            is_flag=True,
            help="Make one of the parts, when all are written; with the other options as they had them.",
        )
        @click.option(
            "--staging",
            type=click.Path(file_okay=False),
            help="With a URL as OUT: a folder with room for all of it, where it is made first.",
        )
        @functools.wraps(command)
        def with_conversion(
            *,
            on_error: str,
            exclude: str | None,
            overwrite: bool,
            part: tuple[int, int] | None,
            finish: bool,
            staging: str | None,
            **others: Any,
        ) -> None:
            if part and finish:
                raise click.UsageError(
                    "--part writes a part and --finish ends all: give one of them."
                )
            conversion = Conversion(on_error, exclude, overwrite, part, finish, staging)
            command(conversion=conversion, **others)

        return with_conversion

    return decorate
