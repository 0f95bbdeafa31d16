"""Keras 2's continuation, TF_USE_LEGACY_KERAS=1: trains by index, and says what it cannot do.

A process has one Keras: `train_everything` runs in one of its own, and prints what the model
received.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs tf_keras", exc_type=ImportError)

ROOT = Path(__file__).parents[2]
SAMPLES, BATCH, EPOCHS, SEED = 22, 4, 3, 5
STORAGE = [list(range(i, min(i + BATCH, SAMPLES))) for i in range(0, SAMPLES, BATCH)]


def train_everything():
    """Each loader, each order, with and without read-ahead; prints JSON."""
    import tensorflow as tf
    import tf_keras

    import kloaders as kl

    received = []

    class Noted(tf_keras.layers.Layer):
        def call(self, x, training=False):
            def note(rows):
                received.append(rows.astype(int)[:, 0].tolist())

            tf.numpy_function(note, [x], [])
            return x

    def make_model():
        inputs = tf_keras.Input((1,))
        outputs = tf_keras.layers.Dense(1)(Noted()(inputs))
        model = tf_keras.Model(inputs, outputs)
        model.compile(tf_keras.optimizers.SGD(1e-4), "mse")
        return model

    def during(call):
        received.clear()
        call()
        return list(received)

    x = np.arange(SAMPLES, dtype=np.float32).reshape(-1, 1)
    folder = tempfile.mkdtemp()
    paths = [os.path.join(folder, f"{number:03}.npy") for number in range(SAMPLES)]
    for path, row in zip(paths, x, strict=True):
        np.save(path, row)
    kinds = {
        "array": lambda **o: kl.ArraySequenceLoader(x, x, BATCH, **o),
        "path": lambda **o: kl.PathSequenceLoader(paths, x, BATCH, **o),
        "ram": lambda **o: kl.RamBatchSequenceLoader(paths, x, BATCH, ram_batch_size=8, **o),
    }
    rounds = []
    for kind, shuffle, asked, workers in product(kinds, (None, True, False), (True, False), (0, 2)):
        loader = kinds[kind](seed=SEED, shuffle=shuffle, workers=workers)
        assert isinstance(loader, tf.keras.utils.Sequence)
        model = make_model()
        rounds.append(
            {
                "name": f"{kind}, shuffle={shuffle}, fit(shuffle={asked}), {workers} workers",
                "shuffle": shuffle,
                "asked": asked,
                "fit": during(partial(model.fit, loader, epochs=EPOCHS, shuffle=asked, verbose=0)),
                "evaluate": during(partial(model.evaluate, loader, verbose=0)),
                "predict": during(partial(model.predict, loader, verbose=0)),
                "plan": [
                    loader.plan.indices(loader.plan.shuffled_order(epoch), batch).tolist()
                    for epoch in range(EPOCHS)
                    for batch in range(len(loader))
                ],
            }
        )
        loader.close()

    loader = kinds["array"](seed=SEED, shuffle=True)
    callback = kl.LoaderCallback(loader)
    model = make_model()
    resumed = during(
        lambda: model.fit(
            loader, epochs=3, initial_epoch=2, shuffle=False, verbose=0, callbacks=[callback]
        )
    )
    order = loader.plan.shuffled_order(2)
    found = {
        "rounds": rounds,
        "resumed": resumed,
        "third epoch": [loader.plan.indices(order, b).tolist() for b in range(len(loader))],
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


@pytest.fixture(scope="module")
def trained():
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "PYTHONPATH": path}
    call = "from tests.contract import test_tf_keras as t; t.train_everything()"
    done = subprocess.run(
        [sys.executable, "-c", call],
        env=environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(line), done.stderr


def test_each_sample_once_an_epoch(trained):
    """The loader serves the batch numbers that tf_keras requests, in the order of either."""
    found, _ = trained
    assert len(found["rounds"]) == 36
    for each in found["rounds"]:
        fit, batches = each["fit"], len(STORAGE)
        assert len(fit) == EPOCHS * batches, each["name"]
        for start in range(0, len(fit), batches):
            epoch = fit[start : start + batches]
            assert sorted(chain.from_iterable(epoch)) == list(range(SAMPLES)), each["name"]


def test_the_advised_way_follows_the_plan(trained):
    """shuffle=True on the loader, shuffle=False in fit: the order that the seed fixes."""
    found, _ = trained
    advised = [r for r in found["rounds"] if r["shuffle"] is True and not r["asked"]]
    assert len(advised) == 6
    for each in advised:
        assert each["fit"] == each["plan"], each["name"]


def test_predict_lines_up(trained):
    """Rows of predict and evaluate are those of the data, right after a fit."""
    found, _ = trained
    for each in found["rounds"]:
        if each["shuffle"] is not True:
            assert each["predict"] == each["evaluate"] == STORAGE, each["name"]
        else:
            for name in ("predict", "evaluate"):
                assert sorted(chain.from_iterable(each[name])) == list(range(SAMPLES)), each["name"]


def test_the_callback_knows_the_epoch(trained):
    """LoaderCallback is one of tf_keras' callbacks there."""
    found, _ = trained
    assert found["resumed"] == found["third epoch"]


def test_it_says_once_what_it_cannot_do(trained):
    _, said = trained
    assert said.count("tf_keras asks for batches by number") == 1
    assert "pass shuffle=True to the loader and shuffle=False to fit()" in said
