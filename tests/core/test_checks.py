"""Checks of options: what they return, and what a wrong value is told."""

import numpy as np
import pytest

from kloaders.core import checks


@pytest.mark.parametrize("value", [3, np.int32(3), np.array(3)])
def test_counts(value):
    found = checks.checked_count(value, "batch_size", 1)
    assert found == 3
    assert type(found) is int


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0, ValueError, r"batch_size=0 is too small, expected at least 1, as in batch_size=32"),
        (True, TypeError, "batch_size=True is bool"),
        (np.True_, TypeError, "is bool"),
        (2.0, TypeError, "batch_size=2.0 is float"),
        ("2", TypeError, "is str"),
        (None, TypeError, "is NoneType"),
    ],
)
def test_what_is_no_count(value, error, words):
    with pytest.raises(error, match=words):
        checks.checked_count(value, "batch_size", 1)


def test_flags():
    assert checks.checked_flag(np.True_, "mask") is True
    with pytest.raises(TypeError, match="mask=1: choose True or False"):
        checks.checked_flag(1, "mask")


def test_shuffle():
    assert [checks.checked_shuffle(v) for v in (None, True, np.False_)] == [None, True, False]
    with pytest.raises(TypeError, match="shuffle='yes': choose None"):
        checks.checked_shuffle("yes")


@pytest.mark.parametrize(("given", "found"), [(None, (0, 1)), ((1, 3), (1, 3)), ([0, 2], (0, 2))])
def test_shards(given, found):
    assert checks.checked_shard(given) == found


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ((2, 2), ValueError, "k counts from 0 to n - 1"),
        ((-1, 2), ValueError, "0 <= k < n"),
        (3, TypeError, r"expected \(k, n\)"),
        ((1, 2, 3), TypeError, r"expected \(k, n\)"),
        ((0.5, 2), TypeError, r"expected \(k, n\)"),
    ],
)
def test_what_is_no_shard(given, error, words):
    with pytest.raises(error, match=words):
        checks.checked_shard(given)


@pytest.mark.parametrize(
    ("given", "found"), [(None, None), ("uint8", "u1"), (">f4", "f4"), (np.float16, "f2")]
)
def test_dtypes_are_native(given, found):
    checked = checks.checked_dtype(given)
    assert checked == (None if found is None else np.dtype(found))
    assert checked is None or checked.isnative


@pytest.mark.parametrize("given", ["colour", "U3", object, complex, "datetime64[s]"])
def test_what_is_no_dtype_of_numbers(given):
    with pytest.raises(TypeError, match="dtype="):
        checks.checked_dtype(given)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (True, "ram"),
        (np.True_, "ram"),
        (False, None),
        (None, None),
        ("auto", "auto"),
        ("a/b", "a/b"),
    ],
)
def test_caches(given, found):
    assert checks.checked_cache(given) == found


def test_what_is_no_cache():
    with pytest.raises(TypeError, match='cache=3: choose "auto", "ram" or True, a folder, or None'):
        checks.checked_cache(3)


def test_an_unknown_option_gets_the_one_that_may_be_meant():
    checks.check_names("Loader", {"seed": 1}, ["seed", "shuffle"])
    with pytest.raises(TypeError, match=r"Loader has no option shufle=: did you mean shuffle=\?"):
        checks.check_names("Loader", {"shufle": 1}, ["seed", "shuffle"])
    with pytest.raises(TypeError, match="it has seed, shuffle"):
        checks.check_names("Loader", {"zzz": 1}, ["seed", "shuffle"])


@pytest.mark.parametrize("name", ["transform", "batch_transform"])
def test_what_other_libraries_transform_with(name):
    """Each is called unlike a transform is, and would fail with the first sample."""
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.RandomFlip()])
    for layer in (model, keras.layers.RandomFlip()):
        with pytest.raises(
            TypeError, match=f"{name}=.*a Keras layer: .*=keras_transform"
        ) as caught:
            checks.call_of(layer, name)
        assert len(str(caught.value)) < 400
    of_albumentations = type(
        "Compose", (), {"__call__": lambda s, *a, **k: 0, "__module__": "albumentations.core"}
    )
    with pytest.raises(TypeError, match=r"transform=albumentations_transform\(pipeline\)"):
        checks.call_of(of_albumentations(), name)
    of_torch = type(
        "Module", (), {"__call__": lambda s, *a, **k: 0, "__module__": "torch.nn.modules"}
    )
    one = type("Flip", (of_torch,), {"forward": lambda s, image: image})
    with pytest.raises(TypeError, match="a module of torch, which needs its own tensors"):
        checks.call_of(one(), name)
    three = type("Mine", (of_torch,), {"forward": lambda s, x, y, rng: (x, y)})()
    assert checks.call_of(three, name).function is three


def test_names_of_classes():
    assert checks.checked_class_names(("cat", "dog")) == ["cat", "dog"]
    with pytest.raises(TypeError, match="class_names='cat', expected a list of texts"):
        checks.checked_class_names("cat")
    with pytest.raises(TypeError, match="expected a list of texts"):
        checks.checked_class_names(["cat", 1])
    with pytest.raises(ValueError, match="class_names holds 'cat' twice"):
        checks.checked_class_names(["cat", "dog", "cat"])
