"""Hugging Face data sets: each row once, encoded images decoded here, classes known by name."""

import numpy as np
import pytest

import kloaders as kl

datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
Image = pytest.importorskip("PIL.Image")

SAMPLES = 36
NOISE = np.random.default_rng(0)
PICTURES = [NOISE.integers(0, 256, (8 + k % 3, 12, 3), np.uint8) for k in range(SAMPLES)]


@pytest.fixture
def dataset():
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["a", "b", "c"]),
            "n": datasets.Value("int64"),
            "text": datasets.Value("string"),
        }
    )
    columns = {
        "image": [Image.fromarray(picture) for picture in PICTURES],
        "label": [n % 3 for n in range(SAMPLES)],
        "n": list(range(SAMPLES)),
        "text": ["odd" if n % 2 else "even" for n in range(SAMPLES)],
    }
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize(
    "options",
    [{"workers": 0}, {}, {"processes": True, "workers": 2}, {"ram_batch_size": 16}],
    ids=["inline", "threads", "processes", "ram"],
)
def test_each_row_comes_once_shuffled_as_a_whole(dataset, keep, options):
    loader = keep(
        kl.from_huggingface(
            dataset, y="n", batch_size=4, size=(6, 6), shuffle=True, seed=1, **options
        )
    )
    first = keep(kl.from_huggingface(dataset, y="n", batch_size=SAMPLES, size=(6, 6)))
    stored, _ = first[0]
    seen = []
    for x, y in loader:
        np.testing.assert_array_equal(x, stored[y])
        seen += y.tolist()
    assert sorted(seen) == list(range(SAMPLES))
    assert seen != sorted(seen)


def test_bit_equal_to_datasets(dataset, keep):
    loader = keep(kl.from_huggingface(dataset, {"image": "image", "n": "n"}, "label", batch_size=1))
    for k, row in enumerate(dataset):
        x, y = loader[k]
        np.testing.assert_array_equal(x["image"][0], np.asarray(row["image"]))
        assert (x["n"][0], y[0]) == (row["n"], row["label"])


def test_classes_have_names_and_are_balanced(dataset, keep):
    loader = keep(
        kl.from_huggingface(dataset, "image", "label", 6, size=(6, 6), class_balance=True, seed=1)
    )
    assert loader.class_names == ["a", "b", "c"]
    for _, y in loader:
        assert np.bincount(y).tolist() == [2, 2, 2]
    assert "cache: 36 of 36 samples in RAM" in loader.summary()
    texts = keep(kl.from_huggingface(dataset, "n", "text", 4, class_names=["even", "odd"]))
    assert texts[0][1].tolist() == [0, 1, 0, 1]


def test_a_run_goes_on_where_it_was(dataset, keep):
    def loader():
        return keep(kl.from_huggingface(dataset, "n", batch_size=4, shuffle=True, seed=5))

    whole = [x.tolist() for x in loader()]
    first = loader()
    batches = iter(first)
    begun = [next(batches).tolist() for _ in range(3)]
    second = loader()
    second.load_state_dict(first.state_dict())
    assert begun + [x.tolist() for x in second] == whole


def test_a_cache_in_a_folder_belongs_to_one_data_set(dataset, keep, tmp_path):
    def pixels(data):
        loader = keep(
            kl.from_huggingface(data, batch_size=4, size=(6, 6), cache=tmp_path / "cache")
        )
        found = np.concatenate(list(loader.epoch_batches(shuffle=False)))
        served = [store.counts for store in loader.source.stores()]
        loader.close()
        return found, served

    first, _ = pixels(dataset)
    again, served = pixels(dataset)
    np.testing.assert_array_equal(first, again)
    assert served[0][0] == served[0][1] >= SAMPLES
    turned, _ = pixels(dataset.select(range(SAMPLES - 1, -1, -1)))
    np.testing.assert_array_equal(turned, first[::-1])


def test_what_is_broken_is_named_and_left_out(keep):
    dataset = datasets.Dataset.from_dict(
        {"image": [{"bytes": None, "path": "gone.png"}, {"bytes": b"no picture", "path": None}]},
        features=datasets.Features({"image": datasets.Image(decode=False)}),
    )
    whole = datasets.concatenate_datasets(
        [dataset, datasets.Dataset.from_dict({"image": [Image.fromarray(PICTURES[0])]},
                                             features=datasets.Features({"image": datasets.Image(decode=False)}))]
    )  # fmt: skip
    loader = keep(kl.from_huggingface(whole, batch_size=3, on_error="skip"))
    np.testing.assert_array_equal(loader[0], PICTURES[0][None])
    assert sorted(error.name for error in loader.errors) == ["row 0", "row 1"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: datasets.DatasetDict({"train": d}), r"from_huggingface\(dataset\['train'\]\)"),
        (lambda d: d.to_iterable_dataset(), "load it without streaming=True"),
        (lambda d: [1, 2], r"dataset is a list, .* from_source\(d\)"),
        (lambda d: d.with_transform(lambda b: b), "has its own transform"),
    ],
    ids=["splits", "stream", "list", "transform"],
)
def test_what_is_no_dataset_is_refused_with_advice(dataset, make, said):
    with pytest.raises(TypeError, match=said):
        kl.from_huggingface(make(dataset))
