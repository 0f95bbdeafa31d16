"""Makes Keras layers for the random options of an ImageDataGenerator."""

from __future__ import annotations

from typing import Any

import numpy as np

from kloaders.core.messages import warn

__all__ = ["augmentation_layers", "drawing_options"]

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


def drawing_options(generator: Any) -> list[str]:
    """The options that draw random numbers, as `name=value`."""
    return [
        f"{name}={getattr(generator, name)!r:.80}"
        for name, off in _DRAWING.items()
        if getattr(generator, name) not in (off, None)
    ]


def augmentation_layers(generator: Any, seed: int | None) -> list[Any]:
    """See `ImageDataGenerator.layers`."""
    import keras

    scale = generator.rescale or 1.0
    order = "nearest" if generator.interpolation_order == 0 else "bilinear"
    border = {
        "fill_mode": generator.fill_mode,
        "fill_value": generator.cval * scale,
        "interpolation": order,
    }
    missing = []
    wanted: list[tuple[str, dict[str, Any]]] = []
    if generator.rotation_range:
        wanted.append(("RandomRotation", {"factor": generator.rotation_range / 360, **border}))
    shifts = {}
    for name in ("height", "width"):
        shift = getattr(generator, f"{name}_shift_range")
        if np.ndim(shift) == 0 and 0 <= shift < 1:
            shifts[f"{name}_factor"] = float(shift)
        else:
            missing.append(
                f"{name}_shift_range={shift!r:.80} is in pixels, but RandomTranslation takes fractions "
                f"of the {name}"
            )
    if any(shifts.values()):
        wanted.append(
            (
                "RandomTranslation",
                {"height_factor": 0.0, "width_factor": 0.0, **shifts, **border},
            )
        )
    if generator.shear_range:
        slant = float(np.sin(np.deg2rad(generator.shear_range)))
        wanted.append(("RandomShear", {"x_factor": 0.0, "y_factor": slant, **border}))
    if list(generator.zoom_range) != [1, 1]:
        factor = (generator.zoom_range[0] - 1, generator.zoom_range[1] - 1)
        wanted.append(("RandomZoom", {"height_factor": factor, "width_factor": factor, **border}))
    if generator.channel_shift_range:
        share = generator.channel_shift_range / 255
        wanted.append(("RandomBrightness", {"factor": share, "value_range": (0, 255 * scale)}))
    flips = {"horizontal": generator.horizontal_flip, "vertical": generator.vertical_flip}
    if any(flips.values()):
        mode = "_and_".join(name for name, flip in flips.items() if flip)
        wanted.append(("RandomFlip", {"mode": mode}))
    if generator.brightness_range is not None:
        low, high = generator.brightness_range
        missing.append(
            "brightness_range multiplies, but RandomBrightness adds. Pass transform=lambda x, y, rng: "
            f"(np.clip(x * rng.uniform({low}, {high}), 0, 255).astype(x.dtype), y)"
        )
    made = []
    for k, (name, arguments) in enumerate(wanted):
        kind = getattr(keras.layers, name, None)
        if kind is None:
            missing.append(f"keras {keras.__version__} has no {name}: upgrade Keras")
        else:
            made.append(kind(**arguments, seed=None if seed is None else seed + k))
    for text in missing:
        warn(f"no layer: {text}.")
    return made
