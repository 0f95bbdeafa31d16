"""Buckets: moto's S3 server, which answers as S3 does, and what becomes of odd names."""

import pytest

import kloaders as kl
from kloaders.places import access
from kloaders.places.errors import AccessError
from kloaders.places.registry import place_of
from kloaders.places.urls import parsed
from tests.support.s3 import moto

NAMES = [
    "photos/a b.npy",
    "photos/it's.npy",
    "photos/100%.npy",
    "photos/a%20b.npy",
    "photos/é日本.npy",
    "photos/x+y&z=?.npy",
    "photos/#1.npy",
    "photos/[1].npy",
    "photos/deep/er/~a.npy",
]


@pytest.fixture(scope="module")
def s3():
    with moto() as found:
        yield found


def test_names_come_back_as_they_are(s3):
    """Spaces, apostrophes, percent signs, Unicode: what is listed is what is read."""
    s3.put({name: name.encode() for name in NAMES})
    found = access.list_below(s3.url("photos"))
    assert [name for name, _ in found] == sorted(name.removeprefix("photos/") for name in NAMES)
    for name, entry in found:
        assert access.read(s3.url(f"photos/{name}"), entry.etag) == f"photos/{name}".encode()
        assert entry.size == len(f"photos/{name}".encode())


def test_a_listing_of_several_pages(s3):
    s3.put({f"many/{k:04}": b"x" for k in range(1005)})
    assert [name for name, _ in access.list_below(s3.url("many"))] == [
        f"{k:04}" for k in range(1005)
    ]


def test_ranges_of_one_version(s3):
    s3.put({"r": b"0123456789"})
    etag = access.head(s3.url("r")).etag
    assert access.read_range(s3.url("r"), 2, 5, etag) == b"234"
    assert access.read_range(s3.url("r"), 8, 50, etag) == b"89"
    assert access.read_range(s3.url("r"), 4, 4) == b""
    s3.put({"r": b"9876543210"})
    with pytest.raises(OSError, match="has changed since it was listed"):
        access.read_range(s3.url("r"), 2, 5, etag)


def test_an_object_is_put_whole_and_once(s3):
    access.put(s3.url("new"), [b"ab", b"c"], only_if_absent=True)
    with pytest.raises(FileExistsError, match="s3://bucket/new already exists"):
        access.put(s3.url("new"), [b"other"], only_if_absent=True)
    assert access.read(s3.url("new")) == b"abc"
    access.put(s3.url("new"), [b"other"])
    assert access.read(s3.url("new")) == b"other"


def test_an_object_is_deleted(s3):
    access.put(s3.url("old"), [b"x"])
    assert access.exists(s3.url("old"))
    for _ in range(2):
        access.delete(s3.url("old"))
        assert not access.exists(s3.url("old"))


def test_a_large_object_is_put_in_parts(s3):
    parts = [bytes([k]) * 9 * 2**20 for k in range(3)]
    access.put(s3.url("large"), parts)
    assert access.read(s3.url("large")) == b"".join(parts)


def test_a_bucket_that_does_not_exist(s3):
    with pytest.raises(AccessError, match="s3://nosuch does not exist"):
        access.read("s3://nosuch/a")


def test_settings_that_are_none(s3):
    kl.storage("s3://odd", nosuchoption="secretvalue")
    with pytest.raises(ValueError, match="cannot be reached with these settings") as caught:
        place_of(parsed("s3://odd"))
    assert "secretvalue" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_the_other_clouds_have_clients(scheme):
    """That they can be made; there is no server of theirs here."""
    pytest.importorskip("obstore", reason="needs the extra `cloud`")
    kl.storage(scheme, anonymous=True, **({"account_name": "me"} if scheme == "az" else {}))
    assert place_of(parsed(f"{scheme}://bucket")).patience == 600


def test_a_web_server(server):
    """Names are percent-encoded in URLs, and cannot be listed."""
    server.objects["a b%.npy"] = b"abc"
    assert access.read(server.web_url("a b%.npy")) == b"abc"
    with pytest.raises(ValueError, match="cannot be listed: pass the URLs of its files"):
        access.list_below(server.web_url("photos"))
