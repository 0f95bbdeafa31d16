"""Several threads on one loader, and several loaders on one store.

python -m tests.campaign threads           # all, long
python -m campaign.threads KIND FOLDER     # one of them, as the others run it (in tests/)
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import threading

import numpy as np

from . import beds
from .beds import exact, numbers

THREADS = 16


def together(work, count=THREADS):
    """Run `work(k)` in this many threads at once; return their results, or raise the first error."""
    start, given, errors = threading.Barrier(count), [None] * count, []

    def one(k):
        try:
            start.wait(60)
            given[k] = work(k)
        except BaseException as error:  # raised below
            errors.append(error)

    threads = [threading.Thread(target=one, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]
    return given


def same(a, b):
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def threads_at_one_loader(kl, kind, folder, rounds):
    """`loader[i]` from 16 threads: each thread gets batch i; in an epoch each batch comes once."""
    batches = 0
    with beds.quiet(), beds.make(kl, kind, folder) as loader:
        for epoch in range(rounds):
            # Outside an epoch, index i is batch i of the next epoch for every thread.
            want = [loader[k] for k in range(len(loader))]

            def by_index(thread, want=want, epoch=epoch):
                order = list(range(len(loader)))
                random.Random(thread + 100 * epoch).shuffle(order)
                for k in order:
                    assert same(loader[k], want[k]), k
                return len(order)

            batches += sum(together(by_index))
            # In an epoch the threads share a queue of indices, in any order.
            tickets = list(range(len(loader)))
            random.Random(epoch).shuffle(tickets)
            loader.on_epoch_begin()

            def by_ticket(thread, tickets=tickets):
                got = []
                while tickets:
                    try:
                        ticket = tickets.pop()
                    except IndexError:
                        break
                    got.append(loader[ticket])
                return got

            shared = [batch for got in together(by_ticket) for batch in got]
            loader.on_epoch_end()
            batches += len(shared)
            exact(shared, loader)
    return {"threads": THREADS, "batches": batches}


def views_at_once(kl, kind, folder, rounds):
    """Eight views of one loader in eight threads: each has its own epoch."""
    samples = 0
    with beds.quiet(), beds.make(kl, kind, folder) as loader:
        want = [numbers(b) for b in beds.epoch(loader)]

        def epochs(k):
            with loader.view() as view:
                got = [numbers(b) for b in beds.epoch(view)]
                assert got == want
                view.on_epoch_begin()
                exact([view[i] for i in range(len(view))], view)
                return sum(map(len, got))

        for _ in range(rounds):
            samples += sum(together(epochs, 2 if kind == "processes" else 8))
    return {"views": 8, "samples": samples}


OTHER = """
import sys
from campaign import beds
kl = beds.loaders_alone()
kind, folder, rounds = sys.argv[1:]
for _ in range(int(rounds)):
    with beds.quiet(), beds.make(kl, kind, folder) as loader:
        for _ in range(2):
            beds.exact(beds.epoch(loader), loader)
"""

STORES = ("images cached in a folder", "TFRecord", "pack", "RAM batches")


def loaders_at_one_store(kl, kind, folder, rounds):
    """Four loaders, in threads and in two other processes, on one cache folder, pack or TFRecord."""
    samples = 0
    beds.make(kl, kind, folder).close()
    command = [sys.executable, "-c", OTHER, kind, folder, str(rounds)]
    others = [
        subprocess.Popen(command, env=beds.child_environment(), cwd=beds.TESTS) for _ in range(2)
    ]

    def epochs(k):
        count = 0
        for _ in range(rounds):
            with beds.make(kl, kind, folder, seed=k) as loader:
                for _ in range(2):
                    count += exact(beds.epoch(loader), loader)
        return count

    with beds.quiet():
        samples += sum(together(epochs, 4))
    for other in others:
        assert other.wait(300) == 0
    return {"loaders": 4, "other processes": 2, "samples": samples}


def one(kind, long=False, what="threads_at_one_loader"):
    """The results of the child process by kind; kinds joined by + share one process."""
    with tempfile.TemporaryDirectory(prefix="kloaders-threads-") as folder:
        rounds = (50 if what == "threads_at_one_loader" else 20) if long else 1
        return beds.in_a_child("threads", what, kind, folder, rounds, timeout=3600 if long else 100)


WAYS = {
    "several threads on one loader": beds.KINDS,
    "views in parallel": beds.KINDS,
    "several loaders on one store": STORES,
}


def run(long=True, names=None):
    """Run all kinds of loaders in all ways, or some of them."""
    found = {}
    for way in names or WAYS:
        for kind in WAYS[way]:
            name = f"{way}: {kind}"
            found[name] = one(kind, long, way.replace(" ", "_"))[kind]
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return {"threads": found}


def main():
    what, kind, folder, rounds = sys.argv[1:]
    kl = beds.loaders_alone()
    found = {one: globals()[what](kl, one, folder, int(rounds)) for one in kind.split("+")}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
