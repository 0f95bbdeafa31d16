"""Folders in MDS, written by hand as the format is described, for tests of what reads them."""

from __future__ import annotations

import json

import numpy as np


def column(encoding, value):
    """The bytes of a value in one of the simple encodings."""
    if encoding == "int":
        return np.int64(value).tobytes()
    if encoding == "str":
        return value.encode()
    if encoding == "json":
        return json.dumps(value).encode()
    if encoding == "ndarray":
        value = np.asarray(value)
        kind = {"uint8": 8, "float32": 34, "int64": 65}[value.dtype.name]
        return bytes([kind, value.ndim << 2, *value.shape]) + value.tobytes()
    if encoding.startswith("ndarray:"):
        return np.asarray(value).tobytes()
    if encoding in ("jpeg", "png", "bytes", "pil", "pkl"):
        return value
    return np.array(value, encoding).tobytes()


def size_of(encoding):
    """Bytes of a column whose values are all of one size; None for others."""
    if encoding == "int":
        return 8
    if encoding.count(":") == 2:
        _, dtype, sides = encoding.split(":")
        return int(np.prod([int(n) for n in sides.split(",")])) * np.dtype(dtype).itemsize
    try:
        return np.dtype(encoding).itemsize
    except TypeError:
        return None


def write_mds(folder, columns, samples, shard_size=4, **more):
    """Samples, a dict each, in shards; gives the folder as a text. more: fields of each shard."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(columns)
    sizes = [size_of(columns[name]) if columns[name] not in _VARIES else None for name in names]
    shards = []
    for number, first in enumerate(range(0, len(samples), shard_size)):
        bodies = []
        for sample in samples[first : first + shard_size]:
            values = [column(columns[name], sample[name]) for name in names]
            head = [len(v) for v, size in zip(values, sizes, strict=True) if size is None]
            bodies.append(np.array(head, "<u4").tobytes() + b"".join(values))
        config = b'{"format": "mds"}'
        begin = 4 * (len(bodies) + 2) + len(config)
        ends = begin + np.cumsum([0, *map(len, bodies)])
        raw = np.array([len(bodies), *ends], "<u4").tobytes() + config + b"".join(bodies)
        name = f"shard.{number:05}.mds"
        (folder / name).write_bytes(raw)
        shards.append(
            {
                "version": 2,
                "format": "mds",
                "compression": None,
                "hashes": [],
                "column_names": names,
                "column_encodings": [columns[n] for n in names],
                "column_sizes": sizes,
                "samples": len(bodies),
                "size_limit": None,
                "raw_data": {"basename": name, "bytes": len(raw), "hashes": {}},
                "zip_data": None,
                **more,
            }
        )
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": shards}))
    return str(folder)


_VARIES = {"str", "json", "ndarray", "jpeg", "png", "bytes", "pil", "pkl"}
