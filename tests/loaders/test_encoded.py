"""Options that loaders over rows of encoded values share, checked."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.loaders.encoded import EncodedOptions, encoded_options
from kloaders.loaders.paths import PathSequenceLoader
from tests.support.tar_files import npy_bytes, write_tar


@pytest.fixture
def path(tmp_path):
    members = {}
    for k in range(8):
        members |= {f"{k}.npy": npy_bytes(np.full(2, k)), f"{k}.cls": str(k).encode()}
    return write_tar(tmp_path / "a.tar", members)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"sise": (4, 4)}, TypeError, "TarSequenceLoader has no option sise=: did you mean size="),
        ({"class_names": "cats"}, TypeError, "class_names='cats', expected a list of texts"),
        ({"class_names": ["a", 1]}, TypeError, "expected a list of texts"),
        ({"class_names": ["a", "a"]}, ValueError, "class_names holds 'a' twice"),
        ({"draw": "some"}, ValueError, "draw='some' is not known"),
        ({"size": 3.5}, TypeError, "size=3.5, expected two integers"),
        ({"decode": 3}, TypeError, "decode=3 is not a function"),
        ({"decode": len, "size": (3, 3)}, ValueError, r"size=\(3, 3\) is for images that this"),
        ({"y": 3}, TypeError, "y holds 3"),
    ],
)
def test_bad_options(path, options, error, said):
    with pytest.raises(error, match=said):
        kl.TarSequenceLoader(path, **options)


def test_defaults_are_those_of_loaders_over_files():
    own = {
        name: (value, PathSequenceLoader.__init__.__kwdefaults__[name])
        for name, value in encoded_options.__kwdefaults__.items()
        if name in PathSequenceLoader.__init__.__kwdefaults__
    }
    assert all(a == b for a, b in own.values())
    assert set(encoded_options.__kwdefaults__) == set(EncodedOptions.__annotations__) - set(
        kl.SequenceLoader.__init__.__signature__.parameters
    )


def test_ram_batches(path, keep):
    loader = keep(kl.TarSequenceLoader(path, 2, x="npy", y="cls", ram_batch_size=4, seed=1))
    assert loader.ram_batch_size == 4
    assert sorted(n for _, y in loader for n in y.tolist()) == list(range(8))
    assert keep(kl.TarSequenceLoader(path, 2)).ram_batch_size == 0


def test_what_is_made_from_it_keeps_its_options(path, keep):
    loader = keep(kl.TarSequenceLoader(path, 2, x="npy", y="cls", dtype="float16", seed=1))
    some = keep(kl.subset(loader, [5, 2]))
    x, y = some[0]
    assert (x.dtype, y.tolist()) == (np.float16, [5, 2])
