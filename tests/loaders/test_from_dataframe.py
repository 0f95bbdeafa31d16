"""Tables with several columns of paths, inputs and outputs: what a model gets of them."""

import sys

import keras
import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import BACKEND, Received, Recorder

pd = pytest.importorskip("pandas")
N = 24
TAGS = ["big", "old", "red"]


@pytest.fixture
def frame(tmp_path):
    for n in range(N):
        np.save(tmp_path / f"{n:02}.npy", np.full(2, n, np.float32))
        np.save(tmp_path / f"half{n:02}.npy", np.full(3, n / 2, np.float32))
    k = np.arange(N)
    return pd.DataFrame(
        {
            "file": [f"{n:02}.npy" for n in k],
            "half": [f"half{n:02}.npy" for n in k],
            "age": k * 2,
            "size": k / 4,
            "kind": pd.Categorical(
                [["small", "large", "middle"][n % 3] for n in k], ["small", "middle", "large"]
            ),
            "tags": [[tag for bit, tag in enumerate(TAGS) if n >> bit & 1] for n in k],
            "weight": k + 1.0,
        }
    )


LARGE = {"small": 0, "large": 2, "middle": 1}


def expected(n):
    return LARGE[["small", "large", "middle"][n % 3]]


def test_a_model_gets_all_inputs_and_outputs_of_a_row(frame, tmp_path):
    """Two files and two columns a row; a class, a number, tags: each row once an epoch."""
    train, val = kl.from_dataframe(
        frame,
        {"whole": "file", "half": "half", "facts": ["age", "size"]},
        {"kind": "kind", "size": "size", "tags": "tags"},
        label_mode={"kind": "categorical"},
        folder=tmp_path,
        batch_size=5,
        seed=1,
    )
    names = {"kind": ["small", "middle", "large"], "tags": TAGS}
    assert train.class_names == val.class_names == names
    assert (train.samples, val.samples) == (19, 5)
    x, y = val[0]
    number = x["whole"][:, 0]
    np.testing.assert_array_equal(x["half"], np.repeat(number[:, None] / 2, 3, 1))
    np.testing.assert_array_equal(x["facts"], np.stack([number * 2, number / 4], 1))
    assert y["kind"].argmax(1).tolist() == [expected(int(n)) for n in number]
    assert y["kind"].shape == (5, 3)
    bits = number.astype(int)[:, None] >> np.arange(3) & 1
    np.testing.assert_array_equal(y["tags"], bits)
    np.testing.assert_array_equal(y["size"], number / 4)

    received = Received()
    inputs = {
        "whole": keras.Input((2,), name="whole"),
        "half": keras.Input((3,), name="half"),
        "facts": keras.Input((2,), name="facts"),
    }
    seen = Recorder(received)(inputs["whole"])
    both = keras.layers.Concatenate()([seen, inputs["half"], inputs["facts"]])
    outputs = {
        "kind": keras.layers.Dense(3, "softmax", name="kind")(both),
        "size": keras.layers.Lambda(lambda v: v[:, :1] / 4, output_shape=(1,), name="size")(seen),
        "tags": keras.layers.Dense(3, "sigmoid", name="tags")(both),
    }
    model = keras.Model(inputs, outputs)
    model.compile(
        "adam",
        {"kind": "categorical_crossentropy", "size": "mae", "tags": "binary_crossentropy"},
        **({"jit_compile": False} if BACKEND == "tensorflow" else {}),
    )
    history = model.fit(train, validation_data=val, epochs=2, verbose=0).history
    assert max(history["size_loss"] + history["val_size_loss"]) < 1e-6  # each x with its own y
    trained = [n for batch in received.trained for n in batch]
    rows = sorted(set(range(N)) - {int(n) for n in number})
    assert sorted(trained[:19]) == sorted(trained[19:]) == rows


def test_categories_have_their_own_order(frame, tmp_path, caplog):
    whole, _ = kl.from_dataframe(frame, "file", "kind", folder=tmp_path, validation=None)
    assert whole.class_names == ["small", "middle", "large"]
    assert whole[0][1].tolist() == [expected(n) for n in range(N)]
    few = frame[frame["kind"] != "middle"]
    part, _ = kl.from_dataframe(few, "file", "kind", folder=tmp_path, validation=None)
    assert part.class_names == ["small", "middle", "large"]
    assert "no row of column 'kind' has the class 'middle': it keeps its number" in caplog.text


