"""kloaders for another test bed, which finds contestants in a folder by a decorator.

Copy or link this file into the `contestants/` folder of the test bed as `kloaders_.py`. It needs the
test bed's module `core`, so `run.py` does not use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from core import contestant, gil_work


def delivered(loader: Any, w: Any) -> Any:
    """Return the argument of `fit`, or a function from the epoch to its batches."""
    if w.mode == "fit":
        return loader

    def epoch(number: int) -> Iterator[Any]:
        loader.on_epoch_begin()
        for batch in range(len(loader)):
            yield loader[batch]
        loader.on_epoch_end()

    return epoch


def shuffled(w: Any) -> dict[str, Any]:
    # In `fit` a loader shuffles by default; a hand-written loop must pass shuffle=True.
    return {"seed": w.seed} if w.mode == "fit" else {"seed": w.seed, "shuffle": True}


def files(w: Any, **options: Any) -> Any:
    import kloaders as kl

    if w.id != "W7":
        options["cache"] = None  # caching between epochs is not allowed
    if w.id == "W6":
        return kl.PathSequenceLoader(w.npys, w.labels, w.batch, **shuffled(w), **options)
    if w.float:
        options["rescale"] = 1 / 255
    options |= {"size": w.shape[:2], "interpolation": "bilinear"}  # the same as the others use
    return kl.PathSequenceLoader(w.jpegs, w.labels, w.batch, **shuffled(w), **options)


def arrays(w: Any) -> Any:
    import kloaders as kl

    x, y = (w.images(), w.labels) if w.id == "W3" else w.arrays()
    return kl.ArraySequenceLoader(x, y, w.batch, **shuffled(w))


@contestant("W1 W2 W6 W7", "kloaders", needs=["keras", "kloaders.loaders.paths"])
def from_files(w: Any) -> Any:
    return delivered(files(w), w)


def write_pack(w: Any) -> None:
    import kloaders as kl

    kl.write_pack(arrays(w), w.folder("kloaders-pack"), progress=False)


def write_records(w: Any) -> None:
    import kloaders as kl

    kl.write_tfrecords(arrays(w), out=w.folder("kloaders-records"), shards=8, progress=False)


@contestant("W3", "kloaders, pack", needs=["keras", "kloaders.loaders.packs"], prepare=write_pack)
def from_pack(w: Any) -> Any:
    import kloaders as kl

    return delivered(kl.PackSequenceLoader(w.folder("kloaders-pack"), w.batch, **shuffled(w)), w)


RECORDS = {"needs": ["keras", "kloaders.loaders.tfrecords"], "prepare": write_records}


@contestant("W3", "kloaders, TFRecord", **RECORDS)
def from_records(w: Any) -> Any:
    return delivered(records(w), w)


@contestant("W3", "kloaders, TFRecord, check_crc=False", **RECORDS)
def from_unchecked_records(w: Any) -> Any:
    return delivered(records(w, check_crc=False), w)


def records(w: Any, **options: Any) -> Any:
    import kloaders as kl

    files = w.folder("kloaders-records") + "-*.tfrecord"
    return kl.TFRecordSequenceLoader(
        files, {"x": "x", "y": "label"}, w.batch, **shuffled(w), **options
    )


@contestant("W3", "kloaders, np.memmap", needs=["keras", "kloaders.loaders.arrays"])
@contestant("W4", "kloaders", needs=["keras", "kloaders.loaders.arrays"])
def from_arrays(w: Any) -> Any:
    return delivered(arrays(w), w)


@contestant(
    "W7", "kloaders, preload", needs=["keras", "kloaders.loaders.arrays", "kloaders.loaders.paths"]
)
def from_ram(w: Any) -> Any:
    import kloaders as kl

    return delivered(kl.preload(files(w), progress=False), w)


@contestant(
    "W1 W2 W4", "kloaders, to_tf_dataset", needs=["tensorflow", "kloaders.interop.tf_dataset"]
)
def as_tf_dataset(w: Any) -> Any:
    import kloaders as kl

    loader = arrays(w) if w.id.startswith("W4") else files(w)
    dataset = kl.to_tf_dataset(loader, shuffle=True)
    return dataset if w.mode == "fit" else lambda _: iter(dataset)


@contestant("W4", "kloaders, native=True", needs=["tensorflow", "kloaders.interop.tf_dataset"])
def gathered(w: Any) -> Any:
    import kloaders as kl

    return kl.to_tf_dataset(arrays(w), shuffle=True, native=True)


def in_plain_python(x: Any, y: Any, rng: np.random.Generator) -> Any:
    return gil_work(x), y


def with_transform(**options: Any) -> Callable[[Any], Any]:
    return lambda w: delivered(files(w, transform=in_plain_python, **options), w)


for _name, _options in {"threads": {}, "processes=True": {"processes": True}}.items():
    contestant("W5", f"kloaders, {_name}", needs=["keras", "kloaders.loaders.paths"])(
        with_transform(**_options)
    )
