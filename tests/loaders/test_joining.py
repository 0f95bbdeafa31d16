"""`concatenate` and `zip_loaders`: which samples reach a model, in which order."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.structure import flatten, map_structure
from tests.support.recording import numbers_of, recording_model, row_of

N = 24


def rows(first, stop):
    return np.stack([row_of(n) for n in range(first, stop)])


def part(first, stop, **options):
    y = np.arange(first, stop, dtype=np.float32)
    return kl.ArraySequenceLoader(rows(first, stop), y, 5, **{"seed": 1, **options})


def numbers(loader):
    return [n for x, _ in loader.epoch_batches() for n in numbers_of(x)]


# ---------------------------------------------------------------- one after another


def test_a_model_receives_all_once_and_predictions_line_up(keep, npy):
    model, received = recording_model()
    files = kl.PathSequenceLoader(npy[:9], np.arange(9, dtype=np.float32), 4)
    whole = keep(kl.concatenate([files, part(9, 20), part(20, N)]))
    assert whole.batch_size == 4
    history = model.fit(whole, epochs=2, verbose=0).history
    assert max(history["mismatch"]) == 0
    for epoch in range(2):
        batches = received.trained[epoch * 6 : epoch * 6 + 6]
        assert sorted(n for batch in batches for n in batch) == list(range(N))
    assert np.rint(model.predict(whole, verbose=0)[:, 1]).astype(int).tolist() == list(range(N))


def test_shuffled_all_are_mixed_by_the_seed(keep):
    orders = [
        numbers(keep(kl.concatenate([part(0, 12), part(12, N)], shuffle=True, seed=seed)))
        for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == list(range(N)) for order in orders)
    assert {n // 12 for n in orders[0][:8]} == {0, 1}


def negated(x, y, rng):
    return -x, y


def test_each_keeps_its_transform_and_weights(keep):
    a, b = part(0, 4, transform=negated), part(4, 8, sample_weights=np.full(4, 3.0))
    ((x, _, w), _) = keep(kl.concatenate([a, b])).epoch_batches()
    assert x[:, 0].tolist() == [0, -1, -2, -3, 4]
    assert w.tolist() == [1, 1, 1, 1, 3]


def test_what_validates_is_not_transformed(keep):
    a, b = part(0, 12, transform=negated), part(12, N)
    train, val = map(keep, kl.split(kl.concatenate([a, b]), validation=0.5, seed=1))
    assert all(x[:, 0].min() >= 0 for x, _ in val.epoch_batches())
    assert min(x[:, 0].min() for x, _ in train.epoch_batches()) < 0
    assert sorted(map(abs, numbers(train) + numbers(val))) == list(range(N))


def test_classes_are_known(keep):
    parts = [kl.ArraySequenceLoader(rows(0, 12), np.arange(12) % 3, 6) for _ in range(2)]
    whole = keep(kl.concatenate(parts, class_balance=True, seed=1))
    assert np.bincount(whole[0][1]).tolist() == [2, 2, 2]
    assert kl.split(kl.concatenate(parts), validation=0.25, stratify=True)[1].samples == 6


def test_it_nests_and_goes_on_after_a_state(keep):
    def made():
        inner = kl.concatenate([part(0, 8), part(8, 16)])
        return keep(kl.concatenate([inner, part(16, N)], shuffle=True, seed=3))

    first, second = made(), made()
    want = numbers(first)
    second.load_state_dict(first.state_dict(epoch=0, batch=2))
    assert [n for x, _ in second for n in numbers_of(x)] == want[10:]


def test_a_sample_that_fails_has_its_own_name(keep, npy):
    paths, y = [npy[3], "gone.npy"], np.array([3, 4], np.float32)
    gone = kl.PathSequenceLoader(paths, y, check_paths=False, on_error="skip")
    # Both skip, so that the whole does.
    files = kl.PathSequenceLoader(npy[:3], np.arange(3, dtype=np.float32), on_error="skip")
    whole = keep(kl.concatenate([files, gone]))
    assert numbers(whole) == [0, 1, 2, 3]
    assert "gone.npy" in str(whole.errors[0])


# ---------------------------------------------------------------- side by side


def test_a_model_receives_samples_with_their_partners(keep, npy):
    model, received = recording_model()
    x = kl.PathSequenceLoader(npy, batch_size=5, seed=1)
    y = kl.ArraySequenceLoader(np.arange(23, dtype=np.float32), batch_size=9)
    whole = keep(kl.zip_loaders(x, y))
    history = model.fit(whole, epochs=2, verbose=0).history
    assert max(history["mismatch"]) == 0
    assert sorted(n for batch in received.trained[:5] for n in batch) == list(range(23))
    assert np.rint(model.predict(whole, verbose=0)[:, 1]).astype(int).tolist() == list(range(23))


def only(values, **options):
    return kl.ArraySequenceLoader(values, batch_size=4, **options)


A, B, C = np.arange(6), np.arange(6) + 10, np.arange(6) + 20
FORMS = {
    "x and y": (lambda: kl.zip_loaders(only(A), only(B)), "(0, 10)"),
    "two inputs": (lambda: kl.zip_loaders([only(A), only(B)]), "((0, 10),)"),
    "a dict": (lambda: kl.zip_loaders({"a": only(A), "b": only(B)}), "({'a': 0, 'b': 10},)"),
    "labels of one": (
        lambda: kl.zip_loaders([kl.ArraySequenceLoader(A, C, 4), only(B)]),
        "((0, 10), 20)",
    ),
    "labels of both": (
        lambda: kl.zip_loaders(
            {"a": kl.ArraySequenceLoader(A, C, 4), "b": kl.ArraySequenceLoader(B, A, 4)}
        ),
        "({'a': 0, 'b': 10}, {'a': 20, 'b': 0})",
    ),
    "several labels": (
        lambda: kl.zip_loaders(only(A), {"b": only(B), "c": only(C)}),
        "(0, {'b': 10, 'c': 20})",
    ),
    "inputs that nest": (
        lambda: kl.zip_loaders([only((A, B)), only({"c": C})], only(B)),
        "(((0, 10), {'c': 20}), 10)",
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name, keep):
    make, want = FORMS[name]
    loader = keep(make())
    batch = loader[0]
    parts = batch if isinstance(batch, tuple) else (batch,)
    assert str(map_structure(lambda a: int(a[0]), parts)) == want
    # Row for row, by `fill` and by `sample`.
    shuffled = keep(loader.replace())
    for values in shuffled.epoch_batches(shuffle=True):
        leaves = [leaf % 10 for leaf in flatten(values)]
        assert all(np.array_equal(leaf, leaves[0]) for leaf in leaves)


def jittered(x, y, rng):
    return x + rng.random(), y


def test_loaders_of_one_seed_draw_the_same_numbers(keep):
    a, b = (only(np.zeros(6), transform=jittered, seed=4) for _ in range(2))
    x, y = keep(kl.zip_loaders(a, b))[0]
    np.testing.assert_array_equal(x, y)
    assert len(set(x.tolist())) == 4
    _, val = kl.split(kl.zip_loaders(a.view(), b.view()), validation=0.5)
    assert not np.any(keep(val)[0][0])


def test_shapes_that_differ_are_told_of_the_array_that_differs(keep):
    ragged = [np.zeros(2 + (k == 3)) for k in range(6)]
    with pytest.raises(ValueError, match=r"its label is .*shape \(3,\)"):
        keep(kl.zip_loaders(only(A), only(ragged), 6))[0]


def test_processes_make_what_threads_make(keep):
    def made(**options):
        parts = only(A, transform=jittered, seed=4), only(B, seed=4)
        return keep(kl.zip_loaders(*parts, shuffle=True, seed=4, **options))

    for (x, y), (a, b) in zip(
        made().epoch_batches(), made(processes=True, workers=1).epoch_batches(), strict=True
    ):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)


REFUSED = {
    "one": (lambda: kl.concatenate([part(0, 3)]), ValueError, "got 1 loader"),
    "no loader": (lambda: kl.concatenate([part(0, 3), [1]]), TypeError, "concatenate"),
    "other shapes": (
        lambda: kl.concatenate([only(A), only(np.zeros((3, 2)))]),
        ValueError,
        "differ from those of loader 0",
    ),
    "a transform": (
        lambda: kl.concatenate([part(0, 3), part(3, 5)], transform=negated),
        ValueError,
        "pass transform= to the loaders",
    ),
    "sampling": (
        lambda: kl.concatenate([part(0, 3, epoch_batches=2), part(3, 5)]),
        ValueError,
        "with epoch_batches",
    ),
    "a batch transform": (
        lambda: kl.zip_loaders(only(A, batch_transform=negated), only(B)),
        ValueError,
        "pass it to zip_loaders",
    ),
    "a shard": (
        lambda: kl.concatenate([only(A, shard=(0, 2), shuffle=True), only(B)]),
        ValueError,
        "with shard=",
    ),
    "sizes": (lambda: kl.zip_loaders(only(A), only(B[:5])), ValueError, "loaders of 6, 5 samples"),
    "twice": (lambda: kl.zip_loaders([ONE, ONE]), ValueError, "the same loader twice"),
    "labels twice": (
        lambda: kl.zip_loaders(kl.ArraySequenceLoader(A, B), only(C)),
        ValueError,
        "loader 0 of zip_loaders.. already has labels",
    ),
    "alone": (lambda: kl.zip_loaders(only(A)), ValueError, "got one loader"),
    "an unknown option": (
        lambda: kl.zip_loaders(only(A), only(B), sed=1),
        TypeError,
        "did you mean seed=",
    ),
    "padding": (
        lambda: kl.concatenate([kl.bucket_by_length(only([A, A[:3]])), only(A)]),
        ValueError,
        "from bucket_by_length",
    ),
}
ONE = only(A)


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_named(name):
    make, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        make()
