"""Columns of tables of all kinds: as numbers, labels and paths, and which row is at fault."""

from pathlib import Path

import numpy as np
import pytest

from kloaders.sources.path_lists import PackedPaths
from kloaders.sources.plain_csv import PlainColumn
from kloaders.sources.tables import Table, array_of, encoded, first_missing, listed

pandas = pytest.importorskip("pandas")

COLUMNS = {"file": ["a.png", "b.png", "c.png"], "class": ["dog", "cat", "dog"], "age": [1, 2, 3]}


def written(folder, text, name="table.csv", encoding="utf-8"):
    path = folder / name
    path.write_text(text, encoding=encoding)
    return path


@pytest.fixture(params=["dict", "frame", "CSV", "TSV", "structured"])
def table(request, tmp_path):
    if request.param == "dict":
        return Table(COLUMNS)
    if request.param == "frame":
        return Table(pandas.DataFrame(COLUMNS))
    if request.param == "structured":
        rows = list(zip(*COLUMNS.values(), strict=True))
        return Table(np.array(rows, [("file", "U9"), ("class", "U9"), ("age", "i8")]))
    mark = "," if request.param == "CSV" else "\t"
    rows = [COLUMNS, *zip(*COLUMNS.values(), strict=True)]
    text = "\n".join(mark.join(map(str, row)) for row in rows)
    return Table(written(tmp_path, text, f"table.{request.param.lower()}", "utf-8-sig"))


def test_columns_of_every_kind_of_table(table):
    assert table.numbers("age").tolist() == [1, 2, 3]
    assert table.paths("file", None) == COLUMNS["file"]
    assert table.paths("file", "/data") == ["/data/a.png", "/data/b.png", "/data/c.png"]
    codes, names = table.labels("class", None)
    assert (codes.tolist(), codes.dtype, names) == ([1, 0, 1], np.int32, ["cat", "dog"])
    codes, names = table.labels("class", ["dog", "bird", "cat"])
    assert (codes.tolist(), names) == ([0, 2, 0], ["dog", "bird", "cat"])
    assert table.labels("age", None)[0].tolist() == [1, 2, 3]


def test_a_column_that_is_not_there(table):
    message = r"no column 'clas', it has file, class, age. Did you mean 'class'"
    with pytest.raises(ValueError, match=message):
        table.column("clas")


def test_paths_may_be_absolute_or_objects():
    table = Table({"file": [Path("a.png"), "/b.png"]})
    assert table.paths("file", "/data") == ["/data/a.png", "/b.png"]
    for odd in ("s3://bucket/c.png", "/c.png"):
        table = Table({"file": ["a.png", odd, "b.png", "12:30.png"]})
        expected = ["/data/a.png", odd, "/data/b.png", "/data/12:30.png"]
        assert table.paths("file", "/data") == expected


@pytest.mark.parametrize(
    ("columns", "ask", "error", "message"),
    [
        ({"a": [1, None, 3]}, "column", ValueError, r"row 1 \(counted from 0\).*'a' is missing"),
        ({"a": [1.0, float("nan")]}, "column", ValueError, r"row 1.*dropna\(subset=\['a'\]\)"),
        ({"a": np.zeros((3, 2))}, "column", ValueError, r"column 'a' has shape \(3, 2\)"),
        ({"a": ["1", "x"]}, "numbers", ValueError, "row 0.*'a' holds '1', expected a number"),
        ({"a": [1, "x", 3]}, "numbers", ValueError, "row 1.*'a' holds 'x', expected a number"),
        ({"a": [1j, 2j]}, "numbers", TypeError, "column 'a' holds complex128"),
        ({"a": ["cat", 3]}, "labels", ValueError, "row 1.*'a' holds 3, expected a text"),
        ({"a": ["m.png", "n.png"]}, "labels", ValueError, "'a' holds files such as 'm.png'"),
        ({"a": [1, 2]}, "paths", TypeError, r"row 0.*'a' holds 1 \(int\), expected a file's path"),
    ],
)
def test_the_row_at_fault_is_named(columns, ask, error, message):
    more = {"column": (), "numbers": (), "labels": (None,), "paths": (None,)}[ask]
    with pytest.raises(error, match=message):
        getattr(Table(columns), ask)("a", *more)


