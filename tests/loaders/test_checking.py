"""Whether a function that takes a loader got one."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.loaders.checking import check_loader


class Numbers(kl.SequenceLoader):
    def load_sample(self, index):
        return np.float32(index)


@pytest.mark.parametrize(
    "loader", [kl.ArraySequenceLoader(np.arange(4)), Numbers(4)], ids=["ours", "of a subclass"]
)
def test_loaders_pass(loader):
    check_loader(loader, "take")


@pytest.mark.parametrize("value", [None, [1, 2], np.arange(3), kl.SequenceLoader, iter(())])
def test_anything_else_is_named_with_who_got_it(value):
    expected = rf"^take\({type(value).__name__}\): expected a loader made by kloaders"
    with pytest.raises(TypeError, match=expected):
        check_loader(value, "take")


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("subset", lambda value: kl.subset(value, [0])),
        ("take", lambda value: kl.take(value, 1)),
        ("repeat", lambda value: kl.repeat(value, 2)),
        ("folds", lambda value: kl.folds(value, None)),
        ("inputs_as_labels", kl.inputs_as_labels),
        ("to_tf_dataset", kl.to_tf_dataset),
        ("LoaderCallback", kl.LoaderCallback),
    ],
)
def test_functions_that_take_a_loader_refuse_other_values(name, call):
    """Each says its own name, before it looks at anything else."""
    with pytest.raises(TypeError, match=rf"^{name}\(list\): expected a loader"):
        call([1, 2, 3])
