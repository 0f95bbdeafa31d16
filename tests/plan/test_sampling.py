"""How often samples come: epochs of any length, balanced classes, weights, mixtures and choices."""

import json
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kloaders as kl
from kloaders.plan.epoch import EpochPlan
from kloaders.plan.permutation import permuted
from kloaders.plan.streams import (
    Balanced,
    Mixture,
    ShuffledPasses,
    WeightedSystematic,
    WeightedWithReplacement,
    pattern_of,
)
from tests.support.recording import BACKEND, numbers_of, recording_model, row_of

sizes = st.integers(1, 40)
seeds = st.integers(0, 2**31)


def rows(n, first=0):
    return np.stack([row_of(k) for k in range(first, first + n)])


def numbered(n, batch=4, first=0, **options):
    """A loader whose samples carry their numbers, and whose labels are these."""
    y = np.arange(first, first + n, dtype=np.float32)
    return kl.ArraySequenceLoader(rows(n, first), y, batch, **{"seed": 7, **options})


def epochs_of(loader, epochs):
    """Sample numbers of the batches of some epochs, x with its own y."""
    found = []
    for epoch in range(epochs):
        for x, y, *_ in loader.epoch_batches(epoch):
            assert numbers_of(x) == y.astype(int).tolist()
            found.append(numbers_of(x))
    return found


def flat(batches):
    return [number for batch in batches for number in batch]


# ---------------------------------------------------------------- streams, as arithmetic


@given(st.lists(st.tuples(st.integers(1, 3000), seeds), min_size=1, max_size=4))
def test_many_permutations_at_once_are_permutations(domains):
    """Each domain is permuted one to one, whatever else is in the call."""
    ranks = np.concatenate([np.arange(n) for n, _ in domains])
    ns = np.concatenate([np.full(n, n) for n, _ in domains])
    keys = np.concatenate([np.full(n, seed, np.uint64) for n, seed in domains])
    found = permuted(ranks, ns, keys)
    begin = 0
    for n, seed in domains:
        alone = permuted(np.arange(n), n, np.uint64(seed))
        np.testing.assert_array_equal(found[begin : begin + n], alone)
        assert sorted(alone.tolist()) == list(range(n))
        begin += n


def test_small_domains_reach_every_permutation_alike():
    """All 24 orders of four come equally often, by a chi-squared test at one in a thousand."""
    trials = 24 * 200
    ranks = np.tile(np.arange(4), trials)
    keys = np.repeat(np.arange(trials, dtype=np.uint64), 4)
    found = Counter(map(tuple, permuted(ranks, 4, keys).reshape(-1, 4).tolist()))
    assert len(found) == 24
    assert sum((count - 200) ** 2 / 200 for count in found.values()) < 49.7


def stream_of(kind, n, size, seed):
    rng = np.random.default_rng(seed)
    codes = np.unique(rng.integers(0, 5, n), return_inverse=True)[1].reshape(-1)
    weights = rng.random(n) + 0.01
    return {
        "passes": lambda: ShuffledPasses(n, seed),
        "balanced": lambda: Balanced(codes, size, seed),
        "shares": lambda: WeightedSystematic(weights, seed),
        "draws": lambda: WeightedWithReplacement(weights, seed),
        "mixture": lambda: Mixture(
            [(ShuffledPasses(n, seed), n), (ShuffledPasses(3, seed), 3)], pattern_of([0.8, 0.2])
        ),
    }[kind]()


KINDS = ["passes", "balanced", "shares", "draws", "mixture"]


@pytest.mark.parametrize("kind", KINDS)
@given(
    n=sizes, size=st.integers(1, 9), length=st.integers(1, 30), epochs=st.integers(1, 5), seed=seeds
)
def test_epochs_are_pieces_of_one_stream(kind, n, size, length, epochs, seed):
    """Whatever the length of an epoch, batches follow one another as in one endless epoch."""
    options = {"samples": n, "batch_size": size, "seed": seed}
    short = EpochPlan(**options, stream=stream_of(kind, n, size, seed), length=length)
    endless = EpochPlan(**options, stream=stream_of(kind, n, size, seed), length=epochs * length)
    assert short.batches == length
    for epoch in range(epochs):
        for batch in range(length):
            found = short.indices(short.shuffled_order(epoch), batch)
            whole = endless.indices(endless.shuffled_order(0), epoch * length + batch)
            assert found.tolist() == whole.tolist()
            assert len(found) == size
            assert found.dtype == np.int64


