"""The minimal cost of a workload on this machine, measured without a loader. No loader can be faster.

Files are in RAM, buffers are reused at once, and nothing is checked.
"""

from __future__ import annotations

import mmap
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import data
import numpy as np
from contestants import takes_part
from workloads import Array, Work, plain_python

Fill = Callable[[Array, Array], None]


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array aligned to 64 bytes, which TensorFlow uses without a copy."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def by_threads(work: Work, fill: Fill, epoch: int) -> Iterator[tuple[Array, Array]]:
    """Call fill(indices, rows) on `work.workers` threads; thread k makes batches k, k + workers, ..."""
    todo = work.batches(epoch)
    count = work.workers
    full: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(count)]
    free: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(count)]
    for buffers in free:
        for _ in range(3):
            buffers.put(aligned((work.batch, *work.shape), work.dtype))

    def run(k: int) -> None:
        for indices in todo[k::count]:
            rows = free[k].get()
            fill(indices, rows[: len(indices)])
            full[k].put(rows)

    for k in range(count):
        threading.Thread(target=run, args=(k,), daemon=True).start()
    for number, indices in enumerate(todo):
        rows = full[number % count].get()
        yield rows[: len(indices)], indices
        free[number % count].put(rows)


def jpegs(work: Work, decoded: Callable[[bytes], Array]) -> Any:
    import cv2

    cv2.setNumThreads(0)
    raw = [open(path, "rb").read() for path in work.paths]  # noqa: SIM115  read at once

    def fill(indices: Array, rows: Array) -> None:
        for row, k in zip(rows, indices, strict=True):
            image = decoded(raw[k])
            if work.is_float:
                small = cv2.resize(image, (data.SIDE, data.SIDE))
                np.multiply(small, np.float32(1 / 255), out=row)
            else:
                cv2.resize(image, (data.SIDE, data.SIDE), dst=row)

    return lambda epoch: by_threads(work, fill, epoch)


@takes_part("W1 W2 W2-uint8", "limit: OpenCV from RAM, threads", "limit", "cv2")
def opencv(work: Work) -> Any:
    import cv2

    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return jpegs(work, lambda raw: cv2.imdecode(np.frombuffer(raw, np.uint8), flags))


@takes_part("W1 W2 W2-uint8", "limit: libjpeg-turbo from RAM, threads", "limit", "cv2 simplejpeg")
def libjpeg_turbo(work: Work) -> Any:
    import simplejpeg

    return jpegs(work, lambda raw: simplejpeg.decode_jpeg(raw, "RGB"))


@takes_part(
    "W1 W2 W2-uint8", "limit: the same, large files decoded at half size", "limit", "cv2 simplejpeg"
)
def libjpeg_turbo_reduced(work: Work) -> Any:
    import simplejpeg

    side = data.SIDE
    return jpegs(
        work,
        lambda raw: simplejpeg.decode_jpeg(
            raw, "RGB", min_height=side, min_width=side, min_factor=1
        ),
    )


def in_ram(work: Work) -> Array:
    if work.name == "W3":
        return np.array(work.packed)
    return np.stack([data.decode(path) for path in work.paths])


@takes_part("W3 W7", "limit: np.take from RAM, threads", "limit", "cv2")
def gather(work: Work) -> Any:
    x = in_ram(work)
    # mode="raise", the default, would go through a buffer and take twice as long.
    return lambda epoch: by_threads(
        work, lambda indices, rows: np.take(x, indices, 0, out=rows, mode="clip"), epoch
    )


@takes_part("W3 W7", "limit: np.take from RAM, one thread", "limit", "cv2")
def gather_alone(work: Work) -> Any:
    x, rows = in_ram(work), aligned((work.batch, *work.shape), work.dtype)

    def epoch(number: int) -> Iterator[tuple[Array, Array]]:
        for indices in work.batches(number):
            yield np.take(x, indices, 0, out=rows[: len(indices)], mode="clip"), indices

    return epoch


@takes_part(
    "W4", "limit: np.take and a jitted step", "limit", "tensorflow keras", backend="tensorflow"
)
def bare_steps(work: Work) -> Any:
    import tensorflow as tf
    from workloads import model_of

    x, y = work.arrays()
    rows = aligned((work.batch, *work.shape), x.dtype)
    model = model_of(work)
    model.optimizer.build(model.trainable_variables)
    step = tf.function(lambda x, y: model.train_step((x, y)), jit_compile=True)

    def epoch(number: int) -> Iterator[tuple[Array, Array]]:
        for indices in work.batches(number):
            taken = np.take(x, indices, 0, out=rows[: len(indices)], mode="clip")
            step(tf.convert_to_tensor(taken), tf.convert_to_tensor(y[indices]))
            yield taken, indices

    return epoch


@takes_part("W5", "limit: forked processes, shared memory", "limit", "cv2")
def forked(work: Work) -> Any:
    import cv2

    cv2.setNumThreads(0)
    paths = work.paths

    def epoch(number: int) -> Iterator[tuple[Array, Array]]:
        todo = work.batches(number)
        shape = (work.samples, *work.shape)
        shared = mmap.mmap(-1, int(np.prod(shape)))  # anonymous memory, shared with the children
        rows = np.frombuffer(shared, np.uint8).reshape(shape)
        pipes, children = [], []
        for k in range(work.workers):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                for batch in range(k, len(todo), work.workers):
                    for row, index in enumerate(todo[batch], batch * work.batch):
                        rows[row] = plain_python(data.decode(paths[index]))
                    os.write(writer, b".")
                os._exit(0)
            os.close(writer)
            pipes.append(reader)
            children.append(child)
        for batch, indices in enumerate(todo):
            os.read(pipes[batch % work.workers], 1)
            start = batch * work.batch
            yield rows[start : start + len(indices)], indices
        for child in children:
            os.waitpid(child, 0)
        for reader in pipes:
            os.close(reader)

    return epoch


@takes_part("W6", "limit: read into the row, threads", "limit")
def straight(work: Work) -> Any:
    paths = work.paths
    with open(paths[0], "rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        start = file.tell()

    def fill(indices: Array, rows: Array) -> None:
        for row, k in zip(rows, indices, strict=True):
            descriptor = os.open(paths[k], os.O_RDONLY)
            os.preadv(descriptor, [row], start)
            os.close(descriptor)

    return lambda epoch: by_threads(work, fill, epoch)
