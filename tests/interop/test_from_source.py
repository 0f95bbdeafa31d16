"""`from_source`: anything with a length and items by number; which items arrive, and by how many calls."""

import threading

import numpy as np
import pytest

import kloaders as kl

SAMPLES = 22


class Items:
    """Item k is a dict; `calls` counts the calls."""

    def __init__(self, broken=()):
        self.broken, self.calls = broken, []

    def __len__(self):
        return SAMPLES

    def __getitem__(self, k):
        self.calls.append(k)
        if k in self.broken:
            raise OSError(f"item {k} is gone")
        return {"x": np.full(3, k, np.float32), "y": k}


class Many(Items):
    def __getitems__(self, numbers):
        self.calls.append(list(numbers))
        return [Items.__getitem__(self, k) for k in numbers]


def parts(item):
    return item["x"], item["y"]


def numbers(loader):
    seen = []
    for x, y in loader:
        np.testing.assert_array_equal(x[:, 0], y)
        seen += y.tolist()
    return seen


@pytest.mark.parametrize(
    "options",
    [{}, {"workers": 0}, {"seeded": False, "workers": 3}, {"processes": True, "workers": 2}],
    ids=["default", "inline", "threads", "processes"],
)
def test_each_item_comes_once_shuffled_as_a_whole(keep, options):
    loader = keep(kl.from_source(Items(), 4, select=parts, shuffle=True, seed=1, **options))
    first, second = numbers(loader), numbers(loader)
    assert sorted(first) == sorted(second) == list(range(SAMPLES))
    assert first != second


def test_a_list_is_a_source(keep):
    loader = keep(kl.from_source([(np.full(2, k), k) for k in range(5)], 5, shuffle=False))
    assert loader[0][1].tolist() == [0, 1, 2, 3, 4]


def test_many_items_are_asked_for_by_one_call(keep):
    source = Many()
    loader = keep(kl.from_source(source, 11, select=parts, seeded=False, workers=0, shuffle=False))
    assert loader[1][1].tolist() == list(range(11, 22))
    assert list(range(11, 22)) in source.calls
    seeded = Many()
    loader = keep(kl.from_source(seeded, 11, select=parts, workers=0, shuffle=False))
    loader[1]
    assert not any(isinstance(call, list) for call in seeded.calls)


def test_the_item_at_fault_is_found_among_many(keep):
    source = Many(broken={5})
    loader = keep(
        kl.from_source(source, 11, select=parts, seeded=False, shuffle=False, on_error="skip")
    )
    assert loader[0][1].tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert [(e.index, e.name) for e in loader.errors] == [(5, "Many[5]")]


def test_a_run_goes_on_where_it_was(keep):
    def loader():
        return keep(kl.from_source(Items(), 4, select=parts, shuffle=True, seed=5))

    whole = numbers(loader())
    first = loader()
    batches = iter(first)
    begun = [n for _ in range(2) for n in next(batches)[1].tolist()]
    second = loader()
    second.load_state_dict(first.state_dict())
    assert begun + numbers(second) == whole


def test_what_repeats_for_ever_is_refused():
    class Endless(Items):
        def __len__(self):
            return 2**63 - 1

    with pytest.raises(ValueError, match=r"this Endless repeats forever: leave out repeat\(\)"):
        kl.from_source(Endless())


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        (iter([1]), {}, r"list_iterator has no samples by number .*from_source\(list\(dataset\)\)"),
        ([1], {"num_workers": 2}, r"from_source\(\) has no num_workers=: pass processes=True"),
        ([1], {"select": 3}, "select=3, expected a function that takes an item"),
        ([1], {"bach": 3}, r"from_source\(\) has no option bach="),
    ],
)
def test_what_is_no_source_is_refused_with_advice(source, options, said):
    with pytest.raises(TypeError, match=said):
        kl.from_source(source, **options)


# ---------------------------------------------------------------- other people's sources


def test_array_record(tmp_path, keep):
    module = pytest.importorskip(
        "array_record.python.array_record_module", reason="array_record is not installed"
    )
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    paths = [str(tmp_path / f"{k}.array_record") for k in range(2)]
    for path, part in zip(paths, np.array_split(np.arange(SAMPLES), 2), strict=True):
        writer = module.ArrayRecordWriter(path, "group_size:1")
        for k in part.tolist():
            writer.write(np.array([k, 2 * k], np.float32).tobytes())
        writer.close()
    source = ArrayRecordDataSource(paths)
    loader = keep(
        kl.from_source(
            source, 4, select=lambda raw: np.frombuffer(raw, np.float32), shuffle=True, seed=1
        )
    )
    rows = np.concatenate(list(loader))
    theirs = np.stack([np.frombuffer(source[k], np.float32) for k in range(SAMPLES)])
    np.testing.assert_array_equal(rows[np.argsort(rows[:, 0])], theirs)
    assert rows[:, 0].tolist() != theirs[:, 0].tolist()


def test_grain(keep):
    grain = pytest.importorskip("grain", reason="Grain is not installed")
    dataset = grain.MapDataset.source(range(SAMPLES)).map(lambda k: (np.full(3, k), k))
    used = set()

    def noted(item):
        used.add(threading.get_ident())
        return item

    loader = keep(kl.from_source(dataset, 4, select=noted, shuffle=True, seed=1, workers=2))
    assert sorted(numbers(loader)) == list(range(SAMPLES))
    whole = keep(kl.from_source(dataset, SAMPLES))[0]
    for k in range(SAMPLES):
        np.testing.assert_array_equal(whole[0][k], dataset[k][0])
    with pytest.raises(ValueError, match="repeats forever"):
        kl.from_source(dataset.repeat())
    with pytest.raises(TypeError, match="has no samples by number"):
        kl.from_source(dataset.to_iter_dataset())


def test_hugging_face(keep):
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    data = datasets.Dataset.from_dict({"x": [[k, k] for k in range(SAMPLES)], "y": range(SAMPLES)})
    loader = keep(kl.from_source(data.with_format("numpy"), 4, select=parts, shuffle=True, seed=1))
    assert sorted(numbers(loader)) == list(range(SAMPLES))
    drawn = data.with_transform(lambda b: {"x": [np.random.random(2) for _ in b["x"]], "y": b["y"]})
    first, again = (
        np.concatenate([x for x, _ in keep(kl.from_source(drawn, 4, select=parts, seed=1))])
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
