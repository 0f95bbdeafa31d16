"""Expands a user's files argument: paths, patterns, or a list of these."""

from __future__ import annotations

import glob
import os
from typing import Any

from kloaders.core.messages import visible
from kloaders.core.places import where_of
from kloaders.formats.files import suffix_of
from kloaders.formats.sidecar_index import is_index
from kloaders.places.access import listed_pattern
from kloaders.places.urls import is_url, local_path

__all__ = ["files_matching", "files_of"]


def files_of(
    files: Any, what: str = "TFRecord files", pattern: str = "train-*.tfrecord"
) -> list[str]:
    """Paths and URLs, with patterns replaced by their matches."""
    if isinstance(files, (str, os.PathLike)):
        files = [files]
    found: list[str] = []
    for item in files:
        if not isinstance(item, (str, os.PathLike)):
            raise TypeError(
                f"files holds {item!r:.80} ({type(item).__name__}), expected paths of {what} or "
                f"patterns such as '{visible(pattern)}'."
            )
        if is_url(item):
            found += _objects_of(os.fspath(item))
            continue
        path = local_path(item, "files")
        if os.path.exists(path):
            found.append(path)
        elif not glob.has_magic(path):
            raise FileNotFoundError(f"{visible(path)} does not exist. {where_of(path)}")
        else:
            found += files_matching(path)
    if not found:
        raise ValueError(f"files is empty, expected at least one of {what}.")
    return found


def _objects_of(url: str) -> list[str]:
    """The sorted URLs that match a pattern; a URL without a pattern is returned as it is."""
    listed = listed_pattern(url)
    if listed == []:
        raise FileNotFoundError(
            f"no object matches '{visible(url)}': check the bucket and the folders."
        )
    return [url] if listed is None else [found for found, _ in listed if not is_index(found)]


def files_matching(pattern: str) -> list[str]:
    """The files that match a pattern, sorted by name; folders and our index files are left out.

    Raises:
        FileNotFoundError: no file matches.
    """
    matches = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
    # A path with a suffix is rarely a folder, and checking a million paths takes seconds.
    files = [m for m in matches if not is_index(m) and (suffix_of(m) or not os.path.isdir(m))]
    if not files:
        raise FileNotFoundError(f"no file matches '{visible(pattern)}'. {where_of(pattern)}")
    return files
