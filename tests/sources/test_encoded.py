"""What becomes of the values of a row: images, arrays, texts and numbers."""

import numpy as np
import pytest

from kloaders.core.rows import Rows
from kloaders.core.structure import flatten
from kloaders.formats.errors import DecodeError
from kloaders.formats.options import ImageOptions
from kloaders.plan.rng import Moment
from kloaders.sources.encoded import EncodedSource, Field, Pixels, fields_of, json_value
from tests.support.tar_files import npy_bytes, png_bytes

PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def field(name="x", decode=None, class_names=None, **images):
    return Field(name, ImageOptions(**images), decode, class_names)


class Table(EncodedSource):
    """Rows of a dict of lists or arrays, several at a time; an exception stands for what fails."""

    def __init__(self, columns, fields, at_once=3):
        super().__init__(fields)
        self.columns, self.at_once = columns, at_once

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def blocks(self, indices):
        for start in range(0, len(indices), self.at_once):
            rows = list(range(start, min(start + self.at_once, len(indices))))
            numbers = indices[rows]
            first = self.columns[self.wanted[0]][int(numbers[0])]
            if isinstance(first, Exception):
                yield rows, first
                continue
            yield rows, {
                name: values[numbers] if isinstance(values, np.ndarray)
                else [values[k] for k in numbers.tolist()]
                for name, values in self.columns.items()
            }  # fmt: skip


def table(columns, x, y=None, class_names=None, decode=None, **images):
    given = ImageOptions(**images), decode
    return Table(columns, fields_of(x, y, given, (ImageOptions(channels=None), None), class_names))


def filled(source, indices):
    """The arrays of these samples, and what was reported, by row."""
    samples = source.sample(int(indices[0]), Moment())
    arrays = [np.zeros((len(indices), *a.shape), a.dtype) for a in flatten(samples)]
    reports = []
    source.fill(
        np.array(indices),
        Rows(samples, arrays),
        lambda row, error: reports.append((row, str(error))),
        Moment(),
    )
    return arrays, reports


def test_bytes_are_images_or_arrays():
    np.testing.assert_array_equal(field().read(png_bytes(PICTURE), None), PICTURE)
    np.testing.assert_array_equal(field().read(memoryview(png_bytes(PICTURE)), None), PICTURE)
    assert field(size=(2, 3)).read(png_bytes(PICTURE), None).shape == (2, 3, 3)
    row = np.array([1.5, 2.5], ">f8")
    np.testing.assert_array_equal(field().read(npy_bytes(row), None), row)
    assert field(dtype="float32").read(npy_bytes(row), None).dtype == np.float32


def test_an_image_is_decoded_into_its_row():
    out = np.zeros_like(PICTURE)
    assert field().read(png_bytes(PICTURE), out) is out
    np.testing.assert_array_equal(out, PICTURE)


def test_pixels_are_images_that_are_not_encoded():
    np.testing.assert_array_equal(field().read(Pixels(PICTURE), None), PICTURE)
    assert field(channels=1, size=(2, 2)).read(Pixels(PICTURE), None).shape == (2, 2, 1)


def test_lists_of_images_are_one_array():
    both = field().read([png_bytes(PICTURE), png_bytes(PICTURE + 1)], None)
    np.testing.assert_array_equal(both, [PICTURE, PICTURE + 1])
    with pytest.raises(DecodeError, match="images of 2 shapes"):
        field().read([png_bytes(PICTURE), png_bytes(PICTURE[:2])], None)


def test_texts_are_numbers_of_classes():
    cats = field("y", class_names=["dog", "cat"])
    assert cats.read("cat", None) == 1
    assert cats.read(b"dog", None) == 0
    assert cats.read("cat", None).dtype == np.int32
    with pytest.raises(
        DecodeError, match="'y' holds 'cow', which is not among class_names: dog, cat"
    ):
        cats.read("cow", None)
    with pytest.raises(DecodeError, match=r"'x' holds the text 'c+\.\.\.c+', expected numbers"):
        field().read("c" * 200, None)


def test_a_mask_beside_a_class_stays_an_image():
    np.testing.assert_array_equal(field(class_names=["a"]).read(png_bytes(PICTURE), None), PICTURE)


