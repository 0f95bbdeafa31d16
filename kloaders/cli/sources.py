"""Makes the loader for the data given to a command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kloaders.cli.options import ImageShape, TableColumns
from kloaders.core.messages import visible, warn
from kloaders.places.urls import is_url, join

if TYPE_CHECKING:
    from kloaders.loaders.paths import PathSequenceLoader
    from kloaders.loaders.sequence import SequenceLoader

__all__ = ["RESIZED_IF_THEY_DIFFER", "any_loader", "loader_of"]

# The default size for images of different sizes, and the number of images that are checked.
_SIZE, _LOOKED_AT = (224, 224), 64
# Names of columns that are taken for inputs and labels.
_INPUTS = ("image", "img", "jpg", "png", "x", "pixels")
_LABELS = ("label", "labels", "y", "class", "cls", "target")
#: The size that `any_loader` chooses by default, for the help of --size.
RESIZED_IF_THEY_DIFFER = "the stored size; 224 224 if sizes differ"


def loader_of(source: str, table: TableColumns, **options: Any) -> PathSequenceLoader:
    """A loader over all files of a folder of classes, or of a CSV file."""
    from kloaders.loaders import from_files

    if os.path.isdir(source) or (is_url(source) and not source.endswith((".csv", ".tsv"))):
        loader, _ = from_files.from_directory(source, validation=None, **options)
    else:
        loader, _ = from_files.from_dataframe(
            source, table.paths, table.labels, folder=table.folder, validation=None, **options
        )
    made: PathSequenceLoader = loader
    return made


def any_loader(
    source: str,
    table: TableColumns,
    images: ImageShape,
    batch_size: int,
    **options: Any,
) -> SequenceLoader:
    """A loader over any SOURCE of the commands, on a disk or at a URL.

    It may be a folder with a folder for each class, a folder of files, a CSV file, a pack, TFRecord
    files, tar files, Parquet files, or a folder in MDS format.
    """
    size = images.size
    options |= {"batch_size": batch_size, "seed": 0}
    inside = _names_in(source)
    if "pack.json" in inside:
        from kloaders.loaders.packs import PackSequenceLoader

        if options.get("exclude"):
            raise ValueError(
                f"{visible(source)} is a pack, and --exclude cannot leave out its samples: pass "
                "--exclude to `kloaders pack` when you write the pack."
            )
        return PackSequenceLoader(source, **options)
    records = [name for name in inside if ".tfrecord" in name]
    if records or ".tfrecord" in os.path.basename(source):
        from kloaders.loaders.tfrecords import TFRecordSequenceLoader

        files: Any = [_path(source, name) for name in records] or source
        return TFRecordSequenceLoader(files, size=size, channels=images.channels, **options)
    rows = _rows(source, inside, size=size, channels=images.channels, **options)
    if rows is not None:
        return rows
    options |= {"channels": images.channels}
    if os.path.isdir(source) and not any(os.path.isdir(os.path.join(source, n)) for n in inside):
        return _flat(source, inside, size, options)
    given = loader_of(source, table, size=size, **options)
    if size is None and _sizes_differ(given.paths):
        given = loader_of(source, table, size=_SIZE, **options)
    return given


def _path(folder: str, name: str) -> str:
    return join(folder, name) if is_url(folder) else os.path.join(folder, name)


def _rows(source: str, inside: list[str], **options: Any) -> SequenceLoader | None:
    """A loader over tar files, Parquet files or an MDS folder; None for other sources."""

    def files(suffix: str) -> list[str]:
        found = [_path(source, name) for name in inside if name.endswith(suffix)]
        return [source] if source.endswith(suffix) else found

    if tars := files(".tar"):
        from kloaders.loaders.tar import TarSequenceLoader

        return TarSequenceLoader(tars, **options)
    if tables := files(".parquet"):
        from kloaders.formats.opening import opener_of
        from kloaders.loaders.parquet import ParquetSequenceLoader
        from kloaders.sources.parquet import ParquetTables

        names = ParquetTables(tables[:1], "kloaders", opener_of(tables[:1])).schema.names
        x, y = _x_and_y(names)
        return ParquetSequenceLoader(tables, x=x, y=y, **options)
    if "index.json" in inside:
        from kloaders.formats.mds import read_index
        from kloaders.loaders.mds import MDSSequenceLoader

        x, y = _x_and_y([name for shard in read_index(source)[:1] for name in shard.names])
        return MDSSequenceLoader(source, x=x, y=y, **options)
    return None


def _x_and_y(names: list[str]) -> tuple[str | None, str | None]:
    """-> the column of inputs and the column of labels, by their names; None if there is none."""
    x = next((name for name in _INPUTS if name in names), None)
    return x, next((name for name in _LABELS if name in names and name != x), None)


def _names_in(folder: str) -> list[str]:
    if is_url(folder):
        if folder.endswith((".csv", ".tsv", ".tar", ".parquet")) or ".tfrecord" in folder:
            return []
        from kloaders.places.access import list_below

        return [name for name, _ in list_below(folder) if "/" not in name]
    if not os.path.isdir(folder):
        return []
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _flat(
    folder: str, names: list[str], size: tuple[int, int] | None, options: dict[str, Any]
) -> PathSequenceLoader:
    """A loader over files without labels."""
    from kloaders.formats.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, suffix_of
    from kloaders.loaders.paths import PathSequenceLoader

    known = IMAGE_SUFFIXES | ARRAY_SUFFIXES
    paths = [os.path.join(folder, name) for name in names if suffix_of(name) in known]
    if not paths:
        raise ValueError(
            f"{visible(folder)} has neither folders of classes nor files that can be read "
            f"({' '.join(sorted(known))}): pass a folder of images, a CSV file, a pack, or "
            "TFRecord files."
        )
    if size is None and _sizes_differ(paths):
        size = _SIZE
    return PathSequenceLoader(paths, size=size, **options)


def _sizes_differ(paths: Any) -> bool:
    """Whether some of the images, read as a sample, differ in size. If so, log a warning."""
    from kloaders.formats.files import IMAGE_SUFFIXES, read_bytes, suffix_of
    from kloaders.formats.image_headers import image_shape

    sizes: set[Any] = set()
    for k in sorted({n * len(paths) // _LOOKED_AT for n in range(_LOOKED_AT)}):
        if suffix_of(paths[k]) in IMAGE_SUFFIXES:
            try:
                sizes.add(image_shape(read_bytes(paths[k])))
            except (OSError, ValueError):  # reported when it is loaded
                continue
    if len(sizes - {None}) < 2:
        return False
    warn(
        f"images differ in size: they are resized to {_SIZE[0]} x {_SIZE[1]} (change this with --size)."
    )
    return True
