"""Where the time goes: the verdict on figures that a test makes up, and that probes leave all as it was."""

import dataclasses
import json
import os
import time

import keras
import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.explain import probes
from kloaders.diagnostics.explain.measured import Measured, Run, Settings
from kloaders.diagnostics.explain.text import RESOURCES
from kloaders.diagnostics.explain.verdict import judge
from kloaders.plan.rng import Moment
from kloaders.sources.cache.columns import bypassed

SETTINGS = Settings(
    samples=100_000,
    batch_size=32,
    cores=8,
    workers=8,
    sample_bytes=150_000,
    raw_bytes=150_000,
    stored_bytes=100_000.0,
    free_bytes=2**40,
    files_fit=True,
)
# Photographs that take 2 ms to decode, on 8 cores.
DECODING = Measured(
    SETTINGS,
    read_s=1e-4,
    read_cached_s=1e-5,
    decode_s=2e-3,
    copy_s=1e-5,
    cold=Run(3700, 7.8),
    warm=Run(3900, 7.9),
    ram=Run(300_000, 7.0),
    disk_rate=20_000,
    disk_rate_more=21_000,
)


def figures(settings=None, **values):
    """DECODING, with some of its figures changed."""
    changed = dataclasses.replace(SETTINGS, **(settings or {}))
    return dataclasses.replace(DECODING, settings=changed, **values)


def settings_of(found):
    return [advice.setting for advice in found.advice]


# --------------------------------------------------------------------------------------- the verdict


def test_decoding_keeps_the_cores_busy():
    """The processor binds; what fits in RAM is to be kept there, and nothing promises more than two."""
    found = judge(DECODING)
    assert (found.bound, found.stage) == ("cpu", "decode")
    assert "99% of the work on 8 cores is decoding" in found.why
    assert found.reached == pytest.approx(3900 * 2.02e-3 / 8, rel=1e-3)
    assert found.best is None
    assert found.wait is None
    assert settings_of(found) == ['cache_budget="14.0GiB"']
    assert found.advice[0].predicted == 300_000
    assert "explain() after a fit with LoaderCallback" in str(found)


def test_a_cache_that_was_turned_off_is_asked_for():
    """The advice is what one types: cache= where there is none, a larger budget where it is small."""
    assert settings_of(judge(figures({"cache": None}))) == ['cache="ram"']


def test_what_does_not_fit_in_ram_is_packed():
    """At the speed at which the disk gives decoded bytes."""
    (advice,) = judge(figures({"free_bytes": 10**9})).advice
    assert advice.setting == "write_pack(loader, folder)"
    assert advice.predicted == pytest.approx(21_000 * 100_000 / 150_000)
    assert advice.change is None


def test_with_a_model_a_gain_ends_where_the_step_begins():
    """A loader that is a hundred times as fast makes a training faster by what it waited for."""
    found = judge(figures(step_s=4e-3, step_cpu_s=1e-3, fit_s=8e-3, model_from="model"))
    assert found.bound == "cpu"
    assert (found.now, found.best, found.wait) == (4000, 8000, 0.5)
    assert found.advice[0].predicted == 8000
    assert found.advice[0].gain == 2


def test_a_model_that_does_not_wait_is_what_binds():
    """And then no setting of the loader is worth a line."""
    found = judge(figures(step_s=20e-3, step_cpu_s=1e-3, fit_s=20.4e-3, model_from="model"))
    assert found.bound == "model"
    assert found.advice == []
    assert found.wait == pytest.approx(1 - 20 / 20.4)
    assert "2.4 times as fast as the model" in found.why
    assert "Nothing to change: a faster loader would gain nothing." in str(found)


def test_files_slower_from_the_disk_than_from_memory_are_the_disk():
    """Only where memory cannot hold the files: the second epoch would find them there."""
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
    assert "98% waiting" in found.why
    assert settings_of(found) == ["workers=32"]
    assert found.advice[0].predicted == pytest.approx(32 / 0.10201)


