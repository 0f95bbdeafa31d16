"""Environment variables with seconds: what is taken, and what a bad value is told."""

import pytest

from kloaders.core.environment import seconds_from


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 7.0), ("  ", 7.0), ("0.5", 0.5), (" 90 ", 90.0), ("1e2", 100.0), ("inf", 1e6)],
)
def test_seconds(monkeypatch, text, seconds):
    monkeypatch.setenv("KLOADERS_TEST", text)
    assert seconds_from("KLOADERS_TEST", 7.0) == seconds


def test_unset_is_the_default(monkeypatch):
    monkeypatch.delenv("KLOADERS_TEST", raising=False)
    assert seconds_from("KLOADERS_TEST", 7.0) == 7.0


@pytest.mark.parametrize("text", ["0", "-1", "nan", "a minute", "1,5", "-inf"])
def test_what_is_no_time(monkeypatch, text):
    """The error names the variable, the value, and what to set."""
    monkeypatch.setenv("KLOADERS_TEST", text)
    with pytest.raises(
        ValueError, match=r"KLOADERS_TEST is .*seconds above 0: set KLOADERS_TEST=7"
    ):
        seconds_from("KLOADERS_TEST", 7.0)
