"""Ray actors: the batches that threads make, whatever happens to the actors."""

import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from itertools import chain

import numpy as np
import pytest

import kloaders as kl
from kloaders.core import messages
from kloaders.core.errors import WorkerPoolError
from kloaders.engine import runner
from kloaders.engine.ray import pool
from tests.engine.processes.hooks import (
    BATCH,
    SAMPLES,
    ByBatch,
    BySample,
    as_row,
    assert_exact,
    assert_same,
    ends_at_19,
    epoch_of,
    fails_at_19,
    fails_oddly_at_19,
    grows,
    noisy,
    slow,
    wide,
)
from tests.support.ray_cluster import no_cpu_free, slowness
from tests.support.recording import recording_model

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
CLUSTER = kl.Ray(cpus=2)


def loader_of(files, **options):
    options = {"seed": 4, "processes": CLUSTER, **options}
    return kl.PathSequenceLoader(files, np.arange(len(files)), BATCH, **options)


def loaders(files, **options):
    """One of each kind, with random numbers in its transform."""
    options = {"seed": 5, "transform": noisy, **options}
    x, y = np.arange(SAMPLES)[:, None].repeat(3, axis=1), np.arange(SAMPLES)
    yield kl.PathSequenceLoader(files, y, BATCH, **options)
    yield kl.ArraySequenceLoader(x, y, BATCH, **options)
    yield kl.RamBatchSequenceLoader(files, y, BATCH, ram_batch_size=2 * BATCH, **options)
    yield ByBatch(SAMPLES, BATCH, **options)
    yield BySample(SAMPLES, BATCH, **options)


def test_batches_are_those_of_threads(ray, files):
    """Bit for bit, for every kind of loader, shuffled and not."""
    for mine, other in zip(loaders(files, processes=CLUSTER), loaders(files), strict=True):
        for epoch in range(2):
            assert_same(epoch_of(mine, epoch), epoch_of(other, epoch))
        assert_same(epoch_of(mine, 0, False), epoch_of(other, 0, False))
        mine.close()


def test_under_fit(ray, files):
    """What the model receives: each sample once an epoch, in the order of threads."""
    received = []
    for processes in (CLUSTER, False):
        loader = loader_of(files, processes=processes, transform=as_row, shuffle=True)
        model, got = recording_model()
        model.fit(loader, epochs=2, verbose=0)
        received.append(got.trained)
        loader.close()
    assert received[0] == received[1]
    assert sorted(chain.from_iterable(received[0])) == sorted([*range(SAMPLES)] * 2)


def test_samples_of_another_shape_cross(ray, files):
    """A batch whose samples all have another shape, and what is wrong where they differ."""
    mine, other = (loader_of(files, transform=grows, processes=p) for p in (CLUSTER, False))
    assert_same(epoch_of(mine, 0, False), epoch_of(other, 0, False))
    mine.close()
    mixed = loader_of(files, transform=grows, shuffle=True)
    with pytest.raises(ValueError, match="in the same batch"):
        epoch_of(mixed)
    mixed.close()


@pytest.mark.parametrize("policy", ["skip", "replace", "raise"])
@pytest.mark.parametrize("transform", [fails_at_19, fails_oddly_at_19])
def test_on_error_is_the_callers(ray, files, policy, transform):
    """The same samples, and the same list of errors, as with threads."""
    found = []
    for processes in (CLUSTER, False):
        loader = loader_of(files, transform=transform, on_error=policy, processes=processes)
        if policy == "raise":
            with pytest.raises(kl.SampleError, match=r"19\.npy") as caught:
                epoch_of(loader)
            found.append(caught.value.where)
            assert "hooks.py" in found[-1]
        else:
            found.append([y.tolist() for _, y in epoch_of(loader)])
            assert [error.index for error in loader.errors] == [19]
            assert "19.npy" in loader.errors[0].name
        loader.close()
    assert found[0] == found[1]


