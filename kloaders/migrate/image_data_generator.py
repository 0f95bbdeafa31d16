"""The calls of Keras' own image loaders, for loaders of ours: same files, classes and pictures.

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
from kloaders.sources.folders import class_folders, files_below
from kloaders.sources.tables import Table, listed

__all__ = ["ImageDataGenerator", "image_dataset_from_directory"]

Array = np.ndarray[Any, Any]

# The suffixes that the two look for, in lower case.
_GENERATOR_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff")
_DATASET_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
_CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}
# What Keras calls an interpolation, and what we do.
_GENERATOR_FILTERS = {
    name: f"pillow-{name}"
    for name in ("nearest", "bilinear", "bicubic", "lanczos", "hamming", "box")
}
_DATASET_FILTERS = {
    "bilinear": "bilinear",
    "nearest": "nearest",
    "bicubic": "bicubic",
    "area": "area",
    "lanczos3": "lanczos",
    "lanczos5": "lanczos",
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

_OTHER = {"training": "validation", "validation": "training"}
# Keras adds it to a spread, which may be zero.
_TINY = 1e-6
# Options of Keras' that have no counterpart, and what to do instead.
_WITHOUT = {
    "save_to_dir": "look at a batch, x, y = loader[0], and write it with cv2.imwrite",
    "save_prefix": "it is for save_to_dir",
    "has_ext": "give names with their suffix",
    "drop_duplicates": "call dataframe.drop_duplicates()",
}

# transform= was not given, not even None.
_UNSAID: Any = object()


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
        transform: Any = _UNSAID,
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
        rows = _rows(subset, len(parts[0]), self.validation_split)
        inputs = tuple(np.asarray(part)[rows] for part in parts)
        labels = None if y is None else np.asarray(y)[rows]
        if subset is not None and labels is not None and not ignore_class_split:
            other = _rows(_OTHER[subset], len(parts[0]), self.validation_split)
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
        transform: Any = _UNSAID,
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
        wanted = frozenset(_GENERATOR_SUFFIXES)
        for name in names:
            files = list(files_below(os.path.join(root, name), wanted, follow_links))
            files = files[_rows(subset, len(files), self.validation_split)]
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
            _CHANNELS.get(color_mode, color_mode),
            _filter(interpolation, _GENERATOR_FILTERS),
            keep_aspect_ratio,
            {"batch_size": batch_size, "shuffle": shuffle, "seed": seed, **options},
        )
        return _with(
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
        transform: Any = _UNSAID,
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
            kept = [k for k in kept if _is_picture(os.path.join(base, given[k]))]
            if len(kept) < len(given):
                say(
                    f"{len(given) - len(kept):,} of {len(given):,} rows are left out: their file in "
                    f"column {x_col!r} does not exist, or its name does not end in "
                    f"{' '.join(_GENERATOR_SUFFIXES)}."
                )
        else:
            options = {"check_paths": False, **options}
        kept, labels, names = _targets(table, y_col, class_mode, classes, kept)
        part = _rows(subset, len(kept), self.validation_split)
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
            _CHANNELS.get(color_mode, color_mode),
            _filter(interpolation, _GENERATOR_FILTERS),
            keep_aspect_ratio,
            {"batch_size": batch_size, "shuffle": shuffle, "seed": seed, **options},
        )
        return _with(
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
        import keras

        scale = self.rescale or 1.0
        order = "nearest" if self.interpolation_order == 0 else "bilinear"
        border = {
            "fill_mode": self.fill_mode,
            "fill_value": self.cval * scale,
            "interpolation": order,
        }
        missing = []
        wanted: list[tuple[str, dict[str, Any]]] = []
        if self.rotation_range:
            wanted.append(("RandomRotation", {"factor": self.rotation_range / 360, **border}))
        shifts = {}
        for name in ("height", "width"):
            shift = getattr(self, f"{name}_shift_range")
            if np.ndim(shift) == 0 and 0 <= shift < 1:
                shifts[f"{name}_factor"] = float(shift)
            else:
                missing.append(
                    f"{name}_shift_range={shift!r} is in pixels: RandomTranslation takes shares of "
                    f"the {name}"
                )
        if any(shifts.values()):
            wanted.append(
                (
                    "RandomTranslation",
                    {"height_factor": 0.0, "width_factor": 0.0, **shifts, **border},
                )
            )
        if self.shear_range:
            slant = float(np.sin(np.deg2rad(self.shear_range)))
            wanted.append(("RandomShear", {"x_factor": 0.0, "y_factor": slant, **border}))
        if list(self.zoom_range) != [1, 1]:
            factor = (self.zoom_range[0] - 1, self.zoom_range[1] - 1)
            wanted.append(
                ("RandomZoom", {"height_factor": factor, "width_factor": factor, **border})
            )
        if self.channel_shift_range:
            share = self.channel_shift_range / 255
            wanted.append(("RandomBrightness", {"factor": share, "value_range": (0, 255 * scale)}))
        flips = {"horizontal": self.horizontal_flip, "vertical": self.vertical_flip}
        if any(flips.values()):
            mode = "_and_".join(name for name, flip in flips.items() if flip)
            wanted.append(("RandomFlip", {"mode": mode}))
        if self.brightness_range is not None:
            low, high = self.brightness_range
            missing.append(
                f"brightness_range multiplies, and RandomBrightness adds: transform=lambda x, y, rng: "
                f"(np.clip(x * rng.uniform({low}, {high}), 0, 255).astype(x.dtype), y)"
            )
        made = []
        for k, (name, arguments) in enumerate(wanted):
            kind = getattr(keras.layers, name, None)
            if kind is None:
                missing.append(f"keras {keras.__version__} has no {name}: upgrade it")
            else:
                made.append(kind(**arguments, seed=None if seed is None else seed + k))
        for text in missing:
            say(f"no layer: {text}.")
        return made

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
        if drawing and transform is _UNSAID:
            raise ValueError(
                f"{', '.join(drawing)}: loaders do not draw this. Put datagen.layers() first in the "
                "model and pass transform=None here; or pass transform=, a function "
                "(x, y, rng) -> (x, y) of one sample. See docs/migrate.md."
            )
        return None if transform is _UNSAID else transform

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
        if channels not in _CHANNELS.values():
            raise ValueError(
                f'color_mode={channels!r} is not known: choose "rgb", "rgba" or "grayscale".'
            )
        given: Any = None
        if class_mode in ("binary", "sparse"):
            given = np.asarray(labels, np.float32)
        elif class_mode == "categorical":
            many = any(isinstance(label, list) for label in labels)
            given = _hot(labels, len(names or ())) if many else np.asarray(labels, np.int32)
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
    if color_mode not in _CHANNELS:
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
            channels=_CHANNELS[color_mode],
            interpolation=_filter(interpolation, _DATASET_FILTERS),
            aspect=aspect,
            shuffle=False if part == "validation" and subset == "both" else shuffle,
            seed=seed,
            **{"dtype": "float32", **options},
        )
        if label_mode == "categorical":
            loader = one_hot(loader, len(names or ()))
        loader.class_names = names
        made.append(_with(loader, file_paths=list(loader.paths)))
    return tuple(made) if subset == "both" else made[0]


def _indexed(
    root: str, labels: Any, class_names: list[str] | None, follow_links: bool
) -> tuple[list[str], Array | None, list[str] | None]:
    """Files in Keras' order, the class of each, and what classes are called."""
    wanted = frozenset(_DATASET_SUFFIXES)
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
        raise ValueError(f"{root} has no files that end in {' '.join(_DATASET_SUFFIXES)}.")
    return files, codes, names


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


