"""Matches files in several folders that have the same relative path, apart from the suffix."""

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

# The number of image pairs whose sizes are compared, and the bytes in which most headers fit.
_LOOKED, _HEAD = 32, 2**16


def matched(
    folders: list[str], wanted: list[frozenset[str] | None], follow_links: bool
) -> list[list[str]]:
    """For each folder, the files that have a partner in all other folders, in the same order.

    Args:
        folders: the paths of the folders.
        wanted: the suffixes of the files in each; None for any.
        follow_links: whether to enter links to folders.

    Raises:
        FileNotFoundError, NotADirectoryError: a folder does not exist.
        ValueError: no file has partners, or two files in a folder would have the same partner.
    """
    pairs = zip(folders, wanted, strict=True)
    found = [_by_stem(folder, suffixes, follow_links) for folder, suffixes in pairs]
    common = set(found[0]).intersection(*found[1:])
    if not common:
        raise ValueError(
            f"no file of {folders[0]} has a partner in {' and '.join(folders[1:])}: these have "
            f"{_said(found[0])} and {' and '.join(map(_said, found[1:]))}. Partners have the same path "
            "in their folders, apart from the suffix; for other names use split(paths, labels), where "
            "labels may be a function that returns the partner of a path."
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
        warn(f"files left out, because they have no partner: {said}.")
    stems = [stem for stem in found[0] if stem in common]
    return [[files[stem] for stem in stems] for files in found]


def _by_stem(folder: str, wanted: frozenset[str] | None, follow_links: bool) -> dict[str, str]:
    """Files below a folder, by their relative path without suffix."""
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
                f"{visible(found[stem])} and {visible(path)} differ only in their suffix, so it is "
                "unclear which one to use: move one away, or pass extensions= with the suffix to use."
            )
        found[stem] = path
    if left_out.count:
        left_out.tell(folder)
    if not found:
        kinds = " ".join(sorted(wanted)) if wanted else "any suffix"
        raise ValueError(
            f"{visible(folder)} has no file of {kinds}: check the folder, or pass extensions=."
        )
    return found


def _said(files: dict[str, str]) -> str:
    return next(iter(files.values()))


def warn_of_proportions(first: list[str], others: list[str]) -> None:
    """Log if partners are images of different proportions: after resizing they would not match.

    Only the headers of some pairs, evenly spread, are read.
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
            f"{len(odd):,} of {min(_LOOKED, len(looked)):,} checked pairs have different proportions, so "
            f"that the same point lies at different places in the two images: {odd[0]}."
        )


def _shape_of(path: str) -> tuple[int, int] | None:
    """The (height, width) of an image; None if it is not an image, or damaged."""
    if suffix_of(path) not in IMAGE_SUFFIXES:
        return None
    try:
        with open(path, "rb") as file:
            shape = image_shape(file.read(_HEAD))
        return shape or image_shape(read_bytes(path))
    except Exception:  # an invalid header, which is reported when the sample is read
        return None


def _differ(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether one size is not a scaled copy of the other, allowing for a pixel of rounding."""
    height = b[0] * a[1] / max(1, b[1])
    rounding = 1 + a[1] / max(1, b[1])
    return abs(height - a[0]) > rounding + 0.01 * a[0]
