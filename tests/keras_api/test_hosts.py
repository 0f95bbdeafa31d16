"""shard="auto": which libraries are asked, in which order, and how the answer is used."""

from __future__ import annotations

import logging
import subprocess
import sys
import types
from itertools import chain

import keras
import numpy as np
import pytest

import kloaders as kl
from kloaders.core import messages
from kloaders.keras_api import hosts
from tests.support import sharding
from tests.support.marks import TF
from tests.support.recording import BACKEND, VERSION, recording_model, row_of

SAMPLES, BATCH, SEED = 32, 4, 7


def loader(**options):
    x = np.stack([row_of(i) for i in range(SAMPLES)])
    options = {"seed": SEED, "shuffle": True, "shard": "auto", **options}
    return kl.ArraySequenceLoader(x, np.arange(SAMPLES, dtype=np.float32), BATCH, **options)


@pytest.fixture(autouse=True)
def logged(monkeypatch):
    """Each message may be logged once more."""
    monkeypatch.setattr(messages, "_logged", set())


def module(monkeypatch, name, **attributes):
    fake = types.ModuleType(name)
    vars(fake).update(attributes)
    monkeypatch.setitem(sys.modules, name, fake)
    return fake


def torch_group(monkeypatch, rank, count, initialized=True):
    module(
        monkeypatch,
        "torch.distributed",
        is_available=lambda: True,
        is_initialized=lambda: initialized,
        get_rank=lambda: rank,
        get_world_size=lambda: count,
    )


def jax_job(monkeypatch, rank, count, initialized=True):
    def no_backend():
        raise AssertionError("asked before jax.distributed.initialize: that starts the backend")

    module(
        monkeypatch,
        "jax",
        distributed=types.SimpleNamespace(is_initialized=lambda: initialized),
        process_index=(lambda: rank) if initialized else no_backend,
        process_count=(lambda: count) if initialized else no_backend,
    )


def ray_train(monkeypatch, rank, count):
    def context():
        if count is None:
            raise RuntimeError("`get_context` has been called outside of a training worker.")
        return types.SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: count)

    module(monkeypatch, "ray.train", get_context=context)


def slurm(monkeypatch, rank, count, step=True):
    monkeypatch.setenv("SLURM_PROCID", str(rank))
    monkeypatch.setenv("SLURM_NTASKS", str(count))
    if step:
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", str(count))


def keras_distribution(monkeypatch, rank, count):
    """One that says its part, as since Keras 3.16; it exists on JAX and torch."""
    monkeypatch.setattr(
        hosts.distributed,
        "distribution_of",
        lambda keras: types.SimpleNamespace(data_shard_id=rank, num_data_shards=count),
    )


# A distribution that is set wins over all others; here none is.
no_distribution = pytest.mark.usefixtures("_no_distribution")


