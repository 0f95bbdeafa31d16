"""A process ends after a fit, however that ended, and leaves no other process."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from tests.support.marks import scenario
from tests.support.scripts import environment

EXIT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
import keras
import numpy as np
import kloaders as kl
from tests.support.drawing import draw_number

x = np.arange(96, dtype=np.float32).reshape(48, 2)
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
end, processes = sys.argv[1], sys.argv[2] == "processes"
loader = kl.ArraySequenceLoader(
    x, x[:, :1], 4, workers=2, processes=processes, transform=draw_number
)

class End(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3 and end == "exception":
            raise LookupError("the user's own")
        if batch == 3 and end == "Ctrl-C":
            signal.raise_signal(signal.SIGINT)
        if batch == 3 and end == "exit":
            sys.exit(3)
        if batch == 3 and end == "stopped":
            self.model.stop_training = True

model.fit(loader, epochs=2, verbose=0, callbacks=[End()])
"""


@scenario("a process ends after a fit that succeeded, failed or was interrupted")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "workers", "code", "said"),
    [
        ("well", "processes", 0, ""),
        ("stopped", "threads", 0, ""),
        ("exit", "threads", 3, ""),
        ("exception", "threads", 1, "LookupError: the user's own"),
        ("exception", "processes", 1, "LookupError: the user's own"),
        ("Ctrl-C", "threads", -signal.SIGINT, "KeyboardInterrupt"),
    ],
)
def test_exit_after_fit(end, workers, code, said):
    """No hang and nothing but the user's own error; after torch's test_proper_exit."""
    own = environment()
    done = subprocess.run(
        [sys.executable, "-c", EXIT, end, workers],
        env=own,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:]
    if said:
        assert said in done.stderr
    else:
        assert "Traceback" not in done.stderr
    assert "resource_tracker" not in done.stderr
    left = [
        process
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get("PYTHONPATH") == own["PYTHONPATH"]
        and "KLOADERS_WORKER" in process.info["environ"]
    ]
    assert not psutil.wait_procs(left, timeout=20)[1]
