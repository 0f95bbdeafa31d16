"""Measures one contestant once, in a separate process: a job as JSON in, a result as JSON out."""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import time
import traceback
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # only loading is measured

import data
import psutil
from contestants import Contestant, everybody
from workloads import Check, Work, check_logs, model_of


class Marks:
    """The time, and the CPU seconds of this process with its children and of the whole machine."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float]] = []
        self.me = psutil.Process()

    def add(self) -> None:
        own = 0.0
        for process in (self.me, *self.me.children(recursive=True)):
            try:
                used = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            own += used.user + used.system + used.children_user + used.children_system
        whole = psutil.cpu_times()
        idle = whole.idle + getattr(whole, "iowait", 0.0)
        self.rows.append((time.perf_counter(), own, sum(whole[:8]) - idle))

    def enough(self, seconds: float) -> bool:
        return len(self.rows) > 1 and self.rows[-1][0] - self.rows[0][0] >= seconds

    def result(self, work: Work) -> dict[str, float]:
        (begin, own_before, all_before), (end, own_after, all_after) = self.rows[0], self.rows[-1]
        epochs, seconds = len(self.rows) - 1, end - begin
        own = own_after - own_before
        return {
            "samples_per_second": work.samples * epochs / seconds,
            "us_per_batch": seconds / (work.steps * epochs) * 1e6,
            "cpu_seconds_per_1000": own / (work.samples * epochs) * 1000,
            "others_cores": max(0.0, all_after - all_before - own) / seconds,
            "timed_epochs": epochs,
        }


def by_hand(contestant: Contestant, work: Work, seconds: float) -> dict[str, float]:
    """Take the batches one after another. The first epoch is checked, the later ones are timed."""
    check, marks, more = Check(work), Marks(), {}
    if work.spec.cold:
        data.drop_from_cache(work.paths)
        before = psutil.Process().io_counters().read_bytes
        marks.add()
    begin = time.perf_counter()
    epoch = contestant.make(work)
    first = None
    number = 0
    while True:
        for x, y in epoch(number):
            if first is None:
                first = time.perf_counter() - begin
            check.batch(x, y, thorough=number == 0 and not work.spec.cold)
        marks.add()
        check.end()
        number += 1
        if work.spec.cold:
            more["read_mb"] = (psutil.Process().io_counters().read_bytes - before) / 1e6
            break
        if marks.enough(seconds):
            break
    assert first is not None
    return {"first_batch_seconds": first, **more, **marks.result(work)}


def through_fit(contestant: Contestant, work: Work, seconds: float) -> dict[str, float]:
    """Take the batches with `fit`. The first epoch, in which the model is compiled, is not timed."""
    import keras

    model, marks = model_of(work), Marks()

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            marks.add()
            check_logs(logs or {}, work)
            self.model.stop_training = marks.enough(seconds)

    given = contestant.make(work)
    given = given if isinstance(given, dict) else {"x": given}
    model.fit(**given, epochs=10**6, verbose=0, callbacks=[Clock()])
    return marks.result(work)


def main() -> None:
    job = json.loads(sys.argv[1])
    faulthandler.dump_traceback_later(job["timeout"] - 5, exit=True)
    answer = os.dup(1)  # output of the libraries must not get into the result
    os.dup2(2, 1)
    try:
        contestant = everybody()[job["id"]]
        for name in contestant.needs:
            importlib.import_module(name)
        if contestant.backend is not None:
            import keras

            if keras.backend.backend() != contestant.backend:
                raise ImportError(f"only on the {contestant.backend} backend")
        work = Work(contestant.workload, **job["work"])
        result: dict[str, Any] = {}
        if job.get("prepare"):
            assert contestant.prepare is not None
            contestant.prepare(work)
        elif work.spec.fit and contestant.kind != "limit":
            importlib.import_module("keras")
            result = dict(through_fit(contestant, work, job["seconds"]))
        else:
            result = dict(by_hand(contestant, work, job["seconds"]))
    except ModuleNotFoundError as error:
        result = {"absent": f"{error.name} is not installed"}
    except BaseException as error:
        traceback.print_exc()
        said = str(error).strip().splitlines() or [""]
        result = {"error": f"{type(error).__name__}: {said[0][:200]}"}
    os.write(answer, (json.dumps(result) + "\n").encode())
    sys.stderr.flush()
    os._exit(0)  # threads of some libraries never end


if __name__ == "__main__":
    main()
