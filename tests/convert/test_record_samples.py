"""Samples as records: names of features, what each holds, in which order, and what does not load."""

import cv2
import numpy as np
import pytest

import kloaders as kl
from kloaders.convert.record_samples import LoaderSamples, RecordSource, source_of
from kloaders.core.errors import SampleError
from kloaders.formats.tfrecord.examples import parse_example
from kloaders.formats.tfrecord.framing import data_matches, length_of

SAMPLES = 40
X = np.arange(SAMPLES, dtype=np.float32).reshape(-1, 1)
Y = np.arange(SAMPLES)


@pytest.fixture
def made(keep):
    """made(data, labels=None, features=None) -> RecordSource, closed when the test ends."""
    kept = []

    def _made(data, labels=None, features=None, on_error="raise"):
        kept.append(source_of(data, labels, features, on_error, 0))
        return kept[-1]

    yield _made
    for source in kept:
        source.close()


def records(source, numbers=None, threads=3):
    """Features of each record, and errors, in the order in which they come."""
    numbers = np.arange(source.samples) if numbers is None else np.asarray(numbers)
    found = []
    for run in source.runs(numbers, threads):
        for one in run:
            if isinstance(one, SampleError):
                found.append(one)
                continue
            length = length_of(one[:12])
            assert len(one) == 12 + length + 4  # length, its checksum, data, their checksum
            assert data_matches(one)
            found.append(parse_example(one[12 : 12 + length]))
    return found


@pytest.fixture
def pngs(tmp_path):
    paths = [str(tmp_path / f"{n:02}.png") for n in range(SAMPLES)]
    for n, path in enumerate(paths):
        cv2.imwrite(path, np.full((4, 4, 3), n, np.uint8))
    return paths


# ---------------------------------------------------------------- files


def test_files_are_written_as_they_are(made, pngs):
    """Byte for byte, without decoding; the path is the id."""
    found = records(made(pngs, Y))
    for n, features in enumerate(found):
        with open(pngs[n], "rb") as file:
            assert features["image_raw"] == [file.read()]
        assert features["label"].tolist() == [n]
        assert features["id"] == [pngs[n].encode()]
        assert set(features) == {"image_raw", "label", "id"}
    assert len(found) == SAMPLES


def test_records_come_in_the_order_that_is_asked(made, pngs):
    """In order, for any timing of the threads."""
    order = np.random.default_rng(0).permutation(SAMPLES)
    for source in (made(pngs, Y), made(kl.ArraySequenceLoader(X, Y, 4))):
        assert [f["label"].tolist() for f in records(source, order)] == [[n] for n in order]


def test_arrays_in_files_are_written_as_arrays(made, npy):
    found = records(made(npy))
    for path, features in zip(npy, found, strict=True):
        np.testing.assert_array_equal(features["image_raw"], np.load(path))


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        (np.arange(SAMPLES, dtype=np.uint8), np.int64),
        (np.arange(SAMPLES) % 2 == 0, np.int64),
        (np.arange(SAMPLES, dtype=np.float64), np.float32),
    ],
    ids=["uint8", "bool", "float64"],
)
def test_labels_are_what_parsers_expect(made, pngs, labels, dtype):
    for n, features in enumerate(records(made(pngs, labels))):
        assert features["label"].dtype == dtype
        assert features["label"].tolist() == [labels[n]]


def test_structures_have_a_feature_for_each_part(made, pngs):
    found = records(made({"left": pngs, "v": X}, (Y, {"mask": pngs[::-1]})))
    assert set(found[0]) == {"left", "v", "v/shape", "label/0", "mask", "id"}
    for n, features in enumerate(found):
        assert features["v"].tolist() == [n]
        assert features["label/0"].tolist() == [n]
        with open(pngs[SAMPLES - 1 - n], "rb") as file:
            assert features["mask"] == [file.read()]


def test_a_file_that_does_not_read_is_an_error_in_its_place(made, pngs):
    with open(pngs[3], "wb") as file:
        file.write(b"no picture")
    found = records(made(pngs, Y, on_error="skip"))
    assert [k for k, one in enumerate(found) if isinstance(one, SampleError)] == [3]
    assert found[3].index == 3
    assert pngs[3] in str(found[3])
    assert len(found) == SAMPLES


def test_a_function_that_fails_is_an_error_of_its_sample(made, pngs):
    def feature(path):
        if path == pngs[5]:
            raise KeyError("no row")
        return path

    found = records(made(pngs, features={"stem": feature}))
    assert isinstance(found[5], SampleError)
    assert "no row" in str(found[5])
    assert found[6]["stem"] == [pngs[6].encode()]


def test_a_digest_changes_with_the_files(made, pngs):
    source = made(pngs, Y)
    before = source.files(np.arange(5)), source.files(np.arange(5, 9))
    cv2.imwrite(pngs[2], np.zeros((9, 9, 3), np.uint8))
    after = source.files(np.arange(5)), source.files(np.arange(5, 9))
    assert before[0] != after[0]
    assert before[1] == after[1]
    assert made(kl.ArraySequenceLoader(X, Y, 4)).files(np.arange(5)) is None


