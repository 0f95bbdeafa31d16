"""Injects faults, real ones if possible, each in a separate process.

python -m tests.campaign faults            # all, long
python -m campaign.faults NAME FOLDER      # one fault, as the command above runs it (in tests/)
"""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from . import beds
from .beds import BATCH, KINDS, LABELS, SAMPLES, exact, numbers, transform

# The loaders that the short version runs: one for each way to read.
FEW = ("map of large rows", "images cached in RAM", "RAM batches", "TFRecord", "processes")

# name -> (the fault, function(kl, folder, long) -> the consequence, with figures)
FAULTS = {}


def fault(injected):
    """Register a fault; its function returns the consequence, with figures."""

    def register(function):
        FAULTS[function.__name__.replace("_", " ")] = injected, function
        return function

    return register


def messages():
    """A list that collects the messages that loaders log from now on."""
    import logging

    said = []

    class Keep(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    log = logging.getLogger("kloaders")
    log.setLevel(logging.INFO)
    log.addHandler(Keep())
    return said


# ------------------------------------------------------------------------------ worker processes


@fault("SIGKILL to a worker process, at random moments of an epoch")
def worker_killed(kl, folder, long):
    rng, kills, samples = random.Random(1), 0, 0
    with beds.make(kl, "processes", folder) as loader:
        loader[0]
        for _ in range(200 if long else 4):
            batches = []
            for batch in beds.epoch(loader):
                batches.append(batch)
                pids = loader.runner.process_pool().pids
                if rng.random() < 0.15 and pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(rng.choice(pids), signal.SIGKILL)
                        kills += 1
            samples += exact(batches, loader)
    assert kills >= 2
    return {"kills": kills, "samples": samples, "survived": "every sample once in every epoch"}


class StopsOnce:
    """A transform that stops its process at one sample, the first time that a worker reaches it."""

    def __init__(self, sample, folder):
        self.sample, self.folder = sample, folder

    def __call__(self, x, y, rng):
        if int(y) == self.sample:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.folder)
                os.kill(os.getpid(), signal.SIGSTOP)
        return x, y


@fault("SIGSTOP to a worker process at a sample: it hangs, but does not end")
def worker_hangs(kl, folder, long):
    os.environ["KLOADERS_WORKER_TIMEOUT"] = "0.8"  # a fault has a process of its own
    said, stops, samples = messages(), 0, 0
    paths = beds.files(os.path.join(folder, "files"))
    for sample in range(0, SAMPLES, 2 if long else SAMPLES):
        stop = StopsOnce(sample, os.path.join(folder, f"stopped-{sample}"))
        with kl.PathSequenceLoader(
            paths, LABELS, BATCH, transform=stop, processes=True, workers=2, seed=1, cache=None
        ) as loader:
            samples += exact(beds.epoch(loader), loader)
        told = [line for line in said if "did not answer for 0.8 seconds" in line]
        assert f"at sample {sample} ({paths[sample]})" in told[-1], told
        stops += 1
    return {
        "stops": stops,
        "samples": samples,
        "survived": "it is killed after the time limit, and another worker loads the sample, which is reported",
    }


class Slow:
    """Reads files; one of them blocks until an event is set."""

    def __init__(self, stuck):
        self.stuck, self.gate, self.reached = stuck, threading.Event(), threading.Event()

    def __call__(self, raw):
        array = np.load(__import__("io").BytesIO(raw))
        if array[0] in self.stuck:
            self.reached.set()
            assert self.gate.wait(60)
        return array


@fault("a file whose read hangs, in a thread")
def reader_hangs(kl, folder, long):
    os.environ["KLOADERS_STALL_SECONDS"] = "0.1"
    said = messages()
    told = threading.Event()
    paths = beds.files(os.path.join(folder, "files"))
    found = []
    for kind in (kl.PathSequenceLoader, kl.RamBatchSequenceLoader):
        slow = Slow({17})
        told.clear()

        def tell(event, frame=None, slow=slow):
            if any("17" in line for line in said):
                slow.gate.set()
            else:
                threading.Timer(0.05, tell, (None,)).start()

        with kind(
            paths, LABELS, BATCH, decode=slow, workers=2, shuffle=False, cache=None
        ) as loader:
            tell(None)
            exact(beds.epoch(loader), loader)
        found.append(next(line for line in said if "17" in line))
        said.clear()
    for line in found:
        assert "has not arrived for" in line
        assert f"sample 17 ({paths[17]})" in line, line
    return {"survived": "the log names the sample, its file and the time; then all samples arrive"}


