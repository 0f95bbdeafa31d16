"""Bad input: options."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kloaders as kl
from tests.support.bad_input import (
    BATCH,
    EVERY,
    WITH_LABELS,
    Files,
    Make,
    Own,
    array,
    labels,
    numbers,
    own,
    path,
    ram,
    read,
    refused,
)


def test_counts_that_are_none() -> None:
    """Whatever is no integer, or too small, is refused by name, value, type and bound."""
    for name in ("batch_size", "workers", "max_queue_size", "seed"):
        least = 1 if name == "batch_size" else 0
        with refused(ValueError, f"{name}={least - 1}", f"at least {least}"):
            Own(4, **{name: least - 1})
        for wrong in (True, np.True_, 2.0, np.float64(2), "2", [2]):
            kind = type(wrong).__name__
            with refused(TypeError, f"{name}={wrong!r}", kind, f"integer of at least {least}"):
                Own(4, **{name: wrong})


@EVERY
@pytest.mark.parametrize("wrong", [0, -3, True, 4.0, "4", None])
def test_batch_size(files: Files, make: Make, wrong: Any) -> None:
    """batch_size must be an integer of at least 1, for every loader."""
    kind = ValueError if type(wrong) is int else TypeError
    with refused(kind, f"batch_size={wrong!r}", "at least 1"):
        make(files, batch_size=wrong)


@EVERY
def test_any_integer_type_will_do(files: Files, make: Make) -> None:
    """NumPy's integers are integers."""
    assert len(make(files, batch_size=np.int64(4), workers=np.uint8(1), seed=np.int32(3))) == 3


@EVERY
@pytest.mark.parametrize("name", ["drop_last", "pad_last", "processes"])
@pytest.mark.parametrize("wrong", ["no", 1, None])
def test_flags(files: Files, make: Make, name: str, wrong: Any) -> None:
    """A text or a number is not taken for True."""
    with refused(TypeError, f"{name}={wrong!r}", "True or False"):
        make(files, **{name: wrong})


@EVERY
def test_options_that_contradict_each_other(files: Files, make: Make) -> None:
    """The short last batch is left out or filled up, not both."""
    with refused(ValueError, "drop_last=True", "pad_last=True", "choose one"):
        make(files, drop_last=True, pad_last=True)


@EVERY
def test_cache(files: Files, make: Make) -> None:
    """Impossible combinations with a cache are rejected, and the message names an alternative."""
    for fine in (None, "auto", False):
        assert len(make(files, cache=fine)) == 3
    for wrong in (5, 0.5):
        with refused(TypeError, f"cache={wrong!r}", '"auto"', '"ram"', "a folder", "None"):
            make(files, cache=wrong)
    with refused(ValueError, "cache_budget='much'", "4GiB"):
        make(files, cache_budget="much")
    if make is array:
        with refused(ValueError, "cache='ram'", "preload(loader)"):
            make(files, cache="ram")
    else:
        loader = make(files, cache=True)
        assert loader.cache == "ram"
        assert numbers(loader) == numbers(loader) == list(range(12))
        assert "cache: " in loader.summary()
    if make is own:
        with refused(ValueError, "cache='/tmp/there'", 'cache="ram"'):
            make(files, cache="/tmp/there")
    if make in (path, ram):
        with refused(ValueError, 'cache="ram"', "cache=<folder>"):
            make(files, cache="ram", processes=True)
        with refused(NotADirectoryError, files.npy[0], "folder"):
            make(files, cache=files.npy[0])


@EVERY
@pytest.mark.parametrize("wrong", ["ignore", None, True])
def test_on_error(files: Files, make: Make, wrong: Any) -> None:
    """on_error names its choices, and what each does."""
    with refused(ValueError, f"on_error={wrong!r}", '"raise"', '"skip"', '"replace"'):
        make(files, on_error=wrong)
    for known in ("raise", "skip", "replace"):
        make(files, on_error=known)