# ---------------------------------------------------------------- loaders


def test_samples_of_a_loader_are_those_before_its_transform(made):
    loader = kl.ArraySequenceLoader(
        X, Y, 4, transform=lambda x, y, rng: (x + 1000, y), sample_weights=Y + 0.5
    )
    source = made(loader)
    assert isinstance(source, LoaderSamples)
    for n, features in enumerate(records(source)):
        assert features["x"].tolist() == [n]
        assert features["label"].tolist() == [n]
        assert features["id"].tolist() == [n]
        assert features["weight"].tolist() == [n + 0.5]


def test_samples_of_unlike_shape_are_whole(made):
    arrays = [np.full(1 + n % 3, n, np.int32) for n in range(SAMPLES)]
    found = records(made(kl.ArraySequenceLoader(arrays, None, 4)))
    assert [f["x/shape"].tolist() for f in found] == [list(a.shape) for a in arrays]
    assert [np.frombuffer(f["x"][0], "<i4").tolist() for f in found] == [a.tolist() for a in arrays]


def test_samples_that_do_not_load_come_last(made):
    """As errors of the loader, whose policy holds."""

    class Broken(kl.SequenceLoader):
        def load_sample(self, index):
            if index in (2, 30):
                raise ValueError("broken")
            return X[index], Y[index]

    found = records(made(Broken(SAMPLES, 4, on_error="skip")))
    assert [int(f["label"][0]) for f in found[:-2]] == [
        n for n in range(SAMPLES) if n not in (2, 30)
    ]
    assert sorted(error.index for error in found[-2:]) == [2, 30]


def test_features_alone(made):
    """Without paths and loader: the features, and nothing else."""
    found = records(made(None, None, {"age": [30, 40], "name": ["a", "b"]}))
    assert [set(f) for f in found] == [{"age", "name"}] * 2
    assert [f["age"].tolist() for f in found] == [[30], [40]]
    assert [f["name"] for f in found] == [[b"a"], [b"b"]]


# ---------------------------------------------------------------- features


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5] * SAMPLES, np.float32(0.5)),  # Python's floats carry no choice of precision
        ([3] * SAMPLES, np.int64(3)),
        ([True] * SAMPLES, np.int64(1)),
        (np.full(SAMPLES, 7, np.uint8), np.int64(7)),
    ],
    ids=["float", "int", "bool", "uint8"],
)
def test_the_kind_of_a_feature(made, values, expected):
    (features,) = records(made(kl.ArraySequenceLoader(X, Y, 4), features={"f": values}), [4])
    assert features["f"].tolist() == [expected]


def test_a_function_gets_the_path(made, pngs):
    seen = []
    records(made(pngs, features={"f": lambda path: seen.append(path) or 1}), [3, 1])
    assert sorted(seen) == [pngs[1], pngs[3]]


# ---------------------------------------------------------------- the job


def test_the_job_tells_other_features_and_data_apart(made, pngs):
    jobs = [
        made(pngs, Y).job(),
        made(pngs, Y).job(),
        made(pngs[::-1], Y).job(),
        made(pngs, Y, {"f": [1] * SAMPLES}).job(),
        made(pngs, Y, {"f": [2] * SAMPLES}).job(),
        made(pngs, Y, on_error="skip").job(),
    ]
    assert jobs[0] == jobs[1]
    others = jobs[1:]
    assert all(a != b for k, a in enumerate(others) for b in others[k + 1 :])


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("data", "labels", "features", "error", "words"),
    [
        (
            None,
            None,
            None,
            TypeError,
            "there is nothing to write: give paths, a loader, or features",
        ),
        (None, Y, {"f": [1]}, TypeError, "there is nothing to write"),
        (None, None, [1], TypeError, "features is a list, expected a dict"),
        (
            kl.ArraySequenceLoader(X, Y, 4),
            Y,
            None,
            TypeError,
            "got a ArraySequenceLoader together with labels=",
        ),
        (
            kl.ArraySequenceLoader(X, Y, 4),
            None,
            {"f": len},
            TypeError,
            r"features\['f'\] is a function of the path, but ArraySequenceLoader has no paths",
        ),
        (
            kl.ArraySequenceLoader(X, Y, 4),
            None,
            {"f": [1, 2]},
            ValueError,
            r"features\['f'\] has 2 values, but there are 40 samples",
        ),
        (
            kl.ArraySequenceLoader({"a": X, "id": X}, None, 4),
            None,
            None,
            ValueError,
            "two features would have the name 'id': rename one",
        ),
        (
            kl.ArraySequenceLoader({"label": X}, Y, 4),
            None,
            None,
            ValueError,
            "two features would have the name 'label'",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(made, data, labels, features, error, words):
    with pytest.raises(error, match=words):
        made(data, labels, features)


def test_a_source_of_ones_own_needs_runs():
    source = RecordSource(kl.ArraySequenceLoader(X, Y, 4), None, "raise")
    assert source.samples == SAMPLES
    with pytest.raises(NotImplementedError):
        source.runs(np.arange(3), 1)
