"""Writes samples to TFRecord files, for TensorFlow's reader and for ours."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from kloaders.convert.digests import (
    digest_of_array,
)
from kloaders.convert.journal import (
    Advance,
    Journal,
    Written,
    checked_if_exists,
    errors_of,
    noted,
    say_errors,
    write_shards,
)
from kloaders.convert.on_ray import RemoteShards
from kloaders.convert.parts import Part, Parts, checked_part, shards_of
from kloaders.convert.record_samples import LoaderSamples, RecordSource, source_of
from kloaders.convert.uploads import Target, to_urls
from kloaders.core.arrays import Indices
from kloaders.core.checks import checked_class_names, checked_count, checked_flag
from kloaders.core.errors import SampleError, without_traceback
from kloaders.core.messages import visible
from kloaders.core.ray import checked_engine
from kloaders.core.threads import usable_cores
from kloaders.formats.atomic import whole_file
from kloaders.formats.sidecar_index import save_index
from kloaders.formats.tfrecord.framing import FOOTER, HEADER, framed
from kloaders.loaders.splits import sides
from kloaders.places.urls import local_path, parsed
from kloaders.sources.tfrecord.forms import FORMS

if TYPE_CHECKING:
    from kloaders.core.ray import Ray

__all__ = ["finish_tfrecords", "write_tfrecords"]

_NUMBERS = r"-\d{5,}-of-\d{5,}\.tfrecord"


def _target(url: str, given: dict[str, Any]) -> Target:
    folder, _, name = url.rpartition("/")
    if not name or not parsed(url).name:  # a folder, or a bucket
        folder, name = url.rstrip("/"), "/"
    begin = "" if name == "/" else f"{name}-"
    if given.get("validation"):
        names = [f"{begin}train", f"{begin}validation"]
    else:
        names = ["records" if name == "/" else name]
    files = f"({'|'.join(map(re.escape, names))}){_NUMBERS}"
    return Target(folder, name, files, _journal_of(names[0]), None)


@to_urls("out", _target)
def write_tfrecords(
    paths_or_loader: Any,
    labels: Any = None,
    out: str | os.PathLike[str] | None = None,
    *,
    shards: int = 1,
    compression: str | None = None,
    features: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    validation: float | None = None,
    stratify: Any = None,
    groups: Any = None,
    shuffle: bool = False,
    seed: int | None = None,
    workers: int | None = None,
    on_error: str = "raise",
    part: tuple[int, int] | None = None,
    engine: Ray | None = None,
    if_exists: Literal["keep", "raise", "overwrite"] = "keep",
    overwrite: bool = False,
    staging: str | os.PathLike[str] | None = None,
    progress: bool | None = True,
) -> Written:
    """Write samples to TFRecord files as tf.train.Example, for `TFRecordSequenceLoader` or tf.data.

    With paths, `image_raw` is the unchanged content of the file (for .npy files the array), `label`
    the label and `id` the path. With a loader, samples are written as they are stored, before the
    transform: `x` and `label`, or the names of a dict; `id` is the sample number. Integer labels
    become int64, other labels float32 (float64 values are also kept, as `label/float64`); for labels
    that are paths, the content of the file is written. Arrays keep shape and dtype, in additional
    features (`NAME/shape`, `NAME/dtype`); TensorFlow reads float32 values and int64 lists directly.

    The first records of each file have an additional feature, `kloaders/form`, from which
    `TFRecordSequenceLoader(files)` restores the structure, dtypes and class names.

    Args:
        paths_or_loader: files, as for `PathSequenceLoader`; or any loader; or None to write
            `features` only.
        labels: the labels, if paths are passed; as for `PathSequenceLoader`.
        out: prefix of the file names: "out/train" -> out/train-00000-of-00003.tfrecord. With
            `validation`, "-train" and "-validation" are appended to it. Folders are created. For a URL,
            such as s3://bucket/records/train, the same bytes are written to `staging` first. A URL is
            a folder if it ends with "/".
        shards: number of files; for the validation files it is reduced in proportion.
        compression: None, "GZIP" or "ZLIB". Compressed files are smaller, but can only be read from
            start to end; JPEGs do not get smaller.
        features: more features by name: a value for each sample in a list or an array (texts,
            bytes, integers, floats, arrays of any shape), or a function of the path.
        class_names: names of the numbers in `labels`; None uses those of the loader.
        validation: the share of the samples to write to separate files; scikit-learn splits them.
        stratify: whether to keep the share of every class the same in both parts, as for `split`.
        groups: one value per sample; samples with the same value stay together, as for `split`.
        shuffle: whether to write in a random order instead of the given order. Use it for readers
            that shuffle in a buffer only, and for compressed files, if samples are sorted by class.
        seed: determines the split and that order; the default is 0.
        workers: threads that read and encode; the default is the number of usable cores.
        on_error: "raise" stops at a file that cannot be read, or whose header says that it is not a
            complete image; "skip" leaves it out and lists it at the end. For a loader, its own
            on_error is used.
        part: (k, n): write only the files of part k of n, counted from 0. Processes or hosts that
            share a file system write one part each. After all have finished, `finish_tfrecords(out)`
            gives the files their names. They have the same bytes as files from one process. Until
            then they are in a hidden folder in the output folder.
        engine: `Ray(cpus=8)` writes 8 files at a time, in tasks of a Ray cluster whose nodes share
            the file systems of source and out. The bytes are the same. If a worker dies, another
            worker writes its file.
        if_exists: what to do if finished files of this name exist. "keep" does nothing if they were
            made from the same data with the same arguments, and raises an error otherwise, so a script
            can be run twice; "raise" always raises an error; "overwrite" writes them again. With
            "keep", a part and a call after `finish_tfrecords` also raise an error.
        overwrite: replace files of this name, as if_exists="overwrite".
        staging: if out is a URL: a local folder with space for all files. The default is in the
            user's cache folder. It is emptied after the upload.
        progress: whether to show a progress bar. None: only if stderr is a terminal.

    Returns:
        The files, including those for validation; the number of samples in them; and the errors of
        samples that were left out. With `part`, samples and errors are those of the part, and there
        are no files yet.

    If the call is killed or interrupted at any time, the same call resumes: finished files are kept.
    Each file gets its index immediately (`.NAME.index`), except at a URL.

    Raises:
        SampleError: a sample fails to load (on_error="raise").
        FileExistsError: there are files of this name, or a part of them, that were made with other
            arguments or from data that has changed.
        BlockingIOError: another process writes them.
        OSError: the disk is full, or the bucket of a URL refuses the upload; finished files are kept.
        ValueError, TypeError: an argument is out of range, or lengths differ.
    """
    keep, overwrite = checked_if_exists(if_exists, overwrite)
    shards = checked_count(shards, "shards", 1)
    if compression not in (None, "", "GZIP", "ZLIB"):
        raise ValueError(
            f'compression={compression!r:.80} is not known: choose None, "GZIP" or "ZLIB".'
        )
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error={on_error!r:.80} is not known here: choose "raise" or "skip".')
    if out is None:
        raise TypeError('out is missing: the prefix of the file names, as in out="folder/train".')
    seed = 0 if seed is None else checked_count(seed, "seed", 0)
    if not validation and (stratify is not None or groups is not None):
        raise ValueError(
            "stratify and groups need validation=, the share of the validation samples."
        )
    source = source_of(paths_or_loader, labels, features, on_error, seed)
    if class_names is not None:
        source.class_names = checked_class_names(class_names)
    threads = usable_cores() if workers is None else max(1, checked_count(workers, "workers", 0))
    writing = _Writing(source, compression or "", threads, checked_engine(engine))
    mix = (
        np.random.default_rng(seed).permutation if checked_flag(shuffle, "shuffle") else np.asarray
    )
    if validation:
        first, second = sides(source.loader, validation, stratify, groups, seed)
        files = writing.add(_prefix(out, "train"), mix(first), shards)
        share = max(1, round(shards * len(second) / len(first)))
        others = writing.add(_prefix(out, "validation"), mix(second), share)
    else:
        files, others = writing.add(_prefix(out, ""), mix(np.arange(source.samples)), shards), []
    if part is None:
        notes = writing.run(keep, overwrite, progress)
    else:
        notes = writing.run_part(checked_part(part), _parts_of(out), files, overwrite, progress)
        files = others = []
    errors = errors_of(notes)
    say_errors(errors, "write_tfrecords", source.on_error)
    return Written(files, others, sum(note["samples"] for note in notes), errors)


def finish_tfrecords(out: str | os.PathLike[str], *, overwrite: bool = False) -> Written:
    """Give the files from `write_tfrecords(..., part=(k, n))` their names. Call it once for all parts.

    Args:
        out: the same as for the parts.
        overwrite: whether to replace files of this name.

    Returns:
        The same as `write_tfrecords` without parts.

    If the call is killed at any time, the same call resumes.

    Raises:
        FileNotFoundError: parts are missing, or not finished; the message names them.
        FileExistsError: parts were made with different arguments, or such files already exist.
        BlockingIOError: a process is writing a part.
    """
    parts = _parts_of(out)
    overwrite = checked_flag(overwrite, "overwrite")
    with parts.finished(overwrite, lambda job: len(job["files"])) as (job, notes):
        names = (each for name in job["files"] for each in (name, f".{name}.index"))
        parts.move(names, _journal_of(re.sub(_NUMBERS, "", job["files"][0])))
    errors = errors_of(notes)
    say_errors(errors, "finish_tfrecords", "skip")
    folder = os.path.split(_prefix(out, ""))[0]
    paths = [os.path.join(folder, name) for name in job["files"]]
    first = job["training"]
    samples = sum(note["samples"] for note in notes)
    return Written(paths[:first], paths[first:], samples, errors)


def _parts_of(out: str | os.PathLike[str]) -> Parts:
    """The folder of unfinished parts."""
    text = local_path(out, "out")
    folder, name = os.path.split(os.path.abspath(_prefix(out, "")))
    first = (
        "(records|train|validation)"
        if _prefix(out, "") != text
        else re.escape(name) + "(-train|-validation)?"
    )
    return Parts(folder, f".{name}.unfinished", first + _NUMBERS, "finish_tfrecords")


def _journal_of(name: str) -> str:
    """The name of the journal for files of this name."""
    return f".{name}.unfinished.jsonl"


def _prefix(out: str | os.PathLike[str], part: str) -> str:
    """The prefix of the file names of "train" or "validation" (or "" without a split)."""
    text = local_path(out, "out")
    if text.endswith(("/", os.sep)) or os.path.isdir(text):
        return os.path.join(text, part or "records")
    return f"{text}-{part}" if part else text


# --------------------------------------------------------------------------------------- the files

_WINDOW_BITS = {"GZIP": 31, "ZLIB": 15}


class _Writing:
    """Writes the files of a call; `write_shards` calls it for each file."""

    def __init__(
        self, source: RecordSource, compression: str, threads: int, engine: Ray | None
    ) -> None:
        self.engine = engine
        self.source, self.compression, self.threads = source, compression, threads
        form = source.form()
        self.form = None if form is None else form.example()
        self.folder = ""
        self.names: list[str] = []
        self.paths: list[str] = []
        self.numbers: list[Indices] = []

    def add(self, prefix: str, numbers: Indices, shards: int) -> list[str]:
        """Divide samples, in this order, among files as equally as possible. -> the paths of the files."""
        if shards > len(numbers):
            raise ValueError(
                f"shards={shards} for {len(numbers)} samples: some files would be empty. Pass a "
                "smaller shards=."
            )
        self.folder, name = os.path.split(os.path.abspath(prefix))
        self.names.append(name)
        paths = [f"{prefix}-{k:05}-of-{shards:05}.tfrecord" for k in range(shards)]
        self.paths += paths
        self.numbers += np.array_split(numbers, shards)
        return paths

    def run(self, keep: bool, overwrite: bool, progress: bool | None) -> list[dict[str, Any]]:
        """Write the unfinished files. -> the notes of all files."""
        names = "|".join(map(re.escape, self.names))
        # One journal for training and validation files, so that a resumed call finds both.
        record = os.path.join(self.folder, _journal_of(self.names[0]))
        pattern = f"({names}){_NUMBERS}"
        journal = Journal(record, pattern, self._job(), overwrite, self._is_current, keep=keep)
        return self._write(journal, range(len(self.paths)), progress)

    def run_part(
        self,
        part: Part,
        parts: Parts,
        training: list[str],
        overwrite: bool,
        progress: bool | None,
    ) -> list[dict[str, Any]]:
        """Write the unfinished files of one part to the folder of parts. -> the notes of its files."""
        job = {**self._job(), "training": len(training)}
        own = shards_of(part, len(self.paths))
        names = [os.path.basename(path) for path in self.paths]
        pattern = "|".join(re.escape(names[shard]) for shard in own) or "(?!)"
        journal = parts.journal(part, job, len(names), pattern, overwrite, self._is_current)
        self.paths = [os.path.join(parts.place, name) for name in names]
        return self._write(journal, own, progress)

    def _job(self) -> dict[str, Any]:
        return {
            **self.source.job(),
            "class_names": self.source.class_names,
            "files": [os.path.basename(path) for path in self.paths],
            "order": digest_of_array(np.concatenate(self.numbers)),
            "compression": self.compression,
        }

    def _is_current(self, shard: int, note: dict[str, Any]) -> bool:
        return bool(note["files"] == self.source.files(self.numbers[shard]))

    def _write(self, journal: Journal, shards: range, progress: bool | None) -> list[Any]:
        # A loader has its own threads. Without one, each shard has `threads` threads that read files.
        workers = 1 if isinstance(self.source, LoaderSamples) else min(4, self.threads)
        sizes = [len(numbers) for numbers in self.numbers]
        with contextlib.closing(self.source), journal:
            remote = self.engine if not journal.kept else None
            return write_shards(
                journal,
                sizes,
                RemoteShards(remote, self, journal.path, sizes) if remote else self,
                shards=shards,
                workers=remote.cpus if remote else workers,
                progress=progress,
                name="write_tfrecords",
            )

    def __call__(self, shard: int, advance: Advance) -> tuple[list[str], Any]:
        path, numbers = self.paths[shard], self.numbers[shard]
        offsets, errors = [0], []
        form = self.form
        # Computed before the files are read, so that a change during the read is noticed later.
        files = self.source.files(numbers)
        with whole_file(path) as file, _Squeezed(file, self.compression) as squeezed:
            for run in self.source.runs(numbers, self.threads):
                for record in run:
                    if isinstance(record, SampleError):
                        if self.source.on_error == "raise":
                            raise record
                        errors.append(without_traceback(record, self.source.on_error))
                    else:
                        if form is not None and len(offsets) <= FORMS:
                            record = framed(record[HEADER:-FOOTER] + form)  # noqa: PLW2901
                        squeezed.write(record)
                        offsets.append(offsets[-1] + len(record))
                advance(len(run))
            if len(offsets) == 1:
                raise SampleError(
                    errors[0].index,
                    errors[0].name,
                    f"{errors[0].cause} (all {len(errors)} samples of {visible(path)} fail to load)",
                )
        save_index(path, np.array(offsets, np.uint64), self.compression)
        note = {
            "samples": len(offsets) - 1,
            "files": files,
            "errors": noted(errors),
        }
        return [os.path.basename(path)], note


class _Squeezed:
    """Writes to a file, with or without compression."""

    def __init__(self, file: IO[bytes], compression: str) -> None:
        self._file = file
        bits = _WINDOW_BITS.get(compression)
        self._deflate = None if bits is None else zlib.compressobj(wbits=bits)

    def write(self, content: bytes) -> None:
        self._file.write(content if self._deflate is None else self._deflate.compress(content))

    def __enter__(self) -> _Squeezed:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None and self._deflate is not None:
            self._file.write(self._deflate.flush())
