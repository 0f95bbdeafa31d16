"""Typical tasks: each sample reaches a model once per epoch, together with its label.

Sample numbers are in the data. A model computes from its input what the label must be, and the
metric `mismatch` compares. The recipes of docs/tasks are taken from the pages as they stand there.
"""

import ast
import re
import sqlite3
import types
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from keras import ops

import kloaders as kl
from tests.support.recording import BACKEND, Received, Recorder, numbers_of, recording_model, row_of

N = 24
PAGES = Path(__file__).parents[1] / "docs" / "tasks"


def flat(x):
    """(batch, numbers), float32."""
    return ops.reshape(ops.cast(x, "float32"), (ops.shape(x)[0], -1))


def first_pixel(x):
    """The number in an image: two bytes of a pixel."""
    x = ops.cast(x, "float32")
    return x[:, :1, :1, 0] + 256.0 * x[:, :1, :1, 1]


class Expected(keras.layers.Layer):
    """The expected label of an input, flat."""

    def __init__(self, of, width, **options):
        super().__init__(**options)
        self.of, self.width = of, width

    def call(self, *x):
        return ops.reshape(ops.cast(self.of(*x), "float32"), (-1, self.width))

    def compute_output_spec(self, *x):
        return keras.KerasTensor((None, self.width), dtype="float32")


