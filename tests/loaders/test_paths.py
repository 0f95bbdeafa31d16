"""PathSequenceLoader: what is read of files, what hooks replace, what is kept, and what is refused."""

import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.sources.cache.columns import CachedColumn
from kloaders.sources.hooks import LabelledSource, NamedSource, PathHookSource
from tests.support.recording import numbers_of

SAMPLES = 10


@pytest.fixture
def pngs(tmp_path):
    """Pictures of 4 x 6 pixels whose red is their number, and whose blue is 200."""
    paths = [str(tmp_path / f"{n:02}.png") for n in range(SAMPLES)]
    for n, path in enumerate(paths):
        picture = np.zeros((4, 6, 3), np.uint8)
        picture[..., 0], picture[..., 2] = 200, n  # OpenCV writes BGR
        cv2.imwrite(path, picture)
    return paths


@pytest.fixture
def masks(tmp_path):
    """Gray pictures of two halves, of class n and class 100 + n."""
    paths = [str(tmp_path / f"mask{n:02}.png") for n in range(SAMPLES)]
    for n, path in enumerate(paths):
        mask = np.full((4, 6), n, np.uint8)
        mask[:, 3:] = 100 + n
        cv2.imwrite(path, mask)
    return paths


@pytest.fixture
def make(keep):
    def _make(*data, kind=kl.PathSequenceLoader, **options):
        return keep(kind(*data, 4, **{"seed": 3, **options}))

    return _make


# ---------------------------------------------------------------- reading


def test_pictures_are_read_as_rgb(make, pngs):
    x, y = make(pngs, np.arange(SAMPLES))[1]
    assert (x.shape, x.dtype) == ((4, 4, 6, 3), np.uint8)
    assert x[:, 0, 0, 0].tolist() == y.tolist() == [4, 5, 6, 7]
    assert set(x[..., 2].ravel().tolist()) == {200}


@pytest.mark.parametrize(
    ("options", "shape", "dtype"),
    [
        ({"size": (8, 9)}, (8, 9, 3), np.uint8),
        ({"channels": 1}, (4, 6, 1), np.uint8),
        ({"channels": 4}, (4, 6, 4), np.uint8),
        ({"channels": None}, (4, 6, 3), np.uint8),
        ({"rescale": 1 / 255}, (4, 6, 3), np.float32),
        ({"dtype": "float16"}, (4, 6, 3), np.float16),
        ({"size": (2, 2), "aspect": "crop"}, (2, 2, 3), np.uint8),
    ],
    ids=str,
)
def test_options_of_images(make, pngs, options, shape, dtype):
    loader = make(pngs, None, **options)
    assert (loader[0].shape, loader[0].dtype) == ((4, *shape), dtype)
    for name, value in options.items():
        if name != "dtype":
            assert getattr(loader.image_options, name) == value


def test_decode_replaces_the_suffix(make, npy):
    """It gets the bytes of the file, whatever the suffix is."""
    x = make(npy, None, decode=lambda raw: np.frombuffer(raw[-8:], np.float32))[1]
    np.testing.assert_array_equal(x, np.stack([np.load(path) for path in npy[4:8]]))


def test_paths_are_a_sequence(make, pngs):
    loader = make(pngs, None)
    assert list(loader.paths) == pngs
    assert loader.paths[-1] == pngs[-1]
    assert len(loader.paths) == loader.samples == SAMPLES
    assert list(kl.subset(loader, [7, 2]).paths) == [pngs[7], pngs[2]]
    assert list(pickle.loads(pickle.dumps(loader)).paths) == pngs


def test_several_inputs(make, pngs, masks):
    loader = make({"a": pngs, "b": masks, "n": np.arange(SAMPLES)}, None)
    x = loader[1]
    assert x["a"][:, 0, 0, 0].tolist() == x["b"][:, 0, 0, 0].tolist() == [4, 5, 6, 7]
    assert x["n"].tolist() == [4, 5, 6, 7]
    assert list(loader.paths) == pngs  # of the first input


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.arange(SAMPLES), [4, 5, 6, 7]),
        (list(range(SAMPLES)), [4, 5, 6, 7]),
        (lambda path: int(path[-6:-4]) * 2, [8, 10, 12, 14]),
    ],
    ids=["array", "list", "function of the path"],
)
def test_labels(make, pngs, labels, expected):
    assert make(pngs, labels)[1][1].tolist() == expected


def test_labels_that_are_files_are_resized_without_new_classes(make, pngs, masks):
    """By default of the inputs' size, as many channels as stored, nearest."""
    x, y = make(pngs, masks, size=(7, 13))[1]
    assert (x.shape, y.shape) == ((4, 7, 13, 3), (4, 7, 13, 1))
    for n, mask in enumerate(y, 4):
        assert set(mask.ravel().tolist()) == {n, 100 + n}