@fault("a slow disk: every third file arrives only after the model has waited for it")
def slow_disk(kl, folder, long):
    paths = beds.files(os.path.join(folder, "files"))
    samples = 0
    for kind in (kl.PathSequenceLoader, kl.RamBatchSequenceLoader):
        with kind(paths, LABELS, BATCH, workers=0, seed=1, shuffle=True, cache=None) as loader:
            expected = [numbers(b) for e in range(2) for b in beds.epoch(loader)]
        slow = Slow(set(range(0, SAMPLES, 3)))

        # A gate that is opened by the clock, since who waits cannot open it.
        ticker = threading.Event()

        def tick(slow=slow, ticker=ticker):
            while not ticker.wait(0.002):
                slow.gate.set()
                slow.gate.clear()

        thread = threading.Thread(target=tick)
        thread.start()
        with kind(
            paths, LABELS, BATCH, decode=slow, workers=3, seed=1, shuffle=True, cache=None
        ) as loader:
            got = [numbers(b) for e in range(2) for b in beds.epoch(loader)]
        ticker.set()
        thread.join()
        assert got == expected
        samples += sum(map(len, got))
    return {"samples": samples, "survived": "the same batches in the same order"}


# ------------------------------------------------------------------------------ memory and disks


@contextlib.contextmanager
def largest_file(size):
    """Limit the size of files by RLIMIT_FSIZE, which acts like a full disk (EFBIG instead of ENOSPC)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@fault("no shared memory, from the start or in the middle of an epoch")
def out_of_shared_memory(kl, folder, long):
    real, refused = os.posix_fallocate, 0
    with beds.make(kl, "processes", folder) as loader:
        loader[0]  # the workers run
        loader.runner.process_pool().memory._blocks.clear()
        with largest_file(100):
            try:
                for k in range(len(loader)):
                    loader[k]
            except OSError as error:
                assert "no shared memory" in str(error), error
                assert "batch_size" in str(error)
                refused += 1
        assert refused == 1
        exact(beds.epoch(loader), loader)
        for epoch in range(100 if long else 3):  # now and then, as another process takes it
            rng = random.Random(epoch)

            def full(fd, start, size, rng=rng):
                nonlocal refused
                if rng.random() < 0.5:
                    refused += 1
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                real(fd, start, size)

            os.posix_fallocate = full
            found = {}
            while len(found) < len(loader):
                loader.runner.process_pool().memory._blocks.clear()
                with contextlib.suppress(OSError):
                    found[len(found)] = loader[len(found)]
            exact(found.values(), loader)
        os.posix_fallocate = real
    return {"refusals": refused, "survived": "an error with advice; then the same batches"}


def everything(folder):
    """Names and contents of all files."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            found[os.path.relpath(path, folder)] = Path(path).read_bytes()
    return found


@fault("a full disk, while decoded samples are cached in a folder")
def disk_full_while_caching(kl, folder, long):
    samples = 0
    beds.make(kl, "images", folder)  # the files
    for size in range(0, 30_000, 500 if long else 6_000):
        kept = os.path.join(folder, f"kept-{size}")
        with beds.quiet():
            with largest_file(size):
                loader = beds.make(kl, "images cached in a folder", folder, cache=kept)
                with loader:
                    for _ in range(2):
                        samples += exact(beds.epoch(loader), loader)
            with beds.make(kl, "images cached in a folder", folder, cache=kept) as loader:
                samples += exact(beds.epoch(loader), loader)
    return {
        "samples": samples,
        "survived": "training continues without the cache; no sample is wrong",
    }


@fault("a full disk, while a pack or TFRecord files are written")
def disk_full_while_converting(kl, folder, long):
    refused = 0
    paths = beds.files(os.path.join(folder, "files"))

    def pack(to):
        kl.write_pack(paths, to, labels=LABELS, shard_size=2000, progress=False)

    def records(to):
        kl.write_tfrecords(paths, LABELS, os.path.join(to, "r"), shards=4, progress=False)

    def written(to):  # an index has times in it, and a finished journal who wrote it
        return {k: v for k, v in everything(to).items() if not k.endswith((".index", ".jsonl"))}

    with beds.quiet():
        for write, most in ((pack, 3000), (records, 4500)):
            whole = os.path.join(folder, write.__name__)
            write(whole)
            want = written(whole)
            for size in range(0, most, 37 if long else 800):
                to = os.path.join(folder, f"{write.__name__}-{size}")
                try:
                    with largest_file(size):
                        write(to)
                except OSError as error:
                    refused += 1
                    assert error.errno == errno.EFBIG, error
                    assert "free some" in str(error), error
                    there = everything(to)
                    assert not [name for name in there if name.endswith(".part")]
                    for name, data in there.items():
                        if name.endswith((".npy", ".tfrecord", ".json")) and name in want:
                            assert data == want[name], "a file in half has its name"
                    write(to)  # goes on
                got = written(to)
                assert got == want, sorted(got.keys() ^ want.keys())
    assert refused > 3
    return {"refusals": refused, "survived": "no incomplete result; the same call finishes"}


