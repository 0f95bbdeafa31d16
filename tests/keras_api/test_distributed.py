"""Several processes train one model: together they receive what one process would, batch by batch.

`jax_worker` and `tensorflow_worker` run in real processes that talk over the loopback interface;
`run_together` starts them, and they print what their own replica of the model received.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from itertools import chain
from pathlib import Path

import keras
import numpy as np
import pytest

import kloaders as kl
from kloaders.core import messages
from kloaders.keras_api import distributed
from tests.support import sharding
from tests.support.recording import (
    BACKEND,
    VERSION,
    Counts,
    Received,
    loss,
    numbers_of,
    recording_model,
    row_of,
)

SAMPLES, BATCH, PARTS, EPOCHS, SEED = 21, 4, 2, 2, 7  # global batches of 8, 8 and 5
ROOT = Path(__file__).parents[2]
# Two interpreters import a framework and connect; on a busy machine that alone takes 20 s.
PATIENCE = 100

scenario = pytest.mark.scenario
only_tf = pytest.mark.skipif(BACKEND != "tensorflow", reason="a part of TensorFlow")
only_jax = pytest.mark.skipif(BACKEND != "jax", reason="a part of JAX")


def joined(batches):
    """The sample numbers of several batches, one list."""
    return list(chain.from_iterable(batches))


def rows(n=SAMPLES):
    return np.stack([row_of(i) for i in range(n)])


def labels(n=SAMPLES):
    return np.arange(n, dtype=np.float32)


# ---------------------------------------------------------------- what shard= is to give


class IndexLoader(kl.SequenceLoader):
    """A user's own source, sample by sample."""

    def load_sample(self, index):
        return row_of(index), np.float32(index)


class BatchLoader(kl.SequenceLoader):
    """A user's own source that reads many samples at once."""

    def load_batch(self, indices):
        return np.stack([row_of(i) for i in indices]), indices.astype(np.float32)


class RawLoader(kl.PathSequenceLoader):
    """A user's own format."""

    def load_sample(self, path):
        return np.fromfile(path, "<f4")


def array(folder, batch, **options):
    return kl.ArraySequenceLoader(rows(), labels(), batch, **options)


def path(folder, batch, **options):
    return kl.PathSequenceLoader(folder, labels(), batch, **options)


def by_path(folder, batch, **options):
    return RawLoader([name.replace(".npy", ".raw") for name in folder], labels(), batch, **options)


def by_index(folder, batch, **options):
    return IndexLoader(SAMPLES, batch, **options)


def by_batch(folder, batch, **options):
    return BatchLoader(SAMPLES, batch, **options)


def ram_windows(folder, batch, **options):
    return ram_global(folder, batch, draw="windows", **options)


def ram_global(folder, batch, **options):
    return kl.RamBatchSequenceLoader(folder, labels(), batch, ram_batch_size=2 * batch, **options)


def preloaded(folder, batch, **options):
    return kl.preload(path(folder, batch, **options), progress=False)


def view(folder, batch, **options):
    return path(folder, batch, **options).view()


KINDS = [array, path, by_path, by_index, by_batch, ram_windows, ram_global, preloaded, view]


def kinds(of):
    return pytest.mark.parametrize("kind", of, ids=[kind.__name__ for kind in of])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Paths of as many samples as there are, .npy, with .raw beside them."""
    base = tmp_path_factory.mktemp("samples")
    names = [str(base / f"{number:03}.npy") for number in range(SAMPLES)]
    for number, name in enumerate(names):
        np.save(name, row_of(number))
        row_of(number).tofile(name.replace(".npy", ".raw"))
    return names


def passes(loader, epochs=EPOCHS):
    """Sample numbers of each batch of each epoch, through Keras' interface."""
    found = []
    for _ in range(epochs):
        loader.on_epoch_begin()
        for index in range(len(loader)):
            x, y, *_ = loader[index]
            assert numbers_of(x) == numbers_of(y.reshape(-1, 1))
            found.append(numbers_of(x))
        loader.on_epoch_end()
    return found