def test_a_batch_transform_may_write(ray, files):
    """What Ray hands out is read-only; a batch is not."""

    def doubles(x, y, rng):
        x *= 2
        return x, y

    loader = loader_of(files, batch_transform=doubles)
    for x, y in epoch_of(loader):
        np.testing.assert_array_equal(x[:, 0], 2 * y)
    loader.close()


def test_what_failed_is_listed_as_with_threads(ray, files, tmp_path):
    """In the quarantine file, and in what the callback logs."""
    found = []
    for k, processes in enumerate((CLUSTER, False)):
        bad = tmp_path / f"{k}.csv"
        loader = loader_of(
            files,
            transform=as_row_but_19,
            on_error="skip",
            quarantine=bad,
            processes=processes,
            shuffle=True,
        )
        model, got = recording_model()
        model.fit(loader, epochs=2, verbose=0, callbacks=[kl.LoaderCallback(loader)])
        logs = model.history.history
        assert min(logs["samples_per_s"]) > 0
        assert min(logs["data_wait_s"]) >= 0
        listed = [line.split(",")[:2] for line in bad.read_text().splitlines()]  # without the time
        found.append((listed, got.trained, logs["sample_errors"], sorted(logs)))
        loader.close()
    assert found[0] == found[1]
    assert [os.path.basename(name) for name, _ in found[0][0]] == ["path", "19.npy"]


def as_row_but_19(x, y, rng):
    return as_row(*fails_at_19(x, y, rng), rng)


def test_the_window_is_in_bytes(ray, files, monkeypatch):
    """Batches under way, and those that are ready, are as many as fit; not as many as actors could make."""
    monkeypatch.setattr(runner, "AHEAD_BYTES", BATCH * 4 * 8)  # a row: three numbers, and a label
    lock, under_way, most, begun = threading.Lock(), [0], [0], []
    real = pool.RayPool.fill

    def counted(self, *job):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
            begun.append(1)
        try:
            real(self, *job)
        finally:
            with lock:
                under_way[0] -= 1

    monkeypatch.setattr(pool.RayPool, "fill", counted)
    loader = loader_of(files * 4, transform=slow)
    ahead = 0
    for k, _ in enumerate(loader.epoch_batches(0, True)):
        ahead = max(ahead, len(begun) - k)
    assert most[0] <= 3
    assert (
        2 <= ahead <= 5
    )  # three, the one that was asked for, and one that this loop has not counted yet
    loader.close()


def test_what_does_not_fit_in_the_object_store(ray):
    """A look-ahead of 10 batches of 16 MB, in a store of 80 MB."""
    loader = kl.ArraySequenceLoader(
        np.arange(120), np.arange(120), 100, seed=1, transform=wide, processes=CLUSTER
    )
    big = loader.view()
    for _ in range(2):
        y = np.concatenate([y for _, y in epoch_of(big)])
        assert sorted(y.tolist()) == list(range(120))
    big.close()


# ---------------------------------------------------------------------- faults


def actors_of(loader):
    return list(loader.runner._processes._group._all)


def pid_of(ray, actor):
    """The process that an actor runs in, which is one of this machine."""
    return int(re.search(r"process (\d+)\)$", ray.get(actor.ready, timeout=60))[1])


def sigkill(ray, actor):
    """As the kernel ends a process for its memory: neither Ray nor the process is told before."""
    os.kill(pid_of(ray, actor), signal.SIGKILL)


@pytest.mark.parametrize("moment", range(8))
def test_an_actor_is_killed(ray, files, moment):
    """Before the first batch, between two, while one is made, after the last: exact, in order, and soon."""
    loader = kl.PathSequenceLoader(
        files * 3, np.arange(3 * SAMPLES), BATCH, seed=9, transform=slow, processes=CLUSTER
    )
    want = kl.PathSequenceLoader(files * 3, np.arange(3 * SAMPLES), BATCH, seed=9, transform=slow)
    loader[0]  # starts the actors
    before = slowness(ray)
    longest, got = 0.0, []
    last = time.monotonic()
    for k, batch in enumerate(loader.epoch_batches(0, True)):
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        got.append(batch)
        if k == moment:
            victims = actors_of(loader)
            sigkill(ray, victims[moment % len(victims)])
    assert_same(got, epoch_of(want))
    assert longest < 10 * max(before, slowness(ray))
    loader.close()


