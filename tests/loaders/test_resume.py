"""Going on where it stopped: every sample once, in the order of the run that was never stopped."""

import json
import os

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kloaders as kl
from kloaders.plan.epoch import EpochPlan, Order

SAMPLES = 47

# ---------------------------------------------------------------- the plan


@st.composite
def cuts(draw):
    """How an epoch is cut: samples a batch, shards, and RAM batches of all shards together."""
    batch = draw(st.integers(1, 5))
    shards = draw(st.integers(1, 3))
    return batch, shards, batch * shards * draw(st.integers(1, 4))


def plan_of(cut, samples, two_levels, **options):
    batch, shards, window = cut
    return [
        EpochPlan(
            samples,
            batch,
            seed=5,
            shard=(k, shards),
            window=window if two_levels else None,
            **options,
        )
        for k in range(shards)
    ]


def served(parts, order, first, stop=None):
    """What all shards serve of an order, batch by batch, in the order of the epoch."""
    stop = parts[0].count(order) if stop is None else stop
    return [
        [n for part in parts for n in part.indices(order, b).tolist()] for b in range(first, stop)
    ]


def flat(batches):
    return [n for batch in batches for n in batch]


@given(
    st.integers(6, 60),
    cuts(),
    cuts(),
    cuts(),
    st.sampled_from([None, "global", "windows", "front to back"]),
    st.integers(0, 4),
    st.data(),
)
def test_an_epoch_goes_on_at_the_very_sample(samples, first, second, third, draw, epoch, data):
    """Two stops, and another batch size, number of shards and RAM batch after each of them."""
    options = {"draw": draw} if draw else {}
    plans = [plan_of(cut, samples, draw is not None, **options) for cut in (first, second, third)]
    if any(0 < samples % p[0].global_batch < p[0].shard[1] for p in plans):
        return  # such a loader is refused
    head = data.draw(st.integers(0, plans[0][0].batches))
    order, batch = Order(epoch, head), 0
    whole = flat(served(plans[0], order, 0))
    assert sorted(whole) == list(range(samples))
    got, repeated = [], 0
    for parts, after in zip(plans, [*plans[1:], None], strict=True):
        count = parts[0].count(order)
        stop = count if after is None else data.draw(st.integers(batch, count))
        got += flat(served(parts, order, batch, stop))
        if after is None or stop == count:
            break
        state = json.loads(json.dumps(parts[0].state(order, stop)))
        assert state["samples"] == len(got) - repeated
        order, batch = after[0].position(state)
        left = samples - state["samples"]
        short = left % after[0].global_batch
        if 0 < short < after[0].shard[1]:  # too few for the last batch: some come twice
            again = min(after[0].shard[1] - short, state["samples"])
            got = got[: len(got) - again]
        assert order.epoch == epoch
    assert got == whole


@given(st.integers(6, 60), cuts(), cuts(), st.booleans(), st.data())
def test_echoes_go_on(samples, first, second, alike, data):
    """With echo: at the very batch if the cut is the same, else with the RAM batch begun anew."""
    second = first if alike else second
    plans = [plan_of(cut, samples, True, draw="global", echo=2) for cut in (first, second)]
    if any(0 < samples % p[0].global_batch < p[0].shard[1] for p in plans):
        return
    order = Order(1, 0)
    stop = data.draw(st.integers(0, plans[0][0].batches - 1))
    state = plans[0][0].state(order, stop)
    new, batch = plans[1][0].position(state)
    if first == second:
        assert (new, batch) == (order, stop)
        return
    before = flat(served(plans[0], order, 0, stop))
    after = flat(served(plans[1], new, batch))
    counts = np.bincount(before + after, minlength=samples)
    assert counts.min() >= 2
    size = plans[0][0].window
    again = int((counts - 2).sum())
    assert again <= 2 * size + plans[1][0].shard[1]


