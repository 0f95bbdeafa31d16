"""What commands read: the options that say so, and the loader that they make."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kloaders.core.messages import say

if TYPE_CHECKING:
    from kloaders.loaders.paths import PathSequenceLoader
    from kloaders.loaders.sequence import SequenceLoader

__all__ = ["any_loader", "batch_options", "loader_of", "table_options"]

# The size that pictures of different sizes get where none is asked for, and how many are looked at.
_SIZE, _LOOKED_AT = (224, 224), 64


def table_options(command: Callable[..., None]) -> Callable[..., None]:
    """How a CSV file is read, for commands that convert what it lists."""
    options = (
        click.option("--path-column", default="path", show_default=True, help="Of a CSV file."),
        click.option(
            "--label-column",
            default="label",
            show_default=True,
            help='Of a CSV file; "" for no labels.',
        ),
        click.option(
            "--folder",
            type=click.Path(exists=True, file_okay=False),
            help="Where relative paths of a CSV file start.  [default: this folder]",
        ),
    )
    for option in reversed(options):  # as a stack of decorators: the last one first
        command = option(command)
    return command


def batch_options(command: Callable[..., None]) -> Callable[..., None]:
    """How samples become batches, for commands that only look at them."""
    options = (
        click.option(
            "--size",
            type=click.IntRange(1),
            nargs=2,
            metavar="HEIGHT WIDTH",
            help="Resize pictures to this.  [default: as they are; 224 224 if they differ]",
        ),
        click.option(
            "--channels",
            type=click.Choice(["1", "3", "4"]),
            default="3",
            show_default=True,
            help="Grey, RGB or RGBA.",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(1),
            default=32,
            show_default=True,
            help="Samples a batch.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def loader_of(
    source: str, columns: tuple[str, str | None, str | None], **options: Any
) -> PathSequenceLoader:
    """All files of a folder of classes, or of a CSV file. columns: of paths, of labels; a folder."""
    from kloaders.loaders import from_files as front_doors

    if os.path.isdir(source):
        loader, _ = front_doors.from_directory(source, validation=None, **options)
    else:
        paths, labels, folder = columns
        loader, _ = front_doors.from_dataframe(
            source, paths, labels, folder=folder, validation=None, **options
        )
    made: PathSequenceLoader = loader
    return made


def any_loader(
    source: str,
    columns: tuple[str, str | None, str | None],
    size: tuple[int, int] | None,
    channels: str,
    batch_size: int,
    **options: Any,
) -> SequenceLoader:
    """A loader over whatever lies there.

    A folder of a folder for each class, a folder of files, a CSV file, a pack, or TFRecord files.
    """
    options |= {"batch_size": batch_size, "seed": 0}
    inside = _names_in(source)
    if "pack.json" in inside:
        from kloaders.loaders.packs import PackSequenceLoader

        return PackSequenceLoader(source, **options)
    records = [name for name in inside if ".tfrecord" in name]
    if records or ".tfrecord" in os.path.basename(source):
        from kloaders.loaders.tfrecords import TFRecordSequenceLoader

        files = [os.path.join(source, name) for name in records] or source
        return TFRecordSequenceLoader(files, size=size, channels=int(channels), **options)
    options |= {"channels": int(channels)}
    if os.path.isdir(source) and not any(os.path.isdir(os.path.join(source, n)) for n in inside):
        return _flat(source, inside, size, options)
    given = loader_of(source, columns, size=size, **options)
    if size is None and _sizes_differ(given.paths):
        given = loader_of(source, columns, size=_SIZE, **options)
    return given


def _names_in(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _flat(
    folder: str, names: list[str], size: tuple[int, int] | None, options: dict[str, Any]
) -> PathSequenceLoader:
    """Files without labels."""
    from kloaders.formats.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, suffix_of
    from kloaders.loaders.paths import PathSequenceLoader

    known = IMAGE_SUFFIXES | ARRAY_SUFFIXES
    paths = [os.path.join(folder, name) for name in names if suffix_of(name) in known]
    if not paths:
        raise ValueError(
            f"{folder} has neither folders of classes nor files that can be read "
            f"({' '.join(sorted(known))}): name a folder of pictures, a CSV file, a pack, or "
            "TFRecord files."
        )
    if size is None and _sizes_differ(paths):
        size = _SIZE
    return PathSequenceLoader(paths, size=size, **options)


def _sizes_differ(paths: Any) -> bool:
    """Whether pictures differ in size, as far as a look at some tells; says so."""
    from kloaders.formats.files import IMAGE_SUFFIXES, read_bytes, suffix_of
    from kloaders.formats.image_headers import image_shape

    sizes: set[Any] = set()
    for k in sorted({n * len(paths) // _LOOKED_AT for n in range(_LOOKED_AT)}):
        if suffix_of(paths[k]) in IMAGE_SUFFIXES:
            try:
                sizes.add(image_shape(read_bytes(paths[k])))
            except (OSError, ValueError):  # told when it is loaded
                continue
    if len(sizes - {None}) < 2:
        return False
    say(
        f"pictures differ in size: they are resized to {_SIZE[0]} x {_SIZE[1]} (--size says otherwise)."
    )
    return True
