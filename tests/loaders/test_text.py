"""Lines of text and rows of CSV by number: which line is which, and what is in it."""

import csv
import gzip

import numpy as np
import pytest
from hypothesis import strategies as st

import kloaders as kl

# ---------------------------------------------------------------- where lines begin


FIELD = st.text(st.sampled_from('a1 ,"\n\r'), max_size=5)


def test_a_file_that_changes_under_a_loader_is_an_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("1\n2\n")
    loader = kl.TextLineSequenceLoader(path, float, 2)
    assert loader[0].tolist() == [1, 2]
    with open(path, "a") as file:
        file.write("3\n")
    with pytest.raises(kl.SampleError, match="has changed since this loader read its index"):
        loader[0]


# ---------------------------------------------------------------- text


def numbered(folder, counts=(30, 20)):
    """Files of lines "number: as many words"; the second has no end of its last line."""
    number = 0
    for k, count in enumerate(counts):
        rows = [f"{n}:{' é' * (n % 7)}" for n in range(number, number + count)]
        (folder / f"part-{k}.txt").write_text("\n".join(rows), encoding="utf-8")
        number += count
    return str(folder / "part-*.txt")


def parse(line):
    number, words = line.split(":")
    return np.full(1 + len(words.split()), int(number) + 1, np.int32), int(number)


@pytest.mark.parametrize("options", [{"workers": 0}, {}, {"processes": True, "workers": 2}])
def test_each_line_comes_once(options, tmp_path, keep):
    loader = keep(
        kl.TextLineSequenceLoader(numbered(tmp_path), parse, 8, shuffle=True, seed=1, **options)
    )
    loader = keep(kl.bucket_by_length(loader, [1 + n % 7 for n in range(50)]))
    seen = []
    for x, y in loader.epoch_batches():
        np.testing.assert_array_equal(x[:, 0], y + 1)
        np.testing.assert_array_equal((x > 0).sum(axis=1), 1 + y % 7)
        seen += y.tolist()
    assert sorted(seen) == list(range(50))


def test_a_line_that_does_not_parse_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("1\n2\nthree\n4")
    loader = kl.TextLineSequenceLoader(tmp_path / "a.txt", float, 4)
    with pytest.raises(kl.SampleError, match=r"a.txt, line 2 at byte 4.*three"):
        loader[0]
    skipping = kl.TextLineSequenceLoader(tmp_path / "a.txt", float, 4, on_error="skip")
    assert skipping[0].tolist() == [1, 2, 4]


class Lengths(kl.TextLineSequenceLoader):
    """A hook that takes many texts at once."""

    def load_batch(self, indices):
        return np.array([len(line) for line in self.read_lines(indices)])


def test_a_hook_reads_many_lines_at_once(tmp_path):
    loader = Lengths(numbered(tmp_path), batch_size=50)
    assert loader[0].tolist() == [len(f"{n}:{' é' * (n % 7)}") for n in range(50)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"a\n", mtime=0), r"compressed \(gzip\).*gunzip"),
        ("a\n".encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
        (b"", "is empty"),
    ],
)
def test_what_cannot_be_indexed_is_refused(content, message, tmp_path):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(kl.DecodeError, match=message):
        kl.TextLineSequenceLoader(tmp_path / "a.txt", float)


def test_text_needs_a_function(tmp_path):
    with pytest.raises(TypeError, match="a function of a line that returns numbers"):
        kl.TextLineSequenceLoader(numbered(tmp_path))


# ---------------------------------------------------------------- tables


def table(folder, name="a.csv", rows=40, start=0):
    """Columns: number, its double, a text with all that is hard, a class, a gap."""
    with open(folder / name, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "double", "text", "kind", "gap"])
        for n in range(start, start + rows):
            text = f'a "quoted"\nline, {n}'
            writer.writerow([n, 2 * n, text, "cat" if n % 3 else "dog", "" if n % 4 == 0 else n])
    return folder / name


def test_columns_become_arrays(tmp_path):
    table(tmp_path)
    table(tmp_path, "b.csv", 10, 40)
    loader = kl.CsvSequenceLoader(
        str(tmp_path / "*.csv"),
        {"row": ["double", "n"], "one": "double"},
        "kind",
        8,
        classes={"kind": ["cat", "dog"]},
        shuffle=True,
        seed=3,
    )
    assert loader.class_names == ["cat", "dog"]
    seen = []
    for x, y in loader.epoch_batches():
        n = x["row"][:, 1]
        assert x["row"].dtype == x["one"].dtype == np.float32
        assert y.dtype == np.int32
        np.testing.assert_array_equal(x["row"][:, 0], 2 * n)
        np.testing.assert_array_equal(x["one"], 2 * n)
        np.testing.assert_array_equal(y, n % 3 == 0)
        seen += n.astype(int).tolist()
    assert sorted(seen) == list(range(50))


