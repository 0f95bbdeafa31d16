"""The converter to TFRecord files: what is written, what does not read, kills, the command."""

import glob
import gzip
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import kloaders as kl
from kloaders.cli import main as cli
from kloaders.convert import record_samples
from kloaders.formats.tfrecord.examples import encode_example, parse_example
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.tfrecord.framing import framed
from tests.support.recording import numbers_of, picture_of
from tests.support.tfrecords import SAMPLES, everything, png

tf = pytest.importorskip("tensorflow")


@pytest.mark.parametrize("compression", [None, "GZIP", "ZLIB"])
def test_tensorflow_reads_ours(pictures, tmp_path, compression):
    """TFRecordDataset and a FixedLenFeature parser, with equal content."""
    paths, labels = pictures
    written = kl.write_tfrecords(
        paths, labels, tmp_path / "out" / "train", shards=3, compression=compression, progress=False
    )
    assert [os.path.basename(file) for file in written.files] == [
        f"train-{k:05}-of-00003.tfrecord" for k in range(3)
    ]
    assert (written.samples, written.errors, written.validation) == (SAMPLES, [], [])
    spec = {
        "image_raw": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
        "id": tf.io.FixedLenFeature([], tf.string),
    }
    dataset = tf.data.TFRecordDataset(written.files, compression or "").map(
        lambda raw: tf.io.parse_single_example(raw, spec)
    )
    found = [{k: v.numpy() for k, v in one.items()} for one in dataset]
    assert [one["image_raw"] for one in found] == [png(n) for n in range(SAMPLES)]
    assert [one["label"] for one in found] == labels.tolist()
    assert [one["id"].decode() for one in found] == paths


def test_what_is_written_of_each_kind(tmp_path, keep, pictures):
    """Texts, bytes, integers, floats, arrays with shape and dtype; labels of several forms."""
    paths, labels = pictures
    rng = np.random.default_rng(0)
    matrix = rng.random((SAMPLES, 2, 3))
    masks = paths[::-1]
    written = kl.write_tfrecords(
        {"left": paths, "vector": matrix[:, 0].astype(np.float32)},
        {"class": labels, "box": rng.random((SAMPLES, 4)), "mask": masks},
        tmp_path / "a",
        features={
            "caption": [f"picture {n}" for n in range(SAMPLES)],
            "matrix": matrix,
            "rating": [n / 2 for n in range(SAMPLES)],
            "tags": [["a", "b"]] * SAMPLES,
            "stem": lambda path: os.path.basename(path)[:3],
        },
        progress=False,
    )
    features = parse_example(RecordFiles(written.files).read(4))
    assert features["caption"] == [b"picture 4"]
    assert features["stem"] == [b"004"]
    assert features["tags"] == [b"a", b"b"]
    assert features["rating"].tolist() == [2.0]
    assert features["matrix/shape"].tolist() == [2, 3]
    assert features["id"] == [paths[4].encode()]
    x, y = everything(
        keep(
            kl.TFRecordSequenceLoader(
                written.files,
                {
                    "x": {"a": "left", "b": "matrix", "c": "vector"},
                    "y": {"class": "class", "mask": "mask"},
                },
                8,
            )
        )
    )
    assert numbers_of(x["a"]) == list(range(SAMPLES))
    np.testing.assert_array_equal(x["b"], matrix)
    np.testing.assert_array_equal(x["c"], matrix[:, 0].astype(np.float32))
    assert y["class"].tolist() == labels.tolist()
    assert numbers_of(y["mask"]) == list(range(SAMPLES))[::-1]


def test_arrays_in_files(tmp_path, keep):
    """Of .npy files the array is written, so that it is read at memory speed."""
    paths = []
    for n in range(10):
        np.save(tmp_path / f"{n}.npy", picture_of(n, 32))
        paths.append(tmp_path / f"{n}.npy")
    written = kl.write_tfrecords(paths, np.arange(10), tmp_path / "a", progress=False)
    loader = keep(kl.TFRecordSequenceLoader(written.files, {"x": "image_raw", "y": "label"}, 4))
    for _ in range(2):
        x, y = everything(loader)
        assert numbers_of(x) == y.tolist() == list(range(10))
    assert loader.records._layouts


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64"])
def test_a_loader_is_written(tmp_path, keep, dtype):
    x = np.stack([picture_of(n) for n in range(SAMPLES)]).astype(dtype)
    y = np.arange(SAMPLES, dtype=np.int32)
    source = kl.ArraySequenceLoader(x, y, 4, sample_weights=y + 1.0)
    written = kl.write_tfrecords(source, out=tmp_path / "a", shards=2, progress=False)
    found, labels, *_ = everything(keep(kl.TFRecordSequenceLoader(written.files, None, 4)))
    np.testing.assert_array_equal(found, x)
    assert (found.dtype, labels.dtype) == (dtype, np.int32)
    assert labels.tolist() == y.tolist()
    assert parse_example(RecordFiles(written.files).read(3))["weight"].tolist() == [4.0]


