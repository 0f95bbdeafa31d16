"""Lines and rows of files by number: those that Python and its csv module find."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kloaders as kl
from kloaders.formats import lines
from kloaders.formats.lines import LineFiles


@given(
    content=st.lists(st.sampled_from(["", "a", "bb", "\r", "é", '"', "x" * 40]), min_size=1).map(
        "\n".join
    ),
    chunk=st.integers(1, 30),
)
def test_lines_are_those_of_python(content, chunk, tmp_path_factory):
    raw = content.encode()
    if not raw or raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_CHUNK", chunk)
        found = LineFiles([str(path)])
    want = raw.splitlines(keepends=True) if b"\r" not in raw else None
    got = found.lines(np.arange(len(found)))
    assert b"".join(got) == raw
    if want is not None:
        assert got == want


FIELD = st.text(st.sampled_from('a1 ,"\n\r'), max_size=5)


@given(
    table=st.lists(st.lists(FIELD, min_size=2, max_size=2), min_size=1, max_size=12),
    chunk=st.integers(1, 30),
    ends=st.sampled_from(["\n", "\r\n"]),
    blank=st.booleans(),
)
def test_rows_are_those_of_the_csv_module(table, chunk, ends, blank, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "a.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator=ends, quoting=csv.QUOTE_ALL)
        for row in [["first", "second"], *table]:
            file.write(ends if blank else "")
            writer.writerow(row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_CHUNK", chunk)
        loader = kl.CsvSequenceLoader(path, "first", classes={"first": []})
    assert loader.samples == len(table)
    order = np.random.default_rng(0).permutation(len(table))
    assert loader.read_rows(order) == [table[k] for k in order]


def test_an_index_is_kept_and_believed_while_the_file_is_the_same(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    LineFiles([str(path)])
    assert (tmp_path / ".a.txt.lines.index").exists()
    scanned = []
    scan = lines._scan
    monkeypatch.setattr(lines, "_scan", lambda *a: scanned.append(a) or scan(*a))
    assert len(LineFiles([str(path)])) == 2
    assert not scanned
    path.write_text("one\ntwo\nthree\n")
    assert len(LineFiles([str(path)])) == 3
    assert scanned


def test_what_quotes_mean_has_an_index_of_its_own(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('n,text\n1,"a\nb"\n2,c"\n3,"\n')
    assert kl.CsvSequenceLoader(path, "n").samples == 2
    assert kl.CsvSequenceLoader(path, quote=None, header=False, x=0, classes={0: []}).samples == 5


def table(folder, name="a.csv", rows=40, start=0):
    """Columns: number, its double, a text with all that is hard, a class, a gap."""
    with open(folder / name, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "double", "text", "kind", "gap"])
        for n in range(start, start + rows):
            text = f'a "quoted"\nline, {n}'
            writer.writerow([n, 2 * n, text, "cat" if n % 3 else "dog", "" if n % 4 == 0 else n])
    return folder / name
