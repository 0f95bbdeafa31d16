"""Clips of video files: which frames each has, what is done to them, and files that are none.

That each frame is the one asked for, whatever the container says, is tested in
tests/loaders/test_video.py.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.options import ImageOptions
from kloaders.plan.rng import Moment
from kloaders.sources.columns import ArrayColumn
from kloaders.sources.video import VideoSource

COUNTS = (9, 4)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files; grey levels are ten times the number of a frame, and the second goes on from 12."""
    folder = tmp_path_factory.mktemp("videos")
    paths = []
    for first, count in zip((0, 12), COUNTS, strict=True):
        path = str(folder / f"{first}.avi")
        writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 16))
        assert writer.isOpened()
        for number in range(first, first + count):
            writer.write(np.full((16, 32, 3), 10 * number, np.uint8))
        writer.release()
        paths.append(path)
    return paths


def source_of(files, labels=None, clip=None, step=1, stride=None, folder=None, **options):
    return VideoSource(files, labels, clip, step, stride, ImageOptions(**options), folder)


def numbers(x):
    """The numbers that frames show, of one or of a clip."""
    return np.round(x.reshape(*x.shape[:-3], -1).mean(axis=-1) / 10).astype(int).tolist()


def all_numbers(source):
    return [numbers(source.sample(k, Moment())[0]) for k in range(len(source))]


def test_single_frames_of_all_files(files):
    source = source_of(files)
    assert all_numbers(source) == [*range(9), *range(12, 16)]
    assert source.read(0).shape == (16, 32, 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"clip": 4}, [[0, 1, 2, 3], [4, 5, 6, 7], [12, 13, 14, 15]]),
        ({"clip": 1}, [[k] for k in [*range(9), *range(12, 16)]]),
        ({"clip": 2, "step": 3}, [[0, 3], [12, 15]]),
        ({"clip": 2, "step": 3, "stride": 2}, [[0, 3], [2, 5], [4, 7], [12, 15]]),
        ({"clip": 5, "stride": 3}, [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]]),  # the second is too short
        ({"step": 4}, [0, 4, 8, 12]),
    ],
)
def test_clips_end_with_their_file(files, options, expected):
    assert all_numbers(source_of(files, **options)) == expected


def test_a_clip_has_the_label_of_its_file(files):
    labels = {"a": ArrayColumn(np.array([7, 8]))}
    source = source_of(files, labels, clip=4)
    assert [int(source.sample(k, Moment())[1]["a"]) for k in range(3)] == [7, 7, 8]
    assert source.where(2) == (1, 0)
    assert source.name(1) == f"{files[0]}, frame 4"


def test_frames_are_made_as_the_options_say(files):
    source = source_of(files, clip=2, size=(4, 6), channels=1, dtype=np.dtype(np.float32))
    (x,) = source.sample(1, Moment())
    assert (x.shape, x.dtype, numbers(x)) == ((2, 4, 6, 1), np.float32, [2, 3])


def test_colours_are_red_green_blue(tmp_path):
    path = str(tmp_path / "red.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 16))
    for _ in range(3):
        writer.write(np.full((16, 32, 3), (0, 0, 255), np.uint8))  # OpenCV's order
    writer.release()
    red, green, blue = source_of([path]).read(1).reshape(-1, 3).mean(axis=0)
    assert red > 200
    assert max(green, blue) < 60


def test_what_is_no_clip_or_no_video(files, tmp_path):
    with pytest.raises(
        ValueError, match=r"a clip spans 10 frames, but the longest of 2 files has 9"
    ):
        source_of(files, clip=10)
    path = tmp_path / "text.mp4"
    path.write_text("not a video")
    with pytest.raises(DecodeError, match=r"text.mp4 has no frames that OpenCV can read"):
        source_of([str(path)])
    with pytest.raises(FileNotFoundError):
        source_of([str(tmp_path / "none.mp4")])


def test_a_file_that_goes_away_is_no_damage(files, tmp_path):
    """OSError: it may be there again, which a damaged one will not."""
    path = tmp_path / "a.avi"
    path.write_bytes(Path(files[0]).read_bytes())
    source = source_of([str(path)])
    path.unlink()
    with pytest.raises(FileNotFoundError):
        source.read(0)


def test_frames_are_counted_once(files, tmp_path, monkeypatch):
    """An index says it the next time, in the folder that was asked for."""
    folder = tmp_path / "indexes"
    folder.mkdir()
    expected = all_numbers(source_of(files, folder=str(folder)))
    assert len(list(folder.iterdir())) == len(files)
    source = source_of(files, folder=str(folder))
    assert all_numbers(source) == expected
    monkeypatch.setattr(cv2, "VideoCapture", None)  # none is opened to count
    assert len(source_of(files, folder=str(folder))) == sum(COUNTS)
