"""Packs and TFRecord files at URLs: the bytes of local ones, whole or not at all, whatever kills the call."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kloaders as kl
from kloaders.convert import uploads
from kloaders.places import access, object_store
from kloaders.places.errors import AccessError, OutageError
from tests.support.object_server import serving
from tests.support.parts import data, pack, records, source
from tests.support.s3 import moto


@pytest.fixture(scope="module")
def server():
    with moto() as found:
        yield found


@pytest.fixture
def s3(server, tmp_path, monkeypatch):
    """An empty bucket, and a folder of the user's cache of its own."""
    server.reset()
    server._send("PUT", "bucket")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    kl.storage("s3", **server.settings)
    return server


def objects(url: str) -> dict[str, bytes]:
    """All that lies below a URL."""
    return {name: access.read(f"{url}/{name}") for name, _ in access.list_below(url)}


def shown(url: str) -> dict[str, bytes]:
    """Without the journal of what is finished."""
    return {k: v for k, v in objects(url).items() if not k.endswith(".finished.jsonl")}


def staged(tmp_path: Path) -> list[str]:
    """What is left of what was staged."""
    return [str(p) for p in (tmp_path / "user-cache" / "kloaders").rglob("*") if p.is_file()]


def to_url(kind: str, url: str, loader: Any = None, **options: Any) -> Any:
    """As `pack` and `records` do it to a folder."""
    if kind == "pack":
        return kl.write_pack(loader or source(), url, shard_size=500, progress=False, **options)
    options = {"shards": 5, "validation": 0.3, "shuffle": True, "progress": False, **options}
    return kl.write_tfrecords(loader or source(), out=f"{url}/a", **options)


KINDS = pytest.mark.parametrize("kind", ["pack", "records"])


def local_bytes(kind: str, folder: Path) -> dict[str, bytes]:
    {"pack": pack, "records": records}[kind](folder)
    return data(folder)


# ------------------------------------------------------------------------------------ what is written


@KINDS
def test_the_bytes_are_those_of_a_local_conversion(s3, tmp_path, kind) -> None:
    """The result has URLs, and nothing is left on this machine or of the claim."""
    expected = local_bytes(kind, tmp_path / "local")
    written = to_url(kind, s3.url("out"))
    assert shown(s3.url("out")) == expected
    assert {*written.files, *written.validation} == {s3.url(f"out/{name}") for name in expected}
    assert written.samples == 40
    if kind == "pack":
        assert written.files[-1] == s3.url("out/pack.json")
    else:
        assert len(written.validation) == 2
    assert staged(tmp_path) == []
    assert [n for n in objects(s3.url("out")) if "unfinished" in n] == []


def test_records_at_a_url_that_is_a_folder(s3, tmp_path) -> None:
    """It ends with a slash; a bucket is one without."""
    for url, below in ((s3.url("out") + "/", "out/"), (s3.url(), "")):
        written = kl.write_tfrecords(source(), out=url, shards=2, progress=False)
        names = [f"{below}records-0000{k}-of-00002.tfrecord" for k in range(2)]
        assert written.files == [s3.url(name) for name in names]
        assert kl.write_tfrecords(source(), out=url, shards=2, progress=False) == written


def test_a_large_file_is_sent_in_parts(s3, tmp_path, monkeypatch) -> None:
    """Above 16 MiB; and existing files are seen before."""
    monkeypatch.setattr(access, "PART_BYTES", 2**20)
    monkeypatch.setattr(object_store, "PART_BYTES", 5 * 2**20)
    x = np.random.default_rng(3).integers(0, 256, (11, 2**20), np.uint8)
    kl.write_pack(kl.ArraySequenceLoader(x), s3.url("out"), progress=False)
    assert access.read(s3.url("out/x.npy"))[-x.nbytes :] == x.tobytes()
    etag = access.head(s3.url("out/x.npy")).etag
    assert etag.endswith('-3"'), "not by parts"
    (tmp_path / "file").write_bytes(bytes(2**20 + 1))
    with pytest.raises(FileExistsError, match="already exists"):
        access.put_file(s3.url("out/x.npy"), str(tmp_path / "file"), only_if_absent=True)
    assert access.head(s3.url("out/x.npy")).etag == etag


