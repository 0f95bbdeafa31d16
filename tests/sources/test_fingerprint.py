"""Short texts for data: the same wherever it lies, another for other data; and states held against them."""

import json

import numpy as np
import pytest

from kloaders.sources import fingerprint
from kloaders.sources.cache.columns import CachedColumn
from kloaders.sources.columns import ArrayColumn, CastColumn, ListColumn, PathColumn, SubsetColumn
from kloaders.sources.fingerprint import Digest, checked_state, common_folder, of_columns
from kloaders.sources.path_lists import PackedPaths


def paths(folder, *names):
    return PackedPaths([f"{folder}/{name}" for name in names])


def files(folder, *names):
    return PathColumn(paths(folder, *names), len)


def test_arrays_are_told_apart_by_values_shape_and_dtype():
    array = np.arange(6, dtype=np.int32).reshape(3, 2)
    own = of_columns(ArrayColumn(array))
    assert own == of_columns(ArrayColumn(array.copy()))
    changed = array.copy()
    changed[2, 1] = 9
    others = [changed, array.astype(np.int64), array.reshape(2, 3), array.view(np.float32)]
    assert len({own, *(of_columns(ArrayColumn(other)) for other in others)}) == 5


def test_kinds_of_columns_are_told_apart():
    array = ArrayColumn(np.arange(4))
    columns = [
        array,
        ListColumn(list(np.arange(4))),
        SubsetColumn(array, np.array([0, 1, 2])),
        SubsetColumn(array, np.array([0, 2, 1])),
        CastColumn(array, np.dtype("f4")),
    ]
    assert len({of_columns(column) for column in columns}) == len(columns)


def test_a_large_memory_map_is_looked_at_here_and_there(tmp_path):
    """The first and the last row count, and a few hundred between."""
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.int64, (100_000,))
    before = of_columns(ArrayColumn(array))
    array[-1] = 5
    assert of_columns(ArrayColumn(array)) != before


def test_data_may_move():
    """The folder that all files lie in is no part of the data; folders below it are."""
    own = of_columns(files("/data/old", "a/0.png", "b/1.png"))
    assert own == of_columns(files("/elsewhere", "a/0.png", "b/1.png"))
    assert own != of_columns(files("/data/old", "b/0.png", "b/1.png"))
    assert own != of_columns(files("/data/old", "b/1.png", "a/0.png"))


def test_a_cache_in_front_is_no_part_of_the_data():
    column = files("/data", "0.png", "1.png")
    assert of_columns(CachedColumn(column, None)) == of_columns(column)


def test_x_and_y_have_a_text_each():
    column = ArrayColumn(np.arange(3))
    assert set(fingerprint.of_parts((column,))) == {"data"}
    parts = fingerprint.of_parts((column, {"a": column}))
    assert parts["data"] == parts["labels"] == of_columns(column)


def test_names_of_samples():
    def of(names, *arrays):
        return fingerprint.of_names(names.__getitem__, len(names), arrays)

    own = of(["/data/a", "/data/b"])
    assert own == of(["/old/a", "/old/b"])
    assert len({own, of(["/data/a", "/data/c"]), of(["/data/b", "/data/a"])}) == 3
    assert (
        len(
            {
                own,
                of(["/data/a", "/data/b"], np.arange(2)),
                of(["/data/a", "/data/b"], np.arange(3)),
            }
        )
        == 3
    )


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ((["/a/b/1", "/a/b/2"],), "/a/b/"),
        ((["/a/b/1", "/a/c/2"],), "/a/"),
        ((["/a/b/1"], ["/a/c/2"]), "/a/"),
        ((["/a/bb/1", "/a/b/2"],), "/a/"),
        ((["1", "2"],), ""),
        ((paths("/a/b", *map(str, range(1000))),), "/a/b/"),
        ((), ""),
    ],
)
def test_the_folder_in_common(groups, expected):
    assert common_folder(*groups) == expected


def test_one_file_elsewhere_among_many():
    """Few are looked at to guess the folder, and all to be sure of it."""
    many = [f"/a/b/{k}" for k in range(5000)]
    many[777] = "/a/c/777"
    assert common_folder(PackedPaths(many)) == "/a/"


@pytest.mark.parametrize("count", [1, 2, 100, 256, 1000, 10**7])
def test_numbers_spread_over_all(count):
    found = fingerprint.spread(count)
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (0, count - 1)
    assert len(found) == min(count, 256)


def test_digests_tell_values_from_their_joins():
    def of(*values):
        digest = Digest()
        digest.add(*values)
        return digest.text()

    assert len({of("ab", "c"), of("a", "bc"), of("abc"), of(("ab", "c")), of(1), of("1")}) == 6


# ---------------------------------------------------------------- states

OWN = {"data": "abc", "seed": "3"}


def state(**changes):
    found = {
        "version": fingerprint.VERSION,
        **dict.fromkeys(["epoch", "samples", "batch", "start", "head"], 0),
        **dict.fromkeys(["global_batch", "shards"], 1),
        **dict.fromkeys(["stored", "window", "ram_batch"]),
        "made_for": dict(OWN),
    }
    found.update(changes)
    return found


def test_a_state_of_the_same_data_and_options_is_taken():
    given = state()
    assert checked_state(given, OWN, "the loader") is given
    assert checked_state(json.loads(json.dumps(given)), OWN, "the loader") == given


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("{}", TypeError, "a state is str, expected the result of state_dict"),
        ({}, ValueError, "not a loader's state, or has another version"),
        (state(version=99), ValueError, "another version .99 instead of 1"),
        (state(epoch=-1), ValueError, "damaged: epoch is -1, expected an integer of at least 0"),
        (state(batch=True), ValueError, "damaged: batch is True"),
        (state(shards=0), ValueError, "damaged: shards is 0, expected an integer of at least 1"),
        (state(epoch=2**62), ValueError, "damaged: epoch"),
        (state(window=0), ValueError, "damaged: window is 0"),
        ({k: v for k, v in state().items() if k != "window"}, ValueError, "window is None"),
        (state(made_for=None), ValueError, "made_for is None"),
        (
            state(made_for={"data": "xyz", "seed": "3"}),
            ValueError,
            "those of the loader: data was 'xyz' and is 'abc'. Make",
        ),
        (state(made_for={**OWN, "more": "1"}), ValueError, "more was '1' and is None"),
    ],
)
def test_a_state_that_is_not_taken(given, error, message):
    with pytest.raises(error, match=message):
        checked_state(given, OWN, "the loader")
