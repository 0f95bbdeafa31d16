"""Files as a user gives them: paths, patterns, or a list of these."""

from __future__ import annotations

import glob
import os
from typing import Any

from kloaders.formats.sidecar_index import is_index
from kloaders.places.urls import local_path

__all__ = ["files_of"]


def files_of(
    files: Any, what: str = "TFRecord files", pattern: str = "train-*.tfrecord"
) -> list[str]:
    """Paths, with patterns replaced by what matches."""
    if isinstance(files, (str, os.PathLike)):
        files = [files]
    found: list[str] = []
    for item in files:
        if not isinstance(item, (str, os.PathLike)):
            raise TypeError(
                f"files holds {item!r} ({type(item).__name__}), expected paths of TFRecord files or "
                'patterns such as "train-*.tfrecord".'
            )
        path = local_path(item, "files")
        if os.path.exists(path):
            found.append(path)
        elif not glob.has_magic(path):
            raise FileNotFoundError(
                f"{path} does not exist. Relative paths start at {os.getcwd()}."
            )
        else:
            matches = [m for m in sorted(glob.glob(path, recursive=True)) if not is_index(m)]
            if not matches:
                raise FileNotFoundError(
                    f"no file matches {path!r}. Relative patterns start at {os.getcwd()}."
                )
            found += matches
    if not found:
        raise ValueError(f"files is empty, expected at least one of {what}.")
    return found