@pytest.mark.parametrize("kind", KINDS)
@given(n=sizes, size=st.integers(1, 6), shards=st.integers(1, 4), seed=seeds)
def test_shards_make_up_the_global_batch(kind, n, size, shards, seed):
    """Together they deliver what one loader of a batch as large does, in equal parts."""
    stream = stream_of(kind, n, size * shards, seed)
    options = {"samples": n, "seed": seed, "stream": stream, "length": 3}
    whole = EpochPlan(batch_size=size * shards, **options)
    parts = [EpochPlan(batch_size=size, shard=(k, shards), **options) for k in range(shards)]
    for batch in range(3):
        order = whole.shuffled_order(2)
        found = [part.indices(order, batch).tolist() for part in parts]
        assert {len(one) for one in found} == {size}
        assert sorted(flat(found)) == sorted(whole.indices(order, batch).tolist())


@given(n=sizes, seed=seeds, start=st.integers(0, 200), stop=st.integers(0, 200))
def test_every_pass_has_every_sample_once(n, seed, start, stop):
    stream = ShuffledPasses(n, seed)
    for k in range(4):
        assert sorted(stream.samples(k * n, (k + 1) * n).tolist()) == list(range(n))
    whole = stream.samples(0, 200).tolist()
    assert stream.samples(start, stop).tolist() == whole[start:stop]


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=9), size=st.integers(1, 20), seed=seeds
)
def test_classes_are_balanced_in_every_batch_and_in_any_part_of_it(counts, size, seed):
    """To within one; and in each class every sample comes once before any comes again."""
    codes = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(seed).shuffle(codes)
    stream = Balanced(codes, size, seed)
    seen = [Counter() for _ in counts]
    for batch in range(40):
        members = stream.samples(batch * size, (batch + 1) * size)
        for part in (members, members[: size // 2], members[size // 2 :]):
            per_class = np.bincount(codes[part], minlength=len(counts))
            assert per_class.max() - per_class.min() <= 1
        for sample in members.tolist():
            seen[codes[sample]][sample] += 1
        for code, count in enumerate(counts):
            often = [seen[code][k] for k in np.flatnonzero(codes == code).tolist()]
            assert len(often) == count
            # Within a batch a pass may end: then some are one ahead, never two.
            assert max(often) - min(often) <= 1


def test_classes_have_other_company_each_time():
    """With more classes than a batch holds, which of them share a batch changes."""
    stream = Balanced(np.arange(64) // 2, 8, seed=1)  # 32 classes of two samples
    batches = [frozenset((stream.samples(8 * k, 8 * k + 8) // 2).tolist()) for k in range(40)]
    assert all(len(batch) == 8 for batch in batches)
    assert len(set(batches)) > 30


@given(
    weights=st.lists(st.integers(0, 6) | st.floats(0.125, 9), min_size=1, max_size=30).filter(any),
    seed=seeds,
)
def test_every_sample_comes_as_often_as_its_weight_says(weights, seed):
    """In every pass of n draws to within one; weight 0 never."""
    weights = np.array(weights, np.float64)
    n = len(weights)
    stream = WeightedSystematic(weights, seed)
    due = n * weights / weights.sum()
    for k in range(6):
        counts = np.bincount(stream.samples(k * n, (k + 1) * n), minlength=n)
        assert np.all(np.abs(counts - due) < 1 + 1e-5)
        assert not counts[weights == 0].any()


def test_over_passes_shares_stay_exact():
    """The remainder goes round: after 1,000 passes nobody is more than a few draws off."""
    weights = np.random.default_rng(1).random(50)
    counts = np.bincount(WeightedSystematic(weights, 5).samples(0, 50_000), minlength=50)
    assert np.abs(counts - 50_000 * weights / weights.sum()).max() < 5


def test_equal_weights_are_a_shuffle():
    stream = WeightedSystematic(np.full(1000, 0.1), 3)
    first, second = (stream.samples(k * 1000, k * 1000 + 1000).tolist() for k in range(2))
    assert sorted(first) == sorted(second) == list(range(1000))
    assert first != second


def test_draws_with_replacement_are_independent():
    """Counts scatter as those of a multinomial: 40,000 draws, four standard deviations."""
    weights = np.array([1, 2, 0, 3, 4.0])
    counts = np.bincount(WeightedWithReplacement(weights, 3).samples(0, 40_000), minlength=5)
    p = weights / weights.sum()
    assert counts[2] == 0
    assert np.all(np.abs(counts - 40_000 * p) <= 4 * np.sqrt(40_000 * p * (1 - p)) + 1e-9)
    pairs = WeightedWithReplacement(weights, 3).samples(0, 40_000).reshape(-1, 2)
    again = np.mean(pairs[:, 0] == pairs[:, 1])  # 0.3 expected
    assert abs(again - np.sum(p**2)) < 4 * np.sqrt(0.21 / 20_000)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 20) | st.floats(0.01, 5), min_size=1, max_size=6))
def test_a_pattern_gives_each_part_its_share_at_every_place(shares):
    """After any number of places to within one (Tijdeman)."""
    pattern = pattern_of(shares)
    counts = np.bincount(pattern, minlength=len(shares))
    np.testing.assert_allclose(counts / len(pattern), np.array(shares) / sum(shares), atol=2e-4)
    had = np.cumsum(pattern[:, None] == np.arange(len(shares)), axis=0)
    due = np.arange(1, len(pattern) + 1)[:, None] * (counts / len(pattern))
    assert np.abs(had - due).max() < 1


def test_a_golden_order_for_each_stream():
    """What a seed gives is a promise."""
    codes = np.array([0, 0, 0, 0, 1, 1, 2])
    assert ShuffledPasses(7, 1).samples(0, 10).tolist() == GOLDEN["passes"]
    assert Balanced(codes, 4, 1).samples(0, 10).tolist() == GOLDEN["balanced"]
    assert WeightedSystematic(np.arange(7.0), 1).samples(0, 10).tolist() == GOLDEN["shares"]
    assert WeightedWithReplacement(np.arange(7.0), 1).samples(0, 10).tolist() == GOLDEN["draws"]


GOLDEN = {
    "passes": [6, 3, 5, 2, 4, 1, 0, 4, 1, 2],
    "balanced": [6, 1, 4, 6, 0, 5, 6, 3, 4, 6],
    "shares": [5, 5, 6, 6, 3, 2, 4, 2, 5, 4],
    "draws": [3, 4, 6, 4, 6, 6, 5, 6, 3, 6],
}


# ---------------------------------------------------------------- on loaders


@pytest.fixture(scope="session")
def npy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    paths = [str(folder / f"{k:03}.npy") for k in range(23)]
    for k, path in enumerate(paths):
        np.save(path, row_of(k))
    return paths


LABELS = np.arange(23, dtype=np.float32)
CLASSES = np.array([0] * 15 + [1] * 6 + [2] * 2)
OPTIONS = {
    "length": {"epoch_batches": 3},
    "long": {"epoch_batches": 9},
    "balanced": {"class_balance": CLASSES},
    "weights": {"sampling_weights": np.arange(23.0), "epoch_batches": 4},
    "drawn": {"sampling_weights": np.arange(23.0), "replacement": True},
}
options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


class Numbered(kl.SequenceLoader):
    def load_sample(self, index):
        return row_of(index), np.float32(index)


class Whole(kl.SequenceLoader):
    def load_batch(self, indices):
        return np.stack([row_of(k) for k in indices]), indices.astype(np.float32)


LOADERS = {
    "array": lambda npy, **o: kl.ArraySequenceLoader(rows(23), LABELS, 4, **o),
    "paths": lambda npy, **o: kl.PathSequenceLoader(npy, LABELS, 4, **o),
    "ram": lambda npy, **o: kl.RamBatchSequenceLoader(npy, LABELS, 4, ram_batch_size=8, **o),
    "resident": lambda npy, **o: kl.RamBatchSequenceLoader(npy, LABELS, 4, **o),
    "index": lambda npy, **o: Numbered(23, 4, **o),
    "batch": lambda npy, **o: Whole(23, 4, **o),
    "preloaded": lambda npy, **o: kl.preload(LOADERS["paths"](npy, **o), progress=False),
    "subset": lambda npy, **o: kl.subset(LOADERS["index"](npy, **o), slice(None)),
}


@options
@pytest.mark.parametrize("kind", LOADERS)
def test_every_loader_samples_alike(npy, keep, kind, options):
    """The batches are those of the stream, epoch after epoch, whatever reads them."""
    loader = keep(LOADERS[kind](npy, seed=3, **options))
    same = keep(LOADERS["array"](npy, seed=3, **options))
    assert len(loader) == options.get("epoch_batches", 6)
    found = epochs_of(loader, 3)
    assert found == epochs_of(same, 3)
    assert {len(batch) for batch in found} == {4}
    stream = same.plan.stream
    assert flat(found) == stream.samples(0, 4 * len(found)).tolist()


@options
def test_keras_gets_it_whoever_asks(npy, keep, options):
    """fit serves epoch after epoch of the stream, and Keras' permuted numbers do not matter."""
    model, received = recording_model((2,), "float32")
    loader = keep(LOADERS["ram"](npy, seed=3, **options))
    model.fit(loader, epochs=3, verbose=0)
    trained = received.trained
    assert trained == epochs_of(keep(LOADERS["array"](npy, seed=3, **options)), 3)


def test_two_fits_and_a_validation_go_on_in_the_stream(keep):
    """Nothing is lost between fits, and a validation loader takes nothing away."""
    model, received = recording_model((2,), "float32")
    loader = keep(numbered(23, epoch_batches=3))
    val = keep(numbered(5))
    model.fit(loader, validation_data=val, epochs=2, verbose=0)
    model.fit(loader, validation_data=val, epochs=2, verbose=0)
    assert received.trained == epochs_of(loader.view(), 4)
    assert sorted(flat(received.trained)[:23]) == list(range(23))
    assert flat(received.inferred) == 4 * list(range(5))


def test_the_epoch_of_keras_counts(keep):
    """fit(initial_epoch=2) with a callback begins where two epochs end."""
    model, received = recording_model((2,), "float32")
    loader = keep(numbered(23, epoch_batches=3))
    callback = kl.LoaderCallback(loader)
    model.fit(loader, initial_epoch=2, epochs=4, callbacks=[callback], verbose=0)
    assert received.trained == epochs_of(loader.view(), 4)[6:]


@pytest.mark.parametrize("length", [1, 4, 6, 17])
def test_storage_order_goes_on_too(keep, length):
    """shuffle=False with epoch_batches goes through the data in order, over and over."""
    loader = keep(numbered(23, epoch_batches=length, shuffle=False))
    found = flat(epochs_of(loader, 3))
    assert found == [k % 23 for k in range(3 * length * 4)]
    loader.on_epoch_begin()
    assert [numbers_of(loader[k][0]) for k in range(length)] == epochs_of(loader.view(), 1)


@options
def test_shards_agree(npy, options):
    """Two processes deliver what one with a batch twice as large does."""
    wide = kl.ArraySequenceLoader(rows(23), np.arange(23.0), 8, seed=3, **options)
    parts = [
        kl.ArraySequenceLoader(rows(23), np.arange(23.0), 4, seed=3, shard=(k, 2), **options)
        for k in range(2)
    ]
    ram = LOADERS["ram"](npy, seed=3, shard=(1, 2), **options)
    with ram:
        assert epochs_of(ram, 2) == epochs_of(parts[1], 2)
    both = zip(*(epochs_of(part, 2) for part in parts), strict=True)
    assert [a + b for a, b in both] == epochs_of(wide, 2)


@pytest.mark.parametrize("more", [{"drop_last": True}, {"pad_last": True}])
def test_no_batch_is_short(more):
    """drop_last and pad_last have nothing to do, but pad_last still gives weights."""
    loader = numbered(23, epoch_batches=7, **more)
    assert len(loader) == 7
    assert epochs_of(loader, 2) == epochs_of(numbered(23, epoch_batches=7), 2)
    assert len(loader[0]) == (3 if "pad_last" in more else 2)
    assert len(numbered(23, class_balance=CLASSES, drop_last=True)) == 5


def test_a_sample_that_comes_again_is_augmented_anew(npy, keep):
    """Even in one batch; and alike on every loader, in any number of threads or processes."""

    for kind, more in [("array", {}), ("ram", {"workers": 2}), ("paths", {"workers": 0})]:
        loader = keep(LOADERS[kind](npy, seed=3, class_balance=CLASSES, transform=noisy, **more))
        x = np.concatenate([batch[0] for batch in loader.epoch_batches(1)])
        rare = [row[1] for row in x.tolist() if row[0] >= 21]
        assert len(rare) >= 8
        assert len(set(rare)) == len(rare)
        if kind == "array":
            first = x
        np.testing.assert_array_equal(x, first)


def _by_value():
    """A function that is sent to a worker process as it is: this file need not be imported there."""

    def noisy(x, y, rng):
        return x + np.array([0, rng.random()], np.float32), y

    return noisy


noisy = _by_value()


def test_processes_draw_the_same(npy, keep):
    options = {"seed": 3, "class_balance": CLASSES, "transform": noisy}
    many = keep(LOADERS["ram"](npy, processes=True, workers=2, **options))
    one = keep(LOADERS["paths"](npy, **options))
    for a, b in zip(many.epoch_batches(0), one.epoch_batches(0), strict=True):
        np.testing.assert_array_equal(a[0], b[0])


def test_a_sample_that_is_skipped_shortens_its_batch(npy, keep, tmp_path):
    """Rows of RAM batches are filled up with nobody else's numbers."""
    bad = tmp_path / "bad.npy"
    bad.write_bytes(b"no array")
    paths = [*npy[:5], str(bad), *npy[6:]]
    for make in (kl.PathSequenceLoader, kl.RamBatchSequenceLoader):
        more = {"ram_batch_size": 8} if make is kl.RamBatchSequenceLoader else {}
        loader = keep(
            make(
                paths,
                np.arange(23.0),
                4,
                seed=3,
                on_error="skip",
                epoch_batches=6,
                transform=noisy,
                **more,
            )
        )
        found = epochs_of(loader, 1)
        want = epochs_of(numbered(23, seed=3, epoch_batches=6), 1)
        assert found == [[k for k in batch if k != 5] for batch in want]


def test_labels_at_hand_are_balanced(tmp_path):
    """From integers, one-hot rows, a folder of classes; and through a split."""
    import cv2

    for name, many in [("cat", 9), ("dog", 3), ("owl", 4)]:
        (tmp_path / name).mkdir()
        for k in range(many):
            cv2.imwrite(str(tmp_path / name / f"{k}.png"), np.zeros((2, 2, 3), np.uint8))
    for mode in ("int", "categorical"):
        train, val = kl.from_directory(
            tmp_path, validation=0.25, seed=1, batch_size=6, class_balance=True, label_mode=mode
        )
        assert train.sampling
        assert not val.sampling
        for _, y in train.epoch_batches(1):
            codes = y if mode == "int" else y.argmax(axis=1)
            assert np.bincount(codes).tolist() == [2, 2, 2]
    texts = numbered(6, 3, class_balance=["b", "a", "c", "c", "c", "c"])
    assert all({0, 1} < set(numbers_of(x)) for x, _ in texts.epoch_batches(0))


def test_predict_in_order_of_a_loader_that_samples_is_told(keep, caplog):
    """Rows do not line up then: it says so once, unless shuffle=True was said."""
    model, _ = recording_model((2,), "float32")
    caplog.set_level("INFO", "kloaders")
    loader = keep(numbered(40, epoch_batches=10, shuffle=True))
    model.predict(loader, verbose=0)
    assert "rows do not line up" not in caplog.text
    loader = keep(numbered(40, epoch_batches=10))
    model.predict(loader, verbose=0)
    model.predict(loader, verbose=0)
    assert caplog.text.count("rows do not line up with the data") == 1


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a part of TensorFlow")
def test_a_dataset_is_the_stream(npy, keep):
    loader = keep(LOADERS["ram"](npy, seed=3, class_balance=CLASSES, epoch_batches=5))
    dataset = kl.to_tf_dataset(loader)
    assert dataset.cardinality() == 5
    found = [numbers_of(x.numpy()) for _ in range(2) for x, _ in dataset]
    assert found == epochs_of(loader, 2)
    with pytest.raises(ValueError, match="shuffle=False asks for another order"):
        kl.to_tf_dataset(loader, shuffle=False)


def test_summary_pickle_and_view_know_it():
    loader = numbered(23, class_balance=CLASSES, epoch_batches=5)
    assert "3 classes in equal parts; epochs of 5 batches" in loader.summary()
    again = pickle.loads(pickle.dumps(loader))
    assert epochs_of(again, 2) == epochs_of(loader.view(), 2) == epochs_of(loader, 2)
    with pytest.raises(AttributeError, match="fixed when it is made"):
        loader.epoch_batches = 3


class Weighted(kl.SequenceLoader):
    def load_sample(self, index):
        return row_of(index), np.float32(index)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"epoch_batches": 0}, ValueError, "epoch_batches=0 is too small"),
        ({"epoch_batches": 2.5}, TypeError, "epoch_batches=2.5 is float"),
        ({"class_balance": True}, ValueError, "in a hook.*pass class_balance=, an array"),
        ({"class_balance": [1, 2]}, ValueError, "class_balance has 2 values, the data 5"),
        ({"class_balance": np.zeros((5, 2))}, ValueError, "class_balance has shape"),
        ({"sampling_weights": [1, 2]}, ValueError, r"sampling_weights has shape \(2,\)"),
        ({"sampling_weights": [1, 2, -1, 1, 1]}, ValueError, r"sampling_weights\[2\] is -1"),
        ({"sampling_weights": [0] * 5}, ValueError, "all sampling_weights are 0"),
        ({"sampling_weights": ["a"] * 5}, TypeError, "expected one number for each of 5"),
        ({"replacement": True}, ValueError, "there are none: for equal ones"),
        (
            {"sampling_weights": np.ones(5), "class_balance": [0, 0, 1, 1, 1]},
            ValueError,
            "choose one. Weights that balance",
        ),
        (
            {"sampling_weights": np.ones(5), "shuffle": False},
            ValueError,
            "sampling_weights= draws samples, which shuffle=False forbids",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        Weighted(5, 2, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"echo": 2}, "echo=2 serves a RAM batch several times"),
        ({"draw": "windows"}, 'reads runs of neighbours.*draw="global"'),
    ],
)
def test_what_ram_batches_cannot_do(npy, options, words):
    with pytest.raises(ValueError, match=words):
        LOADERS["ram"](npy, epoch_batches=3, **options)