@KINDS
def test_the_staging_folder_is_the_users_choice(s3, tmp_path, kind, caplog) -> None:
    """It is named, with what is free there, and empty in the end."""
    to_url(kind, s3.url("out"), staging=tmp_path / "large-disk")
    assert str(tmp_path / "large-disk") in caplog.text
    assert "are free" in caplog.text
    assert list((tmp_path / "large-disk").iterdir()) == []
    assert staged(tmp_path) == []


# ------------------------------------------------------------------------------------ what is there


@KINDS
def test_the_same_call_again_has_nothing_to_do(s3, tmp_path, kind) -> None:
    """Nothing is written, and the result is the same, errors too."""
    first = to_url(kind, s3.url("out"))
    before = {name: e.etag for name, e in access.list_below(s3.url("out"))}
    assert to_url(kind, s3.url("out")) == first
    assert {name: e.etag for name, e in access.list_below(s3.url("out"))} == before
    assert staged(tmp_path) == []


@KINDS
def test_something_else_is_there(s3, tmp_path, kind) -> None:
    """It is refused in words that name the URL, and stays."""
    to_url(kind, s3.url("out"))
    before = objects(s3.url("out"))
    with pytest.raises(
        FileExistsError, match=r"s3://bucket/out/.* already exists, made with other"
    ) as e:
        to_url(kind, s3.url("out"), source(30))
    assert str(tmp_path) not in str(e.value)
    with pytest.raises(FileExistsError, match=r"s3://bucket/out/.* already exists"):
        to_url(kind, s3.url("out"), if_exists="raise")
    assert objects(s3.url("out")) == before
    assert staged(tmp_path) == []


@KINDS
def test_overwrite_replaces_it(s3, tmp_path, kind) -> None:
    """Nothing of the other one stays; what lies beside it does."""
    access.put(s3.url("out/other.txt"), [b"mine"])
    access.put(s3.url("out/below/pack.json"), [b"mine"])
    to_url(kind, s3.url("out"), source(60))
    to_url(kind, s3.url("out"), overwrite=True)
    found = shown(s3.url("out"))
    assert found.pop("other.txt") == found.pop("below/pack.json") == b"mine"
    assert found == local_bytes(kind, tmp_path / "local")
    to_url(kind, s3.url("out"), source(60), if_exists="overwrite")
    assert shown(s3.url("out")) != found


@KINDS
def test_objects_of_nobody_are_refused(s3, tmp_path, kind) -> None:
    """Files by such names that no finished conversion made."""
    name = "pack.json" if kind == "pack" else "a-train-00000-of-00009.tfrecord"
    access.put(s3.url(f"out/{name}"), [b"?"])
    with pytest.raises(FileExistsError, match=rf"s3://bucket/out/{name} already exists\. Choose"):
        to_url(kind, s3.url("out"))
    to_url(kind, s3.url("out"), overwrite=True)
    assert shown(s3.url("out")) == local_bytes(kind, tmp_path / "local")


@KINDS
def test_a_place_that_another_machine_writes_to(s3, tmp_path, kind) -> None:
    """Its claim keeps others away; with overwrite=True they take over, and it is told in the end."""
    name = "unfinished.jsonl" if kind == "pack" else ".a-train.unfinished.jsonl"
    claim = {"process": 12, "host": "another", "token": "theirs"}
    access.put(s3.url(f"out/{name}"), [json.dumps(claim).encode()])
    with pytest.raises(
        FileExistsError, match="process 12 on 'another' is writing there, or was interrupted"
    ):
        to_url(kind, s3.url("out"))
    assert list(objects(s3.url("out"))) == [name]
    to_url(kind, s3.url("out"), overwrite=True)
    assert shown(s3.url("out")) == local_bytes(kind, tmp_path / "local")


def test_a_claim_that_is_lost_ends_the_upload(s3, monkeypatch) -> None:
    """Somebody else began with overwrite=True meanwhile: there is no pack of two halves."""
    real = access.put_file

    def put_file(url: str, *args: Any, **options: Any) -> None:
        access.put(s3.url("out/unfinished.jsonl"), [b'{"token": "theirs"}'])
        real(url, *args, **options)

    monkeypatch.setattr(access, "put_file", put_file)
    with pytest.raises(FileExistsError, match="is writing there"):
        to_url("pack", s3.url("out"))
    assert "pack.json" not in objects(s3.url("out"))


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"part": (0, 2)}, "parts need a folder that all processes share"),
        ({"engine": kl.Ray(cpus=1)}, "Pass it as staging="),
    ],
    ids=["part", "engine"],
)
@KINDS
def test_what_goes_to_folders_only(s3, kind, options, said) -> None:
    with pytest.raises(ValueError, match=said):
        to_url(kind, s3.url("out"), **options)
    assert objects(s3.url()) == {}