@pytest.mark.parametrize("mode", ["categorical", "multi_label"])
def test_rows_of_a_single_output(frame, tmp_path, mode):
    column = "kind" if mode == "categorical" else "tags"
    train, val = kl.from_dataframe(
        frame, "file", column, label_mode=mode, folder=tmp_path, weight_column="weight", seed=1
    )
    x, y, w = val[0]
    number = x[:, 0].astype(int)
    want = (
        np.eye(3)[[expected(n) for n in number]]
        if mode == "categorical"
        else number[:, None] >> np.arange(3) & 1
    )
    np.testing.assert_array_equal(y, want)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(w, number + 1)
    assert train.class_names == (["small", "middle", "large"] if mode == "categorical" else TAGS)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_in_files(frame, tmp_path, kind):
    path = tmp_path / f"table.{kind}"
    if kind == "csv":
        frame.assign(tags=[",".join(tags) for tags in frame["tags"]]).to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    whole, _ = kl.from_dataframe(
        path,
        ["file", "half", "age"],
        {"kind": "kind", "tags": "tags"},
        label_mode={"tags": "multi_label"},
        folder=tmp_path,
        weight_column="weight",
        validation=None,
    )
    (x, half, age), y, w = whole[0]
    np.testing.assert_array_equal(x[:, 0], np.arange(N))
    np.testing.assert_array_equal(half[:, 0], np.arange(N) / 2)
    np.testing.assert_array_equal(age, np.arange(N) * 2)
    np.testing.assert_array_equal(w, np.arange(N) + 1)
    np.testing.assert_array_equal(y["tags"], np.arange(N)[:, None] >> np.arange(3) & 1)
    names = ["small", "middle", "large"] if kind == "parquet" else ["large", "middle", "small"]
    assert whole.class_names == {"kind": names, "tags": TAGS}
    kinds = ["small", "large", "middle"]
    assert [names[k] for k in y["kind"]] == [kinds[n % 3] for n in range(N)]


def test_a_parquet_file_without_pyarrow(tmp_path, monkeypatch):
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r'pip install "kloaders\[parquet\]"'):
        kl.from_dataframe(tmp_path / "a.parquet", "file")


def test_tables_of_numbers_alone_need_a_loader_of_arrays(frame):
    whole, _ = kl.from_dataframe(
        frame, ["age", "size"], "kind", validation=None, loader=kl.ArraySequenceLoader
    )
    (age, size), _ = whole[0]
    assert (age.tolist(), size.tolist()) == (
        (np.arange(N) * 2).tolist(),
        (np.arange(N) / 4).tolist(),
    )
    with pytest.raises(TypeError, match=r"names no column of paths.*loader=kl.ArraySequenceLoader"):
        kl.from_dataframe(frame, ["age", "size"], "kind")


@pytest.mark.parametrize("way", ["pack", "tfrecord"])
def test_names_of_several_outputs_come_back_out_of_files(frame, tmp_path, way):
    whole, _ = kl.from_dataframe(
        frame, "file", {"kind": "kind", "tags": "tags"}, folder=tmp_path, validation=None
    )
    if way == "pack":
        kl.write_pack(whole, tmp_path / "pack", progress=False)
        found = kl.PackSequenceLoader(tmp_path / "pack")
    else:
        written = kl.write_tfrecords(whole, out=tmp_path / "a", progress=False)
        found = kl.TFRecordSequenceLoader(written.files)
    assert (
        found.class_names
        == whole.class_names
        == {
            "kind": ["small", "middle", "large"],
            "tags": TAGS,
        }
    )
    found.summary()
    found.show()


def test_each_output_has_its_column_of_weights(frame, tmp_path):
    """An output whose label is wrong by 1 has the mean of its weights as its loss."""
    frame = frame.assign(wrong=frame["size"] + 1, half_weight=np.arange(N) % 2 * 1.0)
    labels = {"a": "wrong", "b": "wrong", "c": "wrong"}
    train, _ = kl.from_dataframe(
        frame,
        "file",
        labels,
        weight_column={"a": "weight", "b": "half_weight"},
        folder=tmp_path,
        batch_size=6,
        validation=None,
        seed=1,
    )
    x, _, weights = train[0]
    np.testing.assert_array_equal(weights["a"], x[:, 0] + 1)
    np.testing.assert_array_equal(weights["b"], x[:, 0] % 2)
    assert set(weights["c"]) == {1}
    inputs = keras.Input((2,))
    quarter = {
        n: keras.layers.Lambda(lambda v: v[:, :1] / 4, output_shape=(1,))(inputs) for n in "abc"
    }
    scale = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs)
    outputs = {n: keras.layers.Add(name=n)([one, scale]) for n, one in quarter.items()}
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.0), dict.fromkeys("abc", "mae"))
    history = model.fit(train, epochs=2, verbose=0).history
    np.testing.assert_allclose(history["a_loss"], np.mean(np.arange(N) + 1.0), rtol=1e-5)
    np.testing.assert_allclose(history["b_loss"], 0.5, rtol=1e-5)
    np.testing.assert_allclose(history["c_loss"], 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("labels", "weights", "said"),
    [
        (
            {"a": "size"},
            {"b": "weight"},
            "weight_column names an output 'b', but label_column has a",
        ),
        ({"a": "size"}, {}, "weight_column is an empty dict, but label_column has a"),
        ({"a": "size"}, {"a": "wight"}, "the table has no column 'wight'"),
        ("size", {"a": "weight"}, "pass the name of a column of weights"),
        (None, {"a": "weight"}, "pass the name of a column of weights"),
    ],
)
def test_columns_of_weights_that_are_for_no_output(frame, tmp_path, labels, weights, said):
    with pytest.raises((ValueError, TypeError), match=said):
        kl.from_dataframe(frame, "file", labels, weight_column=weights, folder=tmp_path)
