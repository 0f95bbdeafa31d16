"""Errors about files: they say what to do, and travel between processes."""

import pickle

from kloaders.formats.errors import DecodeError


def test_decode_error_pickles():
    """An error raised in a worker process arrives as what it was."""
    error = pickle.loads(pickle.dumps(DecodeError("a.jpg is truncated")))
    assert isinstance(error, ValueError)
    assert str(error) == "a.jpg is truncated"
