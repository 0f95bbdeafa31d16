"""Measures the limits at 10^9 samples, 10^5 shards and 1,000 hosts: plan, indexes, listings and states.

python benchmarks/scale.py            # all tables of docs/scale.md
python benchmarks/scale.py plan       # one of them

The script does not create data of that size. The plan and the indexes are real, at their full size or
at several smaller sizes; derived figures are marked as such.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("KLOADERS_WORKER", "1")  # without Keras

import machine
import numpy as np

Rows = list[dict[str, Any]]
SAMPLES, HOSTS, BATCH, SHARDS = 10**9, 1000, 256, 10**5
KINDS: dict[str, dict[str, Any]] = {
    "shuffled": {},
    "RAM batches of 10^5 samples per host": {"window": 100_096_000, "draw": "windows"},
    "the same, drawn globally": {"window": 100_096_000, "draw": "global"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; all by default")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--hosts", type=int, default=HOSTS)
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    found = {}
    for name in given.tables or TABLES:
        rows = TABLES[name](given.samples, given.hosts)
        found[name] = rows
        print(f"{' '.join((TABLES[name].__doc__ or '').split())}\n")
        print("| " + " | ".join(rows[0]) + " |\n" + "| --- " * len(rows[0]) + "|")
        for row in rows:
            print("| " + " | ".join(map(_cell, row.values())) + " |")
        print()
    print(machine.in_words())
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=2))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _seconds(call: Callable[[], Any], times: int = 7) -> float:
    """The median time of several calls, each with new arguments."""
    spent = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begin)
    return median(spent)


def _plan(samples: int, hosts: int, k: int, kind: str) -> Any:
    from kloaders.plan.epoch import EpochPlan

    return EpochPlan(samples, BATCH, 7, drop_last=True, shard=(k, hosts), **KINDS[kind])


# ---------------------------------------------------------------------- the plan


def plan(samples: int, hosts: int) -> Rows:
    """The plan of one host: the cost of an epoch's start and of a batch, and the memory of a process."""
    return [_alone("_plan_row", kind, samples, hosts) for kind in KINDS]


