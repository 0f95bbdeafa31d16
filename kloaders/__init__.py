"""Data loaders for Keras: more data than RAM, in an order that a seed fixes.

`import kloaders` is cheap: Keras, and with it TensorFlow, is imported when the first loader class
is asked for.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kloaders.arrays import ArraySequenceLoader, preload
    from kloaders.callback import LoaderCallback
    from kloaders.faults import SampleError
    from kloaders.features import Feature
    from kloaders.formats import DecodeError
    from kloaders.front_doors import from_dataframe, from_directory, split
    from kloaders.pack_writer import write_pack
    from kloaders.packs import PackSequenceLoader
    from kloaders.paths import PathSequenceLoader
    from kloaders.ram_batches import RamBatchSequenceLoader
    from kloaders.sequence import SequenceLoader
    from kloaders.tf_dataset import to_tf_dataset
    from kloaders.tfrecord_writer import write_tfrecords
    from kloaders.tfrecords import TFRecordSequenceLoader
    from kloaders.verification import verify

_HOMES = {
    "ArraySequenceLoader": "arrays",
    "DecodeError": "formats",
    "Feature": "features",
    "LoaderCallback": "callback",
    "PackSequenceLoader": "packs",
    "PathSequenceLoader": "paths",
    "RamBatchSequenceLoader": "ram_batches",
    "SampleError": "faults",
    "SequenceLoader": "sequence",
    "TFRecordSequenceLoader": "tfrecords",
    "from_dataframe": "front_doors",
    "from_directory": "front_doors",
    "preload": "arrays",
    "split": "front_doors",
    "to_tf_dataset": "tf_dataset",
    "verify": "verification",
    "write_pack": "pack_writer",
    "write_tfrecords": "tfrecord_writer",
}

__all__ = [
    "ArraySequenceLoader",
    "DecodeError",
    "Feature",
    "LoaderCallback",
    "PackSequenceLoader",
    "PathSequenceLoader",
    "RamBatchSequenceLoader",
    "SampleError",
    "SequenceLoader",
    "TFRecordSequenceLoader",
    "__version__",
    "from_dataframe",
    "from_directory",
    "preload",
    "split",
    "to_tf_dataset",
    "verify",
    "write_pack",
    "write_tfrecords",
]

try:
    __version__ = version("kloaders")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'kloaders' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"kloaders.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