def test_idle_cores_behind_a_users_function_are_pythons_lock():
    """Eight threads that keep one core busy; processes promise the cores."""
    own = {"has_transform": True, "users_code": True, "free_bytes": 0}
    found = judge(figures(own, transform_s=6e-3, warm=Run(125, 1.05), cold=Run(125, 1.05)))
    assert (found.bound, found.stage) == ("gil", "transform")
    assert settings_of(found) == ["Keras layers instead of transform=", "processes=True"]
    assert found.advice[1].predicted == pytest.approx(8 / 8.02e-3)
    # The same with cores that others use: a thread alone gets a third of one.
    assert judge(figures(own, warm=Run(125, 2.5), alone_busy=0.33)).bound == "cpu"
    # Nothing of the user's runs: what is built in releases the lock.
    assert judge(figures(warm=Run(125, 1.05))).bound == "cpu"


def test_samples_from_the_cache_are_copied():
    """After the first epoch, which is told beside it."""
    found = judge(figures({"kept": 1.0}))
    assert (found.bound, found.now, found.first) == ("copy", 300_000, 3700)
    assert found.first_bound == "cpu"
    assert found.advice == []
    assert "In the first, the loader alone makes 3,700 samples/s" in str(found)


def test_a_part_of_the_samples_in_the_cache_counts_as_that_part():
    """Half of the samples from RAM cost next to nothing: about twice as fast."""
    assert judge(figures({"kept": 0.5})).now == pytest.approx(2 * 3900, rel=0.02)


def test_floats_that_were_bytes_are_copied_for_nothing():
    """Where copying binds, the bytes are the setting."""
    widened = {"kept": 1.0, "widened": 4.0, "sample_bytes": 600_000}
    (advice,) = judge(figures(widened)).advice
    assert advice.setting == "leave dtype= and rescale= out"
    assert advice.gain == pytest.approx(4)


def test_nothing_ahead_is_waiting():
    """workers=0 adds loading to the step; threads put it behind."""
    found = judge(
        figures(
            {"workers": 0, "free_bytes": 0},
            cold=Run(490, 1.0),
            warm=Run(490, 1.0),
            step_s=10e-3,
            step_cpu_s=1e-3,
            fit_s=75e-3,
            model_from="model",
        )
    )
    assert found.bound == "waiting"
    assert settings_of(found) == ["leave workers out"]
    assert found.advice[0].predicted == pytest.approx(32 / 10e-3)


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


def test_scaled_decoding_is_advised_by_what_it_measured():
    """A third of the time to decode: three times as fast, but for the rest."""
    found = judge(figures({"free_bytes": 0}, dct_decode_s=6e-4))
    assert "dct_scaling=True" in settings_of(found)
    (advice,) = [a for a in found.advice if a.setting == "dct_scaling=True"]
    assert advice.gain == pytest.approx(2.02 / 0.62, rel=1e-3)


def test_an_explanation_is_plain_data_and_text():
    """Every figure survives JSON; every verdict has words."""
    found = judge(figures(step_s=4e-3, fit_s=8e-3, model_from="fit"), "a loader", {"cores": 8})
    told = json.loads(found.to_json())
    assert told["bottleneck"] == told["bound"] == found.bottleneck == found.bound
    assert told["bottleneck"] in RESOURCES
    assert told["first_epoch"]["bottleneck"] == told["first_epoch"]["bound"] == found.first_bound
    assert told["samples_per_s"] == {
        "now": 4000,
        "first_epoch": 3700,
        "loader_alone": 3900,
        "ceiling": pytest.approx(found.ceiling, rel=1e-3),
        "best": 8000,
    }
    assert told["advice"][0]["measured"] is None
    assert told["measured"]["settings"]["cores"] == 8
    assert "a loader" in str(found)
    assert repr(found) == "<Explanation: the bottleneck is cpu, 4,000 samples/s>"


# ---------------------------------------------------------------------------------------- the probes


@pytest.fixture
def pictures(tmp_path):
    cv2 = pytest.importorskip("cv2")
    paths, noise = [], np.random.default_rng(0)
    for k in range(24):
        paths.append(str(tmp_path / f"{k}.jpg"))
        assert cv2.imwrite(paths[-1], noise.integers(0, 255, (64, 64, 3), "uint8"))
    return paths