def test_compressed_records_sample_when_they_fit(tmp_path, keep):
    source = numbered(23)
    kl.write_tfrecords(source, out=tmp_path / "r", shards=1, compression="GZIP", progress=False)
    features = {"x": "x", "y": "label"}
    options = {"seed": 3, "class_balance": CLASSES}
    with pytest.raises(ValueError, match=r"front to back: give a ram_budget"):
        kl.TFRecordSequenceLoader(str(tmp_path / "r-*"), features, 4, ram_batch_size=8, **options)
    loader = keep(kl.TFRecordSequenceLoader(str(tmp_path / "r-*"), features, 4, **options))
    assert epochs_of(loader, 2) == epochs_of(numbered(23, **options), 2)


# ---------------------------------------------------------------- subset, take, repeat, folds


def test_subset_take_and_repeat_keep_every_option(npy, keep):
    """In storage order as asked; shuffled each sample once, or as often as it is repeated."""
    loader = keep(LOADERS["paths"](npy, seed=3, sample_weights=np.arange(23)))
    some = kl.subset(loader, [7, 1, 20, 3])
    assert [b.tolist() for b in (some[0][1], some[0][2])] == [[7, 1, 20, 3]] * 2
    assert kl.subset(loader, np.arange(23) % 2 == 1).samples == 11
    assert flat(epochs_of(kl.take(loader, 5), 1)) == [0, 1, 2, 3, 4]
    twice = kl.repeat(kl.subset(loader, slice(20, None)), 3)
    assert len(twice) == 3
    shuffled = [batch[1].astype(int).tolist() for batch in twice.epoch_batches(0, True)]
    assert sorted(flat(shuffled)) == [20, 20, 20, 21, 21, 21, 22, 22, 22]