@pytest.fixture
def _no_distribution(monkeypatch):
    monkeypatch.setattr(hosts.distributed, "distribution_of", lambda keras: None)
    for name in ("torch.distributed", "ray.train"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    jax_job(monkeypatch, 0, 1, initialized=False)
    for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


@no_distribution
def test_the_order_of_who_is_asked(monkeypatch, caplog):
    """SLURM, Ray Train, JAX, torch, Keras: each that comes is asked before those that were there."""
    caplog.set_level(logging.INFO, "kloaders")
    assert loader().shard == (0, 1)
    assert "no job of several processes was found" in caplog.text
    steps = [
        (slurm, "SLURM (srun)"),
        (ray_train, "Ray Train"),
        (jax_job, "jax.distributed"),
        (torch_group, "torch.distributed"),
        (keras_distribution, "keras.distribution"),
    ]
    assert [name for _, name in reversed(steps)] == list(hosts._FINDERS)
    for k, (add, name) in enumerate(steps):
        add(monkeypatch, k, 10)
        assert loader().shard == (k, 10)
        assert caplog.messages[-1] == f'shard="auto": part {k} of 10, from {name}.'
        assert caplog.records[-1].levelno == logging.INFO


@no_distribution
@pytest.mark.parametrize(
    "add",
    [
        lambda patch: torch_group(patch, 0, 2, initialized=False),
        lambda patch: jax_job(patch, 0, 2, initialized=False),
        lambda patch: ray_train(patch, None, None),
        lambda patch: ray_train(patch, 0, 1),
        lambda patch: slurm(patch, 0, 8, step=False),
    ],
    ids=["torch", "jax", "ray outside", "ray alone", "a SLURM batch script"],
)
def test_what_is_there_and_no_job(monkeypatch, add):
    """A library that is imported, or a batch script of eight tasks, is no job of several processes."""
    add(monkeypatch)
    assert loader().shard == (0, 1)


@no_distribution
def test_parts_fit_together(monkeypatch):
    """Three ranks deliver, batch by batch, what one process with the larger batch would."""
    parts = []
    for rank in range(3):
        slurm(monkeypatch, rank, 3)
        parts.append([y.tolist() for _, y in loader()])
    kind = kl.ArraySequenceLoader
    x = np.arange(SAMPLES, dtype=np.float32)
    whole = [y.tolist() for _, y in kind(x, x, 3 * BATCH, seed=SEED, shuffle=True)]
    assert [list(chain.from_iterable(batches)) for batches in zip(*parts, strict=True)] == whole


@no_distribution
def test_what_is_made_from_a_loader_keeps_its_part(monkeypatch):
    """The same for libraries that are asked later."""
    slurm(monkeypatch, 1, 2)
    first = loader()
    slurm(monkeypatch, 0, 4)
    assert kl.take(first, 8).shard == first.view().shard == (1, 2)


def test_another_text_is_refused():
    with pytest.raises(TypeError, match=r"shard='all', expected \(k, n\).* or \"auto\""):
        loader(shard="all")


not_tf = pytest.mark.skipif(TF, reason="keras.distribution is of JAX and torch")


@not_tf
@pytest.mark.skipif(
    BACKEND == "jax" and VERSION < (3, 9), reason="this Keras takes only a Dataset there"
)
@pytest.mark.parametrize("auto", [True, False])
def test_with_keras_own_sharding(monkeypatch, caplog, auto):
    """Keras 3.16's own sharding is turned off and logged: two ranks together train as one would."""
    found = []
    for rank in range(2):
        sharding.install(monkeypatch, rank, 2, auto)
        model, received = recording_model()
        model.fit(loader(drop_last=True), epochs=2, verbose=0)
        found.append(received.trained)
        assert keras.distribution.distribution().auto_shard_dataset is False
    assert ("auto_shard_dataset is switched off" in caplog.text) is auto
    plan = kl.ArraySequenceLoader(
        np.zeros((SAMPLES, 2), np.float32), None, 2 * BATCH, seed=SEED, shuffle=True
    ).plan
    orders = [plan.shuffled_order(epoch) for epoch in range(2)]
    whole = [plan.indices(o, k).tolist() for o in orders for k in range(plan.batches)]
    assert [list(chain.from_iterable(batches)) for batches in zip(*found, strict=True)] == whole


_TORCH = """
import sys
import numpy as np
import torch.distributed as dist
import kloaders as kl

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
x = np.arange(32, dtype=np.float32)
loader = kl.ArraySequenceLoader(x, x, 4, seed=7, shuffle=True, shard="auto")
print("part", loader.shard, [int(v) for _, y in loader for v in y])
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="needs torch")
def test_two_torch_processes(tmp_path):
    """Real ranks of torch.distributed, over gloo."""
    rendezvous = tmp_path / "rendezvous"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", _TORCH, str(rank), str(rendezvous)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=100)[0] for process in ranks]
    lines = [next(line for line in text.splitlines() if line.startswith("part")) for text in said]
    assert [line[:11] for line in lines] == ["part (0, 2)", "part (1, 2)"]
    numbers = [eval(line[12:]) for line in lines]
    assert sorted(numbers[0] + numbers[1]) == list(range(SAMPLES))
    assert keras.backend.backend() == "torch"
