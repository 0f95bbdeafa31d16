"""Data loaders for Keras: more data than RAM, in an order that a seed fixes.

`import kloaders` is cheap: Keras, and with it TensorFlow, is imported when the first loader class
is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kloaders.core.version import __version__

if TYPE_CHECKING:
    from kloaders.convert.packs import finish_pack, write_pack
    from kloaders.convert.tfrecords import finish_tfrecords, write_tfrecords
    from kloaders.core.errors import SampleError
    from kloaders.core.per_thread import PerThread
    from kloaders.core.ray import Ray
    from kloaders.diagnostics.verify.run import verify
    from kloaders.formats.audio import Audio
    from kloaders.formats.errors import DecodeError, UnsupportedError
    from kloaders.formats.image_window import decode_and_crop, keep_encoded
    from kloaders.formats.texts import Text
    from kloaders.interop.augmentation import albumentations_transform, keras_transform
    from kloaders.interop.from_source import from_source, from_torch
    from kloaders.interop.tf_dataset import to_tf_dataset
    from kloaders.loaders.arrays import ArraySequenceLoader, preload
    from kloaders.loaders.autoencoders import inputs_as_labels
    from kloaders.loaders.filtering import filter  # noqa: A004  (under kl. it hides nothing)
    from kloaders.loaders.from_files import from_dataframe, from_directory
    from kloaders.loaders.from_folders import from_folders
    from kloaders.loaders.grouping import class_batches, pairs
    from kloaders.loaders.huggingface import from_huggingface
    from kloaders.loaders.joining import concatenate, zip_loaders
    from kloaders.loaders.mds import MDSSequenceLoader
    from kloaders.loaders.mixing import mix
    from kloaders.loaders.packs import PackSequenceLoader
    from kloaders.loaders.padding import bucket_by_length, padded_batches
    from kloaders.loaders.parquet import ParquetSequenceLoader
    from kloaders.loaders.paths import PathSequenceLoader
    from kloaders.loaders.ram_batches import RamBatchSequenceLoader
    from kloaders.loaders.sequence import SequenceLoader
    from kloaders.loaders.splits import split
    from kloaders.loaders.statistics import statistics
    from kloaders.loaders.subsets import folds, repeat, subset, take
    from kloaders.loaders.tar import TarSequenceLoader
    from kloaders.loaders.text import CsvSequenceLoader, TextLineSequenceLoader
    from kloaders.loaders.tfds import from_tfds
    from kloaders.loaders.tfrecords import TFRecordSequenceLoader
    from kloaders.loaders.video import VideoSequenceLoader
    from kloaders.loaders.windows import WindowSequenceLoader
    from kloaders.places.settings import storage
    from kloaders.sources.source import Source
    from kloaders.sources.tfrecord.features import Feature
    from kloaders.training.callback import LoaderCallback

_HOMES = {
    "ArraySequenceLoader": "loaders.arrays",
    "Audio": "formats.audio",
    "Text": "formats.texts",
    "CsvSequenceLoader": "loaders.text",
    "DecodeError": "formats.errors",
    "Feature": "sources.tfrecord.features",
    "LoaderCallback": "training.callback",
    "MDSSequenceLoader": "loaders.mds",
    "PackSequenceLoader": "loaders.packs",
    "ParquetSequenceLoader": "loaders.parquet",
    "PathSequenceLoader": "loaders.paths",
    "PerThread": "core.per_thread",
    "RamBatchSequenceLoader": "loaders.ram_batches",
    "Ray": "core.ray",
    "SampleError": "core.errors",
    "SequenceLoader": "loaders.sequence",
    "Source": "sources.source",
    "TFRecordSequenceLoader": "loaders.tfrecords",
    "TarSequenceLoader": "loaders.tar",
    "TextLineSequenceLoader": "loaders.text",
    "UnsupportedError": "formats.errors",
    "VideoSequenceLoader": "loaders.video",
    "WindowSequenceLoader": "loaders.windows",
    "albumentations_transform": "interop.augmentation",
    "bucket_by_length": "loaders.padding",
    "padded_batches": "loaders.padding",
    "concatenate": "loaders.joining",
    "filter": "loaders.filtering",
    "decode_and_crop": "formats.image_window",
    "finish_pack": "convert.packs",
    "finish_tfrecords": "convert.tfrecords",
    "folds": "loaders.subsets",
    "from_dataframe": "loaders.from_files",
    "from_directory": "loaders.from_files",
    "from_folders": "loaders.from_folders",
    "from_huggingface": "loaders.huggingface",
    "from_source": "interop.from_source",
    "from_tfds": "loaders.tfds",
    "from_torch": "interop.from_source",
    "inputs_as_labels": "loaders.autoencoders",
    "keep_encoded": "formats.image_window",
    "keras_transform": "interop.augmentation",
    "class_batches": "loaders.grouping",
    "mix": "loaders.mixing",
    "pairs": "loaders.grouping",
    "preload": "loaders.arrays",
    "repeat": "loaders.subsets",
    "split": "loaders.splits",
    "statistics": "loaders.statistics",
    "storage": "places.settings",
    "subset": "loaders.subsets",
    "take": "loaders.subsets",
    "to_tf_dataset": "interop.tf_dataset",
    "verify": "diagnostics.verify.run",
    "write_pack": "convert.packs",
    "write_tfrecords": "convert.tfrecords",
    "zip_loaders": "loaders.joining",
}

__all__ = [
    "ArraySequenceLoader",
    "Audio",
    "CsvSequenceLoader",
    "DecodeError",
    "Feature",
    "LoaderCallback",
    "MDSSequenceLoader",
    "PackSequenceLoader",
    "ParquetSequenceLoader",
    "PathSequenceLoader",
    "PerThread",
    "RamBatchSequenceLoader",
    "Ray",
    "SampleError",
    "SequenceLoader",
    "Source",
    "TFRecordSequenceLoader",
    "TarSequenceLoader",
    "Text",
    "TextLineSequenceLoader",
    "UnsupportedError",
    "VideoSequenceLoader",
    "WindowSequenceLoader",
    "__version__",
    "albumentations_transform",
    "bucket_by_length",
    "class_batches",
    "concatenate",
    "decode_and_crop",
    "filter",
    "finish_pack",
    "finish_tfrecords",
    "folds",
    "from_dataframe",
    "from_directory",
    "from_folders",
    "from_huggingface",
    "from_source",
    "from_tfds",
    "from_torch",
    "inputs_as_labels",
    "keep_encoded",
    "keras_transform",
    "mix",
    "padded_batches",
    "pairs",
    "preload",
    "repeat",
    "split",
    "statistics",
    "storage",
    "subset",
    "take",
    "to_tf_dataset",
    "verify",
    "write_pack",
    "write_tfrecords",
    "zip_loaders",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'kloaders' has no attribute {name!r:.80}")
    value = getattr(importlib.import_module(f"kloaders.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
