"""Lists folders of files: one folder per class, and the files in it. Opens no file.

All code that walks a data set uses these functions, so that it verifies and loads the same files.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from kloaders.core.messages import visible, warn
from kloaders.core.places import where_of
from kloaders.formats.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, suffix_of
from kloaders.sources.tables import listed

__all__ = [
    "READABLE",
    "LeftOut",
    "chosen_classes",
    "class_folders",
    "files_below",
    "folders_and_files",
    "said_alike",
    "spelt_alike",
]

#: Folders that systems create next to the data: macOS in archives, network drives for thumbnails,
#: deleted files and snapshots, and file systems on disks.
SYSTEM_FOLDERS = frozenset(
    {
        "__MACOSX",
        "@eaDir",
        "#recycle",
        "#snapshot",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
    }
)


def folders_and_files(root: str, meant: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """The sorted names of the folders (and links to folders) in a folder, and of everything else.

    Names that begin with a dot are left out, and, with a warning, system folders and links to the
    folder itself or a parent of it. meant: names that count as data folders in any case.
    """
    folders, files = [], []
    meant = set(meant)
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                files.append(entry.name)
            elif entry.name in meant or not (_is_system(entry) or _is_round(entry, root)):
                folders.append(entry.name)
    return sorted(folders), sorted(files)


def class_folders(root: str, class_names: list[str] | None) -> list[str]:
    """The folders in `root`, sorted by name; or those in `class_names`, in that order.

    A class name may be spelt with composed or decomposed accents (NFC, NFD), as long as only one folder
    matches; the folder's own spelling is returned. If two folders match, a warning is logged.
    """
    try:
        there, others = folders_and_files(root, class_names or ())
    except FileNotFoundError:
        raise FileNotFoundError(f"{visible(root)} does not exist. {where_of(root)}") from None
    except NotADirectoryError:
        raise NotADirectoryError(
            f"{visible(root)} is a file, expected a folder that contains class/file. For a table of files "
            "use from_dataframe()."
        ) from None
    return chosen_classes(root, there, len(there) + len(others), class_names)


def chosen_classes(
    root: str, there: list[str], shown: int, class_names: list[str] | None
) -> list[str]:
    """The classes among the subfolders `there`; `shown` is the number of entries in the folder."""
    if not there:
        files = f"{shown:,} files" if shown else "nothing"
        raise ValueError(
            f"{visible(root)} contains {files} and no folders, expected one folder of files for each class: "
            f"{visible(os.path.join(root, 'cat', '1.jpg'))}. For a flat folder use split(paths, labels), "
            "where labels may be a function of the path."
        )
    if class_names is not None:
        class_names = [_spelling_of(name, there) for name in class_names]
    for alike in spelt_alike(class_names or there).values():
        if len(alike) > 1:
            warn(f"{root}: {said_alike(alike)}")
    if class_names is None:
        return there
    missing = [name for name in class_names if name not in there]
    if missing:
        raise ValueError(
            f"class_names holds {missing[0]!r:.80}, but {visible(root)} has no such folder: it has "
            f"{listed(there)}."
        )
    if len(set(class_names)) < len(class_names):
        twice = next(name for name, n in Counter(class_names).items() if n > 1)
        raise ValueError(f"class_names holds {twice!r:.80} twice, expected each folder once.")
    return list(class_names)


#: Suffixes of files that are read without `decode=`.
READABLE = IMAGE_SUFFIXES | ARRAY_SUFFIXES


def spelt_alike(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by their Unicode-normalized form."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_composed(name), []).append(name)
    return found


def said_alike(names: list[str]) -> str:
    """The warning about folders whose names look the same."""
    return (
        f"{len(names)} classes look like {names[0]!r}, but differ in how their accents are encoded "
        f"({', '.join(map(ascii, names))}): if they are one class, move their files into one folder."
    )


def _spelling_of(name: str, there: list[str]) -> str:
    """The spelling of `name` that exists as a folder; accents may be encoded differently."""
    alike = [] if name in there else [one for one in there if _composed(one) == _composed(name)]
    return alike[0] if len(alike) == 1 else name


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; reported when it is read
        return False


def _is_system(entry: os.DirEntry[str]) -> bool:
    if entry.name not in SYSTEM_FOLDERS:
        return False
    warn(
        f"folders called {entry.name} are left out, such as {entry.path}: a system creates them. "
        "Rename it if it holds data.",
        once=f"system folder {entry.name}",
    )
    return True


def _is_round(entry: os.DirEntry[str], folder: str) -> bool:
    """Whether an entry is a link to its own folder or a parent, which would never end."""
    if not entry.is_symlink():
        return False
    here = os.path.join(os.path.realpath(folder), "")
    if not here.startswith(os.path.join(os.path.realpath(entry.path), "")):
        return False
    warn(f"{entry.path} is left out: it is a link to a folder that contains it.", once=entry.path)
    return True


class LeftOut:
    """Files that are left out because their suffix is unknown."""

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
            f"{root}: {self.count:,} files left out, because their suffixes are unknown ({kinds}), such "
            f"as {self.first}. To load them pass decode=, a function of a file's bytes; extensions= "
            "selects the suffixes to load."
        )


def files_below(
    top: str,
    wanted: frozenset[str] | None,
    follow_links: bool,
    left_out: Callable[[str], None] | None = None,
    special: Callable[[str], None] | None = None,
    unreadable: Callable[[str, OSError], None] | None = None,
) -> Iterator[str]:
    """Yield the files below a folder: folders sorted by path, files in each by name, as Keras does.

    Args:
        top: the folder; it may be a link.
        wanted: the suffixes of files to yield; None for all.
        follow_links: whether to enter links to folders. A folder is entered only once; a link that
            is not followed is reported in a warning.
        left_out: called with the path of each file with another suffix.
        special: called with the path of each pipe, socket or device, whatever its suffix, because
            opening one may block forever. None: log a warning.
        unreadable: called for each folder that cannot be read; None: raise the error.
    """
    found: list[tuple[str, list[str]]] = []
    waiting, seen = [top], {os.path.realpath(top)}
    while waiting:
        folder = waiting.pop()
        names = []
        try:
            entries = _entries(folder)
        except OSError as error:
            if unreadable is None:
                raise
            unreadable(folder, error)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                if _is_system(entry) or _is_round(entry, folder):
                    continue
                if entry.is_symlink():
                    if not follow_links:
                        _tell_not_followed(entry.path, top)
                        continue
                    real = os.path.realpath(entry.path)
                    if real in seen:
                        continue
                    seen.add(real)
                waiting.append(entry.path)
            elif _is_special(entry):
                (special or _tell_special)(entry.path)
            elif wanted is None or suffix_of(entry.name) in wanted:
                names.append(entry.name)
            elif left_out is not None:
                left_out(entry.path)
        found.append((folder, sorted(names)))
    for folder, names in sorted(found):
        prefix = os.path.join(folder, "")
        for name in names:
            yield prefix + name


def _entries(folder: str) -> list[os.DirEntry[str]]:
    # The type of an entry comes with its name, so that no system call per file is needed.
    with os.scandir(folder) as entries:
        return list(entries)


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Whether an entry exists, and is neither a folder nor a file."""
    try:
        return not entry.is_file() and stat.S_IFMT(entry.stat().st_mode) not in (0, stat.S_IFREG)
    except OSError:  # a broken link, which counts as a missing file
        return False


def _tell_special(path: str) -> None:
    warn(f"{path} is left out: it is a pipe, a socket or a device, not a file.")


def _tell_not_followed(path: str, top: str) -> None:
    warn(
        f"{path} is left out, and so are other links to folders in {top}: follow_links=True enters "
        "them.",
        once=f"link in {top}",
    )