@pytest.fixture
def parts_and_whole(folder, keep):
    """make(kind) -> the loaders of all shards, and one loader with the global batch size."""

    def make(kind, parts=PARTS, **options):
        options = {"seed": SEED, **options}
        loaders = [keep(kind(folder, BATCH, shard=(k, parts), **options)) for k in range(parts)]
        return loaders, keep(kind(folder, BATCH * parts, **options))

    return make


@pytest.mark.parametrize("options", [{}, {"drop_last": True}], ids=["", "drop_last"])
@pytest.mark.parametrize("shuffle", [True, False])
@kinds(KINDS)
def test_parts_are_one_loader(parts_and_whole, kind, shuffle, options):
    """Batch by batch, what the parts deliver is what one loader with a larger batch would."""
    parts, whole = parts_and_whole(kind, shuffle=shuffle, **options)
    assert [len(part) for part in parts] == [len(whole)] * PARTS
    found = [joined(together) for together in zip(*map(passes, parts), strict=True)]
    assert found == passes(whole)
    for epoch in range(EPOCHS):
        seen = sorted(joined(found[epoch * len(whole) : (epoch + 1) * len(whole)]))
        assert len(set(seen)) == len(seen)
        assert options or seen == list(range(SAMPLES))


def test_parts_of_a_short_batch_differ_by_one(parts_and_whole):
    """Five samples are three for one part and two for the other, whatever pads or follows."""
    parts, _ = parts_and_whole(array)
    assert [numbers_of(part[2][0]) for part in parts] == [[16, 17, 18], [19, 20]]
    parts, _ = parts_and_whole(array, pad_last=True)
    assert [numbers_of(part[2][0]) for part in parts] == [[16, 17, 18, 16], [19, 20, 19, 19]]
    assert [part[2][2].tolist() for part in parts] == [[1, 1, 1, 0], [1, 1, 0, 0]]


@kinds([array, path, ram_windows, ram_global])
def test_parts_draw_the_same_random_numbers(parts_and_whole, kind):
    """A transform gives a sample the same noise in its part as it would in the whole."""

    def noise(x, y, rng):
        return np.append(x, rng.random(dtype=np.float32)), y

    parts, whole = parts_and_whole(kind, shuffle=True, transform=noise)
    for loader in (*parts, whole):
        loader.on_epoch_begin()
    for index in range(len(whole)):
        together = np.concatenate([part[index][0] for part in parts])
        np.testing.assert_array_equal(together, whole[index][0])


@kinds([array, ram_global])
def test_datasets_of_parts_are_one_dataset(parts_and_whole, kind):
    """to_tf_dataset keeps to the part, epoch after epoch."""
    pytest.importorskip("tensorflow")
    parts, whole = parts_and_whole(kind)

    def batches(loader):
        dataset = kl.to_tf_dataset(loader, shuffle=True)
        return [numbers_of(x) for _ in range(EPOCHS) for x, _ in dataset.as_numpy_iterator()]

    found = [joined(together) for together in zip(*map(batches, parts), strict=True)]
    assert found == batches(whole)


# ---------------------------------------------------------------- what shard= refuses


def test_parts_need_a_common_seed(caplog, monkeypatch):
    """A warning if each process may have drawn its own seed, unless the seed does not matter."""
    monkeypatch.setattr(messages, "_logged", set())
    caplog.set_level("INFO", "kloaders")
    kl.ArraySequenceLoader(rows(), batch_size=BATCH, shuffle=False, shard=(0, 2))
    kl.ArraySequenceLoader(rows(), batch_size=BATCH, shuffle=True, shard=(0, 1))
    kl.ArraySequenceLoader(rows(), batch_size=BATCH, shuffle=True, shard=(0, 2), seed=SEED)
    assert not caplog.messages
    loader = kl.ArraySequenceLoader(rows(), batch_size=BATCH, shard=(1, 2))
    (said,) = caplog.messages
    assert f"shard=(1, 2) without seed=: this process drew seed {loader.seed}." in said


