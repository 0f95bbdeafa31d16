"""Rows of Parquet files: which row is which, and how often row groups are read."""

import pickle
import threading

import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.options import ImageOptions
from kloaders.plan.rng import Moment
from kloaders.sources.encoded import fields_of
from kloaders.sources.parquet import ParquetSource, ParquetTables

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = 40


@pytest.fixture
def paths(tmp_path):
    found = []
    for k, numbers in enumerate((np.arange(25), np.arange(25, ROWS))):
        table = pa.table(
            {
                "n": numbers,
                "half": (numbers / 2).astype(np.float32),
                "text": ["ab"[n % 2] for n in numbers],
                "struct": [{"a": {"b": int(n) * 3}, "n": 0} for n in numbers],
            }
        )
        found.append(str(tmp_path / f"{k}.parquet"))
        pq.write_table(table, found[-1], row_group_size=10)
    return found


def source_of(paths, x="n", y=None, budget=10**6, class_names=None):
    options = (ImageOptions(), None)
    return ParquetSource(
        ParquetTables(paths, "Loader"), fields_of(x, y, options, options, class_names), budget
    )


def read(source, indices):
    found = {}
    for rows, block in source.blocks(np.asarray(indices)):
        for k, row in enumerate(rows):
            found[row] = {name: values[k] for name, values in block.items()}
    return [found[row] for row in range(len(indices))]


def test_rows_come_by_number(paths):
    source = source_of(paths, {"n": "n", "b": "struct:a:b"}, "half")
    assert len(source) == ROWS
    assert source.tables.firsts.tolist() == [0, 10, 20, 25, 35, 40]
    for row, n in zip(read(source, [39, 0, 24, 25, 0]), [39, 0, 24, 25, 0], strict=True):
        assert row == {"n": n, "struct:a:b": 3 * n, "half": n / 2}


def test_names_of_rows(paths):
    source = source_of(paths)
    assert source.name(3) == f"{paths[0]}, row 3 in row group 0"
    assert source.name(36) == f"{paths[1]}, row 11 in row group 1"
    assert source.file_of(36) == paths[1]
    assert source.paths_of_all == paths


def test_a_row_group_is_read_once_within_the_budget(paths):
    source = source_of(paths)
    for _ in range(3):
        read(source, range(ROWS))
    assert source._groups.reads == 5
    source.close()
    read(source, [0])
    assert source._groups.reads == 6


def test_those_used_last_stay(paths):
    source = source_of(paths, budget=1)
    read(source, [0, 1, 39, 2])  # sorted by group: 0, then 4
    read(source, [38])
    assert source._groups.reads == 2
    read(source, [0])
    assert source._groups.reads == 3


def test_one_thread_reads_a_group_that_many_want(paths):
    source = source_of(paths)
    started = threading.Barrier(4)

    def ask():
        started.wait()
        read(source, [0])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source._groups.reads == 1


def test_labels_are_known_without_reading_the_rest(paths):
    assert source_of(paths, "half", "n").labels().tolist() == list(range(ROWS))
    texts = source_of(paths, "half", "text", class_names=["a", "b"])
    assert texts.labels().tolist() == [n % 2 for n in range(ROWS)]
    assert texts._groups.reads == 0
    assert source_of(paths, "half", "text").labels() is None
    assert source_of(paths, "half", {"n": "n", "text": "text"}).labels() is None
    assert source_of(paths, "half", ["n", "half"]).labels() is None
    assert source_of(paths, "half").labels() is None


def test_a_warning_where_groups_are_read_again_and_again(paths, caplog):
    source_of(paths).warn_of_rereading()
    assert not caplog.text
    source_of(paths, budget=100).warn_of_rereading()
    assert "pass ram_batch_size=" in caplog.text
    assert "in 5 row groups, but row_group_cache= keeps only 100 bytes" in caplog.text


def test_what_is_broken_is_named(paths, tmp_path):
    with pytest.raises(
        ValueError, match="there is no column 'm', the columns are n, half, text, struct"
    ):
        source_of(paths, "m")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(DecodeError, match="empty is empty"):
        source_of([str(tmp_path / "empty")])
    (tmp_path / "text").write_bytes(b"a,b\n" * 100)
    with pytest.raises(DecodeError, match="text is not a Parquet file, or cut short"):
        source_of([str(tmp_path / "text")])
    pq.write_table(pa.table({"m": [1]}), tmp_path / "other")
    with pytest.raises(
        DecodeError, match=r"other has the columns m \(int64\), but .* has n \(int64\)"
    ):
        source_of([paths[0], str(tmp_path / "other")])


def test_a_damaged_row_group_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"n": np.random.default_rng(0).permutation(3000)})
    pq.write_table(table, path, row_group_size=1000, use_dictionary=False, write_page_checksum=True)
    where = pq.read_metadata(path).row_group(1).column(0)
    raw = bytearray(path.read_bytes())
    raw[where.data_page_offset + where.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(raw)
    source = source_of([str(path)])
    assert source.sample(0, Moment())[0] == table["n"][0].as_py()
    with pytest.raises(DecodeError, match=r"a\.parquet, row group 1 is damaged"):
        source.sample(1500, Moment())


def test_it_pickles(paths):
    source = source_of(paths)
    read(source, [3])
    assert read(pickle.loads(pickle.dumps(source)), [38])[0]["n"] == 38


def test_other_data_have_another_fingerprint(paths):
    assert source_of(paths).fingerprint() == source_of(paths).fingerprint()
    assert source_of(paths).fingerprint() != source_of(paths[:1]).fingerprint()
