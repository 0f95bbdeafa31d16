"""Records as other people's programs write them: TFX, YouTube-8M, and what they leave out."""

import gzip

import numpy as np
import pytest

import kloaders as kl
from kloaders.formats.tfrecord.examples import encode_example
from kloaders.formats.tfrecord.framing import framed
from tests.support.sequence_examples import list_with_context, sequence_example

SAMPLES = 12
NOISE = np.random.default_rng(0)
RGB = NOISE.integers(0, 256, (SAMPLES, 6, 1024), np.uint8)
AUDIO = NOISE.integers(0, 256, (SAMPLES, 6, 128), np.uint8)


def write(path, records, compress=bytes):
    path.write_bytes(compress(b"".join(framed(record) for record in records)))
    return path


def seen_labels(loader):
    return sorted(int(n) for _, y in loader for n in np.asarray(y).reshape(-1))


def test_youtube_8m_videos(tmp_path, keep):
    """An Example a video: means over its frames, and as many labels as it has."""
    means = NOISE.random((SAMPLES, 1024)).astype(np.float32)
    records = [
        encode_example(
            {
                "id": f"v{k}",
                "labels": [k] * (1 + k % 3),
                "mean_rgb": means[k],
                "mean_audio": [0.5] * 128,
            }
        )
        for k in range(SAMPLES)
    ]
    path = write(tmp_path / "train00.tfrecord", records)

    def first_label(x, y, rng):
        return x, y[:1]

    features = {"x": "mean_rgb", "y": kl.Feature("labels", shape=(None,))}
    loader = keep(
        kl.TFRecordSequenceLoader(path, features, 1, shuffle=True, seed=1, transform=first_label)
    )
    seen = []
    for x, y in loader:
        np.testing.assert_array_equal(x, means[y[:, 0]])
        seen += y[:, 0].tolist()
    assert sorted(seen) == list(range(SAMPLES))


def test_youtube_8m_frames(tmp_path, keep):
    """A SequenceExample a video: each frame's features are bytes."""
    records = [
        sequence_example(
            {"id": f"v{k}".encode(), "labels": [k]},
            {
                "rgb": [row.tobytes() for row in RGB[k]],
                "audio": [row.tobytes() for row in AUDIO[k]],
            },
        )
        for k in range(SAMPLES)
    ]
    path = write(tmp_path / "frame00.tfrecord", records)
    features = {
        "x": {
            "rgb": kl.Feature(shape=(None, 1024), dtype="uint8"),
            "audio": kl.Feature(shape=(None, 128), dtype="uint8"),
        },
        "y": "labels",
    }
    loader = keep(kl.TFRecordSequenceLoader(path, features, 4, shuffle=True, seed=1))
    seen = []
    for x, y in loader:
        np.testing.assert_array_equal(x["rgb"], RGB[y])
        np.testing.assert_array_equal(x["audio"], AUDIO[y])
        seen += y.tolist()
    assert sorted(seen) == list(range(SAMPLES))


def test_videos_of_unequal_length_are_padded(tmp_path, keep):
    records = [
        sequence_example({"labels": [k]}, {"score": [float(k)] * (1 + k % 4)})
        for k in range(SAMPLES)
    ]
    path = write(tmp_path / "a.tfrecord", records)
    features = {"x": kl.Feature("score", shape=(None,)), "y": "labels"}
    loader = keep(kl.TFRecordSequenceLoader(path, features, 4, seed=1))
    loader = keep(kl.bucket_by_length(loader, [1 + k % 4 for k in range(SAMPLES)]))
    for x, y in loader:
        np.testing.assert_array_equal((x != 0).sum(axis=1), np.where(y == 0, 0, 1 + y % 4))
    assert seen_labels(loader) == list(range(SAMPLES))