# ---------------------------------------------------------------- loaders, in a loop by hand


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Samples that are their own number, in each kind of storage."""
    folder = tmp_path_factory.mktemp("resume")
    x = np.arange(SAMPLES, dtype=np.float32).reshape(-1, 1)
    paths = []
    for number, row in enumerate(x):
        paths.append(str(folder / f"{number:03}.npy"))
        np.save(paths[-1], row)
    source = kl.ArraySequenceLoader(x, x[:, 0])
    kl.write_pack(source, folder / "pack", progress=False)
    kl.write_tfrecords(source, out=folder / "plain", shards=2, progress=False)
    kl.write_tfrecords(source, out=folder / "gzip", shards=2, compression="GZIP", progress=False)
    return folder, paths, x


class Numbers(kl.SequenceLoader):
    """A source of the user's own."""

    def load_sample(self, index):
        return np.float32([index]), np.float32(index)


FEATURES = {"x": "x", "y": "label"}
KINDS = {
    "arrays": lambda d, b, **o: kl.ArraySequenceLoader(d[2], d[2][:, 0], b, **o),
    "paths": lambda d, b, **o: kl.PathSequenceLoader(d[1], d[2][:, 0], b, **o),
    "urls": lambda d, b, **o: kl.PathSequenceLoader(
        [f"file://{path}" for path in d[1]], d[2][:, 0], b, **o
    ),
    "own": lambda d, b, **o: Numbers(SAMPLES, b, **o),
    "two-level": lambda d, b, **o: kl.RamBatchSequenceLoader(
        d[1], d[2][:, 0], b, ram_batch_size=20, **o
    ),
    "windows": lambda d, b, **o: kl.RamBatchSequenceLoader(
        d[1], d[2][:, 0], b, ram_batch_size=20, draw="windows", **o
    ),
    "resident": lambda d, b, **o: kl.RamBatchSequenceLoader(
        d[1], d[2][:, 0], b, ram_budget="1GB", **o
    ),
    "records": lambda d, b, **o: kl.TFRecordSequenceLoader(f"{d[0]}/plain-*", FEATURES, b, **o),
    "gzip": lambda d, b, **o: kl.TFRecordSequenceLoader(
        f"{d[0]}/gzip-*", FEATURES, b, ram_batch_size=20, **o
    ),
    "pack": lambda d, b, **o: kl.PackSequenceLoader(d[0] / "pack", b, **o),
}


def _shuffled(make):
    return lambda d, b, **o: make(d, b, shuffle=True, **o)


# Shuffled, and other orders, of which some hold samples several times.
SAVED = {
    **{kind: _shuffled(make) for kind, make in KINDS.items()},
    "weighted": lambda d, b, **o: kl.ArraySequenceLoader(
        d[2], batch_size=b, sampling_weights=1 + d[2][:, 0], epoch_batches=9, **o
    ),
    "buckets": lambda d, b, **o: kl.bucket_by_length(
        kl.ArraySequenceLoader(
            [row.repeat(2 + k % 5) for k, row in enumerate(d[2])], batch_size=b, shuffle=True, **o
        ),
        boundaries=[3, 6],
    ),
    "mixture": lambda d, b, **o: kl.mix(
        [kl.ArraySequenceLoader(part, part[:, 0], b, seed=1) for part in (d[2][:9], d[2][9:])],
        [0.4, 0.6],
        **o,
    ),
}


def loop(loader, epochs, stop=None):
    """Batches of sample numbers, as a loop of one's own gets them; up to `stop` batches."""
    got = []
    for _ in range(epochs):
        loader.on_epoch_begin()
        for i in range(len(loader)):
            got.append(np.asarray(loader[i][0]).reshape(-1).astype(int).tolist())
            if len(got) == stop:
                return got
        loader.on_epoch_end()
    return got


