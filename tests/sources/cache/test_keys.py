"""What decides a cached array: options and functions, by value."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
import textwrap
import threading
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kloaders as kl
from kloaders.sources.cache.keys import key_of
from tests.sources.cache.pictures import ALL, BATCH, ROOT, SAMPLES, numbers


def test_other_options_are_another_cache(pictures, tmp_path, keep):
    """The size, the interpolation, the dtype, the decoder and its code."""
    folder = tmp_path / "cache"
    shapes = []
    for options in ({"size": (2, 2)}, {"size": (3, 3)}, {"channels": 1}, {"dtype": "float32"}):
        loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=folder, **options))
        x = loader[0]
        shapes.append((x.shape, x.dtype.name))
        assert numbers(loader) == ALL
    assert len(set(shapes)) == 4
    assert len(os.listdir(folder)) == 4


def test_another_code_is_another_cache(pictures, tmp_path, keep):
    folder = tmp_path / "cache"
    for decode in (lambda raw: np.full((1, 1, 1), 5), lambda raw: np.full((1, 1, 1), 6)):
        loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=folder, decode=decode))
        assert numbers(loader) == [int(decode(b"")[0, 0, 0])] * SAMPLES


@given(st.integers(), st.integers())
def test_keys_tell_options_apart(a, b):
    assert (key_of("", [a, "x"], {}) == key_of("", [b, "x"], {})) == (a == b)


# ---------------------------------------------------------------- functions by value


def filled_with(value):
    return np.full((1, 1, 1), value, np.uint8)


def closure(value):
    return lambda raw: filled_with(value)


def default(value):
    def decode(raw, value=value):
        return filled_with(value)

    return decode


def keyword_default(value):
    def decode(raw, *, value=value):
        return filled_with(value)

    return decode


def partial(value):
    return functools.partial(decode_with, value=value)


def decode_with(raw, value):
    return filled_with(value)


class Callable:
    def __init__(self, value):
        self.value = value

    def __call__(self, raw):
        return filled_with(self.value)


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __call__(self, raw):
        return filled_with(self.value)


def bound_method(value):
    return Callable(value).__call__


def of_the_class(value):
    class Decoder:
        scale = value

        def __call__(self, raw):
            return filled_with(self.scale)

    return Decoder()


def global_value(value):
    """A function whose global is this, in a module of its own, as a script or notebook has it."""
    return in_module("def decode(raw): return filled_with(VALUE)", VALUE=value)


def helper(value):
    """The function that it calls differs."""
    text = "def helper(): return {}\ndef decode(raw): return filled_with(helper())"
    return in_module(text.format(value))


def helper_of_a_helper(value):
    """They call each other, so that there is no end."""
    text = """
        def first(n): return second(n - 1) if n else {}
        def second(n): return first(n)
        def decode(raw): return filled_with(first(3))
    """
    return in_module(text.format(value))


def module_of_the_users(value):
    """`import settings` at the top, and `settings.value()` inside."""
    settings = types.ModuleType("settings_of_the_user")
    exec(f"def value(): return {value}", vars(settings))
    return in_module("def decode(raw): return filled_with(settings.value())", settings=settings)


def imported_inside(value):
    """The import is inside the function."""
    name = "settings_imported_inside"
    sys.modules[name] = types.ModuleType(name)
    exec(f"def value(): return {value}", vars(sys.modules[name]))
    text = f"def decode(raw):\n  from {name} import value\n  return filled_with(value())"
    return in_module(text)


def wrapped(value):
    """The outer function, which a decorator made, has one code for both."""

    def decorator(function):
        @functools.wraps(function)
        def outer(*arguments):
            return function(*arguments)

        return outer

    return decorator(closure(value))


def lru_cached(value):
    return functools.lru_cache(closure(value))


def array(value):
    table = np.arange(256).reshape(16, 16)
    table[3, 4] = value
    return lambda raw: filled_with(table[3, 4])


def inner_function(value):
    def decode(raw):
        def inner():
            return value

        return filled_with(inner())

    return decode


def class_inside(value):
    class Inner:
        def value(self):
            return value

    return lambda raw: filled_with(Inner().value())


def dataclass(value):
    @dataclasses.dataclass
    class Settings:
        value: int
        others: list[int] = dataclasses.field(default_factory=list)

    settings = Settings(value)
    return lambda raw: filled_with(settings.value)


def entry(value):
    settings = {"deep": [{"value": value}]}
    return lambda raw: filled_with(settings["deep"][0]["value"])


def in_module(text, **names):
    inside = {"__name__": "a_users_module", "filled_with": filled_with, **names}
    exec(textwrap.dedent(text), inside)
    return inside["decode"]


WAYS = [
    *(closure, default, keyword_default, partial, Callable, Slotted, bound_method, of_the_class),
    *(global_value, helper, helper_of_a_helper, module_of_the_users, imported_inside, wrapped),
    *(lru_cached, array, inner_function, class_inside, dataclass, entry),
]


@pytest.mark.parametrize("way", WAYS)
def test_another_value_is_another_cache(pictures, tmp_path, keep, way):
    """Wherever the function has it from: what one made is never served for another."""
    for value in (5, 6, 5):
        decode = way(value)
        loader = keep(kl.PathSequenceLoader(pictures, None, BATCH, cache=tmp_path, decode=decode))
        assert numbers(loader) == [value] * SAMPLES
    keys = [name for name in os.listdir(tmp_path) if not name.endswith(".png")]
    assert len(keys) == 2  # and the third one was served from the first


def class_attribute(value, kind):
    class Own(kind):
        scale = value

        def load_sample(self, path):
            return filled_with(self.scale)

    return Own


def base_class(value, kind):
    class Base(kind):
        def number(self):
            return value

    class Own(Base):
        def load_sample(self, path):
            return filled_with(self.number())

    return Own


def super_class(value, kind):
    class Base(kind):
        def load_sample(self, path):
            return filled_with(value)

    class Own(Base):
        def load_sample(self, path):
            return super().load_sample(path)

    return Own


def set_after(value, kind):
    """Attributes are set after `super().__init__()`, as there is hardly another way."""

    class Own(kind):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.number = value

        def load_sample(self, path):
            return filled_with(self.number)

    return Own


def set_before(value, kind):
    class Own(kind):
        def __init__(self, *arguments, **options):
            self.number = value
            super().__init__(*arguments, **options)

        def load_sample(self, path):
            return filled_with(getattr(self, "number"))  # noqa: B009

    return Own


def a_property(value, kind):
    class Own(kind):
        _number = value

        @property
        def number(self):
            return self._number

        def load_sample(self, path):
            return filled_with(self.number)

    return Own


def given_to_a_function(value, kind):
    """The hook hands itself over."""

    def number_of(loader):
        return loader.number

    class Own(kind):
        number = value

        def load_sample(self, path):
            return filled_with(number_of(self))

    return Own


def all_of_it(value, kind):
    class Own(kind):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.number = value

        def load_sample(self, path):
            return filled_with(vars(self)["num" + "ber"])

    return Own


HOOKS = [
    *(class_attribute, base_class, super_class, set_after, set_before, a_property),
    *(given_to_a_function, all_of_it),
]


@pytest.mark.parametrize("way", HOOKS)
def test_another_hook_is_another_cache(pictures, tmp_path, keep, way):
    """Wherever load_sample has its value from: class, instance, base class, property."""
    for value in (5, 6, 5):
        kind = way(value, kl.PathSequenceLoader)
        loader = keep(kind(pictures, None, BATCH, cache=tmp_path))
        assert numbers(loader) == [value] * SAMPLES
    assert len([name for name in os.listdir(tmp_path) if not name.endswith(".png")]) == 2


def test_a_hook_over_decode(pictures, tmp_path, keep):
    """What load_sample of our own class calls counts as well."""

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path):
            return super().load_sample(path)

    for value in (5, 6):
        options = {"cache": tmp_path, "decode": closure(value)}
        assert numbers(keep(Own(pictures, None, BATCH, **options))) == [value] * SAMPLES


def test_a_setting_that_a_hook_reads(pictures, tmp_path, keep):
    """seed= counts where the hook reads it, and a plain option that it does not read does not."""

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path):
            np.random.RandomState(3).seed(4)  # an attribute of that name, but not the loader's
            return filled_with(self.seed + len(self.paths))

    for seed, batch in ((1, 4), (2, 4), (1, 3)):
        options = {"cache": tmp_path, "seed": seed}
        assert set(numbers(keep(Own(pictures, None, batch, **options)))) == {seed + SAMPLES}
    assert len([name for name in os.listdir(tmp_path) if not name.endswith(".png")]) == 2


def test_decoders_of_records(tmp_path, keep):
    """A feature's own decode= is told apart, too."""
    source = kl.ArraySequenceLoader(np.zeros((6, 3), np.uint8))
    (file,) = kl.write_tfrecords(source, None, tmp_path / "all", progress=False).files
    for value in (5, 6):
        features = {"x": kl.Feature("x", decode=closure(value))}
        options = {"features": features, "cache": tmp_path / "kept", "batch_size": 3}
        assert numbers(keep(kl.TFRecordSequenceLoader(file, **options))) == [value] * 6