def test_decode_gets_the_value():
    assert field(decode=len).read(b"abc", None) == 3
    assert field(decode=len).read("abcd", None) == 4
    assert field(decode=lambda v: v * 2).read(np.int64(4), None) == 8
    with pytest.raises(TypeError, match="decode returned a tuple for 'x'"):
        field(decode=lambda raw: (1, 2)).read(b"", None)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "'x' is missing"),
        (b"", r"'x' is empty \(0 bytes\)"),
        (b"no picture", "For bytes in another format pass decode="),
        (png_bytes(PICTURE)[:-20], "'x' is truncated"),
        ({"a": 1, "b": 2}, r"a dictionary of 'a', 'b', expected numbers: .*\"x:KEY\""),
        ([[1], [2, 3]], "'x': got a list of 2 items that is not an array"),
    ],
)
def test_values_that_are_no_array_are_named(value, said):
    with pytest.raises(DecodeError, match=said):
        field().read(value, None)


def test_columns_of_numbers_go_as_a_whole():
    numbers = np.arange(12, dtype=np.float64)
    source = table({"a": numbers, "b": numbers.astype(np.int32) * 2}, "a", "b")
    (x, y), reports = filled(source, [5, 3, 3, 11])
    assert (x.dtype, y.dtype) == (np.float64, np.int32)
    assert (x.tolist(), y.tolist(), reports) == ([5, 3, 3, 11], [10, 6, 6, 22], [])


def test_a_list_of_names_is_a_row_of_float32():
    columns = {"a": np.arange(5), "b": [v / 2 for v in range(5)]}
    source = table(columns, {"row": ["a", "b"], "a": "a"})
    (row, a), reports = filled(source, [4, 1])
    assert row.dtype == np.float32
    assert (row.tolist(), a.tolist(), reports) == ([[4, 2], [1, 0.5]], [4, 1], [])
    assert source.wanted == ["a", "b"]


def test_one_row_at_fault_is_found_among_others():
    columns = {"a": np.arange(6), "b": [0.0, 1.0, None, 3.0, 4.0, 5.0]}
    (x,), reports = filled(table(columns, ["a", "b"]), [0, 1, 2, 3])
    assert [row for row, _ in reports] == [2]
    assert "'b' is missing (null)" in reports[0][1]
    assert x[[0, 1, 3]].tolist() == [[0, 0], [1, 1], [3, 3]]


def test_what_cannot_be_read_is_reported_for_its_rows():
    columns = {"a": [png_bytes(PICTURE)] * 3 + [OSError("gone")] + [b"?"] * 2}
    _, reports = filled(table(columns, "a"), [0, 1, 2, 3, 4])
    assert [(row, text[:4]) for row, text in reports] == [(3, "gone"), (4, "gone")]
    _, reports = filled(table(columns, "a"), [0, 4])
    assert [row for row, _ in reports] == [1]


def test_a_row_that_fails_twice_is_reported_once():
    columns = {"a": [1, None], "b": [1, None]}
    _, reports = filled(table(columns, "a", "b"), [0, 1])
    assert [row for row, _ in reports] == [1]


def test_numbers_of_another_kind_are_refused():
    columns = {"a": np.array(["2020-01-01"], "datetime64[D]")}
    with pytest.raises(DecodeError, match=r"'a' holds datetime64\[D\], expected numbers"):
        table(columns, "a").sample(0, Moment())


def test_whether_images_are_decoded():
    images = table({"a": [OSError("gone"), png_bytes(PICTURE)]}, "a")
    images.settle(2)
    assert images.encoded
    for source in (
        table({"a": np.arange(3)}, "a"),
        table({"a": [b"1"]}, "a", decode=float),
        table({"a": [OSError("gone")]}, "a"),
    ):
        source.settle(2)
        assert not source.encoded


def test_what_decides_an_array():
    assert field("a").described() != field("a", size=(2, 2)).described()
    assert field("a").described() != field(["a"]).described()
    assert field("a").described() != field("a", class_names=["b"]).described()


@pytest.mark.parametrize("x", [3, None, [], ["a", 3]])
def test_names_are_texts(x):
    with pytest.raises(TypeError, match="x holds"):
        table({"a": np.arange(3)}, x)


def test_at_least_one_name():
    with pytest.raises(ValueError, match="expected at least one name"):
        table({"a": np.arange(3)}, {})


def test_parts_of_json():
    raw = b'{"a": {"b": [5, 6]}}'
    assert json_value(raw, "", "json") == {"a": {"b": [5, 6]}}
    assert json_value(raw, "a:b:1", "json") == 6
    with pytest.raises(DecodeError, match="'json' has no 'c', it has 'a'"):
        json_value(raw, "c", "json")
    with pytest.raises(DecodeError, match="'json' has no '7'"):
        json_value(raw, "a:b:7", "json")
    with pytest.raises(DecodeError, match="'json' is not JSON"):
        json_value(b"{", "", "json")


def test_advice_names_options():
    source = table({"a": np.arange(3)}, "a")
    assert "dtype=" in source.advice(0, 0, True)
    assert "size=" in source.advice(0, 0, False)
