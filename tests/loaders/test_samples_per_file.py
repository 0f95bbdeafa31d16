"""samples_per_file=: one read, several samples, each transformed by itself and apart in the order."""

from __future__ import annotations

import csv
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import recording_model

FILES, COPIES, BATCH = 22, 3, 4
EACH = dict.fromkeys(range(FILES), COPIES)
RAM = 24  # samples: eight files, three RAM batches an epoch


class Reads:
    """A `decode=` hook that counts the reads of each file, whose arrays are of all lengths.

    rows: so many of a file are there; None: all.
    """

    def __init__(self, rows: int | None = None) -> None:
        self.rows = rows
        self.count: Counter[int] = Counter()
        self.broken: set[int] = set()
        self._lock = threading.Lock()

    def __call__(self, content: bytes) -> Any:
        array = np.frombuffer(content, "<f4").reshape(-1, 2)
        number = int(array[0, 0])
        with self._lock:
            self.count[number] += 1
        if number in self.broken:
            raise ValueError("the content is spoilt")
        return array[: self.rows]

    def __reduce__(self) -> Any:
        return Reads, (self.rows,)


def crop(x: Any, y: Any, rng: Any) -> Any:
    """A random row: the file's number, and where it was cut."""
    return x[rng.integers(len(x))], y


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files of 500 to 521 rows: the file's number, the row's."""
    folder = tmp_path_factory.mktemp("several")
    found = [str(folder / f"{k:02}.raw") for k in range(FILES)]
    for k, path in enumerate(found):
        rows = np.stack([np.full(500 + k, k), np.arange(500 + k)], axis=1)
        rows.astype("<f4").tofile(path)
    return found


@pytest.fixture
def several(paths: list[str], keep: Any) -> Any:
    """several(**options) -> (loader, reads), after a first look at a sample."""

    def _several(kind: Any = kl.RamBatchSequenceLoader, **options: Any) -> tuple[Any, Reads]:
        reads = options.pop("decode", None) or Reads()
        given = {"transform": crop, "samples_per_file": COPIES, "seed": 3, **options}
        if kind is kl.RamBatchSequenceLoader:
            given = {"ram_batch_size": RAM, **given}
        labels = np.arange(FILES, dtype=np.float32)
        loader = keep(kind(paths, labels, given.pop("batch_size", BATCH), decode=reads, **given))
        reads.count.clear()
        return loader, reads

    return _several


def epoch_of(loader: Any) -> list[list[tuple[int, int]]]:
    """(file, row) of one epoch, batch by batch; labels are those of the files."""
    found = []
    for batch in loader:
        x, y = batch[:2]
        np.testing.assert_array_equal(x[:, 0], y)
        found.append([tuple(row) for row in x.astype(int).tolist()])
    return found


def files_of(batches: list[list[tuple[int, int]]]) -> list[int]:
    return [file for batch in batches for file, _ in batch]


KINDS = pytest.mark.parametrize("kind", [kl.PathSequenceLoader, kl.RamBatchSequenceLoader])


# ---------------------------------------------------------------- what comes, and what is read


@KINDS
@pytest.mark.parametrize("workers", [0, 2])
def test_each_file_is_read_once_for_its_samples(several: Any, kind: Any, workers: int) -> None:
    """Of unequal length, each sample cut elsewhere, and not one behind the other."""
    loader, reads = several(kind, workers=workers, shuffle=True)
    assert len(loader) == -(-FILES * COPIES // BATCH)
    assert loader.samples == FILES
    assert loader.sample_spec
    reads.count.clear()
    epochs = [epoch_of(loader) for _ in range(2)]
    for epoch in epochs:
        assert Counter(files_of(epoch)) == EACH
        assert [len(batch) for batch in epoch[:-1]] == [BATCH] * (len(epoch) - 1)
        rows = [row for batch in epoch for row in batch]
        assert len(set(rows)) > 0.9 * len(rows)
        neighbours = sum(a == b for a, b in zip(files_of(epoch), files_of(epoch)[1:], strict=False))
        assert neighbours < FILES * COPIES / 3
    assert epochs[0] != epochs[1]
    loader.close()
    once = 1 if kind is kl.PathSequenceLoader else 2  # what fits stays
    # A RAM batch of the epoch that follows was begun.
    assert all(once <= count <= once + 1 for count in reads.count.values()), reads.count
    assert sum(reads.count.values()) <= once * FILES + (RAM // COPIES if workers else 0)


def test_the_draw_of_neighbours_reads_once_too(several: Any) -> None:
    loader, reads = several(draw="windows", shuffle=True, workers=0)
    assert loader.sample_spec
    reads.count.clear()
    assert Counter(files_of(epoch_of(loader))) == EACH
    assert sum(reads.count.values()) <= FILES + 1  # one may be both at the end and at the beginning


@KINDS
def test_a_model_gets_all_of_them(several: Any, kind: Any) -> None:
    """fit, evaluate and predict; rows of predict are those of the files in their order."""
    model, received = recording_model()
    loader, reads = several(kind)
    model.fit(loader, epochs=2, verbose=0)
    trained = [number for batch in received.trained for number in batch]
    assert Counter(trained) == dict.fromkeys(range(FILES), 2 * COPIES)
    assert trained[:FILES] != sorted(trained[:FILES])
    reads.count.clear()
    logs = model.evaluate(loader, verbose=0, return_dict=True)
    assert logs["mismatch"] == 0
    predicted = model.predict(loader, verbose=0)
    np.testing.assert_array_equal(predicted[:, 1], np.repeat(np.arange(FILES), COPIES))
    # Both once at most, but for Keras' own looks at the first batches.
    assert sum(max(0, count - 2) for count in reads.count.values()) <= 2 * 2 * BATCH


@pytest.mark.parametrize("options", [{"processes": True, "workers": 1}, {"workers": 2}])
def test_random_numbers_are_each_samples_own(several: Any, options: Any) -> None:
    """The same for threads and worker processes, in RAM batches of any size, whoever asks."""
    loader, _ = several(shuffle=True, **options)
    other, _ = several(kl.PathSequenceLoader, shuffle=False, workers=0)
    rows = sorted(row for batch in epoch_of(loader) for row in batch)
    assert rows == sorted(row for batch in epoch_of(other) for row in batch)
    assert [file for file, _ in rows] == [k for k in range(FILES) for _ in range(COPIES)]


def test_the_first_sample_is_what_it_is_without_the_option(several: Any) -> None:
    """Its random numbers are those of the only one."""
    loader, _ = several(shuffle=False)
    plain, _ = several(kl.PathSequenceLoader, samples_per_file=1, shuffle=False)
    rows = [row for batch in epoch_of(loader) for row in batch]
    assert rows[::COPIES] == [row for batch in epoch_of(plain) for row in batch]


# ---------------------------------------------------------------- with everything else


def test_weights_are_those_of_the_file(several: Any) -> None:
    weights = np.arange(FILES, dtype=np.float32) + 1
    loader, _ = several(shuffle=True, sample_weights=weights)
    for x, _, w in loader:
        np.testing.assert_array_equal(w, x[:, 0] + 1)


def test_a_transform_takes_the_weight_of_the_file(several: Any) -> None:
    def doubled(x: Any, y: Any, w: Any, rng: Any) -> Any:
        return x[0], y, 2 * w

    weights = np.arange(FILES, dtype=np.float32) + 1
    loader, _ = several(shuffle=True, sample_weights=weights, transform=doubled)
    for x, _, w in loader:
        np.testing.assert_array_equal(w, 2 * (x[:, 0] + 1))


@pytest.mark.parametrize("batch", [1, 7, 13])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_at_the_very_sample(several: Any, batch: int, workers: int) -> None:
    """With batches of the same size, and of another one."""
    whole, _ = several(shuffle=True, workers=workers)
    rows = epoch_of(whole)
    first, _ = several(shuffle=True, workers=workers)
    for _, _ in zip(range(batch), first, strict=False):
        pass
    state = first.state_dict()
    assert state["samples"] == batch * BATCH
    for size in (BATCH, 3):
        other, _ = several(shuffle=True, workers=workers, batch_size=size)
        other.load_state_dict(state)
        left = [row for batch in epoch_of(other) for row in batch]
        assert left == [row for after in rows[batch:] for row in after]


def test_a_state_of_another_number_is_refused(several: Any) -> None:
    state = several(shuffle=True)[0].state_dict()
    other, _ = several(shuffle=True, samples_per_file=2)
    with pytest.raises(ValueError, match="samples_per_file"):
        other.load_state_dict(state)


def test_parts_of_a_split_share_no_file(several: Any) -> None:
    """A validation part has one sample a file, or as many if it has a transform."""
    loader, _ = several(kl.PathSequenceLoader)

    def middle(x: Any, y: Any, rng: Any) -> Any:
        return x[len(x) // 2], y

    train, validation = kl.split(loader, validation=0.25, seed=1, validation_transform=middle)
    sides = [Counter(files_of(epoch_of(side))) for side in (train, validation)]
    assert sides[0] + sides[1] == EACH
    assert not set(sides[0]) & set(sides[1])
    assert len(sides[1]) == validation.samples == 6

    loader, _ = several(kl.PathSequenceLoader, decode=Reads(20))
    train, validation = kl.split(loader, validation=0.25, seed=1)
    trained = Counter(files_of(epoch_of(train)))
    validated = [number for _, y in validation for number in y.astype(int).tolist()]
    assert set(trained.values()) == {COPIES}
    assert sorted([*trained, *validated]) == list(range(FILES))
    assert not validation.runner.two_levels


def test_shards_have_all_samples_once(several: Any) -> None:
    """And each reads a file of its samples once."""
    options = {"shuffle": True, "workers": 0, "drop_last": True, "ram_batch_size": 12}
    parts = [several(shard=(k, 2), **options) for k in range(2)]
    found: Counter[int] = Counter()
    for loader, reads in parts:
        assert loader.sample_spec
        reads.count.clear()
        found += Counter(files_of(epoch_of(loader)))
        assert set(reads.count.values()) == {1}
    assert sum(found.values()) == FILES * COPIES // (2 * BATCH) * 2 * BATCH
    assert max(found.values()) == COPIES


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_is_one_error(several: Any, tmp_path: Any, workers: int) -> None:
    """All its samples are left out; it is named, and put into quarantine, once."""
    bad = tmp_path / "bad.csv"
    loader, reads = several(shuffle=True, on_error="skip", quarantine=bad, workers=workers)
    reads.broken = {5}
    assert Counter(files_of(epoch_of(loader))) == {k: n for k, n in EACH.items() if k != 5}
    assert [(error.index, error.name) for error in loader.errors] == [(5, loader.paths[5])]
    loader.close()
    with open(bad, newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [loader.paths[5]]

    raising, reads = several(shuffle=True, workers=workers)
    reads.broken = {5}
    with pytest.raises(kl.SampleError, match=r"05\.raw"):
        epoch_of(raising)


def test_a_broken_file_is_replaced(several: Any) -> None:
    loader, reads = several(shuffle=True, on_error="replace")
    reads.broken = {5}
    found = Counter(files_of(epoch_of(loader)))
    assert sum(found.values()) == FILES * COPIES
    assert 5 not in found


def test_what_a_transform_refuses_is_left_out_alone(several: Any) -> None:
    """The other samples of the file stay."""

    def picky(x: Any, y: Any, rng: Any) -> Any:
        cut, y = crop(x, y, rng)
        if cut[1] % 5 == 0:
            raise ValueError("nothing in it")
        return cut, y

    loader, _ = several(shuffle=True, on_error="skip", transform=picky)
    rows = [row for batch in epoch_of(loader) for row in batch]
    assert 0 < FILES * COPIES - len(rows) < FILES * COPIES
    assert all(row % 5 for _, row in rows)


def test_loaders_made_of_it_have_as_many(several: Any) -> None:
    loader, _ = several(shuffle=True)
    some = kl.subset(loader, [3, 8, 20, 21])
    assert Counter(files_of(epoch_of(some))) == dict.fromkeys([3, 8, 20, 21], COPIES)
    one_shape, _ = several(kl.PathSequenceLoader, decode=Reads(20))
    in_ram = kl.preload(one_shape, progress=False)
    assert Counter(files_of(epoch_of(in_ram))) == EACH
    assert "3 samples per file" in loader.summary()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples_per_file": 0}, "samples_per_file=0"),
        ({"samples_per_file": 2.5}, "samples_per_file=2.5"),
        ({"transform": None}, "samples_per_file=3 without transform= would deliver 3 identical"),
        ({"echo": 2}, "samples_per_file=3 and echo=2 both set how often"),
        ({"epoch_batches": 2}, "leave out epoch_batches="),
        ({"class_balance": np.arange(FILES) % 2}, "leave out epoch_batches=, class_balance="),
        ({"sampling_weights": np.ones(FILES)}, "class_balance= and sampling_weights="),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_it_cannot_be(several: Any, options: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        several(**options)


def test_functions_that_decide_how_often_a_sample_comes_refuse_it(several: Any) -> None:
    loader, _ = several(kl.PathSequenceLoader, decode=Reads(20))
    for make in (lambda one: kl.mix([one, one]), lambda one: kl.concatenate([one, one])):
        for given in (loader, kl.preload(loader, progress=False)):
            with pytest.raises(ValueError, match=r"RAM batches|samples_per_file=3"):
                make(given)
    with pytest.raises(ValueError, match="samples_per_file=3"):
        kl.bucket_by_length(kl.preload(loader, progress=False))
    with pytest.raises(ValueError, match="has samples_per_file=3"):
        kl.class_batches(loader, classes=2, samples=2, labels=np.arange(FILES) % 2)