# ------------------------------------------------------------------------------ files that change


def store_of(loader, kind, folder):
    """The file of `kind` that is truncated or removed."""
    own = os.path.join(folder, kind.replace(" ", "-"))
    if kind.startswith("map"):
        return own
    if kind.startswith("TFRecord"):
        return sorted(str(p) for p in Path(own).glob("*.tfrecord"))[1]
    if kind.startswith("pack"):
        return os.path.join(own, "x.npy")
    return os.path.join(folder, "files", "0020.npy")


CUT = ("map", "map of large rows", "path", "RAM batches", "TFRecord", "TFRecord, compressed",
       "pack", "pack of large rows")  # fmt: skip


@fault("a file that is truncated while it is in use, and mapped if it is a memory map")
def file_cut_short(kl, folder, long):
    told = cuts = 0
    rng = random.Random(3)
    for attempt in range(25 if long else 1):
        for kind in CUT:
            where = os.path.join(folder, f"{attempt}-{kind.replace(' ', '-')}")
            os.makedirs(where)
            with beds.quiet(), beds.make(kl, kind, where, on_error="skip") as loader:
                loader[0]
                path = store_of(loader, kind, where)
                size = os.path.getsize(path)
                os.truncate(path, rng.randrange(size // 3, size * 9 // 10) if long else size // 3)
                cuts += 1
                # What is delivered is right; of a batch with no sample left there is another one.
                got = {k for batch in beds.epoch(loader) for k in numbers(batch)}
                held = kind in ("RAM batches", "TFRecord, compressed")  # in RAM, perhaps
                assert loader.errors or held, kind
                assert got | {e.index for e in loader.errors} == set(range(SAMPLES))
                assert all(path in str(error) for error in loader.errors), loader.errors
                told += len(loader.errors)
    return {"cuts": cuts, "samples reported": told, "survived": "errors that name file and sample"}


@fault("a file of records that is truncated and restored, over and over, while it is read")
def file_cut_while_it_is_copied(kl, folder, long):
    cuts = reads = 0
    kind = "TFRecord"
    with beds.make(kl, kind, folder, on_error="skip", workers=2) as loader:
        path = store_of(loader, kind, folder)
        content, end = Path(path).read_bytes(), threading.Event()

        def cut():
            nonlocal cuts
            with open(path, "r+b") as file:
                while not end.is_set():
                    file.truncate(200)
                    cuts += 1
                    file.seek(0)
                    file.write(content)
                    file.flush()

        thread = threading.Thread(target=cut)
        thread.start()
        stop = time.monotonic() + (60 if long else 0.7)
        epoch = errors = 0
        try:
            while time.monotonic() < stop:
                try:
                    for batch in beds.epoch(loader):
                        reads += len(batch[1])  # zeros while it is written again: nobody can tell
                except kl.SampleError:  # none of its samples loads
                    errors += 1
                epoch += 1
                errors += len(loader.errors)
                loader.errors.clear()
        finally:
            end.set()
            thread.join()
    assert cuts > 10
    assert errors
    return {
        "cuts": cuts,
        "samples read": reads,
        "samples reported": errors,
        "survived": "the process; missing records are an error",
    }


@fault("a file that is deleted while it is in use, and mapped if it is a memory map")
def file_removed(kl, folder, long):
    gone = named = 0
    for kind in CUT:
        where = os.path.join(folder, kind.replace(" ", "-"))
        os.makedirs(where)
        with beds.quiet(), beds.make(kl, kind, where, on_error="skip") as loader:
            exact(beds.epoch(loader), loader)
            path = store_of(loader, kind, where)
            if kind in ("path", "RAM batches"):
                loader.close()  # what was read ahead for the next epoch is there without the file
            os.unlink(path)
            gone += 1
            got = {k for batch in beds.epoch(loader) for k in numbers(batch)}
            assert got | {e.index for e in loader.errors} == set(range(SAMPLES))
            named += sum(path in str(error) for error in loader.errors)
            if kind in ("path", "RAM batches"):
                assert len(loader.errors) == 1, loader.errors
            elif kind == "TFRecord, compressed":  # not held open: its samples are named
                assert all(path in str(error) for error in loader.errors)
            else:  # held open or mapped: it is still there for us
                assert not loader.errors, loader.errors[0]
    return {
        "files": gone,
        "survived": "open and mapped files can still be read; the missing file of a sample is reported",
    }


@fault("no permission to read any more (as a user who is not root)")
def permission_lost(kl, folder, long):
    told = 0
    for kind in ("path", "images", "RAM batches", "TFRecord"):
        where = os.path.join(folder, kind)
        os.makedirs(where)
        with beds.quiet(), beds.make(kl, kind, where, on_error="skip") as loader:
            got = loader[0]
            assert len(got[1]) == BATCH
            loader.close()
            path = store_of(loader, kind, where)
            if kind == "images":
                path = os.path.join(where, "shown", "0020.png")
            for part in (Path(folder).parent, Path(folder), Path(where)):
                os.chmod(part, 0o755)
            os.chmod(path, 0)
            root = os.geteuid() == 0
            if root:
                os.seteuid(65534)
            try:
                found = {k for batch in beds.epoch(loader) for k in numbers(batch)}
            finally:
                if root:
                    os.seteuid(0)
            assert all("Permission" in str(e) and path in str(e) for e in loader.errors)
            assert loader.errors
            assert found | {e.index for e in loader.errors} == set(range(SAMPLES))
            told += len(loader.errors)
    return {
        "samples reported": told,
        "survived": "the other samples arrive; on_error handles this one",
    }


# ------------------------------------------------------------------------------ signals, forks, time


@fault("a signal with a handler, every millisecond, during all reads (EINTR)")
def interrupted_calls(kl, folder, long):
    count = samples = 0

    def note(*_):
        nonlocal count
        count += 1

    signal.signal(signal.SIGALRM, note)
    for kind in KINDS if long else FEW:
        with beds.quiet(), beds.make(kl, kind, folder) as loader:
            loader[0]
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            for _ in range(40 if long else 1):
                samples += exact(beds.epoch(loader), loader)
            signal.setitimer(signal.ITIMER_REAL, 0)
    assert count > 10
    return {"signals": count, "samples": samples, "survived": "every sample once"}


LIFE = """
    import hashlib, os, signal, sys, threading
    import numpy as np
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in what it starts with &
    from campaign import beds
    kl = beds.loaders_alone()
    folder = sys.argv[1]
    print("alive", flush=True)
    digest = hashlib.sha256()
    for kind in ("path", "images cached in a folder", "RAM batches", "TFRecord", "pack", "processes"):
        with beds.quiet(), beds.make(kl, kind, folder) as loader:
            for _ in range(2):
                for batch in beds.epoch(loader):
                    digest.update(np.ascontiguousarray(batch[0]).tobytes())
    print(digest.hexdigest(), flush=True)
"""


@fault("Ctrl-C at random moments: converting, indexing, filling a cache, reading, closing")
def ctrl_c(kl, folder, long):
    command = [sys.executable, "-c", textwrap.dedent(LIFE)]
    options = {
        "env": beds.child_environment(),
        "cwd": beds.TESTS,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "start_new_session": True,
    }

    def life(where, after=None):
        os.makedirs(where, exist_ok=True)
        child = subprocess.Popen([*command, where], **options)
        child.stdout.readline()
        begin = time.monotonic()
        if after is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(after)
            child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
        return child.returncode, out.strip(), err, time.monotonic() - begin

    code, want, err, whole = life(os.path.join(folder, "whole"))
    assert code == 0, err
    rng, stopped, slowest = random.Random(7), 0, 0.0
    for attempt in range(100 if long else 20):
        if stopped and attempt > 1 and not long:
            break
        where = os.path.join(folder, str(attempt))
        after = rng.random() * whole
        code, _, err, took = life(where, after)
        whole = min(whole, took) if code == 0 else whole  # the machine is quicker than it was
        if code:
            assert code in (-signal.SIGINT, 130, 1), (code, err)
            assert "KeyboardInterrupt" in err, err
            stopped += 1
            slowest = max(slowest, took - after)
        left = [n for n in everything(where) if n.endswith(".part")]
        assert not left, left
        code, got, err, _ = life(where)  # what it left is no obstacle
        if code and "unfinished" not in err and "already exists" not in err:
            raise AssertionError(err)
        assert code or got == want
    assert stopped
    return {
        "stops": stopped,
        "slowest exit, seconds": round(slowest, 2),
        "survived": "the process ends, no incomplete file has its final name, and the next run gives the same result",
    }


SENDER = """
    import os, signal, sys, time
    for line in sys.stdin:  # seconds: a whole process group gets Ctrl-C then, as from a terminal
        time.sleep(float(line))
        os.killpg(int(sys.argv[1]), signal.SIGINT)
"""


@fault(
    "Ctrl-C at random moments to a process that continues: opening, reading, closing, with workers and a cache"
)
def ctrl_c_and_on(kl, folder, long):
    from .memory import resources

    os.setsid()
    paths, came, late, used, held = beds.pictures(os.path.join(folder, "shown")), 0, 0, 0, []

    def handler(number, frame):
        nonlocal came
        came += 1
        raise KeyboardInterrupt

    def life(own):
        options = {"cache": own, "workers": 2, "processes": True, "transform": transform}
        loader = kl.PathSequenceLoader(paths, LABELS, BATCH, seed=1, shuffle=True, **options)
        held[:] = [loader]
        exact(iter(loader), loader)
        loader.close()

    def left():
        held.clear()
        gc.collect()
        now = resources()
        return now["descriptors"], now["threads"], len(psutil.Process().children())

    signal.signal(signal.SIGINT, handler)
    life(os.path.join(folder, "warm"))
    begin, before = time.monotonic(), None
    life(os.path.join(folder, "timed"))
    whole, rng = time.monotonic() - begin, random.Random(2)
    sender = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SENDER), str(os.getpid())],
        stdin=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    before = left()
    for attempt in range(300 if long else 12):
        own = os.path.join(folder, f"cache-{attempt // 3}")  # every third begins with an empty one
        try:
            sender.stdin.write(f"{rng.random() ** 2 * whole}\n")
            sender.stdin.flush()
            life(own)
            while came == attempt:
                late += 1
                time.sleep(whole)
        except KeyboardInterrupt:
            pass
        assert came == attempt + 1
        for loader in held:  # whatever it was at
            exact(iter(loader), loader)
            loader.close()
            used += 1
        found = left()
        assert all(a <= b for a, b in zip(found, before, strict=True)), (attempt, found, before)
        parts = [name for name in everything(own) if name.endswith(".part")]
        assert not parts, parts
    sender.communicate()
    return {
        "interrupts": came,
        "after the end": late,
        "loaders used again": used,
        "survived": "the loader delivers every sample once, or was not created; no additional descriptors, threads or child processes",
    }


