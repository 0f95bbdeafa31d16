"""Other schemes, through fsspec: its file system in memory stands for them."""

import pytest

from kloaders.places import access
from kloaders.places.errors import AccessError, TransientError
from kloaders.places.registry import place_of
from kloaders.places.urls import parsed

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def files():
    found = fsspec.filesystem("memory")
    found.store.clear()
    found.pseudo_dirs[:] = [""]
    for name in ("a/1.npy", "a/b/2.npy", "a/.hidden", "c.npy"):
        found.pipe_file(f"/{name}", name.encode())
    yield found
    found.store.clear()


def test_objects_by_name(files):
    assert [name for name, _ in access.list_below("memory://a")] == [".hidden", "1.npy", "b/2.npy"]
    assert access.read("memory://a/b/2.npy") == b"a/b/2.npy"
    assert access.read_range("memory://a/b/2.npy", 2, 5) == b"b/2"
    assert access.head("memory://c.npy").size == 5


def test_an_object_is_put_once(files):
    access.put("memory://a/new", [b"x", b"y"], only_if_absent=True)
    assert access.read("memory://a/new") == b"xy"
    with pytest.raises(FileExistsError, match="memory://a/new already exists"):
        access.put("memory://a/new", [b"z"], only_if_absent=True)


def test_an_object_is_deleted(files):
    for _ in range(2):
        access.delete("memory://c.npy")
        assert not access.exists("memory://c.npy")


def test_an_object_that_is_missing(files):
    with pytest.raises(FileNotFoundError, match=r"memory://a/none\.npy does not exist"):
        access.read("memory://a/none.npy")


@pytest.mark.parametrize(
    ("raised", "kind"), [(PermissionError, AccessError), (TimeoutError, TransientError)]
)
def test_what_a_file_system_raises(files, monkeypatch, raised, kind):
    def fail(*_, **__):
        raise raised("it says AKIDSECRETIVE")

    monkeypatch.setattr(type(files), "cat_file", fail)
    with pytest.raises(kind) as caught:
        place_of(parsed("memory://a")).read("1.npy")
    assert "AKIDSECRETIVE" not in str(caught.value)