def test_samples_of_any_shape_are_written(tmp_path):
    source = kl.ArraySequenceLoader([np.full(1 + n % 3, n, np.int32) for n in range(10)], None, 2)
    written = kl.write_tfrecords(source, out=tmp_path / "a", progress=False)
    found = kl.TFRecordSequenceLoader(written.files, {"x": "x"}, 1)
    assert [found[n][0].tolist() for n in range(10)] == [[n] * (1 + n % 3) for n in range(10)]


def test_a_table_without_files(tmp_path, keep):
    written = kl.write_tfrecords(
        out=tmp_path / "a",
        paths_or_loader=None,
        features={"age": [30, 40, 50], "label": np.array([0, 1, 0])},
        progress=False,
    )
    x, y = everything(keep(kl.TFRecordSequenceLoader(written.files, None, 2)))
    assert (x.tolist(), y.tolist()) == ([30, 40, 50], [0, 1, 0])


def test_train_and_validation(pictures, tmp_path, keep):
    paths, labels = pictures
    written = kl.write_tfrecords(
        paths,
        labels,
        str(tmp_path / "out") + "/",
        shards=4,
        validation=0.25,
        stratify=True,
        seed=2,
        progress=False,
    )
    assert next(os.path.basename(p) for p in written.files) == "train-00000-of-00004.tfrecord"
    assert [os.path.basename(p) for p in written.validation] == [
        "validation-00000-of-00001.tfrecord"
    ]
    sides = [
        numbers_of(everything(keep(kl.TFRecordSequenceLoader(part, None, 4)))[0])
        for part in (written.files, written.validation)
    ]
    first, second = kl.split(paths, labels, 4, validation=0.25, stratify=True, seed=2)
    assert sides == [numbers_of(everything(part)[0]) for part in (first, second)]


def test_shuffled(pictures, tmp_path, keep):
    paths, labels = pictures
    numbers = []
    for name in "ab":
        written = kl.write_tfrecords(
            paths, labels, tmp_path / name, shuffle=True, seed=1, progress=False
        )
        numbers.append(
            numbers_of(everything(keep(kl.TFRecordSequenceLoader(written.files, None, 4)))[0])
        )
    assert numbers[0] == numbers[1] != sorted(numbers[0])


def test_files_that_do_not_read(pictures, tmp_path, keep, said):
    """By name at the end, or at once."""
    paths, labels = pictures
    with open(paths[3], "r+b") as file:
        file.truncate(30)
    os.unlink(paths[7])
    with open(paths[9], "wb"):
        pass
    with pytest.raises(FileNotFoundError, match=r"007.png does not exist"):
        kl.write_tfrecords(paths, labels, tmp_path / "a", progress=False)
    paths[7] = paths[6]
    with pytest.raises(kl.SampleError, match=r"sample 3 \(.*003.png\): .* truncated"):
        kl.write_tfrecords(paths, labels, tmp_path / "a", progress=False)
    written = kl.write_tfrecords(
        paths, labels, tmp_path / "b", shards=2, on_error="skip", progress=False
    )
    assert [error.index for error in written.errors] == [3, 9]
    assert written.samples == SAMPLES - 2
    assert "2 samples failed to load and were left out:" in said()
    assert "003.png): " in said()
    _, y = everything(keep(kl.TFRecordSequenceLoader(written.files, None, 4)))
    assert y.tolist() == [label for n, label in enumerate(labels) if n not in (3, 9)]


