"""`from_torch`: which samples of a torch Dataset arrive, as what, and with which random numbers."""

import random
import threading
from itertools import chain

import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import recording_model

torch = pytest.importorskip("torch")

from tests.support.torch_datasets import SAMPLES, Drawing, Numbers  # noqa: E402 (needs torch)

BATCH = 4


def drawn(loader, epoch=0, shuffle=False):
    """The random numbers that each sample of an epoch drew, by its number."""
    rows = np.concatenate(list(loader.epoch_batches(epoch, shuffle)))
    assert sorted(rows[:, 3]) == list(range(SAMPLES))
    return rows[np.argsort(rows[:, 3])]


@pytest.mark.parametrize(
    "options",
    [{}, {"seeded": False, "workers": 2}, {"workers": 0}],
    ids=["default", "threads", "no workers"],
)
def test_a_fit_gets_every_sample(keep, options):
    """Once an epoch with its own label, in a new order each time; predict gets storage order."""
    loader = keep(kl.from_torch(Numbers(), BATCH, seed=3, **options))
    model, received = recording_model()
    history = model.fit(loader, epochs=2, verbose=0)
    trained = received.trained
    assert [len(batch) for batch in trained[:6]] == [4, 4, 4, 4, 4, 3]
    epochs = [list(chain(*trained[:6])), list(chain(*trained[6:]))]
    assert [sorted(epoch) for epoch in epochs] == [list(range(SAMPLES))] * 2
    assert epochs[0] != epochs[1]
    assert history.history["mismatch"] == [0, 0]
    received.clear()
    model.predict(loader, verbose=0)
    assert list(chain(*received.inferred)) == list(range(SAMPLES))


def test_what_it_draws_is_fixed_by_seed_and_epoch(keep):
    """The same for any worker and order, and different in each epoch and for each sample."""
    loader = keep(kl.from_torch(Drawing(), BATCH, seed=3))
    first, second = drawn(loader), drawn(loader, 1)
    np.testing.assert_array_equal(first, drawn(loader, 0, shuffle=True))
    for options in ({"workers": 0}, {"processes": True, "workers": 2}):
        other = keep(kl.from_torch(Drawing(), BATCH, seed=3, **options))
        np.testing.assert_array_equal(drawn(other, 0, shuffle=True), first)
        np.testing.assert_array_equal(drawn(other, 1), second)
    numbers = np.concatenate([first[:, :3], second[:, :3], drawn(loader, 2)[:, :3]])
    assert len(np.unique(numbers)) == numbers.size
    another = keep(kl.from_torch(Drawing(), BATCH, seed=4))
    assert not np.isin(drawn(another)[:, :3], numbers).any()


def test_the_global_generators_are_as_they_were():
    """Reading a sample does not change the random numbers of the rest of the program."""
    loader = kl.from_torch(Drawing(), BATCH, workers=0, seed=1)

    def draws():
        return torch.rand(1).item(), np.random.random(), random.random()

    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = [draws(), draws()]
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    got = [draws()]
    loader[0]
    got.append(draws())
    assert got == expected


def test_preload_and_packs_hold_epoch_0(keep, tmp_path):
    """Samples that are read once and cached have the random numbers of the first epoch."""
    loader = keep(kl.from_torch(Drawing(), BATCH, seed=3))
    np.testing.assert_array_equal(drawn(keep(kl.preload(loader, progress=False))), drawn(loader))
    kl.write_pack(loader, tmp_path, progress=False)
    np.testing.assert_array_equal(drawn(keep(kl.PackSequenceLoader(tmp_path))), drawn(loader))


def test_parts_of_it(keep):
    """A split has each sample in one part, with the same random numbers as in the whole."""
    whole = keep(kl.from_torch(Drawing(), BATCH, seed=3))
    expected = [drawn(whole, epoch) for epoch in range(2)]
    assert (expected[0][:, :3] != expected[1][:, :3]).all()
    for part in kl.split(whole, validation=0.3, seed=1):
        for epoch in range(2):
            rows = np.concatenate(list(keep(part).epoch_batches(epoch, False)))
            np.testing.assert_array_equal(rows, expected[epoch][rows[:, 3].astype(int)])
    numbers = [np.concatenate(list(part.epoch_batches()))[:, 3] for part in kl.split(whole)]
    assert sorted(np.concatenate(numbers)) == list(range(SAMPLES))


class Watched(Numbers):
    """Notes how many threads are inside at a time; each waits there for a second one."""

    def __init__(self):
        self.inside = self.most = 0
        self.lock = threading.Lock()
        self.both = threading.Event()

    def __getitem__(self, k):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.inside > 1:
                self.both.set()
        self.both.wait(0.02)
        with self.lock:
            self.inside -= 1
        return super().__getitem__(k)


