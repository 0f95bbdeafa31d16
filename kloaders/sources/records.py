"""Samples that are records of TFRecord files, located by an index."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from kloaders.core import stall_watch
from kloaders.core.arrays import Array, Indices
from kloaders.core.rows import Report, Rows, copy_into_row
from kloaders.core.structure import Structure, flatten, map_structure
from kloaders.formats.tfrecord.examples import Found, features_of
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.tfrecord.framing import FOOTER, HEADER
from kloaders.plan.rng import Moment
from kloaders.sources.source import Source
from kloaders.sources.tfrecord.layouts import Jobs, Layout, learnt, read_rows

__all__ = ["RecordSource", "found_in"]

# The number of record sizes to learn layouts for. Encoded images have all sizes, and no layout.
_SIZES = 4096
# The number of records of one size from which a layout is learnt.
_TRIES = 256


class RecordSource(Source):
    """Records of TFRecord files, parsed as their features specify.

    Args:
        records: the files.
        leaves: for each array of a sample, its feature and how to read it; () if hooks parse the
            records themselves.
        encoded: whether this package decodes some features, such as images.
        title: the loader's name for messages.
    """

    reads_many = True

    def __init__(
        self, records: RecordFiles, leaves: tuple[Structure, ...], encoded: bool, title: str
    ) -> None:
        self.records, self.leaves, self.encoded, self.title = records, leaves, encoded, title
        self.in_order = records.compressed
        # io_submit cannot read remote objects into rows.
        self._tries = 0 if records.opener.fetches or records.compressed else _TRIES
        self.runs_user_code = any(leaf.decode is not None for leaf in flatten(leaves))
        self._forget()

    def _forget(self) -> None:
        self._layouts: dict[Any, Layout] = {}
        self._tried: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_layouts": {}, "_tried": {}}

    def __len__(self) -> int:
        return len(self.records)

    def sample(self, index: int, moment: Moment) -> tuple[Any, ...]:
        if not self.leaves:
            raise TypeError(
                f"{self.title} overrides a hook but has no features: pass features=, or "
                "parse the bytes that read_record(index) returns."
            )
        record = self.records.read(index)
        found = found_in(record, self.leaves)
        sample: tuple[Any, ...] = map_structure(
            lambda leaf: leaf.read(record, found, None), self.leaves
        )
        return sample

    def name(self, index: int) -> str:
        return self.records.name(index)

    def advice(self, index: int, leaf: int, dtype_differs: bool) -> str:
        if dtype_differs:
            return "Pass dtype=, or kl.Feature(name, dtype=...) in features."
        return "Pass size=(height, width) for images; kl.padded_batches(loader) pads lists."

    def extent(self) -> Iterable[Array]:
        return self.records.extent()

    def close(self) -> None:
        self.records.close()

    # ------------------------------------------------------------------ many samples at once

    def fill(self, indices: Indices, out: Rows, report: Report, moment: Moment) -> None:
        leaves, arrays = flatten(self.leaves), out.arrays
        left = self._fill_by_layout(indices, arrays)
        for k, raw in self.records.read_many(indices[left]):
            row = left[k]
            stall_watch.at(self, int(indices[row]))
            try:
                if isinstance(raw, Exception):
                    raise raw
                self.records.check(raw, int(indices[row]))
                record = raw[HEADER:-FOOTER]
                found = found_in(record, self.leaves)
                for number, leaf in enumerate(leaves):
                    target = arrays[number][row, ...]
                    got = leaf.read(record, found, target)
                    if got is not target:
                        copy_into_row(got, arrays[number], row, number, report)
                self._learn(int(indices[row]), raw, record, found, arrays)
            except Exception as error:  # a user's decode failed for this sample
                report(row, error)

    def _fill_by_layout(self, indices: Indices, out: list[Array]) -> list[int]:
        """Read records whose layout is known; return the remaining rows."""
        if not self._layouts:
            return list(range(len(indices)))
        files, starts, ends = self.records.locate(indices)
        order = np.lexsort((starts, files))
        places = zip(files[order].tolist(), (ends - starts)[order].tolist(), strict=True)
        get = self._layouts.get
        layouts = [get((file, size)) or get(size) for file, size in places]
        left: list[int] = []
        if None in layouts:
            known = np.array([layout is not None for layout in layouts])
            left, order = order[~known].tolist(), order[known]
            if not len(order):
                return left
        numbers = self.records.numbers(indices)
        where = (numbers[order], files[order], starts[order], ends[order])
        jobs = Jobs(*where, order, [layout for layout in layouts if layout is not None])
        return left + read_rows(self.records, jobs, out)

    def _learn(
        self, index: int, raw: bytes, record: bytes, found: dict[str, Found], out: list[Array]
    ) -> None:
        """Learn the layout of a record, so that similar records are read many at a time."""
        size = len(raw)
        tried = self._tried.get(size, 0)
        if tried >= self._tries or len(self._tried) > _SIZES:
            return
        self._tried[size] = tried + 1
        layout = learnt(raw, record, found, flatten(self.leaves), out)
        if layout is None:
            return
        known = self._layouts.setdefault(size, layout)
        if layout.direct or known.direct:
            # A record's layout must be known before reading. Writers may order features differently,
            # but hardly within a file, so files whose features have the same order share a layout.
            file, _ = self.records.where(index)
            self._layouts[file, size] = self._layouts.setdefault((size, *layout.same), layout)
        elif all(one.same != layout.same for one in known.siblings):
            known.siblings.append(layout)


def found_in(record: bytes, leaves: tuple[Structure, ...]) -> dict[str, Found]:
    """The features of a record. A leaf without a name is the whole record, which need not be an Example."""
    return features_of(record) if flatten(leaves)[0].name else {}
