"""Errors of remote storage ("places"), and what each means for a sample.

No message repeats the text of a server or client about a request, because it may contain keys.
"""

from __future__ import annotations

import re

from kloaders.core.errors import Recovery, with_recovery

__all__ = [
    "AccessError",
    "BrokenTransferError",
    "ChangedError",
    "OutageError",
    "PlaceError",
    "TransientError",
    "failure_of",
]


class PlaceError(OSError):
    """The remote storage, or the way it is accessed, is at fault, rather than a single sample.

    It is raised immediately, whatever `on_error` is.
    """

    recovery: Recovery | None = Recovery.REFUSED


class AccessError(PlaceError):
    """The storage refuses the request because of credentials, permissions, or the region."""


class OutageError(PlaceError):
    """The storage did not answer for `patience` seconds."""


class ChangedError(OSError):
    """An object has changed since it was listed."""

    recovery: Recovery | None = None


class BrokenTransferError(OSError):
    """An object never arrives completely, although the storage answers."""

    recovery: Recovery | None = None


class TransientError(Exception):
    """A request failed, but may succeed when it is repeated.

    Attributes:
        throttled: the storage asks for fewer requests.
        transfer: the transfer had begun.
    """

    def __init__(self, said: str, throttled: bool = False, transfer: bool = False) -> None:
        super().__init__(said)
        self.throttled, self.transfer = throttled, transfer


_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>|\"(?:code|reason)\": *\"(\w+)\"")
_REGION = re.compile(r"<Region>([\w-]+)</Region>|expecting '([\w-]+)'")
_READING = (
    "Reading needs permission to get objects, and to list the bucket: without the latter, an object that "
    "does not exist is refused as well."
)
_WRITING = "Writing needs permission to put, get and delete objects, and to list the bucket."
_REGIONS = (
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "IllegalLocationConstraintException",
)


def failure_of(error: BaseException, url: str, place: str, writing: bool = False) -> Exception:
    """Translate a client's error into an error of this package, to be raised `from None`.

    Args:
        error: obstore's error.
        url: the requested URL.
        place: its bucket or server.
        writing: whether the request was to write or delete the object.
    """
    text = str(error)
    found, code = _STATUS.search(text), _CODE.search(text)
    status = int(found[1]) if found else 0
    reason = (code[1] or code[2]) if code else ""
    kind = type(error).__name__
    scheme = place.partition("://")[0]
    said = f"{status} {reason}".strip() if status else kind
    if reason in ("NoSuchBucket", "ContainerNotFound"):
        return AccessError(f"{place} does not exist ({said}): check the name of the bucket.")
    if isinstance(error, FileNotFoundError) or status == 404:
        return with_recovery(FileNotFoundError(f"{url} does not exist"), None)
    if status == 412 or kind == "PreconditionError":
        return ChangedError(
            f"another program writes {url} at the same time."
            if writing
            else f"{url} has changed since it was listed: make a new loader, to train on what is there "
            "now."
        )
    if reason in _REGIONS or "incorrectly configured region" in text or status in (301, 307):
        named = _REGION.search(text)
        region = (named[1] or named[2]) if named else "the region of the bucket"
        return AccessError(
            f"{place} was accessed in the wrong region: kloaders.storage({scheme!r:.80}, region="
            f'"{region}"), or AWS_DEFAULT_REGION in the environment.'
            if named
            else f"{place} was accessed in the wrong region ({said}): pass the bucket's region with "
            f"kloaders.storage({scheme!r:.80}, region=...), or set AWS_DEFAULT_REGION."
        )
    if "Expired" in reason or reason == "InvalidToken":
        return AccessError(
            f"the credentials for {place} have expired ({said}): log in again, or pass new ones with "
            f"kloaders.storage({scheme!r:.80}, ...), and resume."
        )
    if "169.254.169.254" in text or "metadata.google.internal" in text:
        return AccessError(
            f"no credentials were found for {place}. {_how(scheme)} For a public bucket call "
            f"kloaders.storage({scheme!r:.80}, anonymous=True)."
        )
    if status in (401, 403) or kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return AccessError(
            f"{place} refuses access to {url} ({said}). {_how(scheme)} {_WRITING if writing else _READING}"
        )
    if status == 400 and not reason:  # the answer to a HEAD request has no text
        return AccessError(
            f"{place} refuses a HEAD request for {url} (400), which happens in the wrong region and with "
            f"expired credentials. {_how(scheme)}"
        )
    if status in (408, 425, 429, 500, 502, 503, 504) or reason in ("SlowDown", "RequestTimeout"):
        return TransientError(said, status in (429, 503) or reason == "SlowDown")
    if "RangeNotSupported" in text or "NotPartial" in text:
        return PlaceError(
            f"{place} returned all of {url} when a part of it was requested: copy the file to a disk, or to "
            "a server that supports range requests."
        )
    if status or kind in ("NotSupportedError", "NotImplementedError", "InvalidPathError"):
        return PlaceError(f"{place} does not answer a request for {url} ({said}).")
    body = "body error" in text or "Error decoding" in text or "end of file" in text
    return TransientError("the transfer broke off" if body else "no connection", transfer=body)


def _how(scheme: str) -> str:
    """Where credentials come from."""
    return {
        "s3": "Credentials come from kloaders.storage('s3', access_key=..., secret_key=...), from "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from ~/.aws/credentials.",
        "gs": "Credentials come from GOOGLE_APPLICATION_CREDENTIALS, or from `gcloud auth "
        "application-default login`.",
        "az": "Credentials come from kloaders.storage('az', access_key=..., account_name=...), or from "
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY.",
    }.get(scheme, f"Credentials come from kloaders.storage({scheme!r}, ...).")
