"""One file by its suffix."""

import cv2
import numpy as np
import pytest

from kloaders.formats.by_suffix import decode_sample, read_sample
from kloaders.formats.errors import DecodeError
from kloaders.formats.options import ImageOptions
from tests.support.images import encoded, picture


def test_content_counts_not_the_name(tmp_path):
    """A PNG that is called .jpg is decoded as the PNG it is."""
    image = picture()
    (tmp_path / "a.jpg").write_bytes(encoded(".png", image))
    np.testing.assert_array_equal(read_sample(str(tmp_path / "a.jpg"), ImageOptions()), image)


def test_read_sample(tmp_path):
    """By suffix: pictures with the options, arrays as saved, and nothing else."""
    np.save(tmp_path / "a.npy", np.arange(3))
    (tmp_path / "a.PNG").write_bytes(encoded(".png", picture()))
    options = ImageOptions(size=(8, 9))
    assert read_sample(str(tmp_path / "a.npy"), options).tolist() == [0, 1, 2]
    row = np.zeros((2, 8, 9, 3), np.uint8)[1]
    assert read_sample(str(tmp_path / "a.PNG"), options, row) is row
    with pytest.raises(ValueError, match="known suffixes"):
        read_sample(str(tmp_path / "a.txt"), options)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png"])
def test_content_is_decoded_as_a_file_is(tmp_path, suffix):
    """What was fetched from elsewhere: the same values, into a row where it fits."""
    values = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        cv2.imwrite(str(path), values)
    elif suffix == ".npz":
        np.savez_compressed(path, x=values)
    else:
        np.save(path, values)
    options = ImageOptions()
    want = read_sample(str(path), options)
    raw, name = path.read_bytes(), f"s3://bucket/a{suffix}"
    np.testing.assert_array_equal(decode_sample(raw, name, options), want)
    row = np.zeros_like(want)
    assert decode_sample(raw, name, options, row) is row
    np.testing.assert_array_equal(row, want)
    with pytest.raises(DecodeError, match=rf"s3://bucket/a\{suffix} is empty"):
        decode_sample(b"", name, options)
    with pytest.raises(DecodeError, match="s3://bucket/a"):
        decode_sample(raw[: len(raw) // 2], name, options)
    with pytest.raises(ValueError, match="known suffixes"):
        decode_sample(raw, "s3://bucket/a.xyz", options)
