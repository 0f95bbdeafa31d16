"""The campaign, short: faults, damaged files, memory and threads. `python -m tests.campaign` is long."""

import ast
import contextlib
import errno
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import kloaders as kl
from kloaders.convert.journal import Journal
from kloaders.formats import npy
from kloaders.formats.images import decode_image
from kloaders.formats.options import ImageOptions
from tests.campaign import beds, faults, fuzz, memory, mutations, page, suite, threads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the faults are those of Linux")

TESTS = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in faults.FAULTS if name not in faults.WITH_KERAS])
def test_fault(name):
    """A fault, injected in a separate process: its promise holds, and the result has figures."""
    assert faults.one(name)["survived"]


@pytest.mark.slow
def test_fits(tmp_path):
    """20 fits with new loaders leave no thread and no descriptor."""
    assert faults.many_fits(kl, str(tmp_path), long=False)["fits"] == 20


@pytest.mark.slow
def test_fuzz(tmp_path):
    """A few hundred mutated files of all kinds: errors and correct results."""
    found = beds.in_a_child("fuzz", "all", 0, 10, tmp_path, tmp_path / "at")
    assert found.pop("failures") == []
    assert found["errors"] > 50


def test_fuzz_finds(tmp_path, monkeypatch):
    """The fuzzer detects a reader that misses damage, or takes too long."""
    monkeypatch.setattr(npy, "read_array", lambda path, out=None: np.zeros(10**6))
    found = fuzz.cases("NPY", 0, 3, str(tmp_path))
    assert len(found["failures"]) == 3
    assert "Wrong" in found["failures"][0][1]
    monkeypatch.setattr(npy, "read_array", lambda path, out=None: {}["x"])
    assert "KeyError" in fuzz.cases("NPY", 0, 1, str(tmp_path))["failures"][0][1]


def test_cases_are_repeatable(tmp_path):
    """Case k depends on k alone, so that findings are reproducible."""
    import random

    data = bytes(range(200))
    first, second = (mutations.mutated(random.Random("NPY 7"), data) for _ in range(2))
    assert first == second != data


