"""TFRecord files for tests, and functions that read them."""

import logging

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.formats import images
from kloaders.formats.tfrecord.examples import array_features, encode_example
from kloaders.sources.cache import store as stores
from tests.support.recording import picture_of

SAMPLES = 23


def png(number, side=4):
    return cv2.imencode(".png", picture_of(number, side)[..., ::-1])[1].tobytes()


def everything(loader, shuffle=False, epoch=0):
    """All batches of an epoch, joined."""
    batches = list(loader.epoch_batches(epoch, shuffle))
    first = batches[0]
    if isinstance(first, tuple):
        return tuple(join([batch[k] for batch in batches]) for k in range(len(first)))
    return join(batches)


def join(parts):
    if isinstance(parts[0], dict):
        return {k: join([part[k] for part in parts]) for k in parts[0]}
    if isinstance(parts[0], tuple):
        return tuple(join([part[k] for part in parts]) for k in range(len(parts[0])))
    return np.concatenate(parts)


def raw_records(write, samples=60, side=32, name="a.tfrecord", **more):
    """Arrays large enough to be read in place, with texts of several lengths beside them."""
    return write(
        [
            {**array_features("x", picture_of(n, side)), "label": n, "id": f"n{n}", **more}
            for n in range(samples)
        ],
        name,
    )


IMAGE = {"x": "image_raw", "y": "label"}


@pytest.fixture
def said(caplog, monkeypatch):
    """The logged messages, as one text."""
    monkeypatch.setattr("kloaders.core.messages._logged", set())
    caplog.set_level(logging.INFO, "kloaders")
    return lambda: caplog.text


@pytest.fixture
def write(tmp_path):
    """write(list of features, name) -> the path of a TFRecord file."""

    tf = pytest.importorskip("tensorflow")

    def _write(samples, name="a.tfrecord", compression=""):
        path = str(tmp_path / name)
        with tf.io.TFRecordWriter(path, compression) as writer:
            for sample in samples:
                writer.write(sample if isinstance(sample, bytes) else encode_example(sample))
        return path

    return _write


@pytest.fixture
def pictures(tmp_path):
    """Files of SAMPLES pictures, and their labels."""
    paths = []
    for number in range(SAMPLES):
        path = tmp_path / f"{number:03}.png"
        path.write_bytes(png(number))
        paths.append(str(path))
    return paths, np.arange(SAMPLES) % 5


@pytest.fixture
def of_pictures(pictures, tmp_path):
    """TFRecord files of the pictures and their labels."""
    paths, labels = pictures
    return kl.write_tfrecords(paths, labels, tmp_path / "p", shards=2, progress=False).files


@pytest.fixture
def decoded(monkeypatch):
    """How many pictures were decoded, as a list."""
    found = []
    real = images.decode_image

    def decode(raw, *arguments):
        found.append(len(raw))
        return real(raw, *arguments)

    monkeypatch.setattr(images, "decode_image", decode)
    monkeypatch.setattr(stores, "CHECK_SECONDS", 0.0)
    return found
