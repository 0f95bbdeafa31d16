"""A drop-in for Keras' `image_dataset_from_directory`: same files, classes, subsets and images.

docs/migrate.md lists the intentional differences from Keras.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import visible
from kloaders.loaders.from_files import one_hot
from kloaders.migrate.datasets import FilesDataset, check_format
from kloaders.migrate.shared import channels_of, check_data_format, filter_named, report_found
from kloaders.sources.folders import class_folders, files_below
from kloaders.sources.tables import listed

__all__ = ["image_dataset_from_directory", "loaders_of_parts"]

# The suffixes that Keras looks for, in lower case.
_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
# Keras' names of interpolations, and ours.
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
    batch_size: int | None = 32,
    image_size: Any = (256, 256),
    shuffle: bool | None = None,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: str | None = None,
    format: str = "tf",  # noqa: A002  (Keras' name)
    verbose: bool = True,
    **options: Any,
) -> Any:
    """Replaces `keras.utils.image_dataset_from_directory`: a loader over the same files.

    Args:
        directory: contains `class/file`; with labels=None or a list, files.
        labels: "inferred" from the folders; None; or one number for each file in sorted order.
        label_mode: "int" (int32), "categorical" (one-hot rows, float32), "binary" (0 or 1, float32 of
            shape (samples, 1)), or None for no labels.
        class_names: the folders to take, in the order of their numbers.
        color_mode: "rgb", "rgba" or "grayscale".
        batch_size: samples per batch. None: `for` gives single samples, and `fit` has batches of one.
        image_size: (height, width), or one number for both.
        shuffle: None, the default here, shuffles in `fit` and keeps the order in `predict`; True
            always shuffles. False keeps the files sorted, and validation_split then cuts this order.
        seed: determines the order, and with validation_split the subsets, which are the same as Keras'.
        validation_split: the share of the files that is for validation.
        subset: "training", "validation" or "both".
        interpolation: "bilinear", "nearest", "bicubic", "area", "lanczos3" or "lanczos5" (the last two
            only approximately as in Keras).
        follow_links: whether to follow symbolic links to folders.
        crop_to_aspect_ratio: crop the centre of the image to the ratio of image_size.
        pad_to_aspect_ratio: pad the image with zeros.
        data_format: None or "channels_last".
        format: "tf" or "grain", which makes no difference: a loader is returned, and
            `kl.to_tf_dataset(loader)` makes a tf.data.Dataset of it.
        verbose: log how many files and classes were found.
        **options: of `PathSequenceLoader`; dtype="uint8" instead of float32 is faster.

    Returns:
        A loader with class_names, file_paths and `take(batches)`, or with subset="both" two of them.
        Batches are float32 from 0 to 255; 16-bit images are reduced to 8 bits, as TensorFlow does.

    Raises:
        ValueError: an argument is out of range, or the numbers of files and labels differ.
        NotADirectoryError, FileNotFoundError: the folder does not exist.
    """
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ValueError("crop_to_aspect_ratio and pad_to_aspect_ratio are both set: choose one.")
    channels = channels_of(color_mode)
    check_data_format(data_format)
    check_format(format)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    aspect = "crop" if crop_to_aspect_ratio else "pad" if pad_to_aspect_ratio else "stretch"
    return loaders_of_parts(
        directory,
        labels,
        label_mode,
        class_names,
        batch_size,
        follow_links,
        shuffle,
        seed,
        validation_split,
        subset,
        verbose,
        _SUFFIXES,
        {
            "size": size,
            "channels": channels,
            "interpolation": filter_named(str(interpolation).lower(), _FILTERS),
            "aspect": aspect,
            "dtype": "float32",
            "depth": 8,
            **options,
        },
    )


def loaders_of_parts(
    directory: str | os.PathLike[str],
    labels: Any,
    label_mode: str | None,
    class_names: list[str] | None,
    batch_size: int | None,
    follow_links: bool,
    shuffle: bool | None,
    seed: int | None,
    validation_split: float | None,
    subset: str | None,
    verbose: bool,
    suffixes: tuple[str, ...],
    options: dict[str, Any],
) -> Any:
    """A loader over the files with these suffixes, in Keras' order, with class_names; or two such loaders.

    The arguments are Keras', and are checked here. `suffixes` are the endings of file names, and
    `options` those of the loaders.
    """
    root = os.fspath(directory)
    labels, label_mode = _checked_labels(labels, label_mode)
    _check_part(validation_split, subset, shuffle, seed)
    files, codes, names = _indexed(root, labels, class_names, follow_links, label_mode, suffixes)
    report_found(verbose, len(files), None if names is None else len(names), root)
    if label_mode == "binary" and len(names or ()) != 2:
        raise ValueError(
            f'label_mode="binary" is for two classes, {visible(root)} has {len(names or ())}: '
            f'{listed(names or [])}. Use "int" or "categorical".'
        )
    order = np.arange(len(files))
    if shuffle is not False:
        seed = int(np.random.randint(10**6)) if seed is None else seed
        # Exactly as in Keras, since it decides which files are in which subset.
        np.random.RandomState(seed).shuffle(order)
    cut = len(files) - int((validation_split or 0) * len(files))
    parts = {None: order, "training": order[:cut], "validation": order[cut:]}
    made = []
    for part in ("training", "validation") if subset == "both" else (subset,):
        rows = parts[part]
        if not len(rows):
            raise ValueError(
                f"validation_split={validation_split!r:.80} of {len(files)} files leaves no file for "
                f"the {part} subset: choose another share."
            )
        given = None
        if codes is not None:
            given = codes[rows]
            if label_mode == "binary":
                given = given[:, np.newaxis].astype(np.float32)
        loader = FilesDataset(
            [files[k] for k in rows.tolist()],
            given,
            batch_size,
            shuffle=False if part == "validation" and subset == "both" else shuffle,
            seed=seed,
            **options,
        )
        if label_mode == "categorical":
            loader = one_hot(loader, len(names or ()))
        loader.class_names = names
        made.append(loader)
    return tuple(made) if subset == "both" else made[0]


def _checked_labels(labels: Any, label_mode: Any) -> tuple[Any, Any]:
    """(None, None) if either is None. Raises ValueError for an unknown mode."""
    if labels is None or label_mode is None:
        return None, None
    if label_mode not in ("int", "categorical", "binary"):
        raise ValueError(
            f'label_mode={label_mode!r:.80} is not known: choose "int", "categorical", "binary" or None.'
        )
    return labels, label_mode


def _check_part(validation_split: Any, subset: Any, shuffle: Any, seed: Any) -> None:
    """Raise ValueError if the arguments do not determine a subset."""
    if bool(validation_split) != (subset is not None):
        raise ValueError(
            f"validation_split={validation_split!r:.80} and subset={subset!r:.80}: pass both, or neither."
        )
    if subset not in ("training", "validation", "both", None):
        raise ValueError(f'subset={subset!r:.80}: choose "training", "validation" or "both".')
    if validation_split and not 0 < validation_split < 1:
        raise ValueError(
            f"validation_split={validation_split!r:.80}, expected a share from 0 to 1."
        )
    if validation_split and seed is None and shuffle is not False:
        raise ValueError(
            "validation_split needs seed=, the same number for both subsets; otherwise a file could be "
            "in both. Or pass shuffle=False, which splits the sorted files."
        )


def _indexed(
    root: str,
    labels: Any,
    class_names: list[str] | None,
    follow_links: bool,
    label_mode: str | None,
    suffixes: tuple[str, ...],
) -> tuple[list[str], Array | None, list[str] | None]:
    """-> files in Keras' order, the class of each, and the names of the classes."""
    wanted = frozenset(suffixes)
    codes: Array | None = None
    names: list[str] | None = None
    if isinstance(labels, str) and labels == "inferred":
        names = class_folders(root, class_names)
        groups = [list(files_below(os.path.join(root, n), wanted, follow_links)) for n in names]
        files = [file for group in groups for file in group]
        codes = np.repeat(np.arange(len(names), dtype=np.int32), [len(group) for group in groups])
    else:
        if class_names:
            raise ValueError('class_names is only for labels="inferred": leave it out.')
        files = list(files_below(root, wanted, follow_links))
        if labels is not None:
            codes, names = _given(labels, files, root, label_mode)
    if not files:
        raise ValueError(f"{visible(root)} has no files that end in {' '.join(suffixes)}.")
    return files, codes, names