def test_all_actors_are_killed(ray, files, caplog):
    """A warning names the node of each."""
    loader = loader_of(files, transform=slow)
    loader[0]
    for actor in actors_of(loader):
        sigkill(ray, actor)
    assert_exact(epoch_of(loader))
    assert caplog.text.count(f"a Ray actor died on {os.uname().nodename} (") == 2
    loader.close()


class EndsAsItIsLoaded:
    """A transform whose first unpickling ends the process."""

    def __init__(self, marker):
        self.marker = marker

    def __call__(self, x, y, rng):
        return x, y

    def __setstate__(self, state):
        self.__dict__ = state
        if "KLOADERS_WORKER" in os.environ:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)


def test_an_actor_is_killed_as_it_starts(ray, files, tmp_path, caplog):
    """While it loads the pipeline: that is a death, not a pipeline that cannot be loaded."""
    marker = tmp_path / "once"
    loader = loader_of(files, transform=EndsAsItIsLoaded(str(marker)))
    assert_exact(epoch_of(loader))
    assert marker.exists()
    assert "a Ray actor died on an unknown node (" in caplog.text
    loader.close()


@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_a_sample_that_kills_its_actor_is_named(ray, files, policy, caplog):
    """Its batch is read one by one after three deaths, and nothing else of it is lost."""
    loader = loader_of(files, transform=ends_at_19, on_error=policy)
    if policy == "raise":
        with pytest.raises(kl.SampleError, match=r"19\.npy.*the Ray actor that loaded it died on "):
            epoch_of(loader, 0, False)
    else:
        y = np.concatenate([y for _, y in epoch_of(loader, 0, False)])
        assert y.tolist() == [k for k in range(SAMPLES) if k != 19]
        assert "are read one by one" in caplog.text
    loader.close()


def hangs_once(marker):
    """A transform that never ends the first time it meets sample 19."""

    def transform(x, y, rng):
        if y == 19:
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return x, y
            time.sleep(1000)
        return x, y

    return transform


def test_an_actor_that_hangs(ray, files, tmp_path, monkeypatch):
    """The batch is asked of another actor, which has it; the epoch is exact."""
    monkeypatch.setenv("KLOADERS_WORKER_TIMEOUT", "5")
    loader = loader_of(files, transform=hangs_once(str(tmp_path / "once")))
    begin = time.monotonic()
    assert_exact(epoch_of(loader, 0, False))
    assert time.monotonic() - begin < 60
    loader.close()


class LoadsHereOnly:
    """A transform whose package the actors do not have."""

    def __call__(self, x, y, rng):
        return x, y

    def __reduce__(self):
        return _made_here, (os.getpid(),)


def _made_here(pid):
    if pid != os.getpid():
        raise ModuleNotFoundError("No module named 'onlyhere'")
    return LoadsHereOnly()


def test_a_worker_without_a_package(ray, files):
    """The error says which, and what to do; no sample is blamed, and none is skipped."""
    loader = loader_of(files, transform=LoadsHereOnly(), on_error="skip")
    with pytest.raises(
        WorkerPoolError, match=r"(?s)install them there.*No module named 'onlyhere'"
    ):
        epoch_of(loader)
    loader.close()


