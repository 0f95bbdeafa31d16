"""Which texts are URLs, and what they name."""

import pytest

import kloaders as kl
from kloaders.places.urls import is_url, join, parsed, without_pattern


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("s3://bucket/a.jpg", True),
        ("hf://datasets/a/b", True),
        ("HTTPS://host/a", True),
        ("C://folder/a.jpg", False),
        ("folder/a.jpg", False),
        ("folder://", True),
        ("/data/s3://a", False),
        (b"s3://bucket/a", False),
        (None, False),
    ],
)
def test_what_is_a_url(text, yes):
    assert is_url(text) is yes


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://bucket/a b%20c/d.jpg", ("s3", "bucket", "a b%20c/d.jpg")),
        ("S3://bucket", ("s3", "bucket", "")),
        ("https://host:81/a%20b.jpg", ("https", "host:81", "a b.jpg")),
        ("memory://a/b.npy", ("memory", "a", "b.npy")),
    ],
)
def test_the_parts_of_a_url(url, parts):
    """Names in buckets are taken as they stand; those of web servers are decoded."""
    assert parsed(url) == parts


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://", "has no bucket, expected s3://bucket/name"),
        ("https:///a", "has no server"),
        ("https://me:secret@host/a", "contains a user name or password"),
        ("s3://AKID:secret@bucket/a", 'kloaders.storage("s3", ...)'),
        ("https://host/a.jpg?X-Amz-Signature=secret", "is followed by a query"),
    ],
)
def test_what_is_refused_and_never_repeated(url, said):
    """Credentials in a URL are refused, by a message that leaves them out."""
    with pytest.raises(ValueError) as caught:
        parsed(url)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_join_encodes_names_of_web_servers_only():
    assert join("s3://b/x/", "a b.jpg") == "s3://b/x/a b.jpg"
    assert join("https://h/x", "a b%.jpg") == "https://h/x/a%20b%25.jpg"


@pytest.mark.parametrize(
    ("url", "cut"),
    [
        ("s3://b/x/*.jpg", ("s3://b/x", "*.jpg")),
        ("s3://b/**/[ab]?.jpg", ("s3://b", "**/[ab]?.jpg")),
        ("s3://b/x.jpg", None),
        ("s3://b*/x.jpg", None),
    ],
)
def test_where_a_pattern_begins(url, cut):
    assert without_pattern(url) == cut


URL = "s3://bucket/x"


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda x: kl.finish_pack(URL), "folder"),
        (lambda x: kl.finish_tfrecords(URL), "out"),
        (lambda x: kl.VideoSequenceLoader([URL]), "files"),
        (lambda x: kl.PathSequenceLoader([__file__], decode=len, cache=URL)[0], "cache"),
    ],
    ids=["pack", "records", "video", "cache"],
)
def test_what_is_local_only_is_refused(call, what, tmp_path, monkeypatch):
    """Before, a folder called "s3:" was made, and written to."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=f"{what}='s3://bucket/x': s3:// begins a URL, but this works only"
    ):
        call(kl.ArraySequenceLoader([1, 2]))
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_bad_files_may_be_a_url():
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    files.pipe_file("/u/bad.csv", b"path,error\nmemory://u/1.npy,broken\n")
    urls = ["memory://u/0.npy", "memory://u/1.npy"]
    loader = kl.PathSequenceLoader(urls, check_paths=False, exclude="memory://u/bad.csv")
    assert list(loader.paths) == urls[:1]
