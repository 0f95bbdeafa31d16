"""What a conversion says of itself."""

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