@EVERY
@pytest.mark.parametrize("wrong", ["yes", 1, 0, 0.5, "batch"])
def test_shuffle(files: Files, make: Make, wrong: Any) -> None:
    """shuffle names its choices; Keras' "batch" is none of them."""
    with refused(TypeError, f"shuffle={wrong!r}", "None", "True", "False"):
        make(files, shuffle=wrong)
    for known in (None, True, False, np.True_):
        make(files, shuffle=known)


@EVERY
@pytest.mark.parametrize("wrong", [(2, 2), (-1, 2), (0, 0), (5, 3)])
def test_shard_out_of_range(files: Files, make: Make, wrong: Any) -> None:
    """shard=(k, n) says how k counts."""
    with refused(ValueError, f"shard={wrong!r}", "0 <= k < n"):
        make(files, shard=wrong)


@EVERY
@pytest.mark.parametrize("wrong", [3, (0,), (0, 1, 2), "01", (0.0, 2), (None, 2)])
def test_shard_of_another_form(files: Files, make: Make, wrong: Any) -> None:
    """shard says what the pair means."""
    with refused(TypeError, f"shard={wrong!r}", "(k, n)"):
        make(files, shard=wrong)


@pytest.mark.parametrize("make", [array, path, own])
def test_shards_that_would_get_no_sample(files: Files, make: Make) -> None:
    """A last batch too short for all shards is named; each advice makes it work."""
    with refused(ValueError, "2 samples for 5 shards", "drop_last=True", "batch_size"):
        make(files, batch_size=2, shard=(0, 5))
    assert len(make(files, batch_size=2, shard=(0, 5), drop_last=True)) == 1
    assert len(make(files, batch_size=1, shard=(0, 4))) == 3


@EVERY
def test_drop_last_that_leaves_nothing(files: Files, make: Make) -> None:
    """Fewer samples than a batch: both ways out are named, and work."""
    options: dict[str, Any] = {"batch_size": 32, "drop_last": True}
    if make is ram:
        options["ram_batch_size"] = 64
    with refused(ValueError, "12 samples", "full batch of 32", "batch_size", "drop_last=False"):
        make(files, **options)
    assert len(make(files, **{**options, "batch_size": 12})) == 1
    assert len(make(files, **{**options, "drop_last": False})) == 1


@EVERY
@pytest.mark.parametrize("wrong", ["image", "datetime64[s]", object, "U5", 3])
def test_dtype(files: Files, make: Make, wrong: Any) -> None:
    """dtype shows what it got, and an example that works."""
    with refused(TypeError, f"dtype={wrong!r}", '"uint8"', '"float32"'):
        make(files, dtype=wrong)
    for known in ("uint8", np.float32, np.dtype("float64")):
        assert read(make(files, dtype=known))[0][0].dtype == known


@EVERY
def test_a_misspelt_option(files: Files, make: Make) -> None:
    """An option that does not exist is named."""
    with refused(TypeError, "shufle"):
        make(files, shufle=True)


@EVERY
@pytest.mark.parametrize("value", [True, 1])
def test_use_multiprocessing(files: Files, make: Make, value: Any) -> None:
    """Keras' process pool is refused, in the constructor and later; ours is named, and works."""
    with refused(ValueError, "use_multiprocessing=True", "workers="):
        make(files, use_multiprocessing=value)
    loader = make(files, workers=2)
    with refused(ValueError, "use_multiprocessing=True", "workers="):
        loader.use_multiprocessing = value
    assert loader.use_multiprocessing is False
    assert len(read(loader)) == 3


@EVERY
def test_workers_set_later(files: Files, make: Make) -> None:
    """Options are fixed: the message says what to do instead."""
    loader = make(files)
    with refused(AttributeError, "workers", "make another loader with workers=4"):
        loader.workers = 4
    with refused(ValueError, "max_queue_size=-1", "at least 0"):
        loader.max_queue_size = -1
    assert make(files, workers=4).thread_count == 4


def test_processes_without_workers(files: Files) -> None:
    """processes=True with workers=0 contradict each other."""
    with refused(ValueError, "processes=True", "workers=0", "workers=1"):
        path(files, processes=True, workers=0)


