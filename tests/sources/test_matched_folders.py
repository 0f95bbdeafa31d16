"""Files of several folders that belong together."""

import cv2
import numpy as np
import pytest

from kloaders.sources.matched_folders import matched, warn_of_proportions

IMAGES = frozenset({".png", ".jpg"})


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names_of(folders, tmp_path, wanted=IMAGES):
    found = matched([str(tmp_path / f) for f in folders], [wanted] * len(folders), False)
    return [[path.removeprefix(f"{tmp_path}/") for path in paths] for paths in found]


def test_partners_have_the_same_path_but_for_the_suffix(tmp_path):
    touch(tmp_path, "a/2.jpg", "a/1.png", "a/x/1.jpg", "b/1.png", "b/2.png", "b/x/1.png")
    assert names_of("ab", tmp_path) == [
        ["a/1.png", "a/2.jpg", "a/x/1.jpg"],
        ["b/1.png", "b/2.png", "b/x/1.png"],
    ]


def test_what_has_no_partner_is_left_out_and_listed(tmp_path, caplog):
    touch(tmp_path, "a/1.png", "a/2.png", "a/3.png", "b/2.png", "b/4.png", "c/2.jpg", "c/3.jpg")
    assert names_of("abc", tmp_path) == [["a/2.png"], ["b/2.png"], ["c/2.jpg"]]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"2 of {tmp_path / 'a'} (1.png, 3.png)" in caplog.text
    assert f"1 of {tmp_path / 'b'} (4.png)" in caplog.text
    assert f"1 of {tmp_path / 'c'} (3.jpg)" in caplog.text


def test_where_nothing_has_a_partner_both_are_shown(tmp_path):
    touch(tmp_path, "a/1.png", "b/1-mask.png")
    with pytest.raises(ValueError, match=r"no file of .*a/1.png and .*b/1-mask.png.*a function"):
        names_of("ab", tmp_path)


def test_two_files_of_one_stem_are_refused(tmp_path):
    touch(tmp_path, "a/1.png", "a/1.jpg", "b/1.png")
    with pytest.raises(ValueError, match=r"1\.jpg and .*1\.png differ only in their suffix"):
        names_of("ab", tmp_path)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("none", FileNotFoundError, "does not exist"),
        ("a/1.png", NotADirectoryError, "is a file"),
        ("empty", ValueError, "has no file of .jpg .png"),
    ],
)
def test_what_is_no_folder_of_files_is_refused(name, error, words, tmp_path):
    touch(tmp_path, "a/1.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=words):
        names_of(["a", name], tmp_path)


@pytest.mark.parametrize(
    ("shape", "said"),
    [((60, 40), True), ((40, 40), True), ((40, 60), False), ((13, 20), False), ((80, 120), False)],
)
def test_other_proportions_are_logged(shape, said, tmp_path, caplog):
    for name, sides in (("a.png", (40, 60)), ("b.png", shape)):
        cv2.imwrite(str(tmp_path / name), np.zeros((*sides, 3), np.uint8))
    warn_of_proportions([str(tmp_path / "a.png")], [str(tmp_path / "b.png")])
    assert ("different proportions" in caplog.text) is said
    if said:
        assert f"a.png is 60 x 40 and {tmp_path}/b.png is {shape[1]} x {shape[0]}" in caplog.text


def test_what_is_no_picture_has_no_proportions(tmp_path, caplog):
    np.save(tmp_path / "a.npy", np.zeros((2, 9)))
    (tmp_path / "b.png").write_bytes(b"nonsense")
    paths = [str(tmp_path / name) for name in ("a.npy", "b.png", "gone.png")]
    warn_of_proportions(paths, paths[::-1])
    assert not caplog.text