def through_json(loader):
    return json.loads(json.dumps(loader.state_dict()))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_goes_on(kind, shuffle, data, keep):
    """Each loader: what came before and what comes after are the batches of an unbroken run."""
    make = KINDS[kind]
    whole = loop(keep(make(data, 4, shuffle=shuffle, seed=3)), 3)
    for stop in (0, 1, 7, 12, 30):
        begun = keep(make(data, 4, shuffle=shuffle, seed=3))
        got = loop(begun, 3, stop) if stop else []
        state = through_json(begun)
        after = keep(make(data, 4, shuffle=shuffle, seed=3, workers=2))
        after.load_state_dict(state)
        assert got + loop(after, 3 - state["epoch"]) == whole, stop


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_goes_on_with_other_shards_and_batches(kind, data, keep):
    """2 parts of 4, then 4 parts of 3, then one of 5: every sample once an epoch."""
    make = KINDS[kind]
    got, state = [], None
    for shards, batch, stop in ((2, 4, 3), (4, 3, 2), (1, 5, None)):
        parts = [
            keep(make(data, batch, shuffle=True, seed=3, shard=(k, shards))) for k in range(shards)
        ]
        for part in parts:
            if state is not None:
                part.load_state_dict(state)
        epochs = 2 - (state["epoch"] if state else 0)
        found = [loop(part, epochs, stop) for part in parts]
        got += [n for batches in zip(*found, strict=True) for n in flat(batches)]
        states = [through_json(part) for part in parts]
        assert all(s == states[0] for s in states)
        state = states[0]
    assert sorted(got[:SAMPLES]) == sorted(got[SAMPLES:]) == list(range(SAMPLES))


@pytest.mark.parametrize("stop", [0, 1, 7, 12, 30])
@pytest.mark.parametrize("kind", SAVED)
def test_a_state_loaded_and_saved_at_once_is_the_same(kind, stop, data, keep):
    """Between epochs and in them, and of a loader that went on as well: before and after it begins."""
    make = SAVED[kind]
    begun = keep(make(data, 4, seed=3))
    if stop:
        loop(begun, 3, stop)
    state = through_json(begun)
    for _ in range(2):
        after = keep(make(data, 4, seed=3))
        after.load_state_dict(state)
        assert through_json(after) == state
        after.on_epoch_begin()
        assert through_json(after) == state
        _ = after[0]
        state = through_json(after)


@pytest.mark.parametrize("stop", [1, 7, 12, 17])
@pytest.mark.parametrize("kind", [*KINDS, "mixture"])
def test_a_batch_transform_goes_on(kind, stop, data, keep):
    """Whoever stopped, once or twice: each batch draws what it draws in an unbroken run."""

    def drawn(x, y, rng):
        return np.full((len(x), 1), rng.integers(10**6), np.float32), y

    def make():
        return keep(SAVED[kind](data, 4, seed=3, batch_transform=drawn))

    whole = loop(make(), 3)
    assert len({batch[0] for batch in whole}) == len(whole)
    begun = make()
    got = loop(begun, 3, stop)
    for more in (3, None):
        state = through_json(begun)
        begun = make()
        begun.load_state_dict(state)
        got += loop(begun, 3 - state["epoch"], more)
    assert got == whole


def test_a_position_is_what_was_consumed_not_what_was_read_ahead(data, keep):
    """Threads are far ahead; the position is behind the batch that was taken."""
    loader = keep(KINDS["paths"](data, 4, shuffle=True, seed=1, workers=4))
    loop(loader, 1, 3)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, 3)


def test_a_position_between_epochs(data, keep):
    """Behind the last batch comes the next epoch, before on_epoch_end() and after it."""
    loader = keep(KINDS["arrays"](data, 8, shuffle=True, seed=1))
    loop(loader, 1, 6)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (1, 0)
    loader.on_epoch_end()
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (1, 0)


@pytest.mark.parametrize("loader", [kl.TextLineSequenceLoader, kl.CsvSequenceLoader])
def test_lines_are_data(loader, keep, tmp_path):
    """Files of lines: the same under another folder, and others if a line has another length."""

    def lines(folder, text):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_text(text)
        options = {"x": "n"} if loader is kl.CsvSequenceLoader else {}
        numbers = {} if options else {"decode": lambda line: np.float32(len(line))}
        return keep(loader(tmp_path / folder / "a.csv", batch_size=2, seed=1, **options, **numbers))

    state = lines("a", "n\n1\n2\n3\n").state_dict()
    lines("b", "n\n1\n2\n3\n").load_state_dict(state)
    with pytest.raises(ValueError, match="data was"):
        lines("c", "n\n1\n22\n3\n").load_state_dict(state)


