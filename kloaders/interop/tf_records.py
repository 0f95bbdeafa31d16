"""Reads TFRecord files with TensorFlow's ops only, for pipelines that must stay inside a graph.

No Python code runs per record, and the index of records is not used. The disadvantages: records are
shuffled in a buffer only, and one damaged byte ends the pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.core.memory import format_bytes
from kloaders.core.messages import warn
from kloaders.core.structure import ArraySpec, flatten, unflatten
from kloaders.formats.tfrecord.examples import BYTES, FLOAT, INT64, features_of
from kloaders.interop.tf_cardinality import with_cardinality
from kloaders.loaders.tfrecords import TFRecordSequenceLoader
from kloaders.sources.tfrecord.leaves import Leaf
from kloaders.sources.weights import WeightedSource

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["native_dataset", "refuse"]

# The maximum bytes of the shuffle buffer, and its minimum number of records.
_BUFFER_BYTES, _BUFFER_LEAST = 512 << 20, 1024
_METHODS = {
    "nearest": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "area": "area",
    "lanczos": "lanczos5",
}


def native_dataset(loader: TFRecordSequenceLoader, shuffle: bool) -> tf.data.Dataset:
    """Batches of a `TFRecordSequenceLoader`'s files, read by tf.data.TFRecordDataset.

    Structure, shapes, dtypes, arrays and numbers are the same as the loader's. TensorFlow decodes and
    resizes images: pixels differ by a few of 255 levels, and images are not rotated by their EXIF tag.

    Raises:
        ValueError: an option of the loader needs Python, or the loader's index.
    """
    import tensorflow as tf

    _check(loader)
    kinds = set(loader.records.records.compressions)
    if len(kinds) > 1:
        raise ValueError(
            "native=True: the files have different compression "
            f"({', '.join(sorted(kind or 'none' for kind in kinds))}), and a TFRecordDataset reads one "
            "kind only. Make a loader for each kind."
        )
    leaves, specs = flatten(loader.records.leaves), flatten(loader.raw_spec)
    steps = [_step(loader, leaf, spec) for leaf, spec in zip(leaves, specs, strict=True)]
    wanted = {leaf.name: step[0] for leaf, step in zip(leaves, steps, strict=True)}

    def parse(raw: Any) -> Any:
        found = tf.io.parse_single_example(raw, wanted)
        made = [
            tf.ensure_shape(decode(found[leaf.name]), spec.shape)
            for leaf, spec, (_, decode) in zip(leaves, specs, steps, strict=True)
        ]
        sample = unflatten(loader.raw_spec, made)
        return sample[0] if len(sample) == 1 and not isinstance(sample[0], tuple) else sample

    (compression,) = kinds
    if shuffle:
        files = tf.data.Dataset.from_tensor_slices(loader.files)
        files = files.shuffle(len(loader.files), seed=loader.seed)
        dataset = files.flat_map(lambda file: tf.data.TFRecordDataset(file, compression))
        dataset = dataset.shuffle(_buffer(loader), seed=loader.seed)
    else:
        dataset = tf.data.TFRecordDataset(loader.files, compression)
    dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    # Not drop_remainder, which would make the size of a batch part of the signature.
    dataset = dataset.batch(loader.batch_size).take(len(loader))
    dataset = with_cardinality(dataset, len(loader), errors=loader.samples)
    return dataset.prefetch(tf.data.AUTOTUNE)


def _check(loader: TFRecordSequenceLoader) -> None:
    refuse(
        "reads records",
        [
            ("transform= is a function in Python", loader.transform is not None),
            ("batch_transform= is a function in Python", loader.batch_transform is not None),
            ("load_sample or load_batch is overridden", loader.source.owner() is not None),
            ("the loader uses only some of the records", len(loader.records) != loader.samples),
            ("decode= is a function in Python", loader.records.runs_user_code),
            (
                "preprocess= is a function in Python",
                loader.options.transforms.preprocess is not None,
            ),
            (
                "sample_weights= go by sample number",
                loader.weights is not None or isinstance(loader.source, WeightedSource),
            ),
            ("class_weight= is looked up in NumPy", loader.options.classes is not None),
            ("sampling goes by sample number", bool(loader.sampling)),
            ("pad_last= adds weights", loader.pad_last),
            ("shard= cuts batches (use Dataset.shard)", loader.shard[1] > 1),
            (f"cache={loader.cache!r:.80} is kept in Python", loader.cache not in (None, "auto")),
            (f"on_error={loader.on_error!r:.80} needs the index", loader.on_error != "raise"),
            ("quarantine= needs the index", loader.quarantine is not None),
            ("exclude= needs the index", loader.records.records.kept is not None),
        ],
    )


def refuse(does: str, conditions: list[tuple[str, bool]]) -> None:
    """Raise ValueError for the first condition that is true, which a graph cannot fulfil."""
    for what, there in conditions:
        if there:
            raise ValueError(
                f"native=True {does} by TensorFlow's ops only, and {what}: leave native out, "
                "or leave the option out."
            )


def _buffer(loader: TFRecordSequenceLoader) -> int:
    """The number of records in the shuffle buffer."""
    each = loader.records.records.bytes_in_all // max(1, loader.samples)
    size = min(loader.samples, max(_BUFFER_LEAST, _BUFFER_BYTES // max(1, each)))
    if size < loader.samples:
        warn(
            f"native=True shuffles in a buffer of {size:,} of {loader.samples:,} records "
            f"({format_bytes(size * each)}); without native, all records are shuffled.",
            once="native buffer",
        )
    return size


# How TensorFlow parses a feature, and the function that makes an array of the result.
_Step = tuple[Any, Callable[[Any], Any]]


def _step(loader: TFRecordSequenceLoader, leaf: Leaf, spec: ArraySpec) -> _Step:
    import tensorflow as tf

    record = loader.read_record(loader.runner.specs.model_sample)
    found = features_of(record)
    here = found.get(leaf.name)
    if here is not None and here.steps is not None:
        raise ValueError(
            f"native=True reads Examples with TensorFlow's ops, but {leaf.name!r:.80} is a feature list "
            "of a SequenceExample. Leave native out."
        )
    if leaf.class_names is not None:
        raise ValueError(
            "native=True reads labels as they are stored, and class_names= converts texts to "
            "numbers. Leave out native, or class_names."
        )
    kind = BYTES if here is None else here.kind
    default = leaf.feature.default
    if kind in (FLOAT, INT64):
        stored = tf.float32 if kind == FLOAT else tf.int64
        if default is not None:
            default = np.broadcast_to(np.asarray(default), [n or 0 for n in spec.shape])
        feature = tf.io.FixedLenFeature(spec.shape, stored, default)
        return feature, lambda value: tf.cast(value, spec.dtype)
    if here is None:
        raise ValueError(
            f"native=True: the first record has no feature {leaf.name!r:.80}, so its type is not "
            "known. Leave native out."
        )
    slot = leaf.slot(record, found)
    text = tf.io.FixedLenFeature([], tf.string)
    if slot is not None and slot.stored is not None:
        raw = tf.as_dtype(slot.stored.newbyteorder("="))

        def numbers(value: Any) -> Any:
            return tf.cast(tf.reshape(tf.io.decode_raw(value, raw), spec.shape), spec.dtype)

        return text, numbers
    if here.kind == BYTES and leaf.holds_pixels(record, found):
        raise ValueError(
            f"native=True: {leaf.name!r:.80} holds raw pixels, and TensorFlow's ops need one fixed "
            f"shape for them. Leave native out, or pass kl.Feature({leaf.name!r:.80}, shape=..., "
            'dtype="uint8").'
        )
    return text, _picture(leaf, spec)


def _picture(leaf: Leaf, spec: ArraySpec) -> Callable[[Any], Any]:
    import tensorflow as tf

    options = leaf.options
    if options.interpolation not in ("auto", *_METHODS) or options.aspect != "stretch":
        raise ValueError(
            f"native=True: TensorFlow has no interpolation={options.interpolation!r:.80} with "
            f"aspect={options.aspect!r:.80}. Leave out native, or these options."
        )
    wide = spec.dtype == np.uint16

    def decode(value: Any) -> Any:
        image = tf.io.decode_image(
            value,
            channels=spec.shape[-1] or 0,
            dtype=tf.uint16 if wide else tf.uint8,
            expand_animations=False,
        )
        if options.size is not None:
            method = options.interpolation
            if method == "auto":  # first the axes that shrink, then those that grow
                least = tf.minimum(tf.shape(image)[:2], options.size)
                image, method = tf.image.resize(image, least, "area"), "bilinear"
            image = tf.image.resize(image, options.size, _METHODS[method])
            if options.rescale is None and np.issubdtype(spec.dtype, np.integer):
                image = tf.round(
                    tf.clip_by_value(tf.cast(image, tf.float32), 0, 65535 if wide else 255)
                )
        if options.rescale is not None:
            image = tf.cast(image, tf.float32) * options.rescale
        return tf.cast(image, spec.dtype)

    return decode
