"""from_directory of a URL: the same classes and files, in the same order, as of a local folder."""

import numpy as np
import pytest

import kloaders as kl
from kloaders.sources.remote_folders import RemoteFolder
from tests.support.object_server import serving
from tests.support.remote import epoch, npy, numbers
from tests.support.s3 import moto

pytest.importorskip("obstore", reason="needs the extra `cloud`")

FILES = {
    "photos/cat/2.npy": npy(0),
    "photos/cat/10.npy": npy(1),
    "photos/cat/deep/1.npy": npy(2),
    "photos/cat/deep/er/1.npy": npy(3),
    "photos/dog/it's a 100% dog.npy": npy(4),
    "photos/dog/ü.npy": npy(5),
    "photos/dog/notes.txt": b"no array",
    "photos/dog/.hidden.npy": npy(6),
    "photos/.trash/1.npy": npy(7),
    "photos/top.npy": npy(8),
    "photos/zebra/": b"",
    "other/a/1.npy": npy(9),
}


@pytest.fixture
def server():
    with serving() as found:
        found.objects |= FILES
        yield found


@pytest.fixture
def local(tmp_path):
    for name, data in FILES.items():
        path = tmp_path / name
        if name.endswith("/"):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path


def test_as_of_a_local_folder(server, local, keep, caplog):
    far = keep(kl.from_directory(server.url("photos/"), validation=None, batch_size=3)[0])
    near = keep(kl.from_directory(local / "photos", validation=None, batch_size=3)[0])
    assert far.class_names == near.class_names == ["cat", "dog"]
    assert [path.removeprefix("s3://bucket/") for path in far.paths] == [
        path.removeprefix(f"{local}/") for path in near.paths
    ]
    for (x, y), (a, b) in zip(epoch(far), epoch(near), strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)
    assert "s3://bucket/photos: 1 files left out" in caplog.text


def test_one_listing_and_no_look_at_each_file(server, keep):
    keep(kl.from_directory(server.url("photos"), validation=None)[0])
    assert server.got() == []
    assert [how for how, _, _ in server.requests] == ["GET"]


def test_training_and_validation_are_all_of_it(server, keep):
    train, val = kl.from_directory(server.url("photos"), validation=0.34, batch_size=2, seed=1)
    keep(train), keep(val)
    assert sorted(numbers(epoch(train)) + numbers(epoch(val))) == [0, 1, 2, 3, 4, 5]


def test_options_of_from_directory(server, keep):
    loader = keep(
        kl.from_directory(
            server.url("photos"),
            class_names=["dog", "cat"],
            label_mode="categorical",
            extensions=".npy",
            validation=None,
            batch_size=6,
        )[0]
    )
    x, y = loader[0]
    assert x[:, 0].tolist() == [4, 5, 1, 0, 2, 3]
    assert y.argmax(1).tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("nothing", {}, "there is nothing below s3://bucket/nothing"),
        ("photos/cat/deep/er", {}, "contains 1 files and no folders"),
        ("photos", {"class_names": ["cow"]}, "class_names holds 'cow'"),
        ("photos", {"extensions": "jpg"}, "no file of .jpg in them"),
    ],
)
def test_what_is_no_folder_of_classes(server, name, options, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        kl.from_directory(server.url(name), **options)


def test_a_table_of_urls(server, keep):
    """By URL itself, with relative and whole URLs in it."""
    server.objects["table.csv"] = (
        "path,label\ncat/2.npy,cat\ns3://bucket/photos/dog/ü.npy,dog\n".encode()
    )
    loader, _ = kl.from_dataframe(
        server.url("table.csv"), "path", "label", folder=server.url("photos"), validation=None
    )
    keep(loader)
    assert numbers([loader[0]]) == [0, 5]
    assert loader.class_names == ["cat", "dog"]


def test_from_an_s3_server(keep):
    """moto's, which looks at signatures and lists as S3 does."""
    with moto() as s3:
        s3.put({f"c/{name}": data for name, data in FILES.items() if not name.endswith("/")})
        loader = keep(kl.from_directory(s3.url("c/photos"), validation=None, batch_size=4)[0])
        assert numbers(epoch(loader)) == [1, 0, 2, 3, 4, 5]


def test_files_of_a_class_that_is_not_there(server):
    assert list(RemoteFolder(server.url("photos")).files("cow", None)) == []
