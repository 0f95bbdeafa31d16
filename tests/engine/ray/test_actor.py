"""What runs on the cluster: the package arrives with the actor where it is not installed."""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap

import pytest

from kloaders.engine.ray import actor

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def test_the_digest_is_of_names_and_contents(tmp_path):
    package = tmp_path / "kloaders"
    package.mkdir()
    (package / "a.py").write_text("1")
    (package / "ignored.pyc").write_text("1")
    modules, digest = actor.modules_of(str(tmp_path))
    assert modules == {os.path.join("kloaders", "a.py"): b"1"}
    (package / "a.py").write_text("2")
    assert actor.modules_of(str(tmp_path))[1] != digest


_DRIVER = """
    import sys
    import numpy as np
    import ray
    import kloaders as kl
    from kloaders.engine.ray import cluster

    def whence(x, y, rng):
        import kloaders
        return np.array([ord(c) for c in kloaders.__file__.ljust(400)[:400]]), y

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    real = cluster.package(ray)
    # As on another machine: the folder of this one is not there.
    cluster._package = cluster._package[0], ("/nowhere", *real[1:])
    loader = kl.ArraySequenceLoader(np.arange(4), np.arange(4), 4, transform=whence, processes=kl.Ray(cpus=1))
    x, _ = loader[0]
    print("from", "".join(map(chr, x[0])).strip())
"""


@pytest.fixture
def short_folder():
    """Ray makes sockets in it, whose names must not be long."""
    folder = tempfile.mkdtemp(prefix="kl")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_the_package_is_sent_along(tmp_path, short_folder):
    """An actor that finds no such package unpacks it, and works."""
    pytest.importorskip("ray", reason="Ray is not installed")
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(_DRIVER), "utf-8")
    for _ in range(3):  # Ray's own start has a fixed limit
        done = subprocess.run(
            [sys.executable, str(script)],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            env={**os.environ, "TMPDIR": short_folder},
        )
        if "from " in done.stdout:
            break
    assert "from " in done.stdout, done.stderr[-2000:]
    assert done.stdout.split("from ")[1].startswith(os.path.join(short_folder, "kloaders-"))
