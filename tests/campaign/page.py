"""Makes docs/promises.md from the figures that the campaign stores in docs/promises/*.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[2] / "docs"
PAGE, RESULTS, CONTRACT = DOCS / "promises.md", DOCS / "promises", DOCS / "contract-table.md"


class Promise(NamedTuple):
    """A row: the promise, its tests in the suite, and the last figure."""

    text: str
    tests: tuple[str, ...]
    figure: str


def result(part):
    """The stored figures of the last run of this part; {} if there are none."""
    path = RESULTS / f"{part}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def said(found, but=()):
    """Figures as text."""
    parts = [
        f"{value:,} {name}" if type(value) is int and "," not in name else f"{name}: {value}"
        for name, value in found.items()
        if name not in but
    ]
    return "; ".join(parts)


# ------------------------------------------------------------------------------ the sections


def order():
    """The results in the table of scenarios, for all backends."""
    rows = [line.split("|")[1:-1] for line in CONTRACT.read_text().splitlines()]
    cells = [(row[0].strip(), cell.strip()) for row in rows[2:] for cell in row[1:]]

    def exact(*names):
        some = [cell for name, cell in cells if not names or name in names]
        ran = [cell for cell in some if not cell.startswith("(")]
        return f"{ran.count('exact')} of {len(ran)} runs exact"

    fit, batches = "contract/test_fit.py::test_fit", "contract/test_batches.py::test_"
    steps = "contract/test_steps_and_epochs.py::test_steps_per_epoch"
    predict = "contract/test_evaluate_and_predict.py::test_predictions_"
    yield Promise(
        "Every sample exactly once per epoch, counted from what the model received, on each backend "
        "and for every way to call `fit`",
        (fit, fit + "_counted_by_a_metric", steps),
        exact(),
    )
    yield Promise(
        "The same batches for any number of threads or processes",
        (
            batches + "order_does_not_depend_on_the_machinery",
            batches + "random_numbers_under_fit",
        ),
        exact(
            "the same batches for any number of workers",
            "the same random numbers in fit, for any number of threads or processes",
        ),
    )
    yield Promise(
        "Predictions line up with the data",
        (predict + "line_up", predict + "inside_fit_line_up"),
        exact(
            "predict rows match the paths, right after fit on the same object",
            "predict rows match after a fit that was stopped in mid-epoch",
            "predict rows match in on_epoch_end",
        ),
    )
    yield Promise(
        "A converter that is killed at any moment resumes where it was, and no incomplete file has its "
        "final name",
        (
            "convert/test_packs.py::test_killed_at_random_moments",
            "convert/test_tfrecords.py::test_killed_and_gone_on",
        ),
        "25 conversions, killed up to three times each, in every run of the suite",
    )


def resume():
    """The results of tests/campaign/kill_and_resume.py, one file per backend."""
    for path in sorted(RESULTS.glob("kill_and_resume*.json")):
        report = json.loads(path.read_text())
        for loader, found in report["loaders"].items():
            often = "every sample of every epoch exactly once"
            if loader == "mixture":
                often = "every sample as often as without a kill"
            yield Promise(
                f"{report['backend']}, {loader}: killed at random moments and resumed, the model gets "
                f"{often}, and ends with the weights of a run that was never killed",
                ("test_kill.py::test_killed_trainings_end_as_if_they_had_not_been",),
                f"{found['kills']} kills, {found['kills_while_saving']} of them while saving; "
                f"{found['samples_lost']} samples lost, {found['samples_repeated']} repeated; "
                f"{found['weights_equal']} of {found['trainings']} runs with equal weights",
            )


def suite():
    """Promises with tests in the suite, and the number of cases that passed on each backend."""
    from .suite import PROMISES  # here, since suite imports this module

    backends = result("suite").get("suite", {})
    for promise in PROMISES:
        passed = {name: found.get(promise.text, {}) for name, found in sorted(backends.items())}
        figures = [
            f"{name}: {found['passed']:,} case{'s'[: found['passed'] != 1]} passed"
            for name, found in passed.items()
            if found.get("passed")
        ]
        yield Promise(promise.text, promise.tests, "; ".join(figures))


def faults():
    """Each fault, and its consequence."""
    for name, found in result("faults").get("faults", {}).items():
        what = found["injected"]
        yield Promise(
            f"{what[0].upper()}{what[1:]}: {found['survived']}",
            (f"test_campaign.py::test_{'fits' if name == 'many fits' else 'fault'}",),
            said(found, ("injected", "survived")),
        )


def fuzz():
    """Each kind of file."""
    for name, found in result("fuzz").get("fuzz", {}).items():
        figures = {**found, "failures": len(found["failures"])}
        yield Promise(
            f"{name}, with changed bytes: an error or the correct result",
            ("test_campaign.py::test_fuzz",),
            said(figures),
        )


def memory():
    """Each loader, then the budgets."""
    for name, found in result("memory").get("memory", {}).items():
        what, test = "resident memory is constant", "test_memory_is_flat"
        if "budget, MiB" in found:
            what, test = "stays within its budget", "test_budget"
        elif "fits" in found:
            test = "test_a_loader_for_each_fit"
        yield Promise(f"{name}: {what}", (f"test_campaign.py::{test}",), said(found))


def threads():
    """Each way to share loaders and data between threads."""
    tests = {
        "several threads on one loader": "test_threads_at_one_loader",
        "views in parallel": "test_views_at_once",
        "several loaders on one store": "test_loaders_at_one_store",
    }
    for name, found in result("threads").get("threads", {}).items():
        yield Promise(name, (f"test_campaign.py::{tests[name.split(':')[0]]}",), said(found))


SECTIONS = {
    "No sample lost, none repeated": order,
    "Resume after a kill": resume,
    "No silent errors": suite,
    "Faults": faults,
    "Corrupt and malicious files": fuzz,
    "Memory": memory,
    "Threads": threads,
}

ABOUT = {
    resume: """\
