"""Options of images by input: a size, an interpolation and channels for each."""

import cv2
import keras
import numpy as np
import pytest

import kloaders as kl
from kloaders.sources.columns import inner_column
from tests.support.mds_files import write_mds
from tests.support.recording import BACKEND, Received, Recorder
from tests.support.tar_files import write_tar

N = 12


@pytest.fixture
def pictures(tmp_path):
    """Pictures whose pixels are their numbers, of two sizes."""
    for name, side in (("a", 8), ("b", 6)):
        (tmp_path / name).mkdir()
        for n in range(N):
            cv2.imwrite(str(tmp_path / name / f"{n:02}.png"), np.full((side, side, 3), n, np.uint8))
    return {name: f"{tmp_path}/{name}/*.png" for name in "ab"}


OPTIONS = {"size": {"a": (4, 5), "b": 3}, "channels": {"a": 1}, "interpolation": {"b": "nearest"}}


@pytest.mark.parametrize("kind", [kl.PathSequenceLoader, kl.RamBatchSequenceLoader])
def test_each_input_has_its_own(pictures, keep, kind):
    more = {"ram_batch_size": 12} if kind is kl.RamBatchSequenceLoader else {"cache": "ram"}
    loader = keep(kind(pictures, np.arange(N), 4, shuffle=False, **OPTIONS, **more))
    for made in (loader, keep(loader.view()), keep(kl.split(loader, validation=0.25, seed=1)[0])):
        x, y = made[0]
        assert x["a"].shape == (4, 4, 5, 1)
        assert x["b"].shape == (4, 3, 3, 3)
        for name in "ab":
            assert x[name][:, 0, 0, 0].tolist() == y.tolist()
    columns = loader.source.columns[0].values()
    read = [inner_column(column).read_path.options for column in columns]
    assert [one.interpolation for one in read] == ["auto", "nearest"]


def test_a_model_trains_on_each_sample_once_an_epoch(pictures, keep):
    loader = keep(kl.PathSequenceLoader(pictures, np.zeros(N), 5, seed=1, **OPTIONS))
    received = Received()
    a = keras.Input((4, 5, 1), name="a")
    b = keras.Input((3, 3, 3), name="b")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1.0)(a))
    seen = Recorder(received)(flat)
    both = keras.layers.Concatenate()([seen, keras.layers.Flatten()(b)])
    model = keras.Model({"a": a, "b": b}, keras.layers.Dense(1)(both))
    model.compile("sgd", "mse", **({"jit_compile": False} if BACKEND == "tensorflow" else {}))
    model.fit(loader, epochs=2, verbose=0)
    trained = [n for batch in received.trained for n in batch]
    assert sorted(trained[:N]) == sorted(trained[N:]) == list(range(N))


def test_front_doors_pass_them_on(pictures, tmp_path, keep):
    folders = {name: tmp_path / name for name in "ab"}
    whole, _ = kl.from_folders(folders, validation=None, batch_size=4, **OPTIONS)
    assert {name: x.shape[1:] for name, x in keep(whole)[0].items()} == {
        "a": (4, 5, 1),
        "b": (3, 3, 3),
    }


def test_a_pack_made_with_other_options_is_another_one(pictures, tmp_path, keep):
    for side in (3, 4):
        options = {**OPTIONS, "size": {"a": (4, 5), "b": side}}
        loader = keep(kl.PathSequenceLoader(pictures, np.arange(N), 4, **options))
        kl.write_pack(loader, tmp_path / "pack", progress=False, overwrite=side == 4)
        pack = keep(kl.PackSequenceLoader(tmp_path / "pack", 4))
        assert pack[0][0]["b"].shape == (4, side, side, 3)


def encoded(n, side):
    return cv2.imencode(".png", np.full((side, side, 3), n, np.uint8))[1].tobytes()


ROWS = [(encoded(n, 8), encoded(n, 6), n, encoded(n, 7)) for n in range(N)]


def records(folder, **options):
    features = dict(zip(("a", "b", "n", "mask"), map(list, zip(*ROWS, strict=True)), strict=True))
    files = kl.write_tfrecords(None, out=folder / "train", features=features, progress=False)
    return kl.TFRecordSequenceLoader(files.files, {"x": {"a": "a", "b": "b"}, "y": "n"}, **options)


def tars(folder, **options):
    members = {}
    for n, (a, b, label, mask) in enumerate(ROWS):
        values = {"a.png": a, "b.png": b, "cls": str(label).encode(), "mask.png": mask}
        members |= {f"{n:02}.{name}": value for name, value in values.items()}
    file = write_tar(folder / "a.tar", members)
    return kl.TarSequenceLoader(file, x={"a": "a.png", "b": "b.png"}, y="cls", **options)


def parquets(folder, **options):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    columns = dict(zip(("a", "b", "n", "mask"), zip(*ROWS, strict=True), strict=True))
    parquet.write_table(pa.table(columns), folder / "a.parquet")
    options = {"x": {"a": "a", "b": "b"}, "y": "n", **options}
    return kl.ParquetSequenceLoader(folder / "a.parquet", **options)


def mds(folder, **options):
    samples = [{"a": a, "b": b, "n": n, "mask": mask} for a, b, n, mask in ROWS]
    columns = {"a": "png", "b": "png", "n": "int", "mask": "png"}
    write_mds(folder / "mds", columns, samples)
    return kl.MDSSequenceLoader(folder / "mds", x={"a": "a", "b": "b"}, y="n", **options)