def test_keras_seed_is_a_common_seed(parts_and_whole):
    """keras.utils.set_random_seed in every process is enough: all draw the same seed."""
    parts = []
    for k in range(PARTS):
        keras.utils.set_random_seed(3)
        parts.append(kl.ArraySequenceLoader(rows(), None, BATCH, shuffle=True, shard=(k, PARTS)))
    seen = joined(joined(numbers_of(part[i]) for i in range(len(part))) for part in parts)
    assert sorted(seen) == list(range(SAMPLES))


@kinds([array, ram_windows])
def test_parts_cannot_follow_a_random_order(parts_and_whole, kind):
    """Keras permutes its requests otherwise in each process, so shuffle=None is no common order."""
    (part, other), _ = parts_and_whole(kind)
    part.on_epoch_begin()
    assert numbers_of(part[0][0]) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="pass shuffle=True to the loader, or call fit"):
        part[2]
    found = passes(other)  # in order, as evaluate and fit(shuffle=False) ask
    assert found[: len(other)] == [[4, 5, 6, 7], [12, 13, 14, 15], [19, 20]]


@pytest.mark.parametrize("shuffle", [True, False])
def test_parts_with_a_word_of_their_own_follow_any_order(parts_and_whole, shuffle):
    """The advice works: with shuffle=True or False a permuted epoch has every sample once."""
    parts, _ = parts_and_whole(array, shuffle=shuffle)
    found = []
    for part, asked in zip(parts, ([2, 0, 1], [0, 2, 1]), strict=True):
        part.on_epoch_begin()
        found += [number for index in asked for number in numbers_of(part[index][0])]
    assert sorted(found) == list(range(SAMPLES))


class Mesh:
    """What `distributed` looks at in a keras.distribution, for process `process` of `processes`."""

    def __init__(self, monkeypatch, processes, process, devices, replicas=None):
        jax = pytest.importorskip("jax")
        monkeypatch.setattr(jax, "process_count", lambda: processes)
        monkeypatch.setattr(jax, "process_index", lambda: process)
        self.device_mesh = self
        self.axis_names = ["batch", "model"]
        replicas = replicas or devices
        self.shape = (replicas, devices // replicas)
        self.batch_dim_name = "batch"


@pytest.mark.parametrize(
    ("processes", "process", "devices", "replicas", "part"),
    [
        (1, 0, 4, None, (0, 1)),
        (2, 1, 2, None, (1, 2)),
        (2, 1, 16, None, (1, 2)),
        (4, 3, 8, 2, (1, 2)),  # a replica of the model spans two processes
        (4, 1, 8, 2, (0, 2)),
        (4, 3, 8, 1, (0, 1)),  # one replica: all processes read the same
    ],
)
def test_the_part_of_a_process(monkeypatch, processes, process, devices, replicas, part):
    """Processes that hold one replica of the model between them read the same part."""
    mesh = Mesh(monkeypatch, processes, process, devices, replicas)
    assert distributed.part_of(mesh) == part


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"no shard=, but its process has to read part 1 of 2: pass shard=\(1, 2\)"),
        ({"shard": (0, 2)}, r"has shard=\(0, 2\), but its process has to read part 1 of 2"),
        ({"shard": (1, 2), "batch_size": 3}, "batch_size=3 cannot be divided among 2 devices"),
        ({"shard": (1, 2)}, "5 samples for 4 devices.*: use pad_last=True"),
        ({"shard": (1, 2), "drop_last": True, "on_error": "skip"}, 'use "replace"'),
        ({"shard": (1, 2), "pad_last": True, "on_error": "skip"}, None),
        ({"shard": (1, 2), "drop_last": True}, None),
    ],
)
def test_what_the_devices_of_a_distribution_need(monkeypatch, options, message):
    """Two processes of two devices each: equal parts of the right data, or an error that says so."""
    options = {"batch_size": BATCH, "seed": SEED, **options}
    loader = kl.ArraySequenceLoader(rows(), labels(), **options)
    mesh = Mesh(monkeypatch, 2, 1, 4)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    if message is None:
        distributed._check_part(loader, mesh, keras)
    else:
        with pytest.raises(ValueError, match=message):
            distributed._check_part(loader, mesh, keras)


# ---------------------------------------------------------------- Keras 3.16 shards a Sequence


