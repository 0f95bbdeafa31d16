"""The structure of the package, read from its source: rooms, imports, sizes, circular imports.

`python -m tests.support.rooms` prints it. All imports count: at the top, inside a
function, and for type checkers only (`if TYPE_CHECKING:`).
"""

from __future__ import annotations

import ast
import statistics
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import kloaders

PACKAGE = Path(kloaders.__file__).parent
TESTS = Path(__file__).parents[1]

#: From bottom to top. A module may import from its own room and from rooms in earlier lines; rooms
#: in one line must not import each other.
ROOMS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("plan",),
    ("places",),
    ("formats",),
    ("keras_api",),
    ("sources",),
    ("engine",),
    ("diagnostics",),
    ("loaders",),
    ("training", "convert", "interop", "migrate"),
    ("cli",),
)
#: The modules of `import kloaders` and `python -m kloaders`: they may import all rooms, but no room them.
FRONT_DOOR = ("kloaders", "kloaders.__main__")
LEVEL = {room: level for level, line in enumerate(ROOMS) for room in line}


class Class(NamedTuple):
    """A class, with its size."""

    name: str
    lines: int
    methods: int


@lru_cache
def modules() -> dict[str, Path]:
    """Each module of the package, by its dotted name; packages too."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = ["kloaders", *file.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def is_package(name: str) -> bool:
    return modules()[name].name == "__init__.py"


def room_of(name: str) -> str:
    """The room of a module; "" for the front door."""
    return "" if name in FRONT_DOOR else name.split(".")[1]


@lru_cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def lines_of(name: str) -> int:
    return len(modules()[name].read_text(encoding="utf-8").splitlines())


def imports_of(name: str) -> set[str]:
    """The modules of this package that a module imports, anywhere in it and for whatever purpose."""
    package = name if is_package(name) else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in modules()}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                above = ".".join(parents[: len(parents) - node.level + 1])
                base = f"{above}.{base}" if base else above
            if base in modules():
                inner = {f"{base}.{alias.name}" for alias in node.names}
                found |= {one if one in modules() else base for one in inner}
    return found - {name}


@lru_cache
def arrows() -> frozenset[tuple[str, str]]:
    """(module, what it imports), all of them."""
    return frozenset((name, other) for name in modules() for other in imports_of(name))


def runs_up(name: str, other: str) -> bool:
    """Whether an import goes where the table does not allow it."""
    if name in FRONT_DOOR:
        return False
    if other in FRONT_DOOR:
        return True
    here, there = room_of(name), room_of(other)
    return here != there and LEVEL[here] <= LEVEL[there]


def in_circles() -> list[set[str]]:
    """Modules that import each other, directly or through others; one set per cycle."""
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for name, other in arrows():
        graph[name].add(other)
    reached = {name: _reachable(graph, name) for name in graph}
    knots: list[set[str]] = []
    for name in graph:
        knot = {other for other in reached[name] if name in reached[other]}
        if knot and knot not in knots:
            knots.append(knot)
    return knots


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph[name]
    return found


def classes_of(name: str) -> list[Class]:
    """The classes at the top of a module."""
    return [
        Class(
            f"{name}.{node.name}",
            (node.end_lineno or node.lineno) - node.lineno + 1,
            sum(isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) for one in node.body),
        )
        for node in tree_of(name).body
        if isinstance(node, ast.ClassDef)
    ]


def test_file_of(name: str) -> Path:
    """The path of a module's tests: tests/<room>/test_<module>.py."""
    _, *folders, module = name.split(".")
    return TESTS.joinpath(*folders, f"test_{module}.py")


def code() -> list[str]:
    """Modules that have something to test: no `__init__`, which only names, and no `__main__`."""
    return [n for n in modules() if not is_package(n) and not n.endswith("__main__")]


def table() -> str:
    """The rooms, what each may import and what it does import, and sizes."""
    lines = ["room         level modules  lines median  imports (how often)"]
    for level, line in enumerate(ROOMS):
        for room in line:
            own = [name for name in code() if room_of(name) == room]
            sizes = [lines_of(name) for name in own] or [0]
            others: dict[str, int] = {}
            for name, other in arrows():
                if room_of(name) == room != room_of(other):
                    mark = "!" if runs_up(name, other) else ""
                    key = mark + (room_of(other) or "kloaders")
                    others[key] = others.get(key, 0) + 1
            named = ", ".join(f"{key} {count}" for key, count in sorted(others.items()))
            lines.append(
                f"{room:<13}{level:>5}{len(own):>8}{sum(sizes):>7}"
                f"{statistics.median(sizes):>7.0f}  {named}"
            )
    lines.append("A room may import those of lower levels. ! marks an import that it may not have.")
    return "\n".join(lines)


def report() -> str:
    """The table, sizes of modules and classes, and circles."""
    sizes = sorted(((lines_of(name), name) for name in code()), reverse=True)
    classes = sorted((one for name in code() for one in classes_of(name)), key=lambda c: -c.lines)
    many = max(classes, key=lambda c: c.methods)
    total = sum(lines_of(name) for name in modules())
    up = sorted(arrow for arrow in arrows() if runs_up(*arrow))
    median = statistics.median(size for size, _ in sizes)
    large = sum(size > 500 for size, _ in sizes)
    return "\n".join(
        [
            table(),
            "",
            f"{len(sizes)} modules, {total:,} lines, median {median:.0f}, {large} above 500",
            *(f"  {size:>5} {name}" for size, name in sizes[:10]),
            f"{len(classes)} classes, median {statistics.median(c.lines for c in classes):.0f} lines",
            *(f"  {c.lines:>5} lines, {c.methods:>3} methods: {c.name}" for c in classes[:10]),
            f"most methods: {many.methods} in {many.name}",
            f"imports that run up: {len(up)}",
            *(f"  {name} -> {other}" for name, other in up),
            f"circles: {len(in_circles())}",
            *("  " + ", ".join(sorted(knot)) for knot in in_circles()),
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(report() + "\n")