def test_labels_that_are_none_of_the_classes():
    table = Table({"a": ["cat", "cow"], "n": [0, 2]})
    with pytest.raises(ValueError, match=r"row 1 .*'cow' in column 'a' is not among class_names"):
        table.labels("a", ["cat", "dog"])
    with pytest.raises(
        ValueError, match=r"row 1 .*2 in column 'n' is not the number of a class.*from 0 to 1"
    ):
        table.labels("n", ["cat", "dog"])


def test_columns_of_one_length():
    table = Table({"a": [1, 2], "b": [1, 2, 3]})
    table.column("a")
    with pytest.raises(ValueError, match=r"column 'b' has 3 values, others 2"):
        table.column("b")


@pytest.mark.parametrize("frame", [[1, 2], (1, 2), 5])
def test_what_is_no_table(frame):
    with pytest.raises(TypeError, match=r"expected a DataFrame, a dict of lists, or the path"):
        Table(frame)


# ---------------------------------------------------------------- CSV


def test_a_row_of_a_file_is_counted_as_an_editor_does(tmp_path):
    table = Table(written(tmp_path, "a,b\n1,x\n,y\n"))
    with pytest.raises(ValueError, match=r"table.csv, row 3: the value of column 'a' is missing"):
        table.column("a")


def test_numbers_are_numbers_where_all_of_a_column_are(tmp_path):
    table = Table(written(tmp_path, 'a,b,c\n1,1.5,"x, y"\n\n2,2,3\n'))
    assert table.numbers("a").dtype.kind == "i"
    assert table.numbers("b").tolist() == [1.5, 2]
    assert table.numbers("b").dtype == np.float32
    assert table.column("c").tolist() == ["x, y", "3"]


