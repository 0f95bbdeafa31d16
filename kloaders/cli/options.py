"""Options that several commands share, as decorators; each passes its options as one value."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from kloaders.places.urls import is_url

if TYPE_CHECKING:
    from kloaders.core.ray import Ray

__all__ = [
    "BadFiles",
    "Conversion",
    "ImageCommand",
    "ImageShape",
    "RayOption",
    "TableColumns",
    "bad_file_options",
    "batch_size_option",
    "conversion_options",
    "image_options",
    "json_option",
    "ray_option",
    "save_option",
    "source_argument",
    "table_options",
]

Command = Callable[..., None]


@dataclass(frozen=True)
class TableColumns:
    """How a CSV file is read.

    Attributes:
        paths: the column of paths.
        labels: the column of labels, or None.
        folder: the folder that paths are relative to; None for the current folder.
    """

    paths: str = "path"
    labels: str | None = "label"
    folder: str | None = None


@dataclass(frozen=True)
class ImageShape:
    """How images are converted.

    Attributes:
        size: (height, width); None keeps the stored size.
        channels: 1, 3 or 4.
    """

    size: tuple[int, int] | None = None
    channels: int = 3


@dataclass(frozen=True)
class BadFiles:
    """How a command that reads files handles bad ones.

    Attributes:
        on_error: "raise", "skip" or "replace".
        exclude: a CSV file that lists files to leave out.
    """

    on_error: str = "raise"
    exclude: str | None = None

    def options(self) -> dict[str, Any]:
        """The loader options that differ from their defaults."""
        found: dict[str, Any] = {} if self.on_error == "raise" else {"on_error": self.on_error}
        return found if self.exclude is None else {**found, "exclude": self.exclude}


@dataclass(frozen=True)
class Conversion:
    """How a command that writes files handles bad or existing ones.

    Attributes:
        on_error: "raise" or "skip".
        exclude: a CSV file that lists files to leave out.
        overwrite: whether to replace existing files.
        part: (k, n) to write only part k of n; None for all.
        finish: whether only to combine parts that are already written.
        ray: the Ray cluster to write on; None to write in this process.
        staging: the local folder for files before they are uploaded to a URL; None for one in the
            user's cache folder.
    """

    on_error: str = "raise"
    exclude: str | None = None
    overwrite: bool = False
    part: tuple[int, int] | None = None
    finish: bool = False
    ray: RayOption | None = None
    staging: str | None = None


@dataclass(frozen=True)
class RayOption:
    """The value of --ray: the cluster to work on.

    Attributes:
        address: its address, as for `kl.Ray`.
    """

    address: str | None = None

    def engine(self, cpus: int | None) -> Ray:
        """An engine that runs this many tasks at a time; None for one per CPU of the cluster."""
        from kloaders.core.ray import Ray

        if cpus is None:
            from kloaders.engine.ray import cluster

            ray = cluster.connect(Ray(cpus=1, address=self.address))
            cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        return Ray(cpus=cpus, address=self.address)


class _PathOrUrl(click.Path):
    """An existing file or folder, or a URL, which is checked when it is read."""

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


exclude_option = click.option(
    "--exclude",
    type=_PathOrUrl(exists=True, dir_okay=False),
    help="Leave out the files listed in this CSV file, as written by `kloaders verify --csv`.",
)


class ImageCommand(click.Command):
    """A command whose --size takes one value or two: 64, 64x48, or 64 48."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join two numbers that follow --size, before click sees them."""
        joined: list[str] = []
        for argument in args:
            second = len(joined) > 1 and joined[-2] == "--size" and joined[-1].isdecimal()
            if second and argument.isdecimal():
                joined[-1] = f"{joined[-1]}x{argument}"
            else:
                joined.append(argument)
        return super().parse_args(ctx, joined)


