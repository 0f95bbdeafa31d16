"""Frames of video files: each is the one that was asked for, and each comes once."""

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.sources import video

FRAMES = (45, 30)
# The last two keep no time of each frame.
KINDS = [("avi", "MJPG"), ("mp4", "mp4v"), ("webm", "VP80"), ("mpg", "PIM1"), ("ts", "MPG2")]


def frame_of(number):
    """A frame that shows its number, in stripes that lossy codecs leave apart."""
    bits = [(number >> b) & 1 for b in range(8)]
    return np.repeat(np.repeat(np.array(bits, np.uint8) * 255, 8)[None], 48, 0)[..., None].repeat(
        3, 2
    )


def numbers_of(frames):
    """The numbers that frames (..., height, width, channels) show."""
    middle = frames[..., 24, 4::8, 0] > 128
    return (middle * (1 << np.arange(8))).sum(axis=-1)


@pytest.fixture(scope="module", params=KINDS)
def files(request, tmp_path_factory):
    """Two files; the numbers of the second begin at 100."""
    suffix, codec = request.param
    folder = tmp_path_factory.mktemp(suffix)
    for name, start, count in (("a", 0, FRAMES[0]), ("b", 100, FRAMES[1])):
        writer = cv2.VideoWriter(
            str(folder / f"{name}.{suffix}"), cv2.VideoWriter_fourcc(*codec), 25, (64, 48)
        )
        if not writer.isOpened():
            pytest.skip(f"this OpenCV writes no {codec}")
        for number in range(start, start + count):
            writer.write(frame_of(number))
        writer.release()
    return str(folder / f"*.{suffix}")


def all_frames():
    return [*range(FRAMES[0]), *range(100, 100 + FRAMES[1])]


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 3}])
def test_each_frame_comes_once_and_is_the_right_one(files, options, keep):
    loader = keep(
        kl.VideoSequenceLoader(files, [0, 1], 4, clip=None, shuffle=True, seed=1, **options)
    )
    for epoch in range(2):
        seen = []
        for x, y in loader.epoch_batches(epoch):
            assert x.shape[1:] == (48, 64, 3)
            got = numbers_of(x)
            np.testing.assert_array_equal(got >= 100, y)
            seen += got.tolist()
        assert sorted(seen) == all_frames()


def test_frames_of_a_number_whatever_was_read_before(files):
    loader = kl.VideoSequenceLoader(files, clip=None)
    for index in [40, 3, 4, 9, 44, 0, 74, 45, 20]:
        assert numbers_of(loader.load_sample(index)) == all_frames()[index]


def test_clips_of_every_second_frame(files):
    loader = kl.VideoSequenceLoader(files, batch_size=3, clip=4, step=2, stride=5, size=(48, 64))
    got = np.concatenate([numbers_of(x) for x in loader.epoch_batches()])
    starts = [*range(0, 45 - 6, 5), *range(100, 130 - 6, 5)]
    assert got.tolist() == [[s, s + 2, s + 4, s + 6] for s in starts]


def test_a_seek_that_leads_elsewhere_is_mended(files, monkeypatch):
    """Containers lie about where a frame is; times of frames do not."""

    honest = cv2.VideoCapture

    class Lying:
        def __init__(self, path):
            self.capture = honest(path)

        def set(self, what, value):
            return self.capture.set(what, value + 3)

        def __getattr__(self, name):
            return getattr(self.capture, name)

    loader = kl.VideoSequenceLoader(files, clip=None)
    monkeypatch.setattr(video.cv2, "VideoCapture", Lying)
    for index in [40, 3, 30, 1]:
        assert numbers_of(loader.load_sample(index)) == all_frames()[index]


def test_frames_are_counted_once(files, monkeypatch):
    kl.VideoSequenceLoader(files)
    monkeypatch.setattr(video.cv2, "VideoCapture", None)  # not asked any more
    assert kl.VideoSequenceLoader(files, clip=None).samples == sum(FRAMES)


def test_grey_and_small(files):
    x = kl.VideoSequenceLoader(files, clip=2, channels=1, size=(24, 32), batch_size=2)[0]
    assert x.shape == (2, 2, 24, 32, 1)


@pytest.mark.parametrize("interpolation", ["auto", "area", "pillow-box"])
def test_any_filter(files, interpolation):
    """Those of images, Pillow's too."""
    pytest.importorskip("PIL")
    whole = kl.VideoSequenceLoader(files, clip=None, batch_size=2)[0]
    small = kl.VideoSequenceLoader(
        files, clip=None, size=(6, 8), batch_size=2, interpolation=interpolation
    )[0]
    assert small.shape == (2, 6, 8, 3)
    height, width = whole.shape[1] // 6, whole.shape[2] // 8
    means = whole.reshape(2, 6, height, 8, width, 3).mean(axis=(2, 4))
    assert np.abs(small - means).max() <= 1


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(kl.DecodeError, match="has no frames that OpenCV can read"):
        kl.VideoSequenceLoader(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 60}, "a clip spans 60 frames, but the longest of 2 files has 45"),
        ({"labels": [1]}, "labels has 1 values for 2 files"),
        ({"channels": 4}, "choose 3"),
    ],
)
def test_wrong_options_are_said(files, options, message):
    with pytest.raises(ValueError, match=message):
        kl.VideoSequenceLoader(files, **options)


@pytest.mark.parametrize(
    ("suffix", "codec", "seeks"), [("avi", "MJPG", True), ("mpg", "PIM1", False)]
)
def test_a_container_without_times_is_read_from_its_beginning(
    tmp_path, suffix, codec, seeks, monkeypatch, caplog
):
    """Where times are guessed after a seek, no frame is found by them; and that is told."""
    path = str(tmp_path / f"a.{suffix}")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*codec), 25, (64, 48))
    for number in range(60):
        writer.write(frame_of(number))
    writer.release()
    loader = kl.VideoSequenceLoader(path, batch_size=1, clip=None, workers=0, cache=None)
    sought = []
    capture = cv2.VideoCapture

    class Watched:
        def __init__(self, *args):
            self.inner = capture(*args)

        def set(self, what, value):
            sought.append(value)
            # Such as a stream leads to: some frames further on, with the time that was asked for.
            return self.inner.set(what, value)

        def __getattr__(self, name):
            return getattr(self.inner, name)

    monkeypatch.setattr(cv2, "VideoCapture", Watched)
    for index in (50, 3, 40):
        assert numbers_of(loader[index]).tolist() == [index]
    assert bool(sought) == seeks
    assert ("requires decoding all frames before it" in caplog.text) != seeks


def test_a_video_that_is_cut_is_an_error(tmp_path):
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for number in range(60):
        writer.write(frame_of(number))
    writer.release()
    path.write_bytes(path.read_bytes()[:-20_000])
    for _ in range(2):  # no index is kept of it
        with pytest.raises(
            kl.DecodeError, match=r"a.avi is truncated: AVI, .*bytes by its structure"
        ):
            kl.VideoSequenceLoader(path)
    (one,) = kl.verify(tmp_path, progress=False, workers=1).findings
    assert (one.kind, one.path) == ("truncated", str(path))
