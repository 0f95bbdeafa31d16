"""Text files: encodings, marks at their beginning, lengths, and what is no text."""

import pickle

import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.texts import Text


@pytest.mark.parametrize(
    ("encoding", "raw", "text"),
    [
        ("utf-8", "Löwe\r\n日本".encode(), "Löwe\r\n日本"),
        ("UTF8", b"\xef\xbb\xbfabc", "abc"),
        ("utf-16", "Löwe".encode("utf-16"), "Löwe"),
        ("latin-1", b"L\xf6we", "Löwe"),
        ("utf-8", b"", ""),
    ],
)
def test_bytes_become_text(encoding, raw, text):
    decode = pickle.loads(pickle.dumps(Text(encoding)))
    assert decode(raw) == text


def test_long_texts_are_cut_by_characters():
    assert Text(max_length=3)("日本語です".encode()) == "日本語"
    assert Text(max_length=30)(b"abc") == "abc"


def test_what_is_no_text_says_where():
    with pytest.raises(DecodeError, match=r"not text in utf-8: byte 2 of 5 is b'\\xf6we'") as error:
        Text()(b"a \xf6we"[:5])
    assert 'decode=kl.Text(encoding="latin-1")' in str(error.value)


@pytest.mark.parametrize("encoding", ["klingon", "base64", 8])
def test_encodings_that_are_none(encoding):
    with pytest.raises(LookupError, match=f"encoding={encoding!r} is not known"):
        Text(encoding)


def test_lengths_that_are_none():
    with pytest.raises(ValueError, match="max_length=0 is too small"):
        Text(max_length=0)
