"""kloaders with its default options, except those that the contestant's name states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import data
import numpy as np
from contestants import takes_part
from workloads import Work, plain_python

SIZE = (data.SIDE, data.SIDE)


def taken(loader: Any, work: Work) -> Any:
    """Return the argument of `fit`, or a hand-written loop over the loader's public interface."""
    if work.spec.fit:
        return loader

    def epoch(number: int) -> Iterator[Any]:
        loader.on_epoch_begin()
        for batch in range(len(loader)):
            yield loader[batch]
        loader.on_epoch_end()

    return epoch


def shuffled(work: Work) -> dict[str, Any]:
    # In `fit` a loader shuffles by default; a hand-written loop must pass shuffle=True.
    return {"seed": work.seed} if work.spec.fit else {"seed": work.seed, "shuffle": True}


def files(work: Work, **options: Any) -> Any:
    import kloaders as kl

    if work.name != "W6":
        # The same as the others use; docs/images.md has the cost of the default, "auto".
        options |= {"size": SIZE, "interpolation": "bilinear"}
    if work.is_float:
        options["rescale"] = 1 / 255
    if work.name != "W7":
        options["cache"] = None  # caching between epochs is not allowed
    return kl.PathSequenceLoader(work.paths, work.labels, work.batch, **shuffled(work), **options)


def arrays(work: Work) -> Any:
    import kloaders as kl

    x, y = (work.packed, work.labels) if work.name == "W3" else work.arrays()
    return kl.ArraySequenceLoader(x, y, work.batch, **shuffled(work))


@takes_part("W1 W2 W2-uint8 W6", "kloaders", "ours", "keras kloaders.loaders.paths")
@takes_part("W5", "kloaders, threads", "ours", "keras kloaders.loaders.paths")
@takes_part("W8", "kloaders, random order", "ours", "keras kloaders.loaders.paths")
def paths(work: Work) -> Any:
    options = {"transform": in_plain_python} if work.name == "W5" else {}
    return taken(files(work, **options), work)


@takes_part("W3", "kloaders, np.memmap", "ours", "keras kloaders.loaders.arrays")
@takes_part("W4", "kloaders", "ours", "keras kloaders.loaders.arrays")
def rows(work: Work) -> Any:
    return taken(arrays(work), work)


def write_pack(work: Work) -> None:
    import kloaders as kl

    source = kl.ArraySequenceLoader(work.packed, work.labels, work.batch)
    kl.write_pack(source, pack_of(work), overwrite=True, progress=False)


def pack_of(work: Work) -> str:
    return f"{work.packed_file}-pack"


@takes_part("W3", "kloaders, pack", "ours", "keras kloaders.loaders.packs", prepare=write_pack)
def pack(work: Work) -> Any:
    import kloaders as kl

    return taken(kl.PackSequenceLoader(pack_of(work), work.batch, **shuffled(work)), work)


def write_records(work: Work) -> None:
    import kloaders as kl

    source = kl.ArraySequenceLoader(work.packed, work.labels, work.batch)
    kl.write_tfrecords(source, out=records_of(work), shards=8, overwrite=True, progress=False)


def records_of(work: Work) -> str:
    return f"{work.packed_file}-kloaders"


@takes_part(
    "W3", "kloaders, TFRecord", "ours", "keras kloaders.loaders.tfrecords", prepare=write_records
)
def records(work: Work) -> Any:
    import kloaders as kl

    features = {"x": "x", "y": "label"}
    files = f"{records_of(work)}-*.tfrecord"
    return taken(kl.TFRecordSequenceLoader(files, features, work.batch, **shuffled(work)), work)


@takes_part(
    "W1 W2 W4", "kloaders, to_tf_dataset", "ours", "tensorflow keras kloaders.loaders.paths"
)
def tf_dataset(work: Work) -> Any:
    import kloaders as kl

    loader = arrays(work) if work.name.startswith("W4") else files(work)
    dataset = kl.to_tf_dataset(loader, shuffle=True)
    return dataset if work.spec.fit else lambda _: iter(dataset)


@takes_part("W4", "kloaders, native=True", "ours", "tensorflow keras kloaders.interop.tf_dataset")
def gathered(work: Work) -> Any:
    import kloaders as kl

    return kl.to_tf_dataset(arrays(work), shuffle=True, native=True)


def in_plain_python(x: Any, y: Any, rng: np.random.Generator) -> Any:
    return plain_python(x), y


@takes_part("W5", "kloaders, processes=True", "ours", "keras kloaders.loaders.paths")
def processes(work: Work) -> Any:
    return taken(files(work, transform=in_plain_python, processes=True), work)


@takes_part("W7", "kloaders", "ours", "keras kloaders.loaders.paths")
def kept(work: Work) -> Any:
    return taken(files(work), work)


@takes_part(
    "W7", "kloaders, preload", "ours", "keras kloaders.loaders.arrays kloaders.loaders.paths"
)
def preloaded(work: Work) -> Any:
    import kloaders as kl

    return taken(kl.preload(files(work), progress=False), work)


@takes_part(
    "W8", "kloaders, RAM batches in storage order", "ours", "keras kloaders.loaders.ram_batches"
)
def ram_batches(work: Work) -> Any:
    import kloaders as kl

    size = min(2048, work.samples // 4)
    resized = {"size": SIZE, "interpolation": "bilinear"}
    in_order = {"draw": "windows", "ram_batch_size": size, **resized}
    return taken(
        kl.RamBatchSequenceLoader(
            work.paths, work.labels, work.batch, **in_order, **shuffled(work)
        ),
        work,
    )
