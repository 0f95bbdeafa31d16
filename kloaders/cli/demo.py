"""Trains one small model on the same image files with five loaders, and compares their cost.

Each training runs in a separate process (`kloaders.cli.demo_training`), so that its memory can be
measured. This process draws the progress bars and measures memory; it does not import Keras.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass, replace
from typing import IO, Any

import psutil

from kloaders.cli.demo_images import CROPS, progress_bar, write_images
from kloaders.core.memory import format_bytes

__all__ = [
    "METHODS",
    "Result",
    "compare",
    "failed",
    "plot",
    "summary",
    "table",
    "with_wait_shares",
]

#: The methods, and their loaders.
METHODS = {
    "preload": "preload(loader): every sample in RAM",
    "files": "PathSequenceLoader: files read per batch, then kept in spare RAM",
    "two-level": "RamBatchSequenceLoader: batches out of RAM batches, each of 512 samples",
    "TFRecord": "TFRecordSequenceLoader: the same files, put into TFRecord files at the start",
    "tf.data": "to_tf_dataset(PathSequenceLoader)",
}
# The interval at which memory is measured; a shorter peak may be missed.
_SAMPLE_SECONDS = 0.01


@dataclass(frozen=True)
class Result:
    """The cost of one method; None if it was skipped."""

    method: str
    backend: str | None = None
    samples_per_second: float | None = None
    first_batch_seconds: float | None = None
    peak_ram_bytes: int | None = None
    step_seconds: float | None = None
    step_alone_seconds: float | None = None
    wait_share: float | None = None
    accuracy: float | None = None
    skipped: str | None = None


def compare(
    methods: list[str],
    epochs: int,
    crops: int = CROPS,
    progress: bool = True,
    results: list[Result] | None = None,
) -> list[Result]:
    """Train with each method on the same files, one after another; `results` gets each result at once."""
    results = [] if results is None else results
    with tempfile.TemporaryDirectory(prefix="kloaders-demo-") as folder:
        write_images(folder, crops, progress)
        for method in methods:
            results.append(_in_its_own_process(method, folder, epochs, progress))
    results[:] = with_wait_shares(results)
    return results


def with_wait_shares(results: list[Result]) -> list[Result]:
    """Add the share of a step spent waiting: the time beyond that of a step on one batch in memory."""
    # The model is the same, so the smallest (least disturbed) figure holds for all.
    alone = min((r.step_alone_seconds for r in results if r.step_alone_seconds), default=0.0)
    return [
        replace(r, wait_share=max(0.0, 1 - alone / r.step_seconds)) if r.step_seconds else r
        for r in results
    ]


# ------------------------------------------------------------------------------- watching a process


def _in_its_own_process(method: str, folder: str, epochs: int, progress: bool) -> Result:
    task = json.dumps({"method": method, "folder": folder, "epochs": epochs})
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    with tempfile.TemporaryFile("w+") as complaints:
        child = subprocess.Popen(  # noqa: S603 (a module of ours)
            [sys.executable, "-m", "kloaders.cli.demo_training", task],
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=environment,
        )
        assert child.stdout is not None
        try:
            with _Watch(child.pid) as watch, progress_bar(method, None, progress) as bar:
                result = _follow(child.stdout, watch, bar)
            child.wait()
        finally:
            child.kill()
            child.stdout.close()
            child.wait()
        if result is None:
            complaints.seek(0)
            raise RuntimeError(_last_words(method, child.returncode, complaints.read()))
    if "skipped" in result:
        return Result(method, skipped=result["skipped"])
    return Result(method, peak_ram_bytes=watch.added(), **result)


def _follow(lines: IO[str], watch: _Watch, bar: Any) -> dict[str, Any] | None:
    """Show the progress that the process reports. -> its result; None if it ended without one."""
    for line in lines:
        if not line.startswith("{"):  # printed by a library
            continue
        said = json.loads(line)
        if "result" in said:
            found: dict[str, Any] = said["result"]
            return found
        if "phase" in said:
            watch.phase = said["phase"]
            bar.set_postfix_str(said["phase"])
        if "total" in said:
            bar.reset(said["total"])
        bar.update(said.get("done", bar.n) - bar.n)
    return None


class _Watch:
    """Measures the peak memory of a process in each of its phases."""

    def __init__(self, process: int) -> None:
        self.process = process
        self.phase = ""
        self.peaks: dict[str, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.process)
            while not self._over.wait(_SAMPLE_SECONDS):
                phase, used = self.phase, int(process.memory_info().rss)
                self.peaks[phase] = max(used, self.peaks.get(phase, 0))

    def added(self) -> int:
        """Bytes of peak memory in training, minus the peak of the same steps on one batch."""
        alone, training = "measuring the step alone", "training"
        return max(0, self.peaks.get(training, 0) - self.peaks.get(alone, 0))

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _last_words(method: str, status: int, complaints: str) -> str:
    lines = [line for line in complaints.splitlines() if line.strip()]
    last = lines[-1] if lines else "no output"
    return f"training with {method!r} ended with exit code {status}: {last}"


# ------------------------------------------------------------------------------------ results

_CAPTION = """\
samples/s     in the fastest epoch after the first, which compiles the model
first batch   time until the first batch: list the folder, make the loader, read the samples
peak RAM      peak memory, minus that of the same training on one batch that is always in memory
step waited   share of a step's time beyond that of a step on that one batch. Without an accelerator
              this includes the time for which loading takes cores from the model.