class _Size(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in new clicks
    """(height, width) of images."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"([1-9]\d{0,8})(?:x([1-9]\d{0,8}))?", value)
        if found is None:
            self.fail(
                f"{value!r:.80}: expected a height and a width in pixels, such as 64, 64x48 or 64 48.",
                param,
                ctx,
            )
        return int(found[1]), int(found[2] or found[1])


def save_option(
    older: str, kind: click.Path, default: str | None, what: str
) -> Callable[[Command], Command]:
    """Add --save, the file or folder to write, as `save`; its old name `older` works until 0.2."""

    def decorate(command: Command) -> Command:
        @click.option("--save", type=kind, default=default, show_default=True, help=what)
        @click.option(older, "save_older", type=kind, hidden=True)
        @functools.wraps(command)
        def with_save(*, save: str | None, save_older: str | None, **others: Any) -> None:
            command(save=save_older or save, **others)

        return with_save

    return decorate


def bad_file_options(command: Command) -> Command:
    """Add --on-error and --exclude, as `bad`."""

    @click.option(
        "--on-error",
        type=click.Choice(["raise", "skip", "replace"]),
        default="raise",
        show_default=True,
        help="If a file fails to load: stop, leave it out, or use another file instead.",
    )
    @exclude_option
    @functools.wraps(command)
    def with_bad(*, on_error: str, exclude: str | None, **others: Any) -> None:
        command(bad=BadFiles(on_error, exclude), **others)

    return with_bad


def _ray(_: Any, __: Any, text: str | None) -> RayOption | None:
    """Check an address; --ray without one gives RayOption(None)."""
    if text is None:
        return None
    if text and text not in ("auto", "local") and not re.fullmatch(r"ray://.+|[^/\s]+:\d+", text):
        raise click.BadParameter(
            f"{text!r:.80}: expected an address such as auto, host:6379 or ray://host:10001. Without an "
            "address, put --ray at the end of the command."
        )
    return RayOption(text or None)


ray_option = click.option(
    "--ray",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="",
    callback=_ray,
    help="Work on a Ray cluster, --workers tasks at a time.  [default: one task per CPU; if no "
    "address is given, RAY_ADDRESS, or Ray on this machine]",
)


def table_options(command: Command) -> Command:
    """Add --path-column, --label-column and --folder, as `table`."""

    @click.option(
        "--path-column", default="path", show_default=True, help="Column of paths in a CSV file."
    )
    @click.option(
        "--label-column",
        default="label",
        show_default=True,
        help='Column of labels in a CSV file; "" for no labels.',
    )
    @click.option(
        "--folder",
        type=_PathOrUrl(exists=True, file_okay=False),
        help="Folder that paths in a CSV file are relative to.  [default: the current folder]",
    )
    @functools.wraps(command)
    def with_table(
        *, path_column: str, label_column: str, folder: str | None, **others: Any
    ) -> None:
        command(table=TableColumns(path_column, label_column or None, folder), **others)

    return with_table


def image_options(otherwise: str) -> Callable[[Command], Command]:
    """Add --size and --channels, as `images`; `otherwise` describes the size of images without --size."""

    def decorate(command: Command) -> Command:
        @click.option(
            "--size",
            type=_Size(),
            metavar="HEIGHT [WIDTH]",
            help=f"Resize images to this size: 64, 64x48 or 64 48.  [default: {otherwise}]",
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
    """Convert K/N to two numbers."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise click.BadParameter(
            f"{text!r:.80}: expected K/N with 0 <= K < N, such as 0/4 for the first of four parts."
        )
    return int(found[1]), int(found[2])


def conversion_options(what: str, does: str) -> Callable[[Command], Command]:
    """Add --on-error, --exclude, --overwrite, --part, --finish, --ray and --staging, as `conversion`.

    Args:
        what: what --overwrite replaces.
        does: what is impossible with a bad file: "load" or "read".
    """

    def decorate(command: Command) -> Command:
        @click.option(
            "--on-error",
            type=click.Choice(["raise", "skip"]),
            default="raise",
            show_default=True,
            help=f"If a file fails to {does}: stop, or leave it out and list it at the end.",
        )
        @exclude_option
        @click.option("--overwrite", is_flag=True, help=f"Replace {what}.")
        @click.option(
            "--part",
            metavar="K/N",
            callback=_part,
            help="Write only part K of N, counted from 0: one part per process or host that shares OUT.",
        )
        @click.option(
            "--finish",
            is_flag=True,
            help="Combine the parts after all are written; pass the other options as for the parts.",
        )
        @ray_option
        @click.option(
            "--staging",
            type=click.Path(file_okay=False),
            help="If OUT is a URL: a local folder for the files before they are uploaded, with space for all.",
        )
        @functools.wraps(command)
        def with_conversion(
            *,
            on_error: str,
            exclude: str | None,
            overwrite: bool,
            part: tuple[int, int] | None,
            finish: bool,
            ray: RayOption | None,
            staging: str | None,
            **others: Any,
        ) -> None:
            if part and finish:
                raise click.UsageError(
                    "--part writes one part and --finish combines all: pass only one of them."
                )
            if ray and finish:
                raise click.UsageError(
                    "--finish only moves files: leave --ray out, which is for writing the parts."
                )
            conversion = Conversion(on_error, exclude, overwrite, part, finish, ray, staging)
            command(conversion=conversion, **others)

        return with_conversion

    return decorate
