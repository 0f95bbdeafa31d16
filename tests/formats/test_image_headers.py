"""Kind and size by the header: an answer for any bytes at all, and soon."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kloaders.formats.image_headers import image_shape
from tests.support.images import kinds


def test_hostile_headers_end_soon():
    """Millions of empty segments do not hold the interpreter."""
    assert image_shape(b"\xff\xd8" + b"\xff" * 10**7) is None
    assert image_shape(b"\xff\xd8" + b"\xff\xe0\0\0" * 10**6) is None
    assert image_shape(b"\x89PNG\r\n\x1a\n" + bytes(10**7)) == (0, 0)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(list(kinds().values())), st.integers(0, 60))
def test_any_header(noise, raw, keep):
    """The header peek answers for any bytes at all."""
    found = image_shape(raw[:keep] + noise)
    assert found is None or len(found) == 2
