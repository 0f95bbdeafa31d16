"""Lines of text and rows of CSV as samples: text as it was written, numbers many rows at a time."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.rows import Rows
from kloaders.formats.lines import LineFiles
from kloaders.plan.rng import Moment
from kloaders.sources.lines import CsvSource, LineSource


def lines_of(folder, *texts, encoding="utf-8", rows=False, header=False, quote='"'):
    paths = []
    for k, text in enumerate(texts):
        path = folder / f"{k}.txt"
        path.write_bytes(text.encode(encoding))
        paths.append(str(path))
    return LineFiles(paths, rows, quote if rows else None, header, progress=False), paths


def csv_of(folder, *texts, x=None, y=None, **options):
    facts = {
        "classes": None,
        "missing": None,
        "header": True,
        "delimiter": ",",
        "quote": '"',
        "encoding": "utf-8",
        "dtype": None,
        **options,
    }
    lines, paths = lines_of(folder, *texts, rows=True, header=facts["header"], quote=facts["quote"])
    return CsvSource(lines, paths, x, y, **facts)


# ---------------------------------------------------------------- lines


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-8-sig"])
def test_text_is_as_it_was_written(tmp_path, end, encoding):
    """Without its end and a mark at the top of a file, but with its own blanks."""
    texts = ["  ä b ", "", "ç", "last"]
    lines, _ = lines_of(tmp_path, end.join(texts[:2]) + end, end.join(texts[2:]), encoding=encoding)
    source = LineSource(lines, encoding.removesuffix("-sig"))
    assert len(source) == 4
    assert source.text([3, 0, 2, 1]) == [texts[k] for k in (3, 0, 2, 1)]


def test_only_x_is_cast(tmp_path):
    lines, _ = lines_of(tmp_path, "1\n2\n")
    source = LineSource(lines, "utf-8", lambda text: (float(text), int(text)), np.dtype("f2"))
    x, y = source.sample(1, Moment())
    assert (x, x.dtype, y, y.dtype) == (2, np.float16, 2, np.int64)


def test_a_sample_is_called_by_its_file_and_line(tmp_path):
    lines, paths = lines_of(tmp_path, "a\nb\n", "c\nd\n")
    name = LineSource(lines, "utf-8").name(3)
    assert paths[1] in name
    assert paths[0] not in name


# ---------------------------------------------------------------- rows of numbers

TABLE = "a,b,y\n1,2,3\n4,5,6\n7,8,9\n"


def batch(source, *indices):
    return source.batch(np.array(indices))


def test_columns_are_chosen_by_name(tmp_path):
    x, y = batch(csv_of(tmp_path, TABLE, x=["b", "a"], y="y"), 2, 0)
    assert (x.tolist(), y.tolist()) == ([[8, 7], [2, 1]], [9, 3])
    assert x.dtype == np.float32


def test_x_is_what_is_no_label(tmp_path):
    x, y = batch(csv_of(tmp_path, TABLE, y="b"), 1)
    assert (x.tolist(), y.tolist()) == ([[4, 6]], [5])
    (x,) = batch(csv_of(tmp_path, TABLE), 1)
    assert x.tolist() == [[4, 5, 6]]


def test_structures_of_columns(tmp_path):
    x, y = batch(csv_of(tmp_path, TABLE, x={"one": "a", "two": ["a", "b"]}, y=("y", "a")), 1)
    assert (x["one"].tolist(), x["two"].tolist()) == ([4], [[4, 5]])
    assert (y[0].tolist(), y[1].tolist()) == ([6], [4])


def test_columns_by_number_where_there_is_no_header(tmp_path):
    source = csv_of(tmp_path, "1,2\n3,4\n", x=[1], y=0, header=False)
    x, y = batch(source, 1)
    assert (source.names, x.tolist(), y.tolist()) == ([0, 1], [[4]], [3])


def test_texts_are_numbers_of_classes(tmp_path):
    source = csv_of(
        tmp_path, 'n,kind\n1,"cat, big"\n2,dog\n', x=["n"], y="kind",
        classes={"kind": ["dog", "cat, big"]},
    )  # fmt: skip
    x, y = batch(source, 0, 1)
    assert (x.tolist(), y.tolist(), y.dtype) == ([[1], [2]], [1, 0], np.int32)
    assert source.fields(source.text([0])) == [["1", "cat, big"]]


@pytest.mark.parametrize(
    ("delimiter", "quote", "row"),
    [
        (",", '"', ",2,"),
        (",", None, " ,2,"),
        (";", '"', ';"2";""'),
        ("\t", None, "\t2\t"),
        ("|", '"', "|2|"),  # a mark with a meaning in patterns
    ],
)
def test_gaps_are_filled(tmp_path, delimiter, quote, row):
    text = f"{delimiter.join('abc')}\n{row}\n{delimiter.join('456')}\n"
    source = csv_of(tmp_path, text, delimiter=delimiter, quote=quote, missing=-1)
    assert batch(source, 0, 1)[0].tolist() == [[-1, 2, -1], [4, 5, 6]]


def test_a_row_may_go_over_several_lines(tmp_path):
    text = 'a,t\n1,"x\ny"\n\n2,"z ""q"""\n'
    source = csv_of(tmp_path, text, x=["a"])
    assert len(source) == 2
    assert batch(source, 1, 0)[0].tolist() == [[2], [1]]
    assert source.fields(source.text([0])) == [["1", "x\ny"]]
    assert source.fields(source.text([1])) == [["2", 'z "q"']]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,2", "it has 2 fields, expected 3, as in the first row"),
        ("1,x,3", r"column 'b' holds 'x', expected a number: .* or pass classes=\{'b': "),
        ("1,,3", "column 'b' is empty, expected a number: pass missing=, such as 0.0"),
    ],
)
def test_the_field_at_fault_is_named(tmp_path, row, message):
    """And the other rows of the call come all the same."""
    source = csv_of(tmp_path, f"a,b,y\n1,2,3\n{row}\n7,8,9\n", y="y")
    with pytest.raises(ValueError, match=message):
        source.read(1)
    arrays = [np.zeros((3, 2), np.float32), np.zeros(3, np.float32)]
    reports = []
    source.fill(
        np.arange(3), Rows((None, None), arrays), lambda *found: reports.append(found), Moment()
    )
    assert [row for row, _ in reports] == [1]
    assert arrays[1][[0, 2]].tolist() == [3, 9]