@EVERY
@pytest.mark.parametrize("index", [-1, 3, 10**12])
def test_an_index_out_of_range(files: Files, make: Make, index: int) -> None:
    """The index, the loader and the range are named; no index wraps around."""
    loader = make(files)
    with refused(IndexError, f"batch {index} of {type(loader).__name__}", "from 0 to 2"):
        loader[index]
    with loader:
        assert loader[2] is not None


@EVERY
@pytest.mark.parametrize("index", [1.0, None, "1", slice(0, 2), [0]])
def test_an_index_that_is_no_number(files: Files, make: Make, index: Any) -> None:
    """Slices and the like are refused by their value."""
    with refused(TypeError, "batch number", repr(index)):
        make(files)[index]


@given(index=st.integers())
def test_no_integer_reaches_another_batch(index: int) -> None:
    """Any integer is one of the batches or an IndexError."""
    loader = Own(10, BATCH, workers=0)
    if 0 <= index < 3:
        assert loader[index][1][0] == BATCH * index
    else:
        with refused(IndexError, str(index)):
            loader[index]


@pytest.mark.parametrize(
    ("option", "wrong", "words"),
    [
        ("size", "224", ["size='224'", "size=(height, width)"]),
        ("size", (0, 3), ["size=(0, 3)", "at least one pixel"]),
        ("channels", 2, ["channels=2", "1", "3", "4", "None"]),
        ("interpolation", "magic", ["interpolation='magic'", "bilinear"]),
        ("dtype", "image", ["dtype='image'", "uint8", "float32"]),
        ("dtype", "datetime64[s]", ["dtype=", "uint8", "float32"]),
        ("rescale", "1/255", ["rescale='1/255'", "rescale=1/255"]),
        ("max_pixels", 0, ["max_pixels=0", "at least 1"]),
        ("decode", "jpeg", ["decode='jpeg'", "function"]),
        ("label_options", {"sizes": 3}, ["label_options", "sizes", "size"]),
        ("label_options", 3, ["label_options", "3", "dict"]),
    ],
)
def test_options_of_pictures(files: Files, option: str, wrong: Any, words: list[str]) -> None:
    """An option of pictures is refused when the loader is made, by name and value."""
    with refused((TypeError, ValueError), *words):
        kl.PathSequenceLoader(files.png, files.png, **{option: wrong})


def test_a_ram_batch_smaller_than_a_batch(files: Files) -> None:
    """Both sizes are named; a larger RAM batch works."""
    with refused(ValueError, "ram_batch_size=8", "batch_size=32", "times larger"):
        kl.RamBatchSequenceLoader(files.npy, labels(), 32, ram_batch_size=8)
    assert len(kl.RamBatchSequenceLoader(files.npy, labels(), 2, ram_batch_size=200)) == 6


def test_two_sizes_of_ram_batches(files: Files) -> None:
    """ram_batch_size and ram_budget together contradict each other; either alone works."""
    with refused(ValueError, "ram_batch_size=8", "ram_budget='1MB'", "choose one"):
        ram(files, ram_batch_size=8, ram_budget="1MB")
    assert ram(files, ram_batch_size=8).ram_batch_size == 8
    assert ram(files, ram_budget="1MB").ram_batch_size == 12


@pytest.mark.parametrize("size", [12, 3_000, 90_000, 1_200_000])
def test_a_budget_too_small(files: Files, size: int) -> None:
    """What was given, what a sample takes and what is needed are named; the latter is enough."""

    def decode(content: bytes) -> Any:
        return np.zeros(size, np.uint8)

    with pytest.raises(ValueError) as caught:
        ram(files, ram_budget=100, decode=decode)
    said = str(caught.value)
    for word in ("ram_budget=100 bytes", "each", "batch_size=4", "Raise ram_budget"):
        assert word in said
    (need,) = re.findall(r"needs ([\d.]+ \w+)", said)
    assert ram(files, ram_budget=need, decode=decode).ram_batch_size >= BATCH
    # The other advice: a smaller batch needs less.
    assert ram(files, batch_size=1, ram_budget=need, decode=decode).ram_batch_size > BATCH