# ---------------------------------------------------------------- what has no value


def with_lock():
    lock = threading.Lock()

    def decode(raw):
        with lock:
            return filled_with(5)

    return decode


def with_file():
    opened = open(os.devnull)  # noqa: SIM115
    return lambda raw: filled_with(len(opened.read()))


def with_generator():
    rng = np.random.default_rng()
    return lambda raw: filled_with(rng.integers(9))


class Model:
    def get_weights(self):
        return []


def with_model():
    model = Model()
    return lambda raw: filled_with(len(model.get_weights()))


def with_nothing_yet():
    return in_module("def decode(raw): return filled_with(DEFINED_LATER)")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (with_lock, r"variable 'lock' of decode\(\) of decode= \(of type _thread.lock\)"),
        (with_file, r"variable 'opened' of <lambda>\(\) of decode= .*TextIOWrapper"),
        (with_generator, r"variable 'rng' of .* \(a random generator"),
        (with_model, r"variable 'model' of .* \(a model, .*Model\)"),
        (with_nothing_yet, r"global 'DEFINED_LATER' of .*not defined yet"),
    ],
)
def test_what_cannot_be_compared_is_refused(pictures, tmp_path, keep, make, said):
    """By a sentence that names it, and an option that helps; in RAM nothing needs a name."""
    with pytest.raises(ValueError, match=rf"(?s)cache=.*kept.*{said}.*cache_key="):
        kl.PathSequenceLoader(pictures, None, BATCH, cache=tmp_path / "kept", decode=make())
    keep(kl.PathSequenceLoader(pictures, None, BATCH, cache="ram", decode=make()))