def test_a_file_that_is_no_table(tmp_path):
    with pytest.raises(ValueError, match=r"is empty, expected a line with the columns' names"):
        Table(written(tmp_path, ""))
    with pytest.raises(ValueError, match=r"line 3, has 3 values, the header 2"):
        Table(written(tmp_path, "a,b\n1,2\n1,2,3\n"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Mac"])
@pytest.mark.parametrize(
    ("lines", "file", "n"),
    [
        (["file,n", "a.png,1", "b.png,2"], ["a.png", "b.png"], [1, 2]),
        (["file,n", "a.png,1", "b.png,2", ""], ["a.png", "b.png"], [1, 2]),
        (["", "file,n", "", "a.png,1", "", "b.png,2"], None, None),
        (["file,n", "", "a.png,1", "", "b.png,2", ""], ["a.png", "b.png"], [1, 2]),
        (["file,n", '"a, 1.png",1', '"b\n2.png",2'], ["a, 1.png", "b\n2.png"], [1, 2]),
        (["n,file", "1,ä€😀.png", "2, b.png "], ["ä€😀.png", " b.png "], [1, 2]),
        (["file,n,z", "a,1,", "b,2,"], ["a", "b"], [1, 2]),
    ],
    ids=["plain", "line end", "blank first", "blank lines", "quotes", "UTF-8", "empty values"],
)
def test_every_way_to_write_a_csv_file(tmp_path, lines, file, n, end):
    """What is split without csv has the same values as what csv reads."""
    path = tmp_path / "t.csv"
    path.write_bytes(end.join(lines).encode())
    if file is None:
        with pytest.raises(ValueError, match=r"line 2, has 2 values, the header 0"):
            Table(path)
        return
    table = Table(path)
    assert table.column("file").tolist() == file
    assert table.numbers("n").tolist() == n
    if "z" in lines[0]:
        assert table.first("z") is None


def test_a_column_of_its_own(tmp_path):
    """A single column has no delimiter, and a blank line in it is none of its values."""
    for text in ("a\n1\n2\n", "a\n1\n\n2", "a\r\n1\r\n2"):
        assert Table(written(tmp_path, text)).column("a").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n3\n", r"line 3, has 1 values, the header 2"),
        (b"a,b\n1,2,3\n4\n", r"line 2, has 3 values, the header 2"),
        (b"a,b\n1,\xff\n", r"after line 0, is not CSV in UTF-8"),
        (b"a,b\n", r"has a row of names \(a, b\), but no other rows"),
        (b"a,b", r"has a row of names \(a, b\), but no other rows"),
        (b"\xef\xbb\xbf", r"is empty"),
    ],
)
def test_what_is_wrong_with_a_csv_file(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Table(path)


def test_a_plain_file_goes_without_csv(tmp_path, monkeypatch):
    """A million rows take csv a second."""
    monkeypatch.setattr("csv.reader", None)
    table = Table(written(tmp_path, "a,b\n1,x\n2,y\n"))
    assert table.column("b").tolist() == ["x", "y"]


# ---------------------------------------------------------------- parts


def test_arrays_of_values():
    assert array_of(pandas.Series([1, 2])).tolist() == [1, 2]
    assert array_of(np.array([b"a", b"b"])).tolist() == ["a", "b"]
    mixed = array_of(["a", None])
    assert mixed.dtype == object
    assert mixed.tolist() == ["a", None]


@pytest.mark.parametrize(
    "missing", [None, float("nan"), pandas.NA, pandas.NaT], ids=["None", "NaN", "NA", "NaT"]
)
def test_every_kind_of_nothing_is_missing(missing):
    assert first_missing(array_of(["a", missing])) == 1
    assert first_missing(array_of(["a", "b"])) is None
    assert first_missing(np.array([1.0, 2.0])) is None


def test_codes_of_texts_and_a_short_list():
    names, codes = encoded(["b", "a", "b"])
    assert (names, codes.tolist()) == (["a", "b"], [1, 0, 1])
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(k) for k in range(20)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 12 others"


# ---------------------------------------------------------------- what was wrong in silence


def test_two_columns_of_one_name(tmp_path):
    table = Table(written(tmp_path, "path,a,a\nx.png,1,2\n"))
    assert table.column("path").tolist() == ["x.png"]
    with pytest.raises(ValueError, match=r"2 columns called 'a' \(numbers 1 and 2"):
        table.column("a")


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_a_table_of_names_alone_is_named(tmp_path, end):
    with pytest.raises(
        ValueError, match=r"table.csv has a row of names \(path, label\), but no other rows"
    ):
        Table(written(tmp_path, f"path,label{end}"))
    assert Table(written(tmp_path, f"a,b{end}1,2{end}")).numbers("b").tolist() == [2]


def test_what_is_no_csv_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"table.csv, after line 0, is not CSV in UTF-8"):
        Table(written(tmp_path, "a\né\n", encoding="latin-1"))


def test_whole_numbers_stay_whole():
    table = Table({"user": [16777217.0, 1.5], "price": [0.1, 1e20]})
    assert table.numbers("user").tolist() == [16777217.0, 1.5]
    assert table.numbers("price").dtype == np.float32


# ---------------------------------------------------------------- a plain file


