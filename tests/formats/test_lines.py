"""Lines and rows of files by number: those that Python and its csv module find."""

import csv
import io

import numpy as np
import pytest
from hypothesis import example, given
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


@given(
    text=st.text(st.sampled_from('a1 ,"\n'), min_size=1, max_size=30),
    chunk=st.integers(1, 30),
    end=st.sampled_from(["\n", "\r"]),
)
@example(text='1,a 5" disk\n2,a 3" disk\n', chunk=4, end="\n")
@example(text='"a""b",1\n"c"x"d",2\n', chunk=3, end="\n")
def test_quotes_inside_of_fields_are_those_of_the_csv_module(text, chunk, end, tmp_path_factory):
    """A quote begins a quoted field only where it is the first character of the field."""
    text = text.replace("\n", end)
    want = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    path = tmp_path_factory.mktemp("table") / "a.csv"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_CHUNK", chunk)
        try:
            found = LineFiles([str(path)], True, '"', progress=False)
        except kl.DecodeError as error:
            blank = not text.strip("\n\r")
            words = "blank" if blank else "quoted field, whose closing quote is missing"
            assert words in str(error)  # noqa: PT017
            return
    rows = [line.decode().strip("\n\r") for line in found.lines(np.arange(len(found)))]
    if end in text:  # else it may have ended within quotes, which the csv module forgives
        assert list(csv.reader(rows)) == want


@pytest.mark.parametrize(("rows", "quote"), [(False, None), (True, '"'), (True, None)])
def test_lines_may_end_in_carriage_returns(tmp_path, rows, quote):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\r1,2\r\r3,4\r")
    found = LineFiles([str(path)], rows, quote, progress=False)
    got = [line.rstrip(b"\r") for line in found.lines(np.arange(len(found)))]
    assert got == ([b"a,b", b"1,2", b"3,4"] if rows else [b"a,b", b"1,2", b"", b"3,4"])


def test_a_mark_of_utf_8_stands_before_a_quoted_field(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbf"a\nb",c\n1,5" x\n')
    assert len(LineFiles([str(path)], True, '"', progress=False)) == 2


def test_the_delimiter_says_where_fields_begin(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'a;x,"b\nc";"d\ne"\n')
    for delimiter, count in ((";", 2), (",", 2), ("|", 3)):
        assert len(LineFiles([str(path)], True, '"', progress=False, delimiter=delimiter)) == count


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
    path.write_text('n,text\n1,"a\nb"\n2,"c\nd"\n')
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
