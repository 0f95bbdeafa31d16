"""The files that a cached sample depends on: their names, and their current state."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from kloaders.places.urls import is_url
from kloaders.sources.cache.store import NO_FILES, STAMP_BYTES, Stamp, stamp_of
from kloaders.sources.columns import Column
from kloaders.sources.fingerprint import Digest, common_folder

__all__ = ["SampleFiles"]


class SampleFiles:
    """All files of each sample, by its number.

    A folder cache knows a sample by the names of its files below the folder that all have in common,
    so that data may be moved, and by their stamp, so that other data with the same names are told
    apart.

    Args:
        paths: for each of its files, what gives its path by the number of a sample.
        values: what else of a sample is part of what is kept: its value counts, not its number.
        names: what samples are called, by number, for those that share a file; None: as their files.
        folder: what all paths begin with and is no part of a name; None: what they have in common.
    """

    def __init__(
        self,
        paths: Sequence[Any],
        values: Sequence[Column] = (),
        *,
        names: Any = None,
        folder: str | None = None,
    ) -> None:
        self.paths = list(paths)
        self.values = list(values)
        self.names = names
        self.folder = common_folder(*paths) if folder is None else folder

    def __getitem__(self, index: int) -> str:
        """The name of a sample, independent of the data's location."""
        names = (
            [column[index] for column in self.paths] if self.names is None else [self.names[index]]
        )
        parts = [name.removeprefix(self.folder) for name in names]
        for column in self.values:
            digest = Digest()
            digest.add_bytes(column.read(index))
            parts.append(digest.text())
        return "\0".join(parts)

    def stamp(self, index: int) -> Stamp:
        """How the files of a sample are now; None if one is not there."""
        if not self.paths:
            return NO_FILES
        found = stamp_of(*[column[index] for column in self.paths])
        return self._stamp_of_urls(index) if found is None else found

    def _stamp_of_urls(self, index: int) -> Stamp:
        """Names of remote objects, and their ETags if a listing had them."""
        names = [column[index] for column in self.paths]
        if not all(map(is_url, names)):
            return None
        etags = [etags[index] for c in self.paths if (etags := getattr(c, "etags", None))]
        return hashlib.blake2b(repr((names, etags)).encode(), digest_size=STAMP_BYTES).digest()
