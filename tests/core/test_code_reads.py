"""What code reads from outside: globals, attributes, imports, those of inner functions too."""

from __future__ import annotations

from typing import Any

from kloaders.core.code_reads import Import, reads_of, stored_attributes


def code_of(text: str) -> Any:
    names: dict[str, Any] = {}
    exec(text, names)
    return names["f"].__code__


def test_globals_of_inner_functions_and_classes() -> None:
    text = """
def f(x):
    class Inner:
        here = OUTER
        def method(self):
            return DEEP
    local = 1
    return [TABLE[k] for k in x], lambda: local + LAMBDA
"""
    reads = reads_of(code_of(text))
    assert {"DEEP", "TABLE", "LAMBDA"} <= reads.globals
    assert "OUTER" in reads.perhaps | reads.globals
    assert not {"local", "x", "Inner"} & reads.globals


def test_attributes_of_the_first_argument() -> None:
    """What is read of `self`, apart from what is read of anything."""
    text = """
def f(self, path):
    self.seen = path.name
    return self.scale, (lambda: self.deep), getattr(self, 'by_name'), path.stem
"""
    reads = reads_of(code_of(text))
    assert reads.of_self == {"scale", "deep"}
    assert {"scale", "deep", "name", "stem", "by_name"} <= reads.attributes
    assert stored_attributes(code_of(text)) == {"seen"}


def test_imports() -> None:
    text = """
def f():
    import os.path as p
    from ..near import thing
    from . import other
"""
    reads = reads_of(code_of(text))
    assert reads.imports == {Import("os.path", 0), Import("near", 2), Import("", 1)}
    assert {"thing", "other", "path"} <= reads.attributes


def test_super_and_methods() -> None:
    text = "def f(self):\n  return super().load(self.make(1))"
    reads = reads_of(code_of("class C:\n  pass\n" + text))
    assert {"load", "make"} <= reads.attributes
    assert "make" in reads.of_self