def test_empty_fields_take_the_number_given(tmp_path):
    path = table(tmp_path)
    loader = kl.CsvSequenceLoader(path, ["gap", "n"], batch_size=40, missing=-1)
    want = [[-1 if n % 4 == 0 else n, n] for n in range(40)]
    np.testing.assert_array_equal(loader[0], want)
    plain = tmp_path / "plain.tsv"
    plain.write_text("a\tb\tc\n\t1\t\n2\t\t3\n")
    loader = kl.CsvSequenceLoader(plain, delimiter="\t", missing=np.nan)
    np.testing.assert_array_equal(loader[0], [[np.nan, 1, np.nan], [2, np.nan, 3]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "gap"}, r"row 1 at byte 24.*column 'gap' is empty.*missing="),
        ({"x": "text"}, r"column 'text' holds 'a .quoted.*expected a number"),
        ({"x": "kind", "classes": {"kind": ["cat"]}}, "'dog', which is not among its classes"),
    ],
)
def test_a_field_that_is_no_number_is_named(options, message, tmp_path):
    loader = kl.CsvSequenceLoader(table(tmp_path), **options)
    with pytest.raises(kl.SampleError, match=message):
        loader[0]


def test_a_row_that_is_too_short_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(kl.SampleError, match=r"row 2 at byte 8.*it has 1 fields, expected 2"):
        kl.CsvSequenceLoader(tmp_path / "a.csv")[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "m"}, "names the column 'm', but .* has"),
        ({"x": []}, "x is an empty list"),
        ({"delimiter": ",,"}, "one ASCII character"),
    ],
)
def test_wrong_options_are_said(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        kl.CsvSequenceLoader(table(tmp_path), **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"na_values": "NA"}, TypeError, "na_values='NA', expected a list of strings"),
        ({"label_dtype": "int64"}, ValueError, "label_dtype= is for y, but there is none"),
        ({"label_dtype": "text"}, TypeError, "not a NumPy dtype"),
    ],
)
def test_wrong_types_are_said(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        kl.CsvSequenceLoader(table(tmp_path), "n", **options)


def test_a_row_that_is_shifted_is_skipped_by_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("size,label\n1.5,0\n2,5,1\n3.5,1\n")
    loader = kl.CsvSequenceLoader(path, ["size"], "label", 3, on_error="skip")
    seen = np.concatenate([x[:, 0] for x, _ in loader.epoch_batches()])
    assert sorted(seen) == [1.5, 3.5]
    (error,) = loader.errors
    assert "row 2 at byte 17" in str(error)
    assert "it has 3 fields, expected 2" in str(error)


def test_texts_without_a_value_take_the_number_given(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,NA\nnull,2\n")
    loader = kl.CsvSequenceLoader(path, missing=-1, na_values=["NA", "null"])
    assert loader[0].tolist() == [[1, -1], [-1, 2]]
    assert kl.subset(loader, [1])[0].tolist() == [[-1, 2]]


def test_files_of_other_columns_are_refused(tmp_path):
    table(tmp_path)
    (tmp_path / "b.csv").write_text("n,other\n1,2\n")
    with pytest.raises(ValueError, match=r"b.csv has the columns .*other"):
        kl.CsvSequenceLoader(str(tmp_path / "*.csv"))


def test_an_open_quote_is_an_error_with_a_way_out(tmp_path):
    (tmp_path / "a.csv").write_text('inches,n\n"5,1\n6,2\n')
    with pytest.raises(kl.DecodeError, match="pass quote=None"):
        kl.CsvSequenceLoader(tmp_path / "a.csv")
    assert kl.CsvSequenceLoader(tmp_path / "a.csv", "n", quote=None)[0].tolist() == [1, 2]


class Texts(kl.CsvSequenceLoader):
    """What options do not do is a hook."""

    def load_sample(self, index):
        (row,) = self.read_rows([index])
        return np.float32(len(row[2])), np.int32(row[0])


def test_a_hook_of_rows(tmp_path):
    x, y = Texts(table(tmp_path), batch_size=40)[0]
    assert y.tolist() == list(range(40))
    assert x.tolist() == [len(f'a "quoted"\nline, {n}') for n in range(40)]


def test_split_of_a_table(tmp_path):
    train, val = kl.split(kl.CsvSequenceLoader(table(tmp_path), "n", "double", 8), validation=0.25)
    seen = []
    for part in (train, val):
        for x, y in part.epoch_batches():
            np.testing.assert_array_equal(2 * x, y)
            seen += x.astype(int).tolist()
    assert sorted(seen) == list(range(40))
