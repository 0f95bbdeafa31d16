"""What an actor does with its pipeline: it fills rows with samples, and lists errors."""

from __future__ import annotations

import pickle
import time
from typing import Any

import numpy as np

from kloaders.core.arrays import Array, Indices
from kloaders.core.rows import Report, RowMismatch, Rows
from kloaders.core.structure import Structure, unflatten
from kloaders.engine.processes.worker import pack_error, unpack_error
from kloaders.plan.rng import Moment
from kloaders.sources.pipeline import SamplePipeline

__all__ = ["Needs", "Trouble", "fill", "look", "put_pieces", "put_stored", "trouble_of"]

#: Shape of all rows, and dtype, of each array.
Needs = list[tuple[tuple[int, ...], np.dtype[Any]]]
#: A row and its problem: an array that does not fit, with its leaf number, or a packed error.
Trouble = tuple[int, int | None, Any]
#: An array, as its rows in order.
Pieces = list[Array]

# Ray starts six threads to copy an array of more than 1 MiB, which takes longer than the copy.
_PIECE_BYTES = 1 << 20


def fill(
    pipeline: SamplePipeline, job: bytes, stored: tuple[Structure, list[Array]] | None
) -> tuple[list[Pieces], list[Trouble], float]:
    """Read samples, on an actor.

    pipeline: loads and transforms samples.
    job: pickled as one argument, because Ray pickles each argument separately: the sample numbers,
        int64; the arrays to make (`Needs`); the structure of a sample; the moment, from which random
        numbers are derived; and whether to leave out the transform.
    stored: structure and arrays of the samples before the transform, if they need not be read.

    Returns:
        The arrays in pieces, with one row per sample; the problems by row; and the duration in seconds.
    """
    begin = time.perf_counter()
    indices, needs, form, moment, raw = pickle.loads(job)  # noqa: S301  ours
    out = Rows(form, [np.empty(shape, dtype) for shape, dtype in needs])
    troubles: list[Trouble] = []

    def report(row: int, error: Exception) -> None:
        if isinstance(error, RowMismatch):
            troubles.append((row, error.leaf, np.ascontiguousarray(error.array)))
        else:
            troubles.append((row, None, pack_error(pipeline, int(indices[row]), error)))

    if stored is not None:
        put_stored(pipeline, indices, out, report, moment, Rows(*stored))
    else:
        # Remote objects are fetched concurrently, not row by row as a transform reads them.
        claims = pipeline.source.fetch_ahead(indices)
        try:
            pipeline.fill(indices, out, report, moment, raw)
        finally:
            for claim in claims:
                claim.release()
    return [_pieces(array) for array in out.arrays], troubles, time.perf_counter() - begin


def _pieces(array: Array) -> Pieces:
    if array.nbytes <= _PIECE_BYTES:
        return [array]
    rows = max(1, _PIECE_BYTES * len(array) // array.nbytes)
    return [array[k : k + rows] for k in range(0, len(array), rows)]


def put_pieces(pieces: Pieces, out: Array) -> None:
    """Copy an array that arrived in pieces."""
    start = 0
    for piece in pieces:
        stop = start + len(piece)
        out[start:stop] = piece
        start = stop


def put_stored(
    pipeline: SamplePipeline,
    indices: Indices,
    out: Rows,
    report: Report,
    moment: Moment,
    stored: Rows,
) -> None:
    """Transform stored samples into their rows."""
    for row, index in enumerate(indices.tolist()):
        try:
            sample = unflatten(stored.form, [np.array(leaf[row]) for leaf in stored.arrays])
            pipeline.put(index, sample, out, row, report, moment.part(row))
        except Exception as error:  # a user's function may raise anything
            report(row, error)


def look(pipeline: SamplePipeline, index: int, raw: bool) -> tuple[bool, Any]:
    """Whether one sample loads, and its specs or its packed error."""
    try:
        return True, pipeline.look(index, raw)
    except Exception as error:  # raised in the loader's process
        return False, pack_error(pipeline, index, error)


def trouble_of(trouble: Trouble) -> tuple[int, Exception]:
    """A row, and its error."""
    row, leaf, what = trouble
    return row, unpack_error(what) if leaf is None else RowMismatch(row, leaf, what)