def test_a_class_that_is_not_known(tmp_path):
    source = csv_of(tmp_path, "n,k\n1,cat\n2,cow\n3\n", y="k", classes={"k": ["cat", "dog"]})
    with pytest.raises(
        ValueError, match=r"'k' holds 'cow', which is not among its classes: cat, dog"
    ):
        source.read(1)
    with pytest.raises(ValueError, match=r"it has 1 fields, expected 2"):
        source.read(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": ["c"]}, "x names the column 'c', but .* has a, b, y"),
        ({"y": "c"}, "y names the column 'c'"),
        ({"x": []}, "x is an empty list"),
        ({"classes": {"c": ["d"]}}, "classes names the column 'c'"),
    ],
)
def test_columns_that_are_not_there(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        csv_of(tmp_path, TABLE, **options)


def test_files_of_other_columns(tmp_path):
    with pytest.raises(ValueError, match=r"1.txt has the columns b, a, but .*0.txt has a, b"):
        csv_of(tmp_path, "a,b\n1,2\n", "b,a\n1,2\n")


# ---------------------------------------------------------------- what was wrong in silence


@pytest.mark.parametrize("row", ["2,5,1", '"2",5,1', "2", "2,5,"])
@pytest.mark.parametrize("x", [["a"], None])
def test_a_row_of_other_fields_is_an_error(tmp_path, row, x):
    """Also where the columns that are read are there: 2,5 for 2.5 shifts all behind it."""
    source = csv_of(tmp_path, f"a,y\n1.5,0\n{row}\n3.5,1\n", x=x, y="y")
    with pytest.raises(ValueError, match=r"it has \d fields, expected 2, as in the first row"):
        source.read(1)
    arrays = [np.zeros((3, 1), np.float32), np.zeros(3, np.float32)]
    reports = []
    source.fill(
        np.arange(3), Rows((None, None), arrays), lambda *found: reports.append(found[0]), Moment()
    )
    assert reports == [1]
    assert arrays[1].tolist() == [0, 0, 1]


def test_two_columns_of_one_name(tmp_path):
    text = "a,b,b,c\n1,2,3,4\n5,6,7,8\n"
    assert batch(csv_of(tmp_path, text), 0, 1)[0].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    for options in ({"x": ["a", "b"]}, {"y": "b"}, {"classes": {"b": ["x"]}}):
        with pytest.raises(ValueError, match=r"has 2 with this name: pass its number.*\(1 and 2\)"):
            csv_of(tmp_path, text, **options)
    x, y = batch(csv_of(tmp_path, text, x=["a", 2], y=1), 1)
    assert (x.tolist(), y.tolist()) == ([[5, 7]], [6])


def test_quotes_inside_of_fields_do_not_join_rows(tmp_path):
    text = 'size,text,label\n1,a 5" disk,0\n2,a 3" disk,1\n3,plain,0\n4,plain,1\n'
    source = csv_of(tmp_path, text, x=["size"], y="label")
    x, y = batch(source, 0, 1, 2, 3)
    assert (x.tolist(), y.tolist()) == ([[1], [2], [3], [4]], [0, 1, 0, 1])
    assert source.fields(source.text([0]))[0][1] == 'a 5" disk'


def test_rows_that_end_in_carriage_returns(tmp_path):
    assert batch(csv_of(tmp_path, "a,b\r1,2\r3,4\r"), 1, 0)[0].tolist() == [[3, 4], [1, 2]]


def test_no_rows_below_the_names(tmp_path):
    with pytest.raises(ValueError, match=r"0.txt has a row of names but no other rows"):
        csv_of(tmp_path, "a,b\n")
    assert len(csv_of(tmp_path, "a,b\n", "a,b\n1,2\n")) == 1  # as those who write parts do
    with pytest.raises(kl.DecodeError, match=r"0.txt: its first row cannot be read"):
        csv_of(tmp_path, "a,b\r1,2\n3,4\n")


def test_numbers_of_users_stay_whole(tmp_path):
    text = "user,item,y\n16777217,33554433,1\n"
    source = csv_of(tmp_path, text, x=["user", "item"], y="y")
    with pytest.raises(ValueError, match=r"'user' holds 16777217.*pass dtype=.int64."):
        source.read(0)
    x, y = batch(csv_of(tmp_path, text, x=["user", "item"], y="y", dtype=np.dtype("i8")), 0)
    assert (x.tolist(), x.dtype) == ([[16777217, 33554433]], np.int64)
    assert y.dtype == np.float32
    source = csv_of(tmp_path, text, x="y", y={"u": "user"}, label_dtype=np.dtype("i4"))
    x, y = batch(source, 0)
    assert (x.tolist(), x.dtype, y["u"].tolist(), y["u"].dtype) == ([1], "f4", [16777217], "i4")


def test_classes_beside_large_numbers(tmp_path):
    source = csv_of(
        tmp_path, "n,k\n9007199254740993,b\n", x=["n", "k"], classes={"k": ["a", "b"]},
        dtype=np.dtype("i8"),
    )  # fmt: skip
    assert batch(source, 0)[0].tolist() == [[9007199254740993, 1]]