def test_labels_have_options_of_their_own(make, pngs, masks):
    _, y = make(pngs, masks, size=(8, 12), label_options={"size": (2, 2), "channels": 3})[0]
    assert y.shape == (4, 2, 2, 3)
    _, y = make(pngs, masks, label_options={"decode": lambda raw: np.int64(len(raw))})[0]
    assert (y.dtype, y.shape) == (np.int64, (4,))


def test_label_options_without_label_files_are_refused(make, pngs):
    with pytest.raises(ValueError, match="label_options= is only for labels that are files"):
        make(pngs, np.arange(SAMPLES), label_options={"channels": 1})


# ---------------------------------------------------------------- hooks


class Rows(kl.PathSequenceLoader):
    def load_sample(self, path):
        return np.load(path) * 2


class Batches(kl.PathSequenceLoader):
    def load_batch(self, indices):
        return np.stack([np.load(self.paths[k]) * 2 for k in indices])


class Added(kl.PathSequenceLoader):
    """Asks the default for its part."""

    def load_sample(self, path):
        return super().load_sample(path) + np.uint8(100)


@pytest.mark.parametrize("kind", [Rows, Batches])
def test_a_hook_reads_the_files(make, npy, kind):
    loader = make(npy, np.arange(len(npy)), kind=kind)
    x, y = loader[1]
    np.testing.assert_array_equal(x, np.stack([np.load(p) * 2 for p in npy[4:8]]))
    assert y.tolist() == [4, 5, 6, 7]
    assert isinstance(loader.source, LabelledSource)
    assert isinstance(make(npy, None, kind=kind).source, PathHookSource)
    part = kl.subset(loader, [9, 3])
    np.testing.assert_array_equal(part[0][0], np.stack([np.load(npy[k]) * 2 for k in (9, 3)]))


def test_a_hook_may_ask_the_default(make, pngs):
    x, y = make(pngs, np.arange(SAMPLES), kind=Added)[1]
    assert x[:, 0, 0, 0].tolist() == [104, 105, 106, 107]
    assert y.tolist() == [4, 5, 6, 7]


def test_a_hook_gets_each_input_that_is_a_file(make, npy):
    loader = make((npy, npy[::-1], np.arange(len(npy))), None, kind=Rows)
    ((a, b, n),) = loader[0]
    np.testing.assert_array_equal(a, np.stack([np.load(p) * 2 for p in npy[:4]]))
    np.testing.assert_array_equal(b, np.stack([np.load(p) * 2 for p in npy[:-5:-1]]))
    assert n.tolist() == [0, 1, 2, 3]


def test_names_of_ones_own_stand_in_front(make, npy):
    class Named(Rows):
        def sample_name(self, index):
            return f"row {index}"

    loader = make(npy, None, kind=Named)
    assert isinstance(loader.source, NamedSource)
    assert loader.source.name(3) == "row 3"


def test_a_file_that_does_not_read_is_named(make, pngs):
    with open(pngs[5], "wb") as file:
        file.write(b"no picture")
    with pytest.raises(kl.SampleError, match="sample 5") as caught:
        make(pngs, None)[1]
    assert pngs[5] in str(caught.value)


# ---------------------------------------------------------------- what is kept


def read_twice(loader, paths):
    """Batch 1 again after its files have changed."""
    first = loader[1]
    for path in paths[4:8]:
        np.save(path, np.float32([900, 900]))
    return first, loader[1]


@pytest.fixture
def rows(tmp_path):
    paths = [str(tmp_path / f"{n:02}.npy") for n in range(SAMPLES)]
    for n, path in enumerate(paths):
        np.save(path, np.float32([n, n]))
    return paths


@pytest.mark.parametrize(
    ("kind", "options", "kept"),
    [
        (kl.PathSequenceLoader, {"cache": "auto"}, True),
        (kl.PathSequenceLoader, {"cache": None}, False),
        (kl.PathSequenceLoader, {"cache": "ram"}, True),
        (Rows, {"cache": "auto"}, False),  # a hook may draw random numbers
        (Rows, {"cache": "ram"}, True),
    ],
    ids=["auto", "none", "ram", "hook, auto", "hook, ram"],
)
def test_what_was_read_is_kept(make, rows, kind, options, kept):
    loader = make(rows, None, kind=kind, workers=0, **options)
    before, after = read_twice(loader, rows)
    assert before[:, 0].tolist() == [n * (2 if kind is Rows else 1) for n in (4, 5, 6, 7)]
    assert (before.tolist() == after.tolist()) is kept


def test_decode_is_kept_only_where_it_is_asked_for(make, rows):
    def decode(raw):
        return np.frombuffer(raw[-8:], np.float32)

    for cache, kept in (("auto", False), ("ram", True)):
        loader = make(rows, None, decode=decode, cache=cache)
        (column,) = loader.source.columns
        assert isinstance(column, CachedColumn) is kept


