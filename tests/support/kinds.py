"""One loader of each kind over the same samples, each with its number written into it."""

from __future__ import annotations

import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import picture_of, row_of

SAMPLES, BATCH = 11, 4  # batches of 4, 4 and 3


class RawLoader(kl.PathSequenceLoader):
    """A user's own format: headerless little-endian float32."""

    def load_sample(self, path):
        return np.fromfile(path, "<f4")


class IndexLoader(kl.SequenceLoader):
    """A user's own source, sample by sample."""

    def load_sample(self, index):
        return row_of(index), np.float32(index)


class BatchLoader(kl.SequenceLoader):
    """A user's own source that reads many samples at once."""

    def load_batch(self, indices):
        return np.stack([row_of(i) for i in indices]), indices.astype(np.float32)


class Flaky(kl.SequenceLoader):
    """Raises for one sample as long as `broken` is set."""

    broken = True

    def load_sample(self, index):
        if self.broken and index == 9:
            raise OSError("Expected exception")
        return row_of(index), np.float32(index)


class Shared:
    """Files of 24 samples in three formats."""

    def __init__(self, folder):
        import cv2

        self.folder = folder
        self.npy, self.png, self.raw = [], [], []
        for number in range(24):
            name = str(folder / f"{number:03}")
            np.save(name + ".npy", row_of(number))
            cv2.imwrite(name + ".png", picture_of(number)[..., ::-1])
            row_of(number).tofile(name + ".raw")
            for suffix in ("npy", "png", "raw"):
                getattr(self, suffix).append(f"{name}.{suffix}")

    def pack(self, n):
        """A pack of the first n samples, in shards of five."""
        folder = self.folder / f"pack{n}"
        if not folder.exists():
            source = kl.ArraySequenceLoader(rows(n), labels(n))
            kl.write_pack(source, folder, shard_size=5 * 12, progress=False)
        return folder

    def records(self, n, compression=None):
        """TFRecord files of the first n samples."""
        name = self.folder / f"records{n}{compression}"
        if not list(self.folder.glob(f"{name.name}-*")):
            source = kl.ArraySequenceLoader(rows(n), labels(n))
            kl.write_tfrecords(
                source, out=name, shards=min(n, 2), compression=compression, progress=False
            )
        return f"{name}-*"


def labels(n):
    return np.arange(n, dtype=np.float32)


def rows(n):
    return np.stack([row_of(i) for i in range(n)])


def array(files, n, **options):
    return kl.ArraySequenceLoader(rows(n), labels(n), BATCH, **options)


def npy(files, n, **options):
    return kl.PathSequenceLoader(files.npy[:n], labels(n), BATCH, **options)


def by_url(files, n, **options):
    """Fetched ahead, by the file system of fsspec that each process has."""
    pytest.importorskip("fsspec")
    urls = [f"file://{path}" for path in files.npy[:n]]
    return kl.PathSequenceLoader(urls, labels(n), BATCH, **options)


def png(files, n, **options):
    return kl.PathSequenceLoader(files.png[:n], labels(n), BATCH, **options)


def ram_windows(files, n, **options):
    return kl.RamBatchSequenceLoader(
        files.npy[:n], labels(n), BATCH, ram_batch_size=8, draw="windows", **options
    )


def ram_global(files, n, **options):
    return kl.RamBatchSequenceLoader(files.npy[:n], labels(n), BATCH, ram_batch_size=8, **options)


def by_path(files, n, **options):
    return RawLoader(files.raw[:n], labels(n), BATCH, **options)


def by_index(files, n, **options):
    return IndexLoader(n, BATCH, **options)


def by_batch(files, n, **options):
    return BatchLoader(n, BATCH, **options)


def preloaded(files, n, **options):
    return kl.preload(npy(files, n, **options), progress=False)


def packed(files, n, **options):
    return kl.PackSequenceLoader(files.pack(n), BATCH, **options)


def records(files, n, **options):
    return kl.TFRecordSequenceLoader(files.records(n), {"x": "x", "y": "label"}, BATCH, **options)


def records_gzip(files, n, **options):
    return kl.TFRecordSequenceLoader(
        files.records(n, "GZIP"), {"x": "x", "y": "label"}, BATCH, ram_batch_size=8, **options
    )


KINDS = [
    array,
    npy,
    by_url,
    png,
    ram_windows,
    ram_global,
    by_path,
    by_index,
    by_batch,
    preloaded,
    packed,
    records,
    records_gzip,
]
# Kinds whose bookkeeping differs; the others differ only in how a sample is read.
FEW = [array, npy, ram_windows, ram_global, by_index]


def kinds(of):
    return pytest.mark.parametrize("kind", of, ids=[kind.__name__ for kind in of])
