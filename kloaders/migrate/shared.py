"""What the drop-ins share: names of Keras' options, parts of the rows, Keras' attributes."""

from __future__ import annotations

from typing import Any

import numpy as np

from kloaders.loaders.paths import PathSequenceLoader

__all__ = [
    "CHANNELS",
    "NOT_GIVEN",
    "OTHER_PART",
    "Array",
    "filter_named",
    "rows_of_part",
    "with_keras_names",
]

Array = np.ndarray[Any, Any]

#: Keras' color_mode, and how many channels that is.
CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}
#: Of two parts, the other one.
OTHER_PART = {"training": "validation", "validation": "training"}
#: An argument that was not given, not even as None.
NOT_GIVEN: Any = object()


def rows_of_part(subset: str | None, count: int, share: float) -> slice:
    """Which of so many rows are a part, as Keras cuts: the first ones validate."""
    if subset is None:
        return slice(None)
    if subset not in OTHER_PART:
        raise ValueError(f'subset={subset!r} is not known: choose "training" or "validation".')
    if not share:
        raise ValueError(
            f"subset={subset!r} needs a share: ImageDataGenerator(validation_split=0.2)."
        )
    cut = int(share * count)
    return slice(0, cut) if subset == "validation" else slice(cut, None)


def filter_named(name: str, known: dict[str, str]) -> str:
    if name not in known:
        raise ValueError(
            f"interpolation={name!r} has no counterpart here: choose one of {', '.join(known)}."
        )
    return known[name]


def with_keras_names(loader: PathSequenceLoader, **attributes: Any) -> PathSequenceLoader:
    """The loader, with the names that Keras' own have."""
    found: Any = loader
    for name, value in attributes.items():
        if value is not None:
            setattr(found, name, value)
    if "filenames" in attributes:
        found.filepaths = list(loader.paths)
    return loader