@KINDS
def test_web_servers_and_credentials_in_urls(kind) -> None:
    with pytest.raises(ValueError, match="web servers are read-only"):
        to_url(kind, "https://example.org/out")
    with pytest.raises(ValueError, match="user name or password") as e:
        to_url(kind, "s3://key:secret@bucket/out")
    assert "secret" not in str(e.value)


@KINDS
def test_staging_is_for_urls(tmp_path, kind) -> None:
    with pytest.raises(ValueError, match=r"staging=.* is only for uploads"):
        to_url(kind, str(tmp_path / "out"), staging=tmp_path)


@KINDS
def test_a_bucket_that_is_not_there(s3, tmp_path, kind) -> None:
    """Before anything is decoded."""
    with pytest.raises(AccessError, match="s3://nowhere does not exist"):
        to_url(kind, "s3://nowhere/out")
    assert staged(tmp_path) == []


@KINDS
def test_no_right_to_write(tmp_path, monkeypatch, kind) -> None:
    """Before anything is decoded, with the rights that it takes."""
    pytest.importorskip("obstore")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    with serving() as refusing:
        refusing.fault = lambda method, *_: (403, "AccessDenied") if method == "PUT" else None
        with pytest.raises(AccessError, match="Writing needs permission to put"):
            to_url(kind, refusing.url("out"))
        assert refusing.objects == {}
    assert not list(tmp_path.rglob("*.npy"))


def test_an_outage_in_the_upload(tmp_path, monkeypatch) -> None:
    """It is waited for, and after `patience` the same call goes on, with nothing decoded again."""
    pytest.importorskip("obstore")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    with serving(patience=0.3) as server:
        down = [True]

        def fault(method: str, name: str, count: int) -> Any:
            return (503, "SlowDown") if down[0] and method == "PUT" and "y.npy" in name else None

        server.fault = fault
        with pytest.raises(
            OutageError, match=r"has not answered a request for s3://bucket/out/y\.npy"
        ):
            to_url("pack", server.url("out"))
        assert "out/pack.json" not in server.objects
        down[0] = False
        server.requests.clear()
        to_url("pack", server.url("out"))
        again = [name for name in server.got("PUT") if "x" in Path(name).stem]
        assert again == [], "uploaded twice"
        found = {Path(n).name: v for n, v in server.objects.items() if "finished" not in n}
    assert found == local_bytes("pack", tmp_path / "local")


def test_a_full_disk_where_it_is_staged(s3, tmp_path, monkeypatch) -> None:
    """Says what helps; the same call goes on."""

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file")

    with monkeypatch.context() as patched:
        patched.setattr("kloaders.convert.packs.ShardArray.finish", full)
        with pytest.raises(
            OSError, match=r"No space left .*s3://bucket/out are written .*pass staging="
        ):
            to_url("pack", s3.url("out"))
    to_url("pack", s3.url("out"))
    assert shown(s3.url("out")) == local_bytes("pack", tmp_path / "local")


def test_an_answer_that_is_lost(tmp_path, monkeypatch) -> None:
    """A put-if-absent that was heard, and is made again, finds its own object."""
    pytest.importorskip("obstore")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    with serving() as server:
        lost: set[str] = set()
        real = server.RequestHandlerClass._put

        def put(handler: Any, name: str, body: bytes, cut: bool) -> None:
            if name in lost:
                real(handler, name, body, cut)
                return
            lost.add(name)
            server.objects[name] = body
            handler._error(500, "InternalError")

        monkeypatch.setattr(server.RequestHandlerClass, "_put", put)
        to_url("pack", server.url("out"))
        found = {Path(n).name: v for n, v in server.objects.items() if "finished" not in n}
    assert found == local_bytes("pack", tmp_path / "local")


# ------------------------------------------------------------------------------------------------ kills

