"""Files as a user gives them: paths, patterns, or a list of these."""

from __future__ import annotations

import glob
import os
from typing import Any

from kloaders.core.messages import visible
from kloaders.core.places import where_of
from kloaders.formats.sidecar_index import is_index

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
                f"files holds {item!r:.80} ({type(item).__name__}), expected paths of {what} or "
                f"patterns such as {pattern!r:.80}."
            )
        path = os.fspath(item)
        if os.path.exists(path):
            found.append(path)
        elif not glob.has_magic(path):
            raise FileNotFoundError(f"{visible(path)} does not exist. {where_of(path)}")
        else:
            matches = [m for m in sorted(glob.glob(path, recursive=True)) if not is_index(m)]
            if not matches:
                raise FileNotFoundError(f"no file matches {path!r:.80}. {where_of(path)}")
            found += matches
    if not found:
        raise ValueError(f"files is empty, expected at least one of {what}.")
    return found