def test_two_levels_may_become_one(data, keep):
    """A RAM batch drawn from everything is a cut of the same order: other sizes, or none, go on."""
    whole = flat(loop(keep(KINDS["paths"](data, 4, shuffle=True, seed=3)), 1))
    begun = keep(KINDS["two-level"](data, 4, shuffle=True, seed=3))
    got = flat(loop(begun, 1, 7))
    after = keep(KINDS["paths"](data, 6, shuffle=True, seed=3))
    after.load_state_dict(through_json(begun))
    assert got + flat(loop(after, 1)) == whole


def test_the_length_is_that_of_the_rest_while_it_lasts(data, keep):
    """Within the epoch that goes on, len(loader) is what is left; more is an IndexError."""
    begun = keep(KINDS["arrays"](data, 8, shuffle=True, seed=1))
    loop(begun, 1, 4)
    loader = keep(KINDS["arrays"](data, 8, shuffle=True, seed=1))
    loader.load_state_dict(begun.state_dict())
    assert len(loader) == 6
    loader.on_epoch_begin()
    assert len(loader) == len(list(loader)) == len(loader) == 2
    with pytest.raises(IndexError, match="2 batches left: call len"):
        loader[2]
    loader.on_epoch_end()
    assert len(loader) == 6


def test_without_a_seed_the_state_has_one(data, keep):
    """The seed that a loader drew is no word of the user's: another process takes the state's."""
    begun = keep(KINDS["two-level"](data, 4, shuffle=True))
    got = loop(begun, 1, 5)
    after = keep(KINDS["two-level"](data, 4, shuffle=True))
    assert after.seed != begun.seed
    after.load_state_dict(through_json(begun))
    assert after.seed == begun.seed
    assert sorted(flat(got + loop(after, 1))) == list(range(SAMPLES))


def test_a_state_that_is_refused_changes_nothing(data, keep):
    """Not even the seed of a loader that was made without one."""
    _, paths, x = data
    state = keep(kl.PathSequenceLoader(paths[1:], x[1:, 0], 4, shuffle=True, seed=1)).state_dict()
    loader = keep(kl.PathSequenceLoader(paths, x[:, 0], 4, shuffle=True))
    before = loader.state_dict()
    with pytest.raises(ValueError, match="samples was 46 and is 47"):
        loader.load_state_dict(state)
    assert loader.state_dict() == before


def test_a_position_told_by_the_caller(data, keep):
    """For who counts batches by other means: the state before a batch of an epoch."""
    loader = keep(KINDS["paths"](data, 4, shuffle=True, seed=3))
    whole = loop(keep(loader.view()), 2)
    loader.load_state_dict(loader.state_dict(epoch=1, batch=5))
    assert loop(loader, 1) == whole[12 + 5 :]
    assert loader.state_dict(epoch=0, batch=12)["epoch"] == 1
    with pytest.raises(ValueError, match="after the end of an epoch of 12 batches"):
        loader.state_dict(epoch=0, batch=13)
    with pytest.raises(TypeError, match="belong together"):
        loader.state_dict(epoch=1)


# ---------------------------------------------------------------- refused, with what differs


def other(data, **changes):
    _, paths, x = data
    options = {"shuffle": True, "seed": 3, "paths": paths, "labels": x[:, 0], **changes}
    return kl.PathSequenceLoader(options.pop("paths"), options.pop("labels"), 4, **options)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (lambda d: {"seed": 4}, "seed was 3 and is 4"),
        (lambda d: {"shuffle": False}, "shuffle was True and is False"),
        (lambda d: {"drop_last": True}, "drop_last was False and is True"),
        (lambda d: {"dtype": "float16"}, "sample was 'float32"),
        (lambda d: {"sample_weights": np.ones(SAMPLES)}, "weights was None"),
        (lambda d: {"labels": d[2][:, 0] + 1}, "labels was"),
        (lambda d: {"paths": d[1][::-1]}, "data was"),
        (lambda d: {"paths": d[1][:-1], "labels": d[2][:-1, 0]}, "samples was 47 and is 46"),
    ],
)
def test_other_data_or_options_are_refused(changes, said, data, keep):
    state = keep(other(data)).state_dict()
    with pytest.raises(ValueError, match="belongs to other data or options") as raised:
        keep(other(data, **changes(data))).load_state_dict(state)
    assert said in str(raised.value)