def test_errors_of_the_converter(pictures, tmp_path):
    paths, labels = pictures
    out = tmp_path / "a"
    for arguments, options, words in [
        ((paths, labels), {}, "out is missing"),
        ((None, None, out), {}, "nothing to write"),
        ((kl.ArraySequenceLoader(labels), labels, out), {}, "together with labels="),
        ((paths, labels, out), {"features": [1]}, "features is a list, expected a dict"),
        (
            (kl.ArraySequenceLoader(labels), None, out),
            {"features": {"a": len}},
            "is a function of the path, but ArraySequenceLoader has no paths",
        ),
    ]:
        with pytest.raises(TypeError, match=words):
            kl.write_tfrecords(*arguments, **options)
    for options, words in [
        ({"compression": "zip"}, "compression='zip' is not known"),
        ({"on_error": "replace"}, "on_error='replace' is not known here"),
        ({"shards": 0}, "shards=0 is too small"),
        ({"shards": 100}, "shards=100 for 23 samples: some files would be empty"),
        ({"stratify": True}, "stratify and groups need validation="),
        ({"features": {"a": [1, 2]}}, r"features\['a'\] has 2 values, but there are 23 samples"),
    ]:
        with pytest.raises(ValueError, match=words):
            kl.write_tfrecords(paths, labels, out, **options)
    assert not glob.glob(str(tmp_path / "a*"))


def test_nothing_is_replaced_unasked(pictures, tmp_path):
    paths, labels = pictures
    kl.write_tfrecords(paths, labels, tmp_path / "a", shards=3, progress=False)
    with pytest.raises(FileExistsError, match=r"a-00000-of-00003.tfrecord already exists"):
        kl.write_tfrecords(paths, labels, tmp_path / "a", shards=2, progress=False)
    kl.write_tfrecords(paths, labels, tmp_path / "ab", progress=False)  # another name
    kl.write_tfrecords(paths, labels, tmp_path / "a", shards=2, overwrite=True, progress=False)
    assert len(glob.glob(str(tmp_path / "a-*.tfrecord"))) == 2


def test_the_index_comes_with_the_files(pictures, tmp_path, monkeypatch):
    """No file is scanned or decompressed right after it was written."""
    paths, labels = pictures
    written = [
        kl.write_tfrecords(paths, labels, tmp_path / name, compression=kind, progress=False).files
        for name, kind in (("a", None), ("b", "GZIP"))
    ]
    for name in ("_walk", "_walk_stream"):
        monkeypatch.setattr(f"kloaders.formats.tfrecord.scan.{name}", None)
    for files in written:
        assert len(RecordFiles(files)) == SAMPLES


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes, ten pictures each."""
    for name, first in (("cat", 0), ("dog", 10)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(first, first + 10):
            (tmp_path / "photos" / name / f"{n:02}.png").write_bytes(png(n))
    return tmp_path / "photos"


def command(*arguments):
    return CliRunner().invoke(cli.cli, ["tfrecord", *map(str, arguments)])


def test_the_command_converts_a_folder(photos, tmp_path, keep):
    out = tmp_path / "records"
    done = command(photos, out, "--shards", 2, "--validation", "0.2", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["samples"] == 20
    assert report["class_names"] == ["cat", "dog"]
    assert report["errors"] == []
    assert report["files"] == [f"{out}/train-{k:05}-of-00002.tfrecord" for k in range(2)]
    x, y = everything(keep(kl.TFRecordSequenceLoader(report["files"], None, 4)))
    assert y.tolist() == [n // 10 for n in numbers_of(x)]
    val = keep(kl.TFRecordSequenceLoader(report["validation"], None, 4))
    assert sorted(everything(val)[1].tolist()) == [0, 0, 1, 1]
    assert parse_example(val.read_record(0))["class"] == [b"cat"]


def test_the_command_converts_a_table(photos, tmp_path, keep):
    table = tmp_path / "train.csv"
    lines = [f"{'dog' if n >= 10 else 'cat'}/{n:02}.png,{n}" for n in range(20)]
    table.write_text("\n".join(["file,number", *lines]))
    arguments = (table, tmp_path / "out", "--path-column", "file", "--folder", photos)
    done = command(*arguments, "--label-column", "number", "--compression", "gzip")
    assert done.exit_code == 0, done.output
    pattern = f"{tmp_path}/out/train-*.tfrecord"
    assert f"kl.TFRecordSequenceLoader({pattern!r}" in done.stdout
    x, y = everything(keep(kl.TFRecordSequenceLoader(pattern, None, 4)))
    assert numbers_of(x) == y.tolist() == list(range(20))
    again = command(*arguments, "--label-column", "")
    assert again.exit_code == 1
    assert "train-00000-of-00001.tfrecord already exists" in again.output
    anew = command(*arguments, "--label-column", "", "--overwrite")
    assert anew.exit_code == 0, anew.output
    assert keep(kl.TFRecordSequenceLoader(pattern, None, 4))[0].shape == (4, 4, 4, 3)


def test_the_command_and_a_broken_file(photos, tmp_path):
    (photos / "cat" / "03.png").write_bytes(b"")
    done = command(photos, tmp_path / "out")
    assert done.exit_code == 1
    assert "03.png is empty (0 bytes)" in done.output
    done = command(photos, tmp_path / "out", "--on-error", "skip", "--json")
    assert done.exit_code == 0
    (error,) = json.loads(done.stdout)["errors"]
    assert error["name"] == str(photos / "cat" / "03.png")


_KILLED = """
import sys, kloaders as kl
from kloaders.convert import record_samples
real = record_samples._content
def slow(name, path, count=[0]):
    count[0] += 1
    if count[0] == int(sys.argv[2]):
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    return real(name, path)
record_samples._content = slow
kl.write_tfrecords(sys.argv[3:], list(range(len(sys.argv) - 3)), sys.argv[1], shards=6,
                   compression={compression!r}, validation=0.3, workers=1, progress=False)
