"""What the names of other libraries are answered with: nothing wrong, and what works."""

import inspect

import numpy as np
import pytest

import kloaders as kl
from kloaders.core import meant
from kloaders.core.options import Options

LOADERS = [
    kl.ArraySequenceLoader,
    kl.CsvSequenceLoader,
    kl.PackSequenceLoader,
    kl.PathSequenceLoader,
    kl.RamBatchSequenceLoader,
    kl.SequenceLoader,
    kl.TFRecordSequenceLoader,
    kl.TextLineSequenceLoader,
    kl.VideoSequenceLoader,
]


def options_of(kind):
    return [p.name for p in inspect.signature(kind).parameters.values() if p.kind == p.KEYWORD_ONLY]


PATH = options_of(kl.PathSequenceLoader)

# What people type who come from Keras, torch or tf.data, and a word of what they are told.
TYPED = {
    "image_size": "size=(height, width)",
    "target_size": "size=(height, width)",
    "img_size": "size=(height, width)",
    "buffer_size": "shuffle=",
    "prefetch": "max_queue_size=",
    "color_mode": "channels= here: 3 for RGB",
    "augment": "transform(x, y, rng)",
    "map": "transform(x, y, rng)",
    "preprocessing_function": "of (x, y, rng)",
    "classes": "class_names=[...]",
    "label_mode": "from_directory(folder, label_mode=...)",
    "validation_split": "split(loader, validation=0.2)",
    "test_size": "split(loader, validation=0.2)",
    "num_workers": "workers=",
    "collate_fn": "batch_transform=",
    "steps": "epoch_batches=",
    "steps_per_epoch": "epoch_batches=",
    "num_parallel_calls": "workers=",
    "drop_remainder": "drop_last=",
    "random_state": "seed=",
    "class_mode": "label_mode",
    "batchsize": "batch_size=",
    "bs": "batch_size=",
    "patches": "samples_per_file=4",
    "epochs": "fit(epochs=...)",
    "pin_memory": "leave it out",
    "x_col": "from_dataframe",
    "sampler": "sampling_weights=",
    "loader": "decode=",
    "verbose": "logging",
    "horizontal_flip": "transform=",
}


@pytest.mark.parametrize(("name", "words"), TYPED.items(), ids=list(TYPED))
def test_names_of_other_libraries(name, words):
    said = meant.meant_by(name, PATH)
    assert said is not None
    assert words in said
    with pytest.raises(TypeError) as caught:
        kl.PathSequenceLoader(["a.png"], **{name: 1})
    assert str(caught.value) == f"PathSequenceLoader has no option {name}=: {said}"


def test_the_first_of_several_that_a_loader_has_is_meant():
    assert "preprocess= here" in meant.meant_by(
        "preprocessing_function", ["preprocess", "transform"]
    )
    assert "transform= here" in meant.meant_by("preprocessing_function", ["transform"])


@pytest.mark.parametrize(
    "name", ["zzz", "colour", "foo", "quality", "gamma", "kind", "hello_world", "beta", "amount"]
)
def test_nothing_is_guessed_for_what_nobody_knows(name):
    assert meant.meant_by(name, PATH) is None
    with pytest.raises(TypeError, match=f"no option {name}=: it has .*seed"):
        kl.PathSequenceLoader(["a.png"], **{name: 1})


def test_an_option_of_other_loaders_is_not_promised():
    assert meant.meant_by("image_size", list(Options.__annotations__)) is None


@pytest.mark.parametrize("name", PATH)
def test_a_misspelt_option_is_found(name):
    """A letter left out; another option must not be meant by it."""
    misspelt = name[:-2] + name[-1]
    if len(name) > 5 and misspelt not in PATH:
        assert meant.meant_by(misspelt, PATH) == f"did you mean {name}=?"


def test_the_table_holds_no_option_of_a_loader_that_would_hide_it():
    """An answer is for names that no loader has; and what it names is an option of some loader."""
    everything = {name for kind in LOADERS for name in options_of(kind)}
    listed = [name for row in (*meant._OPTIONS, *meant._ELSEWHERE) for name in row.names.split()]
    assert len(listed) == len(set(listed))
    for kind in LOADERS:
        for name in set(options_of(kind)) & set(listed):
            assert name == "classes", f"{name} is an option of {kind.__name__}"
    for row in meant._OPTIONS:
        assert any(option in everything for option in row.ours), row


def test_a_mixture_is_told_where_an_option_goes(tmp_path):
    """`mix(size=)` is not "did you mean seed"."""
    for k in range(4):
        np.save(tmp_path / f"{k}.npy", np.zeros(3))
    loader = kl.PathSequenceLoader([tmp_path / f"{k}.npy" for k in range(4)], batch_size=2)
    with pytest.raises(ValueError, match=r"mix\(size=\): pass size= to the loaders"):
        kl.mix([loader, loader.view()], size=(2, 2))
    with pytest.raises(
        TypeError, match="a mixture has no option image_size=: it has class_weight, seed"
    ):
        kl.mix([loader, loader.view()], image_size=(2, 2))


def test_split_of_a_loader():
    loader = kl.ArraySequenceLoader(np.arange(10), batch_size=2)
    with pytest.raises(
        TypeError, match=r"split\(\) has no option test_size=: split\(loader, valid"
    ):
        kl.split(loader, test_size=0.2)
    with pytest.raises(TypeError, match="pass these to ArraySequenceLoader"):
        kl.split(loader, shuffle=True)


def test_options_of_labels(tmp_path):
    with pytest.raises(
        TypeError, match=r"'image_size', which is not an image option: that is size="
    ):
        kl.PathSequenceLoader(["a.png"], ["b.png"], label_options={"image_size": (2, 2)})
