"""Pictures and their masks out of two folders, or more."""

import cv2
import keras
import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import BACKEND, Received, Recorder, numbers_of

N = 12


@pytest.fixture
def folders(tmp_path):
    """Pictures whose pixels are their numbers, masks of the same numbers, and depths in .npy."""
    for name in ("images", "masks", "depths"):
        (tmp_path / name).mkdir()
    for n in range(N):
        cv2.imwrite(str(tmp_path / f"images/{n:02}.png"), np.full((8, 8, 3), (100, 0, n), np.uint8))
        cv2.imwrite(str(tmp_path / f"masks/{n:02}.bmp"), np.full((8, 8), n, np.uint8))
        np.save(tmp_path / f"depths/{n:02}.npy", np.full((4, 4, 1), n, np.float32))
    return tmp_path


def test_a_model_receives_each_picture_with_its_mask(folders, keep):
    received = Received()
    inputs = keras.Input((4, 4, 3), dtype="uint8")
    seen = keras.layers.Rescaling(1.0)(Recorder(received)(inputs))
    output = keras.layers.Conv2D(1, 1)(seen)
    model = keras.Model(inputs, keras.layers.Concatenate()([output, seen]))

    def loss(y, p):
        return keras.ops.mean(0.0 * p, axis=-1)

    def mismatch(y, p):
        return keras.ops.max(keras.ops.abs(keras.ops.cast(y[..., 0], "float32") - p[..., 1]))

    options = {"jit_compile": False} if BACKEND == "tensorflow" else {}
    model.compile("sgd", loss, metrics=[mismatch], **options)
    train, val = kl.from_folders(
        folders / "images", folders / "masks", batch_size=4, size=(4, 4), validation=0.25, seed=1
    )
    history = model.fit(keep(train), validation_data=keep(val), epochs=2, verbose=0).history
    assert max(history["mismatch"]) == max(history["val_mismatch"]) == 0
    trained = [n for batch in received.trained[:3] for n in batch]
    known = [n for x, _ in val.epoch_batches() for n in numbers_of(x)]
    assert sorted(trained + known) == list(range(N))
    assert len(trained) == 9


def test_several_folders_have_names(folders, keep):
    train, none = kl.from_folders(
        {"image": folders / "images", "depth": folders / "depths"},
        labels={"mask": folders / "masks"},
        validation=None,
        batch_size=5,
        shuffle=True,
        seed=1,
    )
    assert none is None
    seen = []
    for x, y in keep(train).epoch_batches():
        numbers = numbers_of(x["image"])
        assert x["depth"][:, 0, 0, 0].tolist() == numbers == y["mask"][:, 0, 0, 0].tolist()
        seen += numbers
    assert sorted(seen) == list(range(N))


def test_what_is_left_out_is_logged(folders, keep, caplog):
    (folders / "masks/03.bmp").unlink()
    cv2.imwrite(str(folders / "masks/05.bmp"), np.zeros((8, 4), np.uint8))
    train, val = kl.from_folders(folders / "images", folders / "masks", size=(4, 4), seed=1)
    assert keep(train).samples + keep(val).samples == N - 1
    assert "because they have no partner: 1 of" in caplog.text
    assert "03.png" in caplog.text
    assert "05.png is 8 x 8" in caplog.text


def test_groups_stay_on_one_side(folders, keep):
    train, val = kl.from_folders(
        folders / "images",
        folders / "masks",
        groups=lambda path: int(path[-6:-4]) // 3,
        validation=0.25,
        seed=1,
    )
    sides = [
        {n // 3 for x, _ in keep(part).epoch_batches() for n in numbers_of(x)}
        for part in (train, val)
    ]
    assert not sides[0] & sides[1]


def test_another_loader_and_a_format_of_ones_own(folders, keep):
    for n in range(N):
        np.full(3, n, "<f4").tofile(folders / f"depths/{n:02}.raw")
    train, _ = kl.from_folders(
        folders / "images",
        folders / "depths",
        extensions=(".png", ".raw"),
        label_options={"decode": lambda data: np.frombuffer(data, "<f4")},
        loader=kl.RamBatchSequenceLoader,
        ram_batch_size=8,
        batch_size=4,
        seed=1,
    )
    x, y = keep(train)[0]
    assert y[:, 0].tolist() == numbers_of(x)


REFUSED = {
    "one folder": (("images",), ValueError, "from_directory"),
    "no path": (("images", 3), TypeError, "labels contains 3 .int."),
    "none": (({},), ValueError, "inputs is empty"),
    "not there": (("images", "mask"), FileNotFoundError, "mask does not exist"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_named(name, folders, monkeypatch):
    monkeypatch.chdir(folders)
    arguments, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        kl.from_folders(*arguments)


def test_validation_has_a_transform_of_its_own(folders, keep):
    def training(x, y, rng):
        return x + np.uint8(100), y

    def known(x, y, rng):
        return x, y + np.uint8(50)

    train, val = kl.from_folders(
        folders / "images",
        folders / "masks",
        validation=0.25,
        validation_transform=known,
        transform=training,
        seed=1,
    )
    x, y = keep(train)[0]
    assert (x[..., 0] == np.uint8(y[..., 0] + 100)).all()
    x, y = keep(val)[0]
    assert (y[..., 0] == x[..., 0] + 50).all()
    with pytest.raises(ValueError, match="validation_transform= is for the validation part"):
        kl.from_folders(
            folders / "images", folders / "masks", validation=None, validation_transform=known
        )
