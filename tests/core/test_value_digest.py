"""Values and functions are told apart by what they are, and by nothing that differs between runs."""

from __future__ import annotations

import collections
import enum
import functools
import logging
import pathlib
import re
import subprocess
import sys
import threading
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kloaders as kl
from kloaders.core.value_digest import NotComparable, digest_of, digest_of_method


class Kind(enum.Enum):
    ONE = 1
    TWO = 2


class Point(NamedTuple):
    x: int
    y: int


class Slots:
    __slots__ = ("a",)

    def __init__(self, a: Any) -> None:
        self.a = a


PAIRS = [
    (1, 1.0),
    (1, True),
    ("a", b"a"),
    (0.0, -0.0),
    ((1, 2), [1, 2]),
    ((1, (2,)), ((1, 2),)),
    ({"a": 1}, {"a": 2}),
    ({1, 2}, frozenset({1, 2})),
    (np.arange(3), np.arange(3.0)),
    (np.zeros((2, 3)), np.zeros((3, 2))),
    (np.int32(1), np.int64(1)),
    (np.dtype("<f4"), np.dtype(">f4")),
    (re.compile("a"), re.compile("a", re.IGNORECASE)),
    (pathlib.Path("a"), pathlib.Path("b")),
    (Kind.ONE, Kind.TWO),
    (Point(1, 2), Point(2, 1)),
    (Slots(1), Slots(2)),
    (np.load, np.save),
    ("a".join, "b".join),
    (functools.partial(max, 1), functools.partial(max, 2)),
    (collections.deque([1]), collections.deque([2])),
    (collections.OrderedDict(a=1), {"a": 1}),
    (np.add, np.subtract),
    (int, float),
    (range(3), range(4)),
    (slice(1), slice(2)),
    (logging.getLogger("a"), logging.getLogger("b")),
    (kl.Feature("a"), kl.Feature("b")),
    (bytearray(b"a"), bytearray(b"b")),
]


@pytest.mark.parametrize(
    ("one", "other"), PAIRS, ids=[f"{k}-{type(pair[0]).__name__}" for k, pair in enumerate(PAIRS)]
)
def test_values_are_told_apart(one: Any, other: Any) -> None:
    assert digest_of(one) != digest_of(other)
    assert digest_of(one) == digest_of(one)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(VALUES, VALUES)
def test_equal_values_have_one_digest(one: Any, other: Any) -> None:
    """By type, too: 1 is not True, and 0.0 not -0.0."""
    assert (digest_of(one) == digest_of(other)) == (repr(one) == repr(other))


def test_what_refers_to_itself() -> None:
    """Lists in themselves and functions that call each other come to an end."""
    one: list[Any] = [1]
    one.append(one)
    other: list[Any] = [2]
    other.append(other)
    assert digest_of(one) != digest_of(other)

    def first(n: int) -> int:
        return second(n - 1) if n else 5

    def second(n: int) -> int:
        return first(n)

    assert digest_of(first) != digest_of(second)


def test_shared_and_equal_are_the_same() -> None:
    """Which of equal values are one object is an accident of how a module was compiled."""
    part = [1, 2]
    assert digest_of([part, part]) == digest_of([[1, 2], [1, 2]])


def test_deep_nesting_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotComparable, match="nested too deeply"):
        digest_of(deep)


def test_the_way_is_told() -> None:
    """From what the user knows to what has no value."""
    settings = {"inner": [threading.Lock()]}

    def decode(raw: bytes) -> Any:
        return settings["inner"]

    with pytest.raises(NotComparable) as caught:
        digest_of(decode, "decode=")
    way = "item 0 of entry 'inner' of variable 'settings' of decode() of decode="
    assert caught.value.where == way
    assert caught.value.kind == "of type _thread.lock"


def test_memory_maps_are_not_read(tmp_path: Any) -> None:
    """A map counts by its file, which may be larger than memory."""
    path = tmp_path / "a.npy"
    np.save(path, np.arange(10))
    mapped = np.load(path, mmap_mode="r")
    before = digest_of(mapped)
    assert digest_of(np.load(path, mmap_mode="r")) == before != digest_of(mapped[1:])
    np.save(path, np.arange(11))
    assert digest_of(np.load(path, mmap_mode="r")) != before


def test_what_is_not_read_of_an_object_does_not_count() -> None:
    """Of the owner of a method: only what its code, and what that calls, reads."""

    class Owner:
        def __init__(self, **values: Any) -> None:
            vars(self).update(values)

        def load(self) -> Any:
            return self.scale * self._more()

        def _more(self) -> Any:
            return self.deep

        def other(self) -> Any:
            return self.lock

    def digest(**values: Any) -> str:
        return digest_of_method(Owner(**values), "load")

    first = digest(scale=1, deep=2, lock=threading.Lock())
    assert first == digest(scale=1, deep=2, unread=3)
    assert first != digest(scale=2, deep=2)
    assert first != digest(scale=1, deep=3)


SCRIPT = """
import dataclasses, enum, functools, re
import numpy as np
from kloaders.core.value_digest import digest_of

class Kind(enum.Enum):
    ONE = "one"

@dataclasses.dataclass
class Settings:
    kind: Kind
    names: frozenset
    table: dict = dataclasses.field(default_factory=dict)

settings = Settings(Kind.ONE, frozenset({"a", "bc", "def"}), {"x": np.arange(3)})

@functools.lru_cache
def helper(x):
    return {"q", "rs", "tuv"} & settings.names

def decode(raw, scale=np.float32(2), *, flags=re.compile("a")):
    return helper(raw), settings.kind, scale

print(digest_of(decode), digest_of(settings), digest_of(Settings))
"""


def test_the_same_in_every_process(tmp_path: Any) -> None:
    """Compiled now, or read from a compiled file; with any order of sets."""
    (tmp_path / "a_users_module.py").write_text(SCRIPT)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import a_users_module"
    found = set()
    for seed in "112":
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )
        found.add(done.stdout)
    assert len(found) == 1
