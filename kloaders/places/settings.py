"""How places are reached: endpoints and credentials that a program gives, or finds on its machine.

They are kept in this process only: no loader, pickle, state, log or message has them. Worker processes
get them with their environment.
"""

from __future__ import annotations

import configparser
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kloaders.places.urls import is_url, parsed

__all__ = [
    "ENVIRONMENT",
    "Storage",
    "check_download_cache",
    "exported",
    "given",
    "on_change",
    "storage",
    "storage_of",
]

#: The environment variable by which worker processes get what `storage` was called with.
ENVIRONMENT = "KLOADERS_STORAGE"

#: How long a place that does not answer is asked again and again.
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Storage:
    """How a place is reached; None leaves it to the environment. Its text shows no credentials."""

    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    anonymous: bool = False
    allow_http: bool = False
    patience: float = PATIENCE_SECONDS
    options: dict[str, Any] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> Any:
        raise TypeError("how a place is reached is never pickled: it holds credentials.")


#: What `storage` was called with, by scheme or bucket.
given: dict[str, Storage] = {}
_listeners: list[Callable[[], None]] = []
_lock = threading.Lock()


def storage(
    place: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    session_token: str | None = None,
    anonymous: bool = False,
    allow_http: bool = False,
    patience: float = PATIENCE_SECONDS,
    **options: Any,
) -> None:
    """Set how URLs of one kind are reached, in this process and its worker processes.

    Without it, credentials come from where each store's own tools have them: AWS_ACCESS_KEY_ID and its
    like or `~/.aws`, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME and its like. Nothing
    of it is written to pickles, states, logs or messages. A later call replaces an earlier one for the
    same place; loaders that exist go on with it.

    Args:
        place: a scheme, such as "s3", "gs", "az" or "https"; or one bucket, "s3://bucket", whose
            settings then count in place of those of its scheme.
        endpoint: the URL of a server that speaks the same protocol, such as MinIO, Ceph or R2.
        region: of the buckets.
        access_key: the name of a key; for "az" the key of the account.
        secret_key: what is secret of it.
        session_token: of credentials that expire.
        anonymous: send no credentials, for public buckets.
        allow_http: allow an endpoint without encryption.
        patience: for how many seconds a place that does not answer is asked again and again.
        **options: of obstore's store of this kind, such as account_name="..." for "az"; for schemes
            that fsspec reads, of its file system.

    Raises:
        TypeError, ValueError: place is no scheme or bucket; patience is no number above 0.
    """
    if not isinstance(place, str) or not place:
        raise TypeError(f'place={place!r:.80}, expected a scheme such as "s3", or "s3://bucket".')
    name = parsed(place).place if is_url(place) else place.removesuffix("://").lower()
    if is_url(place) and parsed(place).name:
        raise ValueError(f"place={place!r:.80} names an object, expected {name!r:.80}.")
    if isinstance(patience, bool) or not isinstance(patience, (int, float)) or not patience > 0:
        raise ValueError(f"patience={patience!r:.80}, expected seconds above 0, such as 600.")
    found = Storage(
        endpoint,
        region,
        access_key,
        secret_key,
        session_token,
        bool(anonymous),
        bool(allow_http),
        float(patience),
        options,
    )
    with _lock:
        given[name] = found
    for listener in _listeners:
        listener()


def on_change(listener: Callable[[], None]) -> None:
    """Have a function called after each call of `storage`."""
    _listeners.append(listener)


def storage_of(place: str) -> Storage:
    """How a bucket or server is reached.

    place: its URL without a name, such as "s3://bucket".
    """
    scheme = place.partition("://")[0]
    _import()
    with _lock:
        found = given.get(place) or given.get(scheme) or Storage()
    return _with_aws_files(found) if scheme == "s3" else found


def exported() -> dict[str, str]:
    """What the environment of a worker process needs beside that of this process."""
    with _lock:
        if not given:
            return {}
        found = {
            name: {key: getattr(one, key) for key in Storage.__dataclass_fields__}
            for name, one in given.items()
        }
    return {ENVIRONMENT: json.dumps(found, default=str)}


def _import() -> None:
    """Take over what the process that started this one was given."""
    text = os.environ.pop(ENVIRONMENT, "")
    if text:
        with _lock:
            for name, values in json.loads(text).items():
                given.setdefault(name, Storage(**values))


def _with_aws_files(found: Storage) -> Storage:
    """With what `~/.aws` has, where neither the program nor the environment says it."""
    if found.anonymous or found.access_key or os.environ.get("AWS_ACCESS_KEY_ID"):
        return found
    profile = os.environ.get("AWS_PROFILE", "default")
    folder = Path.home() / ".aws"
    values: dict[str, str] = {}
    for variable, name, section in (
        ("AWS_CONFIG_FILE", "config", profile if profile == "default" else f"profile {profile}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile),
    ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(os.environ.get(variable) or folder / name, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        if parser.has_section(section):
            values |= dict(parser.items(section))
    return Storage(
        found.endpoint or values.get("endpoint_url"),
        found.region
        or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or values.get("region"),
        values.get("aws_access_key_id"),
        values.get("aws_secret_access_key"),
        values.get("aws_session_token"),
        found.anonymous,
        found.allow_http,
        found.patience,
        found.options,
    )


def check_download_cache(folder: Any, budget: Any, remote: bool) -> None:
    """ValueError for a budget without a folder, or a folder where nothing is fetched.

    Args:
        folder: `download_cache=`, as the user gave it.
        budget: `download_budget=`, as the user gave it.
        remote: whether any path is a URL.
    """
    if folder is None and budget is not None:
        raise ValueError(
            f"download_budget={budget!r:.80} is the size of a download cache, and there is none: give "
            "its folder, download_cache=..., or leave it out."
        )
    if folder is not None and not remote:
        raise ValueError(
            f"download_cache={folder!r:.80} keeps what is fetched by URL, and no path here is one: leave "
            "it out. cache=<folder> keeps decoded samples of local files."
        )
