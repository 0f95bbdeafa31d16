"""The list of bad samples in a bucket: shared by runs, whole at any time, with nobody's line lost."""

from __future__ import annotations

import csv
import io
import pickle
import threading
from typing import Any

import pytest

import kloaders as kl
from kloaders.places import access
from kloaders.places.errors import AccessError
from kloaders.sources.remote_quarantine import RemoteQuarantine
from tests.support.object_server import serving
from tests.support.remote import epoch, fill, numbers
from tests.support.s3 import moto

BAD = (3, 9, 10)


@pytest.fixture
def server():
    pytest.importorskip("obstore", reason="needs the extra `cloud`")
    with serving() as found:
        yield found


def listed(url: str) -> list[str]:
    return [row["path"] for row in csv.DictReader(io.StringIO(access.read(url).decode()))]


def test_what_one_run_met_the_next_leaves_out(server) -> None:
    """By URL all the way: data, list, and what the next run excludes."""
    urls = fill(server, 24)
    for k in BAD:
        server.objects[f"data/{k:04}.npy"] = b"no array"
    quarantine = server.url("run/bad.csv")
    options: dict[str, Any] = {"batch_size": 4, "quarantine": quarantine, "cache": None}
    loader = kl.PathSequenceLoader(urls, on_error="skip", **options)
    assert sorted(numbers(epoch(loader))) == [k for k in range(24) if k not in BAD]
    assert sorted(listed(quarantine)) == [urls[k] for k in BAD]
    before = server.objects["run/bad.csv"]
    epoch(kl.PathSequenceLoader(urls, on_error="skip", **options))
    assert server.objects["run/bad.csv"] == before, "listed twice"
    last = kl.PathSequenceLoader(urls, exclude=quarantine, **options)
    assert sorted(numbers(epoch(last))) == [k for k in range(24) if k not in BAD]


def test_it_is_made_at_once_with_its_header(server) -> None:
    RemoteQuarantine(server.url("bad.csv"))
    assert server.objects["bad.csv"] == b"path,error,first_seen\n"
    RemoteQuarantine(server.url("bad.csv"))
    assert len(server.got("PUT")) == 1


def test_nobodys_line_is_lost() -> None:
    """Many writers at a time, on moto, which checks If-Match as S3 does."""
    with moto() as s3:
        url = s3.url("bad.csv")
        writers = [pickle.loads(pickle.dumps(RemoteQuarantine(url))) for _ in range(4)]

        def write(number: int) -> None:
            for k in range(3):
                writers[number].add([(f"s3://bucket/{number}-{k}.jpg", "broken, quite")])

        threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = [f"s3://bucket/{n}-{k}.jpg" for n in range(4) for k in range(3)]
        assert sorted(listed(url)) == expected


def test_an_object_that_is_something_else(server) -> None:
    """It is left alone."""
    server.objects["train.csv"] = b"file,label\na,1\n"
    with pytest.raises(ValueError, match="is not a list of bad files"):
        RemoteQuarantine(server.url("train.csv"))
    assert server.objects["train.csv"] == b"file,label\na,1\n"


def test_no_right_to_write(server) -> None:
    """It is said when the loader is made."""
    server.fault = lambda method, *_: (403, "AccessDenied") if method == "PUT" else None
    with pytest.raises(AccessError, match="Writing needs permission to put"):
        kl.PathSequenceLoader(fill(server, 4), batch_size=2, quarantine=server.url("bad.csv"))


def test_an_outage_costs_no_epoch(server, caplog) -> None:
    """It is said once, and the samples are in loader.errors."""
    kl.storage(
        "s3",
        endpoint=server.endpoint,
        allow_http=True,
        patience=0.2,
        region="us-east-1",
        access_key="a",
        secret_key="b",
    )
    urls = fill(server, 8)
    server.objects["data/0003.npy"] = b"no array"
    loader = kl.PathSequenceLoader(
        urls, batch_size=4, quarantine=server.url("bad.csv"), on_error="skip"
    )
    server.fault = lambda method, name, _: (500, "InternalError") if name == "bad.csv" else None
    assert len(numbers(epoch(loader))) == 7
    assert "s3://bucket/bad.csv cannot be written" in caplog.text
    assert len(loader.errors) == 1


def test_a_url_of_files_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="Paths have no file://"):
        kl.ArraySequenceLoader([1, 2], quarantine=f"file://{tmp_path}/bad.csv")
