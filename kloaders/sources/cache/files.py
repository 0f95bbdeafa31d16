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
    """The files of each sample, by sample number.

    A folder cache identifies a sample by its file names and their stamp. The names are relative to the
    common folder of all files, so the data may be moved. The stamp tells apart different files with
    the same names.

    Args:
        paths: for each file of a sample, a sequence of the paths for all samples.
        values: columns whose values are part of a cached sample; they are identified by value.
        names: for samples that share a file, a sequence of their names; None: the file names are used.
        folder: the prefix of all paths that is not part of a name; None: the common folder.
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
        """The current stamp of a sample's files; None if a file is missing."""
        if not self.paths:
            return NO_FILES
        found = stamp_of(*[column[index] for column in self.paths])
        return self._stamp_of_urls(index) if found is None else found

    def _stamp_of_urls(self, index: int) -> Stamp:
        """A stamp of remote objects: their URLs, and their ETags if a listing contained these."""
        names = [column[index] for column in self.paths]
        if not all(map(is_url, names)):
            return None
        etags = [etags[index] for c in self.paths if (etags := getattr(c, "etags", None))]
        return hashlib.blake2b(repr((names, etags)).encode(), digest_size=STAMP_BYTES).digest()
