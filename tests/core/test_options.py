"""Options: one default, one check, one line in the docs, and every signature shows them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.options import (
    GROUPS,
    CacheOptions,
    FaultOptions,
    Options,
    OrderOptions,
    RamOptions,
    TransformOptions,
    WorkOptions,
    defaults,
    shows_options,
)

PAGE = Path(__file__).parents[2] / "docs" / "options.md"
LOADERS = {name: getattr(kl, name) for name in kl.__all__ if name.endswith("SequenceLoader")}
# Types that are written out in words on the page.
IN_WORDS = ("Any", "Transform", "Decode", "PathLike", "Mapping")


class Row(NamedTuple):
    """A line of the table in the docs."""

    type: str
    default: str
    loaders: frozenset[str]


def rows() -> dict[str, list[Row]]:
    """The table, by the name of the option; classes by their full names."""
    found: dict[str, list[Row]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("| `"):
            continue
        name, kind, default, where, meaning = (cell.strip() for cell in line.split("|")[1:-1])
        assert meaning, name
        found.setdefault(name.strip("`"), []).append(Row(kind, default.strip("`"), classes(where)))
    return found


def classes(text: str) -> frozenset[str]:
    """ "all", "all but Video" or "Path, RamBatch", as full names."""
    whole, _, without = text.partition("all but ")
    named = {
        "SequenceLoader" if short == "Sequence" else f"{short}SequenceLoader"
        for short in (without or whole).replace(" ", "").split(",")
    }
    if text == "all":
        return frozenset(LOADERS)
    assert named <= set(LOADERS), text
    return frozenset(set(LOADERS) - named if without else named)


def parameters(loader: Any) -> dict[str, inspect.Parameter]:
    """What a class takes beside its data."""
    found = inspect.signature(loader.__init__).parameters
    return {
        name: one
        for name, one in found.items()
        if one.kind is one.KEYWORD_ONLY or name == "batch_size"
    }


@pytest.fixture(scope="module")
def table() -> dict[str, list[Row]]:
    if not PAGE.exists():
        pytest.skip("docs/ is not beside these tests")
    return rows()


@pytest.mark.parametrize("name", LOADERS)
def test_every_signature_shows_all_options(name):
    """`help` and editors list each option; no loader hides them in **options."""
    found = inspect.signature(LOADERS[name].__init__).parameters
    assert not [one for one in found.values() if one.kind is one.VAR_KEYWORD]
    assert set(defaults()) <= set(found)


@pytest.mark.parametrize("name", LOADERS)
def test_the_docs_have_every_option(name, table):
    """Name, type and default of each option of each loader, in one line that is for this loader."""
    for option, parameter in parameters(LOADERS[name]).items():
        lines = [row for row in table.get(option, []) if name in row.loaders]
        assert len(lines) == 1, f"docs/options.md has {len(lines)} lines for {name}({option}=)"
        (row,) = lines
        default = "" if parameter.default is parameter.empty else parameter.default
        assert ast.literal_eval(row.default or '""') == default, f"{name}({option}=)"
        annotation = str(parameter.annotation).strip("'")
        if not any(word in annotation for word in IN_WORDS):
            plain = re.sub(r"Literal\[(.*)\]", r"\1", annotation).replace(" | ", ", ")
            assert row.type.replace("`", "").replace("'", '"') == plain.replace("'", '"'), option


def test_the_docs_have_no_other_option(table):
    for option, lines in table.items():
        for row in lines:
            for name in row.loaders:
                assert option in parameters(LOADERS[name]), f"{name} has no {option}="


def test_the_typed_dict_has_every_option():
    """What editors and type checkers know is what there is."""
    assert set(Options.__annotations__) == set(defaults())


@pytest.mark.parametrize("option", defaults())
def test_the_docstring_has_every_option(option):
    """`use_multiprocessing` is only there to be refused."""
    if option != "use_multiprocessing":
        assert re.search(rf"^\s+{option}: ", kl.SequenceLoader.__doc__, re.MULTILINE)


def test_an_option_is_in_one_group_only():
    names = [
        option.name
        for group in GROUPS.values()
        for option in dataclasses.fields(group)
        if option.metadata.get("option", True)
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("group", [*GROUPS.values(), RamOptions])
def test_a_group_is_frozen(group):
    value = group()
    name = dataclasses.fields(group)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, 1)


@pytest.mark.parametrize(
    ("group", "options", "words"),
    [
        (OrderOptions, {"shuffle": "yes"}, "shuffle='yes'"),
        (OrderOptions, {"seed": -1}, "seed=-1"),
        (OrderOptions, {"shard": (2, 2)}, "shard"),
        (OrderOptions, {"drop_last": True, "pad_last": True}, "contradict"),
        (TransformOptions, {"transform": 3}, "transform=3"),
        (TransformOptions, {"dtype": "image"}, "dtype='image'"),
        (WorkOptions, {"workers": -1}, "workers=-1"),
        (WorkOptions, {"processes": True, "workers": 0}, "needs workers=1"),
        (WorkOptions, {"use_multiprocessing": True}, "processes=True"),
        (FaultOptions, {"on_error": "ignore"}, "on_error='ignore'"),
        (FaultOptions, {"max_errors": 3}, "max_errors"),
        (CacheOptions, {"cache_budget": "much"}, "cache_budget='much'"),
        (CacheOptions, {"cache_key": 2}, "cache_key=2"),
        (RamOptions, {"ram_batch_size": 8, "ram_budget": "1GB"}, "choose one"),
        (RamOptions, {"draw": "all"}, "draw='all'"),
    ],
)
def test_a_group_checks_itself(group, options, words):
    """Each value is checked where it is stored, whoever makes it."""
    with pytest.raises((TypeError, ValueError)) as caught:
        group(**options)
    assert words in str(caught.value)


def test_a_replaced_group_is_checked_as_well():
    """`dataclasses.replace` is how loaders are made from loaders."""
    with pytest.raises(ValueError, match="needs workers=1"):
        dataclasses.replace(WorkOptions(processes=True), workers=0)


def test_a_seed_that_nobody_chose_is_drawn_once():
    """From NumPy's global generator, and a copy keeps it."""
    np.random.seed(5)
    first = OrderOptions()
    np.random.seed(5)
    assert OrderOptions().number == first.number
    copy = dataclasses.replace(first, drop_last=True)
    assert (copy.number, copy.seed_drawn) == (first.number, True)
    assert not OrderOptions(seed=3).seed_drawn


def test_shown_options_stand_after_the_functions_own():
    """The decorator lists the keys of a TypedDict, with the defaults that every loader has."""

    def own(*, size: int = 3) -> None: ...

    @shows_options(Options, own)
    def make(data: Any, *, size: int = 3, **options: Any) -> None: ...

    found = inspect.signature(make).parameters
    assert list(found) == ["data", "size", *Options.__annotations__]
    assert found["cache"].default == "auto"
