"""The places of a process: one client each, new ones after a fork and with new settings."""

import os
import sys

import pytest

import kloaders as kl
from kloaders.places.registry import place_of
from kloaders.places.urls import parsed


def test_one_client_for_a_bucket(server):
    assert place_of(parsed("s3://bucket/a")) is place_of(parsed("s3://bucket/b"))
    assert place_of(parsed("s3://bucket/a")) is not place_of(parsed("s3://other/a"))


def test_new_settings_make_new_clients(server):
    """A loader that runs goes on with fresh credentials."""
    before = place_of(parsed("s3://bucket"))
    kl.storage("s3", endpoint=server.endpoint, allow_http=True, region="us-east-1")
    assert place_of(parsed("s3://bucket")) is not before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_fork_is_refused_a_client(server):
    """The client has threads, which stay with the parent: the child would wait for ever."""
    place_of(parsed("s3://bucket"))
    child = os.fork()
    if child == 0:
        try:
            place_of(parsed("s3://bucket"))
        except OSError as error:
            os._exit(0 if "processes=True" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("url", "package", "said"),
    [
        ("s3://bucket", "obstore", 'pip install "kloaders\\[cloud\\]"'),
        ("sftp://host", "fsspec", "pip install fsspec"),
    ],
)
def test_a_package_that_is_missing_is_named(url, package, said, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    kl.storage(parsed(url).scheme)  # clients are made anew
    with pytest.raises(ImportError, match=said):
        place_of(parsed(url))
    with pytest.raises(ImportError, match=said):
        kl.PathSequenceLoader([f"{url}/a.jpg"])


def test_a_scheme_that_nobody_knows():
    pytest.importorskip("fsspec")
    with pytest.raises(ValueError, match="s4:// is not a known scheme"):
        kl.PathSequenceLoader(["s4://bucket/a.jpg"])
