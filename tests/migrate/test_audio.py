"""audio_dataset_from_directory beside Keras' own: the same files, parts, labels and sounds."""

import numpy as np
import pytest

from kloaders.migrate import audio_dataset_from_directory

soundfile = pytest.importorskip("soundfile", reason="needs the extra [audio]")
N = 21


@pytest.fixture
def sounds(tmp_path):
    """Files with their number in the first frame, of two rates, in folders of three classes."""
    for n in range(N):
        folder = tmp_path / "abc"[n % 3]
        folder.mkdir(exist_ok=True)
        frames = np.full((30 + n % 4, 1), (n + 1) / 64)
        soundfile.write(folder / f"{n:02}.wav", frames, 8000, subtype="PCM_16")
    (tmp_path / "a" / "notes.txt").write_text("not a sound")
    return tmp_path


def batches_of(loader):
    return list(loader.epoch_batches(0, shuffle=False))


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": False},
        {"shuffle": False, "label_mode": "categorical"},
        {"shuffle": False, "label_mode": None},
        {"shuffle": False, "class_names": ["c", "a", "b"]},
        {"shuffle": False, "output_sequence_length": 25},
        {"shuffle": False, "output_sequence_length": None},
        {
            "shuffle": False,
            "validation_split": 0.3,
            "subset": "both",
            "output_sequence_length": None,
        },
        {"shuffle": False, "validation_split": 0.3, "subset": "training"},
        {"shuffle": False, "validation_split": 0.3, "subset": "validation"},
        {"seed": 5, "validation_split": 0.3, "subset": "both"},
    ],
    ids=str,
)
def test_batches_are_those_of_keras(sounds, options):
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    options = {"output_sequence_length": 33, "batch_size": 4, "verbose": False, **options}
    theirs = keras.utils.audio_dataset_from_directory(sounds, **options)
    ours = audio_dataset_from_directory(sounds, **options)
    if options.get("subset") != "both":
        theirs, ours = (theirs,), (ours,)
    for dataset, loader in zip(theirs, ours, strict=True):
        if options.get("label_mode", "int") is not None:
            assert loader.class_names == dataset.class_names
        found = batches_of(loader)
        wanted = [
            tuple(np.asarray(a) for a in (b if isinstance(b, tuple) else (b,))) for b in dataset
        ]
        if options.get("shuffle") is not False:  # another order, of the same files
            found, wanted = (in_order(batches) for batches in (found, wanted))
        for one, other in zip(found, wanted, strict=True):
            mine = one if isinstance(one, tuple) else (one,)
            for a, b in zip(mine, other, strict=True):
                np.testing.assert_array_equal(a, b)
                assert a.dtype == b.dtype


def in_order(batches):
    x, y = (np.concatenate([batch[k] for batch in batches]) for k in (0, 1))
    order = np.argsort(x[:, 0, 0])
    return [(x[order], y[order])]


def test_resampled_and_without_a_length(sounds):
    options = {"batch_size": 1, "shuffle": False, "verbose": False}
    (x, _) = audio_dataset_from_directory(sounds, **options)[3]
    assert x.shape == (1, 31, 1)  # number 9
    (x, _) = audio_dataset_from_directory(sounds, sampling_rate=16000, **options)[3]
    assert x.shape == (1, 62, 1)


def test_a_model_trains_on_each_file_once_an_epoch(sounds):
    import keras

    from tests.support.recording import BACKEND, Received, Recorder

    loader = audio_dataset_from_directory(sounds, output_sequence_length=8, batch_size=4, seed=1)
    received = Received()
    inputs = keras.Input((8, 1))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(64.0)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(Recorder(received)(flat)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, **({"jit_compile": False} if BACKEND == "tensorflow" else {}))
    model.fit(loader, epochs=2, verbose=0)
    trained = [n - 1 for batch in received.trained for n in batch]
    assert sorted(trained[:N]) == sorted(trained[N:]) == list(range(N))


def test_what_has_no_counterpart_is_named(sounds, tmp_path):
    for options, words in [
        ({"ragged": True}, "ragged=True is not supported"),
        ({"label_mode": "words"}, "label_mode='words' is not known"),
        ({"validation_split": 0.2}, "pass both, or neither"),
        ({"sampling_rate": 0}, "sampling_rate=0"),
    ]:
        with pytest.raises(ValueError, match=words):
            audio_dataset_from_directory(sounds, **options)
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"has no files that end in \.wav"):
        audio_dataset_from_directory(tmp_path / "empty")


@pytest.mark.parametrize("name", ["sampling_rate", "output_sequence_length"])
def test_a_number_that_is_too_small_is_named_as_the_user_named_it(sounds, name):
    with pytest.raises(ValueError, match=f"^{name}=-1 is too small, expected at least 1"):
        audio_dataset_from_directory(sounds, **{name: -1})
