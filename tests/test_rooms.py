"""The structure of the package: rooms import in one direction, modules are small and have test files.

`python -m tests.support.rooms` prints the checked structure. Known violations are listed in
tests/support/known_gaps.py; a fixed violation must be removed from that list.
"""

from __future__ import annotations

import ast
from collections.abc import Collection

import pytest

from tests.support import known_gaps, rooms


def check(found: Collection[object], known: Collection[object], rule: str) -> None:
    """The violations of a rule are exactly the known ones."""
    new = sorted(map(str, set(found) - set(known)))
    mended = sorted(map(str, set(known) - set(found)))
    assert not new, f"{rule}:\n  " + "\n  ".join(new) + f"\n\n{rooms.table()}"
    assert not mended, "take these out of tests/support/known_gaps.py:\n  " + "\n  ".join(mended)


def test_every_module_is_in_a_room():
    """A new folder needs a line in the table of rooms."""
    found = {rooms.room_of(name) for name in rooms.modules()} - {""}
    assert found == set(rooms.LEVEL)


def test_imports_run_down_the_table():
    """A room imports only rooms of lower levels, type checkers and functions included."""
    up = {arrow for arrow in rooms.arrows() if rooms.runs_up(*arrow)}
    check(up, known_gaps.UPWARD_IMPORTS, "these imports run up the table of rooms")


def test_no_circles():
    """No two modules import each other, not even for type checkers."""
    found = set().union(*rooms.in_circles())
    check(found, known_gaps.IN_CIRCLES, "these modules import each other")


def test_modules_are_small():
    found = {name for name in rooms.code() if rooms.lines_of(name) > 500}
    check(found, known_gaps.LARGE_MODULES, "over 500 lines")


def test_each_module_has_its_test_file():
    found = {name for name in rooms.code() if not rooms.test_file_of(name).exists()}
    check(found, known_gaps.WITHOUT_TEST_FILE, "no test file tests/<room>/test_<module>.py")


def test_test_files_are_small():
    found = {
        file.relative_to(rooms.TESTS).as_posix()
        for file in rooms.TESTS.rglob("*.py")
        if len(file.read_text(encoding="utf-8").splitlines()) > 800
    }
    check(found, known_gaps.LONG_TEST_FILES, "over 800 lines")


@pytest.mark.parametrize(
    ("name", "other", "wrong"),
    [
        ("kloaders.core.memory", "kloaders.plan.epoch", True),
        ("kloaders.plan.epoch", "kloaders.core.memory", False),
        ("kloaders.plan.epoch", "kloaders.plan.streams", False),
        ("kloaders.convert.packs", "kloaders.training.callback", True),  # in one line of the table
        ("kloaders.cli.main", "kloaders", True),
        ("kloaders", "kloaders.cli.main", False),
    ],
)
def test_the_direction_of_an_import(name, other, wrong):
    """The check itself: what counts as up."""
    assert rooms.runs_up(name, other) is wrong


@pytest.mark.parametrize(
    ("code", "imported"),
    [
        ("from kloaders.core import memory", "kloaders.core.memory"),
        ("from kloaders.core.memory import spare", "kloaders.core.memory"),
        ("import kloaders.core.memory", "kloaders.core.memory"),
        ("def f():\n    from kloaders.core import memory", "kloaders.core.memory"),
        ("if TYPE_CHECKING:\n    from kloaders.core import memory", "kloaders.core.memory"),
        ("from . import packs", "kloaders.convert.packs"),
        ("from ..core.memory import spare", "kloaders.core.memory"),
        ("from kloaders import __version__", "kloaders"),
    ],
)
def test_imports_are_found(monkeypatch, code, imported):
    """The check itself: in functions, for type checkers, in every spelling."""
    monkeypatch.setattr(rooms, "tree_of", lambda name: ast.parse(code))
    assert rooms.imports_of("kloaders.convert.journal") == {imported}


def test_circles_are_found(monkeypatch):
    """The check itself: a ring of three, and nothing that only leads to it."""
    names = "abcd"
    ring = {("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")}
    monkeypatch.setattr(rooms, "modules", lambda: dict.fromkeys(names))
    monkeypatch.setattr(rooms, "arrows", lambda: ring)
    assert rooms.in_circles() == [{"a", "b", "c"}]