A training process is killed at random moments, also while it saves, and is started again.""",
    suite: """\
Former bugs that silently lost or changed data, or ended a run unnecessarily. Each test counts the samples that arrived, or checks
the error message.""",
    faults: """\
Real faults where possible: a signal, a limit, a truncated file, another user. Each runs in a separate process, so that a crash
is noticed.""",
    fuzz: """\
One to four changes to a valid file: changed bits, bytes and tokens of text, numbers near the limits of their type, parts that are
cut, repeated or spliced; with recomputed checksums, as an attacker would do it. A case is a failure if it takes more than 30 seconds
or 3 GiB, crashes the process, runs code from the file, reads outside the folder, or gives a wrong sample. Nothing is ever unpickled
from a disk.""",
    memory: """\
1.5 MB of data per epoch, so that a leaked batch is visible; each loader in a separate process. Growth is the slope of a line through
the last three quarters of the epochs. In addition to its budget, a loader has batches and files that are being read in memory.""",
    threads: """\
`loader[i]` from 16 threads at once, as a plain index and as a ticket of an epoch; `loader.view()` for each of several
threads; several loaders and processes over one pack, one set of TFRecord files, one cache folder.""",
}

HEAD = """\
# What we promise, and how it is tested

<!-- Written by `python -m tests.campaign`: edit tests/campaign/page.py, not this. -->

Each promise has a test that runs with every change, and most of them also run hundreds or
thousands of times in a campaign: `python -m tests.campaign` in a clone (an hour or two, Linux) stores its results in
`docs/promises/` and writes this page from them.
"""

LIMITS = """\
## Limits of the promises

- Files that are truncated *in place* while they are mapped (a memory map or a pack): the size is checked before each batch, and
  missing rows are an error. If a file is truncated in the microseconds between check and copy, the process ends with SIGBUS, like
  any program that maps files. To be safe, write a new file and rename it, as our converters do.
- Threads that hang cannot be killed. After one, two, four minutes and so on, the current sample and its file are logged
  (`KLOADERS_STALL_SECONDS`). A worker *process* that works on one sample for a minute is killed, the sample is tried once more,
  and then it is an error (`KLOADERS_WORKER_TIMEOUT`). With `workers=0` nothing is watched.
- Forks: after `os.fork` a loader also works in the child. Keras and TensorFlow do not promise this.
- Formats without checksums (JPEG, BMP, WebP, TIFF except with deflate, `.npy`) cannot reveal a changed value.
"""


def rows():
    """All promises, by section."""
    return {title: list(make()) for title, make in SECTIONS.items()}


def text():
    """The page."""
    lines = [HEAD]
    for title, promises in rows().items():
        make = SECTIONS[title]
        if not promises:
            continue
        lines += [f"## {title}", ""]
        if make in ABOUT:
            found = result(make.__name__)
            ran = f" Last run: {found['date']}, {found['seconds']:,} seconds." if found else ""
            lines += [ABOUT[make] + ran, ""]
        lines += ["| promise | test | last figure |", "| --- | --- | --- |"]
        for promise in promises:
            tests = ", ".join(f"`{name}`" for name in promise.tests)
            lines.append(f"| {promise.text} | {tests} | {promise.figure} |")
        lines.append("")
    return "\n".join([*lines, LIMITS])