def test_repeated_samples_are_augmented_anew():
    loader = kl.repeat(numbered(3, 12, transform=noisy), 4)
    x, y = loader[0]
    assert len(set(x[:, 1].tolist())) == 12
    assert y.tolist() == [0, 1, 2] * 4


@pytest.mark.parametrize(
    ("which", "error", "words"),
    [
        ([3, 5], IndexError, "sample 5: samples are numbered from 0 to 4"),
        ([-1], IndexError, "sample -1"),
        ([], ValueError, "chooses no samples"),
        ([True, False], TypeError, "bool of shape"),
        ([0.5], TypeError, "float64 of shape"),
    ],
)
def test_a_choice_that_is_none_is_refused(which, error, words):
    with pytest.raises(error, match=words):
        kl.subset(numbered(5), which)


def test_take_and_repeat_say_what_is_wrong():
    with pytest.raises(ValueError, match="the loader has 5 samples"):
        kl.take(numbered(5), 6)
    with pytest.raises(ValueError, match="times=0 is too small"):
        kl.repeat(numbered(5), 0)
    with pytest.raises(TypeError, match="expected a loader"):
        kl.take([1, 2, 3], 2)


def test_a_subset_is_balanced_among_its_own():
    loader = kl.subset(numbered(23, 4, class_balance=CLASSES), slice(12, None))
    for batch in epochs_of(loader, 2):
        counts = np.bincount(CLASSES[batch])
        assert counts.max() - counts.min() <= 1
    kept = kl.subset(numbered(23, 4, class_balance=CLASSES), CLASSES != 1)  # a class is gone
    assert all(np.bincount(CLASSES[batch]).tolist() == [2, 0, 2] for batch in epochs_of(kept, 1))
    with pytest.raises(ValueError, match="all sampling_weights of these samples are 0"):
        kl.subset(numbered(5, sampling_weights=[1, 0, 0, 0, 1]), [1, 2])


