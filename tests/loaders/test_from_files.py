"""A folder of classes, a table, a split: who gets which samples, and that nothing is copied."""

import logging
import os
import pickle
import sys

import cv2
import keras
import numpy as np
import pytest

from kloaders import (
    ArraySequenceLoader,
    PathSequenceLoader,
    RamBatchSequenceLoader,
    SampleError,
    SequenceLoader,
    Text,
    from_dataframe,
    from_directory,
    preload,
    split,
)


def epoch(loader):
    """All batches, joined leaf by leaf."""
    batches = [loader[k] for k in range(len(loader))]
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


def write_numbers(folder, count):
    """.npy files that hold their own number."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(folder / f"{k:04}.npy") for k in range(count)]
    for k, path in enumerate(paths):
        np.save(path, np.float32([k]))
    return paths


@pytest.fixture
def files(tmp_path):
    return write_numbers(tmp_path / "files", 50)


@pytest.fixture
def said(monkeypatch, caplog):
    """What the package said, as texts."""
    caplog.set_level(logging.INFO, logger="kloaders")
    return lambda: [record.getMessage() for record in caplog.records]


class Numbers(SequenceLoader):
    """Samples from a hook, without columns."""

    def load_sample(self, index):
        return np.float32([index]), np.int64(index)


class NumberBatches(SequenceLoader):
    """The same, many at once."""

    def load_batch(self, indices):
        return indices[:, None].astype(np.float32), indices


class StoreLoader(PathSequenceLoader):
    """Looks its samples up by number in a store of its own."""

    store = np.arange(50, dtype=np.float32)[:, None]

    def load_batch(self, indices):
        return self.store[indices]


# ------------------------------------------------------------------------------------------- split


@pytest.mark.parametrize("loader", [PathSequenceLoader, RamBatchSequenceLoader, StoreLoader])
def test_split_gives_each_file_to_one_side(files, loader):
    """Every sample is on one side, and batches follow the paths of that side."""
    train, val = split(files, range(50), 8, validation=0.3, seed=3, loader=loader)
    assert (train.samples, val.samples) == (35, 15)
    for part in (train, val):
        assert type(part) is loader
        x, y = epoch(part)
        np.testing.assert_array_equal(x[:, 0], y)
        assert [files[k] for k in y] == list(part.paths)
    assert sorted([*train.paths, *val.paths]) == files


@pytest.mark.parametrize("loader", [Numbers, NumberBatches])
def test_split_of_a_loader_whose_samples_come_from_a_hook(loader):
    """The hook sees the numbers of the whole."""
    train, val = split(loader(20, 4), validation=0.25, seed=1)
    first, second = epoch(train), epoch(val)
    np.testing.assert_array_equal(first[0][:, 0], first[1])
    assert sorted([*first[1], *second[1]]) == list(range(20))


def test_split_depends_on_the_seed_only(files):
    """The same seed is the same split; another seed is another."""
    one, again, other = (split(files, validation=0.3, seed=s)[1] for s in (1, 1, 2))
    assert list(one.paths) == list(again.paths) != list(other.paths)


def test_without_a_seed_keras_fixes_the_split(files):
    """keras.utils.set_random_seed fixes the split too."""
    found = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        found.append(list(split(files)[1].paths))
    assert found[0] == found[1]


def test_split_shares_one_store(files):
    """Paths, arrays and labels are there once, whatever the number of parts."""
    labels = np.random.rand(50, 1000)
    train, val = split(files, labels)
    (x, y), (x2, y2) = train.source.columns, val.source.columns
    assert x.column is x2.column
    assert x.column.column.paths is train.paths._paths is val.paths._paths
    assert y.column.array is y2.column.array is labels
    arrays = split(np.zeros((10, 3)), loader=ArraySequenceLoader)
    assert np.shares_memory(*(part.source.columns[0].column.array for part in arrays))


def test_split_of_a_memory_map_stays_on_disk(tmp_path):
    """A memory map is not read to be split, and each part pickles as its name."""
    array = np.memmap(tmp_path / "x", np.float32, "w+", shape=(100, 1000))
    array[:] = np.arange(100)[:, None]
    train, val = split(array, batch_size=10, seed=1, loader=ArraySequenceLoader)
    assert len(pickle.dumps(train)) < 20_000
    both = np.concatenate([p[k][:, 0] for p in (train, val) for k in range(len(p))])
    assert sorted(both) == list(range(100))


@pytest.mark.parametrize("loader", [PathSequenceLoader, RamBatchSequenceLoader])
def test_parts_pickle_and_split_again(files, loader):
    """A part is a loader like any other: it pickles, makes views, loads into RAM, splits."""
    rest, test = split(files, range(50), 8, validation=0.2, seed=1, loader=loader)
    train, val = split(rest, validation=0.25, seed=1)
    labels = [epoch(part)[1].tolist() for part in (train, val, test)]
    assert [len(part) for part in labels] == [30, 10, 10]
    assert sorted(label for part in labels for label in part) == list(range(50))
    for copy in (pickle.loads(pickle.dumps(val)), val.view(), preload(val, progress=False)):
        x, y = epoch(copy)
        assert y.tolist() == x[:, 0].tolist() == labels[1]


@pytest.mark.parametrize("loader", [PathSequenceLoader, RamBatchSequenceLoader])
def test_fit_sees_the_training_part_and_predict_lines_up(files, loader):
    """fit shuffles the samples of its side; predict keeps the order of its paths."""
    train, val = split(files, np.zeros(50, np.float32), 8, validation=0.3, seed=1, loader=loader)
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Identity()])
    model.compile("sgd", "mse")
    model.fit(train, validation_data=val, epochs=2, verbose=0)
    predicted = model.predict(val, verbose=0)[:, 0]
    assert predicted.tolist() == [files.index(path) for path in val.paths]


def test_what_is_for_training_only_stays_there(files):
    """The validation loader has no transform and no order of its own, and serves every sample."""
    options = {"transform": lambda x, y, rng: (x + 100, y), "shuffle": True, "drop_last": True}
    train, val = split(files, range(50), 8, validation=0.3, seed=1, **options)
    assert (len(train), len(val)) == (4, 2)
    assert epoch(train)[0].min() >= 100
    x, y = epoch(val)
    np.testing.assert_array_equal(x[:, 0], y)
    assert list(y) == sorted(y)
    assert len(y) == 15
    _, echoed = split(files, range(50), 8, loader=RamBatchSequenceLoader, echo=3, seed=1)
    assert len(epoch(echoed)[1]) == 10


def test_weights_follow_their_samples(files):
    """sample_weights are split with the samples."""
    for part in split(files, range(50), sample_weights=np.arange(50), seed=1):
        _, y, w = epoch(part)
        np.testing.assert_array_equal(y, w)


def test_a_ram_budget_is_for_both_together(files):
    """Both parts share the bytes that the user gave."""
    train, val = split(files, loader=RamBatchSequenceLoader, ram_budget="100 MB")
    assert tuple(part.options.ram.ram_budget for part in (train, val)) == (80_000_000, 20_000_000)


@pytest.mark.parametrize("kind", ["integers", "one-hot", "column", "floats", "function", "array"])
def test_stratified_shares_are_equal(files, kind):
    """stratify=True takes classes from labels of any form; an array does for others."""
    classes = np.repeat([0, 1, 2], [25, 15, 10])
    labels = {
        "integers": classes,
        "one-hot": np.eye(3, dtype=np.float32)[classes],
        "column": classes[:, None],
        "floats": classes.astype(np.float32),
        "function": lambda path: classes[files.index(path)],
        "array": np.random.rand(50),
    }[kind]
    by = np.array(["a", "b", "c"], object)[classes] if kind == "array" else True
    train, val = split(files, labels, validation=0.2, stratify=by, seed=2)
    for part, want in ((train, [20, 12, 8]), (val, [5, 3, 2])):
        found = classes[[files.index(path) for path in part.paths]]
        assert np.bincount(found).tolist() == want


def test_stratify_again_by_the_labels_of_a_part(files):
    """A part knows the classes of its own samples."""
    rest, _ = split(files, np.arange(50) % 2, stratify=True, seed=1)
    _, val = split(rest, validation=0.5, stratify=True, seed=1)
    assert np.bincount(epoch(val)[1]).tolist() == [10, 10]


def test_groups_stay_together(files):
    """No group is on both sides."""
    groups = [f"patient {k // 5}" for k in range(50)]
    train, val = split(files, validation=0.3, groups=groups, seed=1)
    sides = [{groups[files.index(path)] for path in part.paths} for part in (train, val)]
    assert not sides[0] & sides[1]
    assert (len(sides[0]), len(sides[1])) == (7, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1.0}, "validation=1.0, expected a share between 0 and 1"),
        ({"validation": None}, "validation=None, expected a share"),
        ({"validation": 0}, "validation=0, expected a share"),
        ({"validation": True}, "validation=True, expected a share"),
        ({"validation": 0.99}, "validation=0.99 of 50 samples leaves none to train on"),
        ({"stratify": True}, "stratify=True needs labels, but there are none"),
        ({"labels": np.random.rand(50), "stratify": True}, "labels that are classes"),
        ({"labels": np.ones((50, 3)), "stratify": True}, "labels that are classes"),
        ({"stratify": [0] * 49 + [7]}, "class 7 has one sample; stratify needs two"),
        ({"stratify": ["a", "b", "c"] + ["d"] * 47}, "class 'a' has one sample, and so do 2"),
        ({"stratify": np.arange(50) // 2}, "too few to include each of 25 classes"),
        ({"stratify": [0, 1]}, "lengths differ: stratify has 2 values, but there are 50 samples"),
        ({"stratify": np.zeros((50, 2))}, r"stratify has shape \(50, 2\), expected one value"),
        ({"groups": range(49)}, "lengths differ: groups has 49 values"),
        ({"groups": [None] * 50}, r"groups\[0\] is missing"),
        ({"groups": [1] * 50}, "validation=0.2 of 1 groups leaves none to train on"),
        ({"groups": range(50), "stratify": [0] * 50}, "choose one"),
        ({"labels": range(49)}, "lengths differ"),
        ({"batch_size": 41, "drop_last": True}, "the training part: 40 samples do not make a full"),
        (
            {"batch_size": 3, "shard": (0, 3)},
            "the validation part: the last batch of an epoch has 1 samples",
        ),
    ],
)
def test_bad_input_of_split_is_named(files, options, message):
    """What is wrong, and what to do."""
    with pytest.raises(ValueError, match=message):
        split(files, **options)


def test_split_refuses_options_beside_a_loader(files):
    """Options of a loader that is made already would have no effect."""
    with pytest.raises(TypeError, match=r"got a loader together with batch_size, size"):
        split(PathSequenceLoader(files), batch_size=8, size=(4, 4))
    with pytest.raises(TypeError, match="returned a list, expected a loader"):
        split(files, loader=lambda *a, **o: [])
    with pytest.raises(ValueError, match="labels are not known before reading"):
        split(Numbers(20), stratify=True)


# ---------------------------------------------------------------------------------- from_directory


@pytest.fixture
def photos(tmp_path):
    """photos/class/file, with what else lies about in real folders."""
    root = tmp_path / "photos"
    for name, count in {"dog": 20, "cat": 10, "Owl": 10, "cat-big": 5}.items():
        for k in range(count):
            folder = root / name / ("deep/er" if k % 3 == 1 else "deep-er" if k % 3 == 2 else "")
            folder.mkdir(parents=True, exist_ok=True)
            image = np.full((8, 8, 3), k, np.uint8)
            cv2.imwrite(str(folder / f"{k}.{'PNG' if k % 2 else 'bmp'}"), image)
    (root / ".hidden").mkdir()
    cv2.imwrite(str(root / ".hidden" / "0.png"), np.zeros((8, 8, 3), np.uint8))
    (root / "readme.txt").write_text("not a class")
    return root


def test_from_directory_numbers_classes_and_files_as_keras_does(photos):
    """The same files in the same order, the same labels and the same names."""
    mine, nothing = from_directory(photos, validation=None)
    theirs = keras.utils.image_dataset_from_directory(
        str(photos), shuffle=False, image_size=(8, 8), verbose=False
    )
    assert nothing is None
    assert mine.class_names == theirs.class_names == ["Owl", "cat", "cat-big", "dog"]
    assert list(mine.paths) == theirs.file_paths
    x, y = epoch(mine)
    want_x, want_y = (np.concatenate(p) for p in zip(*theirs.as_numpy_iterator(), strict=True))
    np.testing.assert_array_equal(y, want_y)
    assert y.dtype == want_y.dtype == np.int32
    np.testing.assert_array_equal(x, want_x)


def test_from_directory_brings_16_bits_to_8(tmp_path, said):
    """One such file among others, as Keras has it; depth=None keeps it, and arrays and hooks are left alone."""
    for k in range(4):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        image = np.full((8, 8, 3), 257 * k if k == 3 else k, np.uint16 if k == 3 else np.uint8)
        cv2.imwrite(str(tmp_path / "ab"[k % 2] / f"{k}.png"), image)
    mine, _ = from_directory(tmp_path, validation=None)
    theirs = keras.utils.image_dataset_from_directory(
        str(tmp_path), shuffle=False, image_size=(8, 8), verbose=False
    )
    want = np.concatenate([x for x, _ in theirs.as_numpy_iterator()])
    np.testing.assert_array_equal(epoch(mine)[0], want)
    assert mine.image_options.depth == 8
    stored, _ = from_directory(tmp_path, validation=None, batch_size=1, depth=None)
    assert [stored[k][0].dtype for k in range(4)] == [np.uint8] * 3 + [np.uint16]
    decoded, _ = from_directory(tmp_path, validation=None, decode=lambda raw: np.zeros(3))
    assert decoded[0][0].shape == (4, 3)

    def made(paths, labels, batch_size, **options):
        return PathSequenceLoader(paths, labels, batch_size, **options)

    by_function, _ = from_directory(tmp_path, validation=None, loader=made)
    assert by_function.image_options.depth is None


def test_from_directory_splits_by_class(photos, said):
    """A fifth of each class, names on both sides, and one line that says so."""
    train, val = from_directory(photos, seed=1, batch_size=4)
    assert np.bincount(epoch(train)[1]).tolist() == [8, 8, 4, 16]
    assert np.bincount(epoch(val)[1]).tolist() == [2, 2, 1, 4]
    assert train.class_names == val.class_names == ["Owl", "cat", "cat-big", "dog"]
    assert pickle.loads(pickle.dumps(val)).class_names == val.class_names
    assert any("45 files of 4 classes, 36 for training and 9 for" in line for line in said())


@pytest.mark.parametrize("mode", ["int", "categorical"])
def test_label_modes_are_those_of_keras(photos, mode):
    """Integers or one-hot rows, in Keras' dtypes."""
    theirs = keras.utils.image_dataset_from_directory(
        str(photos), shuffle=False, image_size=(8, 8), verbose=False, label_mode=mode
    )
    mine, _ = from_directory(photos, validation=None, label_mode=mode)
    want = list(theirs.as_numpy_iterator())[1]
    np.testing.assert_array_equal(mine[1][1], want[1])
    assert mine[1][1].dtype == want[1].dtype
    bare, _ = from_directory(photos, validation=None, label_mode=None)
    np.testing.assert_array_equal(bare[1], want[0])


