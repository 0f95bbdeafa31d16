"""Parquet files: each row once, whatever the order; row groups are read once per RAM batch."""

import glob

import numpy as np
import pytest

import kloaders as kl
from tests.support.tar_files import png_bytes

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet")

SAMPLES = 120
NOISE = np.random.default_rng(0)
TABLE = NOISE.normal(size=(SAMPLES, 3)).astype(np.float32)
PICTURES = NOISE.integers(0, 256, (SAMPLES, 6, 8, 3), np.uint8)


@pytest.fixture
def files(tmp_path):
    for k, numbers in enumerate(np.array_split(np.arange(SAMPLES), 3)):
        table = pa.table(
            {
                **{f"x{c}": TABLE[numbers, c] for c in range(3)},
                "row": list(TABLE[numbers]),
                "image": [{"bytes": png_bytes(PICTURES[n]), "path": f"{n}.png"} for n in numbers],
                "label": numbers,
                "name": ["cat" if n % 4 else "dog" for n in numbers],
            }
        )
        pq.write_table(table, tmp_path / f"part-{k}.parquet", row_group_size=10)
    return str(tmp_path / "part-*.parquet")


@pytest.mark.parametrize(
    "options",
    [{"workers": 0}, {}, {"processes": True, "workers": 2}, {"ram_batch_size": 48}],
    ids=["inline", "threads", "processes", "ram"],
)
def test_each_row_comes_once_shuffled_as_a_whole(files, keep, options):
    loader = keep(
        kl.ParquetSequenceLoader(
            files, 8, x={"image": "image", "row": ["x0", "x1", "x2"]}, y="label",
            shuffle=True, seed=1, **options,
        )
    )  # fmt: skip
    seen = []
    for x, y in loader:
        np.testing.assert_array_equal(x["image"], PICTURES[y])
        np.testing.assert_array_equal(x["row"], TABLE[y])
        seen += y.tolist()
    assert sorted(seen) == list(range(SAMPLES))
    assert len({n // 40 for n in seen[:16]}) == 3


def test_row_groups_are_read_once_for_each_ram_batch(files, keep):
    loader = keep(
        kl.ParquetSequenceLoader(
            files, 8, x="row", y="label", shuffle=True, seed=1, workers=0,
            ram_batch_size=40, row_group_cache=1,
        )
    )  # fmt: skip
    assert sorted(n for _, y in loader for n in y.tolist()) == list(range(SAMPLES))
    # 3 RAM batches of the 12 groups, one more where a part of a RAM batch ends in a group; and the
    # first sample, which tells the shape.
    assert loader.ram_batches_read == 3
    assert loader._rows._groups.reads <= 3 * (12 + 5) + 2


def test_a_warning_where_the_cache_is_too_small(files, keep, caplog):
    keep(kl.ParquetSequenceLoader(files, 8, x="row", shuffle=False, row_group_cache=100))
    keep(kl.ParquetSequenceLoader(files, 8, x="row", ram_batch_size=16, row_group_cache=100))
    assert "row groups" not in caplog.text
    keep(kl.ParquetSequenceLoader(files, 8, x="row", row_group_cache="100 B"))
    assert "row_group_cache= keeps only 100 bytes in RAM" in caplog.text


def test_classes_are_balanced_by_texts(files, keep):
    loader = keep(
        kl.ParquetSequenceLoader(
            files, 8, x="row", y="name", class_names=["cat", "dog"], class_balance=True, seed=1
        )
    )
    assert loader.class_names == ["cat", "dog"]
    for _, y in loader:
        assert np.bincount(y).tolist() == [4, 4]
    _, validation = kl.split(loader, validation=0.25, stratify=True, seed=1)
    labels = np.concatenate([y for _, y in validation.epoch_batches(shuffle=False)])
    # 90 of 120 rows are cats
    assert np.bincount(labels).tolist() in ([22, 8], [23, 7])


def test_a_run_goes_on_where_it_was(files, keep):
    def loader():
        return keep(kl.ParquetSequenceLoader(files, 8, x="row", y="label", shuffle=True, seed=5))

    whole = [y.tolist() for _, y in loader()]
    first = loader()
    batches = iter(first)
    begun = [next(batches)[1].tolist() for _ in range(4)]
    second = loader()
    second.load_state_dict(first.state_dict())
    assert begun + [y.tolist() for _, y in second] == whole


def test_what_is_broken_is_named_and_left_out(tmp_path, keep):
    content = [png_bytes(PICTURES[n]) for n in range(8)]
    content[3] = content[3][:40]
    content[5] = None
    pq.write_table(pa.table({"image": content, "n": np.arange(8)}), tmp_path / "a.parquet")
    loader = keep(
        kl.ParquetSequenceLoader(tmp_path / "a.parquet", 8, x="image", y="n", on_error="skip")
    )
    assert loader[0][1].tolist() == [0, 1, 2, 4, 6, 7]
    assert [e.name for e in loader.errors] == [
        f"{tmp_path / 'a.parquet'}, row {n} in row group 0" for n in (3, 5)
    ]
    assert "'image' is truncated" in loader.errors[0].cause
    assert "'image' is missing (null)" in loader.errors[1].cause


def test_bit_equal_to_pyarrow(files, keep):
    whole = pq.ParquetDataset(sorted(glob.glob(files))).read()
    loader = keep(kl.ParquetSequenceLoader(files, SAMPLES, x=("row", "x0"), y="label"))
    (row, x0), y = loader[0]
    np.testing.assert_array_equal(row, np.stack(whole["row"].to_numpy()))
    np.testing.assert_array_equal(x0, whole["x0"].to_numpy())
    np.testing.assert_array_equal(y, whole["label"].to_numpy())


def test_bad_options(files):
    with pytest.raises(
        TypeError, match=r"ParquetSequenceLoader\(\) got no x=, .* there are x0, x1"
    ):
        kl.ParquetSequenceLoader(files)
    with pytest.raises(ValueError, match="row_group_cache=0 must be more than 0"):
        kl.ParquetSequenceLoader(files, x="row", row_group_cache=0)
    with pytest.raises(TypeError, match="has no option row_group_cach="):
        kl.ParquetSequenceLoader(files, x="row", row_group_cach=1)
    with pytest.raises(FileNotFoundError, match="no file matches"):
        kl.ParquetSequenceLoader(files.replace("part", "art"), x="row")
