"""A drop-in for Keras' `text_dataset_from_directory`: same files, classes, subsets and texts."""

from __future__ import annotations

import os
from typing import Any

from kloaders.formats.texts import Text
from kloaders.migrate.datasets import check_format
from kloaders.migrate.directory import loaders_of_parts

__all__ = ["text_dataset_from_directory"]


def text_dataset_from_directory(
    directory: str | os.PathLike[str],
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: list[str] | None = None,
    batch_size: int | None = 32,
    max_length: int | None = None,
    shuffle: bool | None = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    follow_links: bool = False,
    format: str = "tf",  # noqa: A002  (Keras' name)
    verbose: bool = True,
    **options: Any,
) -> Any:
    """Loaders over the .txt files that `keras.utils.text_dataset_from_directory` finds, in its order.

    Args:
        directory: contains `class/file.txt`; without labels, or with your own labels, any .txt files.
        labels: "inferred", None, or one number for each file in sorted order.
        label_mode: "int" (int32), "categorical", "binary" (float32), or None for no labels.
        class_names: the folders to take, in the order of their numbers.
        batch_size: samples per batch. None: `for` gives single samples, and `fit` has batches of one.
        max_length: maximum number of characters (in Keras: bytes) of a text; longer texts are cut.
        shuffle: True shuffles all files in each epoch (Keras shuffles in a buffer); None and False mean
            the same as in any loader.
        seed: determines the order and the subsets.
        validation_split: the share of the files that is for validation.
        subset: "training", "validation" or "both".
        follow_links: whether to follow symbolic links to folders.
        format: "tf" or "grain", which makes no difference: a loader is returned, and
            `kl.to_tf_dataset(loader)` makes a tf.data.Dataset of it.
        verbose: log how many files were found.
        **options: of `PathSequenceLoader`, such as batch_transform or workers.

    Returns:
        A loader with class_names, file_paths and `take(batches)`, or with subset="both" two of them. x
        is an array of str; in `fit` on TensorFlow it is a tensor of strings. On other backends convert
        it to numbers with `batch_transform=kl.keras_transform(layer)`.

    Raises:
        ValueError: an argument is out of range, or the numbers of files and labels differ.
        NotADirectoryError, FileNotFoundError: the folder does not exist.
    """
    check_format(format)
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
        (".txt",),
        {"decode": Text(max_length=max_length), **options},
    )
