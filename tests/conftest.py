"""The same start for every test: a fixed random state, only the CPU as a device, and no leftovers."""

import gc
import logging
import os
import random
import sys

# Keras and TensorFlow read these when they are first imported. Tests of one backend set their own.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("MPLBACKEND", "Agg")
# albumentations asks the network for a newer release when it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Asserts in shared helpers say what they compared, as those in the tests do.
pytest.register_assert_rewrite("tests.support")

from tests.support.ray_cluster import _cluster, ray  # noqa: E402, F401

settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# Where to write the table of scenarios; see pytest_sessionfinish.
_TABLE = os.environ.get("KLOADERS_CONTRACT_TABLE")
_outcomes, _columns = {}, set()


@pytest.fixture(autouse=True)
def same_random_state():
    """Reset the random state, since a loader without a seed draws one from NumPy's generator."""
    before = random.getstate(), np.random.get_state()
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)
    else:
        random.seed(0)
        np.random.seed(0)
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])


@pytest.fixture(autouse=True)
def messages_of_all_levels():
    """Let tests capture logs at level INFO, and remove handlers that a command installed."""
    log = logging.getLogger("kloaders")
    log.setLevel(logging.INFO)
    yield
    log.setLevel(logging.NOTSET)
    for handler in list(log.handlers):
        log.removeHandler(handler)


@pytest.fixture
def keep():
    """keep(loader) -> loader, closed when the test ends."""
    kept = []

    def _keep(loader):
        kept.append(loader)
        return loader

    yield _keep
    for loader in kept:
        loader.close()


@pytest.fixture
def nothing_running(monkeypatch):
    """Wait for threads of earlier tests to end before this test, and let idle ones end soon."""
    from kloaders.core import threads
    from tests.support.recording import our_threads

    gc.collect()
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.2)
    for thread in our_threads():
        thread.join(30)
    assert not our_threads()


@pytest.fixture(scope="session")
def npy(tmp_path_factory):
    """23 .npy files, each with a row that holds its number."""
    from tests.support.recording import row_of

    folder = tmp_path_factory.mktemp("rows")
    paths = [str(folder / f"{k:03}.npy") for k in range(23)]
    for k, path in enumerate(paths):
        np.save(path, row_of(k))
    return paths


# ---------------------------------------------------------------- the table of scenarios


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "scenario(name): a row of the table of what is exact on which backend"
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Store the scenario in the report: with `-n` this runs in another process than the code below."""
    outcome = yield
    marker = item.get_closest_marker("scenario")
    if marker is not None:
        properties = outcome.get_result().user_properties
        properties.append(("scenario", marker.args[0]))
        if "keras" in sys.modules:
            keras = sys.modules["keras"]
            properties.append(("column", f"{keras.backend.backend()}, Keras {keras.__version__}"))


def pytest_runtest_logreport(report):
    noted = dict(report.user_properties)
    name = noted.get("scenario")
    if name is None:
        return
    _columns.add(noted.get("column"))
    if report.failed:
        _outcomes.setdefault(name, []).append("failed")
    elif report.skipped:
        longrepr = report.longrepr
        reason = longrepr[2] if isinstance(longrepr, (tuple, list)) else str(longrepr)
        _outcomes.setdefault(name, []).append(f"({reason.removeprefix('Skipped: ')})")
    elif report.when == "call":
        _outcomes.setdefault(name, []).append("exact")


def pytest_sessionfinish(session, exitstatus):
    """Merge this run's column into the Markdown table in the file KLOADERS_CONTRACT_TABLE."""
    known = _columns - {None}
    if not _TABLE or not known or hasattr(session.config, "workerinput"):
        return
    (column,) = known
    table = _read_table(_TABLE)
    for name, outcomes in _outcomes.items():
        table.setdefault(name, {})[column] = _verdict(outcomes)
    columns = sorted({column for row in table.values() for column in row})
    lines = ["| scenario | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name, row in table.items():
        cells = [row.get(column, "not run") for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    with open(_TABLE, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def _read_table(path):
    """{scenario: {column: verdict}}"""
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        header, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in file]
    return {name: dict(zip(header[1:], cells, strict=True)) for name, *cells in rows}


def _verdict(outcomes):
    # One test of a scenario that fails is a failure; one that is skipped says little.
    if "failed" in outcomes:
        return "failed"
    return "exact" if "exact" in outcomes else outcomes[0]
