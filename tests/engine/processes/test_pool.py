"""Worker processes: the same batches as threads make, whatever happens to the workers."""

import contextlib
import gc
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import psutil
import pytest

import kloaders as kl
from kloaders.core.rows import Rows
from kloaders.core.threads import usable_cores
from kloaders.keras_api.base import WORKER
from kloaders.plan.rng import Moment
from tests.engine.processes.hooks import (
    BATCH,
    SAMPLES,
    ByBatch,
    BySample,
    as_row,
    assert_exact,
    assert_same,
    epoch_of,
    loader_of,
    noisy,
    slow,
    where,
    witness,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no worker processes there")


# ---------------------------------------------------------------------- the same batches


def loaders(files, **options):
    """One of each kind, with random numbers in its transform."""
    options = {"seed": 5, "transform": noisy, **options}
    x, y = np.arange(SAMPLES)[:, None].repeat(3, axis=1), np.arange(SAMPLES)
    yield kl.PathSequenceLoader(files, y, BATCH, **options)
    yield kl.ArraySequenceLoader(x, y, BATCH, **options)
    yield kl.RamBatchSequenceLoader(files, y, BATCH, ram_batch_size=2 * BATCH, **options)
    yield ByBatch(SAMPLES, BATCH, **options)
    yield BySample(SAMPLES, BATCH, **options)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_batches_are_those_of_threads(files, workers):
    """Bit for bit, for every kind of loader, shuffled and not (design decision 1)."""
    pairs = zip(loaders(files), loaders(files, workers=workers, processes=True), strict=True)
    for threads, others in pairs if workers == 2 else itertools.islice(pairs, 1):
        with threads, others:
            for epoch, shuffle in ((0, True), (1, True), (1, False)):
                assert_same(epoch_of(threads, epoch, shuffle), epoch_of(others, epoch, shuffle))


def test_every_sample_once_over_epochs_in_the_same_workers(files):
    """Grain's process_prefetch_test.py, test_prefetch_data; and workers persist over epochs."""
    with loader_of(files) as loader:
        assert_exact(epoch_of(loader, 0))
        pids = loader.runner._processes.pids
        for epoch in range(1, 4):
            assert_exact(epoch_of(loader, epoch))
        assert loader.runner._processes.pids == pids
        assert len(pids) == 2


def test_by_default_as_many_workers_as_cores(files):
    """workers=None with processes=True never works in the caller's thread."""
    with loader_of(files, workers=None, transform=witness) as loader:
        x = np.concatenate([x for x, _ in epoch_of(loader)])
        assert len(loader.runner._processes.pids) == usable_cores()
    assert os.getpid() not in x[:, 0]


def test_workers_0_is_refused(files):
    with pytest.raises(ValueError, match="workers=1 or more"):
        loader_of(files, workers=0)


def test_stored_samples_are_transformed_in_workers(files):
    """What a RAM batch needs: the transform of arrays that are there already."""
    numbers = np.arange(10, 20)
    with loader_of(files, transform=noisy) as loader:
        form, pipeline, moment = loader.sample_spec, loader.runner.pipeline, Moment(3)
        stored = Rows(form, [numbers[:, None].repeat(4, axis=1), numbers])
        out, expected = (
            Rows(form, [np.empty((10, *s.shape), s.dtype) for s in form]) for _ in range(2)
        )
        pool = loader.runner.process_pool()
        pool.fill(pipeline, numbers, out, fails, moment, raw=False, stored=stored)
        pipeline.fill(numbers, expected, fails, moment)
    assert_same([out.arrays], [expected.arrays])


def fails(row, error):
    raise AssertionError(f"row {row}") from error


def test_a_ram_batch_is_transformed_in_workers(files):
    """Files are read once into the RAM batch; the transform runs in the workers each time."""
    with kl.RamBatchSequenceLoader(
        files, np.arange(SAMPLES), BATCH, transform=where, processes=True, workers=2, seed=1
    ) as loader:
        for epoch in range(2):
            x, y = (np.concatenate(part) for part in zip(*epoch_of(loader, epoch), strict=True))
            assert sorted(y.tolist()) == list(range(SAMPLES))
            assert x[:, 1].tolist() == y.tolist()
            assert set(x[:, 0].tolist()) <= set(loader.runner._processes.pids)


# ---------------------------------------------------------------------- workers that die


def kill_at_random(loader, times, stop):
    generator = random.Random(3)
    while not stop.is_set() and times:
        time.sleep(generator.uniform(0.05, 0.5))
        pool = loader.runner._processes
        pids = pool.pids if pool is not None else []
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(generator.choice(pids), signal.SIGKILL)
            times -= 1


@pytest.mark.parametrize("make", [loader_of, "by batch"])
def test_killed_at_any_moment(files, make):
    """Batches stay exact while workers are killed: torch's test_proper_exit with worker_kill,
    which is skipped upstream, and Grain's test_doesnt_hang_on_process_kill, turned around.
    """
    if make == "by batch":
        loader = ByBatch(SAMPLES, BATCH, transform=slow, workers=2, processes=True)
    else:
        loader = make(files, transform=slow)
    stop = threading.Event()
    killer = threading.Thread(target=kill_at_random, args=(loader, 8, stop))
    with loader:
        killer.start()
        epochs = 0
        while killer.is_alive() and epochs < 60:
            assert_exact(epoch_of(loader, epochs))
            epochs += 1
        stop.set()
        killer.join()
        assert_exact(epoch_of(loader, 99))
        assert loader.errors == []


def test_all_killed_while_idle(files):
    """Workers that died between two epochs are replaced without a word."""
    with loader_of(files) as loader:
        before = epoch_of(loader)
        for pid in (old := loader.runner._processes.pids):
            os.kill(pid, signal.SIGKILL)
        begin = time.monotonic()
        assert_same(before, epoch_of(loader))
        assert time.monotonic() - begin < 10
        assert not set(old) & set(loader.runner._processes.pids)


# ---------------------------------------------------------------------- the end


def test_close_is_quick_and_the_loader_comes_back(files):
    loader = loader_of(files, transform=slow)
    iterator = loader.epoch_batches(0, True)
    next(iterator)
    begin = time.monotonic()
    loader.close()
    assert time.monotonic() - begin < 1.5
    assert loader.runner._processes is None
    assert_exact(epoch_of(loader))
    loader.close()


def test_forgotten_loader_ends_its_workers(files):
    """del + gc in mid-epoch; the fixture looks at what is left."""
    loader = loader_of(files, transform=slow)
    iterator = loader.epoch_batches(0, True)
    next(iterator)
    children = [psutil.Process(pid) for pid in loader.runner._processes.pids]
    del loader, iterator
    end = time.monotonic() + 8
    while any(child.is_running() for child in children) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.05)
    assert not any(child.is_running() for child in children)


