"""One loader of each kind over the same samples, each with its number written into it."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import kloaders as kl
from kloaders.migrate import timeseries_dataset_from_array
from tests.support.mds_files import write_mds
from tests.support.recording import picture_of, row_of
from tests.support.tar_files import npy_bytes, write_tar

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

    def hdf5(self, n):
        """The first n samples in an HDF5 file."""
        path = self.folder / f"rows{n}.h5"
        if not path.exists():
            with h5py.File(path, "w") as file:
                file["x"], file["y"] = rows(n), labels(n)
        return path

    def records(self, n, compression=None):
        """TFRecord files of the first n samples."""
        name = self.folder / f"records{n}{compression}"
        if not list(self.folder.glob(f"{name.name}-*")):
            source = kl.ArraySequenceLoader(rows(n), labels(n))
            kl.write_tfrecords(
                source, out=name, shards=min(n, 2), compression=compression, progress=False
            )
        return f"{name}-*"

    def tars(self, n):
        """Tar files of the first n samples, as WebDataset writes them."""
        pattern = self.folder / f"tar{n}-*.tar"
        if not list(self.folder.glob(pattern.name)):
            for part in np.array_split(np.arange(n), min(n, 2)):
                members = {}
                for k in part.tolist():
                    members |= {
                        f"{k:03}.npy": npy_bytes(row_of(k)),
                        f"{k:03}.json": f"{k}.0".encode(),
                    }
                write_tar(self.folder / f"tar{n}-{part[0]:03}.tar", members)
        return str(pattern)

    def parquet(self, n):
        """A Parquet file of the first n samples, in row groups of four."""
        arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        from pyarrow.parquet import write_table

        path = self.folder / f"{n}.parquet"
        if not path.exists():
            table = arrow.table({"x": list(rows(n)), "label": labels(n)})
            write_table(table, path, row_group_size=4)
        return path

    def mds(self, n):
        """A folder of MDS of the first n samples."""
        folder = self.folder / f"mds{n}"
        if not folder.exists():
            samples = [{"x": row_of(k), "label": float(k)} for k in range(n)]
            write_mds(folder, {"x": "ndarray", "label": "float32"}, samples)
        return folder


def labels(n):
    return np.arange(n, dtype=np.float32)


def rows(n):
    return np.stack([row_of(i) for i in range(n)])


def array(files, n, **options):
    return kl.ArraySequenceLoader(rows(n), labels(n), BATCH, **options)


def hdf5(files, n, **options):
    with h5py.File(files.hdf5(n)) as file:
        return kl.ArraySequenceLoader(file["x"], file["y"], BATCH, **options)


def windows(files, n, **options):
    """Windows of two numbers that share none, and a label for each."""
    options = {"shuffle": None, "batch_size": BATCH, **options}
    return timeseries_dataset_from_array(
        rows(n).ravel(), np.repeat(labels(n), 2), 2, sequence_stride=2, **options
    )


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


def tar(files, n, **options):
    return kl.TarSequenceLoader(files.tars(n), BATCH, x="npy", y="json", **options)


def parquet(files, n, **options):
    return kl.ParquetSequenceLoader(files.parquet(n), BATCH, x="x", y="label", **options)


def mds(files, n, **options):
    return kl.MDSSequenceLoader(files.mds(n), BATCH, x="x", y="label", **options)


KINDS = [
    array,
    hdf5,
    windows,
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
    tar,
    parquet,
    mds,
]
# Kinds whose bookkeeping differs; the others differ only in how a sample is read.
FEW = [array, npy, ram_windows, ram_global, by_index]


def kinds(of):
    return pytest.mark.parametrize("kind", of, ids=[kind.__name__ for kind in of])