accuracy      on the validation files, a fifth of all files
The files were just written, so they are still in the page cache: reading from a disk would take longer."""


def table(results: list[Result]) -> str:
    """The results as a text table, with explanations."""
    head = ("loader", "samples/s", "first batch", "peak RAM", "step waited", "accuracy")
    rows = [head]
    for r in results:
        if r.skipped is not None:
            continue
        cells = (
            r.method,
            f"{r.samples_per_second:,.0f}",
            f"{r.first_batch_seconds:.2f} s",
            format_bytes(r.peak_ram_bytes or 0),
            f"{r.wait_share:.0%}",
            f"{r.accuracy:.3f}",
        )
        rows.append(cells)
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    lines = [
        "   ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    skipped = [f"{r.method}: skipped, {r.skipped}" for r in results if r.skipped is not None]
    methods = [f"{r.method:13} {METHODS[r.method]}" for r in results]
    return "\n".join([*lines, *skipped, "", *methods, "", _CAPTION])


def failed(result: Result, wanted: float) -> bool:
    """Whether a method trained, but did not reach the wanted accuracy."""
    return result.accuracy is not None and result.accuracy < wanted


def summary(results: list[Result]) -> list[dict[str, Any]]:
    """The results for `--json`."""
    return [asdict(result) for result in results]


def plot(results: list[Result], file: str) -> None:
    """Save the results as a chart. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    shown = [r for r in results if r.skipped is None][::-1]
    panels: list[tuple[str, str, list[float]]] = [
        ("samples per second", "{:,.0f}", [r.samples_per_second or 0 for r in shown]),
        ("seconds to the first batch", "{:.2f}", [r.first_batch_seconds or 0 for r in shown]),
        ("peak RAM, MiB", "{:,.0f}", [(r.peak_ram_bytes or 0) / 2**20 for r in shown]),
        ("share of a step that waited", "{:.0%}", [r.wait_share or 0 for r in shown]),
    ]
    figure = Figure(figsize=(10, 5), layout="constrained")
    figure.suptitle("The same model on the same files")
    for axes, (title, form, values) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        bars = axes.barh([r.method for r in shown], values, color="#3b6ea5")
        axes.bar_label(bars, [form.format(value) for value in values], padding=4)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlim(0, 1.2 * max([*values, 1e-9]))
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.xaxis.set_visible(False)
    figure.savefig(file, dpi=120)
