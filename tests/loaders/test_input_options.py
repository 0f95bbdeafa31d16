"""Options of images by input: a size, an interpolation and channels for each."""

import cv2
import keras
import numpy as np
import pytest

import kloaders as kl
from kloaders.sources.columns import inner_column
from tests.support.recording import BACKEND, Received, Recorder

N = 12


@pytest.fixture
def pictures(tmp_path):
    """Pictures whose pixels are their numbers, of two sizes."""
    for name, side in (("a", 8), ("b", 6)):
        (tmp_path / name).mkdir()
        for n in range(N):
            cv2.imwrite(str(tmp_path / name / f"{n:02}.png"), np.full((side, side, 3), n, np.uint8))
    return {name: f"{tmp_path}/{name}/*.png" for name in "ab"}


OPTIONS = {"size": {"a": (4, 5), "b": 3}, "channels": {"a": 1}, "interpolation": {"b": "nearest"}}


@pytest.mark.parametrize("kind", [kl.PathSequenceLoader, kl.RamBatchSequenceLoader])
def test_each_input_has_its_own(pictures, keep, kind):
    more = {"ram_batch_size": 12} if kind is kl.RamBatchSequenceLoader else {"cache": "ram"}
    loader = keep(kind(pictures, np.arange(N), 4, shuffle=False, **OPTIONS, **more))
    for made in (loader, keep(loader.view()), keep(kl.split(loader, validation=0.25, seed=1)[0])):
        x, y = made[0]
        assert x["a"].shape == (4, 4, 5, 1)
        assert x["b"].shape == (4, 3, 3, 3)
        for name in "ab":
            assert x[name][:, 0, 0, 0].tolist() == y.tolist()
    columns = loader.source.columns[0].values()
    read = [inner_column(column).read_path.options for column in columns]
    assert [one.interpolation for one in read] == ["auto", "nearest"]


def test_a_model_trains_on_each_sample_once_an_epoch(pictures, keep):
    loader = keep(kl.PathSequenceLoader(pictures, np.zeros(N), 5, seed=1, **OPTIONS))
    received = Received()
    a = keras.Input((4, 5, 1), name="a")
    b = keras.Input((3, 3, 3), name="b")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1.0)(a))
    seen = Recorder(received)(flat)
    both = keras.layers.Concatenate()([seen, keras.layers.Flatten()(b)])
    model = keras.Model({"a": a, "b": b}, keras.layers.Dense(1)(both))
    model.compile("sgd", "mse", **({"jit_compile": False} if BACKEND == "tensorflow" else {}))
    model.fit(loader, epochs=2, verbose=0)
    trained = [n for batch in received.trained for n in batch]
    assert sorted(trained[:N]) == sorted(trained[N:]) == list(range(N))


def test_front_doors_pass_them_on(pictures, tmp_path, keep):
    folders = {name: tmp_path / name for name in "ab"}
    whole, _ = kl.from_folders(folders, validation=None, batch_size=4, **OPTIONS)
    assert {name: x.shape[1:] for name, x in keep(whole)[0].items()} == {
        "a": (4, 5, 1),
        "b": (3, 3, 3),
    }


def test_a_pack_made_with_other_options_is_another_one(pictures, tmp_path, keep):
    for side in (3, 4):
        options = {**OPTIONS, "size": {"a": (4, 5), "b": side}}
        loader = keep(kl.PathSequenceLoader(pictures, np.arange(N), 4, **options))
        kl.write_pack(loader, tmp_path / "pack", progress=False, overwrite=side == 4)
        pack = keep(kl.PackSequenceLoader(tmp_path / "pack", 4))
        assert pack[0][0]["b"].shape == (4, side, side, 3)


class Own(kl.PathSequenceLoader):
    def load_sample(self, path):
        return cv2.imread(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda p: kl.PathSequenceLoader(p["a"], size={"a": 4}),
            "is a dict by input, and paths is a str",
        ),
        (
            lambda p: kl.PathSequenceLoader(p, size={"c": 4}),
            "names 'c', expected some of the inputs: 'a', 'b'",
        ),
        (lambda p: kl.PathSequenceLoader(p, size={}), "expected some of the inputs"),
        (
            lambda p: kl.PathSequenceLoader(p, size={"a": "big"}),
            "size='big', expected two whole numbers",
        ),
        (lambda p: kl.PathSequenceLoader(p, channels={"a": 2}), "channels=2, expected 1"),
        (
            lambda p: kl.PathSequenceLoader(p, np.arange(N), size={"a": 4}).set(size=3),
            "options of their own",
        ),
        (lambda p: Own(p, size={"a": 4}), "Own reads files itself"),
        (
            lambda p: kl.PathSequenceLoader(p, lambda path: path, size={"a": 4}),
            r"labels are files and size= is a dict.*label_options",
        ),
    ],
    ids=["one", "unknown", "empty", "size", "channels", "set", "hook", "labels"],
)
def test_what_cannot_be_meant(pictures, make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make(pictures)


def test_labels_that_are_files_have_the_size_that_is_said(pictures, keep):
    loader = keep(
        kl.PathSequenceLoader(
            pictures, lambda path: path, 4, size={"a": 4}, label_options={"size": 2}
        )
    )
    x, y = loader[0]
    assert (x["a"].shape[1], x["b"].shape[1], y.shape[1]) == (4, 6, 2)
