"""A CSV file of samples that failed to load. Later runs can leave these samples out."""

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

# The maximum length of an error text.
_ERROR_LENGTH = 240

# The pattern for names of TFRecord records.
_RECORD = re.compile(r"(.+), record (\d+) at byte \d+( of the decompressed content)?", re.DOTALL)
# The pattern for names of samples of an array, a pack, or a custom loader.
_NUMBER = re.compile(r"(row|index) \d+( of .*)?")


class Quarantine:
    """A CSV file of samples that failed to load: path, error, first_seen (ISO 8601, UTC).

    path: the path of the file. The file, with its header, and its folder are created if missing.

    A sample that is already listed is not added again, whether another thread, process or run added it,
    or a person. A write appends whole lines, under a lock of the system. An incomplete line that a
    killed process left is removed. Only the path is pickled.

    Raises:
        OSError: the file cannot be written.
        ValueError: the file exists, but is not a quarantine file.
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
        self._at = 0  # the position up to which the file was read, and that file's inode
        self._file_number = -1

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._set_up()

    def add(self, errors: Iterable[tuple[str, str]]) -> int:
        """Append the errors that are new, each (name, error); return their number."""
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
            _wait_for_lock(file, self.path)  # released when the file is closed
            yield file

    def _catch_up(self, file: IO[bytes]) -> None:
        """Read the lines added since the last call; make sure that the file ends with a complete line."""
        status = os.fstat(file.fileno())
        if status.st_ino != self._file_number or status.st_size < self._at:  # the file was replaced
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
    """The content of a quarantine file with new errors added, and the number of these.

    Raises ValueError if the content is not that of a quarantine file.
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
    """When each path was first listed; empty if the file does not exist.

    Raises ValueError if the file is not a quarantine file, which must not be overwritten.
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
    """The rows as lines of the file."""

    # csv.writer does not quote a lone carriage return, and readers reject it.
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text

    text = "".join(",".join(map(cell, row)) + "\n" for row in rows)
    return text.encode("utf-8", "surrogateescape")


def _one_line(error: str) -> str:
    """An error's text for a table: short, on one line, and printable.

    The error of a library may contain a whole file.
    """
    text = "".join(c if c.isprintable() else " " for c in shortened(error, 10 * _ERROR_LENGTH))
    return shortened(" ".join(text.split()), _ERROR_LENGTH)


_QUOTED = re.compile(r'[,"\r\n]')


def _write(file: IO[bytes], content: bytes) -> None:
    """Append the content, with a single system call if the disk accepts it all."""
    while content:
        content = content[file.write(content) :]


def _whole_lines(content: bytes) -> bytes:
    """The content without an incomplete line that a killed process, or a full disk, left at the end."""
    end = len(content)
    if not content.endswith(b"\n") or content.count(b'"') % 2:
        end = content.rfind(b"\n") + 1
        while content.count(b'"', 0, end) % 2:  # this line break is inside a quoted name
            end = content.rfind(b"\n", 0, end - 1) + 1
        last = _cells(content[end:])
        # Spreadsheet programs may omit the last line break: such a line is complete.
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
    with _field_limit:  # the limit is global to the process, 128 KiB by default
        before = csv.field_size_limit(max(len(text), csv.field_size_limit()))
        try:
            return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        except csv.Error:  # a NUL character
            return []
        finally:
            csv.field_size_limit(before)


_field_limit = threading.Lock()


def _check_header(content: bytes, path: str) -> None:
    """Raise ValueError for another kind of file, so that it is neither extended nor cut."""
    if lines([FIELDS]).startswith(content):  # a killed process wrote only a part of the header
        return
    rows = _cells(content[: content.find(b"\n") + 1])
    if not rows or tuple(rows[0][: len(FIELDS)]) != FIELDS:
        raise _no_list(content, path, "Name another file, which need not exist.")


def _no_list(content: bytes, path: str, advice: str) -> ValueError:
    first = content.split(b"\n", 1)[0][:80]
    return ValueError(
        f"{visible(path)} is not a list of bad files: its first line is {first!r:.80}, expected "
        f"{','.join(FIELDS)}. {advice}"
    )


def _rows(content: bytes, path: str) -> list[list[str]]:
    """Rows, with the path as the first cell. Raises ValueError if no column is called path."""
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
            f"{path} cannot be locked ({error}): if several processes write to it at the same time, a "
            "bad file may be listed twice.",
            once="quarantine lock",
        )


# ---------------------------------------------------------------------- leaving out listed samples


def whole_name(name: str) -> str:
    """The absolute path of a file. A suffix that names a record in the file is kept."""
    record = _RECORD.fullmatch(name)
    path = record[1] if record else name
    # A URL that load_sample() understands, or a sample that is not a file.
    if "://" in path or _NUMBER.fullmatch(path):
        return name
    return os.path.abspath(path) + name[len(path) :]


def record_of(name: str) -> tuple[str, int] | None:
    """The file and number of a record, from the name that `RecordFiles.name` returns; else None."""
    found = _RECORD.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def excluded(exclude: Any, quarantine: Any = None) -> set[str]:
    """The names listed in one or several CSV files, in the form of `whole_name`.

    exclude: a path or a list of paths of files with a header and a column called path.
    quarantine: a path whose file may not exist yet, because this run will create it.

    Raises:
        FileNotFoundError, ValueError: a file does not exist, or has no column called path.
    """
    if exclude is None:
        return set()
    files = [exclude] if isinstance(exclude, (str, os.PathLike)) else exclude
    names: set[str] = set()
    for item in files:
        if not isinstance(item, (str, os.PathLike)):
            raise TypeError(
                f"exclude={item!r:.80}, expected the path of a CSV file as written by quarantine= or "
                '`kloaders verify --csv`, such as exclude="bad.csv", or a list of such paths.'
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
                f"exclude='{visible(path)}' does not exist. {where_of(path)} "
                "`kloaders verify FOLDER --csv bad.csv` creates such a file."
            ) from None
        if content:
            names.update(whole_name(row[0]) for row in _rows(content, path))
    return names


def _same(one: str, other: str) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)


def numbers_of(names: set[str], paths: Sequence[str]) -> Indices:
    """The indices of the paths that are among the names; takes a second for a million paths."""
    # The last part usually distinguishes paths, without checking the folder.
    lasts = {os.path.basename(name) for name in names}
    found = [
        k
        for k, path in enumerate(paths)
        if os.path.basename(path) in lasts and whole_name(path) in names
    ]
    return np.array(found, np.int64)


def say_left_out(count: int, samples: int, names: set[str]) -> None:
    """Log how many samples `exclude` left out."""
    if names:
        none = " (none of the listed paths is among these)" if not count else ""
        inform(f"exclude: {count:,} of {samples:,} samples are left out{none}.")
