"""The peers at their best settings: tf.data, Keras' own loaders, PyTorch, Grain."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import data
import numpy as np
from contestants import takes_part
from workloads import Array, Work, plain_python

SIZE = (data.SIDE, data.SIDE)

# ----------------------------------------------------------------------------------------- tf.data


def given(dataset: Any, work: Work) -> Any:
    return dataset if work.spec.fit else lambda _: iter(dataset)


def tf_jpegs(work: Work, deterministic: bool = True) -> Any:
    import tensorflow as tf

    def load(path: Any, label: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        image = tf.image.resize(image, SIZE)
        return image / 255.0 if work.is_float else tf.cast(tf.round(image), tf.uint8), label

    dataset = tf.data.Dataset.from_tensor_slices((work.paths, work.labels)).shuffle(work.samples)
    return dataset.map(load, tf.data.AUTOTUNE, deterministic=deterministic)


def tf_batches(dataset: Any, work: Work) -> Any:
    import tensorflow as tf

    return given(dataset.batch(work.batch).prefetch(tf.data.AUTOTUNE), work)


@takes_part("W1 W2 W2-uint8 W8", "tf.data", "peer", "tensorflow")
def tf_data(work: Work) -> Any:
    return tf_batches(tf_jpegs(work), work)


@takes_part("W1 W2 W2-uint8", "tf.data, deterministic=False", "peer", "tensorflow")
def tf_data_loose(work: Work) -> Any:
    return tf_batches(tf_jpegs(work, deterministic=False), work)


@takes_part("W7", "tf.data, cache()", "peer", "tensorflow")
def tf_data_cache(work: Work) -> Any:
    return tf_batches(tf_jpegs(work).cache().shuffle(work.samples), work)


@takes_part("W5", "tf.data, numpy_function", "peer", "tensorflow")
def tf_data_python(work: Work) -> Any:
    import tensorflow as tf

    def slow(x: Any, y: Any) -> Any:
        x = tf.numpy_function(plain_python, [x], tf.uint8, stateful=False)
        return tf.ensure_shape(x, work.shape), y

    return tf_batches(tf_jpegs(work).map(slow, tf.data.AUTOTUNE), work)


def write_records(work: Work) -> None:
    import tensorflow as tf

    rows = work.packed
    for shard in range(SHARDS):
        with tf.io.TFRecordWriter(f"{work.packed_file}-{shard}.tfrecord") as out:
            for k in range(shard, work.samples, SHARDS):
                out.write(np.int64(k).tobytes() + rows[k].tobytes())


SHARDS = 8


@takes_part("W3", "tf.data, TFRecord of raw bytes", "peer", "tensorflow", prepare=write_records)
def tf_data_records(work: Work) -> Any:
    import tensorflow as tf

    def parse(record: Any) -> Any:
        label = tf.io.decode_raw(tf.strings.substr(record, 0, 8), tf.int64)[0]
        x = tf.io.decode_raw(tf.strings.substr(record, 8, -1), tf.uint8)
        return tf.reshape(x, work.shape), label

    files = [f"{work.packed_file}-{shard}.tfrecord" for shard in range(SHARDS)]
    dataset = tf.data.Dataset.from_tensor_slices(files).shuffle(SHARDS)
    dataset = dataset.interleave(
        tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=tf.data.AUTOTUNE
    )
    # Guides recommend a buffer of 1000, which is not a full shuffle.
    return tf_batches(dataset.shuffle(1000).map(parse, tf.data.AUTOTUNE), work)


@takes_part("W4", "tf.data, from_tensor_slices", "peer", "tensorflow")
def tf_data_slices(work: Work) -> Any:
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(work.arrays())
    return tf_batches(dataset.shuffle(work.samples), work)


@takes_part("W4", "tf.data, shuffled numbers and gather", "peer", "tensorflow")
def tf_data_gather(work: Work) -> Any:
    import tensorflow as tf

    x, y = (tf.constant(a) for a in work.arrays())
    dataset = tf.data.Dataset.range(work.samples).shuffle(work.samples).batch(work.batch)
    dataset = dataset.map(lambda k: (tf.gather(x, k), tf.gather(y, k)), tf.data.AUTOTUNE)
    return given(dataset.prefetch(tf.data.AUTOTUNE), work)


@takes_part("W6", "tf.data, decode_raw", "peer", "tensorflow")
def tf_data_npy(work: Work) -> Any:
    import tensorflow as tf

    def load(path: Any, label: Any) -> Any:
        body = tf.strings.substr(tf.io.read_file(path), 128, -1)  # after the header of .npy
        return tf.reshape(tf.io.decode_raw(body, tf.float64), work.shape), label

    dataset = tf.data.Dataset.from_tensor_slices((work.paths, work.labels)).shuffle(work.samples)
    return tf_batches(dataset.map(load, tf.data.AUTOTUNE), work)


# ------------------------------------------------------------------------------------------- Keras


@takes_part("W1 W2 W2-uint8", "image_dataset_from_directory", "peer", "keras tensorflow")
def from_directory(work: Work) -> Any:
    import keras
    import tensorflow as tf

    dataset = keras.utils.image_dataset_from_directory(
        work.paths[0].rpartition("/")[0],
        labels=work.labels.tolist(),
        label_mode="int",
        batch_size=work.batch,
        image_size=SIZE,
        shuffle=True,
        seed=work.seed,
        verbose=False,
    )

    def finish(x: Any, y: Any) -> Any:
        return x / 255.0 if work.is_float else tf.cast(tf.round(x), tf.uint8), y

    return given(dataset.map(finish, tf.data.AUTOTUNE), work)


Load = Callable[[int], Array]


def sequence(work: Work, load: Load | None, take: Any = None, **parallel: Any) -> Any:
    """The typical Sequence of tutorials: load(number) in a loop, or take(numbers)."""
    import keras

    class Tutorial(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(**parallel)
            self.epoch, self.order = 0, work.order(0)

        def __len__(self) -> int:
            return work.steps

        def __getitem__(self, number: int) -> Any:
            picked = self.order[number * work.batch : (number + 1) * work.batch]
            if take is not None:
                return take(picked)
            x = np.stack([load(k) for k in picked])
            return x.astype("float32") / 255.0 if work.is_float else x, picked

        def on_epoch_end(self) -> None:
            self.epoch += 1
            self.order = work.order(self.epoch)

    if work.spec.fit:
        return Tutorial()
    # `fit` is Keras' only public way to run a Sequence with workers; this is the class that it uses.
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    adapter = PyDatasetAdapter(Tutorial())

    def epoch(number: int) -> Iterator[Any]:
        adapter.on_epoch_begin()
        yield from adapter.get_numpy_iterator()
        adapter.on_epoch_end()

    return epoch


def pillow(path: str) -> Array:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize(SIZE, Image.BILINEAR))


@takes_part("W1 W2 W2-uint8", "a tutorial's Sequence, Pillow", "peer", "keras PIL.Image")
def sequence_pillow(work: Work) -> Any:
    paths = work.paths
    return sequence(work, lambda k: pillow(paths[k]))


@takes_part("W1 W2 W2-uint8", "a Sequence, OpenCV, threads", "peer", "keras cv2")
def sequence_threads(work: Work) -> Any:
    paths = work.paths
    quiet_opencv()
    return sequence(work, lambda k: data.decode(paths[k]), workers=work.workers)


@takes_part("W5", "a Sequence, OpenCV, processes", "peer", "keras cv2")
def sequence_processes(work: Work) -> Any:
    paths = work.paths
    quiet_opencv()
    return sequence(
        work,
        lambda k: plain_python(data.decode(paths[k])),
        workers=work.workers,
        use_multiprocessing=True,
    )


@takes_part("W7", "a Sequence that keeps a dict", "peer", "keras cv2")
def sequence_dict(work: Work) -> Any:
    paths, kept = work.paths, {}

    def load(k: int) -> Array:
        if k not in kept:
            kept[k] = data.decode(paths[k])
        return kept[k]

    return sequence(work, load)


@takes_part("W6", "a Sequence, np.load", "peer", "keras")
def sequence_npy(work: Work) -> Any:
    paths = work.paths
    return sequence(work, lambda k: np.load(paths[k]))


@takes_part("W3 W4", "a Sequence, x[numbers]", "peer", "keras")
def sequence_rows(work: Work) -> Any:
    x, y = (work.packed, work.labels) if work.name == "W3" else work.arrays()
    return sequence(work, None, lambda numbers: (x[numbers], y[numbers]))


@takes_part("W4", "fit(x=array, y=array)", "peer", "keras")
def fit_arrays(work: Work) -> Any:
    x, y = work.arrays()
    return {"x": x, "y": y, "batch_size": work.batch, "shuffle": True}


# ----------------------------------------------------------------------------------------- PyTorch


def quiet_opencv(_: Any = None) -> None:
    """Turn off OpenCV's own threads, since there is one worker per core."""
    import cv2

    cv2.setNumThreads(0)


