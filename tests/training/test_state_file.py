"""The state file of a training: content, errors, and no incomplete file."""

import json
import os
import zipfile

import keras
import numpy as np
import pytest

from kloaders.training import state_file

ARRAYS = {
    "variables": [("a/kernel", np.arange(6.0).reshape(2, 3)), ("a/bias", np.zeros((2, 0), "int8"))],
    "metrics": [("loss", np.float32(0.5))],
    "random": [],
}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "runs" / "state")


def rewritten(path, change):
    """The same ZIP file, with its parts changed by `change`."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    options = change(parts) or {}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def head_changed(**changes):
    def change(parts):
        parts["state.json"] = json.dumps(json.loads(parts["state.json"]) | changes).encode()

    return change


# ---------------------------------------------------------------- the file


def test_facts_and_arrays_come_back(path):
    """The folder is created; names, dtypes and shapes are kept, also of scalars and empty arrays."""
    state_file.write(path, {"epoch": 2, "position": {"batch": 1}}, ARRAYS)
    facts, arrays = state_file.read(path)
    assert (facts["epoch"], facts["position"]) == (2, {"batch": 1})
    assert list(arrays) == list(ARRAYS)
    for kind, named in ARRAYS.items():
        assert [name for name, _ in arrays[kind]] == [name for name, _ in named]
        for (_, got), (_, given) in zip(arrays[kind], named, strict=True):
            assert (got.dtype, got.shape) == (given.dtype, given.shape)
            np.testing.assert_array_equal(got, given)


def test_the_same_state_is_the_same_bytes(path, monkeypatch):
    """The same bytes at any time: no part has a date."""
    found = []
    for year in (2001, 2025):
        monkeypatch.setattr(
            "zipfile.time.localtime", lambda *_, y=year: (y, 2, 3, 4, 5, 6, 0, 0, 0)
        )
        state_file.write(path, {"epoch": 1}, ARRAYS)
        with open(path, "rb") as file:
            found.append(file.read())
    assert found[0] == found[1]


def test_what_cannot_be_written_leaves_the_state_before(path):
    state_file.write(path, {"epoch": 1}, ARRAYS)
    with pytest.raises(TypeError):
        state_file.write(path, {"epoch": object()}, ARRAYS)
    assert state_file.read(path)[0]["epoch"] == 1
    assert os.listdir(os.path.dirname(path)) == ["state"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (head_changed(format="another"), "it is another kind of file"),
        (head_changed(version=9), "it has version 9, expected 1"),
        (lambda parts: {"compression": zipfile.ZIP_DEFLATED}, "it is compressed"),
        (lambda parts: parts.pop("1") and None, "no item named '1'"),
        (lambda parts: parts.pop("state.json") and None, "no item named 'state.json'"),
        (
            lambda parts: parts.update({"0": parts["0"][:-1]}),
            "a/kernel does not have the size that its shape says",
        ),
        (
            head_changed(
                arrays={"variables": [{"name": "x", "dtype": "float64", "shape": [-2, -3]}]}
            ),
            "x does not have the size",
        ),
        (
            head_changed(
                arrays={"variables": [{"name": "x", "dtype": "float64", "shape": [2**40, 2**40]}]}
            ),
            "x does not have the size",
        ),
        (
            head_changed(arrays={"variables": [{"name": "x", "dtype": "object", "shape": [6]}]}),
            "object",
        ),
        (lambda parts: parts.update({"state.json": b"[1]"}), "it is another kind of file"),
        (lambda parts: parts.update({"state.json": b"{"}), "Expecting property name"),
    ],
)
def test_what_is_no_state_is_refused_with_its_name(path, change, words):
    state_file.write(path, {"epoch": 1}, ARRAYS)
    rewritten(path, change)
    with pytest.raises(ValueError, match=words) as caught:
        state_file.read(path)
    with open(path, "rb") as file:
        ours = b'"format": "kloaders training state"' in file.read(256)
    said = "is a damaged training state (" if ours else "is not a training state ("
    assert str(caught.value).startswith(f"{path} {said}")
    assert ("delete it to restart training" in str(caught.value)) == ours
    assert ("is not overwritten: choose another path" in str(caught.value)) != ours


def test_a_file_that_is_not_there_is_an_os_error(path):
    with pytest.raises(FileNotFoundError):
        state_file.read(path)


@pytest.mark.parametrize("keep", [300, 500, -1])
def test_a_state_that_is_cut_short_is_known_as_one(path, keep):
    """It is ours, and may be deleted."""
    state_file.write(path, {"epoch": 1}, ARRAYS)
    with open(path, "r+b") as file:
        file.truncate(keep if keep > 0 else os.path.getsize(path) - 1)
    with pytest.raises(ValueError, match=r"is a damaged training state.*delete it"):
        state_file.read(path)


@pytest.mark.parametrize("content", [b"", b"my thesis", b"PK\3\4" + bytes(400)])
def test_a_file_of_somebody_elses_is_never_to_be_deleted(path, content):
    os.makedirs(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(ValueError, match="is not overwritten: choose another path") as caught:
        state_file.read(path)
    assert "delete" not in str(caught.value)


def test_prepare_makes_the_folder_and_removes_what_was_left(path):
    folder = os.path.dirname(path)
    state_file.prepare(path)
    assert os.listdir(folder) == []
    with open(os.path.join(folder, ".state.0.part"), "wb") as file:
        file.write(b"half")
    state_file.prepare(path)
    assert os.listdir(folder) == ([] if os.name == "posix" else os.listdir(folder))


def test_prepare_says_what_to_do_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="cannot be saved there, choose another path"):
        state_file.prepare(str(tmp_path / "file" / "state"))


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_a_link_to_a_state_stays_one(path, tmp_path):
    """The target of a link is written, read and deleted."""
    os.makedirs(os.path.dirname(path))
    os.symlink(tmp_path / "disk", path)
    for epoch in (1, 2):
        state_file.write(path, {"epoch": epoch}, ARRAYS)
        assert state_file.read(path)[0]["epoch"] == epoch
    assert os.path.islink(path)
    state_file.remove(path)
    assert os.path.islink(path)
    assert not os.path.exists(path)


def test_remove_is_content_with_nothing(path):
    state_file.write(path, {}, ARRAYS)
    for _ in range(2):
        state_file.remove(path)
        assert not os.path.exists(path)


# ---------------------------------------------------------------- a model


@pytest.fixture
def model():
    keras.utils.set_random_seed(1)
    layers = [keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)]
    model = keras.Sequential(layers)
    model.compile("adam", "mse", metrics=["mae"])
    return model


def test_variables_are_weights_seeds_and_the_optimizer_without_metrics(model):
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    paths = [v.path for v in state_file.variables_of(model)]
    for part in ("kernel", "bias", "seed_generator", "iteration", "learning_rate", "momentum"):
        assert any(part in path for path in paths), part
    metrics = {id(v) for v in state_file.metrics_of(model)}
    assert metrics
    assert not metrics & {id(v) for v in state_file.variables_of(model)}


def test_an_optimizer_that_has_no_variables_yet_gets_them(model):
    assert not model.optimizer.built
    state_file.variables_of(model)
    assert model.optimizer.built


def test_values_are_copies_and_are_assigned(model, path):
    variables = state_file.variables_of(model)
    saved = state_file.values_of(variables)
    before = [value.copy() for _, value in saved]
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    changed = state_file.values_of(variables)
    assert any((a != b).any() for (_, a), b in zip(changed, before, strict=True))
    for (_, value), old in zip(saved, before, strict=True):
        np.testing.assert_array_equal(value, old)
    state_file.assign(variables, saved, path)
    for (_, value), old in zip(state_file.values_of(variables), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_a_state_of_another_model_changes_nothing(model, path):
    """Neither where the number of variables differs nor where the shape of one, the last, does."""
    variables = state_file.variables_of(model)
    before = state_file.values_of(variables)
    other = [(name, value + 1) for name, value in before]
    with pytest.raises(
        ValueError, match=f"with {len(other) - 1} variables, but this model has"
    ) as one:
        state_file.assign(variables, other[:-1], path)
    last = (other[-1][0], np.zeros((7, 7)))
    with pytest.raises(ValueError, match=r"had shape \(7, 7\), but .* has") as two:
        state_file.assign(variables, [*other[:-1], last], path)
    for caught in (one, two):
        assert path in str(caught.value)
        assert "Build and compile the same model as before" in str(caught.value)
        assert "delete" not in str(caught.value)
    for (_, value), (_, old) in zip(state_file.values_of(variables), before, strict=True):
        np.testing.assert_array_equal(value, old)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch has a state of its own")
def test_only_torch_draws_from_generators_of_its_own():
    assert state_file.random_state() == []
    state_file.set_random_state([("cpu", np.zeros(3))])
    state_file.draw_as_between_epochs()


# ---------------------------------------------------------------- an object


def test_a_url_makes_no_local_folder(tmp_path, monkeypatch):
    """A folder named "s3:" beside the program was left by each run that saves its state in a bucket."""
    monkeypatch.chdir(tmp_path)
    for url in ("memory://runs/state", "s3://bucket/run/state"):
        state_file.prepare(url)
    assert list(tmp_path.iterdir()) == []


def test_a_state_may_be_a_url():
    """An object is written completely, read and deleted, like a file."""
    fsspec = pytest.importorskip("fsspec")
    url = "memory://runs/state"
    assert not state_file.exists(url)
    state_file.write(url, {"epoch": 3}, ARRAYS)
    assert state_file.exists(url)
    facts, arrays = state_file.read(url)
    assert facts["epoch"] == 3
    np.testing.assert_array_equal(arrays["variables"][0][1], ARRAYS["variables"][0][1])
    fsspec.filesystem("memory").pipe_file("/runs/state", b"damaged")
    with pytest.raises(ValueError, match="memory://runs/state is not a training state"):
        state_file.read(url)
    for _ in range(2):
        state_file.remove(url)
        assert not state_file.exists(url)


def test_an_object_that_is_not_written_whole_leaves_the_one_before(monkeypatch):
    pytest.importorskip("fsspec")
    url = "memory://runs/state"
    state_file.write(url, {"epoch": 3}, ARRAYS)
    with pytest.raises(TypeError):
        state_file.write(url, {"epoch": object()}, ARRAYS)
    assert state_file.read(url)[0]["epoch"] == 3
    state_file.remove(url)
