"""Batches of some classes with some samples each, and pairs: what a model gets."""

import keras
import numpy as np
import pytest

import kloaders as kl
from kloaders.plan.streams import ClassGroups
from tests.support.recording import BACKEND, Received, Recorder

N = 120
CODES = np.concatenate([np.repeat(np.arange(9), 12), np.full(12, 9)])[
    np.random.default_rng(0).permutation(N)
]


def loader(labels=CODES, **options):
    x = np.arange(len(labels), dtype=np.float32)[:, None]
    return kl.ArraySequenceLoader(x, labels, 10, **{"seed": 3, **options})


def groups_of(made, epoch=0):
    return [x[:, 0].astype(int) for x, *_ in made.epoch_batches(epoch)]


@pytest.mark.parametrize(("classes", "samples"), [(5, 4), (3, 3), (10, 2), (1, 12), (4, 1)])
def test_each_batch_has_so_many_classes_with_so_many_samples(classes, samples):
    made = kl.class_batches(loader(), classes=classes, samples=samples)
    assert len(made) == -(-N // (classes * samples))
    for epoch in range(3):
        for numbers in groups_of(made, epoch):
            assert len(set(numbers)) == classes * samples
            rows = CODES[numbers].reshape(classes, samples)
            assert (rows == rows[:, :1]).all()
            assert len(set(rows[:, 0])) == classes


def test_classes_and_samples_take_turns():
    """Each sample comes once before any comes again, where shares are whole."""
    made = kl.class_batches(loader(), classes=5, samples=4)
    for epoch in range(4):
        assert sorted(np.concatenate(groups_of(made, epoch))) == list(range(N))
    assert not np.array_equal(groups_of(made, 0), groups_of(made, 1))
    company = {frozenset(CODES[group]) for epoch in range(9) for group in groups_of(made, epoch)}
    assert len(company) > 6  # classes meet others


def test_classes_of_unequal_size():
    codes = np.repeat([0, 1, 2], [2, 7, 50])
    stream = ClassGroups(codes, 2, 2, seed=1)
    drawn = stream.samples(0, 12_000)
    assert np.bincount(codes[drawn]).tolist() == [4000] * 3
    for code in range(3):
        counts = np.bincount(drawn[codes[drawn] == code])[codes == code] if code == 2 else None
        if counts is not None:
            assert counts.max() - counts.min() <= 1
    sevens = np.bincount(drawn, minlength=59)[2:9]
    assert sevens.min() > 0.9 * sevens.max()  # what a pass leaves out differs
    assert stream.samples(5, 9).tolist() == drawn[5:9].tolist()


def test_shards_have_whole_groups():
    parts = [kl.class_batches(loader(shard=(k, 2)), classes=5, samples=4) for k in range(2)]
    whole = kl.class_batches(loader(), classes=5, samples=4)
    for epoch in range(2):
        shares = [groups_of(part, epoch) for part in parts]
        joined = [group for pair in zip(*shares, strict=True) for group in pair]
        np.testing.assert_array_equal(joined, groups_of(whole, epoch))


def test_a_model_gets_groups_and_resumes_among_them(tmp_path):
    received = Received()
    inputs = keras.Input((1,))
    outputs = keras.layers.Dense(1)(Recorder(received)(inputs))
    model = keras.Model(inputs, outputs)
    options = {"jit_compile": False} if BACKEND == "tensorflow" else {}
    model.compile("sgd", "mse", **options)
    made = kl.class_batches(loader(), classes=5, samples=4)
    model.fit(made, epochs=2, verbose=0)
    assert len(received.trained) == 12
    for numbers in received.trained:
        assert sorted(np.unique(CODES[numbers], return_counts=True)[1]) == [4] * 5
    want = [group.tolist() for epoch in range(2) for group in groups_of(made, epoch)]
    assert [list(numbers) for numbers in received.trained] == want
    state = made.state_dict()
    again = kl.class_batches(loader(), classes=5, samples=4)
    again.load_state_dict(state)
    other = kl.class_batches(loader(), classes=4, samples=5)
    with pytest.raises(ValueError, match=r"ClassGroups|order|plan|batch"):
        other.load_state_dict(state)


def test_options_and_class_names_stay():
    source = loader(sample_weights=np.arange(N), transform=lambda x, y, rng: (x + 1000, y))
    source.class_names = list("abcdefghij")
    made = kl.class_batches(source, classes=2, samples=3)
    x, y, w = made[0]
    np.testing.assert_array_equal(x[:, 0], w + 1000)
    np.testing.assert_array_equal(y, CODES[w.astype(int)])
    assert made.class_names == source.class_names
    train, _ = kl.split(source, validation=0.5, stratify=True, seed=1)
    assert len(set(kl.class_batches(train, classes=3, samples=2)[0][1])) == 3
    given = kl.class_batches(loader(np.arange(N)), classes=2, samples=3, labels=CODES)
    assert len(set(CODES[given[0][1]])) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": 11}, "classes=11 per batch, but the data has 10"),
        (
            {"samples": 13},
            r"class 0 has 12 samples, and 9 others have too few, but a batch needs samples=13",
        ),
        ({"classes": 0}, "classes=0"),
    ],
)
def test_bad_groups_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        kl.class_batches(loader(), **options)