class Samples:
    """(x, y) by number, for PyTorch and Grain; can be pickled."""

    def __init__(self, work: Work) -> None:
        self.count, self.is_float, self.name = work.samples, work.is_float, work.name
        self.file = work.packed_file if work.name == "W3" else None
        self.paths = None if work.name == "W3" else work.paths
        self._rows: Array | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, k: Any) -> tuple[Array, int]:
        k = int(k)
        if self.file is not None:
            if self._rows is None:
                self._rows = np.load(self.file, mmap_mode="r")
            return np.array(self._rows[k]), k
        assert self.paths is not None
        if self.name == "W6":
            return np.load(self.paths[k]), k
        x = data.decode(self.paths[k])
        if self.name == "W5":
            x = plain_python(x)
        return x.astype("float32") / 255.0 if self.is_float else x, k


def torch_loader(work: Work, dataset: Any, workers: int) -> Any:
    from torch.utils.data import DataLoader

    more = {"persistent_workers": True, "worker_init_fn": quiet_opencv} if workers else {}
    return given(DataLoader(dataset, work.batch, shuffle=True, num_workers=workers, **more), work)


@takes_part("W1 W2 W2-uint8 W5", "torch DataLoader, processes", "peer", "torch cv2")
@takes_part("W6", "torch DataLoader, processes", "peer", "torch")
def torch_files(work: Work) -> Any:
    return torch_loader(work, Samples(work), work.workers)