def test_a_folder_keeps_for_later_runs(make, rows, tmp_path):
    """Until a file changes, which is read anew."""
    reads = []

    class Counting(kl.PathSequenceLoader):
        def load_sample(self, path):
            reads.append(path)
            return np.load(path)

    def run():
        reads.clear()
        options = {"cache": tmp_path / "cache", "cache_key": "v1", "workers": 0}
        loader = make(rows, None, kind=Counting, **options)
        found = [n for batch in loader for n in batch[:, 0].tolist()]
        loader.close()
        return found

    assert run() == list(range(SAMPLES))
    assert set(reads) == set(rows)
    assert run() == list(range(SAMPLES))
    again = set(reads)
    np.save(rows[5], np.float32([900, 900]))
    os.utime(rows[5], (1, 1))
    assert run() == [0, 1, 2, 3, 4, 900, *range(6, SAMPLES)]
    assert len(again) <= 1  # the first is looked at for its form
    assert set(reads) <= again | {rows[5]}


# ---------------------------------------------------------------- exclude


def listed(tmp_path, *paths):
    file = tmp_path / "bad.csv"
    file.write_text("\n".join(["path", *paths]) + "\n")
    return file


def test_what_is_listed_is_left_out(make, pngs, masks, tmp_path):
    """With its label and its weight; a sample is out if any of its files is listed."""
    bad = listed(tmp_path, pngs[1], masks[3])
    loader = make(pngs, masks, exclude=bad, sample_weights=np.arange(SAMPLES))
    kept = [0, 2, *range(4, 10)]
    assert loader.samples == len(kept)
    assert loader.weights.tolist() == kept
    assert np.flatnonzero(loader.included).tolist() == kept
    assert list(loader.paths) == [pngs[n] for n in kept]
    found = [(x, y) for x, y, _ in loader.epoch_batches(0, shuffle=False)]
    assert np.concatenate([x[:, 0, 0, 0] for x, _ in found]).tolist() == kept
    assert np.concatenate([y[:, 0, 0, 0] for _, y in found]).tolist() == kept


def test_functions_of_the_path_get_those_that_are_left(make, pngs, tmp_path):
    bad = listed(tmp_path, pngs[0], pngs[4])
    _, y = make(pngs, lambda path: int(path[-6:-4]), exclude=bad)[0]
    assert y.tolist() == [1, 2, 3, 5]


def test_a_list_that_names_nothing_of_it_leaves_all(make, pngs, tmp_path):
    loader = make(pngs, None, exclude=listed(tmp_path, "elsewhere.png"))
    assert loader.included is None
    assert loader.samples == SAMPLES


def test_all_left_out_is_refused(make, pngs, tmp_path):
    with pytest.raises(ValueError, match="exclude= leaves out all 10 samples"):
        make(pngs, None, exclude=listed(tmp_path, *pngs))


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("data", "options", "error", "words"),
    [
        (lambda p: p, {"sise": (2, 2)}, TypeError, r"no option sise=: did you mean size=\?"),
        (lambda p: p, {"size": (0, 2)}, ValueError, "size"),
        (lambda p: p, {"aspect": "zoom"}, ValueError, "aspect='zoom'"),
        (lambda p: p, {"decode": 3}, TypeError, "decode=3 is not a function of a file's bytes"),
        (lambda p: p, {"decode": len, "size": (2, 2)}, ValueError, "decode="),
        (lambda p: p, {"check_paths": "all"}, ValueError, "choose .sample., True or False"),
        (lambda p: np.zeros((4, 2)), {}, TypeError, "ArraySequenceLoader"),
        (lambda p: [*p, "gone.png"], {"check_paths": True}, FileNotFoundError, r"gone\.png"),
        (lambda p: [*p, p[0][:-6]], {"check_paths": True}, IsADirectoryError, "folder"),
        (lambda p: ["a.xyz"], {"check_paths": False}, ValueError, r"a\.xyz ends in '\.xyz'"),
    ],
)
def test_what_cannot_be_read_is_refused_at_once(make, pngs, data, options, error, words):
    with pytest.raises(error, match=words):
        make(data(pngs), None, **options)


def test_lengths_that_differ_are_refused(make, pngs):
    with pytest.raises(ValueError, match=r"lengths differ.*paths.*10.*labels.*9"):
        make(pngs, np.arange(9))


# ---------------------------------------------------------------- patterns, and functions of the path


@pytest.fixture
def classes(tmp_path):
    """Pictures of three classes in folders, a mask beside each, and their numbers in both."""
    for n in range(12):
        folder = tmp_path / "photos" / ("cat", "dog", "ant")[n % 3]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{n:02}.png"), np.full((4, 4, 3), (100, 0, n), np.uint8))
        cv2.imwrite(str(folder / f"{n:02}-mask.bmp"), np.full((4, 4), n, np.uint8))
    (tmp_path / "photos" / "empty").mkdir()
    return tmp_path


