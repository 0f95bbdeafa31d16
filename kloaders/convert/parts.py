r"""Splits a conversion among processes or hosts: each writes some of the shards, and one call finishes.

    parts = Parts(folder, "unfinished", files=r"x-\d{5}\.npy", call="finish_it")
    with parts.journal((k, n), job, shards, ...) as journal:  # in each of n processes
        write_shards(journal, sizes, write, shards=shards_of((k, n), shards))
    with parts.finished(overwrite, ...) as found:  # when all parts are written
        parts.move(names, journal)
        ...  # the file that makes the others valid is written last

Parts are written to a folder inside the output folder. No file has its final path until all parts are
finished. The processes communicate through the file system only.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, NamedTuple

from kloaders.convert.journal import (
    Journal,
    begun_with,
    difference_of,
    done_of,
    locked,
    read_journal,
)
from kloaders.core.checks import checked_shard
from kloaders.core.messages import visible, warn
from kloaders.formats.atomic import sync_folder, whole_file

__all__ = ["Joined", "Part", "Parts", "checked_part", "shards_of"]

#: (number, count): part 0 of 4 is (0, 4).
Part = tuple[int, int]

_NAME = re.compile(r"part-(\d+)-of-(\d+)\.jsonl")
# A file in the folder of the parts that exists when only the last step is left.
_MARK = "all-parts-are-there"


def checked_part(part: Any) -> Part:
    """A part as (number, count). Raises ValueError or TypeError for anything else."""
    try:
        return checked_shard(list(part))
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"part={part!r:.80}, expected (number, count) with 0 <= number < count, such as (0, 4)."
        ) from None


def shards_of(part: Part, shards: int) -> range:
    """The numbers of the shards that a part writes: consecutive, and divided as equally as possible.

    >>> [list(shards_of((k, 3), 7)) for k in range(3)]
    [[0, 1], [2, 3], [4, 5, 6]]
    """
    number, count = part
    return range(shards * number // count, shards * (number + 1) // count)


class Joined(NamedTuple):
    """The job of all parts, and the notes of all shards, in shard order."""

    job: dict[str, Any]
    notes: list[Any]


class Parts:
    """The parts of one conversion.

    Args:
        folder: the output folder.
        name: the name of the folder inside it that has the parts until they are finished.
        files: a regular expression that matches all files of such conversions.
        call: the name of the function that finishes, for messages, such as "finish_pack".
    """

    def __init__(self, folder: str, name: str, files: str, call: str) -> None:
        self.folder, self.files, self.call = folder, re.compile(files), call
        self.place = os.path.join(folder, name)

    # ------------------------------------------------------------------------------ one part

    def journal(
        self,
        part: Part,
        job: dict[str, Any],
        shards: int,
        files: str,
        overwrite: bool,
        current: Callable[[int, Any], bool],
        shared: Iterable[str] = (),
    ) -> Journal:
        """The journal of one part. It keeps its name when the part is finished.

        Args:
            part: (number, count).
            job: the job of the whole conversion, the same for all parts.
            shards: the number of shards in all parts.
            files: a regular expression that matches the files of this part's shards.
            overwrite: whether to ignore existing files in the folder; `finished` replaces them.
            current: as for `Journal`.
            shared: as for `Journal`.
        """
        number, count = part
        if not len(shards_of(part, shards)):
            warn(
                f"part {number} of {count} is empty, since there are only {shards} shards. Use more "
                "shards (shard_size= or shards=), or fewer parts."
            )
        path = os.path.join(self.place, f"part-{number:05}-of-{count:05}.jsonl")
        journal = _PartJournal(path, files, {**job, "parts": count}, True, current, shared)
        journal.check = lambda: self._check(journal, overwrite)
        journal.check()  # before anything is written
        return journal

    def begun_with(self, job: dict[str, Any]) -> dict[str, Any]:
        """The job of an existing part that includes all items of `job`; {} if there is none."""
        return next(filter(None, (begun_with(path, job) for path in self._journals())), {})

    def _check(self, journal: Journal, overwrite: bool) -> None:
        """Raise FileExistsError if existing files do not allow to write this part."""
        if os.path.exists(os.path.join(self.place, _MARK)):
            raise FileExistsError(
                f"{visible(self.folder)}: all parts are written, but {self.call} was interrupted: call it "
                "again. No part can be written until it has finished."
            )
        there = self._there()
        if there and not overwrite:
            raise FileExistsError(
                f"{visible(os.path.join(self.folder, there[0]))} already exists. Choose another folder, or "
                "pass overwrite=True (--overwrite) to the call for each part and to the call that "
                "finishes, to replace it."
            )
        for path in self._journals():
            job = _job_of(read_journal(path))
            if job not in (None, journal.job):
                raise FileExistsError(
                    f"{visible(self.place)} has a part that was made with other arguments "
                    f"({visible(os.path.basename(path))}): {difference_of(job, journal.job)}. "
                    "Pass the same arguments to resume it, or remove that folder to start again."
                )

    def _there(self) -> list[str]:
        """The files of finished conversions."""
        if not os.path.isdir(self.folder):
            return []
        return sorted(name for name in os.listdir(self.folder) if self.files.fullmatch(name))

    def _journals(self) -> list[str]:
        """The paths of the existing journals of parts."""
        if not os.path.isdir(self.place):
            return []
        names = filter(_NAME.fullmatch, sorted(os.listdir(self.place)))
        return [os.path.join(self.place, name) for name in names]

    # ------------------------------------------------------------------------------- the end

    @contextlib.contextmanager
    def finished(
        self, overwrite: bool, shards: Callable[[dict[str, Any]], int]
    ) -> Iterator[Joined]:
        """The output of all parts. The block has to move the files; after it the parts are removed.

        If it is killed at any time, it can be called again.

        Args:
            overwrite: whether to replace the content of the folder.
            shards: returns the number of shards of a job.

        Raises:
            FileNotFoundError: there are no parts, or some are not finished; the message names them.
            FileExistsError: parts were made with different arguments, or the files already exist.
            BlockingIOError: a process is writing a part.
        """
        done = f"{self.place}.done"
        shutil.rmtree(done, ignore_errors=True)
        with contextlib.ExitStack() as stack:
            lines = {}
            for path in self._journals():
                stack.enter_context(locked(path))
                lines[path] = read_journal(path)
            jobs = {path: job for path in lines if (job := _job_of(lines[path])) is not None}
            if not jobs:
                raise FileNotFoundError(
                    f"{visible(self.folder)} has no parts of a conversion. Before {self.call}, write each "
                    "part with part=(k, n) (--part k/n) to the same folder."
                )
            first, job = next(iter(jobs.items()))
            for path, other in jobs.items():
                if other != job:
                    raise FileExistsError(
                        f"{visible(self.place)} has parts that were made with different arguments "
                        f"({visible(os.path.basename(first))}, {visible(os.path.basename(path))}): "
                        f"{difference_of(job, other)}. Remove that folder, and write all parts again."
                    )
            notes = self._notes(job, [lines[path] for path in jobs], shards(job))
            mark = os.path.join(self.place, _MARK)
            if not os.path.exists(mark):
                if (there := self._there()) and not overwrite:
                    raise FileExistsError(
                        f"{visible(os.path.join(self.folder, there[0]))} already exists: pass "
                        "overwrite=True (--overwrite) to replace it."
                    )
                with whole_file(mark):
                    pass
            yield Joined({name: value for name, value in job.items() if name != "parts"}, notes)
        os.rename(self.place, done)  # if killed from here on, the leftovers do not look like parts
        shutil.rmtree(done, ignore_errors=True)

    def move(self, names: Iterable[str], journal: str) -> None:
        """Move files to the output folder, and remove files of another conversion from it.

        `journal` is the name of the journal of such a conversion without parts. The journal of a finished
        one belongs to the replaced files, so it is removed.
        """
        names = list(names)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(done_of(os.path.join(self.folder, journal)))
        for name in self._there():  # pack.json is the first of them
            if name not in names:
                os.unlink(os.path.join(self.folder, name))
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.replace(os.path.join(self.place, name), os.path.join(self.folder, name))
        sync_folder(self.folder)

    def _notes(self, job: dict[str, Any], lines: list[Any], count: int) -> list[Any]:
        """The notes of all shards. Raises FileNotFoundError if any is missing."""
        found: dict[int, Any] = {}
        for one in lines:
            last: dict[int, Any] = {}
            for line in one:
                if "shard" in line:
                    last[line["shard"]] = line
                elif "kept" in line:
                    last = {shard: last[shard] for shard in line["kept"]}
            for shard, line in last.items():
                if all(self._is_there(*item) for item in line["sizes"].items()):
                    found[shard] = line["note"]
        parts = job["parts"]
        missing = [k for k in range(parts) if not found.keys() >= set(shards_of((k, parts), count))]
        if missing:
            named = ", ".join(map(str, missing[:20])) + ", ..." * (len(missing) > 20)
            raise FileNotFoundError(
                f"{visible(self.folder)}: {len(missing)} of {parts} parts are not finished: {named}. "
                f"Repeat the call for each of them, for example with part=({missing[0]}, {parts}) (--part "
                f"{missing[0]}/{parts}), and then call {self.call}."
            )
        return [found[shard] for shard in range(count)]

    def _is_there(self, name: str, size: int | None) -> bool:
        """Whether a file, moved or not, exists and has this size (None for shared files)."""
        places = [os.path.join(self.place, name), os.path.join(self.folder, name)]
        if size is None:
            return any(map(os.path.exists, [*places, f"{places[0]}.unfinished"]))
        return any(os.path.exists(path) and os.path.getsize(path) == size for path in places)


class _PartJournal(Journal):
    """The journal of a part. It stays when the part is written, for the call that finishes."""

    stays = True
    check: Callable[[], None]

    def _begin(self, file: IO[bytes]) -> None:
        self.check()  # under the lock
        super()._begin(file)
        # Shards whose source files changed are written again here, since the call that finishes cannot
        # check the source files.
        self._append({"kept": sorted(self.finished)})


def _job_of(lines: list[dict[str, Any]]) -> Any:
    return lines[0].get("job") if lines else None
