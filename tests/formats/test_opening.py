"""How files are opened: local ones by the system, objects of URLs by ranges."""

import os
import pickle

import pytest

from kloaders.formats.files import OpenFile
from kloaders.formats.opening import LOCAL, opener_of
from kloaders.places.ranges import RemoteFile
from tests.support.object_server import serving


@pytest.fixture
def server():
    pytest.importorskip("obstore", reason="needs the extra `cloud`")
    with serving() as found:
        found.objects["a.bin"] = b"0123456789"
        yield found


def test_local_files(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"0123456789")
    opener = opener_of([str(path)])
    assert opener is LOCAL
    file = opener.open(str(path))
    assert isinstance(file, OpenFile)
    assert file.read(3, 2) == b"234"
    status = os.stat(path)
    assert file.stamp() == opener.stamp(str(path)) == (10, status.st_mtime_ns)
    assert opener.index_folder(None) is None
    assert opener.etag(str(path)) == ""
    assert opener.fetch_ahead([(str(path), 0, 5)]) == []
    assert type(pickle.loads(pickle.dumps(opener))) is type(LOCAL)


def test_files_and_objects(server, tmp_path):
    path, url = str(tmp_path / "b.bin"), server.url("a.bin")
    (tmp_path / "b.bin").write_bytes(b"abc")
    opener = opener_of([path, url], tmp_path / "c")
    assert opener.fetches
    assert isinstance(opener.open(url), RemoteFile)
    assert opener.open(url).read(3, 2) == b"234"
    assert opener.open(path).read(3, 0) == b"abc"
    assert (opener.stamp(url)[0], opener.stamp(path)[0]) == (10, 3)
    assert opener.etag(url)
    assert opener.etag(path) == ""
    assert opener.index_folder(None) == str(tmp_path / "c" / "indexes")
    for claim in opener.fetch_ahead([(url, 0, 5), (path, 0, 3)]):
        claim.release()


def test_an_object_that_is_not_there(server):
    with pytest.raises(FileNotFoundError, match=r"other\.bin does not exist"):
        opener_of([server.url("other.bin")])


def test_a_url_with_a_password():
    with pytest.raises(ValueError, match="contains a user name or password"):
        opener_of(["s3://me:secret@bucket/a"])


def test_caches_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="there is none: pass its folder"):
        opener_of(["a"], None, "1GB")
    with pytest.raises(ValueError, match="no path here is a URL"):
        opener_of(["a"], tmp_path / "c")
