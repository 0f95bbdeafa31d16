"""A small data set for every kind of loader: all values of a sample are its number."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

SAMPLES, BATCH, SEED = 48, 5, 11
# Values per row, and pixels per side of an image; parts of the campaign can pass larger ones.
WIDTH, SIDE = 16, 12
# Rows so large that the loader reads them instead of using a memory map.
LARGE = 5000

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent


def child_environment(keras=False):
    """The environment of a process that imports kloaders; without Keras it starts in half a second."""
    path = os.pathsep.join([str(TESTS), str(ROOT), os.environ.get("PYTHONPATH", "")])
    set_here = {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **set_here, **({} if keras else {"KLOADERS_WORKER": "1"})}


def loaders_alone():
    """kloaders, in a process that was started without Keras (see `child_environment`)."""
    import kloaders

    for name in kloaders.__all__:
        if name not in ("LoaderCallback", "to_tf_dataset"):
            getattr(kloaders, name)
    os.environ.pop("KLOADERS_WORKER", None)  # worker processes keep nothing in RAM, we do
    return kloaders


def in_a_child(module, *arguments, timeout=600, keras=False, **options):
    """The JSON that `python -m campaign.<module> ARGUMENTS` prints last, or the reason of its end."""
    done = subprocess.run(
        [sys.executable, "-m", f"campaign.{module}", *map(str, arguments)],
        env=child_environment(keras),
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )
    if done.returncode:
        said = "\n".join(done.stderr.splitlines()[-25:])
        raise AssertionError(f"{module} {arguments} ended with {done.returncode}:\n{said}")
    return json.loads(done.stdout.splitlines()[-1])


def row(number, width=None):
    return np.full(width or WIDTH, number, np.int64)


def files(folder):
    """One .npy file per sample; the folder gets its final name when all files exist."""
    names = [f"{k:04d}.npy" for k in range(SAMPLES)]
    if not os.path.exists(folder):
        with _whole(folder) as part:
            for k, name in enumerate(names):
                np.save(os.path.join(part, name), row(k))
    return [os.path.join(folder, name) for name in names]


@contextlib.contextmanager
def _whole(folder):
    part = f"{folder}-{os.getpid()}"
    os.makedirs(part)
    yield part
    os.rename(part, folder)


def pictures(folder):
    """One PNG file per sample."""
    import cv2

    names = [f"{k:04d}.png" for k in range(SAMPLES)]
    if not os.path.exists(folder):
        with _whole(folder) as part:
            for k, name in enumerate(names):
                assert cv2.imwrite(os.path.join(part, name), np.full((SIDE, SIDE, 3), k, np.uint8))
    return [os.path.join(folder, name) for name in names]


def _unfinished(folder):
    """Whether a conversion is missing or incomplete."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return not names or any("unfinished" in name for name in names)


def transform(x, y, rng):
    return x, y


LABELS = np.arange(SAMPLES)


def make(kl, kind, folder, **options):
    """A loader of this kind over the data set; its files are in `folder`, created if necessary."""
    options = {"seed": SEED, "workers": 2, "shuffle": True, **options}
    own = os.path.join(folder, kind.replace(" ", "-"))
    paths = files(os.path.join(folder, "files"))
    rows = np.stack([row(k) for k in range(SAMPLES)])
    if kind == "array":
        return kl.ArraySequenceLoader(rows, LABELS, BATCH, **options)
    if kind.startswith("map"):
        if not os.path.exists(own):
            width = LARGE if kind == "map of large rows" else WIDTH
            np.save(own + ".npy", np.stack([row(k, width) for k in range(SAMPLES)]))
            os.rename(own + ".npy", own)
        return kl.ArraySequenceLoader(np.load(own, mmap_mode="r"), LABELS, BATCH, **options)
    if kind == "path":
        return kl.PathSequenceLoader(paths, LABELS, BATCH, **{"cache": None, **options})
    if kind in ("images", "images cached in RAM", "images cached in a folder"):
        shown = pictures(os.path.join(folder, "shown"))
        cache = {"images": None, "images cached in RAM": "ram"}.get(kind, own)
        return kl.PathSequenceLoader(shown, LABELS, BATCH, **{"cache": cache, **options})
    if kind == "RAM batches":
        return kl.RamBatchSequenceLoader(paths, LABELS, BATCH, ram_batch_size=15, **options)
    if kind.startswith("TFRecord"):
        if _unfinished(own):
            compression = "GZIP" if kind == "TFRecord, compressed" else None
            with quiet():
                kl.write_tfrecords(
                    paths, LABELS, os.path.join(own, "r"), shards=3, compression=compression,
                    progress=False,
                )  # fmt: skip
        records = os.path.join(own, "*.tfrecord")
        return kl.TFRecordSequenceLoader(records, None, BATCH, **options)
    if kind.startswith("pack"):
        if _unfinished(own):
            width = LARGE if kind == "pack of large rows" else WIDTH
            source = kl.ArraySequenceLoader(
                np.stack([row(k, width) for k in range(SAMPLES)]), LABELS, BATCH, workers=0
            )
            with quiet():
                kl.write_pack(source, own, shard_size=20 * 8 * (width + 1), progress=False)
        return kl.PackSequenceLoader(own, BATCH, **options)
    if kind == "view":
        return make(kl, "pack", folder, **options).view()
    if kind == "subset":
        whole = make(kl, "path", folder, **options)
        return kl.split(whole, validation=0.25, seed=SEED)[0]
    assert kind == "processes", kind
    return kl.PathSequenceLoader(
        paths, LABELS, BATCH, transform=transform, processes=True, **{"cache": None, **options}
    )


KINDS = (
    "array",
    "map",
    "map of large rows",
    "path",
    "images",
    "images cached in RAM",
    "images cached in a folder",
    "RAM batches",
    "TFRecord",
    "TFRecord, compressed",
    "pack",
    "pack of large rows",
    "view",
    "subset",
    "processes",
)


@contextlib.contextmanager
def quiet():
    """Silence the messages of loaders."""
    import logging

    log = logging.getLogger("kloaders")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def numbers(batch):
    """The numbers of the samples in a batch, after checking all values."""
    x, y = np.asarray(batch[0]), np.asarray(batch[1])
    flat = x.reshape(len(x), -1)
    assert (flat == y.reshape(-1, 1)).all(), "an x that is not its y's"
    return y.tolist()


def epoch(loader):
    """The batches of the next epoch, as a hand-written loop gets them."""
    loader.on_epoch_begin()
    try:
        for k in range(len(loader)):
            yield loader[k]
    finally:
        loader.on_epoch_end()


def exact(batches, loader):
    """Check that every sample comes once; return the number of samples."""
    found = [k for batch in batches for k in numbers(batch)]
    assert len(set(found)) == len(found) == loader.samples, sorted(found)
    return len(found)