@pytest.fixture
def rank_of(monkeypatch):
    """rank_of(k, auto=True): from here on this is process k of two, and Keras shards as 3.16 does."""

    def _rank_of(rank, auto=True):
        return sharding.install(monkeypatch, rank, PARTS, auto)

    return _rank_of


def trained_on(loader, **options):
    model, received = recording_model()
    model.fit(loader, epochs=EPOCHS, verbose=0, **options)
    return received.trained


not_tf = pytest.mark.skipif(
    BACKEND == "tensorflow", reason="keras.distribution is of JAX and torch"
)


@not_tf
@pytest.mark.parametrize("shard", [True, False])
def test_the_stand_in_loses_samples(rank_of, monkeypatch, shard):
    """The guarded error: without the check, each rank trains on about half of its samples."""
    monkeypatch.setattr(distributed, "check_pass", lambda loader: None)
    found = []
    for rank in range(PARTS):
        rank_of(rank)
        part = (rank, PARTS) if shard else None
        loader = kl.ArraySequenceLoader(
            rows(32), labels(32), BATCH, seed=SEED, shuffle=True, shard=part
        )
        found.append(trained_on(loader))
    assert [len(joined(batches)) for batches in found] == [EPOCHS * (8 if shard else 16)] * PARTS
    assert shard or found[0] == found[1]


@not_tf
@scenario("Keras 3.16 would shard the Sequence itself: rejected with the right arguments")
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize("shard", [True, False])
@pytest.mark.parametrize("rank", range(PARTS))
def test_auto_sharding_is_refused(rank_of, rank, shard, method):
    rank_of(rank)
    loader = array(None, BATCH, seed=SEED, shuffle=True, shard=(rank, PARTS) if shard else None)
    model, received = recording_model()
    with pytest.raises(ValueError, match="samples would be lost") as error:
        getattr(model, method)(loader, verbose=0)
    assert "Pass auto_shard_dataset=False to Distribution" in str(error.value)
    assert f"shard=({rank}, 2) to the loader of this process" in str(error.value)
    assert not received.trained


@not_tf
@pytest.mark.skipif(
    BACKEND == "jax" and VERSION < (3, 9), reason="this Keras takes only a Dataset there"
)
@scenario("with these arguments two ranks train on the samples of one")
def test_what_is_advised_is_exact(rank_of):
    found = []
    for rank in range(PARTS):
        rank_of(rank, auto=False)
        part = (rank, PARTS)
        found.append(
            trained_on(array(None, BATCH, seed=SEED, shuffle=True, shard=part, drop_last=True))
        )
    whole = array(None, BATCH * PARTS, seed=SEED, shuffle=True, drop_last=True)
    assert [joined(batches) for batches in zip(*found, strict=True)] == planned(whole)


@not_tf
def test_a_rank_without_its_part_is_refused(rank_of):
    rank_of(1, auto=False)
    with pytest.raises(
        ValueError, match=r"no shard=.*has to read part 1 of 2: pass shard=\(1, 2\)"
    ):
        trained_on(array(None, BATCH, seed=SEED, shuffle=True))


@not_tf
def test_one_process_of_several_devices_is_not_sharded(rank_of, monkeypatch):
    """auto_shard_dataset has no effect there, and nothing is refused."""
    sharding.install(monkeypatch, 0, 1, True)
    loader = array(None, BATCH, seed=SEED, shuffle=True)
    assert trained_on(loader) == planned(loader)


# ---------------------------------------------------------------- real processes


