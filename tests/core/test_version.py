"""The version comes from the metadata, without the rest of the package."""

import importlib
import importlib.metadata
import subprocess
import sys

import kloaders
from kloaders.core import version


def test_it_is_the_packages():
    assert version.__version__ == kloaders.__version__ == importlib.metadata.version("kloaders")


def test_a_source_tree_has_none(monkeypatch):
    """Never installed: no metadata to read."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, "version", missing)
        assert importlib.reload(version).__version__ == "0+unknown"
    assert importlib.reload(version).__version__ == kloaders.__version__


def test_it_imports_nothing_heavy():
    code = (
        "import sys, kloaders.core.version\n"
        "print(sorted({'numpy', 'keras', 'tensorflow', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
