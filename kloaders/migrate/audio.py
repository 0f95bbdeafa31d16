"""Keras' `audio_dataset_from_directory`, as a loader: same files, classes, parts and sounds."""

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
        directory: holds `class/file.wav`; without labels, or with labels of your own, any files.
        labels: "inferred", None, or one number for each file in sorted order.
        label_mode: "int" (int32), "categorical", "binary" (float32), or None for no labels.
        class_names: the folders to take, in the order of their numbers.
        batch_size: samples per batch. None: `for` gives single samples, and `fit` has batches of one.
        sampling_rate: frames a second to resample to. None: as stored. (Keras needs tensorflow-io.)
        output_sequence_length: frames of each sound; longer ones are cut, shorter ones filled up with
            zeros. None: as stored, and those of a batch are filled up to its longest.
        ragged: not here; see `output_sequence_length`.
        shuffle: True shuffles all files in each epoch, where Keras has a buffer; None and False as
            for any loader.
        seed: fixes the order and the parts.
        validation_split: the share of the files of the validation part.
        subset: "training", "validation" or "both".
        follow_links: look into links to folders.
        verbose: log how many files were found.
        **options: of `PathSequenceLoader`, such as transform, workers or cache.

    Returns:
        A loader with class_names, file_paths and `take(batches)`, or with subset="both" two of them.
        Batches are float32 of shape (samples, frames, channels), from -1 to 1.

    Raises:
        ValueError: an argument is out of range, or files and labels differ in number.
        NotADirectoryError, FileNotFoundError: the folder does not exist.
    """
    if ragged:
        raise ValueError(
            "ragged=True has no counterpart here: leave it out, and the sounds of a batch are filled up "
            "to its longest; or pass output_sequence_length=."
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
