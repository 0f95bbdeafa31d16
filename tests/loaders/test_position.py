"""The position of a loader: what a state holds, whether it belongs here, and what follows from it."""

import json

import numpy as np
import pytest

import kloaders as kl

SAMPLES, BATCH = 24, 4
X = np.arange(SAMPLES, dtype=np.float32).reshape(-1, 1)


def noisy(x, y, rng):
    """Writes down beside each sample what the batch drew."""
    return np.concatenate([x, np.full((len(x), 1), rng.random(), np.float32)], axis=1), y


def jitter(x, y, rng):
    return x + np.float32(rng.random() / 2), y


def loader_of(batch_size=BATCH, **options):
    return kl.ArraySequenceLoader(
        X, X[:, 0], batch_size, **{"seed": 3, "shuffle": True, "workers": 0, **options}
    )


def loop(loader, epochs, stop=None):
    """Batches of x, as a loop of one's own gets them; up to `stop` batches."""
    got = []
    for _ in range(epochs):
        loader.on_epoch_begin()
        for i in range(len(loader)):
            got.append(loader[i][0].tolist())
            if len(got) == stop:
                return got
        loader.on_epoch_end()
    return got


def state_after(batches, **options):
    loader = loader_of(**options)
    if batches:
        loop(loader, 3, batches)
    return json.loads(json.dumps(loader.state_dict()))


# ---------------------------------------------------------------- what a state holds


@pytest.mark.parametrize("batches", [0, 1, 5, 6, 7, 13])
@pytest.mark.parametrize(
    "options", [{}, {"shuffle": None}, {"shuffle": False}, {"epoch_batches": 4}], ids=str
)
def test_a_state_that_is_loaded_and_saved_at_once_is_equal(options, batches):
    state = state_after(batches, **options)
    loader = loader_of(**options)
    loader.load_state_dict(state)
    assert loader.state_dict() == state
    other = loader_of(**options)
    other.load_state_dict(loader.state_dict())
    assert other.state_dict() == state


def test_a_state_that_is_loaded_is_equal_with_another_batch_size():
    """As long as nothing is served, it is the very state, whatever the loader would say itself."""
    state = state_after(3)
    loader = loader_of(batch_size=5)
    loader.load_state_dict(state)
    assert loader.state_dict() == state
    loop(loader, 1, 1)
    assert loader.state_dict() != state


def test_a_state_is_a_copy():
    """What the caller does to it afterwards changes no loader."""
    state = state_after(2)
    loader = loader_of()
    loader.load_state_dict(state)
    expected = json.loads(json.dumps(state))
    state["made_for"]["seed"] = 99
    loader.state_dict()["made_for"]["seed"] = 77
    assert loader.state_dict() == expected


def test_a_state_is_what_json_takes():
    state = loader_of(sample_weights=np.ones(SAMPLES)).state_dict()
    assert json.loads(json.dumps(state)) == state
    assert (state["epoch"], state["batch"], state["samples"]) == (0, 0, 0)
    assert state["made_for"]["seed"] == 3
    assert "float32[1]" in state["made_for"]["sample"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"epoch": 1}, TypeError, "epoch= and batch= belong together"),
        ({"batch": 1}, TypeError, "epoch= and batch= belong together"),
        ({"epoch": 0, "batch": 7}, ValueError, "batch=7 is after the end of an epoch of 6"),
        ({"epoch": -1, "batch": 0}, ValueError, "epoch=-1"),
        ({"epoch": 0, "batch": -1}, ValueError, "batch=-1"),
    ],
)
def test_a_position_that_is_none_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        loader_of().state_dict(**arguments)


def test_behind_the_last_batch_is_the_next_epoch():
    found = loader_of().state_dict(epoch=1, batch=6)
    assert (found["epoch"], found["batch"]) == (2, 0)


# ---------------------------------------------------------------- what is served next


