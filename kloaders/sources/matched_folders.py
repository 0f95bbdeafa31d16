"""Files of several folders that belong together: those of the same path, but for folder and suffix."""

from __future__ import annotations

import os

from kloaders.core.messages import visible, warn
from kloaders.core.places import where_of
from kloaders.formats.files import IMAGE_SUFFIXES, read_bytes, suffix_of
from kloaders.formats.image_headers import image_shape
from kloaders.sources.fingerprint import spread
from kloaders.sources.folders import LeftOut, files_below
from kloaders.sources.tables import listed

__all__ = ["matched", "warn_of_proportions"]

# Pairs of images whose sides are compared, and bytes in which most headers say them.
_LOOKED, _HEAD = 32, 2**16


def matched(
    folders: list[str], wanted: list[frozenset[str] | None], follow_links: bool
) -> list[list[str]]:
    """For each folder its files that have a partner in all others, in the same order.

    Args:
        folders: their paths.
        wanted: suffixes of the files of each; None for any.
        follow_links: look into links to folders.

    Raises:
        FileNotFoundError, NotADirectoryError: there is the folder does not exist.
        ValueError: no file has partners, or two of one folder would have the same.
    """
    pairs = zip(folders, wanted, strict=True)
    found = [_by_stem(folder, suffixes, follow_links) for folder, suffixes in pairs]
    common = set(found[0]).intersection(*found[1:])
    if not common:
        raise ValueError(
            f"no file of {folders[0]} has a partner in {' and '.join(folders[1:])}: these have "
            f"{_said(found[0])} and {' and '.join(map(_said, found[1:]))}. Partners have the same path "
            "in their folders, but for the suffix; for other names use split(paths, labels), where "
            "labels may be a function of a path that gives the path of its partner."
        )
    alone = {
        folder: [path for stem, path in files.items() if stem not in common]
        for folder, files in zip(folders, found, strict=True)
    }
    if any(alone.values()):
        said = "; ".join(
            f"{len(paths):,} of {folder} ({listed([os.path.relpath(p, folder) for p in paths])})"
            for folder, paths in alone.items()
            if paths
        )
        warn(f"files left out, since they have no partner: {said}.")
    stems = [stem for stem in found[0] if stem in common]
    return [[files[stem] for stem in stems] for files in found]


def _by_stem(folder: str, wanted: frozenset[str] | None, follow_links: bool) -> dict[str, str]:
    """Files below a folder, by their path in it without suffix."""
    if not os.path.isdir(folder):
        if os.path.exists(folder):
            raise NotADirectoryError(f"{visible(folder)} is a file, expected a folder of files.")
        raise FileNotFoundError(f"{visible(folder)} does not exist. {where_of(folder)}")
    found: dict[str, str] = {}
    left_out = LeftOut()
    for path in files_below(folder, wanted, follow_links, left_out.add):
        suffix = suffix_of(path)
        stem = os.path.relpath(path[: len(path) - len(suffix)] if suffix else path, folder)
        if stem in found:
            raise ValueError(
                f"{visible(found[stem])} and {visible(path)} differ in their suffix only, and which of them is meant "
                "cannot be told: move one away, or pass extensions= with the suffix to take."
            )
        found[stem] = path
    if left_out.count:
        left_out.tell(folder)
    if not found:
        kinds = " ".join(sorted(wanted)) if wanted else "any suffix"
        raise ValueError(
            f"{visible(folder)} has no file of {kinds}: look there, or pass extensions=."
        )
    return found


def _said(files: dict[str, str]) -> str:
    return next(iter(files.values()))


def warn_of_proportions(first: list[str], others: list[str]) -> None:
    """Log where partners are images of other proportions: resized, one would not fit the other.

    Headers of some pairs are read, spread over all.
    """
    if not first:
        return
    odd = []
    looked = spread(len(first))
    for k in looked[:: -(-len(looked) // _LOOKED)]:
        shapes = [_shape_of(first[k]), _shape_of(others[k])]
        if shapes[0] is not None and shapes[1] is not None and _differ(shapes[0], shapes[1]):
            said = " and ".join(
                f"{path} is {shape[1]} x {shape[0]}"
                for path, shape in zip((first[k], others[k]), shapes, strict=True)
                if shape
            )
            odd.append(said)
    if odd:
        warn(
            f"{len(odd):,} of {min(_LOOKED, len(looked)):,} pairs that were looked at have different "
            f"proportions, so that what is in one does not lie at the same place in the other: {odd[0]}."
        )


def _shape_of(path: str) -> tuple[int, int] | None:
    """(height, width) of an image, None if it is not an image or damaged."""
    if suffix_of(path) not in IMAGE_SUFFIXES:
        return None
    try:
        with open(path, "rb") as file:
            shape = image_shape(file.read(_HEAD))
        return shape or image_shape(read_bytes(path))
    except Exception:  # an invalid header; reading the sample reports it
        return None


def _differ(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether one is no scaled copy of the other, but for a pixel of rounding."""
    height = b[0] * a[1] / max(1, b[1])
    rounding = 1 + a[1] / max(1, b[1])
    return abs(height - a[0]) > rounding + 0.01 * a[0]
