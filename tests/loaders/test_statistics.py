"""Mean, variance and counts are NumPy's own of all samples at once."""

import keras
import numpy as np
import pytest

import kloaders as kl

RNG = np.random.default_rng(0)


def found_of(x, y=None, axis=-1, **options):
    loader = kl.ArraySequenceLoader(x, y, batch_size=7, **options)
    return kl.statistics(loader, axis=axis, progress=False)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64"])
@pytest.mark.parametrize(("axis", "kept"), [(-1, (0, 1, 2)), (0, (0, 2, 3)), (None, None)])
def test_moments_are_those_of_numpy(dtype, axis, kept):
    x = (RNG.random((2100, 3, 4, 2)) * 200 + 40).astype(dtype)
    found = found_of(x, axis=axis)
    np.testing.assert_allclose(found.mean, x.mean(axis=kept, dtype=float), rtol=1e-5)
    np.testing.assert_allclose(found.variance, x.var(axis=kept, dtype=float), rtol=1e-5)
    np.testing.assert_array_equal(found.minimum, x.min(axis=kept).astype("float32"))
    np.testing.assert_array_equal(found.maximum, x.max(axis=kept).astype("float32"))
    assert found.mean.dtype == np.float32
    assert found.samples == 2100
    assert found.class_counts is None


def test_small_differences_beside_a_large_mean_are_not_lost():
    x = 1e8 + RNG.random((5000, 2))
    np.testing.assert_allclose(found_of(x).variance, x.var(axis=0), rtol=1e-4)


def test_keras_normalizes_with_them():
    x = (RNG.random((300, 5)) * 9).astype("float32")
    found = found_of(x)
    layer = keras.layers.Normalization(mean=found.mean, variance=found.variance)
    done = np.asarray(keras.ops.convert_to_numpy(layer(x)))
    np.testing.assert_allclose(done.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(done.std(axis=0), 1, atol=1e-4)


def test_inputs_keep_their_structure():
    a, b = RNG.random((50, 3)), RNG.random(50)
    found = found_of({"a": a, "b": (b,)})
    np.testing.assert_allclose(found.mean["a"], a.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.mean["b"][0], b.mean(), rtol=1e-6)


def test_samples_of_unequal_shape_and_without_the_transform(tmp_path):
    x = [RNG.random((2 + k % 3, 4)) for k in range(20)]
    found = found_of(x, transform=lambda x, y, rng: (x * 0, y))
    np.testing.assert_allclose(found.mean, np.concatenate(x).mean(axis=0), rtol=1e-6)


COUNTS = {
    "numbers": (np.array([2, 0, 2, 2]), {0: 1, 2: 3}),
    "columns": (np.array([[2], [0], [2], [2]]), {0: 1, 2: 3}),
    "whole floats": (np.array([1.0, 0, 1, 1], np.float32), {0: 1, 1: 3}),
    "one-hot": (np.eye(3, dtype=np.float32)[[2, 0, 2, 2]], {0: 1, 2: 3}),
    "masks": (np.array([[0, 0, 1], [0, 1, 2], [0, 0, 0], [1, 1, 1]]), {0: 6, 1: 5, 2: 1}),
    "yes or no": (np.array([True, False, True, True]), {0: 1, 1: 3}),
    "amounts": (np.array([0.5, 1, 2, 3]), None),
    "several outputs": ((np.arange(4), np.arange(4)), None),
    "soft": (np.array([[0.5, 0.5]] * 4, np.float32), None),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_classes(name):
    y, want = COUNTS[name]
    assert found_of(np.zeros((4, 1)), y).class_counts == want


def test_classes_have_their_names():
    loader = kl.ArraySequenceLoader(np.zeros((4, 1)), np.array([2, 0, 2, 2]))
    loader.class_names = ["a", "b", "c"]
    assert kl.statistics(loader, progress=False).class_counts == {"a": 1, "b": 0, "c": 3}


@pytest.mark.parametrize(
    ("x", "axis", "words"),
    [
        (np.zeros((4, 3)), 1, "axis=1 of samples of shape .3,.: pass one from -1 to 0"),
        ([np.zeros((2, 2)), np.zeros((2, 3))], -1, "samples have 2 and 3 numbers along axis -1"),
    ],
)
def test_bad_input_is_named(x, axis, words):
    with pytest.raises(ValueError, match=words):
        found_of(x, axis=axis)


def test_what_is_no_loader_is_named():
    with pytest.raises(TypeError, match=r"statistics\(list\): expected a loader"):
        kl.statistics([np.zeros(3)])


def test_classes_of_the_only_output_have_its_names():
    loader = kl.ArraySequenceLoader(np.zeros(4), {"kind": np.array([2, 0, 2, 2])})
    loader.class_names = {"kind": ["a", "b", "c"]}
    assert kl.statistics(loader, progress=False).class_counts == {"a": 1, "b": 0, "c": 3}


def test_statistics_describe_themselves():
    """In a sentence, and as a table in a notebook."""
    x = {"a": np.arange(12.0).reshape(4, 3), "b": np.arange(4.0)}
    found = kl.statistics(kl.ArraySequenceLoader(x, np.array([0, 1, 1, 1]), 2), progress=False)
    assert str(found) == "Statistics of 4 samples, labels of 2 classes."
    shown = found._repr_html_()
    assert "4.5 5.5 6.5" in shown
    assert "class 1</td>" in shown
