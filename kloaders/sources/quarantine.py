"""Samples that do not load, in a CSV file that runs share: what one met, the next leaves out."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import IO, Any

import numpy as np

from kloaders.core import forks
from kloaders.core.arrays import Indices
from kloaders.core.messages import inform, shortened, visible, warn
from kloaders.core.places import where_of
from kloaders.formats.files import open_to_read
from kloaders.places import access
from kloaders.places.urls import is_url, local_path

__all__ = [
    "FIELDS",
    "Quarantine",
    "added_to",
    "excluded",
    "first_seen",
    "lines",
    "numbers_of",
    "record_of",
    "say_left_out",
    "whole_name",
]


FIELDS = ("path", "error", "first_seen")

# Maximum length of an error text.
_ERROR_LENGTH = 240

# The pattern of names of TFRecord records.
_RECORD = re.compile(r"(.+), record (\d+) at byte \d+( of the decompressed content)?", re.DOTALL)
# The pattern of names of samples of an array, a pack, or a custom loader.
_NUMBER = re.compile(r"(row|index) \d+( of .*)?")


class Quarantine:
    """A CSV file of samples that do not load: path, error, first_seen (ISO 8601, UTC).

    path: of the file; it is made, with its header, if it is not there, and so is its folder.

    What is in it already is not added again, whoever wrote it: another thread, process or run, or
    a person. Each line goes to the end of the file in one piece, under a lock of the system; what
    a killed process left of a line is taken away. Pickles as its path.

    Raises:
        OSError: the file cannot be written.
        ValueError: the file exists, but is not of this kind.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(local_path(path, "quarantine"))
        self._set_up()
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with self._opened() as file:
            self._catch_up(file)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def _set_up(self) -> None:
        self.after_fork()
        forks.watch(self)
        self._known: set[str] = set()
        self._at = 0  # up to where the file was read, and which file that was
        self._file_number = -1

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._set_up()

    def add(self, errors: Iterable[tuple[str, str]]) -> int:
        """Append those that are new, (name, error) each; how many there were."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._opened() as file:
            self._catch_up(file)
            rows = []
            for name, error in errors:
                path = whole_name(name)
                if path not in self._known:
                    self._known.add(path)
                    rows.append((path, _one_line(error), now))
            if rows:
                content = lines(rows)
                _write(file, content)
                self._at += len(content)
        return len(rows)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        with self._lock, open(self.path, "a+b", 0, opener=open_to_read) as file:
            _wait_for_lock(file, self.path)  # given back when the file is closed
            yield file

    def _catch_up(self, file: IO[bytes]) -> None:
        """Read the lines added since the last call; leaves a file that ends with a complete line."""
        status = os.fstat(file.fileno())
        if status.st_ino != self._file_number or status.st_size < self._at:  # another file by now
            self._known, self._at, self._file_number = set(), 0, status.st_ino
        if status.st_size > self._at:
            file.seek(self._at)
            content = file.readall()  # type: ignore[attr-defined]  # it is a FileIO
            if self._at == 0:
                _check_header(content, self.path)
            whole = _whole_lines(content)
            if len(whole) < len(content):
                file.truncate(self._at + len(whole))
            elif not whole.endswith(b"\n"):
                _write(file, b"\n")
                whole += b"\n"
            self._known.update(row[0] for row in _cells(whole))
            self._at += len(whole)
        if self._at == 0:
            header = lines([FIELDS])
            _write(file, header)
            self._at = len(header)


def added_to(content: bytes, errors: Iterable[tuple[str, str]], path: str) -> tuple[bytes, int]:
    """The content of such a file with the new errors added, and their number.

    ValueError where it is none of this kind.
    """
    _check_header(content, path)
    whole = _whole_lines(content)
    if not whole.endswith(b"\n"):
        whole = whole + b"\n" if whole else lines([FIELDS])
    known = {row[0] for row in _cells(whole)}
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    rows = {whole_name(name): error for name, error in errors}
    new = [(name, _one_line(error), now) for name, error in rows.items() if name not in known]
    return whole + lines(new), len(new)


def first_seen(path: str | os.PathLike[str]) -> dict[str, str]:
    """When each path was listed first, by a file that may not be there.

    ValueError where the file is none of this kind: it is not to be overwritten.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb", opener=open_to_read) as file:
            content = file.read()
    except FileNotFoundError:
        return {}
    _check_header(content, name)
    return {row[0]: row[2] for row in _cells(_whole_lines(content))[1:] if len(row) > 2}


def lines(rows: Iterable[Sequence[str]]) -> bytes:
    """Rows as they lie in the file."""

    # csv.writer leaves a lone carriage return without quotes, and no reader takes it so.
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text

    text = "".join(",".join(map(cell, row)) + "\n" for row in rows)
    return text.encode("utf-8", "surrogateescape")


def _one_line(error: str) -> str:
    """The text of an error as a person can read it in a table: short, and nothing but text.

    The message of a library may hold all of a file.
    """
    text = "".join(c if c.isprintable() else " " for c in shortened(error, 10 * _ERROR_LENGTH))
    return shortened(" ".join(text.split()), _ERROR_LENGTH)


_QUOTED = re.compile(r'[,"\r\n]')