def test_a_pattern_is_its_files_sorted_by_name(classes, monkeypatch, keep):
    monkeypatch.chdir(classes)
    loader = keep(kl.PathSequenceLoader("photos/**/*.png", batch_size=5))
    assert list(loader.paths) == sorted(map(str, Path("photos").glob("*/*.png")))
    every = keep(kl.PathSequenceLoader(Path("photos/**"), batch_size=5))
    assert every.samples == 24  # folders are no files
    folders = ["photos/cat/*.png", "photos/ant/02.png", Path("photos/dog/*.png")]
    assert keep(kl.PathSequenceLoader(folders, batch_size=9)).samples == 9
    both = {"photo": "photos/*/*.png", "number": np.arange(12)}
    x = keep(kl.PathSequenceLoader(both, batch_size=12))[0]
    assert numbers_of(x["photo"]) == [2, 5, 8, 11, 0, 3, 6, 9, 1, 4, 7, 10]
    train, val = kl.split("photos/*/*.png", lambda path: 1, 4, seed=1)
    assert keep(train).samples + keep(val).samples == 12


def test_a_file_with_such_a_name_in_a_list_is_itself(classes, keep):
    path = str(classes / "a[1]*.png")
    cv2.imwrite(path, np.zeros((4, 4, 3), np.uint8))
    assert list(keep(kl.PathSequenceLoader([path])).paths) == [path]


def test_a_function_may_give_names_of_classes(classes, keep):
    def class_of(path):
        return Path(path).parent.name

    loader = keep(
        kl.PathSequenceLoader(f"{classes}/photos/*/*.png", class_of, 12, class_balance=True, seed=1)
    )
    assert loader.class_names == ["ant", "cat", "dog"]
    assert pickle.loads(pickle.dumps(loader)).class_names == loader.class_names
    x, y = loader[0]
    assert y.dtype == np.int32
    assert [("cat", "dog", "ant")[n % 3] for n in numbers_of(x)] == [
        loader.class_names[k] for k in y
    ]
    train, val = kl.split(loader, validation=0.25, stratify=True, seed=1)
    assert keep(val).class_names == loader.class_names
    assert sorted(keep(val)[0][1].tolist()) == [0, 1, 2]
    ram = keep(
        kl.RamBatchSequenceLoader(f"{classes}/photos/*/*.png", class_of, 4, ram_batch_size=8)
    )
    assert ram.class_names == loader.class_names
    keep(train)


def test_a_function_may_give_paths_of_masks(classes, keep):
    def mask_of(path):
        return path.replace(".png", "-mask.bmp")

    for function in (mask_of, lambda path: Path(mask_of(path))):
        loader = keep(
            kl.PathSequenceLoader(f"{classes}/photos/*/*.png", function, 5, size=(2, 2), seed=1)
        )
        seen = []
        for x, y in loader.epoch_batches(shuffle=True):
            assert y.shape[1:] == (2, 2, 1)
            assert numbers_of(x) == y[:, 0, 0, 0].tolist()
            seen += numbers_of(x)
        assert sorted(seen) == list(range(12))
    with pytest.raises(FileNotFoundError, match="gone"):
        kl.PathSequenceLoader(f"{classes}/photos/*/*.png", lambda path: "gone.bmp", 5)


def test_a_dict_of_functions(classes, keep):
    labels = {
        "class": lambda path: Path(path).parent.name,
        "number": lambda path: int(Path(path).stem),
    }
    loader = keep(kl.PathSequenceLoader(f"{classes}/photos/*/*.png", labels, 5))
    x, y = loader[1]
    assert y["number"].tolist() == numbers_of(x)
    assert y["class"].tolist() == [[1, 2, 0][n % 3] for n in numbers_of(x)]
    assert loader.class_names is None


def test_bad_patterns_and_functions_are_named(classes, monkeypatch):
    monkeypatch.chdir(classes)
    with pytest.raises(FileNotFoundError, match=r"no file matches 'photos/\*.gif'"):
        kl.PathSequenceLoader("photos/*.gif")
    with pytest.raises(TypeError, match=r"single path 'photos'.*are a pattern"):
        kl.PathSequenceLoader("photos")
    with pytest.raises(TypeError, match=r"from_folders\(\)"):
        kl.PathSequenceLoader("photos/*/*.png", "photos/*/*.bmp")

    def mixed(path):
        return 3 if "dog" in path else "cat"

    with pytest.raises(TypeError, match=r"labels function returned 3 for .*but the text 'cat' for"):
        kl.PathSequenceLoader("photos/*/*.png", mixed)
