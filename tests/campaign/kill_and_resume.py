"""Kills a run at random moments and restarts it until it ends; then counts the samples.

    python -m tests.campaign.kill_and_resume --kills 100 --backend torch --json out.json

A model counts, in a variable of its own, how often it has received each sample, and keeps a hash of
the batches in their order; it has dropout, a learning-rate schedule and moving averages. It is trained
once without interruption. Then it is trained from the same start by a process that SIGKILL ends after
a random time, while it starts, trains or saves (it saves after every batch); the next process resumes
from the file. Some processes train with two or four shards instead of one, in a custom loop that joins
the parts of a batch. When the training has ended, each sample must have arrived once per epoch (in a
mixture, as often as without kills), in the same order, and all variables must equal those of the
uninterrupted training. They would differ if a batch_transform drew other numbers, or a sample came with
another weight.

Processes are forked from one that has only imported Keras, which saves the seconds of an import.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

STORES = ("path", "two-level", "records", "pack", "windows")  # plain, over each kind of storage
OPTIONS = ("weights", "mixup", "mixup in windows", "buckets", "mixture")  # with options, over files
LOADERS = (*STORES, *OPTIONS)
# 26 steps an epoch; the last batch has a sample for each of four shards, and a size by which a compiler
# that knows it divides without another rounding.
SAMPLES, BATCH = 204, 8
SHARDS = (1, 2, 1, 4, 1)  # of one process after another
# Each part of a batch draws numbers of its own, and is padded to a length of its own; so there is one part.
WHOLE_BATCHES = ("mixup", "mixup in windows", "buckets", "mixture")
LENGTHS, BOUNDARIES = (
    (2, 3, 5, 6, 9),
    (3, 6, 9),
)  # steps of the samples, in turn, and of the batches


# ------------------------------------------------------------------------------------------- data


def write_data(folder: Path) -> None:
    """Write the same samples, a number and three features each, to each kind of storage."""
    import numpy as np

    import kloaders as kl

    rng = np.random.default_rng(0)
    x = np.concatenate([np.arange(SAMPLES)[:, None], rng.normal(size=(SAMPLES, 3))], axis=1)
    x = x.astype(np.float32)
    y = rng.normal(size=(SAMPLES, 1)).astype(np.float32)
    (folder / "files").mkdir(parents=True)
    for number, row in enumerate(x):
        np.save(folder / "files" / f"{number:04}.npy", row)
    np.save(folder / "labels.npy", y)
    np.save(folder / "weights.npy", rng.uniform(0.5, 2, SAMPLES).astype(np.float32))
    source = kl.ArraySequenceLoader(x, y, 32)
    kl.write_pack(source, folder / "pack", progress=False)
    kl.write_tfrecords(source, out=folder / "records", shards=3, progress=False)


def make_loader(kind: str, folder: Path, batch_size: int, shard=None):
    """A loader over the data, shuffled."""
    import numpy as np

    import kloaders as kl

    options = {"shuffle": True, "seed": 11, "shard": shard, "workers": 2}
    if kind == "records":
        return kl.TFRecordSequenceLoader(
            f"{folder}/records-*", {"x": "x", "y": "label"}, batch_size, **options
        )
    if kind == "pack":
        return kl.PackSequenceLoader(folder / "pack", batch_size, **options)
    paths, labels = sorted(map(str, (folder / "files").iterdir())), np.load(folder / "labels.npy")
    if kind in OPTIONS:
        options["sample_weights"] = np.load(folder / "weights.npy")
    if kind == "mixture":
        return make_mixture(paths, labels, batch_size, options)
    if kind == "buckets":
        loader = kl.PathSequenceLoader(paths, labels, batch_size, transform=in_steps, **options)
        lengths = np.resize(LENGTHS, SAMPLES)
        return kl.bucket_by_length(loader, lengths, BOUNDARIES)
    if kind.startswith("mixup"):
        options["batch_transform"] = mixup
    if kind in ("path", "weights", "mixup"):
        return kl.PathSequenceLoader(paths, labels, batch_size, **options)
    draw = "windows" if kind.endswith("windows") else "global"
    parts = 1 if shard is None else shard[1]
    # 48 samples in a RAM batch of all shards together
    return kl.RamBatchSequenceLoader(
        paths, labels, batch_size, ram_batch_size=48 // parts, draw=draw, **options
    )


def make_mixture(paths, labels, batch_size: int, options: dict):
    """A mixture of 150 files and an array of 54 samples, which repeat more often; both augmented."""
    import numpy as np

    import kloaders as kl

    weights = options.pop("sample_weights")
    seed, workers = options["seed"], options["workers"]
    some, rest = slice(150), slice(150, None)
    files = kl.PathSequenceLoader(
        paths[some], labels[some], sample_weights=weights[some], transform=noisy, seed=seed
    )
    rows = np.stack([np.load(path) for path in paths[rest]])
    array = kl.ArraySequenceLoader(
        rows, labels[rest], sample_weights=weights[rest], transform=noisy, seed=seed + 1
    )
    return kl.mix(
        [files, array], [0.6, 0.4], batch_size, batch_transform=mixup, seed=seed, workers=workers
    )


def noisy(x, y, rng):
    """A transform that keeps the number of the sample."""
    import numpy as np

    noise = rng.normal(0, 0.1, 3).astype(np.float32)
    return x + np.concatenate([np.zeros(1, np.float32), noise]), y


def in_steps(x, y, rng):
    """A sequence whose length depends on the sample's number: features in each step, the number once."""
    import numpy as np

    steps = np.zeros((LENGTHS[int(x[0]) % len(LENGTHS)], 4), np.float32)
    steps[0, 0] = x[0]
    steps[:, 1:] = x[1:] + rng.normal(0, 0.1, (len(steps), 3))
    return steps, y


