"""MDS folders: each sample once, whatever the order, without the package that wrote them."""

import json

import numpy as np
import pytest

import kloaders as kl
from tests.support.mds_files import write_mds
from tests.support.tar_files import png_bytes

SAMPLES = 26
PICTURES = np.random.default_rng(0).integers(0, 256, (SAMPLES, 6, 8, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    rows = [{"image": png_bytes(PICTURES[n]), "label": n} for n in range(SAMPLES)]
    return write_mds(tmp_path / "data", {"image": "png", "label": "int"}, rows, shard_size=7)


@pytest.mark.parametrize(
    "options",
    [{"workers": 0}, {}, {"processes": True, "workers": 2}, {"ram_batch_size": 12}],
    ids=["inline", "threads", "processes", "ram"],
)
def test_each_sample_comes_once_shuffled_as_a_whole(folder, keep, options):
    loader = keep(
        kl.MDSSequenceLoader(folder, 4, x="image", y="label", shuffle=True, seed=1, **options)
    )
    seen = []
    for x, y in loader:
        np.testing.assert_array_equal(x, PICTURES[y])
        seen += y.tolist()
    assert sorted(seen) == list(range(SAMPLES))
    assert len({n // 7 for n in seen[:8]}) > 1


def test_several_folders_are_one(folder, tmp_path, keep):
    other = write_mds(
        tmp_path / "other", {"image": "png", "label": "int"},
        [{"image": png_bytes(PICTURES[0]), "label": 100 + n} for n in range(3)],
    )  # fmt: skip
    loader = keep(kl.MDSSequenceLoader([folder, other], 29, x="image", y="label"))
    assert loader[0][1].tolist() == [*range(SAMPLES), 100, 101, 102]


def test_a_run_goes_on_where_it_was(folder, keep):
    def loader():
        return keep(kl.MDSSequenceLoader(folder, 4, x="image", y="label", shuffle=True, seed=5))

    whole = [y.tolist() for _, y in loader()]
    first = loader()
    batches = iter(first)
    begun = [next(batches)[1].tolist() for _ in range(3)]
    second = loader()
    second.load_state_dict(first.state_dict())
    assert begun + [y.tolist() for _, y in second] == whole


def test_what_is_broken_is_named_and_left_out(tmp_path, keep):
    rows = [{"image": png_bytes(PICTURES[n])[: 40 if n == 2 else None], "n": n} for n in range(5)]
    folder = write_mds(tmp_path, {"image": "png", "n": "int"}, rows)
    loader = keep(kl.MDSSequenceLoader(folder, 5, x="image", y="n", on_error="skip"))
    assert loader[0][1].tolist() == [0, 1, 3, 4]
    assert loader.errors[0].name.startswith(f"{tmp_path / 'shard.00000.mds'}, sample 2 at byte ")
    assert "'image' is truncated" in loader.errors[0].cause


def test_without_x_the_columns_are_listed(folder):
    with pytest.raises(TypeError, match=r"got no x=, .*: there are image, label"):
        kl.MDSSequenceLoader(folder)


def test_what_is_no_folder_of_mds(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"index\.json does not exist"):
        kl.MDSSequenceLoader(tmp_path, x="image")
    (tmp_path / "index.json").write_text(json.dumps({"shards": []}))
    with pytest.raises(ValueError, match="contain no shards"):
        kl.MDSSequenceLoader(tmp_path, x="image")


def test_bit_equal_to_mosaicml_streaming(tmp_path, keep):
    pytest.importorskip("streaming", reason="mosaicml-streaming is not installed")
    from PIL import Image
    from streaming.base.format.mds.reader import MDSReader
    from streaming.base.format.mds.writer import MDSWriter

    columns = {
        "png": "png",
        "jpeg": "jpeg",
        "pil": "pil",
        "pngs": "list[png]",
        "n": "int",
        "array": "ndarray",
        "row": "ndarray:float32",
        "fixed": "ndarray:int16:2,3",
        "f16": "float16",
        "u32": "uint32",
        "digits": "str_int",
        "text": "str",
        "json": "json",
    }
    with MDSWriter(columns=columns, out=str(tmp_path / "w"), size_limit=4000) as writer:
        for n in range(SAMPLES):
            image = Image.fromarray(PICTURES[n])
            writer.write(
                {
                    "png": image,
                    "jpeg": image,
                    "pil": image,
                    "pngs": [image, image],
                    "n": n,
                    "array": np.full((2, n + 1), n, np.uint8)[:, :1],
                    "row": np.full(300, n, np.float32),
                    "fixed": np.full((2, 3), n, np.int16),
                    "f16": n / 2,
                    "u32": n,
                    "digits": n,
                    "text": "ab"[n % 2],
                    "json": {"n": n},
                }
            )
    content = json.loads((tmp_path / "w" / "index.json").read_text())
    readers = [MDSReader.from_json(str(tmp_path / "w"), None, s) for s in content["shards"]]
    theirs = [reader[k] for reader in readers for k in range(len(reader))]
    assert len(readers) > 3
    assert len(theirs) == SAMPLES
    x = {name: name for name in columns if name not in ("text", "json")} | {"json": "json:n"}
    loader = keep(
        kl.MDSSequenceLoader(
            tmp_path / "w", SAMPLES, x=x, y="text", class_names=["a", "b"], shuffle=False
        )
    )
    x, y = loader[0]
    for n, want in enumerate(theirs):
        for name in ("png", "jpeg", "pil"):
            np.testing.assert_array_equal(x[name][n], np.asarray(want[name]))
        np.testing.assert_array_equal(x["pngs"][n], [np.asarray(i) for i in want["pngs"]])
        for name in ("n", "array", "row", "fixed", "f16", "u32", "digits"):
            np.testing.assert_array_equal(x[name][n], want[name])
            assert name in ("n", "digits") or x[name].dtype == want[name].dtype
        assert (x["json"][n], "ab"[y[n]]) == (want["json"]["n"], want["text"])
