"""The text and the notebook table of a finished conversion."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.convert.written import Written
from kloaders.core.errors import SampleError


def test_a_conversion_describes_itself():
    """In a sentence, and in a notebook with what did not load."""
    assert str(Written(["a"], [], 1200, [])) == "1,200 samples in 1 file."
    bad = [SampleError(3, "<3>.png", "ValueError: cut")]
    found = Written(["a"], ["b"], 9, bad)
    assert str(found) == "9 samples in 2 files, 1 of them for validation; 1 sample failed to load."
    assert "&lt;3&gt;.png" in found._repr_html_()
    assert "<table>" not in Written(["a"], [], 9, [])._repr_html_()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_transform_keeps_the_line_of_the_user(tmp_path, workers, keep):
    """In what the writers return, too: also if an earlier call met it, and this one has nothing to do."""

    def bad(x, y, rng):
        if y == 3:
            raise ValueError("no three")
        return x, y

    def loader():
        rows = np.arange(10.0).reshape(5, 2)
        options = {"preprocess": bad, "on_error": "skip", "workers": workers}
        return keep(kl.ArraySequenceLoader(rows, np.arange(5), 2, **options))

    for _ in range(2):
        pack = kl.write_pack(loader(), tmp_path / "pack", progress=False)
        records = kl.write_tfrecords(loader(), out=tmp_path / "a", progress=False)
        for written in (pack, records):
            (error,) = written.errors
            assert f"{__file__}, line" in error.where, error.where
            assert "sample 3" in str(error)
