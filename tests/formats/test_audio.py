"""Sound files: their frames, resampling, channels and length, and what is none."""

import io
import pickle
import sys

import numpy as np
import pytest

import kloaders as kl
from kloaders.formats.errors import DecodeError

soundfile = pytest.importorskip("soundfile", reason="needs the extra [audio]")


def sound(frames, rate=8000, kind="WAV"):
    file = io.BytesIO()
    soundfile.write(file, frames, rate, format=kind, subtype="PCM_16")
    return file.getvalue()


def tone(count, rate, hertz=440):
    return np.sin(2 * np.pi * hertz * np.arange(count) / rate).astype(np.float32) * 0.5


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_frames_are_those_of_the_file(kind):
    stored = np.stack([tone(100, 8000), -tone(100, 8000)], axis=1)
    found = kl.Audio()(sound(stored, kind=kind))
    assert (found.shape, found.dtype) == ((100, 2), np.float32)
    np.testing.assert_allclose(found, stored, atol=2**-14)
    assert kl.Audio()(sound(stored[:, 0], kind=kind)).shape == (100, 1)


def test_mono_is_the_mean():
    stored = np.stack([tone(100, 8000), tone(100, 8000) / 2], axis=1)
    found = kl.Audio(mono=True)(sound(stored))
    assert found.shape == (100, 1)
    np.testing.assert_allclose(found[:, 0], stored.mean(axis=1), atol=2**-14)


@pytest.mark.parametrize(("stored", "wanted"), [(8000, 16000), (44100, 16000), (16000, 8000)])
def test_another_rate_is_the_same_tone(stored, wanted):
    found = kl.Audio(rate=wanted)(sound(tone(stored, stored), stored))
    assert len(found) == wanted
    inner = slice(wanted // 10, -wanted // 10)
    np.testing.assert_allclose(found[inner, 0], tone(wanted, wanted)[inner], atol=2e-3)
    short = kl.Audio(rate=wanted, length=wanted // 2)(sound(tone(stored, stored), stored))
    np.testing.assert_allclose(short, found[: wanted // 2], atol=1e-6)


def test_length_cuts_and_fills_up():
    raw = sound(tone(100, 8000))
    np.testing.assert_array_equal(kl.Audio(length=60)(raw), kl.Audio()(raw)[:60])
    longer = kl.Audio(length=130)(raw)
    np.testing.assert_array_equal(longer[:100], kl.Audio()(raw))
    assert not longer[100:].any()


def test_what_is_no_sound_is_named():
    with pytest.raises(
        DecodeError, match=r"not a sound file, or damaged.*begins with b'not a sound"
    ):
        kl.Audio()(b"not a sound file at all")
    with pytest.raises(DecodeError, match="without frames"):
        kl.Audio()(sound(np.zeros(0)))
    for options, words in [({"rate": 0}, "rate=0"), ({"length": -1}, "length=-1")]:
        with pytest.raises(ValueError, match=words):
            kl.Audio(**options)
    with pytest.raises((TypeError, ValueError), match="mono"):
        kl.Audio(mono="yes")


def test_without_soundfile(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ImportError, match=r'pip install "kloaders\[audio\]"'):
        kl.Audio()(b"RIFF")


def test_it_pickles_and_compares():
    audio = kl.Audio(16000, mono=True)
    assert pickle.loads(pickle.dumps(audio)) == audio != kl.Audio(8000)


def speech(folder, count=12):
    """Files whose number is their level, in folders of two classes, with a text beside them."""
    for n in range(count):
        place = folder / "ab"[n % 2]
        place.mkdir(parents=True, exist_ok=True)
        frames = np.full((40 + n, 1 + n % 2), (n + 1) / 16)
        suffix = "wav" if n % 3 else "flac"
        soundfile.write(place / f"{n:02}.{suffix}", frames, 8000, subtype="PCM_16")
        (place / f"{n:02}.txt").write_text("what was said")
    return folder


def test_a_model_gets_a_folder_of_sounds(tmp_path):
    """Each file once an epoch, with the class of its folder; texts beside them are left out."""
    import keras

    from tests.support.recording import BACKEND, Received, Recorder

    train, val = kl.from_directory(
        speech(tmp_path),
        decode=kl.Audio(rate=8000, mono=True, length=32),
        batch_size=4,
        validation=0.5,
        seed=1,
    )
    assert (train.samples, val.samples, train.class_names) == (6, 6, ["a", "b"])
    assert val[0][0].shape == (4, 32, 1)
    numbers = [
        np.rint(x[:, 3, 0] * 16).astype(int) - 1 for x, _ in val.epoch_batches(0, shuffle=False)
    ]
    labels = [y for _, y in val.epoch_batches(0, shuffle=False)]
    assert (np.concatenate(numbers) % 2).tolist() == np.concatenate(labels).tolist()

    received = Received()
    inputs = keras.Input((32, 1))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(16.0)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(Recorder(received)(flat)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, **({"jit_compile": False} if BACKEND == "tensorflow" else {}))
    model.fit(train, epochs=2, verbose=0)
    trained = [n - 1 for batch in received.trained for n in batch]
    ours = sorted(set(range(12)) - set(np.concatenate(numbers).tolist()))
    assert sorted(trained[:6]) == sorted(trained[6:]) == ours


def test_a_folder_of_sounds_is_read_as_stored(tmp_path):
    """Without decode=; beside images they are left out, as other files are."""
    whole, _ = kl.from_directory(speech(tmp_path), validation=None, batch_size=1)
    x, y = whole[0]
    assert (whole.samples, x.shape, y.tolist()) == (12, (1, 40, 1), [0])
    with pytest.raises(ValueError, match="Convert them to one shape in decode="):
        kl.from_directory(tmp_path, validation=None, batch_size=4)[0][0]
    np.save(tmp_path / "a" / "row.npy", np.zeros(3))
    whole, _ = kl.from_directory(tmp_path, validation=None)
    assert whole.samples == 1


def test_a_broken_sound_is_named(tmp_path):
    folder = speech(tmp_path)
    (folder / "a" / "02.wav").write_bytes(b"RIFF broken")
    train, _ = kl.from_directory(
        folder, decode=kl.Audio(mono=True, length=8), validation=None, on_error="skip"
    )
    assert sum(len(x) for x, _ in train.epoch_batches(0)) == 11
    assert train.errors[0].name.endswith("02.wav")