def free_ports(count):
    """Ports that were free just now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def run_workers(worker, folder, **environment):
    """Run worker(rank, ports) in one process per shard; return their output, parsed as JSON."""
    call = "from tests.keras_api import test_distributed as t; t.{}({}, {})"
    ports = free_ports(PARTS)
    calls = [["-c", call.format(worker.__name__, rank, ports)] for rank in range(PARTS)]
    said = run_together(calls, folder, **environment)
    results = [[line for line in text.splitlines() if line.startswith("{")] for text in said]
    return [json.loads(lines[-1]) for lines in results]


def run_together(calls, folder, **environment):
    """Run each of `calls` in a separate Python process at once; return their output.

    The first that fails, or a timeout, ends all: the others would wait for it.
    """
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": BACKEND, **environment}
    logs = [folder / f"rank {rank}" for rank in range(PARTS)]
    started = []
    try:
        for call, log in zip(calls, logs, strict=True):
            with open(log, "w") as file:
                started.append(
                    subprocess.Popen(
                        [sys.executable, *call], env=environment, stdout=file, stderr=file
                    )
                )
        with ThreadPoolExecutor(PARTS) as threads:
            ended = [threads.submit(_wait, process) for process in started]
            wait(ended, timeout=PATIENCE, return_when=FIRST_EXCEPTION)
            for process in started:
                if process.poll() is None:
                    process.kill()
    finally:
        for process in started:
            process.kill()
            process.wait()
    said = [log.read_text(errors="replace") for log in logs]
    codes = [process.returncode for process in started]
    assert codes == [0] * PARTS, "\n".join(
        f"---- rank {rank}, exit code {code}\n{text[-3000:]}"
        for rank, (code, text) in enumerate(zip(codes, said, strict=True))
    )
    return said


def _wait(process):
    if process.wait() != 0:
        raise ChildProcessError


def refused(call):
    """The message of what `call` raises."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def planned(loader):
    """The batches of all epochs, shuffled."""
    plan = loader.plan
    return [
        plan.indices(plan.shuffled_order(epoch), batch).tolist()
        for epoch in range(EPOCHS)
        for batch in range(plan.batches)
    ]


def whole_loader():
    return kl.ArraySequenceLoader(rows(), labels(), BATCH * PARTS, seed=SEED, shuffle=True)


class Noted(keras.layers.Layer):
    """Notes the sample numbers that the devices of this process get; JAX only."""

    def __init__(self, received, **options):
        super().__init__(**options)
        self.received = received

    def call(self, x, training=False):
        import jax

        def note(rows):
            self.received.add(training, numbers_of(rows))

        jax.debug.callback(note, x, partitioned=True)
        return x


class AllNoted(keras.callbacks.Callback):
    """Batches are recorded in order, each before the next begins."""

    def on_train_batch_end(self, batch, logs=None):
        import jax

        jax.effects_barrier()


def jax_model():
    keras.utils.set_random_seed(1)
    received = Received()
    x = inputs = keras.Input((2,))
    x = keras.layers.Rescaling(0.05)(Noted(received)(x))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    # Keras' usual reduction counts samples of weight 0 too, and would take smaller steps for them.
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    model.compile(keras.optimizers.SGD(0.01), loss, weighted_metrics=[Counts(SAMPLES)])
    return model, received


def jax_fit(data, **options):
    """One training: what was received, counted and learnt."""
    model, received = jax_model()
    options = {"callbacks": [AllNoted()], **options}
    history = model.fit(data, epochs=EPOCHS, verbose=0, **options).history
    return {
        "received": received.trained,
        "counts": np.asarray(history["counts"]).tolist(),
        "loss": history["loss"],
        "weights": [weight.tolist() for weight in model.get_weights()],
    }


def jax_worker(rank, ports):
    """Rank `rank` of two processes with one CPU device each."""
    import jax

    jax.distributed.initialize(f"127.0.0.1:{ports[0]}", PARTS, rank)
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)

    def make(**options):
        options = {"seed": SEED, "shard": (rank, PARTS), "pad_last": True, **options}
        return kl.ArraySequenceLoader(rows(), labels(), BATCH, **options)

    found = {
        "processes": jax.process_count(),
        "fit": jax_fit(make(shuffle=True, shard="auto")),
        "fit dropping": jax_fit(make(shuffle=True, drop_last=True, pad_last=False)),
        "fit of a Dataset": jax_fit(kl.to_tf_dataset(make(), shuffle=True), shuffle=False),
    }
    model, received = jax_model()
    loss_found, *_ = model.evaluate(make(), verbose=0)
    found["evaluated"] = [loss_found, received.inferred]
    found["unsharded"] = refused(lambda: model.fit(make(shard=None, shuffle=True), verbose=0))
    found["unsharded Dataset"] = refused(lambda: kl.to_tf_dataset(make(shard=None)))
    found["short"] = refused(lambda: model.fit(make(shuffle=True, pad_last=False), verbose=0))
    found["not told to shuffle"] = refused(lambda: model.fit(make(), verbose=0))
    distribution.auto_shard_dataset = True
    found["auto"] = refused(lambda: model.fit(make(shuffle=True), verbose=0))
    found["auto Dataset"] = refused(lambda: kl.to_tf_dataset(make()))
    sys.stdout.write("\n" + json.dumps(found) + "\n")


