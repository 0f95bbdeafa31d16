r"""Writes samples to files, shard by shard, so that a killed call loses no finished shard. For any format.

    with Journal(path, files=r"x-\d{5}\.npy", job=job) as journal:
        notes = write_shards(journal, sizes, write)  # only shards that are not finished
        ...  # the file that makes the others valid is written last

The files of a shard get their final names when they are complete (`whole_file`); then the journal gets a
line. When the conversion is finished, the journal is renamed to `done_of(path)`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import as_completed
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from kloaders.convert.digests import not_compared
from kloaders.convert.written import Written
from kloaders.core.checks import checked_flag
from kloaders.core.errors import SampleError
from kloaders.core.messages import inform, visible, warn
from kloaders.core.progress import Progress
from kloaders.core.threads import ThreadPool
from kloaders.core.version import __version__
from kloaders.formats.atomic import raise_if_full, sync_folder
from kloaders.formats.files import open_to_read

if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = [
    "Journal",
    "Written",
    "begun_with",
    "checked_if_exists",
    "difference_of",
    "done_of",
    "errors_of",
    "locked",
    "noted",
    "read_journal",
    "say_errors",
    "write_shards",
]


def checked_if_exists(if_exists: Any, overwrite: Any) -> tuple[bool, bool]:
    """-> whether to keep finished files, and whether to replace them."""
    if if_exists not in ("keep", "raise", "overwrite"):
        raise ValueError(
            f'if_exists={if_exists!r:.80} is not known: choose "keep", "raise" or "overwrite".'
        )
    replace = checked_flag(overwrite, "overwrite") or if_exists == "overwrite"
    if replace and if_exists == "raise":
        raise ValueError('overwrite=True contradicts if_exists="raise": leave one of them out.')
    return if_exists == "keep", replace


# -------------------------------------------------------------------------------------- journal


class Journal:
    """A file of JSON lines that records the finished shards of a conversion, next to the shards.

    Args:
        path: the path of the journal, in the folder of the shards, which is created.
        files: a regular expression that matches all files of such conversions in the folder.
            Matching files that are not finished are removed.
        job: the inputs and settings that determine the files, by name, as JSON values. A conversion
            resumes only if all of them are the same.
        overwrite: whether to replace the files of another conversion, finished or not.
        current: `current(shard, note)` returns whether a finished shard is up to date; otherwise it
            is written again. For sources that may change, such as files. None: always up to date.
        shared: names of files to which several shards write, each its own part. While unfinished,
            they may be called `NAME.unfinished`. `current` has to check their size.
        keep: whether to accept a finished conversion of the same job: `kept` is then True, and all
            shards are in `finished`. Otherwise any finished conversion is an error.
        last: the name of the file that is written after all shards; required to accept a finished
            conversion.

    In a `with` block it holds a lock, which the system releases if the process dies. If the block
    ends without an exception, the file is renamed to `done`, where the next call finds it.

    Raises, when the block begins:
        BlockingIOError: another process uses it; the message names the process.
        FileExistsError: there are files of another conversion, or of data that has changed; the
            message names the difference.

    Safe for threads.
    """

    #: Whether the journal keeps its name when the conversion is finished.
    stays = False

    def __init__(
        self,
        path: str,
        files: str,
        job: dict[str, Any],
        overwrite: bool = False,
        current: Callable[[int, Any], bool] | None = None,
        shared: Iterable[str] = (),
        keep: bool = False,
        last: str | None = None,
    ) -> None:
        self.path = os.path.abspath(path)
        self.folder = os.path.dirname(self.path)
        #: Its path when all shards are finished: a hidden file, `.NAME.finished.jsonl`.
        self.done = done_of(self.path)
        self.keep, self.last, self.kept = keep, last, False
        self.pattern = re.compile(files)
        self.job = _as_read(job)
        self.overwrite = overwrite
        self.current = current
        self.shared = frozenset(shared)
        #: The notes of finished shards, by number.
        self.finished: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        os.makedirs(self.folder, exist_ok=True)
        self._file = file = locked(self.path)
        try:
            self._begin(file)
        except BaseException:
            self._file = None
            with contextlib.suppress(OSError):  # lines lost to a full disk are written again
                file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        file, self._file = self._file, None
        assert file is not None
        if kind is not None and self.finished and not self.kept:
            inform(
                f"{self.folder}: {len(self.finished):,} finished shards are kept; make the same call "
                "again to resume."
            )
        ends = self.kept or (kind is None and not self.stays)
        if ends and sys.platform != "win32":
            self._end()  # before the lock is released
        with contextlib.suppress(OSError):  # as above
            file.close()
        if ends and sys.platform == "win32":
            self._end()  # on Windows, open files cannot be renamed

    def _end(self) -> None:
        if self.kept:
            os.unlink(self.path)
        else:
            os.replace(self.path, self.done)

    def add(self, shard: int, names: Iterable[str], note: Any) -> None:
        """Record that a shard is finished and its files are on disk.

        `note` is a JSON value that is needed when all shards are finished.
        """
        sizes = {
            name: None if name in self.shared else os.path.getsize(os.path.join(self.folder, name))
            for name in names
        }
        with self._lock:
            self._append({"shard": shard, "sizes": sizes, "note": note})
            self.finished[shard] = note

    def _append(self, line: dict[str, Any]) -> None:
        assert self._file is not None
        try:
            # With a checksum, so that a damaged line counts as missing.
            text = json.dumps({**line, "crc32": _sum_of(line)})
            self._file.write(text.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise_if_full(error, self.path)
            raise

    def _begin(self, file: IO[bytes]) -> None:
        lines, end = _lines_of(file)
        job = lines[0].get("job") if lines else None
        shards = [line for line in lines if "shard" in line]
        there = sorted(name for name in os.listdir(self.folder) if self.pattern.fullmatch(name))
        if job is None and there and not self.overwrite:
            problem = self._take_over() if self.keep else ""
            if self.kept:
                return
            os.unlink(self.path)
            raise FileExistsError(
                f"{visible(os.path.join(self.folder, there[0]))} already exists{problem}. Choose "
                "another folder or name, or pass overwrite=True (--overwrite) to replace it."
            )
        if shards and job != self.job and not self.overwrite:
            raise FileExistsError(
                f"{visible(self.folder)} has an unfinished conversion with other arguments: "
                f"{difference_of(job or {}, self.job)}. Pass the same arguments to resume it, or pass "
                "overwrite=True (--overwrite) to start again."
            )
        kept: set[str] = set()
        for line in shards if job == self.job else []:
            shard, note = line["shard"], line["note"]
            if self._is_whole(line["sizes"]) and self._is_current(shard, note):
                self.finished[shard] = note
                for name, size in line["sizes"].items():
                    kept |= {name} if size is not None else {name, f"{name}.unfinished"}
        self._say_unsure()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.done)  # it describes the files removed below
        file.truncate(end if job == self.job else 0)
        if job != self.job:
            self._append({"job": self.job})
        self._append({"process": os.getpid()})
        # The journal is already up to date here: if this call is killed from now on, no removed file
        # counts as finished.
        for name in os.listdir(self.folder):
            part = re.fullmatch(r"\.(.*)\.\d+(-\d+)?\.part", name)
            if self.pattern.fullmatch(part[1] if part else name) and name not in kept:
                os.unlink(os.path.join(self.folder, name))
        sync_folder(self.folder)

    def _take_over(self) -> str:
        """Keep finished shards of the same job that are up to date. -> the difference, if there is one."""
        lines = read_journal(self.done)
        if not lines:
            return ""
        job = lines[0].get("job", {})
        # Shards written by an earlier version are still valid.
        said = difference_of(*({**j, "kloaders": ""} for j in (job, self.job)))
        if said:
            return f", made with other arguments: {said}"
        shards = {line["shard"]: line for line in lines if "shard" in line}
        last = self.last is None or os.path.exists(os.path.join(self.folder, self.last))
        changed = [
            k
            for k, line in shards.items()
            if not self._is_whole(line["sizes"]) or not self._is_current(k, line["note"])
        ]
        if changed or not last:
            return (
                f", but {len(changed) or 1:,} of {len(shards):,} shards are out of date: "
                "their files, or their source files, have been changed or deleted"
            )
        self.finished = {k: line["note"] for k, line in shards.items()}
        self.kept = True
        self._say_unsure()
        return ""

    def _is_current(self, shard: int, note: Any) -> bool:
        return self.current is None or self.current(shard, note)

    def _say_unsure(self) -> None:
        if self.finished and (unsure := not_compared(self.job)):
            warn(
                f"{self.folder}: {len(self.finished):,} finished shards are kept, but it is not "
                f"known whether they were made with the same {'; '.join(unsure)}. If not, pass "
                "overwrite=True (--overwrite) to start again."
            )

    def _is_whole(self, sizes: dict[str, int | None]) -> bool:
        try:
            return all(
                size is None or os.path.getsize(os.path.join(self.folder, name)) == size
                for name, size in sizes.items()
            )
        except OSError:
            return False


def done_of(path: str) -> str:
    """The path of the journal at `path` once the conversion is finished.

    >>> done_of("unfinished.jsonl"), done_of(".train.unfinished.jsonl")
    ('.finished.jsonl', '.train.finished.jsonl')
    """
    folder, name = os.path.split(path)
    stem = name.removesuffix(".jsonl").removesuffix("unfinished").strip(".")
    return os.path.join(folder, f"{f'.{stem}' if stem else ''}.finished.jsonl")


def begun_with(path: str, job: dict[str, Any]) -> dict[str, Any]:
    """The job of an earlier conversion that includes all items of `job`; {} if there is none.

    For values that the first run measures and a resumed run reuses. `path` is that of the journal.
    """
    wanted = {name: value for name, value in _as_read(job).items() if name != "kloaders"}
    for lines in map(read_journal, (path, done_of(path))):
        found: dict[str, Any] = lines[0].get("job", {}) if lines else {}
        if found and all(found.get(name) == value for name, value in wanted.items()):
            return found
    return {}


def read_journal(path: str) -> list[dict[str, Any]]:
    """The lines of a journal, which another process may be writing; [] if it does not exist."""
    try:
        with open(path, "rb", opener=open_to_read) as file:
            return _lines_of(file)[0]
    except FileNotFoundError:
        return []


def _as_read(job: dict[str, Any]) -> Any:
    # As read back from JSON: tuples become lists.
    return json.loads(json.dumps({"kloaders": __version__, **job}))


def locked(path: str) -> IO[bytes]:
    """Open the file at `path` to append, create it if it is missing, and lock it for this process."""
    while True:
        file = open(path, "a+b")  # noqa: SIM115 (the journal closes it)
        try:
            if sys.platform != "win32":
                _lock(file, path)
            # The previous owner may have removed the file since it was opened here.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: IO[bytes], path: str) -> None:
    import fcntl

    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lines, _ = _lines_of(file)
        process = next((line["process"] for line in reversed(lines) if "process" in line), "?")
        raise BlockingIOError(
            f"process {process} is writing to {visible(os.path.dirname(path))}: wait until it is done, or "
            "choose another folder."
        ) from None
    except OSError as error:
        warn(
            f"{os.path.dirname(path)} cannot be locked ({error}): make sure that no other process "
            "writes there at the same time.",
            once="lock",
        )


def _sum_of(line: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(line, sort_keys=True).encode())


def _lines_of(file: IO[bytes]) -> tuple[list[dict[str, Any]], int]:
    """-> the complete lines of a journal, and the position of their end: a kill may have cut the last line."""
    file.seek(0)
    lines: list[dict[str, Any]] = []
    end = 0
    for line in file.read().splitlines(keepends=True):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            break
        whole = isinstance(found, dict) and line.endswith(b"\n")
        if not whole or found.pop("crc32", None) != _sum_of(found):
            break
        lines.append(found)
        end += len(line)
    return lines, end


def difference_of(old: dict[str, Any], new: dict[str, Any]) -> str:
    said = []
    for name in {**old, **new}:
        was, now = old.get(name), new.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            said.append(difference_of(was, now))
        elif was != now:
            said.append(f"{name} was {was!r:.80}, is {now!r:.80}")
    return "; ".join(filter(None, said))


# --------------------------------------------------------------------------------------- shards

# advance(count) reports that this many more samples are written. It raises to stop the conversion.
Advance = Callable[[int], None]


def write_shards(
    journal: Journal,
    samples: Sequence[int],
    write: Callable[[int, Advance], tuple[list[str], Any]],
    *,
    shards: Sequence[int] | None = None,
    workers: int = 1,
    progress: bool | None = True,
    name: str = "writing",
) -> list[Any]:
    """Write the shards that are not finished. -> the notes of all shards, in shard order.

    Args:
        journal: the finished shards, inside its `with` block.
        samples: the number of samples of each shard, for the progress bar.
        write: `write(shard, advance)` -> (names of its files, note): writes the files of one shard
            with `whole_file` and calls `advance` several times per second. Called from `workers`
            threads at the same time.
        shards: the numbers of the shards to write; None for all.
        workers: the number of shards written at a time; 1 writes in the caller's thread.
        progress: whether to show a progress bar. None: only if stderr is a terminal.
        name: the label of the bar.

    After an exception in `write`, or Ctrl-C, the other threads stop at their next `advance`, and the
    exception is raised. Finished shards stay in the journal.
    """
    stop = threading.Event()
    lock = threading.Lock()
    shards = range(len(samples)) if shards is None else shards
    done = sum(samples[k] for k in journal.finished)
    left = [k for k in shards if k not in journal.finished]
    if journal.kept:
        inform(
            f"{name}: nothing to do, since {journal.folder} already has all {done:,} samples of the same "
            "conversion."
        )
        return [journal.finished[k] for k in shards]
    if journal.finished:
        inform(
            f"{name}: resuming, {len(journal.finished):,} of {len(shards):,} shards are finished."
        )
    disable = None if progress is None else not progress
    total = sum(samples[k] for k in shards)
    with Progress(total=total, initial=done, unit=" samples", disable=disable, desc=name) as bar:

        def advance(count: int) -> None:
            if stop.is_set():
                raise _Stopped
            with lock:
                bar.update(count)

        def one(shard: int) -> None:
            if not stop.is_set():
                names, note = write(shard, advance)
                journal.add(shard, names, note)

        if workers <= 1 or len(left) <= 1:
            for shard in left:
                one(shard)
        else:
            with ThreadPool(min(workers, len(left)), "kloaders-write") as pool:
                futures = [pool.submit(one, shard) for shard in left]
                try:
                    for future in as_completed(futures):
                        future.result()
                except BaseException:  # including Ctrl-C; leaving the block waits for the threads
                    stop.set()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
    return [journal.finished[k] for k in shards]


class _Stopped(Exception):
    """Raised in `advance` after another shard has failed."""


def noted(errors: Iterable[SampleError]) -> list[tuple[int, str, str, str | None]]:
    """The errors as a list for a note, under `errors`."""
    return [(error.index, error.name, error.cause, error.where) for error in errors]


def errors_of(notes: Iterable[dict[str, Any]]) -> list[SampleError]:
    """The samples that failed to load, from notes with lists that `noted` made."""
    found = {}
    for index, name, cause, where in (error for note in notes for error in note["errors"]):
        # A sample that was tried as a replacement in two shards may be in the notes of both.
        found[index] = SampleError(index, name, cause)
        found[index].where = where
    return [found[index] for index in sorted(found)]


def say_errors(errors: Sequence[SampleError], name: str, on_error: str = "skip") -> None:
    """Log a warning about samples that were left out or replaced, with the names of the first ten."""
    if not errors:
        return
    done = "replaced" if on_error == "replace" else "left out"
    listed = "".join(f"\n  {error}" for error in errors[:10])
    more = f"\n  and {len(errors) - 10:,} more" if len(errors) > 10 else ""
    warn(f"{name}: {len(errors):,} samples failed to load and were {done}:{listed}{more}")
