"""Turns any loader into a tf.data.Dataset: with from_generator and a signature, or with TensorFlow's ops."""

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
        loader: any loader. Its options apply: order, transform, workers, on_error.
        shuffle: whether to shuffle. None uses the loader's setting, and storage order if that is
            None too (a Dataset does not know whether it is for training).
        output_signature: a `tf.TensorSpec` for each array of a batch, in the batch's structure.
            The default is the signature of the first sample; no batch is read for it. For a list of
            arrays, dimensions that differ are None. Required for files of different shapes.
        native: run no Python code per sample, for short training steps and for pipelines that must
            stay in a graph. For arrays in RAM (`ArraySequenceLoader`, loaders from `preload`, and their
            parts from `split`): Python passes sample numbers to TensorFlow, 64 batches at a time, and
            TensorFlow gathers the samples from a copy of the arrays, which is made now. Batches are
            the same as the loader's, with a full shuffle. For a `TFRecordSequenceLoader`:
            tf.data.TFRecordDataset reads the files, which shuffles in a buffer only and cannot skip
            a damaged record; TensorFlow decodes and resizes images.

    After `loader.load_state_dict(state)` the Dataset starts at that position: its first iteration
    has the remaining batches of that epoch. To save a state, count the batches yourself and call
    `loader.state_dict(epoch=..., batch=...)`; this needs a loader with shuffle=True or False.

    tf.data's autotuning is off, also for datasets derived from this one: a `map` with AUTOTUNE runs
    on all cores. `dataset.with_options` turns it on (`options.autotune.enabled = True`), but then
    the end of a loop is sometimes delayed, by up to half the duration of the loop.

    A batch that fails to load raises an error at its position. `dataset.ignore_errors()` drops that
    batch and continues; on_error="skip" of the loader drops only the sample, and reports it.

    The cardinality is known, unless the Dataset starts in the middle of an epoch. The Dataset keeps
    the loader alive; TensorFlow's registry of Python functions, which outlives the Dataset, does
    not. Pass shuffle=False to `fit`: shuffle=True has no effect on a Dataset except a warning.

    In a tf.distribute cluster, give each worker a loader with `shard=` and use
    `strategy.distribute_datasets_from_function`. Strategies that would shard the Dataset are refused.

    Raises:
        SampleError: the first sample fails to load.
        ValueError: keras.distribution expects another part of the data than the loader's `shard`;
            native=True and an option that needs Python (transform, decode, on_error="skip"); or
            the loader resumes in the middle of an epoch with another order.
        TypeError: native=True and a loader of files other than TFRecord files.
        MemoryError: native=True, and not enough memory for a second copy of the arrays.
    """
    import tensorflow as tf

    check_loader(loader, "to_tf_dataset")
    check_own_batches(loader, "to_tf_dataset")
    distributed.check_dataset(loader)
    order = loader.options.effective_shuffle if shuffle is None else shuffle
    if order is None:
        warn(
            "to_tf_dataset uses storage order, since shuffle= is set neither here nor in the "
            "loader; for training pass shuffle=True.",
            once="to_tf_dataset order",
        )
    if native and output_signature is not None:
        raise ValueError(
            "with native=True TensorFlow's ops determine the signature: leave output_signature out."
        )
    if native and isinstance(loader, TFRecordSequenceLoader):
        if loader.runner.loaded is not None:
            raise ValueError(
                "native=True always starts at the beginning of the files, so it cannot resume after "
                "load_state_dict(): leave native out."
            )
        return native_dataset(loader, bool(order))
    loader.options.order_for(order)
    source = _Source(loader, bool(order))
    whole = source.position is None or source.position.size == len(loader)
    # TensorFlow's registry keeps the generator until the process ends, so it must not keep the loader
    # alive. The Dataset does.
    if native:
        dataset = dataset_of(Gather(loader), _Generator(source, index_blocks), _ADVICE)
    else:
        signature = _signature(loader) if output_signature is None else output_signature
        batches = _Generator(source, functools.partial(_Batches, signature))
        dataset = tf.data.Dataset.from_generator(batches, output_signature=signature, name=_ADVICE)
    if whole:
        dataset = with_cardinality(dataset, len(loader), errors=len(loader))
    dataset = dataset.prefetch(2)
    # Only explicit shards are supported: with the policy FILE, experimental_distribute_dataset fails in
    # a cluster. Other policies would drop batches (DATA) or halve them (OFF). Without a cluster the
    # policy has no effect.
    options = tf.data.Options()
    by_file = tf.data.experimental.AutoShardPolicy.FILE
    options.experimental_distribute.auto_shard_policy = by_file
    # TensorFlow's autotuner is woken before the cancellation is set, does not see it, and sleeps again
    # (see keras_api/tf_iterators.py): every other loop over a Dataset ended with an idle second, or
    # up to half of its duration. This Dataset has nothing to tune.
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    # The finalizer keeps the source, and with it the loader, alive as long as the Dataset.
    weakref.finalize(dataset, _let_go, source).atexit = False
    return dataset


def _let_go(_: object) -> None:
    """The finalizer of a Dataset, which only keeps its argument alive until then."""


class _Source:
    """A loader, and the number of its epochs that were begun."""

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
                "the loaded state is in the middle of an epoch "
                f"{'in storage order' if stored else 'that is shuffled'}, but the Dataset is "
                f"{'shuffled' if stored else 'in storage order'}: set shuffle= in the loader before the "
                "state is saved, and not in to_tf_dataset()."
            )

    def next_epoch(self) -> tuple[Order, int]:
        """The order of the next epoch, and its first batch."""
        epoch, position = self.epochs, self.position
        self.epochs, self.position = epoch + 1, None
        if position is None or position.size == len(self.loader):
            return self.loader.runner.order_of(epoch, self.shuffle), 0
        return position.order, position.first


class _Generator:
    """The function that from_generator calls for each epoch; `items` yields the items of an order."""

    def __init__(
        self, source: _Source, items: Callable[[SequenceLoader, Order, int], Iterator[Any]]
    ) -> None:
        self._source = weakref.ref(source)
        self._items = items

    def __call__(self) -> Iterator[Any]:
        source = self._source()
        if source is None:
            raise RuntimeError(
                "the Dataset from to_tf_dataset was deleted while a Dataset derived from it is still in "
                "use: keep a reference to it as long as it is used."
            )
        return self._items(source.loader, *source.next_epoch())


class _Batches(Iterator[Any]):
    """The batches of an order, checked against the signature.

    This is not a generator, since an error would end a generator: here the next batch follows a batch
    that fails to load.
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
    """Raise ValueError for arrays of another shape, with the advice that TensorFlow's message lacks."""
    if not same_structure(batch, signature):
        return  # TensorFlow names both structures
    for array, spec in zip(flatten(batch), flatten(signature), strict=True):
        if not spec.shape.is_compatible_with(array.shape):
            raise ValueError(
                f"batch {number} has an array of shape {array.shape}, but the Dataset was made for "
                f"{tuple(spec.shape)}, the shape of the first sample: pass output_signature= to "
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