def test_a_dataset_is_called_once_at_a_time(keep):
    """By default one thread at a time reads it; several threads do if the user allows it."""
    for options, most in (({}, 1), ({"seeded": False, "workers": 2}, 2)):
        dataset = Watched()
        loader = keep(kl.from_torch(dataset, BATCH, **options))
        asking = [
            threading.Thread(target=lambda loader=loader, k=k: loader[k])
            for k in range(len(loader))
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert (dataset.most > 1) == (most > 1)


class Given:
    """A dataset of these samples: `len` and `[]` are all that is needed."""

    def __init__(self, *samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, k):
        return self.samples[k]


def pillow(*shape):
    image = pytest.importorskip("PIL.Image")
    return image.fromarray(np.arange(np.prod(shape), dtype=np.uint8).reshape(shape))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: torch.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3)),
        (lambda: torch.ones(2, dtype=torch.float16), np.ones(2, np.float16)),
        (lambda: torch.ones(2, dtype=torch.bfloat16), np.ones(2, np.float32)),
        (lambda: torch.ones(2, requires_grad=True), np.ones(2, np.float32)),
        (lambda: np.ones((2, 2), np.uint8), np.ones((2, 2), np.uint8)),
        (lambda: pillow(2, 2, 3), np.arange(12, dtype=np.uint8).reshape(2, 2, 3)),
        (lambda: [1, 2, 3], np.array([1, 2, 3])),
        (lambda: 7, np.array(7)),
        (lambda: 0.5, np.array(0.5, np.float32)),
    ],
    ids=["int64", "float16", "bfloat16", "grad", "numpy", "PIL", "list", "int", "float"],
)
def test_what_a_value_becomes(keep, make, expected):
    """Values and dtypes are those of the sample."""
    x, y = keep(kl.from_torch(Given((make(), 1), (make(), 2)), 2))[0]
    np.testing.assert_array_equal(x, np.stack([expected] * 2))
    assert x.dtype == expected.dtype
    assert y.tolist() == [1, 2]


def test_nested_samples(keep):
    """A list of tensors is a tuple; a dict stays one; `select` makes x and y of other forms."""
    row = torch.arange(2.0)
    loader = keep(kl.from_torch(Given(([row, {"a": row}], 3), ([row, {"a": row}], 4)), 2))
    x, y = loader[0]
    assert x[0].tolist() == x[1]["a"].tolist() == [[0, 1], [0, 1]]
    assert y.tolist() == [3, 4]
    items = Given({"image": row, "label": 5, "id": "a"}, {"image": row, "label": 6, "id": "b"})
    loader = keep(kl.from_torch(items, 2, select=lambda item: (item["image"], item["label"])))
    assert loader[0][1].tolist() == [5, 6]
    with pytest.raises(kl.SampleError, match=r"Given\[0\].*'a'.*expected numbers"):
        keep(kl.from_torch(items, 2))[0]


def test_datasets_of_torch(keep):
    """TensorDataset, Subset and ConcatDataset are such."""
    whole = torch.utils.data.TensorDataset(torch.arange(10.0), torch.arange(10))
    some = torch.utils.data.Subset(whole, [7, 2])
    x, y = keep(kl.from_torch(torch.utils.data.ConcatDataset([some, whole]), 12))[0]
    assert x.tolist() == y.tolist() == [7, 2, *range(10)]


def test_a_transform_gets_the_sample(keep):
    """After the dataset, with its own random generator."""
    loader = keep(kl.from_torch(Numbers(), BATCH, seed=1, transform=lambda x, y, rng: (x + 100, y)))
    x, y = loader[0]
    assert x[:, 0].tolist() == [100, 101, 102, 103]
    assert y.tolist() == [0, 1, 2, 3]


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize(
    ("make", "options", "error", "said"),
    [
        (Stream, {}, TypeError, r"Stream has no samples by number.*from_torch\(list\(dataset\)\)"),
        (lambda: iter([1]), {}, TypeError, "list_iterator has no samples by number"),
        (
            lambda: torch.utils.data.DataLoader(Numbers(), 4),
            {},
            TypeError,
            r"from_torch\(dataloader.dataset, batch_size=...\)",
        ),
        (Numbers, {"num_workers": 2}, TypeError, "no num_workers=: pass processes=True"),
        (Numbers, {"collate_fn": list}, TypeError, "no collate_fn=: samples are stacked"),
        (Numbers, {"shufle": True}, TypeError, "did you mean shuffle=?"),
        (Numbers, {"workers": 2}, ValueError, "pass processes=True, or seeded=False"),
        (Numbers, {"cache": "ram"}, ValueError, "seeded=False if the dataset draws no"),
        (Numbers, {"select": 1}, TypeError, "select=1 is not a function"),
        (Given, {}, ValueError, "no samples|0 samples"),
    ],
)
def test_what_is_refused(make, options, error, said):
    """With what to do instead."""
    with pytest.raises(error, match=said):
        kl.from_torch(make(), BATCH, **options)


def test_the_advice_works(keep):
    """A stream that fits in RAM, a DataLoader's dataset, a cache of what is not drawn."""
    assert keep(kl.from_torch(list(Stream()), 3))[0].tolist() == [0, 1, 2]
    loading = torch.utils.data.DataLoader(Numbers(), 4)
    assert keep(kl.from_torch(loading.dataset, 4))[0][1].tolist() == [0, 1, 2, 3]
    calls = []

    class Counted(Numbers):
        def __getitem__(self, k):
            calls.append(k)
            return super().__getitem__(k)

    loader = keep(kl.from_torch(Counted(), BATCH, seeded=False, cache="ram"))
    for epoch in range(3):
        labels = np.concatenate([y for _, y in loader.epoch_batches(epoch)])
        assert labels.tolist() == list(range(SAMPLES))
    assert len(calls) <= SAMPLES + 1


def test_a_sample_that_fails_is_named(keep):
    """By the dataset and the number."""

    class Broken(Numbers):
        def __getitem__(self, k):
            if k == 5:
                raise OSError("gone")
            return super().__getitem__(k)

    with pytest.raises(kl.SampleError, match=r"Broken\[5\].*gone"):
        keep(kl.from_torch(Broken(), BATCH))[1]
    skipping = keep(kl.from_torch(Broken(), BATCH, on_error="skip"))
    assert skipping[1][1].tolist() == [4, 6, 7]
