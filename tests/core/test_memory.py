"""Memory of batches, and how much of it there is."""

from __future__ import annotations

import pickle
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from kloaders.core import memory
from kloaders.core.memory import ALIGNMENT, BufferPool, aligned, format_bytes, parse_bytes
from tests.support.marks import only_recycling

LARGE = 2**17  # more than what the pool keeps at all


def address(array: Any) -> int:
    return int(array.ctypes.data)


# ---------------------------------------------------------------- the pool


class Held(RuleBasedStateMachine):
    """Arrays are taken, looked at through views and let go in any order; none is written to twice."""

    arrays = Bundle("arrays")

    def __init__(self) -> None:
        super().__init__()
        self.pool = BufferPool(limit=3)
        self.content: dict[int, tuple[Any, int]] = {}
        self.number = 0

    def _hold(self, array: Any, value: int) -> int:
        self.number += 1
        self.content[self.number] = array, value
        return self.number

    @rule(
        target=arrays,
        rows=st.integers(1, 5),
        each=st.sampled_from([8, LARGE // 2, LARGE]),
        dtype=st.sampled_from(["uint8", "float32"]),
        value=st.integers(0, 255),
    )
    def take(self, rows: int, each: int, dtype: str, value: int) -> int:
        kind = np.dtype(dtype)
        array = self.pool.take((rows, each // kind.itemsize), kind)
        assert array.dtype == kind
        assert array.shape == (rows, each // kind.itemsize)
        assert array.flags.c_contiguous
        assert array.flags.writeable
        array[...] = value
        return self._hold(array, value)

    @rule(target=arrays, number=arrays, part=st.integers(0, 4))
    def view(self, number: int, part: int) -> int:
        array, value = self.content[number]
        return self._hold(array[part:], value)

    @rule(target=arrays, number=arrays)
    def reshape(self, number: int) -> int:
        array, value = self.content[number]
        return self._hold(array.reshape(-1), value)

    @rule(number=consumes(arrays))
    def drop(self, number: int) -> None:
        del self.content[number]

    @rule()
    def clear(self) -> None:
        self.pool.clear()

    @invariant()
    def nobody_wrote_into_what_is_held(self) -> None:
        for array, value in self.content.values():
            assert not array.size or (array.flat[0], array.flat[-1]) == (value, value)


Held.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestHeld = Held.TestCase


@only_recycling
def test_memory_is_used_again_once_it_is_free() -> None:
    """The second array lies where the first did, but only when nobody refers to that any more."""
    pool = BufferPool()
    first = pool.take((LARGE,), np.dtype("uint8"))
    where = address(first)
    part = first[5:7]
    del first
    second = pool.take((LARGE,), np.dtype("uint8"))
    assert address(second) != where
    del part
    third = pool.take((LARGE // 4,), np.dtype("float32"))
    assert address(third) == where


@pytest.mark.parametrize("holder", [memoryview, np.ravel, lambda a: a.view("uint8")])
def test_every_kind_of_reference_holds(holder: Any) -> None:
    """A view, a buffer or a tensor over the memory keeps it as the array itself does."""
    pool = BufferPool()
    array = pool.take((LARGE,), np.dtype("uint8"))
    where = address(array)
    held = holder(array)
    del array
    assert address(pool.take((LARGE,), np.dtype("uint8"))) != where
    del held


@only_recycling
def test_memory_much_larger_than_needed_is_not_used() -> None:
    """A short last batch does not take the memory of a batch three times its size."""
    pool = BufferPool()
    where = address(pool.take((3 * LARGE,), np.dtype("uint8")))
    assert address(pool.take((LARGE,), np.dtype("uint8"))) != where
    assert address(pool.take((3 * LARGE,), np.dtype("uint8"))) == where


@only_recycling
def test_a_pool_keeps_no_more_than_its_limit() -> None:
    """Of ten arrays let go, a pool of three keeps three."""
    pool = BufferPool(limit=3)
    arrays = [pool.take((LARGE,), np.dtype("uint8")) for _ in range(10)]
    where = {address(array) for array in arrays}
    arrays.clear()
    arrays = [pool.take((LARGE,), np.dtype("uint8")) for _ in range(3)]
    assert {address(array) for array in arrays} <= where
    assert len(pool._blocks) == 3


def test_threads_share_a_pool() -> None:
    """Eight threads that take, fill and check: none sees another's values."""
    pool, wrong = BufferPool(limit=4), []
    start = threading.Barrier(8)

    def work(value: int) -> None:
        start.wait(30)
        for _ in range(200):
            array = pool.take((LARGE,), np.dtype("uint8"))
            array[::4096] = value
            if (array[::4096] != value).any():
                wrong.append(value)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not wrong


def test_nothing_is_recycled_where_references_are_not_counted(monkeypatch: Any) -> None:
    """Then no array that was let go is given out again, and the pool keeps none."""
    monkeypatch.setattr(memory, "references_are_counted", lambda: False)
    pool = BufferPool()
    shape, dtype = (LARGE,), np.dtype("uint8")
    arrays = [pool.take(shape, dtype) for _ in range(3)]
    assert len({address(array) for array in arrays}) == 3
    for value, array in enumerate(arrays):
        array[...] = value
    assert [int(array.max()) for array in arrays] == [0, 1, 2]
    gone = weakref.ref(arrays[0].base)
    arrays.clear()
    assert gone() is None
    assert pool._blocks == []


@pytest.mark.parametrize(
    ("name", "gil", "built_without", "counted"),
    [
        ("cpython", None, None, True),  # before Python 3.13
        ("cpython", True, 0, True),
        ("cpython", True, 1, False),  # free-threaded, the GIL turned on again by an extension
        ("cpython", False, 1, False),
        ("pypy", None, None, False),
    ],
)
def test_where_references_are_counted(
    monkeypatch: Any, name: str, gil: bool | None, built_without: int | None, counted: bool
) -> None:
    """Only in CPython that is built with the GIL."""
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name=name))
    monkeypatch.delattr(sys, "_is_gil_enabled", raising=False)
    if gil is not None:
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: gil, raising=False)
    monkeypatch.setattr(memory.sysconfig, "get_config_var", lambda _: built_without)
    assert memory.references_are_counted() is counted


def test_a_count_that_is_not_as_expected_is_not_relied_on(monkeypatch: Any) -> None:
    """Of an interpreter that counts otherwise, as no released one does for such an expression."""
    monkeypatch.setattr(memory.sys, "getrefcount", lambda _: 1)
    assert not memory.references_are_counted()


def test_a_pool_pickles_without_its_memory() -> None:
    """A copy in another process starts empty, with the same limit."""
    pool = BufferPool(limit=5)
    pool.take((LARGE,), np.dtype("uint8"))
    sent = pickle.dumps(pool)
    assert len(sent) < 1000
    assert pickle.loads(sent).limit == 5


@given(nbytes=st.integers(1, 300_000))
def test_aligned(nbytes: int) -> None:
    """Memory begins on the boundary from which TensorFlow takes it without a copy."""
    found = aligned(nbytes)
    assert found.nbytes == nbytes
    assert found.dtype == np.uint8
    assert address(found) % ALIGNMENT == 0
    found[...] = 1


@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    dtype=st.sampled_from(["bool", "uint16", "float32", "complex128"]),
)
def test_taken_arrays_are_aligned(shape: list[int], dtype: str) -> None:
    """Whatever shape and type is taken begins on the boundary, if that is worth it."""
    array = BufferPool().take(tuple(shape), np.dtype(dtype))
    assert array.shape == tuple(shape)
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.nbytes < 4096 or address(array) % ALIGNMENT == 0


# ---------------------------------------------------------------- sizes as text


@given(size=st.integers(1, 2**52))
def test_what_is_said_can_be_given(size: int) -> None:
    """A size from a message, given back as an option, is the same one to a digit."""
    assert parse_bytes(format_bytes(size), "x") == pytest.approx(size, rel=0.051)


@given(size=st.integers(1, 10**15), unit=st.sampled_from(["", "B", "kB", "MB", "GiB", "TiB"]))
def test_units_count(size: int, unit: str) -> None:
    """A number with a unit is that many of it, with or without a space, in any case."""
    each = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GiB": 2**30, "TiB": 2**40}[unit]
    size = size % 1000 + 1
    for text in (f"{size}{unit}", f" {size} {unit.upper()} ", f"{size}.0 {unit.lower()}"):
        assert parse_bytes(text, "x") == size * each


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1, 1),
        ("512", 512),
        (np.int64(7), 7),
        (1e9, 10**9),
        ("4GiB", 2**32),
        ("1.5 MB", 1_500_000),
        ("0.5KiB", 512),
        ("1e3 kB", 10**6),
        ("1_000 MB", 10**9),
    ],
)
def test_parse_bytes(value: Any, size: int) -> None:
    """Integers, whole floats and texts are sizes."""
    assert parse_bytes(value, "x") == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**40, "1.0 TiB"),
        (3000 * 2**40, "3000.0 TiB"),
        (2**20 - 1, "1.0 MiB"),
    ],
)
def test_format_bytes(size: int, text: str) -> None:
    """Binary units, one digit, and never 1024 of a unit that has a larger one."""
    assert format_bytes(size) == text


