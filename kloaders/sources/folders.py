"""Folders of files: one folder for each class, and what lies below it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator

from kloaders.core.messages import warn
from kloaders.formats.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, suffix_of
from kloaders.sources.tables import listed

__all__ = ["READABLE", "LeftOut", "chosen_classes", "class_folders", "files_below"]


def class_folders(root: str, class_names: list[str] | None) -> list[str]:
    """The folders in `root`, sorted by name; or those that are named, in that order."""
    try:
        with os.scandir(root) as entries:
            found = list(entries)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{root} does not exist. Relative paths start at {os.getcwd()}."
        ) from None
    except NotADirectoryError:
        raise NotADirectoryError(
            f"{root} is a file, expected a folder that holds class/file. For a table of files use "
            "from_dataframe()."
        ) from None
    shown = [entry for entry in found if not entry.name.startswith(".")]
    there = sorted(entry.name for entry in shown if entry.is_dir())
    return chosen_classes(root, there, len(shown), class_names)


def chosen_classes(
    root: str, there: list[str], shown: int, class_names: list[str] | None
) -> list[str]:
    """The classes of a folder that has these folders in it, and so many files and folders in all."""
    if not there:
        files = f"{shown:,} files" if shown else "nothing"
        raise ValueError(
            f"{root} holds {files} and no folders, expected one folder of files for each class: "
            f"{os.path.join(root, 'cat', '1.jpg')}. For a flat folder use split(paths, labels), "
            "where labels may be a function of the path."
        )
    if class_names is None:
        return there
    missing = [name for name in class_names if name not in there]
    if missing:
        raise ValueError(
            f"class_names holds {missing[0]!r}, and {root} has no such folder: it has "
            f"{listed(there)}."
        )
    if len(set(class_names)) < len(class_names):
        twice = next(name for name, n in Counter(class_names).items() if n > 1)
        raise ValueError(f"class_names holds {twice!r} twice, expected each folder once.")
    return list(class_names)


#: Suffixes of files that are read without `decode=`.
READABLE = IMAGE_SUFFIXES | ARRAY_SUFFIXES


class LeftOut:
    """Files without a known suffix."""

    def __init__(self) -> None:
        self.count = 0
        self.suffixes: Counter[str] = Counter()
        self.first = ""

    def add(self, path: str) -> None:
        self.count += 1
        self.suffixes[suffix_of(path) or "no suffix"] += 1
        self.first = self.first or path

    def tell(self, root: str) -> None:
        kinds = ", ".join(f"{suffix} {n:,}" for suffix, n in self.suffixes.most_common(4))
        warn(
            f"{root}: {self.count:,} files left out, since nothing here reads them ({kinds}), such "
            f"as {self.first}. decode= takes them, a function of a file's bytes; extensions= says "
            "which files are meant."
        )


def files_below(
    top: str,
    wanted: frozenset[str] | None,
    follow_links: bool,
    left_out: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """Files below a folder: folders sorted by their path, files in them by name, as Keras does."""
    found: list[tuple[str, list[str]]] = []
    waiting, seen = [top], {os.path.realpath(top)}
    while waiting:
        folder = waiting.pop()
        names = []
        # The type of an entry comes with its name: a file costs no system call of its own.
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    if entry.is_symlink():
                        real = os.path.realpath(entry.path)
                        if not follow_links or real in seen:  # a link to above would never end
                            continue
                        seen.add(real)
                    waiting.append(entry.path)
                elif wanted is None or suffix_of(entry.name) in wanted:
                    names.append(entry.name)
                elif left_out is not None:
                    left_out(entry.path)
        found.append((folder, sorted(names)))
    for folder, names in sorted(found):
        prefix = os.path.join(folder, "")
        for name in names:
            yield prefix + name