def test_data_may_move(data, keep, tmp_path):
    """The same files under another folder are the same data."""
    moved = tmp_path / "elsewhere" / "deep"
    moved.mkdir(parents=True)
    for path in data[1]:
        os.link(path, moved / os.path.basename(path))
    state = keep(other(data)).state_dict()
    keep(other(data, paths=sorted(map(str, moved.iterdir())))).load_state_dict(state)


@pytest.mark.parametrize("kind", ["records", "gzip", "pack", "arrays"])
def test_other_stores_are_refused(kind, data, keep, tmp_path):
    """One sample more, or other values: not the data that the state was taken of."""
    state = keep(KINDS[kind](data, 4, seed=3)).state_dict()
    x = np.array(data[2])
    x[3] = 99
    y = x[:, 0] if kind != "records" else np.append(x[:, 0], 1)
    x = x if kind != "records" else np.append(x, [[7]], axis=0)
    source = kl.ArraySequenceLoader(x, y)
    kl.write_pack(source, tmp_path / "pack", progress=False)
    kl.write_tfrecords(source, out=tmp_path / "plain", shards=2, progress=False)
    kl.write_tfrecords(source, out=tmp_path / "gzip", shards=3, compression="GZIP", progress=False)
    with pytest.raises(ValueError, match=r"(data|samples) was"):
        keep(KINDS[kind]((tmp_path, None, x), 4, seed=3)).load_state_dict(state)


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (lambda s: "text", TypeError, "json.loads"),
        (lambda s: {}, ValueError, "not a loader's state"),
        (lambda s: s | {"version": 99}, ValueError, "another version"),
        (lambda s: s | {"batch": -1}, ValueError, "batch is -1"),
        (lambda s: s | {"epoch": 1.5}, ValueError, "epoch is 1.5"),
        (lambda s: s | {"start": True}, ValueError, "start is True"),
        (lambda s: s | {"stored": "x"}, ValueError, "stored is 'x'"),
        (lambda s: {k: v for k, v in s.items() if k != "stored"}, ValueError, "stored is None"),
        (lambda s: s | {"global_batch": 0}, ValueError, "global_batch is 0"),
        (lambda s: s | {"made_for": None}, ValueError, "made_for is None"),
        (lambda s: s | {"start": 10**9}, ValueError, "start is 1000000000"),
        (lambda s: s | {"batch": 10**9}, ValueError, "batch is 1000000000"),
    ],
)
def test_a_damaged_state_is_refused(damage, error, said, data, keep):
    loader = keep(KINDS["arrays"](data, 4, shuffle=True, seed=3))
    with pytest.raises(error, match=said):
        loader.load_state_dict(damage(loader.state_dict()))
    assert len(loop(loader, 1)) == 12


def test_a_loop_by_number_has_no_position(data, keep):
    """loader[i] outside an epoch moves nothing: an error, instead of a wrong position."""
    loader = keep(KINDS["arrays"](data, 4, shuffle=True, seed=3))
    for i in range(5):
        loader[i]
    with pytest.raises(ValueError, match=r"call loader.on_epoch_begin\(\)"):
        loader.state_dict()
    loop(loader, 1, 2)
    assert loader.state_dict()["batch"] == 2


def test_a_fit_without_the_callback_has_no_position(data, keep):
    """Keras reads ahead: how far the model is, only a callback is told."""
    loader = keep(KINDS["arrays"](data, 4, shuffle=True, seed=3))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    found = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                with pytest.raises(ValueError, match="LoaderCallback"):
                    loader.state_dict()
                found.append(batch)

    model.fit(loader, verbose=0, callbacks=[Look()])
    assert found == [2]
    assert loader.state_dict()["epoch"] == 1
