"""What an error says about its sample, and about the machine."""

from __future__ import annotations

import errno
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kloaders as kl
from kloaders.core.errors import (
    Recovery,
    WorkerPoolError,
    as_sample_error,
    blames_the_sample,
    recovery_of,
    shortened,
    with_recovery,
    without_traceback,
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), Recovery.SHORTAGE),
        (OSError(errno.ENOMEM, "x"), Recovery.SHORTAGE),
        (RuntimeError("std::bad_alloc"), Recovery.SHORTAGE),
        (kl.DecodeError("OpenCV says '(-4:Insufficient memory) ...'"), Recovery.SHORTAGE),
        (OSError(errno.ESTALE, "x"), Recovery.WAIT),
        (ConnectionResetError(errno.ECONNRESET, "x"), Recovery.WAIT),
        (TimeoutError(), Recovery.WAIT),
        (FileNotFoundError(errno.ENOENT, "x"), Recovery.ASK),
        (OSError("image file is truncated"), Recovery.ASK),
        (type("BadGzipFile", (OSError,), {})("x"), None),
        (kl.DecodeError("damaged"), None),
        (KeyError("x"), None),
        (WorkerPoolError("x"), None),
        (with_recovery(TimeoutError(), None), None),
    ],
)
def test_what_may_pass(error: Exception, expected: Any) -> None:
    assert recovery_of(error) is expected


def test_who_is_to_blame() -> None:
    """The sample, unless something was short, or others failed as well; copies say the same."""
    lost = with_recovery(OSError(errno.EIO, "x"), Recovery.LOST)
    for error, blamed in (
        (ValueError("x"), True),
        (OSError(errno.EIO, "x"), True),
        (lost, False),
        (MemoryError(), False),
    ):
        found = as_sample_error(3, "a.png", error)
        assert blames_the_sample(found) is blamed
        assert blames_the_sample(without_traceback(found, "skip")) is blamed


def test_a_long_cause_is_cut() -> None:
    """Both ends of it stay, and the error crosses processes."""
    found = as_sample_error(3, "a.png", ValueError("begin " + "x" * 10**6 + " end"))
    assert found.cause.startswith("ValueError: begin xxx")
    assert found.cause.endswith("x end")
    assert len(found.cause) < 1100
    assert pickle.loads(pickle.dumps(found)).cause == found.cause


@given(st.text(max_size=30), st.integers(6, 20))
def test_texts_are_cut_to_a_length(text: str, length: int) -> None:
    cut = shortened(text, length)
    assert cut == text if len(text) <= length else len(cut) == length
    assert cut[:2] == text[:2]