@pytest.mark.parametrize(
    "wrong",
    ["lots", "4 parsecs", "GiB", "", "nan", "inf GB", "-1", 0, -5, True, None, [1], float("nan")],
)
def test_a_budget_that_is_no_size(files: Files, wrong: Any) -> None:
    """ram_budget shows what it got, and how sizes are written; that way works."""
    if wrong is None:
        assert ram(files, ram_budget=None).samples == 12
        return
    with refused((ValueError, TypeError), f"ram_budget={wrong!r}", "bytes"):
        ram(files, ram_budget=wrong)


@pytest.mark.parametrize("right", ["4GiB", "500MB", "500 MB", 10**6, 1e6, np.int64(10**6)])
def test_a_budget_as_advised(files: Files, right: Any) -> None:
    """The ways of writing a size that the messages give are taken."""
    assert ram(files, ram_budget=right).ram_batch_size == 12


@pytest.mark.parametrize("wrong", [0, -1, 64.0, True, "64"])
def test_ram_batch_size_that_is_no_count(files: Files, wrong: Any) -> None:
    """ram_batch_size must be a positive integer."""
    with refused((ValueError, TypeError), f"ram_batch_size={wrong!r}", "at least 1"):
        ram(files, ram_batch_size=wrong)


def test_draw(files: Files) -> None:
    """draw names its choices, and both work."""
    with refused(ValueError, "draw='random'", '"global"', '"windows"'):
        ram(files, ram_batch_size=8, draw="random")
    for known in ("global", "windows"):
        assert numbers(ram(files, ram_batch_size=8, draw=known)) == list(range(12))


def test_echo(files: Files) -> None:
    """echo must be a positive integer, and cannot go with storage order."""
    with refused(ValueError, "echo=0", "at least 1"):
        ram(files, ram_batch_size=8, echo=0)
    with refused(TypeError, "echo=1.5", "integer"):
        ram(files, ram_batch_size=8, echo=1.5)
    with refused(ValueError, "echo=2", "shuffle=False", "leave shuffle out"):
        ram(files, ram_batch_size=8, echo=2, shuffle=False)
    assert numbers(ram(files, ram_batch_size=8, echo=2)) == sorted([*range(12)] * 2)
    assert numbers(ram(files, ram_batch_size=8, shuffle=False)) == list(range(12))


@WITH_LABELS
def test_an_option_spelt_wrong(files: Files, make: Make) -> None:
    """The one that may be meant is named."""
    with refused(TypeError, "shufle", "did you mean shuffle=?"):
        make(files, shufle=True)


def test_image_options_that_decode_would_ignore(files: Files) -> None:
    """Options without effect are rejected; the others are accepted."""
    for options in ({"size": (2, 2)}, {"rescale": 0.5}, {"channels": 1}, {"dct_scaling": True}):
        with refused(ValueError, next(iter(options)), "decode="):
            kl.PathSequenceLoader(files.npy, decode=np.frombuffer, **options)
    kl.PathSequenceLoader(files.npy, decode=len, dtype="float32", max_pixels=5)
    with refused(ValueError, "label_options", "leave it out"):
        kl.PathSequenceLoader(files.npy, labels(), label_options={"size": (2, 2)})


def test_what_cannot_be_changed_later(files: Files) -> None:
    """Attributes that determine a batch are always correct."""
    loader = path(files)
    names = ("batch_size", "shuffle", "seed", "drop_last", "shard")
    for name in (*names, "paths", "labels", "sample_weights", "transform", "size"):
        with refused(AttributeError, name, "make another loader"):
            setattr(loader, name, 1)
    for misspelt, meant in (("lables", "labels"), ("sample_weight", "sample_weights")):
        with refused(AttributeError, misspelt, f"did you mean {meant}?"):
            setattr(loader, misspelt, 1)
    assert numbers(loader) == list(range(12))
