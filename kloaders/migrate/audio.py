"""A drop-in for Keras' `audio_dataset_from_directory`: same files, classes, subsets and sounds."""

from __future__ import annotations

import os
from typing import Any

from kloaders.core.checks import checked_count
from kloaders.formats.audio import Audio
from kloaders.loaders.padding import padded_batches
from kloaders.migrate.directory import loaders_of_parts

__all__ = ["audio_dataset_from_directory"]


def audio_dataset_from_directory(
    directory: str | os.PathLike[str],
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: list[str] | None = None,
    batch_size: int | None = 32,
    sampling_rate: int | None = None,
    output_sequence_length: int | None = None,
    ragged: bool = False,
    shuffle: bool | None = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    follow_links: bool = False,
    verbose: bool = True,
    **options: Any,
) -> Any:
    """Loaders over the .wav files that `keras.utils.audio_dataset_from_directory` finds, in its order.

    Args:
        directory: contains `class/file.wav`; without labels, or with your own labels, any .wav files.
        labels: "inferred", None, or one number for each file in sorted order.
        label_mode: "int" (int32), "categorical", "binary" (float32), or None for no labels.
        class_names: the folders to take, in the order of their numbers.
        batch_size: samples per batch. None: `for` gives single samples, and `fit` has batches of one.
        sampling_rate: frames per second to resample to. None: as stored. (Keras needs tensorflow-io.)
        output_sequence_length: frames of each sound; longer ones are cut, shorter ones are padded with
            zeros. None: as stored, and the sounds of a batch are padded to its longest.
        ragged: must be False; see `output_sequence_length`.
        shuffle: True shuffles all files in each epoch (Keras shuffles in a buffer); None and False mean
            the same as in any loader.
        seed: determines the order and the subsets.
        validation_split: the share of the files that is for validation.
        subset: "training", "validation" or "both".
        follow_links: whether to follow symbolic links to folders.
        verbose: log how many files were found.
        **options: of `PathSequenceLoader`, such as transform, workers or cache.

    Returns:
        A loader with class_names, file_paths and `take(batches)`, or with subset="both" two of them.
        Batches are float32 of shape (samples, frames, channels), from -1 to 1.

    Raises:
        ValueError: an argument is out of range, or the numbers of files and labels differ.
        NotADirectoryError, FileNotFoundError: the folder does not exist.
    """
    if ragged:
        raise ValueError(
            "ragged=True is not supported: leave it out, and the sounds of a batch are padded to its "
            "longest; or pass output_sequence_length=."
        )
    for name, value in {
        "sampling_rate": sampling_rate,
        "output_sequence_length": output_sequence_length,
    }.items():
        if value is not None:
            checked_count(value, name, 1)
    decode = Audio(sampling_rate, length=output_sequence_length)
    made = loaders_of_parts(
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
        (".wav",),
        {"decode": decode, **options},
    )
    if output_sequence_length is not None:
        return made
    return tuple(map(padded_batches, made)) if isinstance(made, tuple) else padded_batches(made)
