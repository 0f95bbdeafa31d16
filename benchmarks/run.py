"""Measures kloaders, its peers and the machine's limit. See README.md.

python benchmarks/run.py --quick
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import machine
import psutil
import report
from contestants import Contestant, everybody
from workloads import WORKLOADS, Work

HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", metavar="FOLDER", help="your own .jpg files, instead of generated ones"
    )
    parser.add_argument(
        "--work",
        metavar="FOLDER",
        default=os.path.join(tempfile.gettempdir(), "kloaders-benchmarks"),
        help="where the files are created, and kept for the next run (default: %(default)s)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="W1, W4, 'W1/*tf.data*', '*/kloaders*', ...; W8 runs only if it is named here",
    )
    parser.add_argument("--rounds", type=int, help="runs of each contestant (5; 1 with --quick)")
    parser.add_argument(
        "--seconds", type=float, help="minimum time of each run (4; 0.5 with --quick)"
    )
    parser.add_argument("--workers", type=int, default=machine.cores(), help="of the peers")
    parser.add_argument("--quick", action="store_true", help="a smoke test: small data, one round")
    parser.add_argument("--timeout", type=int, default=300, help="time limit of a run, in seconds")
    parser.add_argument(
        "--json", metavar="FILE", help="write all runs to FILE (default: in the work folder)"
    )
    parser.add_argument("--plot", metavar="PNG", help="also draw the medians")
    parser.add_argument("--show", nargs="+", metavar="JSON", help="only show earlier results")
    parser.add_argument("--list", action="store_true", help="only list the contestants")
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.quick else 5)
    args.seconds = args.seconds or (0.5 if args.quick else 4)
    args.json = args.json or os.path.join(args.work, "runs.json")
    return args


def chosen(patterns: list[str]) -> list[Contestant]:
    """W1 means all of W1, W4 all of W4-32, W4-128 and W4-256."""
    full = [p if "/" in p else f"{p}-*/*" if p == "W4" else f"{p}/*" for p in patterns]
    return [
        c
        for c in everybody().values()
        if any(fnmatch.fnmatch(c.id, p) for p in full)
        or (not full and not WORKLOADS[c.workload].cold)
    ]


def child(contestant: Contestant, args: argparse.Namespace, seed: int, **more: Any) -> Any:
    """Run measure.py once; return its answer and the peak memory, including children."""
    work = {
        "folder": os.path.abspath(args.work),
        "workers": args.workers,
        "seed": seed,
        "quick": args.quick,
        "given": args.data,
    }
    job = {
        "id": contestant.id,
        "work": work,
        "seconds": args.seconds,
        "timeout": args.timeout,
        **more,
    }
    log = Path(args.work, "logs", contestant.id.replace("/", " ").replace(" ", "_") + ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "measure.py"), json.dumps(job)],
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    peak, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            peak[0] = max(peak[0], memory_mb(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        answer = process.communicate(timeout=args.timeout)[0].decode().strip()
    except subprocess.TimeoutExpired:
        answer = ""
    finally:
        over.set()
        watcher.join()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # worker processes that were left behind
        process.wait()
    gone = {"error": f"no result within {args.timeout} s, or it died; see {log}"}
    result = json.loads(answer.splitlines()[-1]) if answer else gone
    return {"id": contestant.id, "kind": contestant.kind, "peak_mb": peak[0], **result}


def memory_mb(root: int) -> float:
    """Memory of a process and its children, with shared pages counted once."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process = psutil.Process(root)
        for one in (process, *process.children(recursive=True)):
            info = one.memory_full_info()
            total += getattr(info, "pss", info.uss)
    return total / 2**20


def main() -> None:
    args = arguments()
    if args.show:
        runs = [run for file in args.show for run in json.loads(Path(file).read_text())["runs"]]
        print(report.tables(runs))
        if args.plot:
            report.plot(runs, args.plot)
        return
    contestants = chosen(args.only)
    if args.list:
        print("\n".join(f"{c.id}  ({c.kind})" for c in contestants))
        return
    if not contestants:
        sys.exit(f"no contestant matches {' '.join(args.only)}; --list shows them")
    for name in sorted({c.workload for c in contestants}):
        Work(name, os.path.abspath(args.work), args.workers, 0, args.quick, args.data).prepare()

    runs: list[dict[str, Any]] = []
    out: dict[str, set[str]] = {"absent": set(), "error": set()}
    for contestant in contestants:
        mark = Path(args.work, "prepared", f"{contestant.name}-{args.quick}-{bool(args.data)}")
        if contestant.prepare is not None and not mark.exists():
            print(f"{contestant.id} writes its format ...", flush=True)
            result = child(contestant, args, 0, prepare=True)
            if "error" in result or "absent" in result:
                runs.append(result)
                out["error"].add(contestant.id)
            else:
                mark.parent.mkdir(exist_ok=True)
                mark.touch()
    begin = time.time()
    for number in range(args.rounds):
        for contestant in contestants:
            if any(contestant.id in ids for ids in out.values()):
                continue
            result = child(contestant, args, number)
            runs.append({**result, "round": number})
            for reason, ids in out.items():
                if reason in result:
                    ids.add(contestant.id)
            print(f"[{number + 1}/{args.rounds}] {report.one_line(runs[-1])}", flush=True)
            about = {**machine.describe(), "arguments": sys.argv[1:], "begun": time.ctime(begin)}
            Path(args.json).write_text(json.dumps({"about": about, "runs": runs}, indent=1) + "\n")
    print(f"\n{machine.in_words()}, {(time.time() - begin) / 60:.0f} minutes\n")
    print(report.tables(runs))
    if args.plot:
        report.plot(runs, args.plot)
        print(f"\nPlot: {args.plot}")
    print(f"All runs: {args.json}")


if __name__ == "__main__":
    main()
