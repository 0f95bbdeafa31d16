"""Sequences of unequal length that hold their number, and a loader that pads them."""

import numpy as np

import kloaders as kl

LENGTHS = np.random.default_rng(0).integers(1, 30, 37)
BOUNDARIES = (8, 16, 30)


def sequence_of(number, steps, width=2):
    """A sample whose steps all hold its number plus one: 0 is for padding."""
    return np.full((steps, width), number + 1, np.float32)


def sequences(lengths):
    return [sequence_of(k, n) for k, n in enumerate(lengths)]


def bucketed(lengths=LENGTHS, labels=None, boundaries=BOUNDARIES, given=None, pad=None, **options):
    """A loader over samples of these lengths, five in a batch, their labels their numbers."""
    y = np.arange(len(lengths)) if labels is None else labels
    loader = kl.ArraySequenceLoader(sequences(lengths), y, 5, **{"seed": 7, **options})
    return kl.bucket_by_length(loader, given, boundaries, **(pad or {}))
