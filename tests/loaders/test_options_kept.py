"""What is made from a loader keeps all its options.

Every option times every function that makes a loader from a loader, or passes options on to one. A
new option, or a new function, is missing in the tables below until it is added, and a test says so.
What is deliberately changed or refused is in `CHANGED` and `REFUSED`, with the reason.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.core.options import defaults
from kloaders.core.structure import flatten
from kloaders.diagnostics.explain.variants import changed
from kloaders.loaders.paths import PathOptions

SAMPLES = 12
SETTINGS = {"batch_size": 4, "seed": 3}
CLASSES = np.arange(SAMPLES) % 3
# Samples that `subset` chooses, not in their order; all classes are among them.
CHOSEN = np.array([7, 1, 3, 8, 5])


# ---------------------------------------------------------------- the data, and what is in a loader


class Files:
    """Twelve arrays, photographs and masks; each sample is another one."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder
        noise = np.random.default_rng(0)
        self.npy, self.jpg, self.masks, self.deep = [], [], [], []
        for number in range(SAMPLES):
            place = folder / "abc"[CLASSES[number]]
            place.mkdir(exist_ok=True)
            self.npy.append(str(place / f"{number:02}.npy"))
            np.save(self.npy[-1], np.array([number, number % 7], np.float32))
            self.jpg.append(str(place / f"{number:02}.jpg"))
            cv2.imwrite(self.jpg[-1], noise.integers(0, 256, (40, 56, 3), np.uint8))
            self.masks.append(str(place / f"{number:02}.png"))
            cv2.imwrite(self.masks[-1], noise.integers(0, 256, (40, 56, 3), np.uint8))
            self.deep.append(str(place / f"{number:02}.tiff"))
            cv2.imwrite(self.deep[-1], noise.integers(0, 2**16, (4, 6, 3), np.uint16))


@pytest.fixture(scope="module")
def files(tmp_path_factory: Any) -> Files:
    return Files(tmp_path_factory.mktemp("kept"))


def arrays(files: Files, labels: Any = CLASSES, **options: Any) -> Any:
    return kl.PathSequenceLoader(files.npy, labels, **{**SETTINGS, **options})


def pictures(files: Files, labels: Any = CLASSES, **options: Any) -> Any:
    return kl.PathSequenceLoader(files.jpg, labels, **{**SETTINGS, **options})


def deep(files: Files, labels: Any = CLASSES, **options: Any) -> Any:
    return kl.PathSequenceLoader(files.deep, labels, **{**SETTINGS, **options})


def masked(files: Files, labels: Any = CLASSES, **options: Any) -> Any:
    return pictures(files, files.masks, **options)


def two_levels(files: Files, labels: Any = CLASSES, **options: Any) -> Any:
    if "ram_budget" not in options:
        options = {"ram_batch_size": 8, **options}
    return kl.RamBatchSequenceLoader(files.npy, labels, **{**SETTINGS, **options})


def shift(x: Any, y: Any, rng: Any) -> Any:
    """A transform; at the top of a module, so that loaders pickle."""
    return x + 100, y


def first_bytes(data: bytes) -> Any:
    """A decoder."""
    return np.frombuffer(data[-8:], np.uint8)


def content(loader: Any) -> list[Any]:
    """Each sample of one epoch in storage order, without padding: dtypes, shapes and bytes."""
    found = []
    for batch in loader.epoch_batches(shuffle=False):
        leaves = [np.asarray(leaf) for leaf in flatten(batch)]
        found += [
            [(leaf[row].dtype.str, leaf[row].shape, leaf[row].tobytes()) for leaf in leaves]
            for row in range(len(leaves[0]))
        ]
    return found[: loader.samples]


def refusal(loader: Any) -> str:
    """Why sample 0 is refused."""
    with pytest.raises(kl.SampleError) as caught:
        next(iter(loader.epoch_batches(shuffle=False)))
    return str(caught.value).split(" is ", 1)[-1].partition("1.jpg")[2]


# ---------------------------------------------------------------- every option


def attribute(name: str) -> Callable[[Any], Any]:
    return lambda loader: getattr(loader, name)


