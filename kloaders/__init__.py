"""Data loaders for Keras: more data than RAM, in an order that a seed fixes.

`import kloaders` is cheap: Keras, and with it TensorFlow, is imported when the first loader class
is asked for.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kloaders.adapters import albumentations_transform, keras_transform
    from kloaders.arrays import ArraySequenceLoader, preload
    from kloaders.autoencoders import inputs_as_labels
    from kloaders.callback import LoaderCallback
    from kloaders.faults import SampleError
    from kloaders.features import Feature
    from kloaders.formats import DecodeError
    from kloaders.front_doors import from_dataframe, from_directory, split
    from kloaders.mixing import mix
    from kloaders.pack_writer import write_pack
    from kloaders.packs import PackSequenceLoader
    from kloaders.padding import bucket_by_length
    from kloaders.paths import PathSequenceLoader
    from kloaders.per_thread import PerThread
    from kloaders.ram_batches import RamBatchSequenceLoader
    from kloaders.sequence import SequenceLoader
    from kloaders.subsets import folds, repeat, subset, take
    from kloaders.texts import CsvSequenceLoader, TextLineSequenceLoader
    from kloaders.tf_dataset import to_tf_dataset
    from kloaders.tfrecord_writer import write_tfrecords
    from kloaders.tfrecords import TFRecordSequenceLoader
    from kloaders.torch_data import from_torch
    from kloaders.verification import verify
    from kloaders.video import VideoSequenceLoader

_HOMES = {
    "ArraySequenceLoader": "arrays",
    "CsvSequenceLoader": "texts",
    "DecodeError": "formats",
    "Feature": "features",
    "LoaderCallback": "callback",
    "PackSequenceLoader": "packs",
    "PathSequenceLoader": "paths",
    "PerThread": "per_thread",
    "RamBatchSequenceLoader": "ram_batches",
    "SampleError": "faults",
    "SequenceLoader": "sequence",
    "TFRecordSequenceLoader": "tfrecords",
    "TextLineSequenceLoader": "texts",
    "VideoSequenceLoader": "video",
    "albumentations_transform": "adapters",
    "bucket_by_length": "padding",
    "folds": "subsets",
    "from_dataframe": "front_doors",
    "from_directory": "front_doors",
    "from_torch": "torch_data",
    "inputs_as_labels": "autoencoders",
    "keras_transform": "adapters",
    "mix": "mixing",
    "preload": "arrays",
    "repeat": "subsets",
    "split": "front_doors",
    "subset": "subsets",
    "take": "subsets",
    "to_tf_dataset": "tf_dataset",
    "verify": "verification",
    "write_pack": "pack_writer",
    "write_tfrecords": "tfrecord_writer",
}

__all__ = [
    "ArraySequenceLoader",
    "CsvSequenceLoader",
    "DecodeError",
    "Feature",
    "LoaderCallback",
    "PackSequenceLoader",
    "PathSequenceLoader",
    "PerThread",
    "RamBatchSequenceLoader",
    "SampleError",
    "SequenceLoader",
    "TFRecordSequenceLoader",
    "TextLineSequenceLoader",
    "VideoSequenceLoader",
    "__version__",
    "albumentations_transform",
    "bucket_by_length",
    "folds",
    "from_dataframe",
    "from_directory",
    "from_torch",
    "inputs_as_labels",
    "keras_transform",
    "mix",
    "preload",
    "repeat",
    "split",
    "subset",
    "take",
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
