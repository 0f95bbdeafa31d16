"""Weights as the model gets them: from options, hooks and transforms, through whatever is made."""

from __future__ import annotations

import numpy as np
import pytest

import kloaders as kl
from tests.support.figures import texts

N = 12
X = np.arange(N * 16, dtype=np.float32).reshape(N, 4, 4)
Y = X.astype(np.int64) % 3
W = X.astype(np.float64) / 2


def flip(x, y, rng):
    return x[:, ::-1], y[:, ::-1]


def flip_all(x, y, w, rng):
    if rng.random() < 0.5:
        return x[:, ::-1], y[:, ::-1], w[:, ::-1]
    return x, y, w


def arrays(**options):
    return kl.ArraySequenceLoader(X, Y, 4, **{"seed": 3, "sample_weights": W, **options})


def of_epoch(loader, epoch=0, shuffle=True):
    """All of one epoch, sample by sample, without padding."""
    found = []
    for x, y, w in loader.epoch_batches(epoch, shuffle=shuffle):
        found += list(zip(x, y, w, strict=True))
    return found


def check(samples, count=N):
    """Each sample once, and its weights where its pixels are."""
    assert len(samples) == count
    for x, _, w in samples:
        assert w.dtype == np.float32
        np.testing.assert_array_equal(w, x / 2)
    return sorted(int(x.min()) // 16 for x, _, _ in samples)


def test_weights_move_with_their_pixels():
    loader = arrays(transform=flip_all)
    assert check(of_epoch(loader)) == list(range(N))
    moved = [int(x[0, 0]) % 4 for epoch in range(4) for x, _, _ in of_epoch(loader, epoch)]
    assert {0, 3} == set(moved)  # some are flipped


def test_weights_that_would_be_left_behind_are_an_error():
    with pytest.raises(kl.SampleError, match=r"shape \(4, 4\), which would stay untransformed"):
        arrays(transform=flip)[0]
    batch_flip = lambda x, y, rng: (x[:, :, ::-1], y[:, :, ::-1])  # noqa: E731
    with pytest.raises(TypeError, match="batch_transform takes only x and y"):
        arrays(batch_transform=batch_flip)[0]


def mapped(tmp_path):
    stored = np.memmap(tmp_path / "w", np.float64, "w+", shape=W.shape)
    stored[:] = W
    return {"sample_weights": stored}


def files(tmp_path):
    paths = [str(tmp_path / f"{k}.npy") for k in range(N)]
    for path, w in zip(paths, W, strict=True):
        np.save(path, w)
    return {"sample_weights": paths}


@pytest.mark.parametrize("given", [mapped, files], ids=["memory map", "files"])
@pytest.mark.parametrize(
    "options",
    [{}, {"workers": 0}, {"workers": 2, "processes": True}, {"pad_last": True, "batch_size": 5}],
    ids=["threads", "none", "processes", "padded"],
)
def test_whatever_they_are_read_from(given, options, tmp_path):
    loader = kl.ArraySequenceLoader(
        X, Y, **{"batch_size": 4, "seed": 3, **given(tmp_path), "transform": flip_all, **options}
    )
    with loader:
        batches = list(loader.epoch_batches(shuffle=True))
        if "pad_last" in options:
            assert batches[-1][2].shape == (5, 4, 4)
            assert not batches[-1][2][2:].any()
        samples = [one for batch in batches for one in zip(*batch, strict=True)][:N]
        assert check(samples) == list(range(N))


def one_number(x, y, w, rng):
    return x, y, w


def test_one_number_a_sample_reaches_a_transform_that_takes_it():
    numbers = np.arange(N)
    twice = lambda x, y, w, rng: (x, y, w * 2)  # noqa: E731
    for name in ("preprocess", "transform", "batch_transform"):
        loader = arrays(sample_weights=numbers, **{name: twice})
        got = np.concatenate([w for _, _, w in loader.epoch_batches(shuffle=False)])
        assert got.tolist() == (numbers * 2).tolist(), name
    every = dict.fromkeys(("preprocess", "transform", "batch_transform"), twice)
    got = arrays(sample_weights=numbers, **every)[0][2]
    assert got.tolist() == [0, 8, 16, 24]


def test_weights_of_several_places_are_multiplied():
    loader = arrays(
        sample_weights=np.arange(N),
        class_weight={0: 1, 1: 10, 2: 100},
        transform=lambda x, y, rng: (x, y, np.full((4, 4), 2.0)),
    )
    for k, (_x, y, w) in enumerate(of_epoch(loader, shuffle=False)):
        np.testing.assert_array_equal(w, k * 2 * 10.0**y)


class Weighing(kl.SequenceLoader):
    def load_sample(self, index):
        return X[index], Y[index], W[index]


class WeighingBatches(kl.SequenceLoader):
    def load_batch(self, indices):
        return X[indices], Y[indices], W[indices]


class WeighingFiles(kl.PathSequenceLoader):
    def load_sample(self, path):
        k = int(path.split(".")[0])
        return X[k], Y[k], W[k]


@pytest.mark.parametrize(
    "make",
    [
        lambda **o: Weighing(N, 4, **o),
        lambda **o: WeighingBatches(N, 4, **o),
        lambda **o: WeighingFiles([f"{k}.own" for k in range(N)], None, 4, check_paths=False, **o),
    ],
    ids=["load_sample", "load_batch", "files"],
)
@pytest.mark.parametrize("transform", [None, flip_all], ids=["plain", "transformed"])
def test_hooks_return_weights(make, transform):
    loader = make(seed=1, transform=transform)
    assert loader.has_weights
    assert check(of_epoch(loader)) == list(range(N))
    assert [len(loader.sample_spec), len(loader[0])] == [3, 3]
    with pytest.raises(kl.SampleError, match="already has weights"):
        make(sample_weights=W)[0]


def made(loader, tmp_path):
    """Loaders made of it, with the samples that each has."""
    yield loader.view(), N
    yield kl.subset(loader, [7, 1, 3]), 3
    yield kl.repeat(loader, 2), 2 * N
    yield from zip(kl.split(loader, validation=0.25, seed=1), (9, 3), strict=True)
    yield kl.preload(loader, progress=False), N
    kl.write_pack(loader, tmp_path / "pack", progress=False)
    yield kl.PackSequenceLoader(tmp_path / "pack", 4), N
    kl.write_tfrecords(loader, None, tmp_path / "records", progress=False)
    features = {"x": "x", "y": "label", "w": "weight"}
    yield kl.TFRecordSequenceLoader(str(tmp_path / "records*"), features, 4), N
    yield kl.mix([loader, loader.view()], seed=1), 2 * N


@pytest.mark.parametrize("make", [arrays, lambda: Weighing(N, 4, seed=1)], ids=["option", "hook"])
def test_what_is_made_carries_them(make, tmp_path):
    for loader, count in made(make(), tmp_path):
        shuffle = None if loader.sampling else False
        check(of_epoch(loader, shuffle=shuffle), count)


def test_ram_batches_carry_them(tmp_path):
    paths = [str(tmp_path / f"{k}.npy") for k in range(N)]
    for path, x in zip(paths, X, strict=True):
        np.save(path, x)
    for ram in (8, 12):
        loader = kl.RamBatchSequenceLoader(
            paths, Y, 4, sample_weights=W, ram_batch_size=ram, seed=1, transform=flip_all
        )
        with loader:
            loader.on_epoch_begin()
            samples = [one for k in range(3) for one in zip(*loader[k], strict=True)]
            loader.on_epoch_end()
        assert check(samples) == list(range(N))


def test_files_with_exclude_and_a_function_of_the_path(tmp_path):
    paths = [str(tmp_path / f"{k}.npy") for k in range(N)]
    for path, x in zip(paths, X, strict=True):
        np.save(path, x)
    bad = tmp_path / "bad.csv"
    bad.write_text(f"path\n{paths[2]}\n{paths[5]}\n")
    for given in (W, lambda path: np.load(path) / 2, np.arange(N)):
        loader = kl.PathSequenceLoader(paths, Y, 4, sample_weights=given, exclude=bad)
        samples = of_epoch(loader, shuffle=False)
        if isinstance(given, np.ndarray) and given.ndim == 1:
            assert [int(w) for _, _, w in samples] == [0, 1, 3, 4, *range(6, N)]
        else:
            assert check(samples, 10) == [0, 1, 3, 4, *range(6, N)]


def test_steps_of_unequal_length_are_padded_with_weight_0():
    lengths = [2, 5, 3, 4]
    x = [np.full((n, 1), n, np.float32) for n in lengths]
    y = [np.full(n, n) for n in lengths]
    w = [np.full(n, 1.0) for n in lengths]
    plain = kl.ArraySequenceLoader(x, y, 4, sample_weights=w)
    loader = kl.bucket_by_length(plain, boundaries=[5], label_pad_value=-1)
    _, labels, weights = loader[0]
    np.testing.assert_array_equal(weights, labels >= 0)
    assert weights.sum(axis=1).tolist() == lengths


def test_a_dataset_carries_them():
    y = {"a": Y[:, 0, 0], "b": Y}
    loader = kl.ArraySequenceLoader(
        X,
        y,
        5,
        sample_weights={"a": np.arange(N), "b": W},
        pad_last=True,
        class_weight={"a": "balanced"},
    )
    dataset = kl.to_tf_dataset(loader, shuffle=False)
    assert {k: tuple(v.shape) for k, v in dataset.element_spec[2].items()} == {
        "a": (5,),
        "b": (5, 4, 4),
    }
    for k, (_, _, w) in enumerate(dataset):
        np.testing.assert_array_equal(w["b"], loader[k][2]["b"])
        np.testing.assert_array_equal(w["a"], loader[k][2]["a"])


def test_a_native_dataset_carries_them_or_says_that_it_cannot(tmp_path):
    dataset = kl.to_tf_dataset(arrays(), shuffle=False, native=True)
    np.testing.assert_array_equal(np.concatenate([w for _, _, w in dataset]), W)
    for options in ({"class_weight": {0: 1, 1: 1, 2: 1}}, {"preprocess": lambda x, y: (x, y)}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}="):
            kl.to_tf_dataset(arrays(**options), native=True, shuffle=False)


def test_a_state_belongs_to_the_weights():
    loader = arrays(class_weight={0: 1.0, 1: 2.0, 2: 3.0})
    state = loader.state_dict(epoch=0, batch=1)
    loader.view().load_state_dict(state)
    other = arrays(sample_weights=W + 1, class_weight={0: 1.0, 1: 2.0, 2: 3.0})
    with pytest.raises(ValueError, match="weights was"):
        other.load_state_dict(state)
    with pytest.raises(ValueError, match="weights was"):
        arrays(class_weight={0: 1.0, 1: 2.0, 2: 4.0}).load_state_dict(state)


def test_a_picture_shows_them(tmp_path):
    pytest.importorskip("matplotlib")
    loader = kl.ArraySequenceLoader(
        X, {"a": Y[:, 0, 0], "b": Y}, 4, sample_weights={"a": np.arange(N), "b": W}
    )
    words = texts(loader.show(save=tmp_path / "a.png"))
    assert any("weight['b']" in one for one in words), words


# ---------------------------------------------------------------- class_weight=


def test_classes_are_for_training():
    loader = kl.ArraySequenceLoader(X, Y[:, 0, 0], 4, class_weight="balanced", seed=1)
    train, validation = kl.split(loader, seed=1)
    assert len(train[0]) == 3
    assert len(validation[0]) == 2


def test_classes_with_sample_weights_and_padding():
    labels = np.array([0] * 9 + [1] * 3)
    loader = kl.ArraySequenceLoader(
        X, labels, 5, sample_weights=np.arange(N), class_weight="balanced", pad_last=True
    )
    got = np.concatenate([w for _, _, w in loader.epoch_batches(shuffle=False)])
    want = np.arange(N) * np.where(labels, 2.0, 12 / 18)
    np.testing.assert_allclose(got, [*want, 0, 0, 0], rtol=1e-6)


def test_classes_need_labels():
    with pytest.raises(ValueError, match="class_weight= needs labels"):
        kl.ArraySequenceLoader(X, None, 4, class_weight={0: 1.0})[0]
    with pytest.raises(ValueError, match=r"pass it to mix\(\)"):
        kl.mix([arrays(class_weight={0: 1.0, 1: 1.0, 2: 1.0}), arrays()])