def study(loader, inputs, label_of, width, watched=None, samples=N, epochs=2, known=numbers_of):
    """Fit a small model, and check the samples it received.

    label_of: of the inputs, the label of `width` numbers. watched: the input whose numbers are
    counted, a name where inputs are a dict. Gives the batches of numbers.
    """
    received = Received()
    parts = list(inputs.values()) if isinstance(inputs, dict) else [inputs]
    seen = inputs[watched] if watched else inputs
    recorded = Recorder(received)(seen)
    parts = [recorded if part is seen else part for part in parts]
    features = (
        keras.layers.Concatenate()(
            [keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(part)) for part in parts]
        )
        if len(parts) > 1
        else keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(parts[0]))
    )
    learnt = keras.layers.Dense(width)(features)
    model = keras.Model(
        inputs, keras.layers.Concatenate()([learnt, Expected(label_of, width)(*parts)])
    )

    def loss(y, p):
        return ops.mean(ops.square(flat(y) - p[:, :width]), axis=-1)

    def mismatch(y, p):
        return ops.max(ops.abs(flat(y) - p[:, width:]), axis=-1)

    options = {"jit_compile": False} if BACKEND == "tensorflow" else {}
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=[mismatch], **options)
    history = model.fit(loader, epochs=epochs, verbose=0).history
    assert max(history["mismatch"]) < 1e-3
    assert history["loss"][-1] < history["loss"][0]
    batches = received.trained
    steps = len(loader)
    for epoch in range(epochs):
        numbers = [n for batch in batches[epoch * steps : (epoch + 1) * steps] for n in batch]
        assert sorted(numbers) == list(range(samples))
    return batches


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A number in every pixel."""
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(N):
        cv2.imwrite(str(folder / f"{n:02}.png"), np.full((4, 4, 3), (100, 0, n), np.uint8))
    return [str(folder / f"{n:02}.png") for n in range(N)]


def picture(name=None):
    return keras.Input((4, 4, 3), dtype="uint8", name=name)


def one_hot(x):
    return ops.one_hot(ops.cast(ops.mod(first_pixel(x)[:, 0, 0], 3.0), "int32"), 3)


def bits(x):
    number = ops.cast(first_pixel(x)[:, 0, :1], "int32")
    return ops.mod(ops.floor_divide(number, np.array([[1, 2, 4]])), 2)


LABELS = {
    "integer": (np.arange(N) % 3, lambda x: ops.mod(first_pixel(x), 3.0), 1),
    "one-hot": (np.eye(3, dtype=np.float32)[np.arange(N) % 3], one_hot, 3),
    "multi-label": (np.arange(N)[:, None] // [1, 2, 4] % 2, bits, 3),
}


@pytest.mark.parametrize("kind", LABELS)
def test_classification(kind, pictures):
    labels, label_of, width = LABELS[kind]
    study(kl.PathSequenceLoader(pictures, labels, 5, seed=1), picture(), label_of, width)


def test_classes_of_folders_as_one_hot_rows(tmp_path):
    """Rows that are made as they are needed are those of the folder."""
    for n in range(N):
        folder = tmp_path / "abc"[n % 3]
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{n:02}.png"), np.full((4, 4, 3), (100, 0, n), np.uint8))
    train, _ = kl.from_directory(
        tmp_path, validation=None, label_mode="categorical", batch_size=5, seed=1
    )
    study(train, picture(), one_hot, 3)


def test_regression():
    rows = np.stack([row_of(n) for n in range(N)])
    loader = kl.ArraySequenceLoader(rows, np.arange(N, dtype=np.float32) / 10, 5, seed=1)
    study(loader, keras.Input((2,)), lambda x: x[:, :1] / 10, 1)


def mirror(x, y, rng):
    return (x[:, ::-1], y[:, ::-1]) if rng.random() < 0.5 else (x, y)


def test_segmentation(tmp_path):
    """Masks are resized by nearest neighbour, and turned with their picture."""
    pictures, masks = [], []
    for n in range(N):
        mask = np.zeros((8, 8), np.uint8)
        mask[:, :4] = 1 + n % 5
        pixels = np.full((8, 8, 3), (0, 0, n), np.uint8)
        pixels[:, :4, 0] = 255  # blue, where the mask is
        for name, array, into in (("p", pixels, pictures), ("m", mask, masks)):
            into.append(str(tmp_path / f"{name}{n:02}.png"))
            cv2.imwrite(into[-1], array)
    loader = kl.PathSequenceLoader(pictures, masks, 5, size=(4, 4), transform=mirror, seed=1)

    def mask_of(x):
        inside = ops.cast(x[..., 2] > 128, "float32")
        return inside * (1.0 + ops.mod(first_pixel(x), 5.0))

    study(loader, picture(), mask_of, 16)
    sides = {bool(x[k, 0, 0, 2]) for x, _ in loader.epoch_batches() for k in range(len(x))}
    assert sides == {True, False}


def boxed(x, y, rng):
    """Box k of sample n spans the columns that n says, in pixels of the file."""
    height, width = x.shape[:2]
    boxes = y * np.array([4 / width, 4 / height, 4 / width, 4 / height], np.float32)
    padded = np.full((3, 4), -1, np.float32)
    padded[: len(boxes)] = boxes
    return cv2.resize(x, (4, 4), interpolation=cv2.INTER_NEAREST), np.append(padded, len(boxes))


def test_boxes(tmp_path):
    """Pictures of unequal size with no box or several: scaled with the picture, padded, counted."""
    paths, boxes = [], []
    for n in range(N):
        side = 8 if n % 2 else 16
        paths.append(str(tmp_path / f"{n:02}.png"))
        cv2.imwrite(paths[-1], np.full((side, side, 3), (0, 0, n), np.uint8))
        scale = side // 4
        boxes.append(
            np.array([[0, k, scale, 2 * scale] for k in range(n % 4)], np.float32).reshape(-1, 4)
        )
        boxes[-1][:, 1] = scale
    loader = kl.PathSequenceLoader(paths, boxes, 5, transform=boxed, seed=1)

    def boxes_of(x):
        count = ops.mod(first_pixel(x)[:, 0, :1], 4.0)
        there = ops.cast(ops.reshape(ops.arange(3, dtype="float32"), (1, 3)) < count, "float32")[
            ..., None
        ]
        box = np.array([[[0.0, 1.0, 1.0, 2.0]]], np.float32)
        rows = there * box + (1.0 - there) * -1.0
        return ops.concatenate([ops.reshape(rows, (-1, 12)), count], axis=1)

    study(loader, picture(), boxes_of, 13)


def test_several_inputs(pictures):
    rows = np.stack([row_of(n) for n in range(N)])
    loader = kl.PathSequenceLoader(
        {"photo": pictures, "row": rows}, np.arange(N, dtype=np.float32), 5, seed=1
    )
    inputs = {"photo": picture("photo"), "row": keras.Input((2,), name="row")}
    study(
        loader,
        inputs,
        lambda photo, row: (first_pixel(photo)[:, 0] + row[:, :1]) / 2,
        1,
        watched="photo",
    )


def test_autoencoder(pictures, monkeypatch):
    """Each file is read once, and x and y of a batch are one array."""
    reads = []
    read = kl.PathSequenceLoader.load_sample

    class Counting(kl.PathSequenceLoader):
        def load_sample(self, path):
            reads.append(path)
            return read(self, path)

    loader = kl.inputs_as_labels(Counting(pictures, batch_size=5, seed=1, cache=None))
    x, y = loader[0]
    assert x is y
    reads.clear()
    list(loader.epoch_batches())
    assert sorted(reads) == pictures
    study(loader, picture(), lambda x: x, 48)


def denoise(x, y, rng):
    assert x is y
    return np.where(np.arange(4)[:, None] == 3, 255, x).astype(np.uint8), y


def test_autoencoder_with_a_transform(pictures):
    source = kl.PathSequenceLoader(pictures, batch_size=5, seed=1, transform=denoise)
    for loader in (kl.inputs_as_labels(source), kl.preload(kl.inputs_as_labels(source), False)):
        x, y = loader[0]
        assert np.all(x[:, :, 3] == 255)
        assert numbers_of(x) == numbers_of(y) == [0, 1, 2, 3, 4]
        assert not np.any(y == 255)
    with pytest.raises(ValueError, match="already has labels"):
        kl.inputs_as_labels(kl.PathSequenceLoader(pictures, np.arange(N)))


def test_autoencoder_with_weights_padding_and_a_dataset(pictures):
    source = kl.PathSequenceLoader(pictures, batch_size=5, pad_last=True)
    loader = kl.inputs_as_labels(source)
    x, y, weights = loader[4]
    assert x is y or np.array_equal(x, y)
    assert weights.tolist() == [1, 1, 1, 1, 0]
    if BACKEND == "tensorflow":
        spec = kl.to_tf_dataset(loader, shuffle=False).element_spec
        assert len(spec) == 3
        assert spec[0] == spec[1]


# ---------------------------------------------------------------- text, tables, stores, databases


def recipes(page):
    """The imports and classes of a page, unchanged."""
    text = (PAGES / page).read_text(encoding="utf-8")
    nodes = [
        node
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        for node in ast.parse(block).body
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.ClassDef))
    ]
    module = types.ModuleType("recipes")
    exec(compile(ast.Module(nodes, []), page, "exec"), vars(module))
    return module


def rows():
    return np.stack([row_of(n) for n in range(N)])


def hdf5(folder, **options):
    recipe = recipes("stores.md")
    with recipe.h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("x", data=rows(), chunks=(5, 2), compression="gzip")
        file["y"] = np.arange(N, dtype=np.float32)
    return recipe.Hdf5Loader(folder / "a.h5", 5, **options)


def parquet(folder, **options):
    pa = pytest.importorskip("pyarrow")
    parquet_files = pytest.importorskip("pyarrow.parquet")
    path = str(folder / "a.parquet")
    x = pa.array(rows().tolist(), pa.list_(pa.float32(), 2))
    table = pa.table({"x": x, "y": np.arange(N, dtype=np.float32)})
    parquet_files.write_table(table, path, row_group_size=7)
    return kl.ParquetSequenceLoader(path, 5, x="x", y="y", **options)


def sql(folder, **options):
    path = folder / "a.db"
    database = sqlite3.connect(path)
    with database:
        database.execute("CREATE TABLE t (key TEXT PRIMARY KEY, a REAL, b REAL, y REAL)")
        for n in np.random.default_rng(0).permutation(N).tolist():
            a, b = row_of(n).tolist()
            database.execute("INSERT INTO t VALUES (?, ?, ?, ?)", (f"key{n:03}", a, b, n))
    database.close()
    return recipes("sql.md").SqlLoader(
        path,
        "SELECT key FROM t ORDER BY key",
        "SELECT key, a, b, y FROM t WHERE key IN ({})",
        5,
        **options,
    )


def csv_rows(folder, **options):
    lines = [f"{n},{row_of(n)[0]},{row_of(n)[1]}" for n in range(N)]
    (folder / "a.csv").write_text("\n".join(["y,a,b", *lines]))
    return kl.CsvSequenceLoader(folder / "a.csv", ["a", "b"], "y", 5, **options)


def text_lines(folder, **options):
    def parsed(line):  # sent by value: a worker process need not import this module, and Keras
        number = int(line)
        return np.array([number, number % 7], np.float32), np.float32(number)

    (folder / "a.txt").write_text("\n".join(map(str, range(N))))
    return kl.TextLineSequenceLoader(folder / "a.txt", parsed, 5, **options)


SOURCES = [hdf5, parquet, sql, csv_rows, text_lines]
NEEDS = {hdf5: "h5py", parquet: "pyarrow"}


@pytest.fixture(params=SOURCES, ids=lambda source: source.__name__)
def source(request):
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    if request.param is hdf5:
        pytest.importorskip("zarr")  # they are on one page
    return request.param


@pytest.fixture(scope="module")
def model():
    return recording_model()


def test_a_model_receives_each_row_once_with_its_label(source, tmp_path, keep, model):
    net, received = model
    received.clear()
    loader = keep(source(tmp_path, seed=1, workers=3))
    history = net.fit(loader, epochs=2, verbose=0).history
    assert max(history["mismatch"]) == 0
    for epoch in range(2):
        batches = received.trained[epoch * 5 : epoch * 5 + 5]
        assert sorted(n for batch in batches for n in batch) == list(range(N))
    assert np.rint(net.predict(loader, verbose=0)[:, 1]).astype(int).tolist() == list(range(N))


def test_processes_read_what_threads_read(source, tmp_path, keep):
    loader = keep(source(tmp_path, seed=1, workers=2, processes=True, shuffle=True))
    threads = loader.view()
    vars(threads)["processes"] = False
    for (x, y), (x_want, y_want) in zip(
        loader.epoch_batches(), keep(threads).epoch_batches(), strict=True
    ):
        np.testing.assert_array_equal(x, x_want)
        np.testing.assert_array_equal(y, y_want)
        assert numbers_of(x) == y.astype(int).tolist()


def test_a_row_that_is_gone_is_named(tmp_path):
    loader = sql(tmp_path, workers=0)
    database = sqlite3.connect(tmp_path / "a.db")
    with database:
        database.execute("DELETE FROM t WHERE key = 'key007'")
    database.close()
    with pytest.raises(kl.SampleError, match="sample 7"):
        loader[1]


def test_video(tmp_path):
    """The number of a clip in the pixels of each of its frames."""
    for name, numbers in (("a", range(12)), ("b", range(12, N))):
        writer = cv2.VideoWriter(
            str(tmp_path / f"{name}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 32)
        )
        for n in numbers:
            for step in range(2):
                writer.write(np.full((32, 32, 3), 8 * n + 20 + step, np.uint8))
        writer.release()
    loader = kl.VideoSequenceLoader(str(tmp_path / "*.avi"), [0, 1], 5, clip=2, seed=1)

    def numbered(x, y, rng):
        return np.full((2, 1), round((float(x[0].mean()) - 20) / 8), np.float32), y

    whole = kl.VideoSequenceLoader(
        str(tmp_path / "*.avi"), [0, 1], 5, clip=2, seed=1, transform=numbered
    )
    study(whole, keras.Input((2, 1)), lambda x: ops.cast(x[:, 0] >= 12, "float32"), 1)
    x, _ = loader[0]
    assert x.shape == (5, 2, 32, 32, 3)
