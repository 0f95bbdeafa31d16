"""Errors caused by the content of files."""

from __future__ import annotations

from kloaders.core.messages import visible

__all__ = ["DecodeError", "UnsupportedError", "empty_file", "truncated"]


class DecodeError(ValueError):
    """A file was read, but its content is damaged, truncated, too large or of the wrong kind."""

    def __str__(self) -> str:
        return visible(super().__str__())


class UnsupportedError(DecodeError):
    """A file that may be intact, but is of a variant that this package cannot read correctly."""


def truncated(name: str, what: str, raw: bytes) -> DecodeError:
    """The error for content that ends too early; `what` names its kind."""
    return DecodeError(
        f"{name} is truncated: {what}, after {len(raw)} bytes. "
        "Copy or download it again, or leave it out."
    )


def empty_file(name: str) -> DecodeError:
    """The error for a file of 0 bytes."""
    return DecodeError(f"{name} is empty (0 bytes). Copy or download it again, or leave it out.")