FLAT = ("path", "RAM batches", "TFRecord", "pack", "images cached in RAM", "processes")


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLAT)
def test_memory_is_flat(kind):
    """A dozen epochs grow by less than a batch each; the campaign has 200, and all loaders."""
    assert memory.one(kind)["epochs"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("kind", memory.BUDGETS)
def test_budget(kind):
    """RAM batches and caches stay within their budgets."""
    assert memory.one(kind)["budget, MiB"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", memory.FITS)
def test_a_loader_for_each_fit(kind):
    """30 fits with 20 MB each keep two of them at most, whether the loaders are closed or not."""
    assert memory.one(kind)["fits"] == 30


SHARED = [kind for kind in beds.KINDS if kind != "subset"]


@pytest.mark.slow
def test_threads_at_one_loader():
    """16 threads on each kind of loader: each index gives its batch, and in an epoch each batch comes once."""
    found = threads.one("+".join(SHARED))
    assert len(found) == len(SHARED)
    assert all(one["threads"] == 16 for one in found.values())


@pytest.mark.slow
def test_views_at_once():
    """Eight views of one loader in as many threads, each with its own place in the epoch."""
    found = threads.one("+".join(faults.FEW), what="views_at_once")
    assert all(one["samples"] > 0 for one in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", threads.STORES[:3])
def test_loaders_at_one_store(kind):
    """Four loaders and two other processes over one cache folder, TFRecord files, or pack."""
    assert threads.one(kind, what="loaders_at_one_store")[kind]["samples"] == 4 * 2 * beds.SAMPLES


# ------------------------------------------------------------------------------ what was found


@pytest.mark.parametrize("place", range(0, 400, 13))
def test_a_journal_with_a_changed_byte(tmp_path, place):
    """Found by fuzzing: a line of valid JSON with unexpected content caused a KeyError."""
    job = {"name": "x"}
    with (
        contextlib.suppress(InterruptedError),
        Journal(str(tmp_path / "journal"), r"s\d", job) as journal,
    ):
        for shard in range(3):
            (tmp_path / f"s{shard}").write_bytes(b"data")
            journal.add(shard, [f"s{shard}"], {"parts": [shard, {"shape": [1, 2]}]})
        raise InterruptedError
    data = bytearray((tmp_path / "journal").read_bytes())
    first = data.index(b"\n") + 1
    data[first + place % (len(data) - first - 1)] ^= 1
    (tmp_path / "journal").write_bytes(data)
    with Journal(str(tmp_path / "journal"), r"s\d", job) as journal:
        for shard, note in journal.finished.items():
            assert note == {"parts": [shard, {"shape": [1, 2]}]}
        assert len(journal.finished) < 3


def test_a_full_disk_at_the_first_line(tmp_path):
    """Found by the campaign: closing the journal failed too, and hid the advice."""
    paths = beds.files(str(tmp_path / "files"))
    with faults.largest_file(10), pytest.raises(OSError, match="free some") as caught:
        kl.write_pack(paths, tmp_path / "pack", labels=beds.LABELS, progress=False)
    assert caught.value.errno == errno.EFBIG


def png(width, height, content):
    """A picture whose checksums are right."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(content)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_small_png_that_claims_to_be_large():
    """Deflate expands a byte to at most 1,032 bytes, so no more memory is allocated."""
    with pytest.raises(kl.DecodeError, match=r"claims .* more than its \d+ bytes can hold"):
        decode_image(png(13_000, 13_000, b"x" * 100), ImageOptions())
    rows = (b"\0" + bytes(3 * 300)) * 300
    assert decode_image(png(300, 300, rows), ImageOptions()).shape == (300, 300, 3)


@pytest.mark.parametrize("length", [2**16, 2**31 - 1, 2**32 - 1])
def test_a_chunk_that_claims_to_be_large(length):
    """Found by fuzzing: OpenCV allocates the length of a chunk, 3 GiB for a file of 2 KB."""
    raw = png(300, 300, (b"\0" + bytes(3 * 300)) * 300)
    at = raw.index(b"IDAT") - 4
    raw = raw[:at] + struct.pack(">I", length) + raw[at + 4 :]
    with pytest.raises(kl.DecodeError, match="truncated: a PNG whose chunks do not end"):
        decode_image(raw, ImageOptions())


# ------------------------------------------------------------------------------ the suite's own


def cases(*inside):
    """A report of pytest: cases of one test, with what is inside of each."""
    case = '<testcase classname="tests.core.test_rows" name="test_a[{}]">{}</testcase>'
    made = "".join(case.format(number, text) for number, text in enumerate(inside))
    return f"<testsuites><testsuite>{made}</testsuite></testsuites>"


def test_cases_of_a_report(tmp_path):
    """Those that passed and those that were skipped; one that failed ends the campaign."""
    report = tmp_path / "report.xml"
    report.write_text(cases("", "", "<skipped/>"))
    assert suite.counted(report) == {"core/test_rows.py::test_a": {"passed": 2, "skipped": 1}}
    for failed in ("<failure/>", "<error/>"):
        report.write_text(cases("", failed))
        with pytest.raises(AssertionError, match=r"core/test_rows.py::test_a failed"):
            suite.counted(report)


# ------------------------------------------------------------------------------ the page


def test_the_page_is_what_the_figures_give():
    if not page.PAGE.exists():
        pytest.skip("docs/ is not beside these tests")
    assert page.PAGE.read_text() == page.text(), "python -m tests.campaign --page writes it anew"


def test_each_promise_has_a_test_that_exists():
    if not page.PAGE.exists():
        pytest.skip("docs/ is not beside these tests")
    promises = [promise for section in page.rows().values() for promise in section]
    assert len(promises) > 50
    for promise in promises:
        assert promise.tests, promise.text
        assert promise.figure, promise.text
        for name in promise.tests:
            file, test = name.split("::")
            tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
            found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert test in found, f"{promise.text}: there is no {name}"


def test_the_campaign_kept_no_failure():
    """docs/promises/ holds kept promises, with as many cases as the issue requires."""
    if not page.RESULTS.exists():
        pytest.skip("docs/ is not beside these tests")
    assert set(page.result("faults")["faults"]) == set(faults.FAULTS)
    assert set(page.result("fuzz")["fuzz"]) == set(fuzz.KINDS)
    kept = page.result("suite")["suite"].values()
    for promise in suite.PROMISES:
        assert any(found.get(promise.text, {}).get("passed") for found in kept), promise.text
    for path in page.RESULTS.glob("kill_and_resume-*.json"):
        assert json.loads(path.read_text())["passed"], path.name
    for kind, found in page.result("fuzz")["fuzz"].items():
        assert found["failures"] == []
        assert found["cases"] >= fuzz.KINDS[kind].long
    for found in page.result("memory")["memory"].values():
        assert found.get("growth, % per hundred epochs", 0) < 100 * memory.MOST