def test_tfx_examples(tmp_path, keep):
    """Gzipped shards in a folder of the split; a value that a row lacks is a feature without a kind."""
    empty = b"\x0a\x0e\x0a\x0c\x0a\x08trip_tip\x12\x00"  # Features of one such feature
    folder = tmp_path / "Split-train"
    folder.mkdir()
    for shard in range(2):
        records = []
        for k in range(shard * 6, shard * 6 + 6):
            row = {"fare": [k / 2], "company": ["Blue" if k % 2 else "Red"], "n": [k]}
            record = encode_example(row if k % 3 == 0 else {**row, "trip_tip": [float(k)]})
            records.append(record + empty if k % 3 == 0 else record)
        write(folder / f"data_tfrecord-{shard:05}-of-00002.gz", records, gzip.compress)
    features = {
        "x": {"fare": "fare", "tip": kl.Feature("trip_tip", default=-1.0), "n": "n"},
        "y": "company",
    }
    loader = keep(
        kl.TFRecordSequenceLoader(
            folder / "data_tfrecord-*.gz", features, 4, class_names=["Red", "Blue"], seed=1
        )
    )
    assert loader.class_names == ["Red", "Blue"]
    seen = []
    for x, y in loader:
        np.testing.assert_array_equal(x["fare"], x["n"] / 2)
        np.testing.assert_array_equal(x["tip"], np.where(x["n"] % 3 == 0, -1, x["n"]))
        np.testing.assert_array_equal(y, x["n"] % 2)
        seen += x["n"].tolist()
    assert sorted(seen) == list(range(SAMPLES))


def test_raw_pixels_need_no_features(tmp_path, keep):
    pixels = NOISE.integers(0, 256, (SAMPLES, 4, 6, 3), np.uint8)
    sizes = {"height": 4, "width": 6, "depth": 3}
    records = [
        encode_example({"image_raw": pixels[k].tobytes(), "label": k, **sizes})
        for k in range(SAMPLES)
    ]
    loader = keep(kl.TFRecordSequenceLoader(write(tmp_path / "a", records), None, 4, seed=1))
    for x, y in loader:
        np.testing.assert_array_equal(x, pixels[y])
    assert seen_labels(loader) == list(range(SAMPLES))


def test_labels_in_words_need_no_features(tmp_path, keep):
    records = [encode_example({"x": [float(k), 0.5], "label": "ab"[k % 2]}) for k in range(4)]
    path = write(tmp_path / "a", records)
    loader = keep(kl.TFRecordSequenceLoader(path, None, 4, class_names=["a", "b"]))
    assert loader[0][1].tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match="class_names holds 'a' twice"):
        kl.TFRecordSequenceLoader(path, None, 4, class_names=["a", "a"])


def test_a_list_of_examples_is_named(tmp_path):
    path = write(tmp_path / "ranking", [list_with_context({"q": b"query"}, [{"x": 1}, {"x": 2}])])
    with pytest.raises(kl.SampleError, match=r"ranking, record 0 .* is an ExampleListWithContext"):
        kl.TFRecordSequenceLoader(path, {"x": "x"}, 1)


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_an_empty_file_is_no_records(tmp_path, keep, caplog, policy):
    write(tmp_path / "0.tfrecord", [])
    write(tmp_path / "1.tfrecord", [encode_example({"x": 1.0, "label": k}) for k in range(4)])
    write(tmp_path / "2.tfrecord", [])
    files = tmp_path / "*.tfrecord"
    loader = keep(kl.TFRecordSequenceLoader(files, {"x": "x", "y": "label"}, 4, on_error=policy))
    assert loader[0][1].tolist() == [0, 1, 2, 3]
    assert loader.errors == []
    assert "0.tfrecord and 1 other files are empty (0 bytes) and left out" in caplog.text
    with pytest.raises(kl.DecodeError, match=r"0\.tfrecord is empty"):
        kl.TFRecordSequenceLoader(files, {"x": "x"}, 4)
    with pytest.raises(kl.DecodeError, match=r"0\.tfrecord is empty"):
        kl.TFRecordSequenceLoader(tmp_path / "0.tfrecord", {"x": "x"}, 4, on_error=policy)


@pytest.mark.parametrize(
    ("record", "features", "options", "said"),
    [
        (sequence_example({}, {"x": [1.0, 2.0]}), {"x": "x"}, {}, "is a feature list of a SequenceExample"),
        (encode_example({"x": 1.0, "y": "a"}), {"x": "x", "y": "y"}, {"class_names": ["a"]}, "class_names="),
        (
            encode_example({"x": bytes(12), "height": 2, "width": 2}), {"x": "x"}, {},
            "'x' holds raw pixels",
        ),
    ],
    ids=["sequence", "words", "pixels"],
)  # fmt: skip
def test_what_tensorflow_alone_does_not_read_so(tmp_path, keep, record, features, options, said):
    pytest.importorskip("tensorflow")
    path = write(tmp_path / "a", [record] * 4)
    loader = keep(kl.TFRecordSequenceLoader(path, features, 2, **options))
    with pytest.raises(ValueError, match=said):
        kl.to_tf_dataset(loader, native=True)
