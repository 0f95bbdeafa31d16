"""A drop-in for Keras' `ImageDataGenerator`, whose `flow` methods return loaders: same files, classes, images.

docs/migrate.md lists the intentional differences from Keras.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import visible, warn
from kloaders.migrate.augmentation_layers import augmentation_layers, drawing_options
from kloaders.migrate.flows import ArrayFlow, FileFlow
from kloaders.migrate.image_files import ImageFiles
from kloaders.migrate.shared import (
    NOT_GIVEN,
    OTHER_PART,
    check_data_format,
    keras_setting,
    report_found,
    rows_of_part,
)
from kloaders.migrate.standardization import Standardizer, StandardizingTransform
from kloaders.migrate.targets import targets_of
from kloaders.sources.folders import class_folders, files_below
from kloaders.sources.tables import Table, listed

__all__ = ["ImageDataGenerator"]

# The suffixes that Keras looks for, in lower case.
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff")
# Methods of Keras' class that draw random numbers for one image.
_RANDOM_METHODS = ("apply_transform", "get_random_transform", "random_transform")


class ImageDataGenerator(Standardizer):
    """Keras' ImageDataGenerator, whose `flow` methods return loaders.

    Options, their order and their meaning are Keras'. Loaders apply the options that normalise images
    (rescale, preprocessing_function, featurewise_*, samplewise_*, zca_*), with the same results as
    Keras. They do not apply the options that draw random numbers (rotation_range, horizontal_flip and
    so on): `layers` returns Keras layers that do that in the model, on the device; or pass `transform=`
    to the flow method.

    Raises:
        ValueError: an option is out of range, or images are channels-first.

    >>> datagen = ImageDataGenerator(rescale=1 / 255, validation_split=0.25)
    >>> images = np.full((8, 4, 4, 3), 255, np.uint8)
    >>> train = datagen.flow(images, np.arange(8) % 2, 4, subset="training")
    >>> x, y = train[0]
    >>> train.samples, y, x.dtype, float(x.max())
    (6, array([0, 1, 0, 1]), dtype('float32'), 1.0)
    """

    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: Any = 0.0,
        height_shift_range: Any = 0.0,
        brightness_range: Any = None,
        shear_range: float = 0.0,
        zoom_range: Any = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[Array], Array] | None = None,
        data_format: str | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: Any = None,
    ) -> None:
        check_data_format(data_format)
        if validation_split and not 0 < validation_split < 1:
            raise ValueError(
                f"validation_split={validation_split!r:.80}, expected a share between 0 and 1."
            )
        super().__init__(
            featurewise_center=featurewise_center,
            samplewise_center=samplewise_center,
            featurewise_std_normalization=featurewise_std_normalization,
            samplewise_std_normalization=samplewise_std_normalization,
            zca_whitening=zca_whitening,
            zca_epsilon=zca_epsilon,
            rescale=rescale,
            preprocessing_function=preprocessing_function,
            dtype=np.dtype(keras_setting("floatx") if dtype is None else dtype),
        )
        self.rotation_range = rotation_range
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.brightness_range = (
            None if brightness_range is None else _two(brightness_range, "brightness_range")
        )
        self.shear_range = shear_range
        self.zoom_range = (
            [1 - zoom_range, 1 + zoom_range]
            if isinstance(zoom_range, (int, float))
            else _two(zoom_range, "zoom_range", "a number or ")
        )
        self.channel_shift_range = channel_shift_range
        self.fill_mode = fill_mode
        self.cval = cval
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.data_format = "channels_last"
        self.row_axis, self.col_axis, self.channel_axis = 1, 2, 3
        self.validation_split = validation_split
        self.interpolation_order = interpolation_order

    def __getattr__(self, name: str) -> Any:
        more = ""
        if name in _RANDOM_METHODS:
            more = (
                ": loaders do not draw random transforms. datagen.layers() returns Keras layers that do. "
                "To use Keras' own class in transform=, see docs/migrate.md."
            )
        raise AttributeError(f"ImageDataGenerator has no attribute {name}{more}")

    # ------------------------------------------------------------------ loaders

    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool | None = None,
        sample_weight: Any = None,
        seed: int | None = None,
        save_to_dir: None = None,
        save_prefix: str = "",
        save_format: str = "png",
        ignore_class_split: bool = False,
        subset: str | None = None,
        *,
        transform: Any = NOT_GIVEN,
        **options: Any,
    ) -> ArrayFlow:
        """A loader over arrays.

        Args:
            x: images, (samples, height, width, channels); or (images, other inputs).
            y: labels, one row for each sample, or None.
            batch_size: samples per batch.
            shuffle: None, the default here, shuffles in `fit` and keeps the order in `predict`.
                True, Keras' default, shuffles always.
            sample_weight: one weight per sample.
            seed: determines the order.
            save_to_dir: must be None.
            save_prefix: for save_to_dir.
            save_format: for save_to_dir.
            ignore_class_split: allow each subset to have labels that the other lacks.
            subset: "validation": the first validation_split of the rows; "training": the rest.
            transform: `transform(x, y, rng)` for one sample, before it is normalised; or None. Required
                if the generator has options that draw random numbers.
            **options: of `ArraySequenceLoader`.

        Returns:
            A loader with Keras' attributes: n, sample_weight, data_format, image_data_generator.

        Raises:
            ValueError, TypeError: an argument is out of range, or not supported.
        """
        transform = self._checked_transform(transform, save_to_dir)
        several = isinstance(x, (list, tuple)) and len(x) == 2 and np.ndim(x[0]) == 4
        parts: list[Any] = [x]
        if several:
            parts = [x[0], *(x[1] if isinstance(x[1], list) else [x[1]])]
        if np.ndim(parts[0]) != 4:
            raise ValueError(
                f"x has shape {np.shape(parts[0])}, expected (samples, height, width, channels)."
            )
        whole = len(parts[0])
        given = {"another input in x": parts[1:], "y": [y], "sample_weight": [sample_weight]}
        for name, arrays in given.items():
            for array in arrays:
                if array is not None and len(array) != whole:
                    raise ValueError(
                        f"lengths differ: {name} has {len(array)} rows, but there are {whole} images. "
                        "Every image needs one row."
                    )
        rows = rows_of_part(subset, whole, self.validation_split)
        inputs = tuple(np.asarray(part)[rows] for part in parts)
        labels = None if y is None else np.asarray(y)[rows]
        if subset is not None and labels is not None and not ignore_class_split:
            other = rows_of_part(OTHER_PART[subset], whole, self.validation_split)
            if not np.array_equal(np.unique(labels), np.unique(np.asarray(y)[other])):
                raise ValueError(
                    "the training and the validation subset have different labels: shuffle x and y "
                    "first, or pass ignore_class_split=True."
                )
        weights = None if sample_weight is None else np.asarray(sample_weight)[rows]
        return ArrayFlow(
            inputs if several else inputs[0],
            labels,
            batch_size,
            keras={"image_data_generator": self, "data_format": self.data_format},
            shuffle=shuffle,
            seed=seed,
            sample_weights=weights,
            transform=StandardizingTransform(self, transform, self.dtype, False),
            **options,
        )

    def flow_from_directory(
        self,
        directory: str | os.PathLike[str],
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: list[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool | None = None,
        seed: int | None = None,
        save_to_dir: None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        *,
        transform: Any = NOT_GIVEN,
        **options: Any,
    ) -> FileFlow:
        """A loader over a folder that has one folder of files for each class.

        Args:
            directory: contains `class/file`.
            target_size: (height, width).
            color_mode: "rgb", "rgba" or "grayscale".
            classes: the folders to use, in the order of their numbers; None for all, sorted.
            class_mode: "categorical" makes one-hot rows, "binary" and "sparse" make numbers (all with
                the generator's dtype), "input" uses the image itself as label; None makes no labels.
            batch_size: samples per batch.
            shuffle: as for `flow`.
            seed: determines the order.
            save_to_dir: must be None.
            save_prefix: for save_to_dir.
            save_format: for save_to_dir.
            follow_links: whether to follow symbolic links to folders.
            subset: "validation": the first validation_split of the files of each class;
                "training": the rest.
            interpolation: "nearest", "bilinear", "bicubic", "lanczos", "hamming" or "box".
            keep_aspect_ratio: crop the centre of the image to the ratio of target_size.
            transform: as for `flow`.
            **options: of `PathSequenceLoader`.

        Returns:
            A loader with Keras' attributes: class_indices (a dict), classes (int32), filenames,
            filepaths, labels, samples, n, num_classes, class_mode, color_mode, directory,
            target_size, image_shape.

        Raises:
            ValueError, TypeError: an argument is out of range, or not supported.
            NotADirectoryError, FileNotFoundError: the folder does not exist.
        """
        if class_mode not in ("categorical", "binary", "sparse", "input", None):
            raise ValueError(
                f'class_mode={class_mode!r:.80} is not known: choose "categorical", "binary", '
                '"sparse", "input" or None.'
            )
        transform = self._checked_transform(transform, save_to_dir)
        images = ImageFiles(target_size, color_mode, interpolation, keep_aspect_ratio)
        root = os.fspath(directory)
        names = class_folders(root, classes or None)
        if class_mode == "binary" and len(names) != 2:
            raise ValueError(
                f'class_mode="binary" is for two classes, {visible(root)} has {len(names)}: '
                f'{listed(names)}. Use "categorical" or "sparse".'
            )
        found, counts = [], []
        wanted = frozenset(_SUFFIXES)
        for name in names:
            files = list(files_below(os.path.join(root, name), wanted, follow_links))
            files = files[rows_of_part(subset, len(files), self.validation_split)]
            found += files
            counts.append(len(files))
        codes = np.repeat(np.arange(len(names), dtype=np.int32), counts)
        report_found(True, len(found), len(names), root)
        if not found:
            part = "" if subset is None else f" for subset={subset!r:.80}"
            raise ValueError(
                f"{visible(root)} has no files{part} that end in {' '.join(_SUFFIXES)} in its folders "
                f"{listed(names)}."
            )
        attributes = {
            "directory": root,
            "filenames": [os.path.relpath(file, root) for file in found],
            "classes": codes,
            "labels": codes,
            "subset": subset,
        }
        chosen = {"batch_size": batch_size, "shuffle": shuffle, "seed": seed, **options}
        return images.flow(self, found, codes, class_mode, names, transform, attributes, chosen)

    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: str | os.PathLike[str] | None = None,
        x_col: str = "filename",
        y_col: str | list[str] = "class",
        weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: list[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool | None = None,
        seed: int | None = None,
        save_to_dir: None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        validate_filenames: bool = True,
        *,
        keep_aspect_ratio: bool = False,
        transform: Any = NOT_GIVEN,
        **options: Any,
    ) -> FileFlow:
        """A loader over the files that a table lists.

        Args:
            dataframe: a DataFrame of pandas or polars, a dict of lists, or the path of a CSV file.
            directory: the folder that the paths in `x_col` are relative to.
            x_col: the column of paths.
            y_col: the column of labels; a list of columns for "raw" and "multi_output".
            weight_col: the column of sample weights.
            target_size: (height, width).
            color_mode: "rgb", "rgba" or "grayscale".
            classes: the texts in `y_col`, in the order of their numbers; rows with other texts are left
                out. None for all, sorted.
            class_mode: as for `flow_from_directory`; with "categorical" a row may have a list of
                classes. "raw" delivers the values of `y_col` in their dtype, "multi_output" a tuple
                with an array for each of its columns.
            batch_size: samples per batch.
            shuffle: as for `flow`.
            seed: determines the order.
            save_to_dir: must be None.
            save_prefix: for save_to_dir.
            save_format: for save_to_dir.
            subset: "validation": the first validation_split of the rows; "training": the rest.
            interpolation: as for `flow_from_directory`.
            validate_filenames: leave out rows whose file does not exist or has another suffix.
            keep_aspect_ratio: as for `flow_from_directory`.
            transform: as for `flow`.
            **options: of `PathSequenceLoader`.

        Returns:
            A loader with Keras' attributes, as from `flow_from_directory`. It has class_indices and
            classes if class_mode numbers classes; with "raw" and "multi_output" labels has the values
            of y_col.

        Raises:
            ValueError, TypeError: an argument is out of range, a column is missing or has other
                values, or an option is not supported.
        """
        for name, instead in _IGNORED.items():
            if name in options:
                warn(f"{name}={options.pop(name)!r:.80} has no effect, as in Keras: {instead}.")
        if class_mode == "other":
            class_mode = "raw"
        transform = self._checked_transform(transform, save_to_dir)
        images = ImageFiles(target_size, color_mode, interpolation, keep_aspect_ratio)
        table = Table(dataframe)
        given = table.paths(x_col, None)
        base = "" if directory is None else os.fspath(directory)
        kept = list(range(len(given)))
        if validate_filenames:
            kept = [k for k in kept if _is_image(os.path.join(base, given[k]))]
            if len(kept) < len(given):
                warn(
                    f"{len(given) - len(kept):,} of {len(given):,} rows are left out: the file in "
                    f"column {x_col!r:.80} does not exist, or its name does not end in "
                    f"{' '.join(_SUFFIXES)}."
                )
        else:
            options = {"check_paths": False, **options}
        kept, labels, names = targets_of(table, y_col, class_mode, classes, kept)
        part = rows_of_part(subset, len(kept), self.validation_split)
        rows = kept[part]
        if class_mode == "multi_output":
            labels = [values[part] for values in labels]
        elif labels is not None:
            labels = labels[part]
        if weight_col is not None and class_mode is not None:
            options["sample_weights"] = table.numbers(weight_col)[rows]
        report_found(True, len(rows), None if names is None else len(names), base or os.getcwd())
        attributes = {
            "directory": base,
            "filenames": [given[k] for k in rows],
            "subset": subset,
            **({} if names is None else {"classes": labels}),
            **({} if labels is None else {"labels": labels}),
        }
        files = [os.path.join(base, given[k]) for k in rows]
        chosen = {"batch_size": batch_size, "shuffle": shuffle, "seed": seed, **options}
        return images.flow(self, files, labels, class_mode, names, transform, attributes, chosen)

    def layers(self, seed: int | None = None) -> list[Any]:
        """Keras layers for the options that draw random numbers, to be the first layers of a model.

        The layers are active in training only. Border values (`cval`) and brightness ranges apply to
        images that are already scaled by `rescale`.

        Args:
            seed: determines their random numbers; each layer gets its own seed.

        An option for which Keras has no layer is logged, with code that does the same. Three are only
        approximately the same: RandomShear keeps the left edge in place instead of the centre; a channel
        shift is clipped to 0 and 255 instead of the image's own minimum and maximum; and the backend
        determines wrapped and reflected borders.
        """
        return augmentation_layers(self, seed)

    def _checked_transform(self, transform: Any, save_to_dir: Any) -> Any:
        """The transform. Raises an error for an option that would silently be ignored."""
        if save_to_dir is not None:
            raise TypeError(
                "save_to_dir= is not supported: get a batch with x, y = loader[0], and save its images "
                "with keras.utils.save_img."
            )
        self.check_fitted()
        drawing = drawing_options(self)
        if drawing and transform is NOT_GIVEN:
            raise ValueError(
                f"{', '.join(drawing)}: loaders do not apply options that draw random numbers. Put "
                "datagen.layers() first in the model and pass transform=None here; or pass transform=, "
                "a function (x, y, rng) -> (x, y) for one sample. See docs/migrate.md."
            )
        return None if transform is NOT_GIVEN else transform


# Arguments that Keras accepts with a warning and ignores.
_IGNORED = {
    "has_ext": "file names must include their suffix",
    "sort": "without shuffle=True, samples are in the order of the table",
    "drop_duplicates": "call dataframe.drop_duplicates() instead",
}


def _two(value: Any, name: str, otherwise: str = "") -> list[float]:
    """A range, as a list of two numbers."""
    if (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(v, (int, float)) for v in value)
    ):
        return [value[0], value[1]]
    raise ValueError(
        f"{name}={value!r:.80}, expected {otherwise}two numbers, as in {name}=(0.8, 1.2)."
    )


def _is_image(path: str) -> bool:
    return path.lower().endswith(_SUFFIXES) and os.path.isfile(path)
