"""A loader over a data set of TensorFlow Datasets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kloaders.core.options import shows_options
from kloaders.core.structure import flatten
from kloaders.loaders.encoded import EncodedLoader, EncodedOptions, encoded_options
from kloaders.sources.items import ItemSource
from kloaders.sources.tables import listed

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["from_tfds"]


@shows_options(EncodedOptions, encoded_options)
def from_tfds(
    dataset: Any,
    x: Any = "image",
    y: Any = None,
    batch_size: int = 32,
    *,
    split: str = "train",
    data_dir: str | os.PathLike[str] | None = None,
    **options: Unpack[EncodedOptions],
) -> EncodedLoader:
    """A loader over a data set of TensorFlow Datasets, in any order: shuffled as a whole.

    Needs `tensorflow-datasets`, and a data set prepared as ArrayRecord:
    `tfds.builder(name, file_format="array_record").download_and_prepare()`. Images stay encoded until
    they are read, and several threads decode them: `size=`, `cache=` and other options work as for
    files. If the label is a ClassLabel, its names are in `class_names`.

    Args:
        dataset: a name, such as "mnist", or a builder.
        x: the features of the input: a name; "name:key" for a part of one; a list of names for
            a row of float32 numbers; a tuple or dict of these for several.
        y: the features of the label, in the same form; None for none.
        batch_size: samples per batch.
        split: the split, in TFDS' notation: "train", "test[:50%]".
        data_dir: TFDS' data folder; None: its default.
        size, interpolation, aspect, channels, rescale, dct_scaling, max_pixels, label_options: how
            images are decoded; see `PathSequenceLoader`.
        decode: a function of an input's value that returns its array; for labels
            `label_options={"decode": ...}`.
        class_names: the names of classes, for labels that are texts: each is replaced by its index.
        ram_batch_size, ram_budget, draw: serve from RAM batches; see `RamBatchSequenceLoader`.
        **options: see `SequenceLoader`.

    Raises:
        ImportError: tensorflow-datasets is not installed.
        TypeError: it is neither a name nor a builder.
        ValueError: the feature does not exist.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "from_tfds needs TensorFlow Datasets: pip install tensorflow-datasets array_record."
        ) from error
    builder = tfds.builder(dataset, data_dir=data_dir) if isinstance(dataset, str) else dataset
    if not hasattr(builder, "as_data_source"):
        raise TypeError(
            f'dataset is a {type(builder).__name__}, expected a name such as "mnist", or a builder '
            "(tfds.builder(name)). For tfds.data_source(...) use from_source(source)."
        )
    return _TfdsLoader(tfds, builder, split, x, y, batch_size, **options)


class _TfdsLoader(EncodedLoader):
    """The loader class of `from_tfds`."""

    def __init__(
        self,
        tfds: Any,
        builder: Any,
        split: str,
        x: Any,
        y: Any,
        batch_size: int,
        **options: Unpack[EncodedOptions],
    ) -> None:
        chosen = self._chosen(options, ("split", "data_dir"))
        fields = self._fields(x, y, chosen, options)
        features = dict(builder.info.features.items())
        tops = {
            n if n in features else n.partition(":")[0] for f in flatten(fields) for n in f.names
        }
        for name in sorted(tops - set(features)):
            raise ValueError(
                f"there is no feature {name!r:.80}, there are {listed(list(features))}."
            )
        encoded = {n for n in tops if isinstance(features[n], tfds.features.Image)}
        items = builder.as_data_source(
            split=split, decoders={name: tfds.decode.SkipDecoding() for name in sorted(encoded)}
        )
        rows = ItemSource(items, fields, f"{builder.info.full_name} {split}")
        self._start(rows, batch_size, chosen, options)
        labels = flatten(fields[1]) if len(fields) > 1 else []
        if self.class_names is None and len(labels) == 1 and labels[0].alone:
            names = getattr(features.get(labels[0].name), "names", None)
            self.class_names = None if names is None else list(names)
