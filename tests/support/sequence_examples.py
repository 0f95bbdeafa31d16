"""SequenceExamples and lists of Examples in bytes, for tests without TensorFlow."""

import numpy as np

from kloaders.formats.tfrecord.examples import encode_example


def block(number, content):
    """A field of protobuf that has a length."""
    size, out = len(content), bytearray([number << 3 | 2])
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size]) + content


def sequence_example(context, lists):
    """context: as in `encode_example`. lists: for each name the values of each step; None: no kind."""
    entries = b""
    for name, steps in lists.items():
        content = b"".join(block(1, b"" if v is None else _feature(v)) for v in steps)
        entries += block(1, block(1, name.encode()) + block(2, content))
    return encode_example(context) + block(2, entries)


def _feature(value):
    values = value if isinstance(value, list) else [value]
    if isinstance(values[0], bytes):
        return block(1, b"".join(block(1, v) for v in values))
    if isinstance(values[0], float):
        return block(2, block(1, np.array(values, "<f4").tobytes()))
    assert all(0 <= v < 128 for v in values)
    return block(3, block(1, bytes(values)))


def list_with_context(context, examples):
    """An ExampleListWithContext of TF-Ranking."""
    return b"".join(block(1, encode_example(e)) for e in examples) + block(
        2, encode_example(context)
    )
