"""Checks that memory does not grow over 200 epochs or 30 fits, for each loader in a separate process.

python -m tests.campaign memory            # all, long
python -m campaign.memory KIND FOLDER      # one of them, as the others run it (in tests/)
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import threading
import time

import numpy as np
import psutil

from . import beds

EPOCHS = 200
# The maximal growth of resident memory per hundred epochs.
MOST = 0.01
# Allowed in addition to a budget: stacks and malloc arenas of threads, files being read.
BESIDE = 24 * 2**20


def resources():
    """The resident memory of this process, workers included."""
    process = psutil.Process()
    return {
        "rss": sum(p.memory_info().rss for p in (process, *process.children(recursive=True))),
        "threads": threading.active_count(),
        "descriptors": process.num_fds(),
    }


def slope(values, per=100):
    """Growth over `per` values relative to their mean, by a least-squares line."""
    steps = np.arange(len(values))
    return float(np.polyfit(steps, values, 1)[0]) * per / float(np.mean(values))


# ------------------------------------------------------------------------------ flat

FLAT = (*beds.KINDS, "to_tf_dataset")


def flat(kl, kind, folder, epochs):
    """Resident memory after each epoch, without the first quarter, in which pools fill."""
    beds.WIDTH, beds.SIDE = 4000, 64  # 1.5 MB per epoch: a leaked batch would be visible
    seen = []
    with beds.quiet():
        loader = beds.make(kl, "path" if kind == "to_tf_dataset" else kind, folder)
        data = kl.to_tf_dataset(loader, shuffle=True) if kind == "to_tf_dataset" else None
        for _ in range(epochs):
            batches = beds.epoch(loader) if data is None else data
            samples = sum(len(np.asarray(batch[1])) for batch in batches)
            assert samples == loader.samples
            gc.collect()
            seen.append(resources())
        loader.close()
    rest = seen[len(seen) // 4 :]
    rss = [one["rss"] for one in rest]
    found = {
        "epochs": epochs,
        "resident MiB": f"{rss[0] / 2**20:.1f} -> {rss[-1] / 2**20:.1f}",
        "growth, % per hundred epochs": round(slope(rss) * 100, 3),
    }
    if epochs >= EPOCHS:
        assert slope(rss) < MOST, found
    else:  # too few for a slope: less than a batch per epoch
        assert rss[-1] - rss[0] < epochs * beds.WIDTH * 8 * beds.BATCH, found
    assert rest[-1]["threads"] <= rest[0]["threads"] + 1, (rest[0], rest[-1])
    assert rest[-1]["descriptors"] <= rest[0]["descriptors"] + 8, (rest[0], rest[-1])
    return found


# ------------------------------------------------------------------------------ budgets


class Peak:
    """The peak of resident memory while the block runs, relative to its start."""

    def __enter__(self):
        self.process, self.end = psutil.Process(), threading.Event()
        gc.collect()
        self.begin = self.most = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def _look(self):
        while not self.end.wait(0.002):
            self.most = max(self.most, self.process.memory_info().rss)

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()
        self.grown = self.most - self.begin


def budgets(kl, kind, folder, long):
    """A loader with a budget, over data of four times that size."""
    budget = (128 if long else 32) * 2**20
    beds.WIDTH = 4 * budget // 8 // beds.SAMPLES
    paths = beds.files(os.path.join(folder, "files"))
    kept = os.path.join(folder, "kept")
    options = {
        "two levels": {"ram_budget": budget, "cache": None},
        "cache in RAM": {"cache": "ram", "cache_budget": budget},
        "cache in a folder": {"cache": kept, "cache_budget": budget},
    }[kind]
    make = kl.RamBatchSequenceLoader if kind == "two levels" else kl.PathSequenceLoader
    with beds.quiet(), make(paths[:2], beds.LABELS[:2], 1, workers=0, cache=None) as loader:
        each = loader[0][0].nbytes  # all imports are done and in memory now
    with beds.quiet(), Peak() as peak:
        loader = make(paths, beds.LABELS, 1, seed=1, shuffle=True, max_queue_size=1, **options)
        with loader:
            for _ in range(3):
                beds.exact(beds.epoch(loader), loader)
            time.sleep(0.01)
    # The prefetched and the served batch; files that two threads read, and the caller's arrays.
    beside = BESIDE + 8 * each
    found = {"budget, MiB": budget >> 20, "data, MiB": 4 * budget >> 20}
    if kind == "cache in a folder":
        size = sum(os.path.getsize(os.path.join(w, n)) for w, _, ns in os.walk(kept) for n in ns)
        assert size <= budget, size
        return {**found, "in the folder, MiB": round(size / 2**20, 1)}
    assert peak.grown < budget + beside, (peak.grown >> 20, budget >> 20)
    return {**found, "peak growth, MiB": round(peak.grown / 2**20, 1)}


BUDGETS = ("two levels", "cache in RAM", "cache in a folder")

# ------------------------------------------------------------------------------ a loader for each fit

FITS = ("a new loader for each fit", "a new loader for each fit, closed")
WITH_KERAS = ("to_tf_dataset", *FITS)


def fits(kl, kind):
    """Resident memory after each of 30 fits, each with a new loader of 20 MB, collected by Python's GC."""
    import keras

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    seen, shape = [], (200, 26_000)
    for fit in range(30):
        x = np.random.default_rng(fit).random(shape, np.float32)
        loader = kl.ArraySequenceLoader(x, np.zeros(len(x), np.float32), 20, shuffle=True)
        model.fit(loader, verbose=0)
        if kind.endswith("closed"):
            loader.close()
        seen.append(resources()["rss"])
    data = 4 * shape[0] * shape[1]
    found = {
        "fits": len(seen),
        "data per fit, MiB": round(data / 2**20, 1),
        "resident MiB": f"{seen[0] / 2**20:.0f} -> {seen[-1] / 2**20:.0f}",
        "peak growth, MiB": round((max(seen) - seen[0]) / 2**20, 1),
    }
    assert max(seen) - seen[0] < 3 * data, [rss >> 20 for rss in seen]
    return found


# ------------------------------------------------------------------------------ all of them


def one(kind, long=False):
    with tempfile.TemporaryDirectory(prefix="kloaders-memory-") as folder:
        return beds.in_a_child(
            "memory", kind, folder, EPOCHS if long else 12,
            keras=kind in WITH_KERAS, timeout=3600 if long else 100,
        )  # fmt: skip


def run(long=True, names=None):
    """Run all kinds of loaders, the budgets, and a new loader for each fit."""
    found = {}
    for kind in names or (*FLAT, *BUDGETS, *FITS):
        found[kind] = one(kind, long)
        print(f"{kind}: {found[kind]}", file=sys.stderr, flush=True)
    return {"memory": found}


def main():
    kind, folder, epochs = sys.argv[1:]
    if kind in WITH_KERAS:
        import kloaders as kl
    else:
        kl = beds.loaders_alone()
    if kind in FITS:
        print(json.dumps(fits(kl, kind)))
    elif kind in BUDGETS:
        print(json.dumps(budgets(kl, kind, folder, int(epochs) >= EPOCHS)))
    else:
        print(json.dumps(flat(kl, kind, folder, int(epochs))))


if __name__ == "__main__":
    main()
