"""Bars that count, and that are text where a notebook has no widgets."""

import os
import subprocess
import sys

import pytest

from kloaders.core.progress import Progress, so_far


@pytest.mark.parametrize("disable", [True, False])
def test_how_far_a_bar_came(disable):
    """Where it is not shown, too."""
    with Progress(total=5000, unit=" files", initial=1000, disable=disable) as bar:
        bar.update(200)
    assert so_far() == "1,200 of 5,000 files"
    with Progress(unit="B", disable=disable) as bar:
        bar.update(7)
    assert so_far() == "7 bytes"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_killed_within_a_bar_blocks_no_other_process():
    """It held the lock of tqdm, which forked processes share; and a thread may hold the parent's."""
    code = """
import os, signal, threading
from kloaders.core.progress import Progress

def child(call):
    pid = os.fork()
    if not pid:
        call()
        os._exit(0)
    return os.waitpid(pid, 0)[1]

def killed():
    Progress.get_lock().acquire()
    os.kill(os.getpid(), signal.SIGKILL)

def bar():
    with Progress(total=2) as bar:
        bar.update(2)

bar()
assert child(killed) == signal.SIGKILL
bar()
assert threading.active_count() == 1, threading.enumerate()
held, end = threading.Event(), threading.Event()

def hold():
    with Progress.get_lock():
        held.set()
        end.wait(60)

thread = threading.Thread(target=hold)
thread.start()
held.wait(60)
assert child(bar) == 0
end.set()
thread.join()
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "KLOADERS_WORKER": "1"},
    )
    assert done.stdout == "done\n", done.stderr


def test_a_notebook_without_widgets_has_no_red_warning():
    """Tqdm warns when it is imported in a notebook that has no ipywidgets."""
    code = """
import sys, types, warnings
warnings.simplefilter("error")
notebook = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: notebook)
sys.modules["ipywidgets"] = None
from kloaders.core.progress import Progress
for _ in Progress([1], desc="reads"): pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "Warning" in done.stderr) == (0, False), done.stderr
    assert "reads: 100%" in done.stderr
