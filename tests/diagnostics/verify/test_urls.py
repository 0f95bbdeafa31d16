"""verify of URLs: every object is read, and what is wrong with one is said with its URL."""

import cv2
import numpy as np
import pytest

import kloaders as kl
from tests.support.commands import invoke
from tests.support.object_server import serving
from tests.support.remote import npy

pytest.importorskip("obstore", reason="needs the extra `cloud`")


@pytest.fixture
def server():
    noise = np.random.default_rng(0)
    with serving() as found:
        for k in range(12):
            image = noise.integers(0, 256, (20, 30, 3), np.uint8)
            name = f"photos/{'cat' if k % 2 else 'dog'}/{k:02}.png"
            found.objects[name] = cv2.imencode(".png", image)[1].tobytes()
        found.objects["arrays/1.npy"] = npy(1)
        yield found


def test_a_folder_that_is_sound(server):
    server.objects |= {"photos/notes.txt": b"x", "photos/.hidden/1.png": b"x"}
    report = kl.verify(server.url("photos"), progress=False)
    assert (report.ok, report.files, report.left_out) == (True, 12, 1)


def test_what_is_wrong_is_named_by_url(server):
    cut = server.objects["photos/dog/02.png"]
    server.objects["photos/dog/02.png"] = cut[: len(cut) // 2]
    server.objects["photos/dog/04.png"] = b""
    server.objects["photos/cat/05.png"] = server.objects["photos/dog/00.png"]
    report = kl.verify(server.url("photos"), progress=False)
    kinds = {finding.path: finding.kind for finding in report.findings}
    assert kinds[server.url("photos/dog/02.png")] == "truncated"
    assert kinds[server.url("photos/dog/04.png")] == "empty"
    assert "conflicting labels" in kinds.values()
    assert all(server.url() in finding.message for finding in report.findings)


def test_patterns_single_objects_and_tables(server):
    server.objects["t.csv"] = b"path,label\narrays/1.npy,1\nphotos/dog/00.png,2\n"
    assert kl.verify(server.url("photos/cat/*.png"), progress=False).files == 6
    assert kl.verify(server.url("arrays/1.npy"), progress=False).files == 1
    assert kl.verify(server.url("t.csv"), folder=server.url(), progress=False).files == 2
    with pytest.raises(FileNotFoundError, match="there are no objects at s3://bucket/none"):
        kl.verify(server.url("none"), progress=False)


def test_an_object_that_is_missing(server):
    report = kl.verify(server.url("arrays/2.npy"), progress=False)
    (finding,) = report.findings
    assert finding.kind == "unreadable"
    assert "s3://bucket/arrays/2.npy does not exist" in finding.message


def test_commands_take_urls(server):
    done = invoke("verify", server.url("photos"))
    assert "12 read" in done.stdout
    done = invoke("explain", server.url("photos"), "--json", "--seconds", 0.1)
    assert '"PathSequenceLoader, 12 samples' in done.stdout
