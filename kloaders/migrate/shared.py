"""Shared parts of the drop-in replacements: Keras' option names and settings, and subsets of rows."""

from __future__ import annotations

import sys
from typing import Any

from kloaders.core.messages import inform

__all__ = [
    "CHANNELS",
    "NOT_GIVEN",
    "OTHER_PART",
    "channels_of",
    "check_data_format",
    "filter_named",
    "keras_setting",
    "report_found",
    "rows_of_part",
]

#: The number of channels of each of Keras' color_modes.
CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}
#: The other one of the two subsets.
OTHER_PART = {"training": "validation", "validation": "training"}
#: The default of an argument for which None is a value.
NOT_GIVEN: Any = object()


def keras_setting(name: str) -> str:
    """A setting of Keras, floatx or image_data_format."""
    # Importing the loader classes has imported one of the two.
    keras = sys.modules.get("keras") or sys.modules["tf_keras"]
    value: str = getattr(keras.backend, name)()
    return value


def check_data_format(data_format: str | None) -> None:
    """Raise ValueError if the argument, or else Keras' setting, is channels-first."""
    said = f"data_format={data_format!r:.80}"
    if data_format is None:
        data_format = keras_setting("image_data_format")
        said = f"keras.config.image_data_format() is {data_format!r:.80}"
    if data_format != "channels_last":
        raise ValueError(
            f'{said}: loaders deliver channels-last images. Pass data_format="channels_last", and '
            "permute the axes in the model with keras.layers.Permute((3, 1, 2))."
        )


def channels_of(color_mode: Any) -> int:
    """The number of channels of a color_mode."""
    if color_mode not in CHANNELS:
        raise ValueError(
            f'color_mode={color_mode!r:.80} is not known: choose "rgb", "rgba" or "grayscale".'
        )
    return CHANNELS[color_mode]


def rows_of_part(subset: str | None, count: int, share: float) -> slice:
    """The rows of a subset, split as in Keras: the first rows are for validation."""
    if subset is None:
        return slice(None)
    if subset not in OTHER_PART:
        raise ValueError(f'subset={subset!r:.80} is not known: choose "training" or "validation".')
    if not share:
        raise ValueError(
            f"subset={subset!r:.80} needs validation_split: ImageDataGenerator(validation_split=0.2)."
        )
    cut = int(share * count)
    return slice(0, cut) if subset == "validation" else slice(cut, None)


def filter_named(name: Any, known: dict[str, str]) -> str:
    """Our name for one of Keras' interpolations."""
    if name not in known:
        raise ValueError(
            f"interpolation={name!r:.80} is not supported: choose one of {', '.join(known)}."
        )
    return known[name]


def report_found(verbose: bool, files: int, classes: int | None, where: str) -> None:
    """Log the number of files found, as Keras prints it."""
    if verbose:
        of = "" if classes is None else f" belonging to {classes} classes"
        inform(f"{where}: found {files:,} files{of}.")
