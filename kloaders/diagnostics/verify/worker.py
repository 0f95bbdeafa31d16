"""A worker process of `verify`, which does tasks and answers. It imports Keras only for rows.

A separate process has three advantages: if a file crashes the decoder, only this process ends and the
file is reported; warnings that decoders print to stderr are suppressed; and the GIL is not shared. Tasks
and answers are lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from typing import Any

import numpy as np

from kloaders.formats.errors import DecodeError
from kloaders.formats.files import suffix_of
from kloaders.formats.integrity import (
    Checked,
    check_content,
    check_file,
    check_video,
    is_image,
)
from kloaders.formats.opening import opener_of
from kloaders.formats.pack_files import crc_of_piece
from kloaders.formats.tfrecord.examples import BYTES, INT64, features_of, values_of
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.tfrecord.framing import FOOTER, HEADER
from kloaders.formats.videos import VIDEO_SUFFIXES
from kloaders.places.settings import exported

__all__ = ["Inspections", "Inspector", "inspect", "main"]

# After this many seconds the decoder of an image, or its disk, is considered to hang.
HANG_SECONDS = 120.0

# The answers for one task, each with name, problems, digest, form and class (of a record: its label).
Answer = list[dict[str, Any]]


def inspect(task: dict[str, Any], opened: dict[str, Any]) -> Answer:
    """Do one task: a file, some records of a file, or a part of a file whose checksum is known.

    `opened` keeps files of records or rows open between tasks.
    """
    if "crc32" in task:
        return [_sum(task)]
    if "first" in task:
        return _records(task, opened)
    if "rows" in task:
        return _rows(task, opened)
    if suffix_of(task["path"]) in VIDEO_SUFFIXES or task.get("video"):
        return [_answer(task["path"], check_video(task["path"]))]
    found = check_file(task["path"], task["max_pixels"])
    return [_answer(task["path"], found)]


def _answer(name: str, found: Checked, label: str | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "problems": found.problems,
        "digest": found.digest.hex(),
        "form": found.form,
        "class": label,
    }


def _sum(task: dict[str, Any]) -> dict[str, Any]:
    found, path = Checked(), task["path"]
    try:
        if crc_of_piece(path, task["begin"], task["end"]) != task["crc32"]:
            found.add(
                "broken", f"{task['name']} changed since the pack was written: its checksum differs"
            )
    except OSError as error:
        found.add("unreadable", f"{path} cannot be read: {error.strerror}")
    return _answer(path, found)


def _records(task: dict[str, Any], opened: dict[str, RecordFiles]) -> Answer:
    path = task["path"]
    if path not in opened:
        opened.clear()  # the tasks of a file come one after another
        opened[path] = RecordFiles([path], progress=False, opener=opener_of([path]))
    files = opened[path]
    indices = np.arange(task["first"], task["first"] + task["count"], dtype=np.int64)
    return [_record(files, int(indices[k]), raw, task) for k, raw in files.read_many(indices)]


def _rows(task: dict[str, Any], opened: dict[str, Any]) -> Answer:
    # Imported here, since this imports all sources and Keras.
    from kloaders.diagnostics.verify.rows import RowFile

    path = task["path"]
    if path not in opened:
        opened.clear()
        opened[path] = RowFile(path)
    checked = opened[path].checked(task["rows"], task["count"], task["max_pixels"])
    return [_answer(name, found, label) for name, found, label in checked]


def _record(
    files: RecordFiles, index: int, raw: bytes | Exception, task: dict[str, Any]
) -> dict[str, Any]:
    name, found, label = files.name(index), Checked(), None
    try:
        if isinstance(raw, Exception):
            raise raw
        files.check(raw, index)
        record = raw[HEADER:-FOOTER]
        found = Checked(digest=Checked.digest_of(record))
        for feature, where in features_of(record).items() if task["examples"] else ():
            values = values_of(record, where)
            if feature == "label" and where.kind == INT64 and len(values) == 1:
                label = str(int(values[0]))
            if where.kind != BYTES:
                continue
            for value in values:
                if is_image(value):
                    # A record with an image is compared by its image only, since names differ.
                    inner = check_content(value, f"{name}, {feature}", task["max_pixels"])
                    found.problems += inner.problems
                    found.digest, found.form = inner.digest, inner.form
    except (DecodeError, OSError) as error:
        said = str(error)
        cut = "truncated" in said and not isinstance(error, OSError)
        kind = "unreadable" if isinstance(error, OSError) else "truncated" if cut else "broken"
        found.add(kind, f"{name}: {said}")
    return _answer(name, found, label)


def main() -> None:
    """Answer tasks from stdin until it ends."""
    opened: dict[str, Any] = {}
    for line in sys.stdin.buffer:
        answer = inspect(json.loads(line), opened)
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def _there_soon(descriptor: int) -> bool:
    """Wait up to HANG_SECONDS. -> whether there is input, or the end of the input."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(descriptor)
    return bool(poll.poll(HANG_SECONDS * 1000))


class Inspector:
    """A process that does tasks one after another, and is restarted if a task kills it.

    One thread uses it; only `close` may be called from any thread.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, task: dict[str, Any]) -> Answer:
        """Do a task. A task that kills its process twice, or hangs, is reported as broken."""
        line = json.dumps(task).encode() + b"\n"
        code = 0
        for _ in range(2):  # the process may have died for another reason
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            answer = b""
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(line)
                process.stdin.flush()
                if task.get("hangs") and not _there_soon(process.stdout.fileno()):
                    self.close()
                    how = f"takes more than {HANG_SECONDS:.0f} seconds to read"
                    return self._gave_up(task, how)
                answer = process.stdout.readline()
            if answer.endswith(b"\n"):
                found: Answer = json.loads(answer)
                return found
            code = process.wait()
            self.close()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return self._gave_up(task, f"crashes the process that reads it ({how})")

    def _gave_up(self, task: dict[str, Any], how: str) -> Answer:
        path = task["path"]
        what = (
            f"{path}, one of the records {task['first']} to {task['first'] + task['count'] - 1},"
            if ("first" in task)
            else path
        )
        return [_answer(path, Checked([("broken", f"{what} {how}")]))]

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; "
                "from kloaders.diagnostics.verify.worker import main; main()"
            )
            self._process = subprocess.Popen(  # noqa: S603  this interpreter, our module
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={
                    **os.environ,
                    **exported(),
                    "OPENCV_LOG_LEVEL": "SILENT",
                    "OMP_NUM_THREADS": "1",
                },
                # The parent process handles Ctrl-C.
                start_new_session=True,
            )
        return self._process

    def close(self) -> None:
        """End the process. May be called from any thread."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()


class Inspections:
    """The work of a Ray actor for `verify`: several tasks, in a separate process."""

    def __init__(self) -> None:
        self._inspector = Inspector()

    def __call__(self, job: tuple[int, list[dict[str, Any]]]) -> list[Answer]:
        return [self._inspector.ask(question) for question in job[1]]
