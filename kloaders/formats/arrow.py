"""Converts columns of Apache Arrow tables to NumPy arrays, bytes and texts.

pyarrow is imported on use, because it is optional (`pip install "kloaders[parquet]"`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from kloaders.formats.errors import DecodeError
from kloaders.formats.files import read_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["class_names_in", "import_pyarrow", "values_of"]


def import_pyarrow(owner: str) -> Any:
    """The pyarrow package, or an ImportError that says how to install it; owner: what needs it."""
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            f'{owner} needs pyarrow: pip install pyarrow, or pip install "kloaders[parquet]".'
        ) from error
    return pa


def values_of(column: pa.ChunkedArray | pa.Array, name: str) -> Any:
    """The values of a column: an array with one row for each value, or a list.

    Numbers without gaps become an array. A list contains bytes (an encoded value, or the content of the
    file in a struct, as Hugging Face stores images), texts, arrays of list items (nested to any depth),
    dictionaries (structs), and None for missing values.

    Raises:
        DecodeError: the column's type cannot be converted to numbers, such as dates.
    """
    import pyarrow as pa

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # more than one chunk can hold
        return [value for chunk in array.chunks for value in values_of(chunk, name)]
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if _is_number(kind) and not array.null_count:
        found: Any = array.to_numpy(zero_copy_only=False)
        return found
    if pa.types.is_struct(kind) and {f.name for f in kind} <= {"bytes", "path"}:
        return [_stored(value) for value in array.to_pylist()]
    if _is_list(kind):
        return _lists(array, name)
    if _is_number(kind):
        dtype = kind.to_pandas_dtype()
        return [None if value is None else dtype(value) for value in array.to_pylist()]
    if pa.types.is_decimal(kind):
        return [None if value is None else float(value) for value in array.to_pylist()]
    plain = (
        *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary),
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_struct, pa.types.is_null),
    )
    if any(is_kind(kind) for is_kind in plain) or "view" in str(kind):
        return array.to_pylist()
    raise DecodeError(
        f"column {name!r:.80} has type {kind}, expected numbers, lists, texts or bytes: choose other "
        "columns, or convert it when the file is written."
    )


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    )


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _stored(value: Any) -> bytes | None:
    """The bytes of an image, from the table or from the file that it names."""
    if value is None:
        return None
    if value.get("bytes") is not None:
        found: bytes = value["bytes"]
        return found
    path = value.get("path")
    return None if path is None else read_bytes(path)


def _lists(array: Any, name: str) -> Any:
    """The list of each row as an array; one array of all rows if all lists have the same length."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_fixed_size_list(kind) and not array.null_count:
        items = values_of(array.flatten(), name)
        if isinstance(items, np.ndarray):
            return items.reshape(len(array), kind.list_size, *items.shape[1:])
    if pa.types.is_fixed_size_list(kind):
        bounds = None
    else:
        bounds = array.offsets.to_numpy().astype(np.int64)
    items = values_of(array.values, name)
    found: list[Any] = []
    missing = array.is_null().to_numpy(zero_copy_only=False)
    for row in range(len(array)):
        if missing[row]:
            found.append(None)
            continue
        if bounds is None:
            start = (array.offset + row) * kind.list_size
            part = items[start : start + kind.list_size]
        else:
            part = items[bounds[row] : bounds[row + 1]]
        found.append(_as_array(part))
    return found


def _as_array(part: Any) -> Any:
    """The items of one list; a single array if they are arrays of the same shape."""
    if isinstance(part, np.ndarray):
        return np.array(part)
    if part and all(isinstance(item, (np.ndarray, np.generic)) for item in part):
        if len({item.shape for item in part}) == 1:
            return np.stack(part)
        shapes = sorted({str(item.shape) for item in part})
        raise DecodeError(f"a list holds arrays of different shapes: {', '.join(shapes[:8])}.")
    return part


def class_names_in(metadata: Any, column: str) -> list[str] | None:
    """The class names of a column, as Hugging Face writes them to a file's metadata.

    metadata: the metadata of an Arrow schema, bytes to bytes, or None.
    """
    try:
        info = json.loads((metadata or {})[b"huggingface"])["info"]
        feature = info["features"][column]
        if feature.get("_type") == "ClassLabel":
            return [str(name) for name in feature["names"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    return None
