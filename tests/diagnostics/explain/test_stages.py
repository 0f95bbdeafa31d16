"""What single samples cost, stage by stage."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.explain.stages import measure_stages


class Hooked(kl.SequenceLoader):
    def load_sample(self, index):
        return np.full(index % self.sizes + 1, index, "f4")

    sizes = 1


def test_samples_are_taken_from_all_over_and_kept_as_stored():
    """In a shuffled order, each once; the transform is timed and not kept."""
    loader = kl.ArraySequenceLoader(
        np.arange(50.0), np.arange(50), 4, seed=1, transform=lambda x, y, rng: (-x, y)
    )
    stages = measure_stages(loader, 30.0)
    assert sorted(stages.indices) == list(range(50))
    assert stages.indices != sorted(stages.indices)
    assert [int(x) for x, _ in stages.samples] == stages.indices
    x, y = stages.arrays()
    assert x.tolist() == y.tolist() == stages.indices
    found = stages.found()
    assert found["transform_s"] > 0
    assert 0 < found["alone_busy"] <= 1
    assert "transform_s" not in measure_stages(loader, 30.0, transform=False).found()


def test_it_ends_when_the_time_is_over(monkeypatch):
    """After four samples; after one if they take long."""
    assert len(measure_stages(Hooked(50, 4), 0.0).samples) == 4
    from kloaders.diagnostics.explain import stages as module

    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    class Slow(kl.SequenceLoader):
        def load_sample(self, index):
            now[0] += 9.0
            return np.float32(index)

    assert len(measure_stages(Slow(50, 4), 1.0).samples) == 1


class Broken(kl.SequenceLoader):
    """Every third sample does not load."""

    def load_sample(self, index):
        if index % 3 == 0:
            raise ValueError("no such thing")
        return np.float32(index)


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_samples_that_do_not_load_are_left_out(on_error):
    stages = measure_stages(Broken(30, 4, on_error=on_error, seed=1), 30.0)
    assert sorted(stages.indices) == [k for k in range(30) if k % 3]
    assert [int(x[0]) for x in stages.samples] == stages.indices


def test_files_that_do_not_load_are_left_out(pictures, tmp_path):
    """Broken, and gone; their times do not count."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    paths = [*pictures[:6], str(broken), str(tmp_path / "gone.png")]
    options = {"size": (16, 16), "check_paths": False, "seed": 1}
    loader = kl.PathSequenceLoader(paths, np.zeros(8), 4, on_error="skip", **options)
    assert sorted(measure_stages(loader, 30.0).indices) == list(range(6))
    found = loader.explain(seconds=0.2)
    assert found.measured.probed <= 6
    assert found.now > 0
    loader.close()
    with pytest.raises(kl.SampleError, match=r"gone|broken"):
        kl.PathSequenceLoader(paths, np.zeros(8), 4, **options).explain(seconds=0.2)


def test_where_nothing_loads_it_says_why():
    class Never(Broken):
        def load_sample(self, index):
            if index:
                raise ValueError("no such thing")
            return np.float32(index)

    with pytest.raises(kl.SampleError, match="no such thing"):
        measure_stages(kl.subset(Never(30, 4, on_error="skip"), slice(1, None)), 30.0)


def test_samples_of_several_shapes_are_no_arrays():
    class Ragged(Hooked):
        sizes = 3

    assert measure_stages(Ragged(20, 1), 30.0).arrays() is None


def test_reading_is_told_from_decoding(pictures):
    """The files' bytes are counted, and scaled decoding is tried where images are resized."""
    loader = kl.PathSequenceLoader(pictures, batch_size=4, size=(16, 16), cache=None)
    stages = measure_stages(loader, 30.0)
    found = stages.found()
    assert set(found) == {
        *("read_s", "read_cached_s", "decode_s", "copy_s", "dct_decode_s", "alone_busy"),
    }
    assert stages.stored > 24 * 1000
    whole = kl.PathSequenceLoader(pictures, batch_size=4, cache=None)
    assert "dct_decode_s" not in measure_stages(whole, 30.0).found()


def test_a_hook_that_reads_files_has_no_scaled_decoding(pictures):
    """It would be measured without the hook."""

    class Own(kl.PathSequenceLoader):
        def load_sample(self, path):
            return np.zeros((16, 16, 3), np.uint8)

    found = measure_stages(Own(pictures, batch_size=4, size=(16, 16)), 30.0).found()
    assert "dct_decode_s" not in found


def test_what_a_hook_waits_for_is_no_work(monkeypatch):
    """With a clock that a test moves: a second each, and none of it on the processor."""
    from kloaders.diagnostics.explain import stages as module

    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module.time, "thread_time", lambda: 0.0)

    class Waiting(kl.SequenceLoader):
        def load_sample(self, index):
            now[0] += 1.0
            return np.float32(index)

    found = measure_stages(Waiting(8, 2), 1e9).found()
    assert found["read_s"] == pytest.approx(1)
    assert found["decode_s"] == 0