def test_under_fit(files):
    """Through the real Keras, on the backend in use: every sample once an epoch."""
    from tests.support.recording import recording_model

    model, received = recording_model()
    with loader_of(files, transform=as_row) as loader, loader.view() as val:
        logs = model.fit(loader, validation_data=val, epochs=2, verbose=0).history
        assert len(loader.runner._processes.pids) == len(val.runner._processes.pids) == 2
    trained = list(itertools.chain(*received.trained))
    assert len(trained) == 2 * SAMPLES
    for epoch in (trained[:SAMPLES], trained[SAMPLES:]):
        assert sorted(epoch) == list(range(SAMPLES))
        assert epoch != list(range(SAMPLES))
    assert list(itertools.chain(*received.inferred)) == 2 * list(range(SAMPLES))
    assert set(logs["mismatch"] + logs["val_mismatch"]) == {0}


def test_killed_under_fit(files):
    """Workers die while a model trains; it receives every sample once an epoch, and waits for none.

    After Grain's process_prefetch_test.py, test_doesnt_hang_on_process_kill, turned around.
    """
    import keras

    from tests.support.recording import recording_model

    class Kill(keras.callbacks.Callback):
        killed = 0

        def on_train_batch_end(self, batch, logs=None):
            pool = loader.runner._processes
            for pid in pool.pids[: 1 + batch % 2] if pool is not None else []:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.killed += 1

    model, received = recording_model()
    kill = Kill()
    with loader_of(files, transform=as_row) as loader:
        model.fit(loader, epochs=3, verbose=0, callbacks=[kill])
    assert kill.killed > 3
    trained = list(itertools.chain(*received.trained))
    assert len(trained) == 3 * SAMPLES
    for epoch in range(3):
        one = trained[epoch * SAMPLES : (epoch + 1) * SAMPLES]
        assert sorted(one) == list(range(SAMPLES))
    assert loader.errors == []


def test_five_stopped_fits_leave_nothing(files):
    """What `nothing_left` counts comes back after fits that are stopped, without a with block."""
    import keras

    from tests.support.recording import recording_model

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    model, _ = recording_model()
    for _ in range(5):
        loader = loader_of(files, transform=as_row)
        model.fit(loader, epochs=2, verbose=0, callbacks=[Stop(), kl.LoaderCallback(loader)])
    del loader


SCRIPT = """
    import os, signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    import numpy as np
    import kloaders as kl

    def double(x, y, rng):
        assert "tensorflow" not in sys.modules
        time.sleep(0.005)
        return x * 2, y

    class Mine(kl.SequenceLoader):
        def load_sample(self, index):
            return np.full(9000, index), index

    def main():
        loader = Mine(40, 4, transform=double, workers=2, processes=True, seed=1)
        x, y = loader[3]
        assert (x[:, 0] == 2 * y).all()
        print(*loader.runner._processes.pids, flush=True)
        {end}

    if __name__ == "__main__":
        main()
"""