# ---------------------------------------------------------------- how much is free

GIB = 2**30


class Machine:
    """16 GiB free, and files under /sys/fs/cgroup that the test writes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, *parts: object) -> Path:
        return self.root / str(Path(*map(str, parts))).lstrip("/")

    def __setitem__(self, name: str, content: str) -> None:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(content)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: Any) -> Machine:
    found = Machine(tmp_path)
    monkeypatch.setattr(memory, "Path", found.path)
    free = SimpleNamespace(available=16 * GIB)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free)
    return found


V2, V1 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/memory"


def test_free_without_a_container(machine: Machine) -> None:
    """Without a limit, what the system calls available is free."""
    assert memory.available_bytes() == 16 * GIB
    machine[f"{V2}.max"] = "max\n"
    machine[f"{V2}.current"] = f"{3 * GIB}\n"
    assert memory.available_bytes() == 16 * GIB


@pytest.mark.parametrize(
    ("limit", "used"),
    [
        (f"{V2}.max", f"{V2}.current"),
        (f"{V1}.limit_in_bytes", f"{V1}.usage_in_bytes"),
    ],
    ids=["version 2", "version 1"],
)
def test_free_in_a_container(machine: Machine, limit: str, used: str) -> None:
    """A container's limit counts, less what it uses; never below nothing, nor above the machine."""
    machine[limit], machine[used] = f"{4 * GIB}\n", f"{GIB}\n"
    assert memory.available_bytes() == 3 * GIB
    machine[used] = f"{5 * GIB}\n"
    assert memory.available_bytes() == 0
    machine[limit] = str(2**63 - 4096)  # version 1 has no word for no limit
    assert memory.available_bytes() == 16 * GIB


