"""Which compression a file's first bytes tell of."""

import bz2
import gzip
import lzma

from kloaders.formats.compressed import compression_of


def test_what_compressed_a_file():
    assert compression_of(gzip.compress(b"a")) == "gzip"
    assert compression_of(bz2.compress(b"a")) == "bzip2"
    assert compression_of(lzma.compress(b"a")) == "xz"
    assert compression_of(b"plain text") is None
    assert compression_of(b"") is None