def test_folds_have_each_sample_once(npy, keep):
    """Over the folds of scikit-learn's splitters; training parts keep transform and sampling."""
    from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

    loader = keep(LOADERS["paths"](npy, seed=3, transform=noisy, epoch_batches=2))
    seen = []
    for train, val in kl.folds(loader, KFold(5, shuffle=True, random_state=1)):
        inside = flat(epochs_of(val, 1))
        assert len(train) == 2
        assert not set(flat(epochs_of(train, 5))) & set(inside)
        assert val.transform is None
        assert val.samples + train.samples == 23
        seen += inside
    assert sorted(seen) == list(range(23))
    for _, val in kl.folds(loader, StratifiedKFold(2), labels=CLASSES):
        assert np.bincount(CLASSES[flat(epochs_of(val, 1))]).tolist()[2] == 1
    known = kl.ArraySequenceLoader(rows(23), CLASSES, 23)
    for _, val in kl.folds(known, StratifiedKFold(2)):
        assert np.bincount(val[0][1]).tolist()[2] == 1
    groups = np.arange(23) // 4
    for train, val in kl.folds(loader, GroupKFold(3), groups=groups):
        assert not set(groups[flat(epochs_of(val, 1))]) & set(groups[flat(epochs_of(train, 5))])


def test_folds_say_what_is_wrong():
    with pytest.raises(TypeError, match="expected a splitter of scikit-learn"):
        kl.folds(numbered(5), 3)


