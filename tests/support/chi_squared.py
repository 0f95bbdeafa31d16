"""A test of whether counts are evenly distributed."""

import numpy as np


def chi_squared(counts):
    counts = np.asarray(counts, float)
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def bound(degrees):
    """A chi-squared value that chance exceeds about once in 100,000 (Wilson and Hilferty)."""
    spread = np.sqrt(2 / (9 * degrees))
    return degrees * (1 - 2 / (9 * degrees) + 4.265 * spread) ** 3