def model_for(shape):
    model = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def test_every_stage_of_files_is_measured(pictures):
    """Seconds of each, and a run of the loader on the disk, from memory and from RAM."""
    loader = kl.PathSequenceLoader(pictures, np.zeros(24), 8, size=(16, 16), seed=1)
    found = loader.explain(seconds=0.3)
    m = found.measured
    for name in ("read_s", "read_cached_s", "decode_s", "copy_s", "dct_decode_s", "disk_rate"):
        assert getattr(m, name) > 0, name
    assert m.transform_s == 0
    assert all(run.rate > 0 and run.busy > 0 for run in (m.cold, m.warm, m.ram))
    assert m.settings.kept == 1
    assert m.settings.stored_bytes == pytest.approx(np.mean([os.path.getsize(p) for p in pictures]))
    assert m.step_s is None
    assert 4 <= m.probed <= 24
    loader.close()


def test_measuring_leaves_loader_and_model_alone(pictures):
    """Weights, optimizer, history and epoch are as before, and the cache holds what it held."""
    loader = kl.PathSequenceLoader(pictures, np.zeros(24), 8, size=(16, 16), seed=1)
    model = model_for((16, 16, 3))
    model.fit(loader, epochs=1, verbose=0)
    history = model.history
    variables = [*model.variables, *model.optimizer.variables]
    before = [keras.ops.convert_to_numpy(v).copy() for v in variables]
    cached = [str(store) for store in loader.source.stores()]
    epoch = loader.runner.tickets._next_epoch
    found = loader.explain(model, seconds=0.3)
    assert found.measured.step_s > 0
    assert found.measured.fit_s > 0
    assert found.measured.model_from == "model"
    for old, now in zip(before, [*model.variables, *model.optimizer.variables], strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(now))
    assert model.history is history
    assert loader.runner.tickets._next_epoch == epoch
    assert [str(store) for store in loader.source.stores()] == cached
    loader.close()


def test_an_unbuilt_model_is_measured_too():
    """Its first weights stay what they were drawn as."""
    loader = kl.ArraySequenceLoader(np.zeros((32, 4), "f4"), np.zeros(32, "f4"), 8, seed=1)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert loader.explain(model, seconds=0.2).best > 0
    assert model.built
    loader.close()


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("a model", TypeError, "model is a str, expected the keras.Model that fit"),
        (keras.Sequential([keras.layers.Dense(1)]), ValueError, "call model.compile\\(\\) first"),
    ],
)
def test_what_is_no_model_is_refused(model, error, words):
    loader = kl.ArraySequenceLoader(np.zeros((32, 4), "f4"), np.zeros(32, "f4"), 8)
    with pytest.raises(error, match=words):
        loader.explain(model, seconds=0.1)
    with pytest.raises(ValueError, match="seconds=0, expected more than 0"):
        loader.explain(seconds=0)


def test_a_fit_with_the_callback_tells_the_step():
    """No model is needed afterwards."""
    loader = kl.ArraySequenceLoader(np.zeros((64, 4), "f4"), np.zeros(64, "f4"), 8, seed=1)
    model_for((4,)).fit(loader, epochs=3, verbose=0, callbacks=[kl.LoaderCallback(loader)])
    found = loader.explain(seconds=0.2)
    assert found.measured.model_from == "fit"
    steady = loader.runner.last_fit.steady()
    assert found.measured.fit_s == pytest.approx(steady.seconds / steady.steps)
    assert found.now == pytest.approx(8 / found.measured.fit_s)
    loader.close()


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("workers", 3),
        ("transform", None),
        ("ram", None),
        ("dct_scaling", True),
        ("processes", True),
    ],
)
def test_a_changed_loader_serves_the_same_samples(pictures, change, value):
    """What a prediction is checked with is the setting, and nothing else."""
    loader = kl.PathSequenceLoader(
        pictures, np.arange(24), 8, size=(32, 32), seed=1, transform=_same, shuffle=False
    )
    with bypassed(loader.source.stores()):
        new = probes.changed(loader, change, value, 5.0)
        got = [new[k] for k in range(len(new))]
        new.close()
    labels = {int(label) for _, y in got for label in y}
    assert labels == set(range(24))
    for x, y in got:
        for picture, label in zip(x, y, strict=True):
            want = loader.source.sample(int(label), Moment())[0].astype(int)
            assert np.abs(picture - want).mean() <= (40 if change == "dct_scaling" else 0)
    assert loader.thread_count is None
    assert loader.transform is _same
    assert not loader.processes
    loader.close()