@pytest.mark.parametrize(
    ("rows", "folder"),
    [
        (["a.png,x", "b/c.png,y:*"], "/data"),
        (["a.png,x", "b/c.png,y"], None),
        (["a.png,x", "/b.png,y"], "/data"),
        (["a.png,x", "\\b.png,y"], "/data"),
        (["a.png,x", "s3://bucket/b.png,y"], "/data"),
        (["a.png,x", "s3://bucket/b.png,y"], None),
        (["a.png,x", "*.png,y"], "/data"),
        (["a.png,x", "b.png,y"], "/da*ta"),
        (['"a.png",x', "b.png,y"], "/data"),
    ],
    ids=["below", "as they are", "absolute", "backslash", "URL", "URL alone", "pattern",
         "pattern of folders", "quotes"],
)  # fmt: skip
def test_packed_paths_are_the_same_paths(tmp_path, rows, folder):
    file = written(tmp_path, "\n".join(["file,class", *rows]))
    expected = Table(file).paths("file", folder)
    found = Table(file).packed_paths("file", folder)
    assert list(found) == expected
    packed = not any(mark in row for row in [rows[0], rows[1].split(",")[0]] for mark in ('"', "*"))
    odd = rows[1].startswith(("/", "\\", "s3")) and folder is not None
    assert isinstance(found, PackedPaths) == (packed and not odd and folder != "/da*ta")


@pytest.mark.parametrize("method", ["paths", "packed_paths"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,1", ",2"], r"t.csv, row 3: the value of column 'file' is missing"),
        (["1,1", "2,2"], r"t.csv, row 2: column 'file' holds 1 \(int\), expected a file's path"),
    ],
)
def test_paths_that_are_none_are_named_either_way(tmp_path, rows, message, method):
    file = written(tmp_path, "\n".join(["file,class", *rows]), "t.csv")
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(Table(file), method)("file", None)


def test_no_str_is_made_for_each_row_of_a_plain_file(tmp_path, monkeypatch):
    """A million of them take half a second."""
    monkeypatch.setattr(PlainColumn, "_items", None)
    table = Table(written(tmp_path, "file,class,age\na.png,dog,1\nb.png,cat,2\nc.png,dog,1\n"))
    assert list(table.packed_paths("file", "/data")) == [f"/data/{k}.png" for k in "abc"]
    codes, names = table.labels("class", None)
    assert (codes.tolist(), codes.dtype, names) == ([1, 0, 1], np.int32, ["cat", "dog"])
    assert table.numbers("age").tolist() == [1, 2, 1]
    assert (table.first("class"), table.first("age")) == ("dog", 1)
    with pytest.raises(
        ValueError, match=r"row 3: 'cat' in column 'class' is not among class_names"
    ):
        table.labels("class", ["dog", "bird"])


@pytest.mark.parametrize(
    "values",
    [
        ["b.png", "é/a.png", "b.png"],
        ["1", "2", "1"],
        ["a", "2", "a"],
        ["2", "a", "2"],
        ["a\nb", "c", "c"],
        ["a\0b", "c", "c"],
        ["a", "", "c"],
        ["a", None, "c"],
        [f"{k}.png" for k in range(20000)],
        [1, 2, 3],
    ],
    ids=[
        "paths",
        "digits",
        "mixed",
        "digits first",
        "newline",
        "NUL",
        "empty",
        "null",
        "many",
        "int",
    ],
)
@pytest.mark.parametrize("large", [False, True])
def test_texts_of_a_parquet_file_are_those_of_a_frame(tmp_path, values, large):
    """Whether they are read as bytes or not: values, labels, class names, paths, and errors."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = pa.array(values)
    if large and pa.types.is_string(column.type):
        column = column.cast(pa.large_string())
    file = str(tmp_path / "t.parquet")
    parquet.write_table(pa.table({"a": column}), file, row_group_size=7000)
    table, expected = Table(file), Table({"a": values})

    expected.file = file  # named in the same way in errors

    def outcome(of, call):
        try:
            return call(of)
        except (TypeError, ValueError) as error:
            return type(error), str(error)

    def labels(of):
        codes, names = of.labels("a", None)
        return codes.tolist(), names

    calls = labels, lambda of: list(of.packed_paths("a", "x")), lambda of: of.items("a")
    for call in (*calls, lambda of: of.first("a")):
        assert outcome(table, call) == outcome(expected, call)