def start_script(tmp_path, end, *, cloudpickle=True, as_code=False, keras=False):
    end = textwrap.indent(textwrap.dedent(end), "    ").strip()
    code = textwrap.dedent(SCRIPT).format(end=end)
    script = tmp_path / "train.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path])[1:]}
    if not keras:  # a loader without Keras: seconds less
        environment[WORKER] = "1"
    if not cloudpickle:
        shadow = tmp_path / "shadow" / "cloudpickle.py"
        shadow.parent.mkdir()
        shadow.write_text("raise ImportError('not here')")
        environment["PYTHONPATH"] = f"{shadow.parent}{os.pathsep}{environment['PYTHONPATH']}"
    # Keras' own import warns on some versions; what we do must not.
    environment["PYTHONWARNINGS"] = "error::ResourceWarning"
    where = ["-c", code] if as_code else [str(script)]
    return subprocess.Popen(
        [sys.executable, *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def assert_all_gone(pids):
    _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], 5)
    assert alive == []


@pytest.mark.parametrize(
    ("end", "options"),
    [
        ("pass", {}),
        ("pass", {"cloudpickle": False}),
        ("pass", {"as_code": True}),
        ("next(loader.epoch_batches(0)); sys.exit()", {}),
        ("iterator = loader.epoch_batches(0); next(iterator); sys.exit()", {"keras": True}),
    ],
    ids=["end", "imported script", "python -c", "in mid-epoch", "held in mid-epoch"],
)
def test_exit_is_clean_and_silent(tmp_path, end, options):
    """torch's test_proper_exit, its "loader exits" half: nothing on stderr, nobody left."""
    script = start_script(tmp_path, end, **options)
    out, err = script.communicate(timeout=180)
    assert script.returncode == 0, err
    assert quiet(err) == ""
    assert_all_gone(map(int, out.split()))


def quiet(err):
    """Without the log of TensorFlow's C++ code ("I0000 00:00:1795248155.628392 ...") and JAX's."""
    said = re.compile(
        r"[IWEF]\d{4} \d\d:\d\d:|20\d\d-\d\d-\d\d [\d:.]+: [IWEF] |WARNING: All log messages"
    )
    rest = [line for line in err.splitlines() if not said.match(line)]
    return "\n".join(
        line for line in rest if "fork()" not in line and "To enable the f" not in line
    )


FORKED = """
        if os.fork() == 0:
            x, y = loader[5]
            print(*loader.runner._processes.pids, flush=True)
            loader.close()
            os._exit(0 if (x[:, 0] == 2 * y).all() else 1)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        x, y = loader[6]
        assert (x[:, 0] == 2 * y).all()
"""


def test_a_fork_gets_workers_of_its_own(tmp_path):
    """torch's test_after_fork: and the parent keeps its own."""
    script = start_script(tmp_path, FORKED)
    out, err = script.communicate(timeout=180)
    assert script.returncode == 0, err
    assert quiet(err) == ""
    ours, theirs = (line.split() for line in out.splitlines())
    assert not set(ours) & set(theirs)
    assert_all_gone(map(int, ours + theirs))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_go_with_their_parent(tmp_path, how):
    """Ctrl-C, a stopped job, the OOM killer: no worker outlives the training (and no message of
    its own comes from a worker). torch's test_proper_exit, its "main error" and "kill" half.
    """
    script = start_script(tmp_path, "[b for e in range(999) for b in loader.epoch_batches(e)]")
    pids = [int(pid) for pid in script.stdout.readline().split()]
    assert len(pids) == 2
    time.sleep(0.3)
    script.send_signal(how)
    err = script.communicate(timeout=20)[1]
    assert_all_gone(pids)
    assert err.count("Traceback") == (1 if how == signal.SIGINT else 0)


def test_script_without_a_guard_is_told(tmp_path):
    """Where workers import the script, one that trains at its top level says what to do."""
    script = tmp_path / "train.py"
    script.write_text(
        "import kloaders as kl, numpy as np\n"
        "def f(x, y, rng): return x, y\n"
        "l = kl.ArraySequenceLoader(np.arange(9), transform=f, processes=True, workers=1)\n"
        "l[0]\n"
    )
    shadow = tmp_path / "cloudpickle.py"
    shadow.write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, WORKER: "1"}
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "if __name__ == '__main__'" in done.stderr


# ---------------------------------------------------------------------- Ctrl-C


def interrupted_at(moment, function):
    """Call it, with SIGINT at this moment of those at which Python looks for signals.

    -> how many moments there were. They are in the code of processes and of the runner.
    """
    passed = [0]

    def profile(frame, event, arg):
        name = frame.f_globals.get("__name__", "")
        if event in ("call", "c_return") and name.startswith("kloaders.engine"):
            passed[0] += 1
            if passed[0] == moment:
                signal.raise_signal(signal.SIGINT)

    sys.setprofile(profile)
    try:
        function()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    return passed[0]


def left_open():
    return len(os.listdir("/proc/self/fd")), len(psutil.Process().children())


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts descriptors by /proc")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "times", [6, pytest.param(150, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_ctrl_c_leaves_no_descriptors_and_no_processes(files, times):
    """Wherever it comes, while workers start and end; the next use of the loader works."""

    def use():
        loader = loader_of(files, workers=1)
        try:
            loader[0]
        finally:
            loader.close()

    use()
    gc.collect()
    before, moments = left_open(), interrupted_at(0, use)
    assert moments > 100
    for moment in random.Random(3).sample(range(1, moments), min(times, moments - 1)):
        interrupted_at(moment, use)
        use()
    gc.collect()
    assert left_open() == before
