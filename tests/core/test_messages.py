"""What is logged: once where asked for, and to stderr only where nobody set up logging."""

import logging
import subprocess
import sys

import pytest

from kloaders.core import messages


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(messages, "_said", set())


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "kloaders"]


def test_a_message_with_a_key_comes_once(caplog):
    caplog.set_level(logging.INFO, "kloaders")
    for _ in range(3):
        messages.say("one", once="a")
        messages.say("two", once="b")
        messages.say("always")
    assert said(caplog) == ["one", "two", "always", "always", "always"]


def run(setup):
    code = f"import logging, sys; {setup}; from kloaders.core.messages import say; say('hello')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("setup", "out"),
    [
        ("pass", ("", "kloaders: hello\n")),
        ("logging.getLogger('kloaders').setLevel('WARNING')", ("", "")),
        ("logging.basicConfig(stream=sys.stdout, level='INFO', format='%(message)s')",
         ("hello\n", "")),
        ("logging.basicConfig(stream=sys.stdout)", ("", "")),
    ],
    ids=["nothing set up", "silenced", "set up", "set up for warnings"],
)  # fmt: skip
def test_where_it_goes(setup, out):
    assert run(setup) == out