def test_a_hook_that_cannot_be_compared(pictures, tmp_path, keep):
    """It is no sample's fault: nothing is skipped, and nothing listed."""

    class Own(kl.PathSequenceLoader):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.lock = threading.Lock()

        def load_sample(self, path):
            with self.lock:
                return filled_with(5)

    options = {"on_error": "skip", "quarantine": tmp_path / "bad.csv"}
    loader = keep(Own(pictures, None, BATCH, cache=tmp_path / "kept", **options))
    with pytest.raises(ValueError, match=r"self.lock of Own.load_sample\(\).*cache_key=") as caught:
        loader[0]
    assert not isinstance(caught.value, kl.SampleError)
    assert not loader.errors
    loader = keep(Own(pictures, None, BATCH, cache=tmp_path / "kept", cache_key="1", **options))
    assert numbers(loader) == [5] * SAMPLES


def test_the_users_own_key(pictures, tmp_path, keep):
    """cache_key= stands for the functions: another text is another cache, the same one the same."""
    served = []
    for value, key in ((5, "five"), (6, "six"), (7, "five")):
        options = {"cache": tmp_path / "kept", "cache_key": key, "decode": closure(value)}
        served.append(numbers(keep(kl.PathSequenceLoader(pictures, None, BATCH, **options)))[0])
    assert served == [5, 6, 5]
    with pytest.raises(TypeError, match="cache_key=3 is int"):
        kl.PathSequenceLoader(pictures, cache_key=3)
    with pytest.raises(ValueError, match='cache_key="" is empty'):
        kl.PathSequenceLoader(pictures, cache_key="")


def test_keys_of_other_processes(tmp_path):
    """The key of a function is the same in any process, whatever order its sets have there."""
    code = """
        import re
        from kloaders.sources.cache.keys import key_of
        names = {"a", "bc", "def", "ghij"}
        table = {name: len(name) for name in sorted(names)}
        def decode(raw, kinds=frozenset(names)):
            return table[raw] if raw in {"a", "bc", "x"} or re.match("y", raw) else names
        print(key_of("", [1], {"decode=": decode}))
    """
    keys = set()
    for seed in "123":
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        keys.add(done.stdout)
    assert len(keys) == 1


def test_our_own_functions_have_a_lasting_name():
    """Moving a module of ours is no reason to decode all again."""
    here = kl.albumentations_transform
    moved = types.FunctionType(
        here.__code__, {**here.__globals__, "__name__": "kloaders.elsewhere"}
    )
    moved.__defaults__ = here.__defaults__
    assert key_of("", [], {"decode=": here}) == key_of("", [], {"decode=": moved})