KILLED = """
import os, signal, sys
from pathlib import Path

import kloaders as kl
from kloaders.convert.journal import Journal
from kloaders.places import access
from tests.support.parts import pack, source

step, settings, cache = int(sys.argv[1]), eval(sys.argv[2]), sys.argv[3]
pack(Path(cache) / "warm")  # imports what is imported late, once
os.environ["XDG_CACHE_HOME"] = cache

def convert(url):
    if "/pack" in url:
        kl.write_pack(source(), url, shard_size=500, progress=False)
    else:
        kl.write_tfrecords(source(), out=url + "/a", shards=5, validation=0.3, shuffle=True, progress=False)

def at(moment, url):
    '''Converts in a process of its own, which is killed before or after some call.'''
    process = os.fork()
    if not process:
        count = 0
        def counted(real):
            def call(*args, **options):
                nonlocal count
                count += 1
                if count == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                found = real(*args, **options)
                count += 1
                if count == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return found
            return call
        for name in ("put", "put_file", "delete"):
            setattr(access, name, counted(getattr(access, name)))
        Journal.add = counted(Journal.add)
        kl.storage("s3", **settings)
        try:
            convert(url)
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)

for kind in ("pack", "records"):
    moment = 1
    while (code := at(moment, f"s3://bucket/{kind}-{moment}")) == -signal.SIGKILL:
        print(f"{kind}-{moment}", flush=True)
        sys.stdin.readline()  # it is looked at what is there
        assert at(0, f"s3://bucket/{kind}-{moment}") == 0
        moment += step
    assert code == 0, code
"""


@pytest.mark.parametrize(
    "step", [pytest.param(50, id="some"), pytest.param(9, id="more", marks=pytest.mark.slow)]
)
def test_killed_at_any_moment(s3, tmp_path, step) -> None:
    """What is there then is whole or no pack at all, and the same call goes on to the same bytes."""
    expected = {kind: local_bytes(kind, tmp_path / kind) for kind in ("pack", "records")}
    cache = tmp_path / "user-cache"
    command = [sys.executable, "-c", KILLED, str(step), repr(s3.settings), str(cache)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    del environment["XDG_CACHE_HOME"]
    moments = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        for line in process.stdout:
            moment = line.strip()
            moments.append(moment)
            there = shown(s3.url(moment))
            whole = {k: v for k, v in there.items() if "unfinished" not in k}
            wanted = expected[moment.partition("-")[0]]
            assert whole.items() <= wanted.items(), f"half of something, at moment {moment}"
            if "pack.json" in there:
                assert whole == wanted, f"half a pack is taken for whole, at moment {moment}"
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.wait() == 0
    assert len(moments) >= 100 // step
    for moment in moments:
        assert shown(s3.url(moment)) == expected[moment.partition("-")[0]]
    assert staged(tmp_path) == []


def test_killed_and_the_source_has_changed(s3, tmp_path, monkeypatch) -> None:
    """What was staged of another source is not uploaded for it."""

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(uploads.access, "put_file", killed)
        with pytest.raises(KeyboardInterrupt):
            to_url("pack", s3.url("out"))
    with pytest.raises(FileExistsError, match="s3://bucket/out") as e:
        to_url("pack", s3.url("out"), source(30))
    assert str(tmp_path) not in str(e.value)
    to_url("pack", s3.url("out"), source(30), overwrite=True)
    pack(tmp_path / "local", source(30))
    assert shown(s3.url("out")) == data(tmp_path / "local")


def test_two_processes_on_one_machine(s3, tmp_path, monkeypatch) -> None:
    """The second is told that the first is at it."""
    real = access.put_file

    def put_file(*args: Any, **options: Any) -> None:
        with pytest.raises(BlockingIOError, match=r"process \d+ is writing to s3://bucket/out"):
            uploads._Upload(
                uploads.Target(s3.url("out"), "", "x", "unfinished.jsonl", None), None
            ).run(lambda *_, **__: None, "keep", False)
        real(*args, **options)

    monkeypatch.setattr(access, "put_file", put_file)
    to_url("pack", s3.url("out"))


# ----------------------------------------------------------------------------------------------- fsspec


def test_other_file_systems(tmp_path, monkeypatch) -> None:
    """By fsspec, under another name first."""
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    files = fsspec.filesystem("memory")
    expected = local_bytes("pack", tmp_path / "local")
    try:
        to_url("pack", "memory://bucket/out")
        to_url("pack", "memory://bucket/out")
        names = {Path(p).name: files.cat(p) for p in files.find("/bucket/out")}
        assert {k: v for k, v in names.items() if "finished" not in k} == expected
    finally:
        files.rm("/bucket", recursive=True)
