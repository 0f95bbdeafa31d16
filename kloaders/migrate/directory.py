"""Keras' `image_dataset_from_directory`, as a loader: same files, classes, parts and images.

What differs from Keras on purpose is in docs/migrate.md.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from kloaders.loaders.from_files import one_hot
from kloaders.loaders.paths import PathSequenceLoader
from kloaders.migrate.shared import CHANNELS, Array, filter_named, with_keras_names
from kloaders.sources.folders import class_folders, files_below
from kloaders.sources.tables import listed

__all__ = ["image_dataset_from_directory"]

# The suffixes that Keras looks for, in lower case.
_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
# What Keras calls an interpolation, and what we do.
_FILTERS = {
    "bilinear": "bilinear",
    "nearest": "nearest",
    "bicubic": "bicubic",
    "area": "area",
    "lanczos3": "lanczos",
    "lanczos5": "lanczos",
}


def image_dataset_from_directory(
    directory: str | os.PathLike[str],
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: list[str] | None = None,
    color_mode: str = "rgb",
    batch_size: int = 32,
    image_size: Any = (256, 256),
    shuffle: bool | None = None,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    **options: Any,
) -> Any:
    """A loader for a call of `keras.utils.image_dataset_from_directory`, over the same files.

    Args:
        directory: holds `class/file`; with labels=None or a list, files.
        labels: "inferred" from the folders; None; or one integer for each file, as they are sorted.
        label_mode: "int" (int32), "categorical" (one-hot rows), "binary" (0 or 1 in rows of one;
            both float32), None.
        class_names: the folders to take, in the order of their numbers.
        color_mode: "rgb", "rgba" or "grayscale".
        batch_size: samples a batch.
        image_size: (height, width), or one number for both.
        shuffle: None, the default here, shuffles in `fit` and keeps the order in `predict`; True
            shuffles always. False keeps the files sorted, which decides what validation_split takes.
        seed: fixes the order, and with validation_split the parts: the same ones as Keras'.
        validation_split: the share of the files to validate with.
        subset: "training", "validation" or "both".
        interpolation: "bilinear", "nearest", "bicubic", "area", or about as Keras' "lanczos3" and
            "lanczos5".
        follow_links: look into links to folders.
        crop_to_aspect_ratio: cut from the middle what has the ratio of image_size.
        pad_to_aspect_ratio: put zeros beside the picture.
        **options: of `PathSequenceLoader`; dtype="uint8" instead of float32 is quicker.

    Returns:
        A loader with class_names and file_paths, or with subset="both" two of them. Batches are
        float32 from 0 to 255.

    Raises:
        ValueError: an argument is out of range, or files and labels differ in number.
        NotADirectoryError, FileNotFoundError: no such folder.
    """
    root = os.fspath(directory)
    if labels is None or label_mode is None:
        labels = label_mode = None
    if label_mode not in ("int", "categorical", "binary", None):
        raise ValueError(
            f'label_mode={label_mode!r} is not known: choose "int", "categorical", "binary" or None.'
        )
    if bool(validation_split) != (subset is not None):
        raise ValueError(
            f"validation_split={validation_split!r} and subset={subset!r}: give both, or neither."
        )
    if subset not in ("training", "validation", "both", None):
        raise ValueError(f'subset={subset!r}: choose "training", "validation" or "both".')
    if validation_split and not 0 < validation_split < 1:
        raise ValueError(f"validation_split={validation_split!r}, expected a share from 0 to 1.")
    if validation_split and seed is None and shuffle is not False:
        raise ValueError(
            "validation_split needs seed=, the same number for both parts, or a file may be in both. "
            "Or pass shuffle=False, which splits the sorted files."
        )
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ValueError("crop_to_aspect_ratio and pad_to_aspect_ratio are both given: choose one.")
    if color_mode not in CHANNELS:
        raise ValueError(
            f'color_mode={color_mode!r} is not known: choose "rgb", "rgba" or "grayscale".'
        )
    files, codes, names = _indexed(root, labels, class_names, follow_links)
    if label_mode == "binary" and len(names or ()) != 2:
        raise ValueError(
            f'label_mode="binary" is for two classes, {root} has {len(names or ())}: '
            f'{listed(names or [])}. Use "int" or "categorical".'
        )
    order = np.arange(len(files))
    if shuffle is not False:
        seed = int(np.random.randint(10**6)) if seed is None else seed
        # As Keras does it: what falls into which part depends on it.
        np.random.RandomState(seed).shuffle(order)
    cut = len(files) - int((validation_split or 0) * len(files))
    parts = {None: order, "training": order[:cut], "validation": order[cut:]}
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    aspect = "crop" if crop_to_aspect_ratio else "pad" if pad_to_aspect_ratio else "stretch"
    made = []
    for part in ("training", "validation") if subset == "both" else (subset,):
        rows = parts[part]
        given = None
        if codes is not None:
            given = codes[rows]
            if label_mode == "binary":
                given = given[:, np.newaxis].astype(np.float32)
        loader = PathSequenceLoader(
            [files[k] for k in rows.tolist()],
            given,
            batch_size,
            size=size,
            channels=CHANNELS[color_mode],
            interpolation=filter_named(interpolation, _FILTERS),
            aspect=aspect,
            shuffle=False if part == "validation" and subset == "both" else shuffle,
            seed=seed,
            **{"dtype": "float32", **options},
        )
        if label_mode == "categorical":
            loader = one_hot(loader, len(names or ()))
        loader.class_names = names
        made.append(with_keras_names(loader, file_paths=list(loader.paths)))
    return tuple(made) if subset == "both" else made[0]


def _indexed(
    root: str, labels: Any, class_names: list[str] | None, follow_links: bool
) -> tuple[list[str], Array | None, list[str] | None]:
    """Files in Keras' order, the class of each, and what classes are called."""
    wanted = frozenset(_SUFFIXES)
    if isinstance(labels, str) and labels == "inferred":
        names = class_folders(root, class_names)
        groups = [list(files_below(os.path.join(root, n), wanted, follow_links)) for n in names]
        files = [file for group in groups for file in group]
        codes = np.repeat(np.arange(len(names), dtype=np.int32), [len(group) for group in groups])
    else:
        if class_names:
            raise ValueError('class_names goes with labels="inferred": leave it out.')
        names = None
        files = list(files_below(root, wanted, follow_links))
        codes = None
        if labels is not None:
            codes = np.asarray(labels, np.int32)
            if codes.shape != (len(files),):
                raise ValueError(
                    f"labels has shape {codes.shape}, expected one integer for each of {len(files)} "
                    f"files in {root}."
                )
            names = [str(label) for label in sorted(set(codes.tolist()))]
    if not files:
        raise ValueError(f"{root} has no files that end in {' '.join(_SUFFIXES)}.")
    return files, codes, names