@contextlib.contextmanager
def locks_held(loader):
    """Another thread holds all locks of a loader, as may happen to some of them at any moment."""
    runner = loader.runner
    engine = runner.engine
    owners = [loader, runner, runner.tickets, runner.pool, runner.log, runner.specs]
    owners += runner.pipeline.source.stores()
    owners += [engine, engine.workers._state] if engine is not None else []
    records = getattr(runner.pipeline.source, "records", None)
    owners += [records] if records is not None else []
    kinds = (type(threading.Lock()), type(threading.RLock()), threading.Condition)
    locks = [lock for owner in owners for lock in vars(owner).values() if isinstance(lock, kinds)]
    held, release = threading.Event(), threading.Event()

    def hold():
        taken = [lock for lock in locks if lock.acquire(timeout=1)]
        held.set()
        release.wait()
        for lock in taken:
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        release.set()
        if thread.ident in [t.ident for t in threading.enumerate()]:
            thread.join()


@fault("`os.fork` in the middle of an epoch, while threads prefetch and one holds all locks")
def fork_after_use(kl, folder, long):
    forks = 0
    for kind in KINDS if long else FEW:
        for attempt in range(20 if long else 1):
            with beds.quiet(), beds.make(kl, kind, folder) as loader:
                loader.on_epoch_begin()
                head = [loader[k] for k in range(2 + attempt % 5)]
                out, into = os.pipe()
                with locks_held(loader):
                    child = os.fork()
                    if child == 0:
                        signal.alarm(60)
                if child == 0:
                    code = 1
                    with contextlib.suppress(BaseException):
                        rest = [loader[k] for k in range(len(head), len(loader))]
                        exact([*head, *rest], loader)
                        os.write(into, hashlib.sha256(rest[-1][0].tobytes()).digest())
                        loader.close()
                        code = 0
                    os._exit(code)
                rest = [loader[k] for k in range(len(head), len(loader))]
                status = os.waitpid(child, 0)[1]
                assert status == 0, (kind, status)
                exact([*head, *rest], loader)
                assert os.read(out, 32) == hashlib.sha256(rest[-1][0].tobytes()).digest()
                os.close(out)
                os.close(into)
                forks += 1
    return {"forks": forks, "survived": "parent and child each get the rest of the epoch"}


