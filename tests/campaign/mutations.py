"""Mutates bytes: bits, numbers near the limits of their type, cut, repeated or spliced parts, tokens."""

from __future__ import annotations

import re
import struct

INTERESTING = (0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1,
               2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
TOKENS = (b"0", b"-1", b"1e999", b"99999999999999999999", b"9223372036854775807", b"null", b"true",
          b"[]", b"{}", b'""', b'"../../secret.npy"', b'"/etc/passwd"', b'"x-00000.npy"', b"NaN",
          b'"\\u0000"', b'"O"', b'"|O8"', b"(1099511627776, 1099511627776)", b"(-1,)")  # fmt: skip


def mutated(rng, data, others=(), text=False):
    """Apply one to four mutations to `data`."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if not data:
            return bytes(rng.randbytes(rng.randrange(64)))
        rng.choice(_TEXT if text else _BINARY)(rng, data, others)
    return bytes(data)


def _flip(rng, data, others):
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _byte(rng, data, others):
    data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))


def _head(rng, data, others):
    """The same as _byte, near the start of the file, where headers are."""
    data[rng.randrange(min(len(data), 128))] = rng.randrange(256)


def _number(rng, data, others):
    form = rng.choice(["<B", "<H", ">H", "<I", ">I", "<Q", ">Q"])
    size = struct.calcsize(form)
    if len(data) >= size:
        at = rng.randrange(min(len(data) - size + 1, rng.choice((64, 512, len(data)))))
        value = rng.choice(INTERESTING) + rng.choice((0, 0, -1, 1))
        data[at : at + size] = struct.pack(form, value % 256**size)


def _cut(rng, data, others):
    del data[rng.randrange(len(data)) :]


def _remove(rng, data, others):
    at = rng.randrange(len(data))
    del data[at : at + rng.randrange(1, 1 + min(64, len(data)))]


def _repeat(rng, data, others):
    at = rng.randrange(len(data))
    part = bytes(data[at : at + rng.randrange(1, 65)])
    data[at:at] = part * rng.choice((1, 1, 2, 500))


def _noise(rng, data, others):
    at = rng.randrange(len(data))
    size = rng.randrange(1, 33)
    data[at : at + size] = rng.randbytes(size)


def _splice(rng, data, others):
    other = rng.choice(others) if others else bytes(data)
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other) + 1) :]


def _token(rng, data, others):
    found = list(re.finditer(rb'"[^"]*"|-?\d+|null|true|false|\[\]', bytes(data)))
    if found:
        one = rng.choice(found)
        data[one.start() : one.end()] = rng.choice((*TOKENS, rng.choice(found)[0]))


def _drop_line(rng, data, others):
    lines = bytes(data).splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    data[:] = b"".join(lines)


def _swap_lines(rng, data, others):
    lines = bytes(data).splitlines(keepends=True)
    rng.shuffle(lines)
    data[:] = b"".join(lines)


_BINARY = (_flip, _byte, _head, _head, _number, _number, _cut, _remove, _repeat, _noise, _splice)
_TEXT = (*[_token] * 8, _drop_line, _swap_lines, *_BINARY)
