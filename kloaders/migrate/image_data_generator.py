"""Keras' `ImageDataGenerator`, whose `flow` methods give loaders: same files, classes and images.

What differs from Keras on purpose is in docs/migrate.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from kloaders.core.messages import say
from kloaders.loaders.arrays import ArraySequenceLoader
from kloaders.loaders.from_files import one_hot
from kloaders.loaders.paths import PathSequenceLoader
from kloaders.migrate.augmentation_layers import augmentation_layers
from kloaders.migrate.shared import (
    CHANNELS,
    NOT_GIVEN,
    OTHER_PART,
    Array,
    filter_named,
    rows_of_part,
    with_keras_names,
)
from kloaders.migrate.targets import hot_rows, targets_of
from kloaders.sources.folders import class_folders, files_below
from kloaders.sources.tables import Table, listed

__all__ = ["ImageDataGenerator"]

# The suffixes that Keras looks for, in lower case.
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff")
# What Keras calls an interpolation, and what we do.
_FILTERS = {
    name: f"pillow-{name}"
    for name in ("nearest", "bilinear", "bicubic", "lanczos", "hamming", "box")
}
# Options that draw random numbers, with the values that switch them off.
_DRAWING: dict[str, Any] = {
    "rotation_range": 0,
    "width_shift_range": 0.0,
    "height_shift_range": 0.0,
    "brightness_range": None,
    "shear_range": 0.0,
    "zoom_range": [1, 1],
    "channel_shift_range": 0.0,
    "horizontal_flip": False,
    "vertical_flip": False,
}

# Keras adds it to a spread, which may be zero.
_TINY = 1e-6
# Options of Keras' that have no counterpart, and what to do instead.
_WITHOUT = {
    "save_to_dir": "look at a batch, x, y = loader[0], and write it with cv2.imwrite",
    "save_prefix": "it is for save_to_dir",
    "has_ext": "give names with their suffix",
    "drop_duplicates": "call dataframe.drop_duplicates()",
}


class ImageDataGenerator:
    """Keras' ImageDataGenerator, whose `flow` methods give loaders.

    Options, their order and their meaning are Keras'. What normalises pictures (rescale,
    preprocessing_function, featurewise_*, samplewise_*, zca_*) is done by the loaders, with Keras'
    numbers. What draws random numbers (rotation_range, horizontal_flip and so on) is not: `layers`
    gives Keras layers that do it in the model, on the device; or give the flow a `transform=`.

    Raises:
        ValueError: an option is out of range, or data_format="channels_first".

    >>> datagen = ImageDataGenerator(rescale=1 / 255, validation_split=0.25)
    >>> pictures = np.full((8, 4, 4, 3), 255, np.uint8)
    >>> train = datagen.flow(pictures, np.arange(8) % 2, 4, subset="training")
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
        if data_format not in (None, "channels_last"):
            raise ValueError(
                f"data_format={data_format!r}: pictures come with their channels last. Leave it out, "
                "and let keras.layers.Permute((3, 1, 2)) turn them in the model."
            )
        if validation_split and not 0 < validation_split < 1:
            raise ValueError(
                f"validation_split={validation_split!r}, expected a share between 0 and 1."
            )
        if zca_whitening and featurewise_std_normalization:
            say("zca_whitening replaces featurewise_std_normalization.")
            featurewise_std_normalization = False
        self.zca_whitening = zca_whitening
        self.zca_epsilon = zca_epsilon
        self.featurewise_std_normalization = featurewise_std_normalization
        self.featurewise_center = (
            featurewise_center or featurewise_std_normalization or zca_whitening
        )
        self.samplewise_std_normalization = samplewise_std_normalization
        self.samplewise_center = samplewise_center or samplewise_std_normalization
        self.rotation_range = rotation_range
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.brightness_range = brightness_range
        self.shear_range = shear_range
        self.zoom_range = _two(zoom_range, "zoom_range")
        self.channel_shift_range = channel_shift_range
        self.fill_mode = fill_mode
        self.cval = cval
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.rescale = rescale
        self.preprocessing_function = preprocessing_function
        self.validation_split = validation_split
        self.interpolation_order = interpolation_order
        self.dtype = np.dtype(np.float32 if dtype is None else dtype)
        if self.dtype.kind != "f" and (rescale or self._normalises()):
            raise ValueError(
                f"dtype={self.dtype.name!r} cannot hold what rescale and normalisation give: leave "
                "dtype out, for float32."
            )
        #: Of channels, float arrays of shape (1, 1, channels); of pixels (values, values). By `fit`.
        self.mean: Array | None = None
        self.std: Array | None = None
        self.zca_whitening_matrix: Array | None = None

    # ------------------------------------------------------------------ loaders

    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool | None = None,
        sample_weight: Any = None,
        seed: int | None = None,
        *,
        subset: str | None = None,
        ignore_class_split: bool = False,
        transform: Any = NOT_GIVEN,
        **options: Any,
    ) -> ArraySequenceLoader:
        """A loader over arrays.

        Args:
            x: pictures, (samples, height, width, channels); or (pictures, other inputs).
            y: labels, one row a sample; None for none.
            batch_size: samples a batch.
            shuffle: None, the default here, shuffles in `fit` and keeps the order in `predict`.
                True, Keras' default, shuffles always.
            sample_weight: one weight a sample.
            seed: fixes the order.
            subset: "validation": the first validation_split of the rows; "training": the rest.
            ignore_class_split: let both parts have labels that the other one lacks.
            transform: `transform(x, y, rng)` of one sample, before it is normalised; None for none.
                Must be given where the generator has options that draw random numbers.
            **options: of `ArraySequenceLoader`.

        Raises:
            ValueError, TypeError: an argument is out of range, or has no counterpart.
        """
        transform = self._checked(options, transform)
        several = isinstance(x, (list, tuple)) and len(x) == 2 and np.ndim(x[0]) == 4
        parts: list[Any] = [x]
        if several:
            parts = [x[0], *(x[1] if isinstance(x[1], list) else [x[1]])]
        if np.ndim(parts[0]) != 4:
            raise ValueError(
                f"x has shape {np.shape(parts[0])}, expected (samples, height, width, channels)."
            )
        rows = rows_of_part(subset, len(parts[0]), self.validation_split)
        inputs = tuple(np.asarray(part)[rows] for part in parts)
        labels = None if y is None else np.asarray(y)[rows]
        if subset is not None and labels is not None and not ignore_class_split:
            other = rows_of_part(OTHER_PART[subset], len(parts[0]), self.validation_split)
            if not np.array_equal(np.unique(labels), np.unique(np.asarray(y)[other])):
                raise ValueError(
                    "the first rows and the rest have different labels: shuffle x and y before, or "
                    "pass ignore_class_split=True."
                )
        weights = None if sample_weight is None else np.asarray(sample_weight)[rows]
        return ArraySequenceLoader(
            inputs if several else inputs[0],
            labels,
            batch_size,
            shuffle=shuffle,
            seed=seed,
            sample_weights=weights,
            transform=_Steps(self, transform, False),
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
        *,
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        transform: Any = NOT_GIVEN,
        **options: Any,
    ) -> PathSequenceLoader:
        """A loader over a folder that has one folder of files for each class.

        Args:
            directory: holds `class/file`.
            target_size: (height, width).
            color_mode: "rgb", "rgba" or "grayscale".
            classes: the folders to take, in the order of their numbers; None: all, sorted.
            class_mode: "categorical" makes one-hot rows, "binary" and "sparse" numbers (all
                float32), "input" the picture itself; None leaves labels out.
            batch_size: samples a batch.
            shuffle: as for `flow`.
            seed: fixes the order.
            follow_links: look into links to folders.
            subset: "validation": of each class the first validation_split of its files;
                "training": the rest.
            interpolation: "nearest", "bilinear", "bicubic", "lanczos", "hamming" or "box".
            keep_aspect_ratio: cut from the middle of the picture what has the ratio of target_size.
            transform: as for `flow`.
            **options: of `PathSequenceLoader`.

        Returns:
            A loader with Keras' attributes: class_indices (a dict), classes (int32), filenames,
            filepaths, labels, samples, num_classes, class_mode, target_size.

        Raises:
            ValueError, TypeError: an argument is out of range, or has no counterpart.
            NotADirectoryError, FileNotFoundError: no such folder.
        """
        if class_mode not in ("categorical", "binary", "sparse", "input", None):
            raise ValueError(
                f'class_mode={class_mode!r} is not known: choose "categorical", "binary", '
                '"sparse", "input" or None.'
            )
        root = os.fspath(directory)
        names = class_folders(root, classes or None)
        if class_mode == "binary" and len(names) != 2:
            raise ValueError(
                f'class_mode="binary" is for two classes, {root} has {len(names)}: '
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
        say(f"{root}: {len(found):,} pictures of {len(names)} classes.")
        loader = self._over_files(
            found,
            codes,
            class_mode,
            names,
            transform,
            target_size,
            CHANNELS.get(color_mode, color_mode),
            filter_named(interpolation, _FILTERS),
            keep_aspect_ratio,
            {"batch_size": batch_size, "shuffle": shuffle, "seed": seed, **options},
        )
        return with_keras_names(
            loader,
            filenames=[os.path.relpath(file, root) for file in found],
            classes=codes,
            labels=codes,
        )

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
        *,
        subset: str | None = None,
        interpolation: str = "nearest",
        validate_filenames: bool = True,
        keep_aspect_ratio: bool = False,
        transform: Any = NOT_GIVEN,
        **options: Any,
    ) -> PathSequenceLoader:
        """A loader over the files that a table lists.

        Args:
            dataframe: of pandas or polars, a dict of lists, or the path of a CSV file.
            directory: where the paths in `x_col` start.
            x_col: the column of paths.
            y_col: the column of labels; a list of columns for "raw" and "multi_output".
            weight_col: the column of sample weights.
            classes: the texts in `y_col` in the order of their numbers; rows of others are left out.
                None: all, sorted.
            class_mode: as for `flow_from_directory`; of "categorical" a row may have a list of
                classes. "raw" delivers the values of `y_col`, "multi_output" a tuple with an
                array for each of its columns.
            subset: "validation": the first validation_split of the rows; "training": the rest.
            validate_filenames: leave out rows whose file does not exist or is of another kind.
            target_size: (height, width).
            color_mode: "rgb", "rgba" or "grayscale".
            batch_size: samples a batch.
            shuffle: as for `flow`.
            seed: fixes the order.
            interpolation: as for `flow_from_directory`.
            keep_aspect_ratio: as for `flow_from_directory`.
            transform: as for `flow`.
            **options: of `PathSequenceLoader`.

        Returns:
            A loader with Keras' attributes, as that of `flow_from_directory`. class_indices and
            classes are there if class_mode numbers classes; labels is what y_col has for "raw" and
            "multi_output".

        Raises:
            ValueError, TypeError: an argument is out of range, a column is missing or holds
                something else, or an option has no counterpart.
        """
        if class_mode == "other":
            class_mode = "raw"
        table = Table(dataframe)
        given = table.paths(x_col, None)
        base = "" if directory is None else os.fspath(directory)
        kept = list(range(len(given)))
        if validate_filenames:
            kept = [k for k in kept if _is_image(os.path.join(base, given[k]))]
            if len(kept) < len(given):
                say(
                    f"{len(given) - len(kept):,} of {len(given):,} rows are left out: their file in "
                    f"column {x_col!r} does not exist, or its name does not end in "
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
        loader = self._over_files(
            [os.path.join(base, given[k]) for k in rows],
            labels,
            class_mode,
            names,
            transform,
            target_size,
            CHANNELS.get(color_mode, color_mode),
            filter_named(interpolation, _FILTERS),
            keep_aspect_ratio,
            {"batch_size": batch_size, "shuffle": shuffle, "seed": seed, **options},
        )
        return with_keras_names(
            loader,
            filenames=[given[k] for k in rows],
            classes=None if names is None else labels,
            labels=labels,
        )

    # ------------------------------------------------------------------ what becomes of a picture

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Measure mean, spread or ZCA of sample pictures, for featurewise_* and zca_whitening.

        Args:
            x: pictures, (samples, height, width, channels).
            augment: must be False: what draws random numbers is not done here.
            rounds: for augment.
            seed: for augment.

        Raises:
            ValueError: x has another number of axes, or augment is True.
        """
        if augment:
            raise ValueError(
                "augment=True: pictures are not augmented here. Give fit() augmented ones, such as "
                "keras.Sequential(datagen.layers())(x, training=True)."
            )
        del rounds, seed
        values = np.array(x, self.dtype)
        if values.ndim != 4:
            raise ValueError(
                f"x has shape {values.shape}, expected (samples, height, width, channels)."
            )
        if self.rescale:
            values *= self.rescale
        if self.featurewise_center:
            self.mean = values.mean(axis=(0, 1, 2)).reshape(1, 1, -1)
            values -= self.mean
        if self.featurewise_std_normalization:
            self.std = values.std(axis=(0, 1, 2)).reshape(1, 1, -1)
        if self.zca_whitening:
            flat = values.reshape(len(values), -1)
            axes, spread, _ = np.linalg.svd(flat.T, full_matrices=False)
            self.zca_whitening_matrix = (
                axes * (np.sqrt(len(flat)) / (spread + self.zca_epsilon))
            ) @ axes.T

    def standardize(self, x: Array) -> Array:
        """A picture, or several, normalised as the options say: a new array of `dtype`."""
        x = np.array(x, self.dtype)
        if self.preprocessing_function is not None:
            x = self.preprocessing_function(x)
        if self.rescale:
            x = x * self.dtype.type(self.rescale)
        if self.samplewise_center:
            x = x - np.mean(x, keepdims=True)
        if self.samplewise_std_normalization:
            x = x / (np.std(x, keepdims=True) + _TINY)
        if self.mean is not None:
            x = x - self.mean
        if self.std is not None:
            x = x / (self.std + _TINY)
        if self.zca_whitening_matrix is not None:
            flat = x.reshape(-1, int(np.prod(x.shape[-3:])))
            x = (flat @ self.zca_whitening_matrix).reshape(x.shape)
        return np.asarray(x, self.dtype)

    def layers(self, seed: int | None = None) -> list[Any]:
        """Keras layers that draw what the options say, to stand first in a model.

        They work while the model trains, and only then. Values at borders (`cval`) and ranges of
        brightness are those of pictures that come scaled by `rescale`.

        Args:
            seed: fixes what they draw; each gets a number of its own.

        What has no counterpart among Keras' layers is said, with what to write instead. Three are
        about the same: RandomShear keeps the left edge in place, and not the middle; a channel shift
        is cut off at 0 and 255, and not at the picture's own extremes; and a wrapped or reflected
        border is that of the backend.
        """
        return augmentation_layers(self, seed)

    # ------------------------------------------------------------------ inner

    def _drawing(self) -> list[str]:
        """Options that draw random numbers, as the user wrote them."""
        return [
            f"{name}={getattr(self, name)!r}"
            for name, off in _DRAWING.items()
            if getattr(self, name) not in (off, None)
        ]

    def _normalises(self) -> bool:
        return bool(
            self.preprocessing_function is not None
            or self.samplewise_center
            or self.featurewise_center
        )

    def _checked(self, options: dict[str, Any], transform: Any) -> Any:
        """The transform, once all is found to be in order."""
        for name, instead in _WITHOUT.items():
            if options.pop(name, None):
                raise TypeError(f"{name}= has no counterpart here: {instead}.")
        if self.featurewise_center and self.mean is None:
            raise ValueError(
                "featurewise_center, featurewise_std_normalization and zca_whitening need numbers of "
                "the data: call datagen.fit(x) with some pictures first."
            )
        drawing = self._drawing()
        if drawing and transform is NOT_GIVEN:
            raise ValueError(
                f"{', '.join(drawing)}: loaders do not draw this. Put datagen.layers() first in the "
                "model and pass transform=None here; or pass transform=, a function "
                "(x, y, rng) -> (x, y) of one sample. See docs/migrate.md."
            )
        return None if transform is NOT_GIVEN else transform

    def _over_files(
        self,
        files: list[str],
        labels: Any,
        class_mode: str | None,
        names: list[str] | None,
        transform: Any,
        size: tuple[int, int],
        channels: Any,
        interpolation: str,
        crops: bool,
        options: dict[str, Any],
    ) -> PathSequenceLoader:
        transform = self._checked(options, transform)
        if channels not in CHANNELS.values():
            raise ValueError(
                f'color_mode={channels!r} is not known: choose "rgb", "rgba" or "grayscale".'
            )
        given: Any = None
        if class_mode in ("binary", "sparse"):
            given = np.asarray(labels, np.float32)
        elif class_mode == "categorical":
            many = any(isinstance(label, list) for label in labels)
            given = hot_rows(labels, len(names or ())) if many else np.asarray(labels, np.int32)
        elif class_mode == "multi_output":
            given = tuple(labels)
        elif class_mode == "raw":
            given = labels
        steps: dict[str, Any] = {"rescale": self.rescale or None, "dtype": self.dtype}
        if transform is not None or self._normalises() or class_mode == "input":
            steps = {"transform": _Steps(self, transform, class_mode == "input")}
        loader = PathSequenceLoader(
            files,
            given,
            size=size,
            channels=channels,
            # Of whole pictures ours is the same, and needs no Pillow.
            interpolation=interpolation
            if crops
            else interpolation.replace("pillow-nearest", "nearest"),
            aspect="crop" if crops else "stretch",
            **steps,
            **options,
        )
        if class_mode == "categorical" and given is not None and given.ndim == 1:
            loader = one_hot(loader, len(names or ()))
        loader.class_names = names
        found: Any = loader
        found.class_mode, found.target_size = class_mode, tuple(size)
        if names is not None:
            found.num_classes = len(names)
            found.class_indices = {name: k for k, name in enumerate(names)}
        return loader


class _Steps:
    """What becomes of a stored picture: the user's transform, then what a generator normalises."""

    def __init__(self, generator: ImageDataGenerator, transform: Any, twice: bool) -> None:
        self.generator, self.transform, self.twice = generator, transform, twice

    def __call__(self, x: Any, y: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        if self.transform is not None:
            x, y = self.transform(x, y, rng)
        if isinstance(x, tuple):
            return (self.generator.standardize(x[0]), *x[1:]), y
        x = self.generator.standardize(x)
        return x, (x if self.twice else y)


def _two(value: Any, name: str) -> list[float]:
    """A range as two numbers; one number is what goes off 1 on either side."""
    if isinstance(value, (int, float)):
        return [1 - value, 1 + value]
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return [value[0], value[1]]
    raise ValueError(f"{name}={value!r}, expected a number or two of them.")


def _is_image(path: str) -> bool:
    return path.lower().endswith(_SUFFIXES) and os.path.isfile(path)
