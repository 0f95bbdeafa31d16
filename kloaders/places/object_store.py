"""Buckets and web servers, accessed with obstore: S3 and compatible stores, GCS, Azure, HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from kloaders.places.errors import PlaceError, failure_of
from kloaders.places.place import PART_BYTES, Entry
from kloaders.places.settings import Storage
from kloaders.places.urls import Url

__all__ = ["ObjectStore"]

# A request without any answer for this many seconds is tried again.
_TIMEOUT, _CONNECT_TIMEOUT = "60s", "10s"
# An object may have 10,000 parts, so large objects get larger ones. This many are sent at a time.
_PARTS, _PARTS_AT_A_TIME = 9_000, 4
# The client repeats single parts of a large file, rather than the whole file.
_TRIES = 10

# The process that created the client, whose threads do not survive a fork.
_used_by: int | None = None


def _use() -> None:
    global _used_by  # noqa: PLW0603  one per process
    _used_by = os.getpid()


class ObjectStore:
    """A bucket, or a web server."""

    def __init__(self, url: Url, storage: Storage) -> None:
        try:
            import obstore
        except ImportError:
            raise ImportError(
                f'{url.place} needs obstore, which is not installed: pip install "kloaders[cloud]".'
            ) from None
        if _used_by not in (None, os.getpid()):
            raise PlaceError(
                f"{url.place} cannot be read in a process that was forked from one that has accessed "
                "an object store: its client would wait forever. Use the loader's threads, or "
                'processes=True, or multiprocessing.get_context("spawn").'
            )
        _use()
        self.url, self.patience = url.place, storage.patience
        self._obstore: Any = obstore
        try:
            self._store = _store(url, storage)
            # `access` counts the tries and sees the error of each, except for parts of a file.
            patience = timedelta(seconds=storage.patience)
            retries = {"max_retries": _TRIES, "retry_timeout": patience}
            self._patient = _store(url, storage, retries)
        except obstore.exceptions.BaseError as error:
            # The first line names the setting; the following lines may contain its value.
            raise ValueError(
                f"{url.place} cannot be reached with these settings ({type(error).__name__}): see "
                "kloaders.storage(...) and the environment variables of this kind of store."
            ) from None

    def _failure(self, error: BaseException, name: str, writing: bool = False) -> Exception:
        return failure_of(error, f"{self.url}/{name}", self.url, writing)

    def list(self, prefix: str) -> Iterator[Entry]:
        if self.url.startswith(("https://", "http://")):
            raise ValueError(
                f"{self.url} is a web server, which cannot be listed: pass the URLs of its files, "
                "paths=[...], or use the s3://, gs:// or az:// URL of the bucket behind it."
            )
        try:
            for chunk in self._obstore.list(self._store, prefix=prefix or None, chunk_size=1000):
                for meta in chunk:
                    yield _entry(meta)
        except Exception as error:
            raise self._failure(error, prefix) from None

    def head(self, name: str) -> Entry:
        try:
            return _entry(self._obstore.head(self._store, name))
        except Exception as error:
            raise self._failure(error, name) from None

    def read(self, name: str, etag: str = "") -> tuple[bytes, str]:
        return self._read(name, {"if_match": etag} if etag else {})

    def read_range(self, name: str, start: int, stop: int, etag: str = "") -> bytes:
        options: dict[str, Any] = {"range": (start, stop)}
        return self._read(name, options | ({"if_match": etag} if etag else {}))[0]

    def _read(self, name: str, options: dict[str, Any]) -> tuple[bytes, str]:
        try:
            got = self._obstore.get(self._store, name, options=options or None)
            return bytes(got.bytes()), got.meta["e_tag"] or ""
        except Exception as error:
            raise self._failure(error, name) from None

    def delete(self, name: str) -> None:
        try:
            self._obstore.delete(self._store, name)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._failure(error, name, writing=True) from None

    def inside(self, prefix: str) -> Iterator[Entry]:
        try:
            found = self._obstore.list_with_delimiter(self._store, prefix=prefix or None)
        except Exception as error:
            raise self._failure(error, prefix) from None
        yield from map(_entry, found["objects"])

    def put(
        self, name: str, parts: Sequence[bytes], only_if_absent: bool = False, etag: str = ""
    ) -> None:
        mode: Any = "create" if only_if_absent else "overwrite"
        if etag:
            mode = {"e_tag": etag}
        multipart = mode == "overwrite" and sum(map(len, parts)) > PART_BYTES
        more = {"chunk_size": PART_BYTES} if multipart else {}
        content = iter(parts) if multipart else b"".join(parts)
        try:
            self._obstore.put(
                self._store,
                name,
                content,
                use_multipart=multipart,
                **more,
                **({} if multipart else {"mode": mode}),
            )
        except self._obstore.exceptions.AlreadyExistsError:
            raise FileExistsError(f"{self.url}/{name} already exists.") from None
        except Exception as error:
            raise self._failure(error, name, writing=True) from None

    def put_file(self, name: str, path: str) -> None:
        size = os.path.getsize(path)
        try:
            self._obstore.put(
                self._patient,
                name,
                Path(path),
                use_multipart=size > PART_BYTES,
                chunk_size=max(PART_BYTES, size // _PARTS),
                max_concurrency=_PARTS_AT_A_TIME,
            )
        except Exception as error:
            raise self._failure(error, name, writing=True) from None


def _entry(meta: Any) -> Entry:
    return Entry(meta["path"], meta["size"], meta["e_tag"] or "")


def _store(url: Url, storage: Storage, retries: dict[str, Any] | None = None) -> Any:
    from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

    client: dict[str, Any] = {"timeout": _TIMEOUT, "connect_timeout": _CONNECT_TIMEOUT}
    if storage.allow_http or url.scheme == "http":
        client["allow_http"] = True
    client |= storage.options.get("client_options", {})
    retries = {"max_retries": 0} if retries is None else retries
    common: dict[str, Any] = {"client_options": client, "retry_config": retries}
    if url.scheme in ("https", "http"):
        return HTTPStore.from_url(url.place, **common)
    more = {key: value for key, value in storage.options.items() if key != "client_options"}
    given: dict[str, Any] = {"endpoint": storage.endpoint, "skip_signature": storage.anonymous}
    if url.scheme == "s3":
        given |= {
            "region": storage.region,
            "access_key_id": storage.access_key,
            "secret_access_key": storage.secret_key,
            "session_token": storage.session_token,
        }
        kind: Any = S3Store
    elif url.scheme == "az":
        given["account_key"] = storage.access_key
        kind = AzureStore
    else:
        given["base_url"] = given.pop("endpoint")
        kind = GCSStore
    given = {key: value for key, value in given.items() if value}
    return kind(url.root, **common, **given, **more)
