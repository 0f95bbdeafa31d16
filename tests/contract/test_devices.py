"""Several devices of one process together receive every sample once."""

from __future__ import annotations

from tests.support.marks import only_jax, only_tf, scenario
from tests.support.scripts import run_script

MIRRORED = """
import json
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import kloaders as kl
from tests.support.recording import recording_model
from tests.support.kinds import labels, rows

found = {}
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model, received = recording_model()
for shuffle in (None, True):
    received.clear()
    loader = kl.ArraySequenceLoader(rows(11), labels(11), 4, seed=7, shuffle=shuffle)
    epochs = []

    class Epochs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            epochs.append(sorted(sum(received.trained, [])))
            received.clear()

    model.fit(loader, epochs=3, verbose=0, callbacks=[Epochs()])
    assert all(len(batch) <= 2 for batch in received.trained)
    found[str(shuffle)] = epochs
    if not shuffle:
        found["predicted"] = model.predict(loader, verbose=0)[:, 1].tolist()
print(json.dumps(found))
"""


@scenario("MirroredStrategy on two devices")
@only_tf
def test_mirrored_strategy():
    """Two replicas together receive every sample once an epoch."""
    found = run_script(MIRRORED)
    assert found["None"] == [list(range(11))] * 3
    assert found["True"] == [list(range(11))] * 3
    assert found["predicted"] == list(range(11))


DATA_PARALLEL = """
import json
import jax
import keras
import kloaders as kl
from tests.support.recording import Counts, loss
from tests.support.kinds import labels, rows

assert len(jax.devices()) == 2
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=jax.devices()))
x = inputs = keras.Input((2,))
model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Rescaling(1e-3)(x)))
model.compile("sgd", loss, weighted_metrics=[Counts(11)])
found = {}
for option in ("drop_last", "pad_last"):
    loader = kl.ArraySequenceLoader(rows(11), labels(11), 4, seed=7, **{option: True})
    history = model.fit(loader, epochs=3, verbose=0).history
    found[option] = [[float(n) for n in counts] for counts in history["counts"]]
print(json.dumps(found))
"""


@scenario("JAX DataParallel on two devices, with drop_last or pad_last")
@only_jax
def test_jax_data_parallel():
    """Two devices together count every sample once, or every sample of the whole batches."""
    found = run_script(
        DATA_PARALLEL, XLA_FLAGS="--xla_force_host_platform_device_count=2", JAX_PLATFORMS="cpu"
    )
    assert found["pad_last"] == [[1.0] * 11] * 3
    for counts in found["drop_last"]:
        assert sorted(counts) == [0.0] * 3 + [1.0] * 8