def test_processes_are_a_change_too(pictures):
    """The view has them, the loader has not; none is started before a batch is asked for."""
    loader = kl.PathSequenceLoader(pictures, size=(16, 16), batch_size=8)
    new = probes.changed(loader, "processes", True)
    assert new.processes
    assert new.runner._processes is None
    assert not loader.processes


def _same(x, y, rng):
    return x, y


def test_predictions_are_checked_when_asked(pictures, monkeypatch):
    """Each advice that can be tried is, and its figure stands beside the prediction."""
    loader = kl.PathSequenceLoader(pictures, np.arange(24), 8, size=(16, 16), seed=1, cache=None)
    asked = []

    def tried(loader, change, value, model, seconds):
        asked.append((change, value))
        return 123.0

    monkeypatch.setattr(probes, "measure_change", tried)
    found = loader.explain(seconds=0.2, check=True)
    assert asked == [advice.change for advice in found.advice if advice.change]
    assert all(advice.measured == 123 for advice in found.advice if advice.change)
    assert loader.explain(seconds=0.2).advice != found.advice or not asked
    loader.close()


def test_a_check_really_runs(pictures):
    loader = kl.PathSequenceLoader(pictures, np.arange(24), 8, size=(16, 16), seed=1, cache=None)
    assert probes.measure_change(loader, "ram", None, seconds=0.1) > 0
    model = model_for((16, 16, 3))
    assert probes.measure_change(loader, "workers", 1, model=model, seconds=0.3) > 0
    loader.close()


class Hooked(kl.SequenceLoader):
    def load_sample(self, index):
        time.sleep(2e-3)
        return np.full(3, index, "f4"), np.float32(index)


class Batched(kl.SequenceLoader):
    def load_batch(self, indices):
        return np.ones((len(indices), 3), "f4")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Hooked(20, 4),
        lambda: Batched(20, 4),
        lambda: kl.ArraySequenceLoader(np.zeros((20, 3)), batch_size=4, shuffle=False),
        lambda: kl.ArraySequenceLoader(
            {"a": np.zeros((20, 3)), "b": np.zeros(20)}, np.zeros(20), 4
        ),
        lambda: kl.ArraySequenceLoader(
            np.zeros((20, 3)), batch_size=32, shard=(1, 2), seed=1, shuffle=True
        ),
    ],
    ids=["load_sample", "load_batch", "array", "dict", "shard"],
)
def test_any_loader_can_be_explained(make):
    """Whatever its samples come from."""
    loader = make()
    found = loader.explain(seconds=0.15)
    assert found.bound in RESOURCES
    assert found.now > 0
    assert found.to_html().startswith("<!doctype html>")
    loader.close()


def test_two_levels_packs_records_and_subsets_can_be_explained(pictures, tmp_path):
    """Through RAM batches, memory maps, records and the sides of a split."""
    labels = np.arange(24)
    files = kl.PathSequenceLoader(pictures, labels, 4, size=(16, 16), seed=1)
    kl.write_pack(files, tmp_path / "pack", progress=False)
    written = kl.write_tfrecords(pictures, labels, tmp_path / "records", progress=False)
    features = {"x": "image_raw", "y": "label"}
    for loader in (
        kl.RamBatchSequenceLoader(pictures, labels, 4, ram_batch_size=8, size=(16, 16), seed=1),
        kl.PackSequenceLoader(tmp_path / "pack", 4),
        kl.TFRecordSequenceLoader(written.files, features, 4, size=(16, 16)),
        kl.split(files, seed=1)[0],
    ):
        found = loader.explain(seconds=0.15)
        assert found.now > 0
        assert found.measured.ram.rate > 0
        loader.close()


def test_saved_by_the_name_it_is_given(tmp_path):
    """JSON, text or a page; nothing half-written is left."""
    found = judge(DECODING, "a loader")
    for name in ("a.json", "a.txt", "a.html"):
        found.save(tmp_path / name)
    assert json.loads((tmp_path / "a.json").read_text())["loader"] == "a loader"
    assert (tmp_path / "a.txt").read_text().startswith("a loader\n")
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    assert len(list(tmp_path.iterdir())) == 3