def test_what_has_an_order_of_its_own_is_refused():
    for made, words in [
        (loader(class_balance=True), "already samples"),
        (loader(shuffle=False), "has shuffle=False"),
        (loader(labels=np.random.default_rng(0).random(N)), r"class_batches\(\) needs classes"),
    ]:
        with pytest.raises(ValueError, match=words):
            kl.class_batches(made)
    with pytest.raises(ValueError, match="needs samples=4 different ones"):
        kl.subset(kl.class_batches(loader(), classes=2), np.flatnonzero(CODES > 0)[:40:9])


@pytest.mark.parametrize("workers", [0, 3])
def test_a_model_gets_pairs(workers):
    """A pair for each sample, half of one class; the same pairs with threads and without."""
    made = kl.pairs(loader(workers=workers))
    received = Received()
    a, b = keras.Input((1,)), keras.Input((1,))
    seen = Recorder(received)(keras.layers.Concatenate()([a, b]))
    model = keras.Model((a, b), keras.layers.Dense(1, "sigmoid")(seen))
    options = {"jit_compile": False} if BACKEND == "tensorflow" else {}
    model.compile("sgd", "binary_crossentropy", **options)
    model.fit(made, epochs=2, verbose=0)
    trained = [n for batch in received.trained for n in batch]
    assert sorted(trained[:N]) == sorted(trained[N:]) == list(range(N))
    for epoch in range(2):
        batches = list(made.epoch_batches(epoch, True))
        other = list(kl.pairs(loader()).epoch_batches(epoch, True))
        marks = []
        for ((one, two), y), ((first, second), _) in zip(batches, other, strict=True):
            np.testing.assert_array_equal(one, first)
            np.testing.assert_array_equal(two, second)
            same = CODES[one[:, 0].astype(int)] == CODES[two[:, 0].astype(int)]
            np.testing.assert_array_equal(y, same)
            marks += y.tolist()
        assert sum(marks) == N / 2


def test_triplets_by_worker_processes():
    made = kl.pairs(loader(processes=True, workers=1), triplets=True)
    with made:
        (x,) = made[0]
        assert len(x) == 3
        codes = [CODES[part[:, 0].astype(int)] for part in x]
        assert (codes[0] == codes[1]).all()
        assert (codes[0] != codes[2]).all()


def test_pairs_of_files_by_class_names(tmp_path):
    for n in range(12):
        folder = tmp_path / "abc"[n % 3]
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{n:02}.npy", np.full(2, n, np.float32))
    train, val = kl.from_directory(tmp_path, validation=0.5, batch_size=6, seed=1)
    ours = [kl.pairs(part, same=1.0) for part in (train, val)]
    numbers = [set((np.stack(made[0][0])[..., 0]).astype(int).ravel().tolist()) for made in ours]
    assert not numbers[0] & numbers[1]
    assert ours[0][0][1].tolist() == [1.0] * 6


def test_bad_pairs_are_named():
    for made, options, error, words in [
        (loader(), {"same": 1.5}, ValueError, "same=1.5, expected a share"),
        (loader(np.zeros(4, int)), {}, ValueError, "all samples have the same class"),
        (loader(np.array([0, 0, 1])), {}, ValueError, "class 1 has a single sample"),
        (kl.pairs(loader()), {}, ValueError, "already makes pairs"),
        (loader(np.random.default_rng(0).random(N)), {}, ValueError, r"pairs\(\) needs classes"),
        ("no loader", {}, TypeError, "pairs"),
    ]:
        with pytest.raises(error, match=words):
            kl.pairs(made, **options)
    with pytest.raises(ValueError, match="split or select first"):
        kl.split(kl.pairs(loader()), seed=1)


def test_weights_of_samples_stay_and_others_are_refused():
    """Pairs have other labels: one weight a sample goes with its first, and no other could."""
    k = np.arange(24)
    weights = (k + 1).astype(np.float32)
    *_, found = kl.pairs(kl.ArraySequenceLoader(k, k % 3, 6, sample_weights=weights))[1]
    assert found.tolist() == list(range(7, 13))
    rows = kl.ArraySequenceLoader(k, k % 3, 6, sample_weights=weights[:, None])
    with pytest.raises(ValueError, match="delivers weights of its labels, which pairs have not"):
        kl.pairs(rows)
    _, y, found = kl.class_batches(rows, classes=3, samples=2)[0]
    assert (len(set(y.tolist())), found.shape) == (3, (6, 1))