def test_one_hot_rows_are_split_and_resident_too(photos):
    """Rows are made when they are asked for, by every loader."""
    for loader in (PathSequenceLoader, RamBatchSequenceLoader):
        train, val = from_directory(photos, label_mode="categorical", seed=1, loader=loader)
        assert epoch(train)[1].sum(axis=0).tolist() == [8, 8, 4, 16]
        assert split(val, validation=0.5)[0].samples == 4


def test_ram_batches_of_a_folder_hold_all_classes(photos):
    """Files lie class by class: runs of neighbours would train one class after the other."""
    options = {"loader": RamBatchSequenceLoader, "ram_batch_size": 8, "batch_size": 4}
    train, _ = from_directory(photos, seed=1, **options)
    assert train.draw == "global"
    train, _ = from_directory(photos, seed=1, draw="windows", **options)
    assert train.draw == "windows"


def test_binary_labels_and_chosen_classes(photos):
    """class_names chooses folders, and their numbers."""
    both, _ = from_directory(photos, validation=0, class_names=["dog", "Owl"], label_mode="binary")
    assert epoch(both)[1].tolist() == [0.0] * 20 + [1.0] * 10
    assert epoch(both)[1].dtype == np.float32


def test_what_is_left_out_is_said_once(photos, said):
    """Files that nothing here reads are counted; an empty class keeps its number."""
    (photos / "cat" / "notes.txt").write_text("")
    (photos / "cat" / "a.xml").write_text("")
    (photos / "dog" / "b.xml").write_text("")
    (photos / "dog" / ".b.png").write_text("")
    (photos / "bird").mkdir()
    train, _ = from_directory(photos, validation=None)
    assert train.samples == 45
    assert train.class_names == ["Owl", "bird", "cat", "cat-big", "dog"]
    lines = "\n".join(said())
    assert lines.count("3 files left out, because their suffixes are unknown (.xml 2, .txt 1)") == 1
    assert "class 'bird' has no files" in lines


