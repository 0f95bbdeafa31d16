"""How a user's function is called, by its signature."""

import functools
import pickle

import pytest

from kloaders.core.calls import Call
from kloaders.core.checks import call_of

VALUES = {"x": "x", "y": "y", "w": "w", "rng": "rng", "epoch": 5}


def plain(x, y, rng):
    return x, y, rng


def weighed(x, y, w, rng):
    return x, y, w, rng


def own_names(image, mask, importance, generator):
    return image, mask, importance, generator


def last(x, y, rng, w, epoch):
    return x, y, rng, w, epoch


def keyword(x, y, rng, *, epoch):
    return x, y, rng, epoch


def defaults(x, y, rng, strength=2, epoch=0):
    return x, y, rng, strength, epoch


class Called:
    def __call__(self, x, y, rng, epoch):
        return x, y, rng, epoch


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (plain, ("x", "y", "rng")),
        (weighed, ("x", "y", "w", "rng")),
        (own_names, ("x", "y", "w", "rng")),
        (last, ("x", "y", "rng", "w", 5)),
        (keyword, ("x", "y", "rng", 5)),
        (defaults, ("x", "y", "rng", 2, 5)),
        (Called(), ("x", "y", "rng", 5)),
        (functools.partial(defaults, strength=3), ("x", "y", "rng", 3, 5)),
        (lambda *a: a, ("x", "y", "rng")),
        (lambda x, *rest, epoch: (x, *rest, epoch), ("x", "y", "rng", 5)),
    ],
    ids=[
        "plain",
        "w",
        "own names",
        "last",
        "keyword",
        "defaults",
        "object",
        "partial",
        "*",
        "*, epoch",
    ],
)
def test_a_function_gets_what_it_takes(function, got):
    assert call_of(function, "transform")(**VALUES) == got


def test_a_default_stays_where_there_is_nothing():
    """A loader without weights: `w=...` of a closure keeps its value."""

    def closure(x, y, rng, w=3):
        return w

    assert call_of(closure, "transform")(**{**VALUES, "w": None}) == 3
    assert call_of(weighed, "transform")(**{**VALUES, "w": None}) == ("x", "y", None, "rng")


def test_what_is_plain_is_called_directly():
    assert call_of(plain, "transform").plain
    assert not call_of(weighed, "transform").plain
    assert not call_of(defaults, "transform").plain
    assert call_of(max, "transform").plain  # no signature


@pytest.mark.parametrize(
    "function",
    [
        3,
        lambda x, y: x,
        lambda x, y, w: x,
        lambda a, b, c, d, e: a,
        lambda x, y, rng, *, more: x,
        lambda x, y, rng, more: x,
    ],
    ids=["number", "two", "no rng", "five", "keyword", "rng is no w"],
)
def test_what_takes_something_else_is_refused(function):
    with pytest.raises(TypeError, match=r"expected a function transform\(x, y, rng\)"):
        call_of(function, "transform")


def test_preprocess_may_do_without_random_numbers_and_has_no_epoch():
    assert call_of(lambda x, y: (x, y), "preprocess")(**VALUES) == ("x", "y")
    with pytest.raises(TypeError, match="the same in each epoch"):
        call_of(keyword, "preprocess")


def test_the_form_is_that_of_another_function():
    form = Call(weighed, "f", ("x", "y", "rng"), ("w",)).form()
    assert pickle.loads(pickle.dumps(form)).call(own_names, **VALUES) == ("x", "y", "w", "rng")
