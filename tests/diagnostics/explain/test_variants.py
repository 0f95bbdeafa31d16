"""Loaders with one thing changed: the setting, and nothing else."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.explain import variants
from kloaders.plan.rng import Moment
from kloaders.sources.cache.columns import bypassed


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
    """The loader that checks a prediction differs in the setting only."""
    loader = kl.PathSequenceLoader(
        pictures, np.arange(24), 8, size=(32, 32), seed=1, transform=_same, shuffle=False
    )
    with bypassed(loader.source.stores()):
        new = variants.changed(loader, change, value, 5.0)
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
    new = variants.changed(loader, "processes", True)
    assert new.processes
    assert new.runner._processes is None
    assert not loader.processes


def _same(x, y, rng):
    return x, y


def test_a_variant_keeps_all_other_options(pictures):
    """Order, seed, faults and dtype are the loader's; nothing is written into it."""
    loader = kl.PathSequenceLoader(
        pictures, np.arange(24), 8, size=(16, 16), seed=5, on_error="skip", dtype="float32"
    )
    before = loader.options
    for change, value in (("workers", 3), ("processes", True), ("transform", _same)):
        new = variants.changed(loader, change, value)
        assert new.options.faults == before.faults
        assert new.options.order.seed == 5
        assert new.options.transforms.dtype == np.float32
        assert type(new) is type(loader)
    assert loader.options is before


def test_samples_in_ram_are_those_that_were_read(pictures):
    """A few whole batches, shuffled, without weights, padding or shards."""
    loader = kl.ArraySequenceLoader(
        np.arange(6.0), np.arange(6), 4, sample_weights=np.ones(6), shard=(0, 1), seed=1
    )
    held = variants.over_arrays(loader, (np.arange(6.0), np.arange(6)))
    assert held.samples == 18  # three times six: at least four batches of four
    labels = [int(label) for k in range(len(held)) for label in held[k][1]]
    assert sorted(set(labels)) == list(range(6))
    assert held.weights is None
    assert held.shuffle
    held.close()


def test_samples_are_not_sent_to_processes():
    """Processes would run the transform every time, so RAM is not measured with it."""
    loader = kl.ArraySequenceLoader(
        np.zeros((8, 2)), batch_size=4, processes=True, workers=1, transform=_same
    )
    assert variants.over_arrays(loader, (np.zeros((8, 2)),)) is None


def test_a_quiet_view_runs_as_a_fit_does(caplog, pictures):
    """Shuffled where Keras would shuffle, and without the log of RAM batches."""
    loader = kl.RamBatchSequenceLoader(pictures, batch_size=4, ram_batch_size=8, size=(8, 8))
    view = variants.quiet(loader)
    with caplog.at_level("INFO", "kloaders"):
        view.on_epoch_begin()
        view[0]
        view.close()
    assert "RAM batches" not in caplog.text
    assert view.shuffle
    assert loader.shuffle is None
    ordered = kl.ArraySequenceLoader(np.zeros((8, 2)), batch_size=4, shuffle=False)
    assert variants.quiet(ordered).shuffle is False


def test_ragged_samples_cannot_be_held():
    x = [np.zeros((k + 1, 2), "f4") for k in range(8)]
    loader = kl.ArraySequenceLoader(x, batch_size=1)
    with pytest.raises(ValueError, match="samples differ in shape"):
        variants.changed(loader, "ram", None)
