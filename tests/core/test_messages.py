"""What is logged: at which level, once where asked for, and by no handler of ours."""

import logging
import subprocess
import sys

import pytest

from kloaders.core import messages


@pytest.fixture(autouse=True)
def nothing_logged(monkeypatch):
    monkeypatch.setattr(messages, "_logged", set())


def logged(caplog):
    return [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "kloaders"]


def test_levels(caplog):
    caplog.set_level(logging.INFO, "kloaders")
    messages.inform("found 100 % of them")
    messages.warn("left out: 50 %s")
    assert logged(caplog) == [("INFO", "found 100 % of them"), ("WARNING", "left out: 50 %s")]


def test_a_message_with_a_key_comes_once(caplog):
    for _ in range(3):
        messages.warn("one", once="a")
        messages.inform("two", once="b")
        messages.warn("always")
    assert [text for _, text in logged(caplog)] == ["one", "two", "always", "always", "always"]


def run(setup):
    code = (
        f"import logging, sys; {setup}; from kloaders.core.messages import inform, warn; "
        "inform('found'); warn('left out')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("setup", "out"),
    [
        ("pass", ("", "left out\n")),
        ("logging.getLogger('kloaders').setLevel('ERROR')", ("", "")),
        ("logging.basicConfig(stream=sys.stdout, level='INFO', format='%(message)s')",
         ("found\nleft out\n", "")),
        ("logging.basicConfig(stream=sys.stdout, format='%(message)s')", ("left out\n", "")),
        ("from kloaders.core.messages import show_messages; show_messages()",
         ("", "kloaders: found\nkloaders: left out\n")),
    ],
    ids=["nothing set up", "silenced", "set up", "set up without a level", "a command"],
)  # fmt: skip
def test_where_it_goes(setup, out):
    """`logging.basicConfig()` does not silence what costs data or time."""
    assert run(setup) == out


def test_no_handler_is_installed_at_import():
    code = "import kloaders, logging; kloaders.ArraySequenceLoader; print(logging.getLogger('kloaders').handlers)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "[]\n"
