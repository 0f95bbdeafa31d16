"""Bars that count, and that are text where a notebook has no widgets."""

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
