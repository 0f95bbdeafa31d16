"""bfloat16, a type that NumPy knows by ml_dtypes: in and out of all that keeps, casts and serves samples."""

import keras
import numpy as np
import pytest

import kloaders as kl

ml_dtypes = pytest.importorskip("ml_dtypes")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
X = np.arange(24, dtype=np.float32).reshape(12, 2).astype(BFLOAT16)
Y = (np.arange(12) % 2).astype(np.float32)


@pytest.fixture
def loader(keep):
    return keep(kl.ArraySequenceLoader(X, Y, 4, seed=1, sample_weights=Y.astype(BFLOAT16) + 1))


def check(found):
    x, y = found[:2]
    assert x.dtype == BFLOAT16
    np.testing.assert_array_equal(x.astype(np.float32), X[4:8].astype(np.float32))
    assert y.tolist() == Y[4:8].tolist()


def test_arrays_preload_transform_and_dtype(loader, keep):
    check(loader[1])
    assert loader[1][2].dtype == np.float32
    assert loader[1][2].tolist() == [1, 2, 1, 2]
    check(keep(kl.preload(loader, progress=False))[1])
    check(keep(kl.ArraySequenceLoader(X.astype(np.float32), Y, 4, dtype="bfloat16"))[1])

    def twice(x, y, rng):
        return x * BFLOAT16.type(2) / BFLOAT16.type(2), y

    check(keep(kl.ArraySequenceLoader(X, Y, 4, transform=twice))[1])


def test_packs_and_tfrecord_files(loader, keep, tmp_path):
    kl.write_pack(loader, tmp_path / "pack", progress=False)
    check(keep(kl.PackSequenceLoader(tmp_path / "pack", 4))[1])
    kl.write_tfrecords(loader, out=tmp_path / "r", progress=False)
    check(keep(kl.TFRecordSequenceLoader(f"{tmp_path}/r*", batch_size=4))[1])


class Own(kl.PathSequenceLoader):
    def load_sample(self, path):
        return np.load(path).astype(BFLOAT16)


@pytest.mark.parametrize("kind", [kl.PathSequenceLoader, Own])
@pytest.mark.parametrize("cache", ["ram", "folder"])
def test_caches(tmp_path, keep, cache, kind):
    for n in range(12):
        np.save(tmp_path / f"{n:02}.npy", X[n].astype(np.float32))
    place = tmp_path / "cache" if cache == "folder" else cache
    options = {} if kind is Own else {"dtype": "bfloat16"}
    loader = keep(kind(f"{tmp_path}/*.npy", Y, 4, cache=place, shuffle=False, **options))
    for _ in range(2):
        check([loader[k] for k in range(3)][1])
    if cache == "folder":  # another run
        check(keep(kind(f"{tmp_path}/*.npy", Y, 4, cache=place, shuffle=False, **options))[1])


def test_npy_files_forget_the_type_and_the_error_says_what_to_do(tmp_path, keep):
    np.save(tmp_path / "a.npy", X[0])
    with pytest.raises(kl.SampleError, match=r"loses dtypes such as bfloat16.*view"):
        keep(kl.PathSequenceLoader([tmp_path / "a.npy"]))[0]


def test_a_model_trains(loader):
    losses = []
    for data in (loader, kl.ArraySequenceLoader(X.astype(np.float32), Y, 4, sample_weights=Y + 1)):
        model = keras.Sequential(
            [keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")]
        )
        model.compile("sgd", "mse")
        losses.append(model.evaluate(data, verbose=0))
        assert np.isfinite(model.fit(data, epochs=1, verbose=0).history["loss"]).all()
        assert model.predict(data, verbose=0).shape == (12, 1)
    np.testing.assert_allclose(*losses, rtol=1e-2)
