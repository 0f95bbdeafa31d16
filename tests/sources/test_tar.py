"""Samples in tar files: which members belong together, and what their suffixes mean."""

import pickle

import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.options import ImageOptions
from kloaders.formats.ranges import RangeFiles
from kloaders.plan.rng import Moment
from kloaders.sources.encoded import fields_of
from kloaders.sources.tar import TarSamples, TarSource, guessed
from tests.support.tar_files import npy_bytes, png_bytes, write_tar


def samples_of(tmp_path, *files):
    paths = [write_tar(tmp_path / f"{k}.tar", members) for k, members in enumerate(files)]
    return TarSamples(RangeFiles(paths), None)


def source_of(samples, x, y=None, decode=None, class_names=None):
    given = ImageOptions(), decode
    return TarSource(samples, fields_of(x, y, given, (ImageOptions(), None), class_names))


def test_members_of_one_name_are_a_sample(tmp_path):
    samples = samples_of(
        tmp_path,
        {"a/1.CLS": b"1", "a/1.seg.png": b"", "a": None, "a/2.cls": b"2", "b.c/3.cls": b"3"},
        {"__meta__.json": b"{}", "README": b"", ".hidden": b"", "1.cls": b"4", "1.txt": b"t"},
    )
    assert samples.keys == ["a/1", "a/2", "b.c/3", "1"]
    assert samples.suffixes == ["cls", "seg.png", "txt"]
    assert samples.firsts.tolist() == [0, 3, 4]
    source = source_of(samples, "cls")
    assert [int(source.sample(k, Moment())[0]) for k in range(4)] == [1, 2, 3, 4]
    assert source.name(2) == f"{samples.files.paths[0]}, b.c/3"
    assert source.file_of(3) == samples.files.paths[1]
    assert source.paths_of_all == samples.files.paths


def test_suffixes_say_what_a_member_is(tmp_path):
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    members = {
        "1.png": png_bytes(picture),
        "1.npy": npy_bytes(np.arange(3)),
        "1.cls": b"7\n",
        "1.json": b'{"a": [1, 2]}',
        "1.txt": b"cat",
        "1.raw": b"\1\2",
    }
    samples = samples_of(tmp_path, members)
    x = {"png": "png", "npy": "npy", "cls": "cls", "json": "json:a", "row": ["cls", "json:a:1"]}
    source = source_of(samples, x, "txt", class_names=["dog", "cat"])
    x, y = source.sample(0, Moment())
    np.testing.assert_array_equal(x["png"], picture)
    assert [x[k].tolist() for k in ("npy", "cls", "json", "row")] == [[0, 1, 2], 7, [1, 2], [7, 2]]
    assert y == 1
    (x,) = source_of(samples_of(tmp_path, members), "raw", decode=list).sample(0, Moment())
    assert x.tolist() == [1, 2]
    # a decode= gets the text of a JSON member, too
    (x,) = source_of(samples_of(tmp_path, members), "json", decode=len).sample(0, Moment())
    assert x == 13


def test_the_first_suffix_that_a_sample_has(tmp_path):
    source = source_of(samples_of(tmp_path, {"1.a.cls": b"1", "2.cls": b"2"}), "a.cls; cls")
    assert [int(source.sample(k, Moment())[0]) for k in range(2)] == [1, 2]


def test_what_is_missing_or_wrong_is_named(tmp_path):
    members = {"1.cls": b"1", "2.npy": b"", "3.cls": b"3?", "4.cls": b"4", "4.npy": b""}
    source = source_of(samples_of(tmp_path, members), "cls")
    with pytest.raises(DecodeError, match="it has no 'cls', it has none of those read"):
        source.sample(1, Moment())
    with pytest.raises(DecodeError, match=r"'cls' holds b'3\?', expected an integer"):
        source.sample(2, Moment())
    with pytest.raises(ValueError, match="no sample has 'jpg', they have cls, npy"):
        source_of(samples_of(tmp_path, members), "jpg")


def test_files_without_samples_are_named(tmp_path):
    with pytest.raises(DecodeError, match=r"0\.tar contains no samples, .* it has README"):
        samples_of(tmp_path, {"README": b"x"})
    with pytest.raises(DecodeError, match=r"1\.tar has 1\.CLS twice in one sample"):
        samples_of(tmp_path, {"0.cls": b""}, {"1.cls": b"", "1.CLS": b""})


def test_what_is_guessed(tmp_path):
    both = samples_of(tmp_path, {"1.cls": b"1", "1.npy": b"", "1.seg.jpg": b"", "1.txt": b""})
    assert guessed(both) == ("seg.jpg", "cls")
    assert guessed(samples_of(tmp_path, {"1.npy": b""})) == ("npy", None)
    with pytest.raises(ValueError, match="samples have txt, none of which is an image or an array"):
        guessed(samples_of(tmp_path, {"1.txt": b""}))


def test_it_pickles_and_closes(tmp_path):
    source = source_of(samples_of(tmp_path, {"1.cls": b"1", "2.cls": b"2"}), "cls")
    source.close()
    assert pickle.loads(pickle.dumps(source)).sample(1, Moment())[0] == 2


def test_other_data_have_another_fingerprint(tmp_path):
    one = source_of(samples_of(tmp_path, {"1.cls": b"1", "2.cls": b"2"}), "cls").fingerprint()
    assert (
        one == source_of(samples_of(tmp_path, {"1.cls": b"5", "2.cls": b"2"}), "cls").fingerprint()
    )
    assert (
        one != source_of(samples_of(tmp_path, {"1.cls": b"1", "3.cls": b"2"}), "cls").fingerprint()
    )
