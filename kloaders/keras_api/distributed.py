"""Checks that a loader delivers this process's part of the data when several processes train one model.

The loader has `shard=(k, n)`. These functions compare it with the distribution settings of Keras and
TensorFlow, when Keras begins a pass and when a Dataset is made. Without a distribution a check costs
one dictionary lookup.
"""

from __future__ import annotations

import sys
from typing import Any

from kloaders.core.messages import warn
from kloaders.core.options import OrderOptions
from kloaders.core.protocols import Loader

__all__ = [
    "check_dataset",
    "check_pass",
    "check_settings",
    "distribution_of",
    "jax_is_initialized",
    "part_of",
]

_PAGE = "docs/distributed.md has an example."


def check_settings(order: OrderOptions) -> None:
    """Warn about settings that all processes must have in common."""
    k, n = order.part
    if n > 1 and order.seed_drawn and order.shuffle is not False:
        warn(
            f"shard=({k}, {n}) without seed=: this process drew seed {order.seed}. The parts fit "
            "together only if every process has the same one: pass seed=, or call "
            "keras.utils.set_random_seed before the loader is made.",
            once="shard without seed",
        )


def check_pass(loader: Loader) -> None:
    """Called in the thread that calls fit, evaluate or predict, when it begins to read."""
    keras = sys.modules.get("keras")
    if keras is None:
        return
    distribution = distribution_of(keras)
    if distribution is not None:
        _check_auto_shard(distribution, "take every {}th batch of this loader")
        _check_part(loader, distribution, keras)
    elif loader.shard[1] > 1 and _tensorflow_tasks(keras) > 1:
        raise ValueError(
            f"this loader has shard={loader.shard}, and in a cluster TensorFlow would shard its batches "
            "once more in fit, evaluate and predict. Write your own training loop, over strategy."
            "distribute_datasets_from_function(lambda context: to_tf_dataset(loader)). " + _PAGE
        )


def check_dataset(loader: Loader) -> None:
    """Called when a Dataset is made: later it is unknown what reads it."""
    keras = sys.modules.get("keras")
    distribution = None if keras is None else distribution_of(keras)
    if distribution is not None:
        _check_auto_shard(distribution, "shard this Dataset")
        _check_part(loader, distribution, keras)


def distribution_of(keras: Any) -> Any:
    """The value of `keras.distribution.set_distribution`; None on backends without it."""
    if keras.backend.backend() not in ("jax", "torch"):
        return None
    return keras.distribution.distribution()


def _check_auto_shard(distribution: Any, does: str) -> None:
    # Keras 3.16 asks a Sequence for every n-th index only, and an index is a ticket here: each of n
    # processes would train on 1/n of the samples of its part, or all on the same samples.
    k, n = part_of(distribution)
    if n > 1 and getattr(distribution, "auto_shard_dataset", False):
        raise ValueError(
            f"keras.distribution would {does.format(n)} by itself, on top of the loader's shard=: "
            f"samples would be lost. Pass auto_shard_dataset=False to {type(distribution).__name__}, "
            f"and shard=({k}, {n}) to the loader of this process. {_PAGE}"
        )


def _check_part(loader: Loader, distribution: Any, keras: Any) -> None:
    part = part_of(distribution)
    if _processes(distribution) > 1 and loader.shard != part:
        given = "no shard=" if loader.shard == (0, 1) else f"shard={loader.shard}"
        raise ValueError(
            f"this loader has {given}, but its process has to read part {part[0]} of {part[1]}: "
            f"pass shard={part} and the same seed= in all processes. {_PAGE}"
        )
    replicas = _replicas(distribution)
    devices = max(1, replicas // part[1])  # devices that share a batch of this loader
    if loader.batch_size % devices:
        raise ValueError(
            f"batch_size={loader.batch_size} cannot be divided among {devices} devices: choose a "
            "multiple."
        )
    if loader.pad_last or replicas == 1 or keras.backend.backend() == "torch":
        return
    short = loader.plan.tail
    if short % replicas:
        raise ValueError(
            f"the last batch of an epoch has {short} samples for {replicas} devices, which need "
            "equal parts: use pad_last=True (padded with weight 0) or drop_last=True."
        )
    if loader.on_error == "skip":
        raise ValueError(
            'on_error="skip" makes batches shorter, and devices need equal parts: use "replace", '
            "or pad_last=True with it."
        )


def part_of(distribution: Any) -> tuple[int, int]:
    """-> (which part of the data this process reads, the number of parts)."""
    if hasattr(distribution, "num_data_shards"):  # since Keras 3.16, on every backend
        return int(distribution.data_shard_id), int(distribution.num_data_shards)
    import jax

    processes = _processes(distribution)
    parts = min(processes, _replicas(distribution))
    # 8 processes, 2 replicas of a model that spans 4 each -> processes 0-3 read part 0
    return int(jax.process_index()) // (processes // parts), parts


def _replicas(distribution: Any) -> int:
    mesh = distribution.device_mesh
    return int(dict(zip(mesh.axis_names, mesh.shape, strict=True))[distribution.batch_dim_name])


def _processes(distribution: Any) -> int:
    if hasattr(distribution, "num_processes"):  # since Keras 3.16
        return int(distribution.num_processes)
    import jax

    return int(jax.process_count())


def jax_is_initialized(jax: Any) -> bool:
    """Whether this process has joined a job with `jax.distributed.initialize`."""
    known = getattr(jax.distributed, "is_initialized", None)
    if known is not None:  # since JAX 0.5
        return bool(known())
    # Older versions have no public function for this that does not start JAX's backend.
    state = getattr(sys.modules.get("jax._src.distributed"), "global_state", None)
    return getattr(state, "client", None) is not None


def _tensorflow_tasks(keras: Any) -> int:
    """The number of tasks of the TensorFlow cluster that this process is in."""
    tf = sys.modules.get("tensorflow")
    if tf is None or keras.backend.backend() != "tensorflow":
        return 1
    # /job:worker/replica:0/task:1/device:CPU:0
    return len({d.name.split("/device:")[0] for d in tf.config.list_logical_devices()})