def mixup(x, y, rng):
    """Mix features and labels of a batch with those of other samples; numbers stay."""
    import numpy as np

    share = rng.beta(0.4, 0.4, (len(x), 1)).astype(np.float32)
    other = rng.permutation(len(x))
    features = share * x[:, 1:] + (1 - share) * x[other, 1:]
    return np.concatenate([x[:, :1], features], axis=1), share * y + (1 - share) * y[other]


# ------------------------------------------------------------------------------------------ model


def make_model(steps: bool):
    """A model that records the samples it receives; steps: it receives sequences."""
    import keras
    from keras import ops

    class Tally(keras.layers.Layer):
        def build(self, shape):
            def variable(name, shape, dtype):
                return self.add_weight(
                    name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=False
                )

            self.counts = variable("counts", (SAMPLES,), "float32")
            self.trail = variable("trail", (), "int32")

        def call(self, x, training=False):
            if training:
                number = ops.cast(x[:, 0], "int32")
                seen = ops.sum(ops.one_hot(number, SAMPLES, dtype="float32"), axis=0)
                self.counts.assign(self.counts + seen)
                places = ops.arange(1, ops.shape(number)[0] + 1, dtype="int32")
                # A number below 2**31 of the batches so far, in their order.
                here = ops.sum((number + 1) * places)
                self.trail.assign((self.trail * 31 + here) % 10_000_019)
            return x[:, 1:]

    keras.utils.set_random_seed(5)
    x = inputs = keras.Input((None, 4) if steps else (4,))
    if steps:  # the number is in one of them, and padding is zeros
        x = keras.layers.Lambda(lambda steps: ops.sum(steps, axis=1), output_shape=(4,))(x)
    x = Tally()(x)
    x = keras.layers.Dense(8, activation="tanh")(x)
    x = keras.layers.BatchNormalization()(x)
    # On torch a layer without a seed draws from torch's own generator, as do the iterators of fit.
    x = keras.layers.Dropout(0.25, seed=9)(x)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    rate = keras.optimizers.schedules.CosineDecay(0.01, 120)
    optimizer = keras.optimizers.Adam(rate, use_ema=True, ema_overwrite_frequency=40)
    options = {"jit_compile": False} if keras.backend.backend() == "tensorflow" else {}
    model.compile(optimizer, "mse", metrics=["mae"], **options)
    return model


