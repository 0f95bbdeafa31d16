"""Requests that are made again, outages, and lists of objects by pattern."""

import logging
import threading

import pytest

from kloaders.places import access
from kloaders.places.access import list_below, listed_pattern, patiently, read
from kloaders.places.errors import BrokenTransferError, OutageError, TransientError


@pytest.fixture
def quick(monkeypatch):
    """No waiting between tries."""
    monkeypatch.setattr(access, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(access, "_LONGEST_WAIT", 0.002)


@pytest.mark.parametrize("fault", [(503, "SlowDown"), "drop", "cut"], ids=["503", "drop", "cut"])
def test_a_request_is_made_again(server, quick, fault):
    server.objects["a"] = b"x" * 200_000
    server.fault = lambda method, name, count: fault if count < 4 else None
    assert read(server.url("a")) == b"x" * 200_000
    assert server.got() == ["a"] * 4


def test_a_body_that_always_breaks_off(server, quick):
    """The place answers, and so the object is at fault, and not for ever."""
    server.objects["a"] = b"x" * 200_000
    server.fault = lambda *_: "cut"
    with pytest.raises(BrokenTransferError, match="s3://bucket/a never arrives completely"):
        read(server.url("a"))


def test_an_outage_is_reported_and_its_end_too(server, quick, monkeypatch, caplog):
    monkeypatch.setattr(access, "_REPORT_SECONDS", 0.0)
    server.objects["a"] = b"abc"
    server.fault = lambda method, name, count: (503, "SlowDown") if count < 9 else None
    with caplog.at_level(logging.INFO, "kloaders"):
        assert read(server.url("a")) == b"abc"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "s3://bucket has not answered for 0 seconds (503 SlowDown)" in said[0]
    assert "s3://bucket answers again" in said[1]


def test_patience_has_an_end(quick):
    def fail():
        raise TransientError("no connection")

    with pytest.raises(OutageError, match=r"has not answered a request for s3://b/a .*resume"):
        patiently(fail, "s3://b/a", 0.01)


def test_nobody_waits_any_more():
    """A loader that is closed in an outage does not wait for its end."""
    gone = threading.Event()

    def fail():
        gone.set()
        raise TransientError("no connection")

    with pytest.raises(OutageError, match="no thread waits"):
        patiently(fail, "s3://b/a", 600, wanted=lambda: not gone.is_set())


def test_an_error_keeps_nothing_of_the_clients(server):
    """The client's own error has the server's answer in it, and that may have keys."""
    server.fault = lambda *_: (403, "AccessDenied")
    with pytest.raises(OSError) as caught:
        read(server.url("a"))
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


NAMES = ["a/1.npy", "a/2.jpg", "a/b/3.npy", "a/.h/4.npy", "a/.5.npy", "c.npy"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.npy", ["c.npy"]),
        ("*/*.npy", ["a/1.npy"]),
        ("**/*.npy", ["a/1.npy", "a/b/3.npy", "c.npy"]),
        ("a/**", ["a/1.npy", "a/2.jpg", "a/b/3.npy"]),
        ("a/[12].*", ["a/1.npy", "a/2.jpg"]),
        ("a/.*.npy", ["a/.5.npy"]),
        ("?.npy", ["c.npy"]),
        ("d/*", []),
    ],
)
def test_patterns_match_as_those_of_files_do(server, pattern, names):
    server.objects |= dict.fromkeys(NAMES, b"x")
    found = listed_pattern(server.url(pattern))
    assert [url for url, _ in found] == [server.url(name) for name in names]


def test_what_is_no_pattern():
    assert listed_pattern("s3://bucket/a.jpg") is None


def test_what_marks_a_folder_is_no_object(server):
    """Consoles of stores make an empty object where a person makes a folder."""
    server.objects |= {"p/a/": b"", "p/a/1": b"x", "p/b": b"y"}
    assert [name for name, _ in list_below(server.url("p"))] == ["a/1", "b"]