@pytest.mark.slow
@scenario("two JAX processes, DataParallel, shard=(k, n)")
@only_jax
@pytest.mark.skipif(
    BACKEND == "jax" and VERSION < (3, 9), reason="this Keras takes only a Dataset there"
)
def test_two_jax_processes(tmp_path):
    """Each process trains on its part of the global batches; together they are one process."""
    found = run_workers(jax_worker, tmp_path, JAX_PLATFORMS="cpu", XLA_FLAGS="")
    assert [one["processes"] for one in found] == [PARTS] * PARTS
    whole = whole_loader()
    alone = jax_fit(whole)
    assert alone["received"] == planned(whole)
    # Keras looks at a Dataset before the first epoch, which takes an epoch's number.
    alone_dataset = jax_fit(kl.to_tf_dataset(whole_loader()), shuffle=False)
    assert sorted(joined(alone_dataset["received"])) == sorted([*range(SAMPLES)] * EPOCHS)
    for name, single in (
        ("fit", alone),
        ("fit dropping", alone),
        ("fit of a Dataset", alone_dataset),
    ):
        received = [one[name]["received"] for one in found]
        wanted = single["received"]
        if name == "fit dropping":
            wanted = [batch for batch in wanted if len(batch) == BATCH * PARTS]
        for *parts, batch in zip(*received, wanted, strict=True):
            sizes = [len(batch) // PARTS + (k < len(batch) % PARTS) for k in range(PARTS)]
            assert [len(part) for part in parts] == [BATCH] * PARTS  # padded
            assert joined(p[:n] for p, n in zip(parts, sizes, strict=True)) == batch
        for one in found:
            assert one[name]["weights"] == found[0][name]["weights"]
            assert one[name]["loss"] == found[0][name]["loss"]
            if name == "fit dropping":
                assert [sorted(c) for c in one[name]["counts"]] == [[0.0] * 5 + [1.0] * 16] * EPOCHS
                continue
            assert one[name]["counts"] == [[1.0] * SAMPLES] * EPOCHS
            for weight, other in zip(one[name]["weights"], single["weights"], strict=True):
                np.testing.assert_allclose(weight, other, rtol=1e-5)
    # evaluate() reads in storage order
    assert [one["evaluated"][1] for one in found] == [
        [[0, 1, 2, 3], [8, 9, 10, 11], [16, 17, 18, 16]],
        [[4, 5, 6, 7], [12, 13, 14, 15], [19, 20, 19, 19]],
    ]
    assert found[0]["evaluated"][0] == found[1]["evaluated"][0]
    for rank, one in enumerate(found):
        part = f"({rank}, {PARTS})"
        assert f"pass shard={part}" in one["unsharded"]
        assert f"pass shard={part}" in one["unsharded Dataset"]
        assert "use pad_last=True" in one["short"]
        assert "pass shuffle=True to the loader" in one["not told to shuffle"]
        # Keras 3.15 refuses by itself, with blanks around the sign; 3.16 leaves it to us.
        assert "auto_shard_dataset=False" in one["auto"].replace(" ", "")
        assert f"shard={part} to the loader of this process" in one["auto Dataset"]


def tensorflow_model():
    keras.utils.set_random_seed(1)
    model, received = recording_model(optimizer=None)
    return model, received, keras.optimizers.SGD(0.1)


def tensorflow_step(model, optimizer):
    import tensorflow as tf

    def step(x, y):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(loss(y, model(x, training=True))) / (BATCH * PARTS)
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    return step


def tensorflow_worker(rank, ports):
    """Rank `rank` of two workers with one CPU device each."""
    addresses = [f"127.0.0.1:{port}" for port in ports]
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
    )
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    def make(**options):
        options = {"seed": SEED, "shuffle": True, "shard": (rank, PARTS), **options}
        return kl.ArraySequenceLoader(rows(), labels(), BATCH, **options)

    with strategy.scope():
        model, received, optimizer = tensorflow_model()
    step = tensorflow_step(model, optimizer)

    @tf.function
    def train(batch):
        strategy.run(step, args=batch)

    def part(context):
        return kl.to_tf_dataset(
            make(shard=(context.input_pipeline_id, context.num_input_pipelines))
        )

    dataset = strategy.distribute_datasets_from_function(part)
    for _ in range(EPOCHS):
        for batch in dataset:
            train(batch)
    found = {
        "workers": strategy.num_replicas_in_sync,
        "received": received.trained,
        "weights": [weight.tolist() for weight in model.get_weights()],
    }
    for name, options in (("auto", {"shard": None}), ("auto of a part", {})):
        data = kl.to_tf_dataset(make(**options))
        found[name] = refused(lambda data=data: strategy.experimental_distribute_dataset(data))
    found["predict"] = refused(lambda: model.predict(make(), verbose=0))
    model.compile("sgd", "mse")
    data = kl.to_tf_dataset(make())
    found["auto in fit"] = refused(lambda: model.fit(data, shuffle=False, verbose=0))
    sys.stdout.write("\n" + json.dumps(found) + "\n")


