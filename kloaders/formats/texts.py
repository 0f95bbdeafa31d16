"""Decodes text files; each file is one str."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from kloaders.core.checks import checked_count
from kloaders.formats.errors import DecodeError

__all__ = ["Text"]


@dataclass(frozen=True)
class Text:
    """A decoder of text files for `decode=`: the content of a file is one sample, a str.

    `kl.from_directory("reviews")` uses it automatically if all files are .txt, and
    `kl.from_directory("reviews", decode=kl.Text(encoding="latin-1"))` loads the files with that
    suffix.

    Args:
        encoding: the encoding of the files; a name that Python knows, such as "utf-8", "utf-16" or
            "latin-1". A byte order mark at the start of UTF-8 is removed.
        max_length: characters; longer texts are cut at the end. None: no limit.

    Called with the bytes of a file, it returns a str; an empty file becomes "". Line ends are kept
    as they are. Thread-safe, and can be pickled.

    Raises:
        LookupError: the encoding is unknown.

    When called, it raises:
        DecodeError: the bytes are not text in this encoding; the message names the byte.
    """

    encoding: str = "utf-8"
    max_length: int | None = None

    #: The suffixes that from_directory loads with this decoder.
    suffixes = (".txt",)
    #: A file of 0 bytes is a valid text.
    takes_empty = True

    def __post_init__(self) -> None:
        try:
            name = codecs.lookup(self.encoding).name
            "".encode(name)  # fails for codecs that are not text encodings, such as base64
        except (LookupError, TypeError):
            raise LookupError(
                f'encoding={self.encoding!r:.80} is not known, expected a name such as "utf-8", "utf-16" '
                'or "latin-1".'
            ) from None
        if self.max_length is not None:
            object.__setattr__(self, "max_length", checked_count(self.max_length, "max_length", 1))

    def __call__(self, raw: bytes) -> str:
        utf8 = codecs.lookup(self.encoding).name == "utf-8"
        try:
            found = raw.decode("utf-8-sig" if utf8 else self.encoding)
        except UnicodeError as error:
            at = getattr(error, "start", 0)
            raise DecodeError(
                f"it is not text in {self.encoding}: byte {at:,} of {len(raw):,} is {raw[at : at + 4]!r:.80} "
                f"({getattr(error, 'reason', error)}). Pass the file's encoding, such as "
                'decode=kl.Text(encoding="latin-1"), or save it as UTF-8.'
            ) from None
        return found if self.max_length is None else found[: self.max_length]