def _write(file: IO[bytes], content: bytes) -> None:
    """Appended by one call of the system, if the disk takes it whole."""
    while content:
        content = content[file.write(content) :]


def _whole_lines(content: bytes) -> bytes:
    """Without the rest of a line that a killed process, or a full disk, left at the end."""
    end = len(content)
    if not content.endswith(b"\n") or content.count(b'"') % 2:
        end = content.rfind(b"\n") + 1
        while content.count(b'"', 0, end) % 2:  # a name that holds a line break
            end = content.rfind(b"\n", 0, end - 1) + 1
        last = _cells(content[end:])
        # A table program may leave out the last line break: that line is whole.
        if len(last) == 1 and len(last[0]) == len(FIELDS) and _is_time(last[0][2]):
            return content
    return content[:end]


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return text == FIELDS[2]
    return True


def _cells(content: bytes) -> list[list[str]]:
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    with _field_limit:  # the limit is one for the process, 128 KiB by default
        before = csv.field_size_limit(max(len(text), csv.field_size_limit()))
        try:
            return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        except csv.Error:  # a NUL
            return []
        finally:
            csv.field_size_limit(before)


_field_limit = threading.Lock()


def _check_header(content: bytes, path: str) -> None:
    """Nothing is to be added to, or cut off, a file that was named by mistake."""
    if lines([FIELDS]).startswith(content):  # a killed process came no further
        return
    rows = _cells(content[: content.find(b"\n") + 1])
    if not rows or tuple(rows[0][: len(FIELDS)]) != FIELDS:
        raise _no_list(content, path, "Name another file, which need not be there.")


def _no_list(content: bytes, path: str, advice: str) -> ValueError:
    first = content.split(b"\n", 1)[0][:80]
    return ValueError(
        f"{visible(path)} is no list of bad files: its first line is {first!r:.80}, expected "
        f"{','.join(FIELDS)}. {advice}"
    )


def _rows(content: bytes, path: str) -> list[list[str]]:
    """Rows whose first cell is the path. ValueError where the header names no path."""
    rows = _cells(content)
    header = rows[0] if rows else []
    if FIELDS[0] not in header:
        raise _no_list(content, path, "Name another file, or give it a column called path.")
    at = header.index(FIELDS[0])
    return [[row[at], *row[:at], *row[at + 1 :]] for row in rows[1:] if len(row) > at]


def _wait_for_lock(file: IO[bytes], path: str) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
    except OSError as error:  # some network drives
        warn(
            f"{path} cannot be locked ({error}): if several processes write to it at a time, a "
            "bad file may be listed twice.",
            once="quarantine lock",
        )


# ------------------------------------------------------------------------------- leaving them out


def whole_name(name: str) -> str:
    """A file's name that holds in any folder; the place of a record stays behind it."""
    record = _RECORD.fullmatch(name)
    path = record[1] if record else name
    # An address, which load_sample() understands; or a sample that is no file.
    if "://" in path or _NUMBER.fullmatch(path):
        return name
    return os.path.abspath(path) + name[len(path) :]


def record_of(name: str) -> tuple[str, int] | None:
    """File and number of a record, by what `RecordFiles.name` calls it; None for another name."""
    found = _RECORD.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def excluded(exclude: Any, quarantine: Any = None) -> set[str]:
    """Names listed in one or several CSV files, as `whole_name` gives them.

    exclude: a path, or a list of paths; files with a header, and a column called path.
    quarantine: a path at which a file may not be there yet, since this run is to make it.

    Raises:
        FileNotFoundError, ValueError: the file does not exist, or has no column path.
    """
    if exclude is None:
        return set()
    files = [exclude] if isinstance(exclude, (str, os.PathLike)) else exclude
    names: set[str] = set()
    for item in files:
        if not isinstance(item, (str, os.PathLike)):
            raise TypeError(
                f"exclude={item!r:.80}, expected the path of a CSV file, as quarantine= and "
                '`kloaders verify --csv` write it: exclude="bad.csv", or a list of such.'
            )
        path = os.fspath(item)
        try:
            if is_url(path):
                content = access.read(path)
            else:
                with open(path, "rb", opener=open_to_read) as file:
                    content = file.read()
        except FileNotFoundError:
            if quarantine is not None and _same(path, os.fspath(quarantine)):
                continue
            raise FileNotFoundError(
                f"exclude={path!r:.80} does not exist. {where_of(path)} "
                "`kloaders verify FOLDER --csv bad.csv` makes such a file."
            ) from None
        if content:
            names.update(whole_name(row[0]) for row in _rows(content, path))
    return names


def _same(one: str, other: str) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)


def numbers_of(names: set[str], paths: Sequence[str]) -> Indices:
    """Which of the paths are among the names; a second for a million paths."""
    # The last part usually distinguishes paths, without a look at the folder.
    lasts = {os.path.basename(name) for name in names}
    found = [
        k
        for k, path in enumerate(paths)
        if os.path.basename(path) in lasts and whole_name(path) in names
    ]
    return np.array(found, np.int64)


def say_left_out(count: int, samples: int, names: set[str]) -> None:
    """Tell how many samples `exclude` left out."""
    if names:
        none = " (none of the paths listed is among these)" if not count else ""
        inform(f"exclude: {count:,} of {samples:,} samples are left out{none}.")
