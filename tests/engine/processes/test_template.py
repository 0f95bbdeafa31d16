"""The process that workers are forks of: one a program, and workers as fresh as a new Python."""

import importlib
import os
import random
import signal
import sys
import time

import numpy as np
import psutil
import pytest

import kloaders as kl
from kloaders.engine.processes import template, timeouts
from tests.engine.processes.hooks import (
    assert_exact,
    ends_at_19,
    epoch_of,
    loader_of,
    slow,
)

pytestmark = pytest.mark.skipif(
    not template._templates.possible, reason="workers are forks on Linux only"
)


def parents_of(loader):
    return {psutil.Process(pid).ppid() for pid in loader.runner._processes.pids}


def test_one_for_all_loaders(files):
    """Training and validation side by side, and a loader made when both are closed."""
    with loader_of(files) as train, loader_of(files) as validation:
        for _ in range(2):
            assert_exact(epoch_of(train))
            assert_exact(epoch_of(validation))
        found = parents_of(train) | parents_of(validation)
        workers = {*train.runner._processes.pids, *validation.runner._processes.pids}
        assert len(workers) == 4
    with loader_of(files) as after:
        assert_exact(epoch_of(after))
        assert found == parents_of(after) == template.pids()


def test_no_worker_is_left_when_a_loader_is_closed(files):
    loader = loader_of(files)
    epoch_of(loader)
    pids = loader.runner._processes.pids
    loader.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


MODULE = """
import os, random
import numpy as np

def change(x, y, rng):
    return x * 0 + {number}, y
"""


def test_hooks_are_those_of_the_loaders_time(files, tmp_path, monkeypatch):
    """A module that was edited and reloaded, a closure over another value, a folder changed to."""
    monkeypatch.syspath_prepend(str(tmp_path))
    hook = tmp_path / "edited_hook.py"
    found = []
    for number in (3, 4000):  # a file of another size is another one within the same second
        hook.write_text(MODULE.format(number=number))
        sys.modules.pop("edited_hook", None)
        importlib.invalidate_caches()
        change = importlib.import_module("edited_hook").change
        with loader_of(files, transform=change) as loader:
            found += [x for x, _ in epoch_of(loader)]
            parents = parents_of(loader)
    assert {int(value) for x in found for value in x.ravel()} == {3, 4000}
    assert parents == template.pids()


def drawn(x, y, rng):
    time.sleep(0.01)
    return np.array([os.getpid(), random.getrandbits(40), np.random.randint(2**40)]), y


def test_global_random_numbers_differ(files):
    """As in processes that were started: who draws without `rng` gets other numbers in each."""
    with loader_of(files, transform=drawn) as loader:
        x = np.concatenate([x for x, _ in epoch_of(loader)])
    assert len(set(x[:, 0])) == 2
    assert len(set(x[:, 1])) == len(set(x[:, 2])) == len(x)


def surroundings(x, y, rng):
    own = [os.environ.get("KLOADERS_TEST_NUMBER", "-1"), len(os.getcwd()), os.getsid(0)]
    return np.array([*map(int, own), os.getpid()]), y


def test_a_worker_has_the_programs_environment_and_folder(files, tmp_path, monkeypatch):
    found = []
    for number in (5, 6):
        folder = tmp_path / ("x" * number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("KLOADERS_TEST_NUMBER", str(number))
        with loader_of(files, transform=surroundings) as loader:
            x = epoch_of(loader)[0][0][0]
        assert x[2] == x[3]  # a session of its own: Ctrl-C does not reach it
        found.append(x[:2].tolist())
        assert x[1] == len(str(folder))
    assert [number for number, _ in found] == [5, 6]


def test_what_workers_say_comes_where_the_program_writes_now(files, capfd):
    """Its streams may be others than when the template was started."""
    with loader_of(files) as loader:
        epoch_of(loader)
    own = os.dup(1)
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    try:
        with loader_of(files, transform=says) as loader:
            epoch_of(loader)
    finally:
        os.dup2(own, 1)
        os.close(own)
        os.close(writing)
    with os.fdopen(reading) as stream:
        assert stream.read().count("said\n") >= 30


def says(x, y, rng):
    os.write(1, b"said\n")
    return x, y


def test_killed_template(files):
    """Workers go on; the one that has to be replaced comes from another template."""
    with (
        loader_of(files, transform=slow) as loader,
        loader_of(files, transform=ends_at_19) as other,
    ):
        epoch_of(loader)
        (first,) = template.pids()
        os.kill(first, signal.SIGKILL)
        assert_exact(epoch_of(loader))
        for pid in loader.runner._processes.pids[:1]:
            os.kill(pid, signal.SIGKILL)
        assert_exact(epoch_of(loader))
        with pytest.raises(kl.SampleError) as caught:
            epoch_of(other)
        assert caught.value.index == 19
        assert template.pids()
        assert first not in template.pids()


def test_it_leaves_when_nobody_asks(files, monkeypatch):
    monkeypatch.setenv(timeouts.IDLE, "0.3")
    with loader_of(files) as loader:
        assert_exact(epoch_of(loader))
        left = [psutil.Process(pid) for pid in template.pids()]
    assert len(left) == 1
    left[0].wait(10)
    with loader_of(files) as loader:
        assert_exact(epoch_of(loader))


def test_where_there_is_none(files, monkeypatch):
    """Each worker is then a Python of its own."""
    monkeypatch.setattr(template._templates, "possible", False)
    with loader_of(files) as loader:
        assert_exact(epoch_of(loader))
        assert parents_of(loader) == {os.getpid()}


def test_a_template_with_threads_forks_nothing(files, monkeypatch):
    """Of a fork only one thread is left, and locks that others held stay held."""
    monkeypatch.setattr(template._templates, "possible", True)
    monkeypatch.setattr(template.Template, "wait_ready", lambda *_: False)
    with loader_of(files) as loader:
        assert_exact(epoch_of(loader))
        assert parents_of(loader) == {os.getpid()}
