"""Loaders for any path: folders, tables, packs and records."""

import json

import numpy as np
import pytest

import kloaders as kl
from kloaders.cli.options import (
    ImageShape,
    TableColumns,
)
from kloaders.cli.sources import any_loader, loader_of
from tests.support.commands import invoke
from tests.support.mds_files import write_mds
from tests.support.object_server import serving
from tests.support.range_files import SAMPLES, made, put_folder


def test_any_source_is_taken(photos, tmp_path):
    """A folder of files, a CSV file, a pack and records, as well as a folder of classes."""
    paths = sorted(map(str, photos.glob("*/*.jpg")))
    (tmp_path / "list.csv").write_text(
        "path,label\n" + "".join(f"{p},{k % 2}\n" for k, p in enumerate(paths))
    )
    loader = kl.PathSequenceLoader(paths, np.arange(20) % 2, 4, size=(8, 8))
    kl.write_pack(loader, tmp_path / "pack", progress=False)
    kl.write_tfrecords(paths, np.arange(20) % 2, tmp_path / "records/a", progress=False)
    for source, kind in (
        (photos, "PathSequenceLoader, 20"),
        (photos / "bird", "PathSequenceLoader, 10"),
        (tmp_path / "list.csv", "PathSequenceLoader, 20"),
        (tmp_path / "pack", "PackSequenceLoader, 20"),
        (tmp_path / "records", "TFRecordSequenceLoader, 20"),
        (next((tmp_path / "records").glob("a*.tfrecord")), "TFRecordSequenceLoader, 20"),
    ):
        size = () if "Pack" in kind else ("--size", 8, 8)
        done = invoke("explain", source, *size, "--json", "--seconds", 0.1)
        assert json.loads(done.stdout)["loader"].startswith(kind)


def test_columns_of_a_table(photos, tmp_path):
    """By their names, below a folder; "" is no labels."""
    (tmp_path / "list.csv").write_text("file,kind,other\nbird/0.jpg,a,1\nboat/1.jpg,b,2\n")
    table = TableColumns("file", "kind", str(photos))
    loader = loader_of(str(tmp_path / "list.csv"), table, size=(4, 4))
    assert loader.class_names == ["a", "b"]
    assert loader.paths[1] == f"{photos}/boat/1.jpg"
    without = loader_of(str(tmp_path / "list.csv"), TableColumns("file", None, str(photos)))
    assert len(without.source.columns) == 1


@pytest.mark.parametrize("name", ["", "bird"])
def test_images_that_differ_in_size_are_resized(photos, caplog, name):
    """And that is reported; a size that was given is taken."""
    with caplog.at_level("INFO", "kloaders"):
        loader = any_loader(str(photos / name), TableColumns(), ImageShape(None, 1), 4)
    assert loader[0][0].shape[-3:] == (224, 224, 1) or loader[0].shape[1:] == (224, 224, 1)
    assert "images differ in size: they are resized to 224 x 224" in caplog.text
    given = any_loader(str(photos / name), TableColumns(), ImageShape((8, 9)), 4)
    assert given.image_options.size == (8, 9)


def test_tar_parquet_and_mds(tmp_path):
    """By what columns are called, on a disk and at a URL; what cannot be told is asked for."""
    pytest.importorskip("obstore", reason="needs the extra `cloud`")
    pytest.importorskip("pyarrow", reason="needs the extra `parquet`")
    with serving() as server:
        for kind in ("tar", "parquet", "mds", "pack", "tfrecord"):
            folder = made(kind, tmp_path / kind)
            if kind == "tfrecord":
                for path in (tmp_path / kind).glob("part*"):
                    path.rename(path.with_suffix(".tfrecord"))
            url = put_folder(server, folder, kind)
            for source in (folder, url):
                loader = any_loader(source, TableColumns(), ImageShape(), 4)
                assert loader.samples == SAMPLES
                x, y = loader[0]
                assert x[:, 0].tolist() == y.tolist()
                loader.close()
    write_mds(tmp_path / "other", {"a": "int"}, [{"a": 1}])
    with pytest.raises(TypeError, match="got no x=, the columns of the input: there are a"):
        any_loader(str(tmp_path / "other"), TableColumns(), ImageShape(), 4)
