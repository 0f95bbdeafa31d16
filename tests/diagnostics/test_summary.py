"""The summary of a loader."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.summary import Classes, classes_of, facts


def test_a_summary_counts_the_classes(tmp_path):
    """By name, with their share, on each side of a split."""
    x = np.zeros((30, 4), "f4")
    loader = kl.ArraySequenceLoader(x, np.repeat([0, 1, 2], [20, 5, 5]), 5, seed=1)
    loader.class_names = ["bird", "boat", "tree"]
    said = loader.summary()
    assert (
        "classes: 3, bird 20 (67%), boat 5 (17%), tree 5 (17%); the largest has 4.0 times" in said
    )
    assert "total: 720 bytes decoded" in said
    assert "memory: at most 1.2 KiB in 10 prefetched batches" in said
    train, _ = kl.split(loader, validation=0.2, stratify=True, seed=1)
    assert "bird 16" in train.summary()


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.arange(200) % 20, "classes: 20, from 10 (0) to 10 (0) samples each; balanced"),
        (np.eye(4)[np.arange(200) % 4], "classes: 4, 0 50 (25%)"),
        (np.array([0, 2] * 100), "1 without samples"),
        (np.linspace(0, 1, 200), None),
        (np.arange(200), None),
        (np.arange(200) - 100, None),
    ],
)
def test_numbers_that_are_no_classes_are_not_counted(y, said):
    """Measurements, identities and negative numbers."""
    text = kl.ArraySequenceLoader(np.zeros((200, 2)), y, 5).summary()
    assert ("classes" in text) == (said is not None)
    assert said is None or said.replace(" each", "") in text


def test_a_notebook_shows_the_summary_as_a_table():
    """Names are escaped; samples that fail to load are reported instead of raised."""
    loader = kl.ArraySequenceLoader(np.zeros((6, 2)), np.arange(6) % 2, 5)
    loader.class_names = ["<cat>", "dog"]
    table = loader._repr_html_()
    assert "&lt;cat&gt;" in table
    assert "<cat>" not in table
    assert "<table>" in table
    assert "6 samples in 2 batches of 5" in table
    broken = kl.PathSequenceLoader(["missing.npy"], check_paths=False)
    assert "missing.npy" in broken._repr_html_()
    assert repr(loader).startswith("ArraySequenceLoader(6 samples, batch_size=5")


def test_balance_in_words():
    assert Classes(["a", "b"], [10, 11]).balance == "balanced"
    assert Classes(["a", "b"], [10, 30]).balance.startswith("the largest has 3.0 times")
    assert Classes(["a", "b"], [10, 0]).balance == "1 without samples"


@pytest.mark.parametrize("many", [10, 11])
def test_many_classes_are_summed_up(many):
    """Ten are listed one by one."""
    text = str(Classes([f"c{k}" for k in range(many)], list(range(1, many + 1))))
    assert ("from 1 (c0) to 11 (c10) samples" in text) is (many == 11)


def test_classes_of_parts_and_rows():
    """Of a subset its own; rows of several classes count each."""
    whole = kl.ArraySequenceLoader(np.zeros((30, 2)), np.arange(30) % 3, 3)
    part = kl.subset(whole, np.array([0, 3, 6, 9, 1, 4]))
    assert classes_of(part).counts == [4, 2]
    rows = kl.ArraySequenceLoader(np.zeros((2, 2)), np.array([[1, 1, 0], [0, 1, 0]]), 2)
    assert classes_of(rows).counts == [1, 2, 0]
    assert classes_of(kl.ArraySequenceLoader(np.zeros((2, 2)), batch_size=2)) is None


def test_facts_of_options():
    """Order, shard, padding, cache and errors."""
    x = [np.zeros((k, 2), "f4") for k in (1, 2, 3, 4)]
    loader = kl.ArraySequenceLoader(x, np.zeros(4), 2, shard=(1, 2), seed=3, shuffle=True)
    found = dict(facts(kl.bucket_by_length(loader)))
    assert found["order"] == "shuffled every epoch, seed 3"
    assert found["shard"] == "part 1 of 2"
    assert "lengths" in found
    assert found["loading"] == "no batch requested yet"
    assert dict(facts(kl.ArraySequenceLoader(np.zeros((4, 2)), shuffle=False)))["order"] == (
        "storage order"
    )
