"""Any loader as a tf.data.Dataset: by from_generator with an explicit signature, or by TensorFlow's ops."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kloaders.core.messages import warn
from kloaders.core.structure import ArraySpec, Structure, flatten, map_structure, same_structure
from kloaders.interop.tf_cardinality import with_cardinality
from kloaders.interop.tf_gather import Gather, dataset_of, index_blocks
from kloaders.interop.tf_records import native_dataset
from kloaders.keras_api import distributed
from kloaders.loaders.checking import check_loader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.loaders.settings import check_own_batches
from kloaders.loaders.tfrecords import TFRecordSequenceLoader
from kloaders.plan.epoch import Order

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["to_tf_dataset"]

# TensorFlow prints this name in its error, and allows no other characters in it.
_ADVICE = "kloaders_needs_distribute_datasets_from_function_and_a_loader_with_shard_k_n"


def to_tf_dataset(
    loader: SequenceLoader,
    shuffle: bool | None = None,
    output_signature: Any = None,
    *,
    native: bool = False,
) -> tf.data.Dataset:
    """A Dataset of the loader's batches; each iteration over it is a new epoch.

    Args:
        loader: any loader. Its options hold: order, transform, workers, on_error.
        shuffle: True or False say in which order; None takes the loader's own word, and storage
            order if that is None too (a Dataset cannot be asked what it is for).
        output_signature: a `tf.TensorSpec` for each array of a batch, in the batch's structure.
            By default the first sample's, and no batch is read to find it; of a list of arrays,
            the dimensions in which they differ are None. Files of different shapes need it.
        native: no line of Python for a sample, for small steps and for pipelines that must stay in
            a graph. Of arrays in RAM (`ArraySequenceLoader`, what `preload` gives, parts of it that
            `split` made): Python gives TensorFlow the numbers of the samples, 64 batches at a time,
            and TensorFlow gathers them from a copy of the arrays that it makes now; the batches
            are the loader's, shuffled as a whole. Of a `TFRecordSequenceLoader`: the files are read
            by tf.data.TFRecordDataset; it is shuffled in a buffer only, cannot skip a damaged
            record, and pictures are decoded and resized by TensorFlow.

    After `loader.load_state_dict(state)` the Dataset begins there: its first iteration has what is
    left of that epoch. Count its batches yourself, `loader.state_dict(epoch=..., batch=...)` makes
    a state of the count; the loader must say `shuffle=` itself then.

    tf.data's autotuning is off, of what is added behind it too: a `map` with AUTOTUNE runs on all
    cores. `dataset.with_options` turns it on again (`options.autotune.enabled = True`), and with
    it, now and then, a pause at the end of a loop, of up to half of what the loop took.

    A batch that does not load is an error in its place: with `dataset.ignore_errors()` it is missing,
    and the others come; on_error="skip" of the loader leaves out the sample alone, and reports it.

    Cardinality is asserted, but where the Dataset begins in the middle of an epoch. The Dataset
    holds the loader; TensorFlow's registry of Python functions, which outlives the Dataset, does
    not. In `fit` pass shuffle=False, which has no effect on a Dataset but a warning.

    In a tf.distribute cluster, give each worker a loader with `shard=` and go through
    `strategy.distribute_datasets_from_function`. What would shard the Dataset by itself is refused.

    Raises:
        SampleError: the first sample does not load.
        ValueError: keras.distribution expects another part of the data than the loader's `shard`;
            native=True and an option that takes Python (transform, decode, on_error="skip"); or
            the loader goes on in the middle of an epoch of another order.
        TypeError: native=True and a loader of files other than TFRecord files.
        MemoryError: native=True, and no room for a second copy of the arrays.
    """
    import tensorflow as tf

    check_loader(loader, "to_tf_dataset")
    check_own_batches(loader, "to_tf_dataset")
    distributed.check_dataset(loader)
    order = loader.options.effective_shuffle if shuffle is None else shuffle
    if order is None:
        warn(
            "to_tf_dataset serves storage order, since neither it nor the loader was told to "
            "shuffle; for training pass shuffle=True.",
            once="to_tf_dataset order",
        )
    if native and output_signature is not None:
        raise ValueError(
            "native=True takes its signature from TensorFlow's ops: leave output_signature out."
        )
    if native and isinstance(loader, TFRecordSequenceLoader):
        if loader.runner.loaded is not None:
            raise ValueError(
                "native=True reads the files from their beginning, and the loader is to go on after "
                "load_state_dict(): leave native out."
            )
        return native_dataset(loader, bool(order))
    loader.options.order_for(order)
    source = _Source(loader, bool(order))
    whole = source.position is None or source.position.size == len(loader)
    # The generator lives as long as the process, in TensorFlow's registry: it must not hold the
    # loader. The Dataset does.
    if native:
        dataset = dataset_of(Gather(loader), _Generator(source, index_blocks), _ADVICE)
    else:
        signature = _signature(loader) if output_signature is None else output_signature
        batches = _Generator(source, functools.partial(_Batches, signature))
        dataset = tf.data.Dataset.from_generator(batches, output_signature=signature, name=_ADVICE)
    if whole:
        dataset = with_cardinality(dataset, len(loader), errors=len(loader))
    dataset = dataset.prefetch(2)
    # Only explicit shards: "by file" makes experimental_distribute_dataset fail in a cluster, where
    # another policy would drop batches (DATA) or halve them (OFF). Elsewhere it has no effect.
    options = tf.data.Options()
    by_file = tf.data.experimental.AutoShardPolicy.FILE
    options.experimental_distribute.auto_shard_policy = by_file
    # TensorFlow's tuner looks for a cancellation that is not there yet when it is woken, and sleeps on:
    # every other loop over a Dataset ended with a second, or up to half of its time, in which nothing
    # happened. Nothing here is left to tune.
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    # The Dataset holds its source, and with it the loader, as long as it lives itself.
    weakref.finalize(dataset, _let_go, source).atexit = False
    return dataset


def _let_go(_: object) -> None:
    """Called with what a Dataset held when it is gone."""


class _Source:
    """A loader and how many epochs of it were begun."""

    def __init__(self, loader: SequenceLoader, shuffle: bool) -> None:
        self.loader = loader.view()
        self.shuffle = shuffle
        #: Where the first iteration begins, if not at epoch 0.
        self.position = loader.runner.loaded
        if self.position is None:
            self.epochs = 0
            return
        self.epochs = self.position.order.epoch
        stored = loader.plan.is_stored(self.position.order)
        if self.position.size < len(loader) and stored == shuffle:
            raise ValueError(
                "the state that was loaded is in the middle of an epoch "
                f"{'in storage order' if stored else 'that is shuffled'}, and the Dataset is not: say "
                "shuffle= to the loader, before the state is taken, and not to to_tf_dataset()."
            )

    def next_epoch(self) -> tuple[Order, int]:
        """The order of the next epoch, and its first batch."""
        epoch, position = self.epochs, self.position
        self.epochs, self.position = epoch + 1, None
        if position is None or position.size == len(self.loader):
            return self.loader.runner.order_of(epoch, self.shuffle), 0
        return position.order, position.first


class _Generator:
    """What from_generator calls for each epoch; `items` gives what it yields, of an order."""

    def __init__(
        self, source: _Source, items: Callable[[SequenceLoader, Order, int], Iterator[Any]]
    ) -> None:
        self._source = weakref.ref(source)
        self._items = items

    def __call__(self) -> Iterator[Any]:
        source = self._source()
        if source is None:
            raise RuntimeError(
                "the Dataset that to_tf_dataset gave was dropped while something made from it is "
                "still read: keep a reference to it as long as it is used."
            )
        return self._items(source.loader, *source.next_epoch())


class _Batches(Iterator[Any]):
    """The batches of an order, checked against the signature.

    Not a generator, which an error would end: behind a batch that does not load the next one comes.
    """

    def __init__(self, signature: Any, loader: SequenceLoader, order: Order, first: int) -> None:
        self._signature, self._loader, self._order = signature, loader, order
        self._next = self._first = first
        self._batches = loader.runner.batches(order, first)

    def __next__(self) -> Any:
        number = self._next
        self._next += 1
        try:
            batch = next(self._batches)
        except StopIteration:
            raise
        except BaseException:
            self._batches = self._loader.runner.batches(self._order, self._next)
            raise
        _check_batch(batch, self._signature, number - self._first)
        return batch


def _check_batch(batch: Any, signature: Any, number: int) -> None:
    """Say what TensorFlow's own message does not: what to do about arrays of another shape."""
    if not same_structure(batch, signature):
        return  # TensorFlow names both structures
    for array, spec in zip(flatten(batch), flatten(signature), strict=True):
        if not spec.shape.is_compatible_with(array.shape):
            raise ValueError(
                f"batch {number} has an array of shape {array.shape}, and the Dataset was made for "
                f"{tuple(spec.shape)}, as the first sample is: pass output_signature= to "
                "to_tf_dataset(), with tf.TensorSpec(shape, dtype) for each array of a batch and "
                "None where shapes differ."
            )


def _signature(loader: SequenceLoader) -> Any:
    import tensorflow as tf

    rows = loader.batch_size if loader.pad_last else None

    def spec(leaf: ArraySpec) -> Any:
        return tf.TensorSpec((rows, *leaf.shape), leaf.dtype)

    sample: Structure = map_structure(spec, loader.delivered_spec())
    if loader.has_weights:
        weights = map_structure(spec, loader.runner.delivery.weights_spec(loader.delivered_spec()))
        return sample[0], (sample[1] if len(sample) > 1 else None), weights
    if len(sample) == 1 and not isinstance(sample[0], tuple):
        return sample[0]
    return sample