def test_nobody_answers(ray, files, caplog, monkeypatch):
    """All CPUs are taken: threads of this process make the batches, and one warning says so."""
    monkeypatch.setattr(messages, "_logged", set())
    with no_cpu_free(ray):
        patient = kl.Ray(cpus=2, patience=2)
        loader = loader_of(files, processes=patient, transform=noisy)
        want = loader_of(files, processes=False, transform=noisy)
        for epoch in range(2):
            assert_same(epoch_of(loader, epoch), epoch_of(want, epoch))
        warned = [r for r in caplog.records if "no Ray actor has answered for 2" in r.getMessage()]
        assert len(warned) == 1
        assert "2 CPUs, of which 0 are free" in warned[0].getMessage()
        loader.close()


def test_a_fork_is_refused(ray, files):
    """It cannot use the connection of its parent, and would wait for ever."""
    loader = loader_of(files)
    loader[0]
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            loader.view()[0]
            said = "nothing was raised"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert "WorkerPoolError: this process is a fork" in said
    assert_exact(epoch_of(loader))
    loader.close()


def test_a_forgotten_loader_ends_its_actors(ray, files):
    loader = loader_of(files)
    loader[0]
    handles = [actor.handle for actor in actors_of(loader)]
    assert handles
    loader.close()
    del loader
    gc.collect()
    for handle in handles:
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(handle.ready.remote(), timeout=30)


def test_actors_come_while_batches_wait(ray, files):
    """min_cpus is what there is at first; more come by the queue, up to cpus."""
    loader = loader_of(files, processes=kl.Ray(cpus=2, min_cpus=1), transform=slow)
    loader[0]
    epoch_of(loader)
    assert len(actors_of(loader)) == 2
    loader.close()


def test_actors_leave_when_they_are_not_needed(ray, files, monkeypatch):
    """Down to min_cpus, also while nobody asks for batches; and they come back."""
    monkeypatch.setattr(pool, "_IDLE_SECONDS", 0.5)
    loader = loader_of(files, processes=kl.Ray(cpus=2, min_cpus=1), transform=slow)
    for _ in range(2):
        assert_exact(epoch_of(loader))
        gone = actors_of(loader)
        end = time.monotonic() + 30
        while len(actors_of(loader)) > 1 and time.monotonic() < end:
            time.sleep(0.05)
        assert len(actors_of(loader)) == 1
        assert len([actor for actor in gone if actor.gone]) == len(gone) - 1
    loader.close()


_NODE_LOST = """
    import sys, time
    import numpy as np
    import ray
    from ray.cluster_utils import Cluster
    import kloaders as kl

    def slow(x, y, rng):
        time.sleep(0.05)
        return x, y

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    x = np.arange(200)
    loader = kl.ArraySequenceLoader(
        x, x, 8, seed=3, shuffle=True, transform=slow, processes=kl.Ray(cpus=2)
    )
    got, longest, last = [], 0.0, None
    for k, (_, y) in enumerate(loader):
        now = time.monotonic()
        longest = max(longest, now - (last or now))
        last = now
        got.append(y.tolist())
        if k == 6:
            cluster.remove_node(node, allow_graceful=False)
    want = [y.tolist() for _, y in kl.ArraySequenceLoader(x, x, 8, seed=3, shuffle=True)]
    print("exact", got == want, "longest wait", round(longest, 1))
"""


def test_a_node_is_lost(ray, tmp_path):
    """Without a replacement: what it had is made by the actor that is left, in order."""
    script = tmp_path / "lost.py"
    script.write_text(textwrap.dedent(_NODE_LOST), "utf-8")
    before = slowness(ray)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=240, check=False
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("exact")]
    assert found, done.stderr[-2000:]
    assert found[0].startswith("exact True")
    assert float(found[0].split()[-1]) < 10 * max(before, slowness(ray))


def test_no_cluster_is_an_error_with_advice(monkeypatch, ray):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("nobody")))
    loader = kl.ArraySequenceLoader(
        np.arange(9), None, 3, transform=slow, processes=kl.Ray(cpus=1, address="10.0.0.1:6379")
    )
    with pytest.raises(WorkerPoolError, match=r"no Ray cluster at '10\.0\.0\.1:6379': nobody"):
        loader[0]