def whole(seen: Any, numbers: Any) -> Any:
    """An option that does not depend on which samples there are."""
    return seen


def by_sample(seen: Any, numbers: Any) -> Any:
    """One that has something for each sample."""
    return [seen[k] for k in numbers.tolist()]


class Option(NamedTuple):
    """An option, a value that is not the default, and what shows that a loader has it."""

    value: Any
    seen: Callable[[Any], Any]
    of: Callable[[Any, Any], Any] = whole
    make: Callable[..., Any] = arrays
    others: Mapping[str, Any] = MappingProxyType({})  # options that it needs

    def loader(self, name: str, files: Files, **others: Any) -> Any:
        return self.make(files, **{**self.others, name: self.value, **others})


def image(value: Any, make: Callable[..., Any] = pictures, **others: Any) -> Option:
    return Option(value, content, by_sample, make, others)


def most_bytes(loader: Any) -> Any:
    """`max_bytes` of a loader over files; None of another one."""
    return getattr(getattr(loader, "image_options", None), "max_bytes", None)


WEIGHTS = np.arange(1, SAMPLES + 1, dtype=np.float32)

OPTIONS: dict[str, Option] = {
    "shuffle": Option(True, attribute("shuffle")),
    "seed": Option(11, attribute("seed")),
    "drop_last": Option(True, attribute("drop_last")),
    "pad_last": Option(True, attribute("pad_last")),
    "with_ids": Option(True, attribute("with_ids")),
    "shard": Option(
        (0, 2), attribute("shard"), others={"batch_size": 1, "shuffle": True, "drop_last": True}
    ),
    "sample_weights": Option(WEIGHTS, attribute("weights"), by_sample),
    "class_weight": Option({0: 1.0, 1: 2.0, 2: 4.0}, attribute("class_weight")),
    "epoch_batches": Option(2, lambda loader: (loader.sampling.length, len(loader))),
    "class_balance": Option(True, lambda loader: loader.sampling.codes, by_sample),
    "sampling_weights": Option(WEIGHTS, lambda loader: loader.sampling.weights, by_sample),
    "replacement": Option(
        True,
        lambda loader: loader.sampling.replacement,
        others={"sampling_weights": WEIGHTS},
    ),
    "preprocess": Option(shift, content, by_sample),
    "transform": Option(shift, content, by_sample),
    "batch_transform": Option(shift, content, by_sample),
    "dtype": Option("float16", content, by_sample),
    "workers": Option(3, attribute("thread_count")),
    "processes": Option(True, attribute("processes"), others={"workers": 1, "transform": shift}),
    "max_queue_size": Option(3, attribute("queue_size")),
    "on_error": Option("skip", attribute("on_error")),
    "max_errors": Option(5, attribute("max_errors"), others={"on_error": "skip"}),
    "quarantine": Option(
        "bad.csv",
        lambda loader: loader.quarantine and loader.quarantine.path,
        others={"on_error": "skip"},
    ),
    "cache": Option("ram", attribute("cache")),
    "cache_budget": Option(10**6, attribute("cache_budget"), others={"cache": "ram"}),
    "cache_key": Option("v2", attribute("cache_key")),
    # of loaders over files
    "size": image((8, 9)),
    "interpolation": image("nearest", size=(8, 9)),
    "aspect": image("crop", size=(8, 8)),
    "channels": image(1),
    "rescale": image(0.5),
    "dct_scaling": image(True, size=(8, 9)),
    "depth": image(8, deep),
    "reader": image("pillow", deep),
    "pages": image("all"),  # of what is no TIFF one page
    "max_pixels": Option(10, refusal, make=pictures),
    "max_bytes": Option(4567, most_bytes, make=pictures),
    "decode": image(first_bytes, arrays),
    "samples_per_file": Option(
        3,
        lambda loader: (loader.samples_per_file, getattr(loader.plan, "copies", 1)),
        others={"transform": shift},
    ),
    "label_options": image({"channels": 1}, masked),
    # of RAM batches
    "ram_batch_size": Option(4, lambda loader: loader.plan.window, make=two_levels),
    "draw": Option("windows", lambda loader: (loader.draw, loader.plan.draw), make=two_levels),
    "echo": Option(2, lambda loader: (loader.echo, loader.plan.echo), make=two_levels),
}
#: What is about making a loader, and not about the loader that is made.
NOT_KEPT = {
    "use_multiprocessing": "True is refused",
    "check_paths": "a look at the paths when they are given",
    "download_cache": "belongs to the source: test_parts_of_a_loader_share_the_cache",
    "download_budget": "the same",
    "exclude": "samples that are left out are none of the loader's",
    "ram_budget": "is for all parts together: test_a_budget_is_shared_in_proportion",
}


