"""Makes loaders over image files, with the pixels and labels of Keras' iterators."""

from __future__ import annotations

from typing import Any

import numpy as np

from kloaders.loaders.from_files import one_hot
from kloaders.migrate.flows import FileFlow
from kloaders.migrate.shared import channels_of, filter_named, keras_setting
from kloaders.migrate.standardization import Standardizer, StandardizingTransform
from kloaders.migrate.targets import hot_rows

__all__ = ["ImageFiles"]

# Keras' names of interpolations, and ours.
_FILTERS = {
    name: f"pillow-{name}"
    for name in ("nearest", "bilinear", "bicubic", "lanczos", "hamming", "box")
}


class ImageFiles:
    """The checked arguments of Keras' iterators that determine how files are decoded.

    Raises:
        ValueError: the value of an argument is unknown.
    """

    def __init__(
        self, target_size: Any, color_mode: Any, interpolation: Any, keep_aspect_ratio: bool
    ) -> None:
        channels = channels_of(color_mode)
        name = filter_named(interpolation, _FILTERS)
        self.options = {
            "size": target_size,
            "channels": channels,
            # For whole images ours gives the same pixels, and needs no Pillow.
            "interpolation": "nearest"
            if name == "pillow-nearest" and not keep_aspect_ratio
            else name,
            "aspect": "crop" if keep_aspect_ratio else "stretch",
            "reader": "pillow",
        }
        self.attributes = {
            "target_size": tuple(target_size),
            "image_shape": (*target_size, channels),
            "color_mode": color_mode,
            "data_format": "channels_last",
            "interpolation": interpolation,
            "keep_aspect_ratio": keep_aspect_ratio,
        }

    def flow(
        self,
        standardizer: Standardizer,
        files: list[str],
        labels: Any,
        class_mode: str | None,
        names: list[str] | None,
        transform: Any,
        attributes: dict[str, Any],
        options: dict[str, Any],
    ) -> FileFlow:
        """The loader.

        Args:
            standardizer: the generator that normalises the images.
            files: the paths of the files.
            labels: class numbers, or lists of them; the values for "raw" and "multi_output".
            class_mode: how the labels are delivered.
            names: the names of the classes; None if labels are not classes.
            transform: the user's transform, or None.
            attributes: further attributes of Keras' iterators.
            options: of `PathSequenceLoader`.
        """
        dtype, classes = standardizer.dtype, len(names or ())
        given: Any = None
        hot = False
        if class_mode in ("binary", "sparse"):
            given = np.asarray(labels, dtype)
        elif class_mode == "categorical":
            hot = dtype == np.float32 and not any(isinstance(label, list) for label in labels)
            given = np.asarray(labels, np.int32) if hot else hot_rows(labels, classes, dtype)
        elif class_mode == "multi_output":
            given = tuple(labels)
        elif class_mode == "raw":
            given = labels
        steps: dict[str, Any] = {"rescale": standardizer.rescale or None, "dtype": dtype}
        working, twice = np.dtype(keras_setting("floatx")), class_mode == "input"
        if transform is not None or standardizer.normalises or twice or dtype != working:
            steps = {"transform": StandardizingTransform(standardizer, transform, working, twice)}
        known = {
            "image_data_generator": standardizer,
            "class_mode": class_mode,
            **self.attributes,
            **attributes,
        }
        if names is not None:
            known["num_classes"] = classes
            known["class_indices"] = {name: k for k, name in enumerate(names)}
        loader = FileFlow(files, given, keras=known, **self.options, **steps, **options)
        if hot:
            loader = one_hot(loader, classes)
        loader.class_names = names
        return loader