def life(
    kind: str, folder: Path, state: str, result: str, shards: int, epochs: int, ticks: int
) -> None:
    """One process: train from the saved state to the end, and write the result to a file."""
    import keras
    import numpy as np

    import kloaders as kl

    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        torch.set_num_threads(1)
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.experimental.enable_op_determinism()

    class Tick(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            os.write(ticks, b".")

    model = make_model(steps=kind == "buckets")
    if shards == 1:
        loader = make_loader(kind, folder, BATCH)
        saving = kl.LoaderCallback(loader, state, save_freq=1)
        model.fit(loader, epochs=epochs, verbose=0, callbacks=[saving, Tick()])
    else:
        parts = [make_loader(kind, folder, BATCH // shards, (k, shards)) for k in range(shards)]
        saving = kl.LoaderCallback(parts[0], state, save_freq=1)
        callbacks = keras.callbacks.CallbackList(
            [saving, Tick()], model=model, epochs=epochs, steps=len(parts[0])
        )
        callbacks.on_train_begin()
        for part in parts[1:]:
            part.load_state_dict(parts[0].state_dict())
        for epoch in range(saving.initial_epoch, epochs):
            model.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            for part in parts:
                part.on_epoch_begin()
            for i in range(len(parts[0])):
                batch = zip(*(part[i] for part in parts), strict=True)  # x, y, maybe weights
                model.train_on_batch(*(np.concatenate(pieces) for pieces in batch))
                callbacks.on_train_batch_end(i)
            for part in parts:
                part.on_epoch_end()
            callbacks.on_epoch_end(epoch)
        model.optimizer.finalize_variable_values(model.trainable_weights)
        callbacks.on_train_end()
    variables = [*model.variables, *model.optimizer.variables]
    arrays = {str(k): keras.ops.convert_to_numpy(v) for k, v in enumerate(variables)}
    tally = next(layer for layer in model.layers if type(layer).__name__ == "Tally")
    part = f"{result}.{os.getpid()}.part"
    with open(part, "wb") as file:
        np.savez(
            file,
            **arrays,
            counts=keras.ops.convert_to_numpy(tally.counts),
            trail=keras.ops.convert_to_numpy(tally.trail),
        )
    os.replace(part, result)


# -------------------------------------------------------------------------------------- processes


class Child:
    """A child process that trains until it ends or is killed."""

    def __init__(self, *arguments) -> None:
        self.ticks, theirs = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self.ticks)
                life(*arguments, theirs)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(theirs)

    def ended(self, seconds: float) -> bool:
        """Wait for the end, at most this many seconds."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self.ticks], [], [], left)[0] and not os.read(self.ticks, 4096):
                return True
        return False

    def began(self, seconds: float) -> bool:
        """Wait for the first batch, at most this many seconds; return whether it came."""
        if select.select([self.ticks], [], [], seconds)[0]:
            return bool(os.read(self.ticks, 1))
        return False

    def wait(self) -> int:
        """The exit code; negative: the signal."""
        os.close(self.ticks)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def run_to_the_end(kind: str, folder: Path, place: Path, epochs: int) -> Path:
    """The uninterrupted training."""
    place.mkdir()
    child = Child(kind, folder, str(place / "state"), str(place / "result.npz"), 1, epochs)
    if not child.ended(300):
        os.kill(child.pid, signal.SIGKILL)
    if child.wait() != 0:
        raise SystemExit(f"{kind}: the training fails even where nothing interrupts it")
    return place / "result.npz"


def kill_until_it_ends(kind, folder, place, kills, chance, figures, say) -> Path:
    """The training that is killed, at most this many times."""
    place.mkdir()
    state, result = place / "state", place / "result.npz"
    done = 0
    while True:
        shards = SHARDS[(figures["processes"] + LOADERS.index(kind)) % len(SHARDS)]
        shards = 1 if kind in WHOLE_BATCHES else shards
        figures["processes"] += 1
        figures["shards"][str(shards)] = figures["shards"].get(str(shards), 0) + 1
        child = Child(kind, folder, str(state), str(result), shards, figures["epochs"])
        ended = False
        if done < kills:
            if chance.random() < 0.15:  # while it starts
                ended = child.ended(chance.uniform(0, 1.5))
            elif child.began(300):  # while it trains and saves
                ended = child.ended(chance.uniform(0, 0.4))
            if not ended:
                os.kill(child.pid, signal.SIGKILL)
        elif not child.ended(300):
            os.kill(child.pid, signal.SIGKILL)
            raise SystemExit(f"{kind}: the training hangs")
        code = child.wait()
        if code == -signal.SIGKILL:
            done += 1
            figures["kills"] += 1
            halves = list(place.glob(".state.*.part"))
            figures["kills_while_saving"] += bool(halves)
            for half in halves:
                half.unlink()
        elif code:
            raise SystemExit(f"{kind}: a process that went on failed with exit code {code}")
        else:
            if state.exists():
                raise SystemExit(f"{kind}: the state is still there when the training is over")
            say(f"{kind}: ended after {done} kills")
            return result


def compare(kind: str, ours: Path, theirs: Path, figures: dict) -> None:
    """Report the differences between a killed training and an uninterrupted one."""
    import numpy as np

    with np.load(ours) as a, np.load(theirs) as b:
        counts = a["counts"]
        # A mixture gives a sample as often as proportions make it: what counts is the whole training.
        expected = b["counts"] if kind == "mixture" else np.full(SAMPLES, figures["epochs"])
        figures["samples_checked"] += int(expected.sum())
        figures["samples_lost"] += int(np.maximum(expected - counts, 0).sum())
        figures["samples_repeated"] += int(np.maximum(counts - expected, 0).sum())
        figures["orders_equal"] += bool(a["trail"] == b["trail"])
        numbers = [name for name in b.files if name.isdigit()]
        figures["variables"] = len(numbers)
        same = all(np.array_equal(a[name], b[name]) for name in numbers)
        figures["weights_equal"] += same
        apart = max(float(np.abs(np.float64(a[n]) - np.float64(b[n])).max()) for n in numbers)
        figures["largest_difference"] = max(figures["largest_difference"], apart)
    figures["trainings"] += 1


def campaign(kinds, kills: int, epochs: int, seed: int, say):
    """Kill this many times with each kind of loader; yield its name and the figures."""
    folder = Path(tempfile.mkdtemp(prefix="kloaders-kill-"))
    wholes = {}
    try:
        write_data(folder / "data")
        for kind in kinds:
            chance = random.Random(f"{seed} {kind}")
            figures = {
                "kills": 0,
                "kills_while_saving": 0,
                "processes": 0,
                "shards": {},
                "trainings": 0,
                "epochs": epochs,
                "samples_checked": 0,
                "samples_lost": 0,
                "samples_repeated": 0,
                "variables": 0,
                "weights_equal": 0,
                "orders_equal": 0,
                "largest_difference": 0.0,
            }
            place = folder / kind
            place.mkdir()
            # Plain loaders of any storage have one order, but for windows.
            order = "global" if kind in STORES[:-1] else kind
            if order not in wholes:
                wholes[order] = run_to_the_end(kind, folder / "data", place / "whole", epochs)
            whole = wholes[order]
            while figures["kills"] < kills:
                left = kills - figures["kills"]
                here = place / str(figures["trainings"])
                result = kill_until_it_ends(kind, folder / "data", here, left, chance, figures, say)
                compare(kind, result, whole, figures)
            figures["passed"] = (
                figures["samples_lost"] == figures["samples_repeated"] == 0
                and figures["trainings"] == figures["weights_equal"] == figures["orders_equal"]
            )
            say(f"{kind}: {json.dumps(figures)}")
            yield kind, figures
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def kept(name: str | None, backend: str) -> dict:
    """The stored figures of this backend, by loader."""
    if name is None or not Path(name).exists():
        return {}
    report = json.loads(Path(name).read_text(encoding="utf-8"))
    return report["loaders"] if report["backend"] == backend else {}


def main(arguments=None) -> int:
    """Exit code 0: nothing was lost or repeated, and all weights are equal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="for each loader")
    parser.add_argument("--backend", choices=("tensorflow", "torch", "jax"), default="tensorflow")
    parser.add_argument(
        "--loaders", default=",".join(LOADERS), help="some of the default, by commas"
    )
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--json", help="a file for the figures; what it has of loaders that are left out stays"
    )
    options = parser.parse_args(arguments)
    kinds = options.loaders.split(",")
    if unknown := set(kinds) - set(LOADERS):
        parser.error(f"no such loaders: {unknown}; there are {', '.join(LOADERS)}")
    os.environ["KERAS_BACKEND"] = options.backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import logging

    import keras
    import tensorflow as tf  # noqa: F401 - Keras' adapters import it in the first fit, on any backend

    logging.getLogger("kloaders").setLevel("WARNING")

    def say(text: str) -> None:
        sys.stdout.write(f"{options.backend}: {text}\n")
        sys.stdout.flush()

    found = kept(options.json, options.backend)
    for kind, figures in campaign(kinds, options.kills, options.epochs, options.seed, say):
        found[kind] = figures
        report = {
            "campaign": "kill_and_resume",
            "backend": options.backend,
            "keras": keras.__version__,
            "passed": all(one["passed"] for one in found.values()),
            "loaders": found,
        }
        if options.json:  # after each kind, so that a campaign that is broken off has some
            Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(one["passed"] for one in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
