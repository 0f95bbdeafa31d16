"""Writes the samples of any loader to a pack, reading each once."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from kloaders.convert.digests import (
    digest_of_files,
    is_files,
    job_of,
    spread,
)
from kloaders.convert.journal import (
    Advance,
    Journal,
    Written,
    begun_with,
    checked_if_exists,
    errors_of,
    noted,
    say_errors,
    write_shards,
)
from kloaders.convert.on_ray import RemoteShards
from kloaders.convert.pack_arrays import ShardArray, finish_shared, is_written, name_of
from kloaders.convert.parts import Parts, checked_part, shards_of
from kloaders.convert.uploads import Target, to_urls
from kloaders.core.arrays import Array, Indices
from kloaders.core.checks import checked_flag
from kloaders.core.memory import format_bytes, parse_bytes
from kloaders.core.messages import inform, visible
from kloaders.core.ray import checked_engine
from kloaders.core.structure import ArraySpec, Structure, check_no_texts, flatten
from kloaders.engine.batches import AnyShapeBuild, in_storage_order
from kloaders.formats.atomic import whole_file
from kloaders.formats.pack import (
    FILES,
    JOURNAL,
    MANIFEST,
    PARTS,
    Manifest,
    dtype_named,
    files_of,
    form_of,
    shard_of,
)
from kloaders.loaders.paths import PathSequenceLoader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.settings import check_own_batches
from kloaders.places.urls import local_path
from kloaders.plan.rng import Moment
from kloaders.sources.columns import inner_column
from kloaders.sources.pack import PackColumn

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kloaders.core.ray import Ray
    from kloaders.loaders.paths import PathOptions

__all__ = ["finish_pack", "write_pack"]


# The minimum bytes of a shard, and the maximum number of shards: if shapes differ, each shard has its own
# files, and each mapped file takes one of the 1024 file descriptors of a process.
_SHARD_BYTES, _SHARDS = 2**30, 128
# The number of samples whose size is measured.
_MEASURED = 8


def _target(url: str, _: dict[str, Any]) -> Target:
    return Target(url.rstrip("/"), "", FILES, JOURNAL, MANIFEST)


@to_urls("folder", _target)
def write_pack(
    data: Any,
    folder: str | os.PathLike[str],
    *,
    labels: Any = None,
    transformed: bool = False,
    shard_size: int | str | None = None,
    part: tuple[int, int] | None = None,
    engine: Ray | None = None,
    if_exists: Literal["keep", "raise", "overwrite"] = "keep",
    overwrite: bool = False,
    staging: str | os.PathLike[str] | None = None,
    progress: bool | None = True,
    **options: Unpack[PathOptions],
) -> Written:
    """Decode every sample once and write it to a folder, for `PackSequenceLoader`.

    The loader's threads read every sample once, in storage order, and write it unchanged: shape, dtype,
    nesting of inputs and labels, sample weights and class names are kept. Only a few samples are in
    memory at a time, however large the source is.

    Args:
        data: any loader; or paths, as for `PathSequenceLoader`.
        folder: the output folder, which is created if needed. For a URL, such as s3://bucket/pack, the
            same bytes are written to `staging` first.
        labels: the labels, if `data` is paths.
        transformed: False writes samples as they are stored, so a transform can draw new random
            numbers in each epoch when the pack is read. True writes them after the loader's
            transform, with the random numbers of epoch 0.
        shard_size: approximate bytes per shard, or a text such as "1GiB"; rounded to whole samples,
            whose size is estimated from a few of them. A resumed call keeps finished shards and
            writes the others again; each shard has a checksum. The default is 1 GiB, or more if
            there would be over 128 shards.
        part: (k, n): write only the shards of part k of n, counted from 0. Processes or hosts that
            share a file system write one part each. After all have finished, `finish_pack(folder)`
            makes the pack, with the same bytes as from one process. Until then everything is in
            FOLDER/unfinished.
        engine: `Ray(cpus=8)` writes 8 shards at a time, in tasks of a Ray cluster whose nodes share
            the file systems of source and folder. The bytes are the same. If a worker dies, another
            worker writes its shard.
        if_exists: what to do if the folder has a finished pack. "keep" does nothing if it was made
            from the same data with the same arguments, and raises an error otherwise, so a script can
            be run twice; "raise" always raises an error; "overwrite" writes it again. With "keep", a
            part and a call after `finish_pack` also raise an error.
        overwrite: replace the content of the folder, as if_exists="overwrite".
        staging: if folder is a URL: a local folder with space for the whole pack. The default is in
            the user's cache folder. It is emptied after the upload.
        progress: whether to show a progress bar. None: only if stderr is a terminal.
        **options: if `data` is paths: options of `PathSequenceLoader`, such as size, channels, dtype,
            decode, workers and on_error.

    Returns:
        The files of the pack, `pack.json` last; the number of samples in them; and the errors
        of samples that failed to load (on_error="skip" leaves them out). With `part`, samples and
        errors are those of the part, and there are no files yet.

    If the call is killed or interrupted at any time, the same call resumes: finished shards are kept.
    The folder is a valid pack once `pack.json` exists, which is written last. Each array is one .npy
    file with a row per sample (`x.npy`), called `x.npy.unfinished` until all shards are written.
    Samples that are left out have a row of zeros if other shards follow. A shard with samples of
    another shape has its own files.

    Raises:
        SampleError: a sample fails to load (on_error="raise").
        ValueError: samples differ in dtype (the message names both), or from epoch to epoch.
        FileExistsError: the folder has another pack, or a part of a pack that was made with other
            arguments or from data that has changed; the message names the difference.
        BlockingIOError: another process writes there.
        OSError: the disk is full, or the bucket of a URL refuses the upload; finished shards are kept.
    """
    keep, overwrite = checked_if_exists(if_exists, overwrite)
    source = _source(data, labels, checked_flag(transformed, "transformed"), options)
    folder = os.path.abspath(local_path(folder, "folder"))
    part = None if part is None else checked_part(part)
    ray = checked_engine(engine)
    parts = Parts(folder, PARTS, FILES, "finish_pack")
    kept = source.source
    if not transformed and kept.not_kept:
        raise ValueError(f"write_pack({type(source).__name__}): {kept.not_kept}")
    os.makedirs(folder, exist_ok=True)
    _check_not_read(source, folder)
    with source.view() as loader:
        form = loader.sample_spec if transformed else loader.raw_spec
        check_no_texts(
            form,
            "write_pack()",
            "convert it to numbers, such as token ids, with preprocess=, or pass paths of .npy files",
        )
        structure = form_of(form, itertools.count())
        each = _mean_bytes(loader, transformed)
        path = os.path.join(folder, JOURNAL)
        wanted = None if shard_size is None else parse_bytes(shard_size, "shard_size")
        job = {**job_of(loader, transformed), "shard_size": wanted}
        if wanted is None:
            size = max(_SHARD_BYTES // max(1, each), -(-loader.samples // _SHARDS))
        else:
            size = max(1, wanted // max(1, each))
        # Reuse the shard size of the first call: a sample that was measured may have changed since then.
        begun = begun_with(path, job) if part is None else parts.begun_with(job)
        size = begun.get("samples_a_shard", min(size, loader.samples))
        starts = range(0, loader.samples, size)
        inform(
            f"write_pack: {loader.samples:,} samples, about {format_bytes(each * loader.samples)}, "
            f"in {len(starts):,} shard{'s' * (len(starts) > 1)} to {folder}, where "
            f"{format_bytes(shutil.disk_usage(folder).free)} are free"
        )
        place = folder if part is None else parts.place
        pack_of = _Writer(loader, place, form, transformed, size, each)
        job["samples_a_shard"] = size
        shared = [name_of(name) for name in pack_of.names]
        pack = {
            "structure": structure,
            "leaves": [leaf.dtype.name for leaf in pack_of.leaves],
            "weights": pack_of.weights is not None,
            "shared": shared,
        }
        counts = [min(size, loader.samples - start) for start in starts]
        numbers = range(len(counts)) if part is None else shards_of(part, len(counts))
        if part is None:
            journal = Journal(
                path, FILES, job, overwrite, pack_of.is_current, shared, keep, MANIFEST
            )
        else:
            own = "|".join(f"{number:05}" for number in numbers) or "(?!)"
            pattern = rf"[xyw]\d*-({own})(\.index)?\.npy"
            journal = parts.journal(
                part,
                {**job, "pack": pack},
                len(counts),
                pattern,
                overwrite,
                pack_of.is_current,
                shared,
            )
        with journal:
            remote = ray if not journal.kept else None
            notes = write_shards(
                journal,
                counts,
                RemoteShards(remote, pack_of, journal.path, counts) if remote else pack_of,
                shards=numbers,
                workers=remote.cpus if remote else 1,
                progress=progress,
                name="write_pack",
            )
            errors = errors_of(notes)
            if errors and loader.on_error == "raise":  # shards were finished with on_error="skip"
                raise errors[0]
            samples = sum(note["samples"] for note in notes)
            if part is None:
                if not samples:
                    loader.errors = errors
                    raise loader.runner.log.nothing_left(errors[0].index)
                files = _finish_arrays(folder, pack, notes)
                if not journal.kept:
                    _write_manifest(folder, pack, journal.job, notes)
    say_errors(errors, "write_pack", loader.on_error)
    if part is not None:
        return Written([], [], samples, errors)
    return Written([os.path.join(folder, name) for name in [*files, MANIFEST]], [], samples, errors)


def finish_pack(folder: str | os.PathLike[str], *, overwrite: bool = False) -> Written:
    """Combine the parts from `write_pack(..., part=(k, n))` into a pack. Call it once for all parts.

    No data is read or copied: files are renamed, and `pack.json` is written last.

    Args:
        folder: the folder of the parts.
        overwrite: whether to replace another pack in the folder.

    Returns:
        The same as `write_pack` without parts.

    If the call is killed at any time, the same call resumes.

    Raises:
        FileNotFoundError: parts are missing, or not finished; the message names them.
        FileExistsError: parts were made with different arguments, or a pack already exists.
        BlockingIOError: a process is writing a part.
        SampleError: no sample of any part loads.
    """
    folder = os.path.abspath(local_path(folder, "folder"))
    parts = Parts(folder, PARTS, FILES, "finish_pack")

    def shards(job: dict[str, Any]) -> int:
        return int(-(-job["samples"] // job["samples_a_shard"]))

    with parts.finished(checked_flag(overwrite, "overwrite"), shards) as (job, notes):
        pack = job.pop("pack")
        errors = errors_of(notes)
        samples = sum(note["samples"] for note in notes)
        if not samples:
            raise errors[0]
        files = _finish_arrays(parts.place, pack, notes)
        parts.move(files, JOURNAL)
        _write_manifest(folder, pack, job, notes)
    say_errors(errors, "finish_pack", "replace" if job["replace"] else "skip")
    return Written([os.path.join(folder, name) for name in [*files, MANIFEST]], [], samples, errors)


def _finish_arrays(place: str, pack: dict[str, Any], notes: list[Any]) -> list[str]:
    """Finish and rename the shared files. -> the names of all files."""
    files = files_of(map(shard_of, notes), list(map(dtype_named, pack["leaves"])))
    finish_shared(place, pack["shared"], files)
    return list(files)


def _write_manifest(
    folder: str, pack: dict[str, Any], job: dict[str, Any], notes: list[Any]
) -> None:
    shards = [shard_of(note) for note in notes]
    samples = sum(shard.samples for shard in shards)
    structure, leaves, weights = pack["structure"], pack["leaves"], pack["weights"]
    manifest = Manifest(samples, structure, leaves, weights, shards, job["class_names"], job)
    with whole_file(os.path.join(folder, MANIFEST)) as file:
        file.write(manifest.text().encode())


def _source(data: Any, labels: Any, transformed: bool, options: Any) -> SequenceLoader:
    if isinstance(data, SequenceLoader):
        given = [*(["labels"] if labels is not None else []), *options]
        if given:
            raise TypeError(
                f"write_pack() got a loader together with {', '.join(given)}: pass these to "
                f"{type(data).__name__}() itself."
            )
        loader = data
    else:
        # A fixed seed, so that a repeated call has the same one.
        loader = PathSequenceLoader(data, labels, **{"seed": 0, **options})
        if loader.transform is not None and not transformed:
            raise ValueError(
                "transform= has no effect with transformed=False: pass transformed=True to write its "
                "results, or pass transform= to PackSequenceLoader to run it in every epoch."
            )
    check_own_batches(loader, "write_pack")
    if transformed and loader.transform is None:
        raise ValueError("transformed=True, but there is no transform: pass one to the loader.")
    return loader


def _check_not_read(loader: SequenceLoader, folder: str) -> None:
    for column in flatten(loader.source.columns or ()):
        inner = inner_column(column)
        if isinstance(inner, PackColumn) and os.path.realpath(inner.folder) == os.path.realpath(
            folder
        ):
            raise ValueError(
                f"{visible(folder)} is the pack that the loader reads: write to another folder, and "
                "rename it afterwards."
            )


def _mean_bytes(loader: SequenceLoader, transformed: bool) -> int:
    """The estimated bytes per sample, from a few samples spread over all."""
    sizes: list[int] = []
    for index in spread(loader.samples, _MEASURED):
        with contextlib.suppress(Exception):  # on_error handles it when the sample is written
            sample = loader.runner.pipeline.sample(index, Moment(), raw=not transformed)
            sizes.append(sum(a.nbytes for a in flatten(sample)))
    return sum(sizes) // max(1, len(sizes))


def weights_beside(loader: SequenceLoader, transformed: bool) -> Array | None:
    """One weight per sample, if weights are not part of the samples."""
    return loader.runner.delivery.weights if transformed else loader.weights


class _Writer:
    """Writes one shard when `write_shards` calls it."""

    def __init__(
        self,
        loader: SequenceLoader,
        folder: str,
        form: Structure,
        transformed: bool,
        size: int,
        sample_bytes: int,
    ) -> None:
        self.loader, self.folder, self.form, self.transformed = loader, folder, form, transformed
        self.size, self.sample_bytes = size, sample_bytes
        self.leaves: list[ArraySpec] = flatten(form)
        self.names = []
        for letter, part in zip("xyw", form, strict=False):
            inner = len(flatten(part))
            alone = not isinstance(part, (tuple, dict))
            self.names += [letter] if alone else [f"{letter}{k}" for k in range(inner)]
        self.weights = weights_beside(loader, transformed)
        if self.weights is not None:
            self.leaves.append(ArraySpec((), self.weights.dtype))
            self.names.append("w" if len(form) < 3 else "weights")
        columns = loader.source.columns
        self.files = [] if columns is None else list(filter(is_files, flatten(columns)))

    def is_current(self, shard: int, note: dict[str, Any]) -> bool:
        """Whether the shard's rows exist and its source files have not changed."""
        found: str = note["files"]
        parts = zip(shard_of(note).parts, self.leaves, strict=True)
        return found == self._files_of(shard) and all(
            is_written(self.folder, part.values, leaf.dtype) for part, leaf in parts
        )

    def _files_of(self, shard: int) -> str:
        samples = range(*self._span(shard))
        return digest_of_files(column.name(k) for column in self.files for k in samples)

    def _span(self, shard: int) -> tuple[int, int]:
        return shard * self.size, min((shard + 1) * self.size, self.loader.samples)

    def __call__(self, shard: int, advance: Advance) -> tuple[list[str], Any]:
        start, stop = self._span(shard)
        met = len(self.loader.errors)
        # Computed before the files are read, so that a file that changes meanwhile counts as changed.
        inputs = self._files_of(shard)
        reading = in_storage_order(
            self.loader.runner, start, stop, self.sample_bytes, self._run, self.loader.thread_count
        )
        with contextlib.ExitStack() as stack:
            runs = stack.enter_context(contextlib.closing(reading))
            arrays = [
                ShardArray(stack, self.folder, name, shard, spec, start, stop)
                for name, spec in zip(self.names, self.leaves, strict=True)
            ]
            for asked, (indices, leaves) in runs:
                if self.weights is not None:
                    leaves = [*leaves, self.weights[indices]]  # noqa: PLW2901  weights are another leaf
                for array, rows in zip(arrays, leaves, strict=True):
                    array.add(rows)
                advance(asked)
            parts = [array.finish() for array in arrays]
        errors = sorted(self.loader.errors[met:], key=lambda error: error.index)
        note = {
            "samples": arrays[0].samples,
            "parts": [asdict(part) for part in parts],
            "files": inputs,
            "errors": noted(errors),
        }
        names = [file.name for part in parts for file in part.files]
        return names, note

    def _run(self, indices: Indices) -> AnyShapeBuild:
        return AnyShapeBuild(self.loader.runner, indices, Moment(), raw=not self.transformed)
