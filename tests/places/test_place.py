"""What every place has."""

import inspect

import pytest

from kloaders.places.file_system import FileSystem
from kloaders.places.object_store import ObjectStore
from kloaders.places.place import Entry, Place


@pytest.mark.parametrize("kind", [ObjectStore, FileSystem], ids=lambda kind: kind.__name__)
def test_places_have_the_methods_of_the_protocol(kind):
    """With the same arguments: nothing else knows which one it is."""
    for name in ("list", "head", "read", "read_range", "delete", "put"):
        wanted = inspect.signature(getattr(Place, name)).parameters
        assert list(inspect.signature(getattr(kind, name)).parameters) == list(wanted), name


def test_an_entry_of_a_listing():
    assert Entry("a", 3, "tag") == ("a", 3, "tag")