@takes_part("W3 W6", "torch DataLoader, no workers", "peer", "torch")
def torch_alone(work: Work) -> Any:
    return torch_loader(work, Samples(work), 0)


@takes_part("W4", "torch DataLoader, TensorDataset", "peer", "torch")
def torch_tensors(work: Work) -> Any:
    import torch
    from torch.utils.data import TensorDataset

    dataset = TensorDataset(*(torch.from_numpy(a) for a in work.arrays()))
    return torch_loader(work, dataset, 0)


# ------------------------------------------------------------------------------------------- Grain


def grain_flow(work: Work, processes: bool) -> Any:
    """One iterator over all epochs, as Grain's guide recommends: shuffle, load, batch, repeat."""
    import grain

    dataset = grain.MapDataset.source(Samples(work)).shuffle(seed=work.seed)
    dataset = dataset.batch(work.batch).repeat()
    threads = 1 if processes else work.workers
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    flow = dataset.to_iter_dataset(read)
    if processes:
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # its workers read an absl flag, not parsed here
        flow = flow.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=work.workers, per_worker_buffer_size=2)
        )
    if work.spec.fit:
        return {"x": flow, "steps_per_epoch": work.steps}
    running = iter(flow)
    return lambda _: itertools.islice(running, work.steps)


@takes_part("W1 W2 W2-uint8", "Grain, threads", "peer", "grain cv2")
@takes_part("W3 W6", "Grain, threads", "peer", "grain")
def grain_threads(work: Work) -> Any:
    return grain_flow(work, processes=False)


@takes_part("W1 W2 W2-uint8 W5", "Grain, processes", "peer", "grain cv2")
def grain_processes(work: Work) -> Any:
    return grain_flow(work, processes=True)