def test_extensions_and_formats_of_ones_own(photos):
    """extensions= chooses files; decode= and a hook take all."""
    for name in ("cat", "dog"):
        (photos / name / "x.raw").write_bytes(b"\1\2")
    mine, _ = from_directory(photos, validation=None, extensions="png")
    assert {os.path.splitext(p)[1] for p in mine.paths} == {".PNG"}
    raw, _ = from_directory(
        photos, validation=None, extensions=(".raw",), decode=lambda b: np.frombuffer(b, np.uint8)
    )
    assert raw[0][0].tolist() == [[1, 2], [1, 2]]
    assert raw[0][1].tolist() == [1, 3]
    own, _ = from_directory(photos, validation=None, loader=StoreLoader)
    assert own.samples == 47


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_are_followed_where_asked(photos, tmp_path):
    """A class may be a link; links inside a class are followed on request, and never for ever."""
    write_numbers(tmp_path / "elsewhere", 3)
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    (photos / "dog" / "more").symlink_to(tmp_path / "elsewhere")
    (photos / "dog" / "loop").symlink_to(photos / "dog")
    counts = [
        from_directory(photos, validation=None, follow_links=follow)[0].samples
        for follow in (False, True)
    ]
    assert counts == [48, 51]


def test_bad_folders_are_named(photos, tmp_path):
    """Missing, flat, empty, or a file: what was expected, and what to use instead."""
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist. Relative paths start at"):
        from_directory("nowhere")
    with pytest.raises(NotADirectoryError, match=r"is a file, expected a folder.*from_dataframe"):
        from_directory(photos / "readme.txt")
    with pytest.raises(
        ValueError, match=r"contains 4 files and no folders.*split\(paths, labels\)"
    ):
        from_directory(flat(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="contains nothing and no folders"):
        from_directory(tmp_path / "empty")
    (tmp_path / "bare" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"1 folders of classes \(cat\), but no file of"):
        from_directory(tmp_path / "bare")
    with pytest.raises(ValueError, match=r"'fish', but .* has no such folder: it has Owl, cat"):
        from_directory(photos, class_names=["cat", "fish"])
    with pytest.raises(ValueError, match="'cat' twice"):
        from_directory(photos, class_names=["cat", "cat"])
    with pytest.raises(ValueError, match=r'label_mode="binary" is for two classes.*has 4'):
        from_directory(photos, label_mode="binary")
    with pytest.raises(ValueError, match="label_mode='sparse' is not known"):
        from_directory(photos, label_mode="sparse")


def flat(tmp_path):
    folder = tmp_path / "flat"
    write_numbers(folder, 4)
    return folder


def test_a_class_of_one_file_is_named(photos):
    """The class's name, not its number."""
    (photos / "fish").mkdir()
    cv2.imwrite(str(photos / "fish" / "0.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"class 'fish' has one sample; .*stratify=False"):
        from_directory(photos)
    assert from_directory(photos, stratify=False)[1].samples == 10


# ---------------------------------------------------------------------------------- from_dataframe


class Frame:
    """Quacks like a polars DataFrame."""

    def __init__(self, columns):
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name):
        return Series(self._columns[name])


class Series(list):
    def to_numpy(self):
        return np.asarray(self)


def as_csv(table, folder):
    path = folder / "table.csv"
    rows = [
        ",".join(table),
        *(",".join(map(str, row)) for row in zip(*table.values(), strict=True)),
    ]
    path.write_text("\n".join(rows))
    return path


@pytest.fixture(params=["dict", "pandas", "frame", "csv"])
def table(request, files, tmp_path):
    """One table in every form."""
    columns = {
        "file": [os.path.basename(path) for path in files],
        "kind": ["dog" if k % 5 else "cat" for k in range(50)],
        "age": list(range(50)),
        "size": [k + 0.5 for k in range(50)],
        "house": [k // 5 for k in range(50)],
    }
    if request.param == "pandas":
        return pytest.importorskip("pandas").DataFrame(columns)
    return {"dict": lambda: columns, "frame": lambda: Frame(columns)}.get(
        request.param, lambda: as_csv(columns, tmp_path)
    )()


def test_texts_are_numbered_and_split_by_class(table, tmp_path):
    """Names in sorted order, shares of classes kept."""
    train, val = from_dataframe(table, "file", "kind", folder=tmp_path / "files", seed=1)
    assert train.class_names == val.class_names == ["cat", "dog"]
    for part, want in ((train, [8, 32]), (val, [2, 8])):
        x, y = epoch(part)
        np.testing.assert_array_equal(y, (x[:, 0] % 5 != 0).astype(int))
        assert np.bincount(y).tolist() == want


def test_a_loader_of_ones_own_gets_a_list(table, tmp_path):
    """What it does with a list goes on working, whatever the table is."""
    given = []

    class Own(PathSequenceLoader):
        def __init__(self, paths, *rest, **options):
            given.append(paths)
            super().__init__(sorted(paths + paths[:1]), *rest, **options)

    def made(paths, *rest, **options):
        given.append(paths)
        return PathSequenceLoader(paths, *rest, **options)

    for loader in (Own, made):
        whole, _ = from_dataframe(
            table, "file", folder=tmp_path / "files", validation=None, loader=loader
        )
        assert whole.samples == 50 + (loader is Own)
    expected = [str(tmp_path / "files" / f"{k:04}.npy") for k in range(50)]
    assert given == [expected, expected]


def test_numbers_are_labels_as_they_are(table, tmp_path):
    """Integers stay, floats are float32, several columns are a row."""
    folder = tmp_path / "files"
    whole, nothing = from_dataframe(table, "file", "age", folder=folder, validation=None)
    assert nothing is None
    assert whole.class_names is None
    assert epoch(whole)[1].tolist() == list(range(50))
    _, val = from_dataframe(table, "file", ["age", "size"], folder=folder, seed=1)
    x, y = epoch(val)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, np.concatenate([x, x + 0.5], axis=1))
    _, val = from_dataframe(table, "file", "size", folder=folder, weight_column="age", seed=1)
    x, y, w = epoch(val)
    np.testing.assert_array_equal(y, x[:, 0] + 0.5)
    np.testing.assert_array_equal(w, x[:, 0])


def test_groups_and_classes_by_column(table, tmp_path):
    """Columns by name decide the split."""
    folder = tmp_path / "files"
    sides = from_dataframe(table, "file", "age", folder=folder, groups="house", seed=1)
    houses = [set((epoch(part)[1] // 5).tolist()) for part in sides]
    assert not houses[0] & houses[1]
    _, val = from_dataframe(table, "file", "age", folder=folder, stratify="kind", seed=1)
    assert sum(epoch(val)[1] % 5 == 0) == 2
    _, val = from_dataframe(table, "file", "house", folder=folder, stratify=True, seed=1)
    assert np.bincount(epoch(val)[1]).tolist() == [1] * 10


def test_class_names_fix_the_numbers(table, tmp_path):
    """class_names in their own order; a text that is not among them is named with its row."""
    folder = tmp_path / "files"
    options = {"folder": folder, "validation": None}
    whole, _ = from_dataframe(table, "file", "kind", class_names=["dog", "cat"], **options)
    assert whole[0][1][:3].tolist() == [1, 0, 0]
    with pytest.raises(
        ValueError, match=r"row \d.*'dog' in column 'kind' is not among class_names"
    ):
        from_dataframe(table, "file", "kind", class_names=["cat"], **options)


def test_missing_columns_are_named(table):
    """Which there are, and which was probably meant."""
    with pytest.raises(ValueError, match=r"no column 'files', it has file, kind, age.*mean 'file'"):
        from_dataframe(table, "files")
    with pytest.raises(ValueError, match="no column 'label'"):
        from_dataframe(table, "file", "label")
    with pytest.raises(ValueError, match=r"'(dog|cat)', expected a number"):
        from_dataframe(table, "file", ["age", "kind"])


@pytest.mark.parametrize("missing", [None, float("nan"), "pandas.NA"])
@pytest.mark.parametrize("column", ["file", "kind", "size"])
def test_missing_values_are_named_with_their_row(files, column, missing):
    """The row and the column, and how to drop such rows."""
    if missing == "pandas.NA":
        missing = pytest.importorskip("pandas").NA
    table = {"file": list(files), "kind": ["a", "b"] * 25, "size": [1.5] * 50}
    table[column][3] = missing
    frames = [table]
    if "pandas" in sys.modules:
        frames.append(sys.modules["pandas"].DataFrame(table))
    for frame in frames:
        with pytest.raises(ValueError, match=f"row 3 .*the value of column '{column}' is missing"):
            from_dataframe(frame, "file", "kind" if column == "kind" else "size")


def test_csv_problems_are_named_with_their_line(tmp_path):
    """Rows of a file are counted as an editor counts them."""
    path = tmp_path / "t.csv"
    path.write_text("file,kind\na.png,cat\nb.png,\n")
    with pytest.raises(ValueError, match=r"t\.csv, row 3: the value of column 'kind' is missing"):
        from_dataframe(path, "file", "kind")
    path.write_text("file,kind\na.png,cat,x\n")
    with pytest.raises(ValueError, match=r"t\.csv, line 2, has 3 values, the header 2"):
        from_dataframe(path, "file", "kind")
    path.write_text("")
    with pytest.raises(ValueError, match=r"t\.csv is empty"):
        from_dataframe(path, "file", "kind")


def test_other_bad_tables(files):
    """Types that are no table, and values that are no path or number."""
    with pytest.raises(TypeError, match="frame is a list, expected a DataFrame, a dict of lists"):
        from_dataframe(files, "file")
    with pytest.raises(TypeError, match=r"row 0 .*column 'file' holds 1 \(int\), expected a file"):
        from_dataframe({"file": [1, 2]}, "file")
    with pytest.raises(ValueError, match="lengths differ: column 'y' has 3 values, others 50"):
        from_dataframe({"file": files, "y": [1, 2, 3]}, "file", "y")
    with pytest.raises(ValueError, match="label_column is an empty list"):
        from_dataframe({"file": files}, "file", [])
    with pytest.raises(ValueError, match=r"row 1 .*column 'y' holds 5, expected a text"):
        from_dataframe({"file": files, "y": ["a", 5] * 25}, "file", "y")
    with pytest.raises(ValueError, match="column 'y' has shape"):
        from_dataframe({"file": files, "y": np.ones((50, 2))}, "file", "y")
    with pytest.raises(ValueError, match=r"class 'b' has one sample; .*stratify=False"):
        from_dataframe({"file": files, "y": ["a"] * 49 + ["b"]}, "file", "y")


@pytest.fixture
def texts(tmp_path):
    """Files of texts, with their number, in two classes."""
    for n in range(12):
        folder = tmp_path / ("bad", "good")[n % 2]
        folder.mkdir(exist_ok=True)
        (folder / f"{n:02}.txt").write_text(f"{n}: schön" * (n > 0), encoding="utf-8")
    return tmp_path


def test_a_folder_of_texts(texts, keep):
    train, val = from_directory(texts, validation=0.25, seed=1, batch_size=12)
    assert train.class_names == val.class_names == ["bad", "good"]
    found = []
    for loader in (keep(train), keep(val)):
        x, y = loader[0]
        numbers = [int(text.split(":")[0] or 0) for text in x]
        assert y.tolist() == [n % 2 for n in numbers]
        assert all(text == f"{n}: schön" * (n > 0) for text, n in zip(x, numbers, strict=True))
        found += numbers
    assert sorted(found) == list(range(12))


def test_a_text_in_another_encoding_is_named(texts, keep):
    (texts / "bad" / "04.txt").write_bytes("4: schön".encode("latin-1"))
    whole, _ = from_directory(texts, validation=None, batch_size=12)
    with pytest.raises(SampleError, match=r"04\.txt.*not text in utf-8: byte 6 of 8"):
        keep(whole)[0]
    whole, _ = from_directory(
        texts, validation=None, decode=Text(encoding="latin-1"), batch_size=12
    )
    assert keep(whole)[0][0][2] == "4: schön"
    whole, _ = from_directory(texts, validation=None, batch_size=12, on_error="skip")
    assert len(keep(whole)[0][0]) == 11


def test_texts_beside_files_of_another_kind_are_no_samples(texts):
    (texts / "bad" / "scan.dcm").write_bytes(b"1")
    with pytest.raises(ValueError, match="but no file of"):
        from_directory(texts)
    train, _ = from_directory(texts, decode=Text())
    assert train.samples == 9
