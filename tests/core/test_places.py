"""What paths that are addresses, or begin with ~, are answered with."""

import os

import numpy as np
import pytest

import kloaders as kl
from kloaders.core.places import check_place, where_of


@pytest.mark.parametrize("scheme", ["https", "http", "s3", "gs", "ftp", "abfs+x", "HTTPS"])
def test_addresses(scheme):
    path = f"{scheme}://host/a.jpg"
    assert where_of(path).startswith(
        f"{scheme}:// begins a URL, but this works only on local disks"
    )
    with pytest.raises(
        ValueError, match=f"cache='{scheme.replace('+', '.')}://host/a.jpg': {scheme[:3]}"
    ):
        check_place(path, "cache")


def test_others(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "leave it out" in where_of("file:///tmp/a.jpg")
    assert where_of("~/a.jpg") == (
        f"~ is read as the name of a file or folder in {os.getcwd()}: pass os.path.expanduser(path) "
        "for a place in your home folder."
    )
    for path in ("a.jpg", "/a/b", "C:\\a", "a~/b", "x://y"[1:]):
        assert where_of(path) == f"Relative paths start at {os.getcwd()}."
        assert check_place(path, "cache") == path


READ = {
    "PathSequenceLoader": lambda path: kl.PathSequenceLoader([path]),
    "TFRecordSequenceLoader": kl.TFRecordSequenceLoader,
    "a pattern": lambda path: kl.TFRecordSequenceLoader(f"{path}-*.tfrecord"),
    "from_directory": kl.from_directory,
    "verify": kl.verify,
    "exclude": lambda path: kl.PathSequenceLoader(["a.npy"], exclude=path),
    "PackSequenceLoader": kl.PackSequenceLoader,
    "CsvSequenceLoader": kl.CsvSequenceLoader,
}


# What reads URLs is in tests/places.
@pytest.mark.parametrize(("path", "name"), [("~/data.png", name) for name in READ])
def test_what_is_read_says_so(path, name, tmp_path, monkeypatch):
    read = READ[name]
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.zeros(3))
    with pytest.raises((FileNotFoundError, ValueError)) as caught:
        read(path)
    assert path in str(caught.value)
    assert "os.path.expanduser" in str(caught.value)


WRITTEN = {
    "cache": lambda loader, path: kl.PathSequenceLoader(["a.npy"], cache=path),
    "quarantine": lambda loader, path: kl.PathSequenceLoader(
        ["a.npy"], on_error="skip", quarantine=path
    ),
    "folder": kl.write_pack,
    "out": lambda loader, path: kl.write_tfrecords(loader, out=path),
    "path": kl.LoaderCallback,
    "index_folder": lambda loader, path: kl.CsvSequenceLoader(["a.csv"], index_folder=path),
}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        *(("s3://bucket/here", name) for name in ("cache", "index_folder")),  # others may lie there
        *(("~/here", name) for name in WRITTEN),
    ],
)
def test_nothing_is_written_to_a_folder_called_tilde(path, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.zeros(3))
    (tmp_path / "a.csv").write_text("x\n1\n")
    before = sorted(os.listdir())
    with pytest.raises(ValueError, match=f"{name}='{path}'"):
        WRITTEN[name](kl.PathSequenceLoader(["a.npy"]), path)
    assert sorted(os.listdir()) == before
