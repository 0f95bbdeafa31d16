"""Promises about silent errors: their tests in the suite, and how many cases passed.

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
    """A promise, and its tests: "file.py::test"."""

    text: str
    tests: tuple[str, ...]


def _of(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::test_{name}" for name in names)


ITERATION, INTERRUPTED = "keras_api/test_iteration.py", "keras_api/test_interrupted.py"
CALLERS, SHARDED = "keras_api/test_callers.py", "keras_api/test_distributed.py"
KEYS, RETRIES = "sources/cache/test_keys.py", "engine/test_retries.py"
QUARANTINE, TORCH = "sources/test_quarantine.py", "sources/test_torch_dataset.py"
RESUME, KEPT = "loaders/test_resume.py", "loaders/test_options_kept.py"
STATES, CALLBACK = "training/test_state_file.py", "training/test_callback.py"
TIFF, BMP, JPEG = (
    f"formats/test_{name}.py" for name in ("tiff_images", "bmp_header", "jpeg_structure")
)
LINES, TABLES = "sources/test_lines.py", "sources/test_tables.py"

PROMISES = (
    Kept(
        "`for batch in loader` is one epoch: each loop is the next epoch, with its own order and "
        "augmentation; after `load_state_dict` it has the remaining batches",
        _of(
            ITERATION,
            "each_iteration_is_the_next_epoch",
            "iterations_and_fits_take_turns",
            "a_transform_draws_anew",
            "the_position_in_the_body",
        ),
    ),
    Kept(
        "After Ctrl-C, an error or `stop_training` in the middle of an epoch, `loader[i]` is batch i, and "
        "the next epoch has no batch of the interrupted one",
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
        "Two fits at once on one loader: the second is an error that names `loader.view()`, and the first "
        "gets every sample",
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
        "Keras 3.16, which shards a Sequence by itself (tested with a stand-in until it is released): an "
        "error names the right arguments, and with these no sample is lost",
        _of(
            SHARDED,
            "the_stand_in_loses_samples",
            "auto_sharding_is_refused",
            "what_is_advised_is_exact",
            "a_rank_without_its_part_is_refused",
        ),
    ),
    Kept(
        "A cache folder never serves samples that another function made: with other code, closure, "
        "default, partial, attribute or global it is another cache, and a function that cannot be "
        "compared is an error",
        _of(
            KEYS,
            "another_code_is_another_cache",
            "another_value_is_another_cache",
            "another_hook_is_another_cache",
            "what_cannot_be_compared_is_refused",
        ),
    ),
    Kept(
        "An attribute that is assigned to a function or a hook (`decode.size = 64`) takes effect from the "
        "next epoch on: no cache, in RAM or in a folder, serves older samples",
        _of(
            "sources/cache/test_changed_hooks.py",
            "the_next_epoch_has_what_was_assigned",
            "samples_of_another_size",
            "a_folder_is_found_again_by_the_next_loader",
            "worker_processes_have_it_as_well",
        ),
    ),
    Kept(
        "A state that is loaded and immediately saved again is the same state",
        _of(RESUME, "a_state_loaded_and_saved_at_once_is_the_same"),
    ),
    Kept(
        "In an epoch that resumes in the middle, a `batch_transform` draws the same random numbers as "
        "without the interruption",
        _of(RESUME, "a_batch_transform_goes_on"),
    ),
    Kept(
        "A temporary OSError costs no sample, and no file is listed as bad because a folder, memory or "
        "another resource is missing",
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
        "Assigning an option to an existing loader, or misspelling its name, is an error",
        _of("contract/bad_input/test_options.py", "what_cannot_be_changed_later")
        + _of("migrate/test_flows.py", "options_are_those_of_a_loader_and_stay"),
    ),
    Kept(
        "Functions that would bypass a user's own `__getitem__` raise an error",
        _of("contract/bad_input/test_hooks.py", "batches_of_ones_own_are_not_passed_over"),
    ),
    Kept(
        "Two `from_torch` loaders at the same time draw the same numbers as each does alone, and restore "
        "the global generators",
        _of(TORCH, "two_loaders_at_a_time_draw_what_each_draws_alone"),
    ),
    Kept(
        "Functions that derive loaders (`view`, `subset`, `split`, `preload`, `filter`, ...) keep every "
        "option, or raise an error",
        _of(
            KEPT,
            "an_option_is_kept",
            "padding_is_kept",
            "inputs_as_labels_is_kept",
            "class_names_are_kept",
        ),
    ),
    Kept(
        "A warning is logged if a transform gives training samples another dtype or shape than validation "
        "samples",
        _of(
            "loaders/test_splits.py",
            "a_transform_that_changes_the_form_is_warned_of",
            "a_batch_transform_that_changes_the_form_is_warned_of",
        )
        + _of("loaders/test_hooks_by_name.py", "the_first_fold_warns_where_the_parts_differ"),
    ),
    Kept(
        "A tuple returned by a hook has one meaning; labels from both the hook and the loader are an "
        "error",
        _of(
            "sources/test_hooks.py",
            "labels_from_the_hook_and_from_columns_are_one_too_many",
            "a_batch_of_several_inputs_is_no_pair",
        ),
    ),
    Kept(
        "Keypoints stay in their rows even if an albumentations pipeline drops some",
        _of(
            "interop/test_augmentation.py",
            "keypoints_stay_in_their_rows",
            "keypoints_that_are_all_cut_off",
            "keypoints_of_several_targets_are_not_mixed_up",
        ),
    ),
    Kept(
        "`kloaders.migrate` gives the same samples as Keras' own loaders, and accepts their arguments and "
        "defaults",
        _of(
            "migrate/test_image_data_generator.py",
            "class_modes",
            "keras_arguments_are_taken",
            "keras_defaults_may_be_given",
            "dataframes",
        ),
    ),
    # ------------------------------------------------------------------ files
    Kept(
        "A TIFF is delivered as it is stored: bands, planes, bits, floats, palettes, pages; a damaged "
        "strip and an unsupported variant are errors",
        _of(
            TIFF,
            "bands_of_every_type",
            "colours_of_every_type",
            "other_compressions",
            "white_is_zero",
            "palettes",
            "all_pages",
            "damaged_strips_are_found",
            "strips_that_are_not_there",
            "variants_that_nothing_reads",
        ),
    ),
    Kept(
        "A BMP is delivered as it is stored: headers of every length, palettes, masks, 16 and 32 bits",
        _of(BMP, "24_bits", "palettes", "masks_of_32_bits", "alpha_by_a_mask", "16_bits"),
    ),
    Kept(
        "A truncated image is an error wherever it is cut, even if another JPEG or zeros follow",
        _of(
            JPEG, "a_cut_jpeg_and_another_one", "cut_anywhere", "an_end_marker_behind_half_the_data"
        )
        + _of("formats/test_zero_tail.py", "zeros_are_found", "black_is_not_accused")
        + _of("formats/test_image_structure.py", "the_end_is_missed_at_every_byte"),
    ),
    Kept(
        "A video that is shorter than its header says is an error",
        _of(
            "formats/test_videos.py",
            "a_file_that_is_not_whole",
            "fewer_frames_than_the_header_says",
        ),
    ),
    Kept(
        "A video frame is always the requested one, even if OpenCV seeks to another: AVI, MP4, WebM, and "
        "MPEG streams of every kind",
        _of(
            "loaders/test_video.py",
            "each_frame_comes_once_and_is_the_right_one",
            "frames_of_a_number_whatever_was_read_before",
            "a_seek_that_leads_elsewhere_is_mended",
        )
        + _of("loaders/test_video_streams.py", "random_reads_are_exact", "a_program_stream"),
    ),
    Kept(
        "No row of a CSV file is shifted, joined to another or rounded, and no column is mistaken for "
        "another",
        _of(
            LINES,
            "a_row_of_other_fields_is_an_error",
            "two_columns_of_one_name",
            "quotes_inside_of_fields_do_not_join_rows",
            "rows_that_end_in_carriage_returns",
            "no_rows_below_the_names",
            "numbers_of_users_stay_whole",
        )
        + _of("sources/test_csv_numbers.py", "integers_are_whole_or_an_error")
        + _of(TABLES, "two_columns_of_one_name", "whole_numbers_stay_whole"),
    ),
    Kept(
        "`verify` and `from_directory` read the same files: links, circular links, pipes, accents and "
        "system folders",
        _of(
            "diagnostics/verify/test_tasks.py",
            "the_tree_of_from_directory",
            "links_in_a_circle_end",
            "pipes_are_named_and_not_opened",
        )
        + _of(
            "sources/test_folders.py",
            "classes_that_are_links",
            "folders_of_the_system_are_left_out",
            "accents_in_names_of_classes",
        ),
    ),
    # ------------------------------------------------------------------ memory, limits, leftovers
    Kept(
        "The data of a loader is freed together with it, without a garbage collection, although Keras "
        "keeps an adapter",
        _of("contract/test_resources_freed.py", "data_go_without_a_collection")
        + _of(
            "keras_api/test_retained_loaders.py",
            "a_new_loader_has_the_forgotten_ones_emptied",
            "a_closed_loader_goes_with_its_last_reference",
            "a_loader_that_is_used_again_can_be_let_go_again",
        ),
    ),
    Kept(
        "Incomplete states, indexes and other files left by `kill -9` are removed at the next save or "
        "start; files that are still being written stay",
        _of(
            "formats/test_atomic.py",
            "the_next_one_removes_what_killed_ones_left",
            "what_is_being_written_is_left_alone",
            "many_may_write_one_path",
        )
        + _of("formats/test_sidecar_index.py", "what_a_killed_process_left_of_an_index_is_removed")
        + _of(CALLBACK, "what_a_killed_run_left_is_gone_when_training_begins"),
    ),
    Kept(
        "A saved state keeps its link and file mode; no unexpected link is followed, and no other file is "
        "replaced or named as one to delete",
        _of(
            "formats/test_atomic.py",
            "a_link_that_lies_in_the_way_is_not_followed",
            "a_link_stays_a_link",
            "a_file_keeps_its_mode",
            "what_is_no_file_is_not_replaced",
        )
        + _of(CALLBACK, "a_state_keeps_its_link_and_its_mode")
        + _of(STATES, "a_file_of_somebody_elses_is_never_to_be_deleted"),
    ),
    Kept(
        "A path that cannot be written is an error before training; a full disk costs one save, not the "
        "run; a callback for another loader is an error",
        _of(
            CALLBACK,
            "a_path_that_cannot_be_written_is_found_before_training",
            "a_full_disk_costs_a_save_and_no_training",
            "a_first_save_that_fails_has_no_state",
            "a_callback_of_another_loader_is_refused",
        ),
    ),
    Kept(
        "After Ctrl-C at any moment of `close()`, a loader still delivers the right samples; Ctrl-C while "
        "worker processes start or end leaves no open descriptor and no child process",
        _of("sources/cache/test_folder.py", "ctrl_c_at_any_moment_of_close")
        + _of("engine/processes/test_pool.py", "ctrl_c_leaves_no_descriptors_and_no_processes")
        + _of(
            "core/test_interrupts.py",
            "it_comes_at_the_end",
            "one_inside_another",
            "a_handler_of_the_users_gets_it",
        ),
    ),
    Kept(
        "A pipe, a socket or a device among files is an error of its sample, and blocks no thread",
        _of(
            "contract/test_pipes.py",
            "a_pipe_among_paths_is_an_error_of_its_sample",
            "paths_that_are_checked_may_be_no_pipes",
            "a_pipe_is_skipped_as_what_else_does_not_load",
            "ram_batches_read_no_pipe",
            "a_pipe_among_segments_of_a_cache",
            "a_pipe_among_indexes",
            "a_pipe_in_place_of_a_file",
        ),
    ),
    Kept(
        "If the system cannot start more threads, the requesting thread does the work, and every sample "
        "arrives",
        _of(
            "core/test_threads.py",
            "without_a_thread_the_caller_does_the_jobs",
            "threads_that_there_are_do_what_others_cannot",
            "batches_come_without_threads",
            "ram_batches_come_without_threads",
            "indexes_are_made_without_threads",
        ),
    ),
    Kept(
        "`to_tf_dataset(...).ignore_errors()` ends, and lacks only the batches that fail to load",
        _of("interop/test_tf_cardinality.py", "what_is_bad_is_left_out_and_it_ends")
        + _of(
            "interop/test_tf_dataset.py",
            "errors_that_are_ignored_cost_their_batches_only",
            "batches_that_do_not_fit_can_be_ignored",
        )
        + _of("interop/test_tf_records.py", "native_ends_where_errors_are_ignored"),
    ),
    Kept(
        "Arrays in `.npz` files and records in compressed files above `max_bytes` are an error before "
        "they are decompressed; others take their memory only once",
        _of(
            "formats/test_npz.py",
            "an_array_takes_its_memory_once",
            "an_array_above_the_bound_is_refused_before_it_is_decompressed",
        )
        + _of(
            "formats/tfrecord/test_inflate.py",
            "a_long_record_takes_its_memory_once",
            "a_record_above_the_bound_is_refused_before_it_is_decompressed",
        ),
    ),
    Kept(
        "Escape sequences in names are made visible, not sent to the terminal, and values in messages are "
        "cut",
        _of(
            "test_messages.py",
            "values_are_cut_and_names_of_files_are_made_visible",
            "errors_and_logs",
            "commands",
            "a_value_of_many_bytes_is_cut",
        ),
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
    """Run the tests, or only those of promises that contain a text of `only`."""
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
            "-o",
            "faulthandler_timeout=900",  # the longest case may take that long
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