def _plan_row(kind: str, samples: int, hosts: int) -> dict[str, Any]:
    before = _peak()
    made = _plan(samples, hosts, hosts // 2, kind)
    epochs, batches = itertools.count(), itertools.count(1)

    def start() -> None:
        made.indices(made.shuffled_order(next(epochs)), 0)

    first = _seconds(start)
    order = made.shuffled_order(next(epochs))
    made.indices(order, 0)
    each = _seconds(lambda: made.indices(order, next(batches)), 50)
    seek = _seconds(lambda: made.indices(order, made.batches - next(batches)))
    state = json.dumps(made.state(order, made.batches // 2))
    return {
        "": kind,
        "batches per epoch": made.batches,
        "ms to start an epoch": 1e3 * first,
        "us per batch": 1e6 * each,
        "ms to a batch elsewhere": 1e3 * seek,
        "MiB": (_peak() - before) / 2**20,
        "bytes of state": len(state),
    }


def parts(samples: int, hosts: int) -> Rows:
    """The parts of all hosts in randomly chosen batches: disjoint, and together a whole batch."""
    from kloaders.plan.epoch import EpochPlan

    rows = []
    for kind, options in KINDS.items():
        one = EpochPlan(samples, BATCH * hosts, 7, drop_last=True, **options)
        all_hosts = [_plan(samples, hosts, k, kind) for k in range(hosts)]
        rng = np.random.default_rng(1)
        chosen = sorted({0, one.batches - 1, *rng.integers(0, one.batches, 3).tolist()})
        seen, equal = [], 0
        for batch in chosen:
            order = one.shuffled_order(3)
            whole = one.indices(order, batch)
            got = np.concatenate([p.indices(p.shuffled_order(3), batch) for p in all_hosts])
            equal += int(np.array_equal(np.sort(got), np.sort(whole)))
            seen.append(got)
        together = np.concatenate(seen)
        left = samples - one.batches * BATCH * hosts
        if len({p.batches for p in all_hosts}) != 1 or equal != len(chosen):
            raise AssertionError(f"{kind}: hosts do not read what one process would")
        if len(np.unique(together)) != len(together) or together.max() >= samples:
            raise AssertionError(f"{kind}: a sample comes twice")
        rows.append(
            {
                "": kind,
                "steps of every host": one.batches,
                "global batches compared": len(chosen),
                "samples in them": len(together),
                "twice": len(together) - len(np.unique(together)),
                "left out by drop_last": left,
            }
        )
    return rows


def whole(samples: int, hosts: int) -> Rows:
    """Count every sample of a whole epoch: none is missing, none comes twice."""
    from kloaders.plan.epoch import EpochPlan

    rows = []
    for count in sorted({10**6, 10**7, min(samples, 10**8)}):
        size = 100_000
        one = EpochPlan(count, size, 7)
        order = one.shuffled_order(3)
        seen = np.zeros(count, bool)
        begin = time.perf_counter()
        for batch in range(one.batches):
            seen[one.indices(order, batch)] = True
        rows.append(
            {
                "samples": count,
                "delivered": one.samples,
                "different ones": int(seen.sum()),
                "seconds": time.perf_counter() - begin,
            }
        )
        if not seen.all():
            raise AssertionError("a sample is missing")
    return rows


# ---------------------------------------------------------------------- memory per sample


def indexes(samples: int, hosts: int) -> Rows:
    """Memory and build time per sample on every host. The last two columns are extrapolated."""
    rows = [_alone(name, 10**6) for name in ("_paths_index", "_records_index", "_pack_index")]
    for row in rows:
        row["GiB at 10^9 samples"] = row["bytes per sample"] * SAMPLES / 2**30
        row["s at 10^9 samples"] = row["us per sample"] * SAMPLES / 1e6
    return rows


def _held(words: str, count: int, make: Callable[[], Any]) -> dict[str, Any]:
    before, begin = _resident(), time.perf_counter()
    kept = make()
    spent = time.perf_counter() - begin
    row = {
        "": words,
        "samples measured": count,
        "bytes per sample": (_resident() - before) / count,
        "us per sample": 1e6 * spent / count,
    }
    del kept
    return row


def _paths_index(count: int) -> dict[str, Any]:
    import kloaders as kl

    paths = [f"/data/photos/{k // 1000:06}/{k % 1000:04}.jpg" for k in range(count)]
    labels = np.zeros(count, np.int32)
    return _held(
        "files: paths of 31 bytes in one block, and offsets",
        count,
        lambda: kl.PathSequenceLoader(paths, labels, BATCH, cache=None, check_paths=False),
    )


def _records_index(count: int) -> dict[str, Any]:
    import kloaders as kl
    from kloaders.formats.tfrecord.examples import encode_example
    from kloaders.formats.tfrecord.files import RecordFiles
    from kloaders.formats.tfrecord.framing import framed

    record = framed(encode_example({"y": 1}))
    files = 50
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{folder}/{k:03}.tfrecord" for k in range(files)]
        for name in names:
            Path(name).write_bytes(record * (count // files))
        RecordFiles(names, progress=False)  # from now on its index is next to each file
        return _held(
            "TFRecord: where each record lies, from the index beside each file",
            count,
            lambda: (kl, RecordFiles(names, progress=False)),
        )


def _pack_index(count: int) -> dict[str, Any]:
    import kloaders as kl

    with tempfile.TemporaryDirectory() as folder:
        loader = kl.ArraySequenceLoader(
            np.zeros((count, 2), np.uint8), np.zeros(count, np.uint8), 32
        )
        kl.write_pack(loader, f"{folder}/pack", progress=False)
        kl.PackSequenceLoader(f"{folder}/pack", BATCH).close()
        return _held(
            "pack of arrays of one shape: files of rows, mapped",
            count,
            lambda: kl.PackSequenceLoader(f"{folder}/pack", BATCH),
        )


# ---------------------------------------------------------------------- shards


def shards(samples: int, hosts: int) -> Rows:
    """The cost of listing and opening shards on a local disk. The last column is extrapolated."""
    return [
        _alone("_shards_row", kind, n)
        for kind, most in (("pack", 1000), ("TFRecord", 10_000))
        for n in (100, 1000, 10_000)
        if n <= most
    ]


def _shards_row(kind: str, count: int) -> dict[str, Any]:
    import kloaders as kl
    from kloaders.formats.tfrecord.examples import encode_example
    from kloaders.formats.tfrecord.files import RecordFiles
    from kloaders.formats.tfrecord.framing import framed

    with tempfile.TemporaryDirectory() as folder:
        if kind == "pack":

            class Texts(kl.SequenceLoader):
                def load_sample(self, index: int) -> Any:  # of several lengths: a shard is a file
                    return np.zeros(7 + index % 3, np.uint8)

            kl.write_pack(Texts(4 * count, 32), folder, shard_size=32, progress=False)

            def opened() -> Any:
                return kl.PackSequenceLoader(folder, 2)
        else:
            record = framed(encode_example({"y": 1})) * 4
            names = [f"{folder}/{k:06}.tfrecord" for k in range(count)]
            for name in names:
                Path(name).write_bytes(record)
            RecordFiles(names, progress=False)

            def opened() -> Any:
                return RecordFiles(names, progress=False)

        begin = time.perf_counter()
        listed = len(os.listdir(folder))
        listing = time.perf_counter() - begin
        before, begin = _resident(), time.perf_counter()
        kept = opened()
        spent = time.perf_counter() - begin
        held = _resident() - before
        del kept
        return {
            "": kind,
            "shards": count,
            "files": listed,
            "ms to list the folder": 1e3 * listing,
            "s to open": spent,
            "us per shard": 1e6 * spent / count,
            "KiB per shard": held / count / 1024,
            "s at 10^5 shards": spent / count * SHARDS,
        }


# ---------------------------------------------------------------------- a process for each row


def _alone(name: str, *arguments: Any) -> dict[str, Any]:
    """Measure one row in a separate process, so that the memory is that of this row alone."""
    code = f"import json, scale; print(json.dumps(scale.{name}(*json.loads({json.dumps(arguments)!r}))))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _resident() -> int:
    """Bytes of this process in RAM, without mapped files and free memory of the allocator."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # not the GNU library
        ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


TABLES: dict[str, Callable[[int, int], Rows]] = {
    "plan": plan,
    "parts": parts,
    "whole": whole,
    "indexes": indexes,
    "shards": shards,
}

if __name__ == "__main__":
    main()
