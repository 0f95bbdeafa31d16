"""Files for loaders with worker processes, and a look at what a test left behind."""

import gc
import os
import threading
import time

import numpy as np
import psutil
import pytest

from kloaders.engine.processes import template
from tests.engine.processes.hooks import SAMPLES, memory_files


@pytest.fixture
def files(tmp_path):
    """Files of four numbers, each the number of its sample."""
    paths = [tmp_path / f"{k:03d}.npy" for k in range(SAMPLES)]
    for k, path in enumerate(paths):
        np.save(path, np.full(4, k, np.int64))
    return [str(path) for path in paths]


@pytest.fixture(autouse=True)
def nothing_left():
    """After each test there is no process, thread, file or shared memory that was not before.

    But the template, which stays for the next loader, and is ended here.
    """
    before = resources()
    yield
    # Idle threads of a loader that was not closed leave after 5 s. While another thread collects what
    # TensorFlow left, which may take a minute, gc.collect() returns at once.
    end = time.monotonic() + 75
    while resources() - before and time.monotonic() < end:
        gc.collect()
        time.sleep(0.05)
    assert not resources() - before
    template.shut_down()


def resources():
    """What must come back: children, our threads, open memory files and what /dev/shm holds."""
    children = {child.pid for child in psutil.Process().children(recursive=True)} - template.pids()
    threads = {t.ident for t in threading.enumerate() if t.name.startswith("kloaders")}
    shared = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    return children | threads | memory_files() | shared
