"""Arrays padded each to its own longest: what fills them up, and samples that do not fit. No Keras."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.errors import SampleError

RNG = np.random.default_rng(0)
SAMPLES = 37
ENCODER = [np.full(RNG.integers(1, 9), k + 1) for k in range(SAMPLES)]
DECODER = [np.full((RNG.integers(1, 5), 2), k + 1) for k in range(SAMPLES)]
IMAGES = [np.full((*RNG.integers(2, 7, 2), 3), k + 1, np.uint8) for k in range(SAMPLES)]
BOXES = [np.full((RNG.integers(0, 4), 4), k + 1, np.float32) for k in range(SAMPLES)]
SPECTRA = [np.full((3, RNG.integers(1, 9)), k + 1, np.float32) for k in range(SAMPLES)]
TABLE = np.arange(1, SAMPLES + 1)
X = {"encoder": ENCODER, "decoder": DECODER, "image": IMAGES, "spectrum": SPECTRA, "table": TABLE}


def padded(*, x=X, y=BOXES, pad=None, **options):
    loader = kl.ArraySequenceLoader(x, y, 5, **{"seed": 1, "shuffle": True, **options})
    return kl.padded_batches(loader, **{"label_pad_value": -1, **(pad or {})})


def filled(arrays, numbers, value):
    """These samples in one array, by plain loops."""
    rows = [np.asarray(arrays[k]) for k in numbers]
    out = np.full((len(rows), *np.max([row.shape for row in rows], axis=0)), value, rows[0].dtype)
    for row, array in zip(out, rows, strict=True):
        row[tuple(slice(n) for n in array.shape)] = array
    return out


@pytest.mark.parametrize(
    "options",
    [{}, {"workers": 0}, {"workers": 3}, {"processes": True, "workers": 2}, {"shuffle": False}],
)
def test_each_array_is_padded_to_its_own_longest(options, keep):
    seen = []
    for x, y in keep(padded(pad={"pad_value": 0}, **options)).epoch_batches(1):
        numbers = (x["table"] - 1).tolist()
        seen += numbers
        for name, arrays in X.items():
            if name != "table":
                np.testing.assert_array_equal(x[name], filled(arrays, numbers, 0))
        np.testing.assert_array_equal(y, filled(BOXES, numbers, -1))
    assert sorted(seen) == list(range(SAMPLES))


def test_what_varies_is_said():
    x, y = padded().delivered_spec()
    shapes = {name: spec.shape for name, spec in x.items()}
    assert shapes == {
        "encoder": (None,),
        "decoder": (None, 2),
        "image": (None, None, 3),
        "spectrum": (3, None),
        "table": (),
    }
    assert y.shape == (None, 4)
    assert "each array padded to its maximum" in padded().summary()


def test_labels_need_a_value():
    with pytest.raises(
        ValueError, match=r"y differs in shape: pass label_pad_value= to padded_batches"
    ):
        padded(pad={"label_pad_value": None})[0]


def test_weights_are_filled_up_with_0():
    weights = [np.ones(len(one), np.float32) for one in ENCODER]
    loader = padded(x=ENCODER, y=ENCODER, sample_weights=weights)
    for x, y, w in loader.epoch_batches():
        np.testing.assert_array_equal(w, (x > 0).astype("float32"))
        np.testing.assert_array_equal(y > 0, x > 0)


def test_samples_of_one_shape_stay():
    x, y = padded(x=np.ones((7, 3)), y=np.arange(7), shuffle=False)[0]
    assert x.shape == (5, 3)
    assert y.tolist() == [0, 1, 2, 3, 4]


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{k:02}.npy" for k in range(20)]
    for k, path in enumerate(paths):
        np.save(path, np.full((1 + k % 7, 2), k + 1, np.float32))
    paths[4].write_bytes(b"no array")
    return paths


@pytest.mark.parametrize(("policy", "left"), [("skip", 19), ("replace", 20)])
@pytest.mark.parametrize("processes", [False, True])
def test_a_broken_sample_is_skipped_or_replaced(files, keep, policy, left, processes):
    """Whatever it is replaced by, a batch is as long as its longest."""
    loader = kl.PathSequenceLoader(
        files, np.arange(20), 5, seed=1, on_error=policy, processes=processes, workers=2
    )
    seen = []
    for x, y in keep(kl.padded_batches(loader)).epoch_batches(shuffle=True):
        np.testing.assert_array_equal(
            x, filled([np.full((1 + k % 7, 2), k + 1, np.float32) for k in range(20)], y, 0)
        )
        seen += y.tolist()
    assert len(seen) == left
    assert 4 not in seen


def test_another_axis_than_was_seen_is_named():
    x = [np.zeros((1 + k % 3, 2)) for k in range(9)] + [np.zeros((1, 5))] + [np.zeros((1, 2))]
    loader = kl.padded_batches(kl.ArraySequenceLoader(x, batch_size=4), look=3)
    with pytest.raises(SampleError, match=r"row 9.*x is \(1, 5\), but axis 1 .*look=None"):
        list(loader.epoch_batches())
    every = kl.padded_batches(kl.ArraySequenceLoader(x, batch_size=4), look=None)
    assert [batch.shape for batch in every.epoch_batches()] == [(4, 3, 2), (4, 3, 2), (3, 3, 5)]


def test_another_number_of_axes_is_no_matter_of_padding():
    x = [np.zeros((2, 2)), np.zeros((3, 2)), np.zeros(3)]
    with pytest.raises(SampleError, match="shape"):
        kl.padded_batches(kl.ArraySequenceLoader(x, batch_size=3))[0]


def test_a_pack_of_samples_of_any_shape(tmp_path):
    kl.write_pack(kl.ArraySequenceLoader(ENCODER, TABLE, 4), tmp_path / "pack", progress=False)
    for x, y in kl.padded_batches(kl.PackSequenceLoader(tmp_path / "pack", 5, shuffle=True)):
        np.testing.assert_array_equal(x, filled(ENCODER, y - 1, 0))


def area(x, y):
    return x["image"].shape[0] * x["image"].shape[1]


def test_buckets_by_a_function():
    """Samples share a batch by what the function says; each array is as long as it must be."""
    loader = kl.ArraySequenceLoader(X, BOXES, 5, seed=1, shuffle=True)
    made = kl.bucket_by_length(loader, area, (12, 24, 36), label_pad_value=-1)
    seen, spread = [], []
    for x, _ in made.epoch_batches():
        numbers = (x["table"] - 1).tolist()
        seen += numbers
        np.testing.assert_array_equal(x["image"], filled(IMAGES, numbers, 0))
        np.testing.assert_array_equal(x["encoder"], filled(ENCODER, numbers, 0))
        areas = [IMAGES[k].shape[0] * IMAGES[k].shape[1] for k in numbers]
        spread.append(len(set(np.searchsorted((12, 24, 36), areas))))
    assert sorted(seen) == list(range(SAMPLES))
    assert spread.count(1) >= 4
    part = kl.subset(made, np.arange(10, 30))
    assert sorted(int(n) for x, _ in part for n in x["table"]) == list(range(11, 31))
