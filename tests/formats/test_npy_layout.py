"""Headers of .npy files: what they announce, and what is refused."""

import pickle

import numpy as np
import pytest

from kloaders.formats.errors import DecodeError
from kloaders.formats.npy import read_array
from tests.support.images import npy_header


def test_known_header_short_body(tmp_path):
    """A file cut short behind a header met before is refused all the same."""
    np.save(tmp_path / "a.npy", np.ones((5, 7)))
    out = np.zeros((5, 7))
    read_array(str(tmp_path / "a.npy"), out)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-1])
    for target in (out, None):
        with pytest.raises(
            DecodeError, match=r"a.npy is truncated.*280 bytes, but only 279 follow"
        ):
            read_array(str(tmp_path / "a.npy"), target)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (npy_header(shape="(500000000000,)"), "truncated.*2000000000000 bytes, but only 96 follow"),
        (npy_header(shape="(0, 10000000000000000000000)"), "cannot be allocated"),
        (npy_header(shape="(-2, -3)"), "damaged .npy header"),
        (npy_header(descr="'|O'"), "never unpickled.*np.save"),
        (npy_header(descr="'<U4'"), "plain numbers"),
        (npy_header(descr="'<M8[s]'"), "plain numbers"),
        (npy_header(descr="'|V8'"), "plain numbers"),
        (npy_header(descr="[('x', '<f4'), ('y', 'O')]"), "never unpickled"),
        (npy_header(descr="[('x', '<f4')]"), "plain numbers"),
        (npy_header(descr="__import__('os').abort()"), "damaged .npy header"),
        (npy_header(descr="(" * 3000), "damaged .npy header"),
        (b"\x93NUMPY\7\1" + bytes(100), "version 7.1"),
        (b"\x93NUMPY\2\0\xff\xff\xff\x7f" + b" " * 20_000, "has a header of 2147483647 bytes"),
        (b"\x93NUMPY\1\0\x40", "truncated in its header"),
        (pickle.dumps([1, 2]), "is not an .npy file: it begins with"),
        (b"PK\3\4 and no more", "not a valid zip"),
    ],
)  # fmt: skip
def test_npy_refused(tmp_path, raw, words):
    """Objects, text, records, huge claims and nonsense: each is named, with what helps."""
    (tmp_path / "a.npy").write_bytes(raw + bytes(96) if raw.endswith(b"\n") else raw)
    with pytest.raises(DecodeError, match=r"a.npy.*" + words):
        read_array(str(tmp_path / "a.npy"))


def test_objects_are_not_unpickled(tmp_path):
    """A pickle in an array file is refused, and the advice in the message works."""
    np.save(tmp_path / "o.npy", np.array([1, 2, 3], dtype=object), allow_pickle=True)
    with pytest.raises(DecodeError, match=r"never unpickled.*np.asarray\(x, dtype=np.float32\)"):
        read_array(str(tmp_path / "o.npy"))
    np.save(tmp_path / "o.npy", np.asarray(np.array([1, 2, 3], dtype=object), dtype=np.float32))
    assert read_array(str(tmp_path / "o.npy")).tolist() == [1, 2, 3]
    np.savez(tmp_path / "o.npz", x=np.array([1], dtype=object))
    with pytest.raises(DecodeError, match=r"o.npz.*never unpickled"):
        read_array(str(tmp_path / "o.npz"))
