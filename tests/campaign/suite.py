"""What would go wrong without a word: promises that tests of the suite keep, and how many cases passed.

KERAS_BACKEND=jax python -m tests.campaign suite    # for another backend; the figures of others stay
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from . import page

TESTS = Path(__file__).parents[1]


class Kept(NamedTuple):
    """A promise, and the tests that try it: "file.py::test"."""

    text: str
    tests: tuple[str, ...]


def _of(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::test_{name}" for name in names)


ITERATION, INTERRUPTED = "keras_api/test_iteration.py", "keras_api/test_interrupted.py"
CALLERS, SHARDED = "keras_api/test_callers.py", "keras_api/test_distributed.py"
KEYS, RETRIES = "sources/cache/test_keys.py", "engine/test_retries.py"
QUARANTINE, TORCH = "sources/test_quarantine.py", "sources/test_torch_dataset.py"
RESUME = "loaders/test_resume.py"

PROMISES = (
    Kept(
        "`for batch in loader` is an epoch: each loop the next one, with its own order and augmentation; "
        "after `load_state_dict` it serves what is left",
        _of(
            ITERATION,
            "each_iteration_is_the_next_epoch",
            "iterations_and_fits_take_turns",
            "a_transform_draws_anew",
            "the_position_in_the_body",
        ),
    ),
    Kept(
        "After Ctrl-C, an error or `stop_training` in mid-epoch, `loader[i]` is batch i, and nothing of "
        "the epoch that was left is in the next one",
        _of(
            INTERRUPTED,
            "after_an_interruption",
            "a_loop_right_after_it",
            "after_a_fit_that_ended_in_mid_pass",
            "after_an_interrupted_evaluation",
            "an_iteration_after_it",
            "an_abandoned_iterator_disturbs_nothing",
        ),
    ),
    Kept(
        "Two fits at once on one loader: the second is refused, with `loader.view()`, and the first gets "
        "every sample",
        _of(
            CALLERS,
            "a_call_in_another_thread_is_refused",
            "a_nested_fit_is_refused",
            "a_loop_inside_a_fit_is_refused",
            "views_may_be_fitted_at_once",
        )
        + _of(ITERATION, "nested_iterations_are_refused", "two_iterators_are_refused"),
    ),
    Kept(
        "Keras 3.16, which shards a Sequence by itself (a stand-in of ours, until it is released): "
        "refused, with what to pass instead, and what is advised loses no sample",
        _of(
            SHARDED,
            "the_stand_in_loses_samples",
            "auto_sharding_is_refused",
            "what_is_advised_is_exact",
            "a_rank_without_its_part_is_refused",
        ),
    ),
    Kept(
        "A cache folder serves nothing that another function made: other code, closure, default, partial, "
        "attribute or global is another cache, and what cannot be compared is refused",
        _of(
            KEYS,
            "another_code_is_another_cache",
            "another_value_is_another_cache",
            "another_hook_is_another_cache",
            "what_cannot_be_compared_is_refused",
        ),
    ),
    Kept(
        "A state that is loaded and saved at once is the same state",
        _of(RESUME, "a_state_loaded_and_saved_at_once_is_the_same"),
    ),
    Kept(
        "Gone on in mid-epoch, a `batch_transform` draws what it would have drawn",
        _of(RESUME, "a_batch_transform_goes_on"),
    ),
    Kept(
        "An OSError that passes costs no sample, and no file is listed as bad for what the folder, the "
        "memory or the machine lacks",
        _of(
            RETRIES,
            "a_folder_that_is_away_for_a_moment",
            "a_first_look_is_tried_again",
            "a_folder_that_stays_away",
            "a_shortage_passes",
            "a_shortage_of_opencv",
            "processes_that_do_not_start",
        )
        + _of(QUARANTINE, "what_the_machine_lacks_is_not_the_files_fault"),
    ),
    Kept(
        "A setting that is assigned later, or misspelt, is refused",
        _of("contract/bad_input/test_options.py", "what_cannot_be_changed_later")
        + _of("migrate/test_flows.py", "options_are_those_of_a_loader_and_stay"),
    ),
    Kept(
        "A `__getitem__` of one's own: what would go past it is refused",
        _of("contract/bad_input/test_hooks.py", "batches_of_ones_own_are_not_passed_over"),
    ),
    Kept(
        "Two `from_torch` loaders at once each draw what they draw alone, and leave the global "
        "generators as they were",
        _of(TORCH, "two_loaders_at_a_time_draw_what_each_draws_alone"),
    ),
)


def counted(report: str | Path) -> dict[str, Counter[str]]:
    """Cases that passed and that were skipped, by test, in a file that `pytest --junitxml` wrote.

    Raises:
        AssertionError: a case failed.
    """
    found: dict[str, Counter[str]] = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        file = "/".join(case.attrib["classname"].split(".")[1:]) + ".py"
        test = f"{file}::{case.attrib['name'].partition('[')[0]}"
        kinds = {child.tag for child in case}
        assert not kinds & {"failure", "error"}, f"{test} failed"
        found.setdefault(test, Counter())["skipped" if "skipped" in kinds else "passed"] += 1
    return found


def run(
    long: bool, only: list[str] | None = None
) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
    """Run the tests, or those of promises that have a text of `only` in them."""
    promises = [p for p in PROMISES if not only or any(part in p.text for part in only)]
    tests = sorted({test for promise in promises for test in promise.tests})
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:randomly",
            "-m",
            "slow or not slow",
            f"--junitxml={report}",
        ]
        subprocess.run(
            [*command, *(f"{TESTS.name}/{test}" for test in tests)], cwd=TESTS.parent, check=True
        )
        cases = counted(report)
    found = {}
    for promise in promises:
        total = sum((cases[test] for test in promise.tests), Counter[str]())
        found[promise.text] = {"passed": total["passed"], "skipped": total["skipped"]}
    kept = page.result("suite").get("suite", {})
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    return {"suite": {**kept, backend: {**(kept.get(backend, {}) if only else {}), **found}}}