def _given(
    labels: Any, files: list[str], root: str, label_mode: str | None
) -> tuple[Array, list[str]]:
    """-> the user's labels with the dtype that Keras gives them, and the names of the classes."""
    if isinstance(labels, str):
        raise ValueError(
            f'labels={labels!r:.80}, expected "inferred", None, or one number for each of {len(files)} '
            f"files in {visible(root)}."
        )
    values = np.asarray(labels)
    if values.shape != (len(files),):
        raise ValueError(
            f"labels has shape {values.shape}, expected one number for each of {len(files)} "
            f"files in {visible(root)}."
        )
    names = [str(label) for label in sorted(set(values.tolist()))]
    if values.dtype.kind == "f" and label_mode == "int":
        return values.astype(np.float32), names
    codes = values.astype(np.int32) if values.dtype.kind in "biu" else None
    if codes is None or not np.array_equal(codes, values):
        raise ValueError(
            f"labels has values of {values.dtype} such as {values[0]!r:.40}, but "
            f"label_mode={label_mode!r:.80} takes integers: number the classes from 0."
        )
    if label_mode == "categorical" and (codes.min() < 0 or codes.max() >= len(names)):
        bad = codes[(codes < 0) | (codes >= len(names))][0]
        raise ValueError(
            f'labels contains {bad}, but label_mode="categorical" has a column for each of '
            f"{len(names)} classes: number them from 0."
        )
    return codes, names