def test_every_option_is_here():
    """A new option needs a line in OPTIONS: which value, and what shows it."""
    known = {
        *defaults(),
        *PathOptions.__annotations__,
        "ram_batch_size",
        "ram_budget",
        "draw",
        "echo",
    }
    assert set(OPTIONS) | set(NOT_KEPT) == known


@pytest.mark.parametrize("name", OPTIONS)
def test_what_shows_an_option_shows_it(name, files, keep, tmp_path, monkeypatch):
    """The table itself: without the option something else is seen."""
    monkeypatch.chdir(tmp_path)
    option = OPTIONS[name]
    if name == "max_pixels":
        with pytest.raises(pytest.fail.Exception):
            option.seen(keep(option.make(files)))
        return
    plain = keep(option.make(files, **{k: v for k, v in option.others.items() if k != "transform"}))
    assert not same(option.seen(keep(option.loader(name, files))), option.seen(plain))


def same(a: Any, b: Any) -> bool:
    """Whether two things that were seen are equal; arrays too."""
    return bool(plain(a) == plain(b))


def plain(value: Any) -> Any:
    """Arrays as lists."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


# ---------------------------------------------------------------- every function


class Made(NamedTuple):
    """A loader made from another one, and the numbers that its samples had there."""

    loader: Any
    numbers: Any
    what: str = "chosen"


EVERY = np.arange(SAMPLES)


def viewed(loader: Any) -> Iterator[Made]:
    yield Made(loader.view(), EVERY)


def pickled(loader: Any) -> Iterator[Made]:
    yield Made(pickle.loads(pickle.dumps(loader)), EVERY)


def subset_of(loader: Any) -> Iterator[Made]:
    yield Made(kl.subset(loader, CHOSEN), CHOSEN)


def taken(loader: Any) -> Iterator[Made]:
    yield Made(kl.take(loader, 9), EVERY[:9])


def filtered(loader: Any) -> Iterator[Made]:
    keep = kl.filter(loader, lambda x, y: True, progress=False)
    yield Made(keep, EVERY)


def repeated(loader: Any) -> Iterator[Made]:
    yield Made(kl.repeat(loader, 2), np.tile(EVERY, 2))


def sides(loader: Any) -> Iterator[Made]:
    paths = list(loader.paths)
    for side, what in zip(kl.split(loader, seed=5), ("training", "validation"), strict=True):
        yield Made(side, np.array([paths.index(path) for path in side.paths]), what)


def folds(loader: Any) -> Iterator[Made]:
    class Halves:
        def split(self, x: Any, y: Any, groups: Any) -> Any:
            yield EVERY[:6], EVERY[6:]

    # Its own labels, which are not looked at, need not be classes.
    ((train, validation),) = kl.folds(loader, Halves(), labels=CLASSES)
    yield Made(train, EVERY[:6], "training")
    yield Made(validation, EVERY[6:], "validation")


def preloaded(loader: Any) -> Iterator[Made]:
    yield Made(kl.preload(loader, progress=False), EVERY)


def bucketed(loader: Any) -> Iterator[Made]:
    yield Made(kl.bucket_by_length(loader), EVERY)


def padded(loader: Any) -> Iterator[Made]:
    yield Made(kl.padded_batches(loader), EVERY)


def autoencoder(loader: Any) -> Iterator[Made]:
    yield Made(kl.inputs_as_labels(loader), EVERY)


def twice_chosen(loader: Any) -> Iterator[Made]:
    """A chain: what is made from what is made."""
    yield Made(kl.subset(kl.take(loader.view(), 9), CHOSEN), CHOSEN)


def measured(loader: Any) -> Iterator[Made]:
    """What `explain` measures: the loader with one setting changed."""
    yield Made(changed(loader, "workers", 2), EVERY)


FUNCTIONS: dict[str, Callable[[Any], Iterator[Made]]] = {
    "view": viewed,
    "pickle": pickled,
    "subset": subset_of,
    "take": taken,
    "filter": filtered,
    "repeat": repeated,
    "split": sides,
    "folds": folds,
    "preload": preloaded,
    "bucket_by_length": bucketed,
    "padded_batches": padded,
    "inputs_as_labels": autoencoder,
    "explain": measured,
    "subset of take of view": twice_chosen,
}

#: What pads, and so takes no loader that pads.
PADDING = ("bucket_by_length", "padded_batches")

#: (function, option): words of the error that says why both do not go together.
REFUSED = {
    **{
        ("bucket_by_length", name): "decide which samples share a batch"
        for name in ("epoch_batches", "class_balance", "sampling_weights", "replacement")
    },
    **{(name, "batch_transform"): "may change the padded arrays" for name in PADDING},
    **{
        (function, name): "RAM batches have their own order"
        for function in PADDING
        for name in ("ram_batch_size", "draw", "echo", "samples_per_file")
    },
    **{("inputs_as_labels", name): "already has labels" for name in ("label_options",)},
}

#: (what is made, option): what is seen instead, and why.
CHANGED: dict[tuple[str, str], Any] = {
    # What is for training only stays there.
    ("validation", "shuffle"): False,
    ("validation", "drop_last"): False,  # every sample counts
    ("validation", "epoch_batches"): (None, ...),
    ("validation", "class_balance"): None,
    ("validation", "sampling_weights"): None,
    ("validation", "replacement"): False,
    ("validation", "class_weight"): None,
    ("validation", "transform"): "without",
    ("validation", "batch_transform"): "without",
    ("validation", "echo"): (1, ...),
    ("validation", "samples_per_file"): (1, ...),  # all of a file would be alike
    ("explain", "workers"): 2,
    ("preload", "max_bytes"): None,  # arrays that are there
    # What lies in RAM is in no cache, and has no RAM batches.
    ("preload", "cache"): "auto",
    ("preload", "cache_budget"): None,
    ("preload", "cache_key"): None,
    ("preload", "ram_batch_size"): None,
    ("preload", "draw"): ("global", ...),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_kept(name, function, files, keep, tmp_path, monkeypatch):
    """Whatever was chosen about a loader holds for what is made from it."""
    monkeypatch.chdir(tmp_path)
    option = OPTIONS[name]
    others = {} if function != "inputs_as_labels" else {"labels": None}
    if others and name == "class_balance":
        pytest.skip("class_balance=True needs labels; an array of classes does the same")
    loader = keep(option.loader(name, files, **others))
    make = FUNCTIONS[function]
    if (function, name) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[function, name]):
            list(make(loader))
        return
    if name == "max_pixels" and function in (
        *("preload", "bucket_by_length", "inputs_as_labels", "filter"),
    ):
        with pytest.raises(kl.SampleError, match="pixels"):  # these read the samples
            list(make(loader))
        return
    seen = option.seen(loader)
    for made in make(loader):
        found = option.seen(keep(made.loader))
        if function == "inputs_as_labels" and option.seen is content:
            found = [parts[:1] for parts in found]
        want = option.of(seen, made.numbers)
        changed = CHANGED.get((made.what, name), CHANGED.get((function, name), want))
        if isinstance(changed, str) and changed == "without":
            plain = keep(option.make(files, **option.others))
            changed = option.of(option.seen(plain), made.numbers)
        if isinstance(changed, tuple) and changed[-1] is ...:
            found, changed = found[:-1], changed[:-1]
        assert same(found, changed), f"{name} of the result of {function} ({made.what})"


def test_every_function_is_here():
    """A new function from loader to loader needs a line in FUNCTIONS."""
    # Tested below, or of no loader; what joins several is in test_joining.
    others = {"mix", "from_directory", "from_dataframe", "from_torch", "from_source"}
    others |= {"from_huggingface", "from_tfds", "from_folders"}
    others |= {"concatenate", "zip_loaders", "statistics", "pairs", "class_batches"}
    made = {
        name
        for name in kl.__all__
        if name[0].islower() and getattr(kl, name).__module__.startswith("kloaders.loaders")
    }
    assert made - others <= set(FUNCTIONS)


# ---------------------------------------------------------------- what is no keyword of a loader


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name not in PADDING])
def test_padding_is_kept(function, files, keep):
    """Buckets, what is padded with, and the mask, are those of bucket_by_length."""
    x = [np.full(2 + k % 3, k + 1, np.float32) for k in range(SAMPLES)]
    plain = keep(kl.ArraySequenceLoader(x, **SETTINGS))
    loader = keep(kl.bucket_by_length(plain, boundaries=[3, 6], pad_value=-1, mask=True))
    if function in ("split", "preload"):
        made = {"split": lambda: split_of(loader), "preload": lambda: preloaded(loader)}[function]()
    else:
        made = FUNCTIONS[function](loader)
    for one in made:
        (rows, mask), *_ = parts_of(keep(one.loader))
        assert rows.shape[1] in (3, 6)
        np.testing.assert_array_equal(rows[~mask], -1)
        assert (rows[mask] > 0).all()
        assert mask.any(axis=1).all()


def split_of(loader: Any) -> Iterator[Made]:
    for side in kl.split(loader, seed=5):
        yield Made(side, None)


def parts_of(loader: Any) -> Any:
    """The first batch, its inputs first."""
    batch = next(iter(loader.epoch_batches(shuffle=False)))
    return (batch,) if isinstance(batch[0], np.ndarray) else batch


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name != "inputs_as_labels"])
def test_inputs_as_labels_is_kept(function, files, keep):
    """Inputs stay the labels, too, and are one array."""
    loader = keep(kl.inputs_as_labels(arrays(files, None)))
    for made in FUNCTIONS[function](loader):
        x, y = next(iter(keep(made.loader).epoch_batches(shuffle=False)))
        assert x is y


@pytest.mark.parametrize("function", FUNCTIONS)
def test_class_names_are_kept(function, files, keep):
    loader = keep(arrays(files, None if function == "inputs_as_labels" else CLASSES))
    loader.class_names = ["a", "b", "c"]
    for made in FUNCTIONS[function](loader):
        assert keep(made.loader).class_names == ["a", "b", "c"]


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name not in PADDING])
def test_a_budget_is_shared_in_proportion(function, files, keep):
    """ram_budget of a part is its share: the parts together take no more than the whole."""
    labels = None if function == "inputs_as_labels" else CLASSES
    loader = keep(two_levels(files, labels, ram_budget=10**6))
    for made in FUNCTIONS[function](loader):
        ram = keep(made.loader).options.ram
        if function == "preload":
            assert ram is None  # all of it lies in RAM
        else:
            assert ram.budget_bytes == 10**6 * len(made.numbers) // SAMPLES


def test_a_view_begins_without_errors_and_preload_keeps_them(files, keep):
    """`errors` is the log of one loader; what preload left out is gone for good, and stays known."""
    paths = [*files.npy[:-1], files.npy[-1] + ".gone.npy"]
    loader = keep(
        kl.PathSequenceLoader(paths, CLASSES, on_error="skip", check_paths=False, **SETTINGS)
    )
    list(loader.epoch_batches(shuffle=False))
    assert [error.index for error in loader.errors] == [SAMPLES - 1]
    assert keep(loader.view()).errors == []
    in_ram = keep(kl.preload(loader, progress=False))
    assert in_ram.samples == SAMPLES - 1
    assert [error.index for error in in_ram.errors] == [SAMPLES - 1]


def test_a_sharded_validation_part_keeps_equal_batches(files, keep):
    """Several hosts need equal parts of each batch, so drop_last stays where there are shards."""
    loader = keep(arrays(files, batch_size=1, shard=(1, 2), drop_last=True, shuffle=True))
    _, validation = (
        kl.split(loader, validation=9, seed=5)
        if False
        else kl.split(loader, validation=0.75, seed=5)
    )
    assert keep(validation).drop_last
    assert validation.shard == (1, 2)


# ---------------------------------------------------------------- options that are passed on


def by_split(files: Files, option: Option, options: dict[str, Any]) -> Any:
    paths, labels = path_arguments(files, option)
    return kl.split(paths, labels, **options)


def by_directory(files: Files, option: Option, options: dict[str, Any]) -> Any:
    paths, _ = path_arguments(files, option)
    return kl.from_directory(files.folder, extensions=os.path.splitext(paths[0])[1], **options)


def by_dataframe(files: Files, option: Option, options: dict[str, Any]) -> Any:
    paths, labels = path_arguments(files, option)
    table = {"path": paths, "label": labels}
    return kl.from_dataframe(table, "path", "label", **options)


def path_arguments(files: Files, option: Option) -> Any:
    paths = {pictures: files.jpg, deep: files.deep}.get(option.make, files.npy)
    return paths, CLASSES.tolist()


@pytest.mark.parametrize("make", [by_split, by_directory, by_dataframe])
@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "label_options"])
def test_an_option_is_passed_on(name, make, files, keep, tmp_path, monkeypatch):
    """split, from_directory and from_dataframe give their options to the loader."""
    monkeypatch.chdir(tmp_path)
    option = OPTIONS[name]
    options = {**SETTINGS, **option.others, name: option.value}
    if option.make is two_levels:
        options = {"loader": kl.RamBatchSequenceLoader, "ram_batch_size": 8, **options}
    if make is by_directory and (name == "draw" or isinstance(option.value, np.ndarray)):
        pytest.skip("classes lie one after another there, and files are numbered by class")
    train, validation = make(files, option, options)
    keep(validation)
    paths, _ = path_arguments(files, option)
    numbers = np.array([paths.index(path) for path in keep(train).paths])
    seen = option.seen(keep(option.loader(name, files)))
    found, want = option.seen(train), option.of(seen, numbers)
    if option.seen is content:  # labels have other dtypes in each
        found, want = ([parts[:1] for parts in rows] for rows in (found, want))
    assert same(found, want)


#: All others belong to the loaders that are mixed.
OF_A_MIXTURE = (
    *(
        "class_weight",
        "seed",
        "drop_last",
        "pad_last",
        "with_ids",
        "shard",
        "epoch_batches",
        "batch_transform",
        "workers",
    ),
    *("processes", "on_error", "max_errors", "quarantine", "max_queue_size"),
)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_mixture_has_an_option_or_refuses_it(name, files, keep, tmp_path, monkeypatch):
    """Some are the mixture's own, others belong to the loaders that are mixed: none is dropped."""
    monkeypatch.chdir(tmp_path)
    option = OPTIONS[name]
    first, second = keep(arrays(files)), keep(arrays(files))
    given = {k: v for k, v in option.others.items() if k in OF_A_MIXTURE}
    given[name] = option.value
    if name not in OF_A_MIXTURE:
        with pytest.raises((TypeError, ValueError), match=f"mix.*{name}="):
            kl.mix([first, second], **given)
        return
    mixture = keep(kl.mix([first, second], **given))
    want = option.seen(keep(option.loader(name, files)))
    if option.seen is content:
        (x, _), (shifted, _) = kl.mix([first, second], seed=1)[0], mixture[0]
        assert shifted.min() >= 100 > x.max()
        return
    assert same(option.seen(mixture), want)


def test_a_mixture_lists_what_did_not_load(files, keep, tmp_path):
    """Its own quarantine and limit count: those of the loaders in it see nothing of its reading."""
    gone = [*files.npy[:-1], files.npy[-1] + ".gone.npy"]
    parts = [
        keep(kl.PathSequenceLoader(paths, CLASSES, check_paths=False, **SETTINGS))
        for paths in (files.npy, gone)
    ]
    listed = tmp_path / "bad.csv"
    mixture = keep(kl.mix(parts, on_error="skip", quarantine=listed))
    list(mixture.epoch_batches())
    assert gone[-1] in listed.read_text()
    assert [error.index for error in mixture.errors] == [2 * SAMPLES - 1]