def huggingface(_, **options):
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    rows = [{"a": {"bytes": a}, "b": {"bytes": b}, "n": n} for a, b, n, _ in ROWS]
    features = {"a": datasets.Image(), "b": datasets.Image(), "n": datasets.Value("int64")}
    dataset = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    return kl.from_huggingface(dataset, {"a": "a", "b": "b"}, "n", **options)


KINDS = [records, tars, parquets, mds, huggingface]


@pytest.mark.parametrize("make", KINDS)
def test_images_in_records_and_rows_have_their_own(tmp_path, keep, make):
    """In storage order and out of it, from RAM, and in what is made of the loader."""
    if make is records:
        pytest.importorskip("tensorflow")
    loader = keep(make(tmp_path, batch_size=4, cache="ram", **OPTIONS))
    kl.write_pack(loader, tmp_path / "pack", progress=False)
    part = keep(kl.split(loader, validation=0.25, seed=1)[0])
    for made in (loader, part, keep(kl.PackSequenceLoader(tmp_path / "pack", 4))):
        seen = []
        for _ in range(2):
            for x, y in made.epoch_batches(shuffle=True):
                assert x["a"].shape[1:] == (4, 5, 1)
                assert x["b"].shape[1:] == (3, 3, 3)
                for name in "ab":
                    assert x[name][:, 0, 0, 0].tolist() == y.tolist()
                seen += y.tolist()
        assert len(set(seen)) == made.samples
    assert loader.image_options.size == (4, 5)
    assert loader.input_options["b"]["interpolation"] == "nearest"


def test_labels_that_are_images_of_rows(tmp_path, keep):
    """As stored where size= is a dict by input, and as label_options says."""
    for options, side in (({}, 7), ({"label_options": {"size": 2}}, 2)):
        loader = keep(parquets(tmp_path, y="mask", batch_size=4, size={"a": 4}, **options))
        x, y = loader[0]
        assert (x["a"].shape[1], x["b"].shape[1], y.shape[1]) == (4, 6, side)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"x": "a", "size": {"a": 4}}, "is a dict by input, but x is a str: pass x as a dict"),
        ({"size": {"c": 4}}, "names 'c', expected some of the inputs: 'a', 'b'"),
        ({"channels": {"a": 2}}, "channels=2, expected 1"),
        (
            {"size": {"a": 4}, "decode": len},
            r"size=\(4, 4\) is for images that this loader decodes",
        ),
    ],
    ids=["one", "unknown", "channels", "decode"],
)
def test_what_cannot_be_meant_of_rows(tmp_path, options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        parquets(tmp_path, **options)


def test_what_cannot_be_meant_of_records(tmp_path):
    pytest.importorskip("tensorflow")
    records(tmp_path).close()
    files = f"{tmp_path}/train*.tfrecord"
    with pytest.raises(TypeError, match=r"but features\['x'\] is a str: pass .* as a dict"):
        kl.TFRecordSequenceLoader(files, {"x": "a"}, size={"a": 4})
    with pytest.raises(ValueError, match="names 'c', expected some of the inputs: 'a', 'b'"):
        kl.TFRecordSequenceLoader(files, {"x": {"a": "a", "b": "b"}}, size={"c": 4})


def test_a_loader_that_decodes_no_images_says_so():
    with pytest.raises(TypeError, match="size"):
        kl.from_source(list(range(4)), 2, size={"a": 4})
    with pytest.raises(TypeError, match="size"):
        kl.ArraySequenceLoader({"a": np.arange(4)}, size={"a": 4})


class Own(kl.PathSequenceLoader):
    def load_sample(self, path):
        return cv2.imread(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda p: kl.PathSequenceLoader(p["a"], size={"a": 4}),
            "is a dict by input, but paths is a str",
        ),
        (
            lambda p: kl.PathSequenceLoader(p, size={"c": 4}),
            "names 'c', expected some of the inputs: 'a', 'b'",
        ),
        (lambda p: kl.PathSequenceLoader(p, size={}), "expected some of the inputs"),
        (
            lambda p: kl.PathSequenceLoader(p, size={"a": "big"}),
            "size='big', expected two integers",
        ),
        (lambda p: kl.PathSequenceLoader(p, channels={"a": 2}), "channels=2, expected 1"),
        (
            lambda p: kl.PathSequenceLoader(p, np.arange(N), size={"a": 4}).set(size=3),
            "separate options",
        ),
        (lambda p: Own(p, size={"a": 4}), "Own reads files itself"),
        (
            lambda p: kl.PathSequenceLoader(p, lambda path: path, size={"a": 4}),
            r"labels are files and size= is a dict.*label_options",
        ),
    ],
    ids=["one", "unknown", "empty", "size", "channels", "set", "hook", "labels"],
)
def test_what_cannot_be_meant(pictures, make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make(pictures)


def test_labels_that_are_files_have_the_size_that_is_said(pictures, keep):
    loader = keep(
        kl.PathSequenceLoader(
            pictures, lambda path: path, 4, size={"a": 4}, label_options={"size": 2}
        )
    )
    x, y = loader[0]
    assert (x["a"].shape[1], x["b"].shape[1], y.shape[1]) == (4, 6, 2)