# ---------------------------------------------------------------- mix


def test_a_mixture_keeps_its_proportions(keep):
    """In any number of batches to within one; each loader in passes of its own."""
    a, b = numbered(50, seed=1), numbered(9, first=100, seed=2)
    loader = keep(kl.mix([a, b], [0.7, 0.3], 8))
    assert len(loader) == 8
    found = flat(epochs_of(loader, 30))
    for k in range(8, len(found) + 1, 8):
        assert abs(sum(n < 100 for n in found[:k]) - 0.7 * k) < 1
    ours = [n for n in found if n < 100]
    theirs = [n - 100 for n in found if n >= 100]
    for stream, n in [(ours, 50), (theirs, 9)]:
        for k in range(0, len(stream) - n, n):
            assert sorted(stream[k : k + n]) == list(range(n))


def test_a_mixture_keeps_what_its_loaders_do(npy, keep):
    """Transforms, hooks, weights, names and class balance are those of each loader."""

    def lifted(x, y, rng):
        return x, y + 100

    a = LOADERS["paths"](npy, seed=1, class_balance=CLASSES)
    b = LOADERS["index"](npy, seed=2, transform=lifted, sample_weights=np.full(23, 5.0))
    loader = keep(kl.mix([a, b], [1, 1], 6, epoch_batches=50, seed=4))
    counts = Counter()
    for x, y, w in loader.epoch_batches(3):
        assert y.tolist() == [n + 100 * (k >= 3) for k, n in enumerate(numbers_of(x))]
        assert w.tolist() == [1, 1, 1, 5, 5, 5]
        counts += Counter(CLASSES[numbers_of(x)[:3]].tolist())
    assert max(counts.values()) - min(counts.values()) <= 3


