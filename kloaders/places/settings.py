"""Endpoints and credentials of remote storage, set by the program or the environment.

They are kept only in this process: no loader, pickle, state, log or message contains them. Worker
processes get them through their environment.
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

from kloaders.core.messages import visible
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

#: The environment variable that passes the arguments of `storage` to worker processes.
ENVIRONMENT = "KLOADERS_STORAGE"

#: By default, requests are retried for this many seconds while the storage does not answer.
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Storage:
    """Settings for one place; None uses the environment. Its text shows no credentials."""

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
        raise TypeError("settings of a place are never pickled, because they contain credentials.")


#: Arguments of `storage`, by scheme or bucket.
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
    """Set how URLs of one kind are accessed, in this process and its worker processes.

    Without it, credentials come from where the tools of each store find them: AWS_ACCESS_KEY_ID and
    similar variables or `~/.aws`, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME and
    similar ones. They are never written to pickles, states, logs or messages. A later call for the
    same place replaces an earlier one; existing loaders use it from then on.

    Args:
        place: a scheme, such as "s3", "gs", "az" or "https"; or one bucket, "s3://bucket", whose
            settings take precedence over those of its scheme.
        endpoint: the URL of a server with the same protocol, such as MinIO, Ceph or R2.
        region: the region of the buckets.
        access_key: the access key id; for "az" the account key.
        secret_key: the secret access key.
        session_token: the token of temporary credentials.
        anonymous: send no credentials, for public buckets.
        allow_http: allow an endpoint without encryption.
        patience: seconds for which requests are retried while the storage does not answer.
        **options: options of obstore's store of this kind, such as account_name="..." for "az"; or
            of the file system, for schemes that fsspec reads.

    Raises:
        TypeError, ValueError: place is not a scheme or bucket; patience is not a number above 0.
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
    """Register a function that is called after each call of `storage`."""
    _listeners.append(listener)


def storage_of(place: str) -> Storage:
    """The settings of a bucket or server.

    place: its URL without an object name, such as "s3://bucket".
    """
    scheme = place.partition("://")[0]
    _import()
    with _lock:
        found = given.get(place) or given.get(scheme) or Storage()
    return _with_aws_files(found) if scheme == "s3" else found


def exported() -> dict[str, str]:
    """Environment variables that a worker process needs in addition to those of this process."""
    with _lock:
        if not given:
            return {}
        found = {
            name: {key: getattr(one, key) for key in Storage.__dataclass_fields__}
            for name, one in given.items()
        }
    return {ENVIRONMENT: json.dumps(found, default=str)}


def _import() -> None:
    """Adopt the settings of the process that started this one."""
    text = os.environ.pop(ENVIRONMENT, "")
    if text:
        with _lock:
            for name, values in json.loads(text).items():
                given.setdefault(name, Storage(**values))


def _with_aws_files(found: Storage) -> Storage:
    """Add settings from `~/.aws` if neither the program nor the environment sets them."""
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
    """Raise ValueError for a budget without a folder, or a folder although no path is a URL.

    Args:
        folder: `download_cache=`, as the user passed it.
        budget: `download_budget=`, as the user passed it.
        remote: whether any path is a URL.
    """
    if folder is None and budget is not None:
        raise ValueError(
            f"download_budget={budget!r:.80} is the size of a download cache, but there is none: pass "
            "its folder, download_cache=..., or leave it out."
        )
    if folder is not None and not remote:
        raise ValueError(
            f"download_cache='{visible(folder)}' caches data fetched by URL, but no path here is a URL: leave "
            "it out. cache=<folder> caches decoded samples of local files."
        )
