"""Padded batches: what fills rows up, what says where they end, and samples that do not fit."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.errors import SampleError
from tests.support.sequences import BOUNDARIES, LENGTHS, bucketed, sequence_of, sequences


def test_rows_are_filled_up_behind_their_end():
    loader = bucketed(shuffle=True)
    shapes = set()
    for x, y in loader.epoch_batches():
        shapes.add(x.shape[1])
        for row, number in zip(x, y, strict=True):
            want = np.zeros((x.shape[1], 2), np.float32)
            want[: LENGTHS[number]] = number + 1
            np.testing.assert_array_equal(row, want)
    assert shapes <= set(BOUNDARIES)
    assert len(shapes) > 1


def test_padding_reused_memory_leaves_nothing_behind():
    """Large arrays come from blocks that were batches before."""
    lengths = np.tile([700, 300, 500], 20)
    x = [np.full((n, 20), k + 1, np.float32) for k, n in enumerate(lengths)]
    loader = kl.bucket_by_length(
        kl.ArraySequenceLoader(x, np.arange(60), 6, shuffle=True, seed=1), boundaries=[600, 900]
    )
    for epoch in range(2):
        for batch, y in loader.epoch_batches(epoch):
            assert batch.nbytes > 1 << 16
            for row, number in zip(batch, y, strict=True):
                assert row.sum() == (number + 1) * 20 * lengths[number]


@pytest.mark.parametrize(
    "options", [{"workers": 0}, {"workers": 3}, {"processes": True, "workers": 2}]
)
def test_batches_are_the_same_however_they_are_made(options, keep):
    want = list(bucketed(shuffle=True, workers=1).epoch_batches(1))
    got = list(keep(bucketed(shuffle=True, **options)).epoch_batches(1))
    for (x, y), (x_want, y_want) in zip(got, want, strict=True):
        np.testing.assert_array_equal(x, x_want)
        np.testing.assert_array_equal(y, y_want)


def test_labels_a_step_are_padded_with_their_own_value():
    labels = [np.full(n, k) for k, n in enumerate(LENGTHS)]
    loader = bucketed(labels=labels, pad={"label_pad_value": -1}, shuffle=True)
    for x, y in loader.epoch_batches():
        np.testing.assert_array_equal(y >= 0, x[..., 0] > 0)
        np.testing.assert_array_equal(y[y >= 0] + 1, x[..., 0][y >= 0])
    with pytest.raises(ValueError, match=r"y has .* pass label_pad_value="):
        bucketed(labels=labels)[0]


def test_a_mask_says_where_the_steps_are():
    x, _y = bucketed(pad={"mask": True})[0]
    np.testing.assert_array_equal(x[1], x[0][..., 0] > 0)
    named = kl.bucket_by_length(
        kl.ArraySequenceLoader({"words": sequences(LENGTHS)}, batch_size=5), mask=True
    )
    batch = named[0]
    assert list(batch) == ["words", "mask"]
    np.testing.assert_array_equal(batch["mask"], batch["words"][..., 0] > 0)


def test_only_what_has_steps_is_padded():
    table = np.arange(37 * 4, dtype=np.float32).reshape(37, 4)
    loader = kl.ArraySequenceLoader({"words": sequences(LENGTHS), "table": table}, batch_size=5)
    batch = kl.bucket_by_length(loader)[1]
    np.testing.assert_array_equal(batch["table"], table[5:10])
    assert batch["words"].ndim == 3


def crop(x, y, rng):
    return x[: 1 + rng.integers(len(x))], y


def test_a_transform_may_shorten_samples():
    loader = bucketed(transform=crop, shuffle=True, given=LENGTHS, pad={"mask": True})
    lengths = set()
    for (x, mask), y in loader.epoch_batches():
        np.testing.assert_array_equal(mask, x[..., 0] > 0)
        assert np.all(x[:, 0, 0] == y + 1)
        lengths |= set(mask.sum(axis=1).tolist())
    assert len(lengths) > 5


def test_a_broken_sample_is_skipped_or_replaced(tmp_path):
    paths = []
    for k, n in enumerate(LENGTHS):
        np.save(tmp_path / f"{k:02}.npy", sequence_of(k, n))
        paths.append(tmp_path / f"{k:02}.npy")
    paths[6].write_bytes(b"no array")
    for policy, left in (("skip", 36), ("replace", 37)):
        loader = kl.PathSequenceLoader(
            paths, np.arange(37), 5, seed=1, on_error=policy, shuffle=True, cache=None
        )
        seen = []
        for x, y in kl.bucket_by_length(loader, LENGTHS, BOUNDARIES).epoch_batches():
            assert x.shape[1] in BOUNDARIES
            assert np.all(x[:, 0, 0] == y + 1)
            seen += y.tolist()
        assert len(seen) == left
        assert 6 not in seen


def test_a_sample_longer_than_was_said_is_named():
    longest = int(LENGTHS.argmax())
    loader = bucketed(given=np.where(np.arange(37) == longest, 1, LENGTHS))
    with pytest.raises(
        ValueError, match=rf"row {longest} has {LENGTHS[longest]} steps, but only 1 according"
    ):
        loader[longest // 5]


def test_a_longer_sample_may_replace_one(tmp_path):
    """The batch grows to the boundary of what came instead, and all rows with it."""
    lengths = np.array([2] * 5 + [30] * 5)
    paths = []
    for k, n in enumerate(lengths):
        np.save(tmp_path / f"{k}.npy", sequence_of(k, n))
        paths.append(tmp_path / f"{k}.npy")
    for k in range(1, 5):  # what is drawn in their place is sample 0, or long
        paths[k].write_bytes(b"no array")
    loader = kl.PathSequenceLoader(paths, np.arange(10), 5, seed=1, on_error="replace")
    (x, mask), y = kl.bucket_by_length(loader, lengths, (2, 30), mask=True)[0]
    assert x.shape == (5, 30, 2)
    assert y[0] == 0
    assert max(y) >= 5
    assert mask.sum(axis=1).tolist() == lengths[y].tolist()
    for row, there, number in zip(x, mask, y, strict=True):
        assert np.all(row[there] == number + 1)
        assert not row[~there].any()


def test_steps_are_the_first_axis():
    """Lengths that the samples do not have are said with what the samples look like."""
    x = [np.zeros((3, n), np.float32) for n in range(1, 9)]
    loader = kl.bucket_by_length(kl.ArraySequenceLoader(x, batch_size=1), np.arange(1, 9), (4, 8))
    with pytest.raises(ValueError, match=r"row 0 has 1 steps.*\(3, 1\) and \(3, 8\).*first axis"):
        loader[0]


@pytest.mark.parametrize(("on_error", "loads"), [("raise", False), ("skip", True)])
def test_what_is_padded_is_learnt_from_samples_that_load(tmp_path, on_error, loads):
    """The shortest sample and the longest are looked at first, and others where they fail."""
    lengths = np.arange(1, 9)
    paths = [tmp_path / f"{k}.npy" for k in range(8)]
    for k, path in enumerate(paths):
        np.save(path, sequence_of(k, lengths[k]))
    paths[7].write_bytes(b"no array")
    loader = kl.PathSequenceLoader(paths, np.arange(8), 4, on_error=on_error)
    loader = kl.bucket_by_length(loader, lengths, (4, 8))
    if not loads:
        with pytest.raises(SampleError, match=r"sample 7 .*7\.npy"):
            loader[0]
        return
    batches = list(loader.epoch_batches())
    assert [x.shape for x, _ in batches] == [(4, 4, 2), (3, 8, 2)]
    assert [y.tolist() for _, y in batches] == [[0, 1, 2, 3], [4, 5, 6]]


def encoder_and_decoder(**options):
    """Long inputs, short ones, and labels as long as the short ones, which hold their number."""
    rng = np.random.default_rng(5)
    long, short = rng.integers(10, 30, 24), rng.integers(1, 9, 24)
    x = {
        name: [np.full(n, k + 1) for k, n in enumerate(lengths)]
        for name, lengths in (("a", long), ("b", short))
    }
    y = [np.full(n, k) for k, n in enumerate(short)]
    pad = {"label_pad_value": -1, **options.pop("pad", {})}
    loader = kl.ArraySequenceLoader(x, y, 4, **{"seed": 7, "shuffle": True, **options})
    return kl.bucket_by_length(loader, boundaries=(4, 6, 7, 8, 20, 30), **pad), long, short


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 2, "processes": True}])
def test_each_array_is_padded_to_its_own_boundary(options, keep):
    """Not all to that of the longest: a decoder's input is as short as its own texts are."""
    loader, long, short = encoder_and_decoder(**options)
    shapes = set()
    for x, y in keep(loader).epoch_batches():
        numbers = y[:, 0]
        for name, array, lengths in (("a", x["a"], long), ("b", x["b"], short), ("y", y, short)):
            most = lengths[numbers].max()
            assert array.shape[1] == min(b for b in (4, 6, 7, 8, 20, 30) if b >= most), name
            assert array.flags.c_contiguous
            for row, number in zip(array, numbers, strict=True):
                n = lengths[number]
                assert set(row[:n]) == {number + (name != "y")}
                assert set(row[n:]) <= {-1 if name == "y" else 0}
        shapes.add((x["a"].shape[1], x["b"].shape[1]))
    assert len(shapes) > 2