"""


@pytest.mark.parametrize(("compression", "after"), [(None, 1), ("GZIP", 12), (None, 20)])
def test_killed_and_gone_on(pictures, tmp_path, compression, after, monkeypatch):
    """The same files as without the kill; those that were finished are not made again."""
    paths, labels = pictures
    options = {"shards": 6, "compression": compression, "validation": 0.3, "progress": False}
    labels = list(range(SAMPLES))
    want = kl.write_tfrecords(paths, labels, tmp_path / "want", **options)
    out = str(tmp_path / "got")
    code = _KILLED.format(compression=compression)
    done = subprocess.run(
        [sys.executable, "-c", code, out, str(after), *paths],
        env={**os.environ, "KLOADERS_WORKER": "1"},  # without Keras, whose backend is one of many
        timeout=100,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    finished = glob.glob(out + "-*.tfrecord")
    times = {path: os.stat(path).st_mtime_ns for path in finished}
    assert bool(finished) == (after > 4)
    got = kl.write_tfrecords(paths, labels, out, workers=1, **options)
    assert {path: os.stat(path).st_mtime_ns for path in finished} == times
    for one, other in zip(want.files + want.validation, got.files + got.validation, strict=True):
        with open(one, "rb") as a, open(other, "rb") as b:
            assert a.read() == b.read()
    assert got.samples == SAMPLES
    left = [name for name in os.listdir(tmp_path) if "part" in name or "unfinished" in name]
    assert left == []


def test_a_source_that_changed_meanwhile_is_read_again(pictures, tmp_path, monkeypatch):
    paths, labels = pictures
    real = record_samples._content

    def failing(name, path):
        if path == paths[-1]:
            raise KeyboardInterrupt
        return real(name, path)

    monkeypatch.setattr(record_samples, "_content", failing)
    with pytest.raises(KeyboardInterrupt):
        kl.write_tfrecords(paths, labels, tmp_path / "a", shards=4, workers=1, progress=False)
    assert glob.glob(str(tmp_path / "a-*.tfrecord"))
    monkeypatch.setattr(record_samples, "_content", real)
    with open(paths[0], "wb") as file:
        file.write(png(500))
    written = kl.write_tfrecords(paths, labels, tmp_path / "a", shards=4, workers=1, progress=False)
    assert parse_example(RecordFiles(written.files).read(0))["image_raw"] == [png(500)]


def test_memory_stays_small(tmp_path):
    """Large files are read a few at a time, whatever their number."""
    path = tmp_path / "big.bin"
    path.write_bytes(bytes(10 << 20))
    source = record_samples.source_of([str(path)] * 50, None, None, "raise", 0)
    assert source.run == 1
    runs = source.runs(np.arange(50), 2)
    assert len(next(runs)[0]) > 10 << 20
    runs.close()


def test_gzip_of_others(write, keep):
    """gzip the command, not TensorFlow's writer, made it; and a second member follows."""
    plain = write([{"x": n} for n in range(4)])
    with open(plain, "rb") as file:
        raw = file.read()
    with open(plain + ".gz", "wb") as file:
        file.write(gzip.compress(raw) + gzip.compress(framed(encode_example({"x": 4}))))
    assert everything(keep(kl.TFRecordSequenceLoader(plain + ".gz"))).tolist() == [0, 1, 2, 3, 4]
