"""Files with changed bytes: an error or the correct result; never a crash, a hang, a bomb, or code.

python -m tests.campaign fuzz                    # 2,000 cases of each kind of file, or 400
python -m campaign.fuzz KIND FIRST COUNT FOLDER  # some of them, as the others run it (in tests/)

Case k of a kind depends on k alone. A child process runs a few hundred cases with limits on its
memory and time, and records each case before it begins, so that a case that kills it is known.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import beds
from .damaged import KINDS

# Limits of a case; decoding an image near max_pixels needs half a GiB.
ADDRESS_SPACE, SECONDS = 3 * 2**30, 30
# The errors that a user may get for a damaged file. MemoryError is not among them: sizes are checked first.
EXPECTED = (ValueError, OSError, EOFError)


class TooLong(BaseException):
    """A case exceeded its time limit."""


def cases(name, first, count, folder, note=lambda k: None):
    """Run the cases; return failures as (case, description), and the number of errors."""
    kl = sys.modules["kloaders"]
    home = tempfile.mkdtemp(dir=folder)

    def late(*_):
        raise TooLong

    failures, errors, slowest = [], 0, 0.0
    with beds.quiet():
        one = KINDS[name](kl, home)
        before = signal.signal(signal.SIGALRM, late)
        for k in range(first, first + count):
            note(k)
            rng = random.Random(f"{name} {k}")
            begin = time.monotonic()
            signal.alarm(SECONDS)
            try:
                one.case(rng)
            except EXPECTED:
                errors += 1
            except TooLong:
                failures.append((k, f"more than {SECONDS} seconds"))
            except BaseException as error:  # any other exception is a bug
                failures.append((k, f"{type(error).__name__}: {error}"[:300]))
            finally:
                signal.alarm(0)
            slowest = max(slowest, time.monotonic() - begin)
        signal.signal(signal.SIGALRM, before)
    shutil.rmtree(home)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"failures": failures, "errors": errors, "slowest": slowest, "peak": peak}


def run_kind(name, count, folder, chunk=1000):
    """All cases of a kind, in child processes; if one dies, its current case is a failure."""
    total = {"cases": count, "errors": 0, "correct results": 0, "failures": []}
    slowest, peak = 0.0, 0
    spans = [(first, min(chunk, count - first)) for first in range(0, count, chunk)]
    note = os.path.join(folder, f"{name}-at".replace(" ", "-"))
    while spans:
        first, size = spans.pop()
        command = [sys.executable, "-m", "campaign.fuzz", name, str(first), str(size), folder, note]
        try:
            done = subprocess.run(
                command, env=beds.child_environment(), cwd=beds.TESTS, capture_output=True,
                text=True, timeout=3600, check=False,
            )  # fmt: skip
            code, said = done.returncode, done.stderr[-300:]
        except subprocess.TimeoutExpired:
            code, said = "a hang", ""
        if code:
            at = int(Path(note).read_text() or first)
            total["failures"].append((at, f"the process ended with {code}: {said}"))
            spans += [
                (a, n) for a, n in ((first, at - first), (at + 1, first + size - at - 1)) if n
            ]
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        total["errors"] += found["errors"]
        total["failures"] += found["failures"]
        slowest, peak = max(slowest, found["slowest"]), max(peak, found["peak"])
    total["correct results"] = count - total["errors"] - len(total["failures"])
    total["slowest, seconds"], total["peak resident, MiB"] = round(slowest, 2), peak >> 20
    return total


def run(long=True, names=None, count=None):
    """All kinds of files, in two processes at a time."""

    def one_kind(name):
        return run_kind(name, count or (KINDS[name].long if long else 25), folder)

    with tempfile.TemporaryDirectory(prefix="kloaders-fuzz-") as folder, ThreadPoolExecutor(2) as p:
        names = list(names or KINDS)
        done = p.map(one_kind, names)
        found = {}
        for name, one in zip(names, done, strict=True):
            found[name] = one
            print(f"{name}: {one}", file=sys.stderr, flush=True)
    return {"fuzz": found}


def main():
    name, first, count, folder, note = sys.argv[1:]
    beds.loaders_alone()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # OpenCV's decoders write to stderr themselves, for each damaged file.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    where = os.open(note, os.O_WRONLY | os.O_CREAT)

    def at(k):
        os.pwrite(where, f"{k:<12}".encode(), 0)

    if name != "all":
        print(json.dumps(cases(name, int(first), int(count), folder, at)))
        return
    found = {kind: cases(kind, int(first), int(count), folder, at) for kind in KINDS}
    failures = [(kind, *one) for kind, of in found.items() for one in of["failures"]]
    print(json.dumps({"failures": failures, "errors": sum(f["errors"] for f in found.values())}))


if __name__ == "__main__":
    main()
