"""The bottleneck of an epoch, for made-up figures."""

import pytest

from kloaders.diagnostics.explain.bottleneck import EpochCost
from kloaders.diagnostics.explain.measured import Run
from kloaders.diagnostics.explain.verdict import judge
from tests.support.explain_figures import DECODING, figures, settings_of


def test_a_model_that_does_not_wait_is_what_binds():
    """No setting of the loader is then suggested."""
    found = judge(figures(step_s=20e-3, step_cpu_s=1e-3, fit_s=20.4e-3, model_from="model"))
    assert found.bound == "model"
    assert found.advice == []
    assert found.wait == pytest.approx(1 - 20 / 20.4)
    assert "2.4 times as fast as the model" in found.why
    assert "Nothing to change: a faster loader would gain nothing." in str(found)


def test_files_slower_from_the_disk_than_from_memory_are_the_disk():
    """Only if memory cannot hold the files: otherwise the second epoch finds them in memory."""
    slow = {"cold": Run(500, 1.0), "disk_rate": 520, "disk_rate_more": 2000}
    found = judge(figures({"files_fit": False, "free_bytes": 10**9}, **slow))
    assert (found.bound, found.stage) == ("disk", "read")
    assert settings_of(found) == ["workers=32"]
    assert found.advice[0].predicted == pytest.approx(500 * 2000 / 520)
    assert found.ceiling == 2000
    assert judge(figures(**slow)).bound == "cpu"
    assert judge(figures(**slow)).first_bound == "disk"


def test_a_hook_that_waits_is_the_disk_whatever_it_waits_for():
    """No files are known, and a sample is mostly waiting: more threads wait at a time."""
    found = judge(
        figures(
            {"stored_bytes": None, "free_bytes": 0, "users_code": True},
            read_s=0.1,
            read_cached_s=0.0,
            disk_rate=None,
            disk_rate_more=None,
            cold=Run(80, 0.2),
            warm=Run(80, 0.2),
        )
    )
    assert found.bound == "disk"
    assert "98% of the time to load a sample is waiting" in found.why
    assert settings_of(found) == ["workers=32"]
    assert found.advice[0].predicted == pytest.approx(32 / 0.10201)


def test_idle_cores_behind_a_users_function_are_pythons_lock():
    """Eight threads keep only one core busy; processes would use all cores."""
    own = {"has_transform": True, "users_code": True, "free_bytes": 0}
    found = judge(figures(own, transform_s=6e-3, warm=Run(125, 1.05), cold=Run(125, 1.05)))
    assert (found.bound, found.stage) == ("gil", "transform")
    assert settings_of(found) == ["Keras layers instead of transform=", "processes=True"]
    assert found.advice[1].predicted == pytest.approx(8 / 8.02e-3)
    # The same if other programs use the cores: a single thread gets a third of one.
    assert judge(figures(own, warm=Run(125, 2.5), alone_busy=0.33)).bound == "cpu"
    # No user code runs, and built-in code releases the GIL.
    assert judge(figures(warm=Run(125, 1.05))).bound == "cpu"


def test_a_part_of_the_samples_in_the_cache_counts_as_that_part():
    """Half of the samples from RAM cost next to nothing: about twice as fast."""
    assert judge(figures({"kept": 0.5})).now == pytest.approx(2 * 3900, rel=0.02)


def test_loader_and_model_that_share_the_cores():
    """Each is quick alone, and there are cores for one of them."""
    found = judge(
        figures({"kept": 1.0}, step_s=5e-3, step_cpu_s=39e-3, fit_s=8e-3, model_from="model")
    )
    assert (found.bound, found.stage) == ("cpu", "step")
    idle = judge(
        figures({"kept": 1.0}, step_s=5e-3, step_cpu_s=1e-3, fit_s=8e-3, model_from="model")
    )
    assert idle.bound == "unknown"