@pytest.mark.parametrize("batches", [1, 5, 6, 10])
@pytest.mark.parametrize(
    "transforms",
    [{"batch_transform": noisy}, {"transform": jitter}],
    ids=["batch_transform", "transform"],
)
def test_random_numbers_are_those_of_an_uninterrupted_run(batches, transforms):
    """The numbers of a batch depend on seed, epoch and batch, and not on where a run began."""
    whole = loop(loader_of(**transforms), 3)
    loader = loader_of(**transforms)
    state = state_after(batches, **transforms)
    loader.load_state_dict(state)
    assert loop(loader, 3 - state["epoch"]) == whole[batches:]


@pytest.mark.parametrize(("batch_size", "first"), [(2, 4), (8, 1), (12, 1)])
def test_a_batch_size_that_divides_draws_the_numbers_of_its_batch(batch_size, first):
    """Where the position is a whole number of the new batches, these are a whole run's of that size."""
    stop = batch_size * first // BATCH
    loader = loader_of(batch_size, batch_transform=noisy)
    loader.load_state_dict(state_after(stop, batch_transform=noisy))
    whole = loop(loader_of(batch_size, batch_transform=noisy), 2)
    assert loop(loader, 2) == whole[first:]


def test_a_resumed_run_with_threads_draws_them_too(keep):
    whole = loop(loader_of(batch_transform=noisy), 2)
    loader = keep(loader_of(batch_transform=noisy, workers=3))
    loader.load_state_dict(state_after(4, batch_transform=noisy))
    assert loop(loader, 2) == whole[4:]


# ---------------------------------------------------------------- the seed


@pytest.mark.parametrize("options", [{}, {"class_balance": [0, 1] * 12}], ids=["plain", "drawn"])
def test_a_drawn_seed_is_taken_over(options):
    """A loader without a seed of the user's takes the state's, for orders, numbers and streams."""
    options = {"seed": None, "batch_transform": noisy, **options}
    begun, after = loader_of(**options), loader_of(**options)
    assert begun.seed != after.seed
    got = loop(begun, 1, 2)
    after.load_state_dict(begun.state_dict())
    assert after.seed == begun.seed == after.options.order.seed
    whole = loop(loader_of(**{**options, "seed": begun.seed}), 2)
    assert got + loop(after, 2) == whole


def test_a_seed_that_was_taken_over_is_kept_by_views():
    begun, after = loader_of(seed=None), loader_of(seed=None)
    loop(begun, 1, 2)
    after.load_state_dict(begun.state_dict())
    view = after.view()
    assert view.seed == begun.seed
    assert loop(view, 1) == loop(loader_of(seed=begun.seed), 1)


def test_a_seed_of_the_users_is_not_given_up():
    with pytest.raises(ValueError, match="seed was 4 and is 3"):
        loader_of().load_state_dict(loader_of(seed=4).state_dict())


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"shuffle": False}, "shuffle was False and is True"),
        ({"sample_weights": np.ones(SAMPLES)}, "weights was"),
        ({"transform": lambda x, y, rng: (np.zeros((2, 2)), y)}, r"sample was .*\[2, 2\]"),
        ({"epoch_batches": 3}, "was"),
    ],
    ids=["shuffle", "weights", "sample", "epoch_batches"],
)
def test_a_state_of_other_options_is_refused(other, words):
    loader = loader_of()
    before = loader.state_dict()
    with pytest.raises(ValueError, match=words) as caught:
        loader.load_state_dict(loader_of(**other).state_dict())
    assert "this ArraySequenceLoader" in str(caught.value)
    assert loader.state_dict() == before


@pytest.mark.parametrize("state", [None, 3, [], {}, {"version": 1}, {"made_for": {"seed": -1}}])
def test_what_is_no_state_is_refused(state):
    loader = loader_of(seed=None)
    seed = loader.seed
    with pytest.raises((TypeError, ValueError), match=r"state"):
        loader.load_state_dict(state)
    assert loader.seed == seed


def test_a_drawn_seed_stays_where_a_state_is_refused():
    """The batches, too, are those of before."""
    loader = loader_of(seed=None)
    seed, whole = loader.seed, [batch[0].tolist() for batch in loader.epoch_batches(0)]
    with pytest.raises(ValueError, match="shuffle was False"):
        loader.load_state_dict(loader_of(seed=5, shuffle=False).state_dict())
    assert loader.seed == seed
    assert [batch[0].tolist() for batch in loader.epoch_batches(0)] == whole
