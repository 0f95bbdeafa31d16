"""Errors of samples: what they name, what they keep alive, and how many are allowed."""

import errno
import gc
import pickle
import weakref

import numpy as np
import pytest

from kloaders.core.errors import (
    SampleError,
    as_sample_error,
    blames_the_sample,
    check_limit,
    check_max_errors,
    check_policy,
    line_of_the_user,
    without_traceback,
)
from kloaders.formats.images import DecodeError


def raised(error):
    """The error, with the traceback of a frame that holds an array; and that array, weakly."""

    def read():
        held = np.zeros(10)
        arrays.append(weakref.ref(held))
        raise error

    arrays = []
    try:
        read()
    except type(error) as caught:
        return caught, arrays[0]


def test_it_names_the_sample_and_the_cause():
    cause = KeyError("label")
    error = as_sample_error(7, "7.png", cause)
    assert str(error) == "sample 7 (7.png): KeyError: 'label'"
    assert (error.index, error.name, error.__cause__) == (7, "7.png", cause)
    assert as_sample_error(9, "other", error) is error
    assert str(as_sample_error(1, "a", DecodeError("a is cut short"))) == (
        "sample 1 (a): a is cut short"
    )


def test_it_crosses_processes():
    error = pickle.loads(pickle.dumps(as_sample_error(7, "7.png", OSError("gone"))))
    assert (error.index, error.name, error.cause) == (7, "7.png", "OSError: gone")
    assert isinstance(error, ValueError)


def test_a_kept_error_holds_no_frames():
    """Of the chain of causes none; what the frames held is free."""
    cause, array = raised(ValueError("bad"))
    kept = without_traceback(as_sample_error(1, "a", cause), "skip")
    assert kept.__cause__ is cause
    gc.collect()
    assert array() is None
    assert cause.__traceback__ is None


def test_an_error_that_is_raised_keeps_its_frames():
    """The copy in the list has no cause, the one that the user sees has all."""
    cause, array = raised(ValueError("bad"))
    error = as_sample_error(1, "a", cause)
    kept = without_traceback(error, "raise")
    assert kept.__cause__ is None
    assert kept is not error
    assert error.__cause__.__traceback__ is not None
    assert array() is not None


@pytest.mark.parametrize(
    ("cause", "its_own"),
    [
        (OSError(errno.ENOENT, "gone"), True),
        (OSError(errno.EIO, "disk"), True),
        (OSError(errno.EMFILE, "files"), False),
        (OSError(errno.ENFILE, "files"), False),
        (OSError(errno.ENOMEM, "memory"), False),
        (MemoryError(), False),
        (ValueError("bad"), True),
    ],
)
def test_who_is_to_blame(cause, its_own):
    """Memory and file descriptors run out for the next sample, too."""
    assert blames_the_sample(as_sample_error(0, "a", cause)) is its_own


def test_policies():
    assert [check_policy(p) for p in ("raise", "skip", "replace")] == ["raise", "skip", "replace"]
    with pytest.raises(ValueError, match=r"on_error='ignore' is not known: choose \"raise\""):
        check_policy("ignore")


@pytest.mark.parametrize(
    ("given", "checked"), [(None, None), (0, 0), (3, 3), (np.int64(3), 3), (0.25, 0.25), (1.0, 1.0)]
)
def test_limits(given, checked):
    """A count, a share or none; a share stays one."""
    found = check_max_errors(given, "skip")
    assert found == checked
    assert type(found) is type(checked)


@pytest.mark.parametrize(
    ("given", "policy", "error", "words"),
    [
        (-1, "skip", ValueError, "is negative"),
        (1.5, "skip", ValueError, "a share must be between 0 and 1"),
        (-0.1, "skip", ValueError, "a share must be between 0 and 1"),
        (True, "skip", TypeError, "max_errors=True is not a number"),
        ("3", "skip", TypeError, "max_errors='3' is not a number"),
        (float("nan"), "skip", TypeError, "not a number"),
        (3, "raise", ValueError, 'pass on_error="skip" or "replace"'),
    ],
)
def test_limits_that_mean_nothing(given, policy, error, words):
    with pytest.raises(error, match=words):
        check_max_errors(given, policy)


@pytest.mark.parametrize(("limit", "allowed"), [(0, 0), (2, 2), (0.02, 2), (0.029, 2), (1.0, 100)])
def test_one_more_than_allowed_is_an_error(limit, allowed):
    """Of 100 samples; a share is rounded down."""
    errors = [SampleError(k, f"{k}.png", "ValueError: bad") for k in range(allowed + 1)]
    check_limit(errors[:-1], limit, 100, None)
    with pytest.raises(SampleError, match=rf"With it {allowed + 1:,} of 100 samples") as caught:
        check_limit(errors, limit, 100, "bad.csv")
    assert caught.value.index == allowed
    assert "loader.errors and bad.csv" in str(caught.value)
    assert str(caught.value).count("bad\n") == min(allowed, 3)


def test_without_a_limit_any_number_is_allowed():
    check_limit([SampleError(k, "a", "b") for k in range(50)], None, 50, None)


def test_the_line_of_the_user_comes_first():
    """Of a transform, also where it fails in a library; not of what is ours alone."""

    def plus(x):
        return np.add(x, undefined_name)  # noqa: F821

    for cross in (False, True):
        try:
            plus(1)
        except NameError as error:
            if cross:
                error.line_of_the_user = line_of_the_user(error)
                error = pickle.loads(pickle.dumps(error))
            found = as_sample_error(2, "2.png", error)
        line = plus.__code__.co_firstlineno + 1
        assert str(found).startswith(
            f"{__file__}, line {line}, in plus: sample 2 (2.png): NameError"
        )
        assert found.cause.startswith("NameError: name 'undefined_name'")
        assert str(pickle.loads(pickle.dumps(found))) == str(found)
        assert without_traceback(found, "skip").where == found.where
    assert (
        str(as_sample_error(7, "7.png", KeyError("label"))) == "sample 7 (7.png): KeyError: 'label'"
    )
