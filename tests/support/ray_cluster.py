"""One Ray cluster for all tests of a session, started with retries: its own start has a fixed limit."""

import contextlib
import time

import pytest

ATTEMPTS = 5


def start(ray, **options):
    """Ray's agent has 15 seconds to start, fixed in Ray, which a busy machine exceeds."""
    for attempt in range(ATTEMPTS):
        try:
            return ray.init(
                address="local",  # not another one of this machine
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                **options,
            )
        except Exception:  # its errors have no common class
            ray.shutdown()
            time.sleep(2**attempt)
    return pytest.skip(f"Ray did not start in {ATTEMPTS} attempts: the machine is too busy for it")


@pytest.fixture(scope="session")
def _cluster():
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    # The smallest object store that Ray allows: a look-ahead does not fit in it.
    start(ray, num_cpus=2, object_store_memory=80 * 2**20)
    yield ray
    ray.shutdown()


@pytest.fixture
def ray(_cluster):
    """The module ray, connected to a cluster of two CPUs."""
    if not _cluster.is_initialized():
        start(_cluster, num_cpus=2, object_store_memory=80 * 2**20)
    return _cluster


@contextlib.contextmanager
def _bare_actor(ray, cpus):
    """An actor that does nothing but hold `cpus` CPUs, from when it is ready."""

    @ray.remote(num_cpus=cpus)
    class Bare:
        def ready(self):
            return True

    bare = Bare.remote()
    ray.get(bare.ready.remote(), timeout=60)
    try:
        yield
    finally:
        ray.kill(bare)


def no_cpu_free(ray):
    """A context in which all CPUs of the cluster are taken."""
    return _bare_actor(ray, 2)


def slowness(ray):
    """The start time of an actor relative to an idle machine, where it takes one second: 1 to 6."""
    begin = time.monotonic()
    with _bare_actor(ray, 0):
        took = time.monotonic() - begin
    return min(6.0, max(1.0, took))