@fault("a clock that jumps by days, back and forth; files from the future and from 1970")
def clock_jumps(kl, folder, long):
    real, rng, calls, samples = time.time, random.Random(5), 0, 0

    def jumping():
        nonlocal calls
        calls += 1
        return real() + rng.uniform(-1e6, 1e6)

    expected, kinds = {}, KINDS if long else FEW
    for kind in kinds:
        with beds.quiet(), beds.make(kl, kind, folder) as loader:
            expected[kind] = [numbers(b) for b in beds.epoch(loader)]
    time.time = jumping
    for k, path in enumerate(sorted(Path(folder).rglob("*.*"))):
        if path.is_file() and path.suffix in (".npy", ".png", ".tfrecord"):
            os.utime(path, (0, (0, 1, 4e9)[k % 3]))
    for _ in range(20 if long else 1):
        for kind in kinds:
            with beds.quiet(), beds.make(kl, kind, folder) as loader:
                got = [numbers(b) for b in beds.epoch(loader)]
                assert got == expected[kind], kind
                samples += sum(map(len, got))
    time.time = real
    return {"samples": samples, "survived": "the same batches in the same order"}


@fault("`fit`, over and over: new loaders of five kinds, one model")
def many_fits(kl, folder, long):
    import keras

    from .memory import resources, slope

    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    kinds = ("array", "path", "RAM batches", "TFRecord", "pack")
    count, seen = (1000 if long else 20), []
    for fit in range(count):
        with beds.quiet(), beds.make(kl, kinds[fit % 5], folder, dtype="float32") as loader:
            model.fit(loader, verbose=0, callbacks=[kl.LoaderCallback(loader)])
        del loader
        if fit % 10 == 9:
            gc.collect()
            seen.append(resources())
    first, last = seen[len(seen) // 4], seen[-1]
    assert last["threads"] <= first["threads"], seen
    assert last["descriptors"] <= first["descriptors"], seen
    found = {
        "fits": count,
        "threads": f"{first['threads']} -> {last['threads']}",
        "descriptors": f"{first['descriptors']} -> {last['descriptors']}",
        "resident MiB": f"{first['rss'] / 2**20:.0f} -> {last['rss'] / 2**20:.0f}",
        "survived": "no additional threads or descriptors",
    }
    if long:
        # TensorFlow keeps a registered function for each fit (20 KiB, whoever feeds it).
        half = [s["rss"] for s in seen[len(seen) // 4 :]]
        found["growth, % per hundred fits"] = round(slope(half, per=10) * 100, 2)
        assert slope(half, per=10) < 0.02, found
    return found


WITH_KERAS = {"many fits"}


# ------------------------------------------------------------------------------ all of them


def one(name, long=False):
    """Run one fault in a separate process; return the fault and its consequence."""
    with tempfile.TemporaryDirectory(prefix="kloaders-fault-") as folder:
        begin = time.monotonic()
        found = beds.in_a_child(
            "faults", name, folder, *(["--long"] if long else []),
            timeout=3600 if long else 100, keras=name in WITH_KERAS,
        )  # fmt: skip
        return {"injected": FAULTS[name][0], **found, "seconds": round(time.monotonic() - begin, 1)}


def run(long=True, names=None):
    """Run all faults; an AssertionError means that a promise was broken."""
    found = {}
    for name in names or FAULTS:
        found[name] = one(name, long)
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return {"faults": found}


def main():
    name, folder, *rest = sys.argv[1:]
    if name in WITH_KERAS:
        import kloaders as kl
    else:
        kl = beds.loaders_alone()
    print(json.dumps(FAULTS[name][1](kl, folder, "--long" in rest)))


if __name__ == "__main__":
    main()