def test_a_mixture_in_fit_in_threads_processes_and_shards(npy, keep):
    model, received = recording_model((2,), "float32")

    def make(**options):
        a = numbered(12, seed=1, transform=noisy)
        return keep(kl.mix([a, numbered(9, first=12, seed=2)], [2, 1], 6, **options))

    model.fit(make(workers=2), epochs=2, verbose=0)
    assert received.trained == epochs_of(make(workers=0), 2)
    assert received.trained == epochs_of(make(processes=True, workers=1), 2)
    parts = [make(shard=(k, 2)) for k in range(2)]
    wide = keep(kl.mix([numbered(12, seed=1), numbered(9, first=12, seed=2)], [2, 1], 12))
    for whole, *some in zip(*(epochs_of(one, 1) for one in (wide, *parts)), strict=True):
        assert sorted(whole) == sorted(flat(some))


def test_a_mixture_without_proportions_is_of_all_samples(keep):
    loader = keep(kl.mix([numbered(10), numbered(30, first=10)]))
    counts = Counter(n < 10 for n in flat(epochs_of(loader, 1)))
    assert counts == {True: 10, False: 30}


@pytest.mark.parametrize(
    ("loaders", "arguments", "error", "words"),
    [
        (lambda: [numbered(5)], {}, ValueError, "got 1 loader"),
        (lambda: [numbered(5), 3], {}, TypeError, "expected a loader"),
        (
            lambda: [numbered(5), numbered(5)],
            {"proportions": [1]},
            ValueError,
            "1 numbers for 2 loaders",
        ),
        (lambda: [numbered(5)] * 2, {"proportions": [1, 0]}, ValueError, "positive numbers"),
        (lambda: [numbered(5)] * 2, {"proportions": 0.5}, TypeError, r"as in \[0.7, 0.3\]"),
        (lambda: [numbered(5)] * 2, {"transform": noisy}, ValueError, "give transform= to the"),
        (lambda: [numbered(5)] * 2, {"epoch_batch": 3}, TypeError, "did you mean epoch_batches"),
        (
            lambda: [numbered(5), kl.ArraySequenceLoader(np.zeros((5, 3), np.float32), np.ones(5))],
            {},
            ValueError,
            r"loader 1 \(float32\[3\].*loader 0 \(float32\[2\]",
        ),
        (lambda: [numbered(8, shard=(0, 2)), numbered(8)], {}, ValueError, "give shard= to mix"),
        (lambda: [kl.mix([numbered(5)] * 2), numbered(5)], {}, ValueError, "got a mixture"),
    ],
)
def test_what_cannot_be_mixed(loaders, arguments, error, words):
    with pytest.raises(error, match=words):
        kl.mix(loaders(), **arguments)