def test_shards_pad_all_arrays_to_the_boundary_of_the_longest():
    """Each knows its own samples only, and all need one shape."""
    parts = [encoder_and_decoder(shard=(k, 2), drop_last=True)[0] for k in range(2)]
    for (x, y), (x_other, y_other) in zip(*(p.epoch_batches() for p in parts), strict=True):
        assert x["a"].shape == x_other["a"].shape
        assert x["b"].shape == x_other["b"].shape == y.shape == y_other.shape
        assert x["b"].shape == x["a"].shape


def test_the_mask_is_that_of_the_first_array():
    loader, long, _ = encoder_and_decoder(pad={"mask": True})
    for x, y in loader.epoch_batches():
        np.testing.assert_array_equal(x["mask"], x["a"] > 0)
        np.testing.assert_array_equal(x["mask"].sum(axis=1), long[y[:, 0]])


def test_a_long_row_that_is_left_out_lengthens_nothing():
    """What is padded to is the longest of those that are delivered."""

    class Texts(kl.SequenceLoader):
        def load_sample(self, index):
            if index == 2:
                raise OSError("spoilt")
            return (np.full(20 - index, index + 1), np.full(3 + index, index + 1)), index

        def sample_name(self, index):
            return f"text {index}"

    loader = kl.bucket_by_length(
        Texts(4, 4, on_error="skip", seed=1), [20, 19, 30, 17], boundaries=(6, 20, 30)
    )
    (a, b), y = loader[0]
    assert y.tolist() == [0, 1, 3]
    assert (a.shape, b.shape) == ((3, 20), (3, 6))
