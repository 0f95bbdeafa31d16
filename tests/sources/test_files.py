"""How files of samples are read, what is looked at beforehand, and what is said of paths that are none."""

import pickle

import numpy as np
import pytest

from kloaders.formats.options import ImageOptions
from kloaders.sources.columns import ArrayColumn, PathColumn
from kloaders.sources.files import FileReader, FileSource, check_paths_of, readings
from kloaders.sources.path_lists import PackedPaths
from tests.support.images import encoded, picture


def count_of(raw):
    """A function of a file's bytes."""
    return np.array([len(raw)], np.int64)


def source_of(paths, decode=None, hooked=False):
    packed = PackedPaths(list(map(str, paths)))
    column = PathColumn(packed, FileReader(ImageOptions(), decode))
    return FileSource((column,), packed, decode is not None, hooked)


# ---------------------------------------------------------------- reading one


def test_files_are_read_by_their_suffix(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    (tmp_path / "b.png").write_bytes(encoded(".png", picture(4, 6)))
    read = FileReader(ImageOptions(), None)
    assert read(str(tmp_path / "a.npy"), None).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(read(str(tmp_path / "b.png"), None), picture(4, 6))


def test_a_file_is_read_in_place_where_that_goes(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    out = np.zeros(3, np.int64)
    assert FileReader(ImageOptions(), None)(str(tmp_path / "a.npy"), out) is out
    assert out.tolist() == [0, 1, 2]


@pytest.mark.parametrize("decode", [None, count_of])
def test_rows_of_one_array_are_read_as_each_alone(tmp_path, decode):
    out = np.zeros((2, 3), np.float32)
    np.save(tmp_path / "a.npy", np.float32([1, 2, 3]))
    path = str(tmp_path / "a.npy")
    for _ in range(2):  # the header is known the second time
        reader = FileReader(ImageOptions(), decode)
        read = reader.for_rows(out)
        np.testing.assert_array_equal(read(path, out[1]), reader(path, None))


@pytest.mark.parametrize("decode", [None, count_of])
def test_what_is_read_is_cast(tmp_path, decode):
    np.save(tmp_path / "a.npy", np.arange(3))
    read = pickle.loads(pickle.dumps(FileReader(ImageOptions(dtype=np.dtype("f2")), decode)))
    assert read(str(tmp_path / "a.npy"), None).dtype == np.float16


def test_a_function_of_the_users_gets_the_bytes(tmp_path):
    path = tmp_path / "a.anything"
    path.write_bytes(bytes(37))
    assert FileReader(ImageOptions(), count_of)(str(path), None).tolist() == [37]


# ---------------------------------------------------------------- names and advice


def test_samples_are_called_as_their_files():
    assert source_of(["a.png", "b.png"]).name(1) == "b.png"


@pytest.mark.parametrize(
    ("source", "shape", "dtype"),
    [
        (source_of(["a.png"]), "size=", "load_sample()"),
        (source_of(["a.npy"]), "load_sample() or transform=", "load_sample()"),
        (source_of(["a.png"], count_of), "decode= or", "decode="),
        (source_of(["a.png"], hooked=True), "load_sample() or", "load_sample()"),
    ],
    ids=["picture", "array", "decode", "hook"],
)
def test_advice_names_what_the_user_has(source, shape, dtype):
    assert shape in source.advice(0, 0, False)
    assert dtype in source.advice(0, 0, True)


# ---------------------------------------------------------------- looking beforehand


@pytest.fixture
def files(tmp_path):
    """Thirty empty files; the last one is missing."""
    paths = [tmp_path / f"{k:02}.npy" for k in range(30)]
    for path in paths[:-1]:
        path.touch()
    return paths


def test_files_that_are_there(files):
    check_paths_of(source_of(files[:-1]), True)


@pytest.mark.parametrize("check", [True, "sample"])
def test_a_missing_file_is_named(files, check):
    with pytest.raises(FileNotFoundError, match=r"29.npy does not exist \(checked 30\)"):
        check_paths_of(source_of(files), check)
    check_paths_of(source_of(files), False)


def test_several_missing_files_are_counted(files):
    files[3].unlink()
    files[4].unlink()
    with pytest.raises(FileNotFoundError, match=r"03.npy does not exist, and 2 others do not"):
        check_paths_of(source_of(files), True)


def test_a_sample_of_many_is_spread_over_all(files, monkeypatch):
    """The last one is among those that are looked at, and how many were is said."""
    monkeypatch.setattr("kloaders.sources.files._CHECKED", 4)
    with pytest.raises(FileNotFoundError, match=r"29.npy does not exist \(checked 4 of 30\)"):
        check_paths_of(source_of(files), "sample")


def test_a_folder_is_no_file(files, tmp_path):
    with pytest.raises(IsADirectoryError, match=r"is a folder, expected a file"):
        check_paths_of(source_of([files[0], tmp_path]), True)


def test_a_suffix_that_nothing_reads(tmp_path):
    path = tmp_path / "a.xyz"
    path.touch()
    with pytest.raises(ValueError, match=r"\.xyz"):
        check_paths_of(source_of([path]), True)
    check_paths_of(source_of([path], count_of), True)
    check_paths_of(source_of([path], hooked=True), True)


def test_files_of_labels_are_looked_at_too(files):
    x = source_of(files[:3])
    labels = PathColumn(PackedPaths(list(map(str, files[-3:]))), FileReader(ImageOptions(), None))
    both = FileSource((x.columns[0], {"mask": labels, "n": ArrayColumn(np.arange(3))}), x.paths)
    with pytest.raises(FileNotFoundError, match=r"29.npy"):
        check_paths_of(both, True)


def test_the_option_itself():
    with pytest.raises(ValueError, match=r'check_paths=1.5: choose "sample", True or False'):
        check_paths_of(source_of([]), 1.5)


# ---------------------------------------------------------------- what the user says of reading


def test_masks_are_read_like_pictures_but_for_their_values():
    """In the same size, to the nearest pixel, in the channels that they have."""
    (images, decode), (masks, decode_mask) = readings(None, None, size=(8, 9), channels=3)
    assert (images.size, images.channels, decode, decode_mask) == ((8, 9), 3, None, None)
    assert (masks.size, masks.interpolation, masks.channels) == ((8, 9), "nearest", None)


def test_options_of_masks_go_before():
    _, (masks, decode) = readings(
        None, {"size": None, "channels": 1, "decode": count_of}, size=(8, 9), aspect="crop"
    )
    assert (masks.size, masks.channels, masks.aspect) == (None, 1, "stretch")
    assert decode is count_of
    _, (masks, _) = readings(None, None, size=(8, 9), aspect="crop")
    assert masks.aspect == "crop"


@pytest.mark.parametrize(
    ("decode", "labels", "images", "error", "message"),
    [
        (5, None, {}, TypeError, "decode=5 is not a function of a file's bytes"),
        (count_of, None, {"size": (8, 9)}, ValueError, r"size=\(8, 9\) is for images"),
        (None, "size", {}, TypeError, "label_options='size', expected a dict"),
        (
            None,
            {"sise": 3},
            {},
            TypeError,
            "label_options has 'sise', which is not an image option",
        ),
    ],
)
def test_options_that_do_not_go(decode, labels, images, error, message):
    with pytest.raises(error, match=message):
        readings(decode, labels, **images)


def test_a_dtype_goes_with_decode():
    (images, decode), _ = readings(count_of, None, dtype=np.dtype("f4"))
    assert (images.dtype, decode) == (np.dtype("f4"), count_of)