def test_ram_batches_are_not_mixed_nor_mixtures_cut(npy):
    with pytest.raises(ValueError, match=r"RAM batches.*mix loaders of one level"):
        kl.mix([LOADERS["ram"](npy), numbered(5)])
    mixture = kl.mix([numbered(5, transform=noisy), numbered(5)])
    with pytest.raises(ValueError, match="split, take or preload the loaders first"):
        kl.take(mixture, 3)
    with pytest.raises(ValueError, match="preload or pack the loaders first"):
        kl.preload(mixture, progress=False)


# ---------------------------------------------------------------- going on after a stop


def served_by(loader, epochs):
    """Batches of a loop of one's own, with the hooks called as Keras calls them."""
    found = []
    for _ in range(epochs):
        loader.on_epoch_begin()
        found += [numbers_of(loader[k][0]) for k in range(len(loader))]
        loader.on_epoch_end()
    return found


@options
@pytest.mark.parametrize("kind", ["array", "ram", "index"])
def test_a_state_goes_on_in_the_stream(npy, keep, kind, options):
    """From the middle of the second epoch, in another loader, with the augmentation of each place."""
    options = {**options, "seed": 3, "transform": noisy}
    whole = keep(LOADERS["array"](npy, **options))
    want = [x for epoch in range(3) for x, _ in whole.epoch_batches(epoch)]
    length = len(whole)
    first = keep(LOADERS[kind](npy, **options))
    served_by(first, 1)
    first.on_epoch_begin()
    for k in range(length // 2):
        first[k]
    state = json.loads(json.dumps(first.state_dict()))
    again = keep(LOADERS[kind](npy, **options))
    again.load_state_dict(state)
    found = []
    for _ in range(2):
        again.on_epoch_begin()
        found += [again[k][0] for k in range(len(again))]
        again.on_epoch_end()
    assert len(found) == 2 * length - length // 2
    np.testing.assert_array_equal(found, want[length + length // 2 :])


@pytest.mark.parametrize(
    "other",
    [
        {"class_balance": CLASSES[::-1]},
        {"class_balance": CLASSES, "epoch_batches": 7},
        {"sampling_weights": np.ones(23)},
        {},
    ],
)
def test_a_state_of_another_sampling_is_refused(other):
    state = numbered(23, class_balance=CLASSES).state_dict()
    numbered(23, class_balance=CLASSES, workers=0).load_state_dict(state)
    with pytest.raises(ValueError, match=r"belongs to other data or options.*stream was"):
        numbered(23, **other).load_state_dict(state)


def test_a_mixture_goes_on(keep):
    def make(seed=2):
        a, b = numbered(50, seed=1), numbered(9, first=100, seed=seed)
        return keep(kl.mix([a, b], [0.7, 0.3], 8, epoch_batches=5))

    one, other = make(), make()
    one.on_epoch_begin()
    for k in range(3):
        one[k]
    other.load_state_dict(one.state_dict())
    assert served_by(other, 2) == epochs_of(make(), 2)[3:]
    with pytest.raises(ValueError, match="stream was"):
        make(seed=5).load_state_dict(one.state_dict())


def test_storage_order_goes_on_after_a_stop(keep):
    def make():
        return keep(numbered(23, epoch_batches=4, shuffle=False))

    one, other = make(), make()
    one.on_epoch_begin()
    one[0], one[1]
    other.load_state_dict(one.state_dict())
    assert flat(served_by(other, 2)) == [k % 23 for k in range(8, 32)]


def test_a_fit_that_stops_goes_on_in_the_stream(keep, tmp_path):
    """With LoaderCallback's file, batch by batch over the stop, in mid-epoch."""
    keras = pytest.importorskip("keras")

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1 and self.params["epochs"] and len(received.trained) >= 6:
                raise KeyboardInterrupt

    def make():
        return keep(numbered(23, class_balance=CLASSES, epoch_batches=4))

    model, received = recording_model((2,), "float32")
    loader = make()
    callback = kl.LoaderCallback(loader, tmp_path / "state", save_freq=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(loader, epochs=3, callbacks=[callback, Stop()], verbose=0)
    done = received.trained[:6]
    again, after = recording_model((2,), "float32")
    loader = make()
    callback = kl.LoaderCallback(loader, tmp_path / "state", save_freq=1)
    again.fit(loader, epochs=3, callbacks=[callback], verbose=0)
    assert done + after.trained == epochs_of(make(), 3)
