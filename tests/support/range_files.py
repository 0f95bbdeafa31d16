"""Files of many numbered samples, in each format that is read by ranges, and loaders over them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import kloaders as kl
from tests.support.mds_files import write_mds
from tests.support.object_server import ObjectServer
from tests.support.tar_files import npy_bytes, write_tar

SAMPLES = 60
FILES = 3
#: Values of one sample; all are its number.
WIDTH = 16


class Kind(NamedTuple):
    """A format: what writes it into a folder, and a loader over that folder or its URL."""

    write: Callable[[Path], None]
    load: Callable[..., Any]


def _parts() -> list[range]:
    step = SAMPLES // FILES
    return [range(k * step, (k + 1) * step) for k in range(FILES)]


def _array(number: int) -> Any:
    return np.full(WIDTH, number, np.float32)


def _tfrecords(folder: Path) -> None:
    rows = np.stack([_array(k) for k in range(SAMPLES)])
    loader = kl.ArraySequenceLoader(rows, np.arange(SAMPLES), 8, shuffle=False)
    kl.write_tfrecords(loader, out=folder / "part", shards=FILES, progress=False)


def _pack(folder: Path) -> None:
    rows = np.stack([_array(k) for k in range(SAMPLES)])
    loader = kl.ArraySequenceLoader(rows, np.arange(SAMPLES), 8, shuffle=False)
    kl.write_pack(loader, folder, progress=False)


def _text(folder: Path) -> None:
    for number, part in enumerate(_parts()):
        text = "".join(f"{k}{' ' * (k % 7)}\n" for k in part)
        (folder / f"{number}.txt").write_text(text)


def _csv(folder: Path) -> None:
    for number, part in enumerate(_parts()):
        file = io.StringIO()
        writer = csv.writer(file)
        writer.writerow([*(f"x{n}" for n in range(WIDTH)), "y"])
        for k in part:
            writer.writerow([k] * (WIDTH + 1))
        (folder / f"{number}.csv").write_text(file.getvalue())


def _tar(folder: Path) -> None:
    for number, part in enumerate(_parts()):
        members = {}
        for k in part:
            members[f"{k:04}.npy"] = npy_bytes(_array(k))
            members[f"{k:04}.cls"] = str(k).encode()
        write_tar(folder / f"{number}.tar", members)


def _parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    for number, part in enumerate(_parts()):
        table = pa.table({"x": [_array(k).tolist() for k in part], "y": list(part)})
        pyarrow.parquet.write_table(table, folder / f"{number}.parquet", row_group_size=7)


def _mds(folder: Path) -> None:
    samples = [{"x": _array(k), "y": k} for k in range(SAMPLES)]
    write_mds(folder, {"x": "ndarray", "y": "int"}, samples, shard_size=SAMPLES // FILES)


def number_of(line: str) -> Any:
    """A line of text as x and y."""
    return np.full(WIDTH, int(line), np.float32), int(line)


KINDS = {
    "tfrecord": Kind(
        _tfrecords, lambda at, *a, **o: kl.TFRecordSequenceLoader(f"{at}/part*", None, *a, **o)
    ),
    "pack": Kind(_pack, kl.PackSequenceLoader),
    "text": Kind(
        _text, lambda at, *a, **o: kl.TextLineSequenceLoader(f"{at}/*.txt", number_of, *a, **o)
    ),
    "csv": Kind(_csv, lambda at, *a, **o: kl.CsvSequenceLoader(f"{at}/*.csv", None, "y", *a, **o)),
    "tar": Kind(
        _tar, lambda at, *a, **o: kl.TarSequenceLoader(f"{at}/*.tar", *a, x="npy", y="cls", **o)
    ),
    "parquet": Kind(
        _parquet,
        lambda at, *a, **o: kl.ParquetSequenceLoader(f"{at}/*.parquet", *a, x="x", y="y", **o),
    ),
    "mds": Kind(_mds, lambda at, *a, **o: kl.MDSSequenceLoader(at, *a, x="x", y="y", **o)),
}


def made(kind: str, folder: Path) -> str:
    """A folder in which a format was written; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    KINDS[kind].write(folder)
    return str(folder)


def put_folder(server: ObjectServer, folder: Path | str, name: str = "data") -> str:
    """Put the files of a folder on a server, without indexes; the URL of all of them."""
    for path in Path(folder).iterdir():
        if path.is_file() and not path.name.startswith("."):
            server.objects[f"{name}/{path.name}"] = path.read_bytes()
    return server.url(name)
