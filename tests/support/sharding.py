"""Imitates how Keras 3.16 shards a Sequence if keras.distribution has several processes.

After keras/src/trainers/data_adapters/py_dataset_adapter.py and keras/src/distribution/
distribution_lib.py of its main branch, August 2026: the adapter asks for every n-th index, starting at
this process's number, where `auto_shard_dataset` is on, which is the default.
"""

import random

import keras


class Distribution:
    """The attributes of 3.16's keras.distribution.DataParallel that the adapter and a loader read."""

    def __init__(self, process, processes, auto):
        self.auto_shard_dataset = auto
        self.num_processes = self.num_data_shards = processes
        self.data_shard_id = process
        self.batch_dim_name = "batch"
        self.axis_names, self.shape = ["batch"], (processes,)
        self.device_mesh = self


def install(monkeypatch, process, processes, auto=True):
    """Let this process be one of several, and Keras shard what it reads."""
    from keras.src.trainers import data_adapters
    from keras.src.trainers.data_adapters import py_dataset_adapter as module

    distribution = Distribution(process, processes, auto)

    class PyDatasetAdapter(_original(module)):
        def __init__(self, x, class_weight=None, shuffle=False):
            on = distribution.auto_shard_dataset
            self._shards = distribution.num_data_shards if on else 1
            self._shard = distribution.data_shard_id if on else 0
            self._epoch = 0
            super().__init__(x, class_weight, shuffle)

        def _finite_generator(self):
            batches = self.py_dataset.num_batches
            indices = list(range(batches))
            if self.shuffle:
                random.Random(self._epoch).shuffle(indices)
            for i in range(self._shard, batches, self._shards):
                yield self._standardize_batch(self.py_dataset[indices[i]])

        def on_epoch_end(self):
            super().on_epoch_end()
            self._epoch += 1

        @property
        def num_batches(self):
            return (self.py_dataset.num_batches - self._shard + self._shards - 1) // self._shards

    for place in (module, data_adapters):
        if hasattr(place, "PyDatasetAdapter"):
            monkeypatch.setattr(place, "PyDatasetAdapter", PyDatasetAdapter)
    monkeypatch.setattr(keras.distribution, "distribution", lambda: distribution)


def _original(module):
    """Keras' own class, also where this was installed before."""
    kind = module.PyDatasetAdapter
    while kind.__module__ != module.__name__:
        kind = kind.__base__
    return kind