@pytest.mark.slow
@scenario("two TensorFlow workers, MultiWorkerMirroredStrategy, shard=(k, n), custom loop")
@only_tf
def test_two_tensorflow_workers(tmp_path):
    """Each worker trains on its part of the global batches; together they are one process."""
    found = run_workers(tensorflow_worker, tmp_path)
    assert [one["workers"] for one in found] == [PARTS] * PARTS
    whole = whole_loader()
    together = zip(*(one["received"] for one in found), strict=True)
    assert [joined(parts) for parts in together] == planned(whole)

    model, received, optimizer = tensorflow_model()
    step = tensorflow_step(model, optimizer)
    for _ in range(EPOCHS):
        whole.on_epoch_begin()
        for index in range(len(whole)):
            step(*whole[index])
        whole.on_epoch_end()
    assert received.trained == planned(whole)
    for one in found:
        assert one["weights"] == found[0]["weights"]
        for weight, other in zip(one["weights"], model.get_weights(), strict=True):
            np.testing.assert_allclose(weight, other, rtol=1e-5, atol=1e-7)
        for name in ("auto", "auto of a part", "auto in fit"):
            assert "distribute_datasets_from_function_and_a_loader_with_shard_k_n" in one[name]
        assert "TensorFlow would shard its batches once more" in one["predict"]


@pytest.mark.slow
@pytest.mark.skipif(BACKEND not in ("tensorflow", "jax"), reason="the page has no such program")
@pytest.mark.skipif(BACKEND == "jax" and VERSION < (3, 9), reason="needs a newer Keras on JAX")
def test_the_programs_of_the_docs(tmp_path):
    """docs/distributed.md: word for word, but for the ports; two epochs of 3 * x are learnt."""
    page = ROOT / "docs" / "distributed.md"
    programs = re.findall(
        r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    (program,) = [p for p in programs if ("jax.distributed" in p) == (BACKEND == "jax")]
    used = sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", program)))
    assert used
    for port, free in zip(used, free_ports(len(used)), strict=True):
        program = program.replace(port, str(free))
    script = tmp_path / "train.py"
    script.write_text(program, "utf-8")
    calls = [[str(script), str(rank)] for rank in range(PARTS)]
    said = run_together(calls, tmp_path, JAX_PLATFORMS="cpu", XLA_FLAGS="")
    weights = [[line for line in text.splitlines() if line.startswith("weights")] for text in said]
    assert weights[0] == weights[1]
    assert float(weights[0][0].split()[1]) == pytest.approx(3, abs=2)
