"""Records of TFRecord files as samples: parsed one by one first, and by learnt layouts then."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from kloaders.core.rows import Rows
from kloaders.core.structure import flatten
from kloaders.formats.errors import DecodeError
from kloaders.formats.options import ImageOptions
from kloaders.formats.tfrecord.examples import encode_example, features_of
from kloaders.formats.tfrecord.files import RecordFiles
from kloaders.formats.tfrecord.framing import framed
from kloaders.plan.rng import Moment
from kloaders.sources.records import RecordSource
from kloaders.sources.tfrecord.features import Feature, resolved
from kloaders.sources.tfrecord.leaves import leaves_of

COUNT = 12


def example(number, **more):
    return encode_example({"x": np.full(3, number, np.float32), "y": number, **more})


def source_of(folder, *files, features=None):
    paths = []
    for k, records in enumerate(files):
        path = folder / f"{k}.tfrecord"
        path.write_bytes(b"".join(map(framed, records)))
        paths.append(str(path))
    records = RecordFiles(paths, progress=False)
    leaves = leaves_of(
        resolved(features or {"x": Feature("x", shape=(3,)), "y": "y"}),
        ImageOptions(), ImageOptions(), None, None,
    )  # fmt: skip
    first = records.read(0)
    for leaf in flatten(leaves):
        leaf.settle(first, features_of(first))
    return RecordSource(records, leaves, False, "Loader")


@pytest.fixture
def source(tmp_path):
    """Two files, of 5 and 7 records."""
    return source_of(tmp_path, map(example, range(5)), map(example, range(5, COUNT)))


def filled(source, indices):
    arrays = [np.zeros((len(indices), 3), np.float32), np.zeros(len(indices), np.int64)]
    reports = []
    source.fill(
        np.array(indices),
        Rows((None, None), arrays),
        lambda *found: reports.append(found),
        Moment(),
    )
    return arrays, reports


def test_records_are_numbered_over_all_files(source):
    assert len(source) == COUNT
    found = [source.sample(k, Moment()) for k in range(COUNT)]
    assert [int(y) for _, y in found] == [int(x[0]) for x, _ in found] == list(range(COUNT))


def test_layouts_are_learnt_and_give_the_same(source):
    """Records of a form met before are not parsed again, whatever file they are in."""
    order = [7, 2, 2, 11, 0, 5]
    for _ in range(3):
        (x, y), reports = filled(source, order)
        assert (x[:, 1].tolist(), y.tolist(), reports) == (order, order, [])
    assert source._layouts


def test_records_of_several_forms_stay_apart(tmp_path):
    """Of one size too: a text beside the values, or other values in its place."""
    forms = [{}, {"id": "ab"}, {"ib": "ac"}, {"id": "longer"}]
    source = source_of(tmp_path, [example(k, **forms[k % 4]) for k in range(40)])
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(40).tolist()
        (x, y), reports = filled(source, order)
        assert (x[:, 2].tolist(), y.tolist(), reports) == (order, order, [])


def test_a_pickled_source_learns_anew(source):
    filled(source, [0, 1])
    copy = pickle.loads(pickle.dumps(source))
    assert copy._layouts == copy._tried == {}
    assert filled(copy, [4, 9])[0][1].tolist() == [4, 9]


@pytest.mark.parametrize("learnt", [False, True])
def test_a_damaged_record_is_reported_whether_layouts_are_known_or_not(source, learnt):
    if learnt:
        filled(source, list(range(COUNT)))
        source.close()
    path = Path(source.records.paths[1])
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1  # in the last record
    path.write_bytes(raw)
    (_, y), reports = filled(source, [3, COUNT - 1, 6])
    assert [(row, type(error)) for row, error in reports] == [(1, DecodeError)]
    assert y[[0, 2]].tolist() == [3, 6]


def test_hooks_without_features_parse_for_themselves(source):
    bare = RecordSource(source.records, (), False, "Mine")
    with pytest.raises(
        TypeError, match=r"Mine overrides a hook but has no features: pass features="
    ):
        bare.sample(0, Moment())
    assert not bare.runs_user_code


def test_a_decode_function_is_a_users(tmp_path):
    def decode(raw):
        return np.frombuffer(raw, np.uint8)[:3].astype(np.float32)

    records = [encode_example({"x": bytes([k] * 9), "y": k}) for k in range(COUNT)]
    features = {"x": Feature("x", decode=decode), "y": "y"}
    source = source_of(tmp_path, records, features=features)
    assert source.runs_user_code
    (x, y), reports = filled(source, [8, 3])
    assert (x[:, 0].tolist(), y.tolist(), reports) == ([8, 3], [8, 3], [])


def test_names_of_records_and_of_their_files(source):
    assert source.name(6).startswith(f"{source.records.paths[1]}, record 1 at byte ")
    assert [source.records.file_of(k) for k in (4, 5)] == source.records.paths


def test_advice_names_options_of_this_loader(source):
    assert "kl.Feature(name, dtype=...)" in source.advice(0, 0, True)
    assert "size=(height, width)" in source.advice(0, 0, False)
