"""`shard="auto"`: finds the part of the data for this process from the job that it belongs to.

It imports nothing for that: a library that is not imported yet cannot have been initialized.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from kloaders.core.messages import inform, warn
from kloaders.keras_api import distributed

__all__ = ["auto_shard"]

Part = tuple[int, int]


def auto_shard() -> Part:
    """(k, n) of this process; (0, 1) if no job of several processes is found.

    The first of these that belongs to a job decides: `keras.distribution`, `torch.distributed`,
    `jax.distributed`, Ray Train, SLURM. The result is logged at level INFO.

    A `keras.distribution` that shards a Sequence by itself (Keras 3.16) would shard the part again:
    its `auto_shard_dataset` is switched off, with a warning.
    """
    for name, find in _FINDERS.items():
        part = find()
        if part is not None:
            inform(f'shard="auto": part {part[0]} of {part[1]}, from {name}.', once=f"shard {part}")
            return part
    inform(
        'shard="auto": no job of several processes was found, so this process reads all of the '
        "data. A job is found if keras.distribution.set_distribution, "
        "torch.distributed.init_process_group or jax.distributed.initialize was called before the "
        "loader is made, and in Ray Train and under srun.",
        once="shard alone",
    )
    return 0, 1


def _of_keras() -> Part | None:
    keras = sys.modules.get("keras")
    distribution = None if keras is None else distributed.distribution_of(keras)
    if distribution is None:
        return None
    part = distributed.part_of(distribution)
    if part[1] > 1 and getattr(distribution, "auto_shard_dataset", False):
        distribution.auto_shard_dataset = False
        warn(
            f"{type(distribution).__name__}.auto_shard_dataset is switched off: Keras would shard data "
            f'that shard="auto" has already sharded. If you also use a tf.data.Dataset that is not made '
            "from a loader, shard it yourself. Pass auto_shard_dataset=False to silence this.",
            once="auto_shard_dataset off",
        )
    return part


def _of_torch() -> Part | None:
    group: Any = sys.modules.get("torch.distributed")
    if group is None or not group.is_available() or not group.is_initialized():
        return None
    return int(group.get_rank()), int(group.get_world_size())


def _of_jax() -> Part | None:
    jax: Any = sys.modules.get("jax")
    # jax.process_count() would start JAX's backend, and after that initialize() raises an error.
    if jax is None or not distributed.jax_is_initialized(jax):
        return None
    return int(jax.process_index()), int(jax.process_count())


def _of_ray() -> Part | None:
    train: Any = sys.modules.get("ray.train")
    if train is None:
        return None
    try:
        context = train.get_context()
        rank, count = context.get_world_rank(), context.get_world_size()
    except Exception:  # outside a worker of Ray Train; its type differs between Ray's releases
        return None
    return None if rank is None or count is None or count < 2 else (int(rank), int(count))


def _of_slurm() -> Part | None:
    # A batch script is one process and has SLURM_NTASKS as well, so only srun's variables count.
    count = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    rank = os.environ.get("SLURM_PROCID", "")
    if not (count.isdecimal() and rank.isdecimal()) or not int(rank) < int(count) > 1:
        return None
    return int(rank), int(count)


_FINDERS: dict[str, Callable[[], Part | None]] = {
    "keras.distribution": _of_keras,
    "torch.distributed": _of_torch,
    "jax.distributed": _of_jax,
    "Ray Train": _of_ray,
    "SLURM (srun)": _of_slurm,
}