def test_rates_with_a_model_end_at_its_step_and_at_the_cores():
    """Even an infinitely fast loader is no faster than the model."""
    cost = EpochCost(figures(step_s=4e-3, step_cpu_s=32 * 8e-3, fit_s=50e-3))
    assert cost.with_loading(100.0) == 100
    assert cost.with_loading(1e9, cpu_s=0.0) == pytest.approx(8 / 8e-3)
    alone = EpochCost(DECODING)
    assert alone.with_loading(1e9) == 1e9
    assert alone.ceiling() == pytest.approx(8 / 2.02e-3, rel=1e-2)


REMOTE = {"remote": True, "stored_bytes": None, "free_bytes": 0}
FETCHING = {"disk_rate": None, "disk_rate_more": None, "read_s": 0.02, "read_cached_s": 0.0}


def test_a_loader_that_fetches_is_slowed_down_by_the_network():
    """Cores idle: the resource is named, with requests in flight and what each takes."""
    slow = {"cold": Run(400, 1.0), "warm": Run(400, 1.0), "request_s": 0.04, "requests": 16.2}
    found = judge(figures(REMOTE, **FETCHING, **slow))
    assert (found.bound, found.stage) == ("network", "read")
    assert "400 samples/s arrive with 16 concurrent requests, 40.0 ms each" in found.why
    assert "The bottleneck of loading is the network" in str(found)
    assert settings_of(found) == ['download_cache="downloads"']
    kept = judge(figures({**REMOTE, "downloads_kept": True}, **FETCHING, **slow))
    assert kept.advice == []


def test_a_loader_that_fetches_as_fast_as_it_decodes():
    """The wait for single requests is no evidence if many are in flight."""
    fast = {"cold": Run(3800, 7.9), "warm": Run(3800, 7.9), "request_s": 0.04, "requests": 150.0}
    assert judge(figures(REMOTE, **FETCHING, **fast)).bound == "cpu"


def test_decoded_samples_in_ram_fetch_nothing():
    slow = {"cold": Run(400, 1.0), "warm": Run(400, 1.0)}
    found = judge(figures({**REMOTE, "kept": 1.0}, **FETCHING, **slow))
    assert found.bound != "network"
    assert found.first_bound == "network"


def on_ray(share, **settings):
    """Eight actors that are at work for this share of their time."""
    run = Run(2000, 0.4, decoding=share)
    own = {"processes": True, "decoders": 8, "cores": 2, "free_bytes": 0, **settings}
    return judge(figures(own, cold=run, warm=run, ram=run, disk_rate=None, disk_rate_more=None))


def test_ray_actors_that_are_always_at_work_are_the_decoders():
    """The time of the actors counts, not the cost of samples on this machine."""
    found = on_ray(0.95)
    assert (found.bound, found.stage) == ("decoders", "decode")
    assert found.why == "8 Ray actors are busy 95% of the time; most of it is decoding."
    assert "The bottleneck of loading is the decoders" in str(found)
    assert "this loader, with 8 Ray actors" in str(found)
    assert settings_of(found) == ["processes=Ray(cpus=16)"]
    assert found.advice[0].predicted == pytest.approx(4000)
    assert found.ceiling == pytest.approx(2000 / 0.95)


def test_ray_actors_that_wait_are_slowed_down_by_the_network():
    found = on_ray(0.3)
    assert (found.bound, found.stage) == ("network", "copy")
    assert "busy 30% of the time: they send 2,000 samples/s of 146.5 KiB" in found.why
    assert found.advice == []
    assert found.ceiling == pytest.approx(2000 / 0.3)


def test_what_actors_do_takes_no_core_of_the_model():
    """A step that uses both cores is not slowed down by decoding elsewhere."""
    run = Run(2000, 0.4, decoding=0.9)
    own = {"processes": True, "decoders": 8, "cores": 2, "free_bytes": 0}
    m = figures(own, cold=run, warm=run, ram=run, step_s=8e-3, step_cpu_s=16e-3, fit_s=16.5e-3)
    assert judge(m).bound == "decoders"
    assert EpochCost(m).with_loading(1e9) == pytest.approx(32 / 8e-3, rel=0.05)
