"""Reads the texts and images of a matplotlib figure."""

from __future__ import annotations

import numpy as np

IMAGES = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), "uint8")


def texts(figure):
    """All texts of a figure."""
    from matplotlib.text import Text

    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def drawn(figure):
    """Arrays of the images in it, in the order of the axes."""
    return [image.get_array() for axis in figure.axes for image in axis.images]


def patches(figure):
    """Its rectangles, without backgrounds."""
    from matplotlib.patches import Rectangle

    # No patch of matplotlib's own lies in an axis: backgrounds are the axis's `patch`.
    return [p for axis in figure.axes for p in axis.patches if isinstance(p, Rectangle)]