@pytest.mark.parametrize("said", ["", "lots", "4 GiB"])
def test_free_where_the_files_are_strange(machine: Machine, said: str) -> None:
    """What cannot be read as a number is no limit."""
    machine[f"{V2}.max"], machine[f"{V2}.current"] = said, said
    assert memory.available_bytes() == 16 * GIB
    machine[f"{V2}.max"] = str(GIB)
    assert memory.available_bytes() == 16 * GIB


@pytest.mark.parametrize(
    ("limit", "used", "stat", "field"),
    [
        (f"{V2}.max", f"{V2}.current", f"{V2}.stat", "inactive_file"),
        (f"{V1}.limit_in_bytes", f"{V1}.usage_in_bytes", f"{V1}.stat", "total_inactive_file"),
    ],
    ids=["version 2", "version 1"],
)
def test_files_read_before_leave_memory_free(
    machine: Machine, limit: str, used: str, stat: str, field: str
) -> None:
    """The page cache of files read before fills a container, and gives way: it counts as free."""
    machine[limit], machine[used] = str(8 * GIB), str(8 * GIB - 4096)
    machine[stat] = f"anon {GIB}\n{field} {6 * GIB}\nactive_file {GIB // 2}\n"
    assert memory.available_bytes() >= 6 * GIB