def _rows(subset: str | None, count: int, share: float) -> slice:
    """Which of so many rows are a part, as Keras cuts: the first ones validate."""
    if subset is None:
        return slice(None)
    if subset not in _OTHER:
        raise ValueError(f'subset={subset!r} is not known: choose "training" or "validation".')
    if not share:
        raise ValueError(
            f"subset={subset!r} needs a share: ImageDataGenerator(validation_split=0.2)."
        )
    cut = int(share * count)
    return slice(0, cut) if subset == "validation" else slice(cut, None)


def _filter(name: str, known: dict[str, str]) -> str:
    if name not in known:
        raise ValueError(
            f"interpolation={name!r} has no counterpart here: choose one of {', '.join(known)}."
        )
    return known[name]


def _is_picture(path: str) -> bool:
    return path.lower().endswith(_GENERATOR_SUFFIXES) and os.path.isfile(path)


def _targets(
    table: Table, y_col: Any, class_mode: str | None, classes: list[str] | None, kept: list[int]
) -> tuple[list[int], Any, list[str] | None]:
    """Rows that stay, their labels (an array, or one for each output), and the names of classes."""
    if class_mode in ("input", None):
        return kept, None, None
    if class_mode == "multi_output":
        if not isinstance(y_col, (list, tuple)):
            raise TypeError(f'class_mode="multi_output" needs y_col=[...], got {y_col!r}.')
        return kept, [np.asarray(table.column(c)[kept].tolist()) for c in y_col], None
    if class_mode == "raw":
        several = isinstance(y_col, (list, tuple))
        columns = [table.numbers(column)[kept] for column in (y_col if several else [y_col])]
        return kept, np.stack(columns, axis=1) if several else columns[0], None
    if class_mode not in ("categorical", "binary", "sparse"):
        raise ValueError(
            f'class_mode={class_mode!r} is not known: choose "categorical", "binary", "sparse", '
            '"input", "raw", "multi_output" or None.'
        )
    kinds = (str, list, tuple) if class_mode == "categorical" else str
    found = table.column(y_col).tolist()
    bad = next((k for k, label in enumerate(found) if not isinstance(label, kinds)), None)
    if bad is not None:
        raise TypeError(
            f"row {bad} of column {y_col!r} holds {found[bad]!r}, and class_mode={class_mode!r} "
            'numbers texts: dataframe[column].astype(str), or class_mode="raw" for numbers.'
        )
    lists = [[label] if isinstance(label, str) else list(label) for label in found]
    names = list(dict.fromkeys(classes)) if classes else sorted({n for k in kept for n in lists[k]})
    numbers = {name: k for k, name in enumerate(names)}
    if class_mode == "binary" and len(names) != 2:
        raise ValueError(
            f'class_mode="binary" is for two classes, column {y_col!r} has {len(names)}: '
            f'{listed(names)}. Use "categorical" or "sparse".'
        )
    kept = [k for k in kept if any(name in numbers for name in lists[k])]
    codes = [[numbers[name] for name in lists[k] if name in numbers] for k in kept]
    labels = [
        c if isinstance(found[k], (list, tuple)) else c[0] for k, c in zip(kept, codes, strict=True)
    ]
    return kept, labels, names


def _hot(labels: list[Any], classes: int) -> Array:
    """Rows with a one for each class that a sample has."""
    rows = np.zeros((len(labels), classes), np.float32)
    for row, label in zip(rows, labels, strict=True):
        row[label] = 1
    return rows


def _with(loader: PathSequenceLoader, **attributes: Any) -> PathSequenceLoader:
    """The loader, with the names that Keras' own have."""
    found: Any = loader
    for name, value in attributes.items():
        if value is not None:
            setattr(found, name, value)
    if "filenames" in attributes:
        found.filepaths = list(loader.paths)
    return loader
