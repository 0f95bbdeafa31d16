"""Other file systems, accessed with fsspec: hf://, hdfs://, sftp:// and all others that it supports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kloaders.places.errors import AccessError, TransientError
from kloaders.places.place import Entry
from kloaders.places.settings import Storage
from kloaders.places.urls import Url

__all__ = ["FileSystem"]


class FileSystem:
    """All files of one fsspec file system below the first part of a URL.

    A read cannot depend on an ETag: a file that changes after it was listed is read in its new state.
    """

    def __init__(self, url: Url, storage: Storage) -> None:
        self.url, self.patience = url.place, storage.patience
        try:
            import fsspec
        except ImportError:
            raise ImportError(
                f"{url.scheme}:// needs fsspec, which is not installed: pip install fsspec, and "
                "the package for this scheme (hf://: pip install huggingface_hub)."
            ) from None
        try:
            self._files: Any = fsspec.filesystem(url.scheme, **storage.options)
        except ImportError as error:
            raise ImportError(f"{url.scheme}:// is accessed with fsspec: {error}.") from None
        except ValueError:
            raise ValueError(
                f"{url.scheme}:// is not a known scheme: it is neither s3, gs, az, https or http, nor "
                "supported by fsspec here (fsspec.available_protocols())."
            ) from None

    def _path(self, name: str) -> str:
        return str(self._files._strip_protocol(f"{self.url}/{name}"))  # noqa: SLF001  used by fsspec itself

    def _failure(self, error: Exception, name: str) -> Exception:
        url = f"{self.url}/{name}"
        if isinstance(error, FileExistsError):
            return FileExistsError(f"{url} already exists.")
        if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
            found = FileNotFoundError(f"{url} does not exist")
            found.recovery = None  # type: ignore[attr-defined]  # read by core.errors
            return found
        if isinstance(error, PermissionError):
            return AccessError(
                f"{self.url} refuses access to {url}: kloaders.storage(...) passes options to fsspec."
            )
        if isinstance(error, (OSError, EOFError, TimeoutError)):
            return TransientError(type(error).__name__)
        return error

    def list(self, prefix: str) -> Iterator[Entry]:
        root = self._path("").rstrip("/")
        try:
            # Bypass fsspec's caches.
            self._files.invalidate_cache()
            found = self._files.find(self._path(prefix), detail=True)
        except Exception as error:
            raise self._failure(error, prefix) from None
        for path, about in found.items():
            yield self._entry(str(path)[len(root) :].lstrip("/") if root else str(path), about)

    def _entry(self, name: str, about: Any) -> Entry:
        etag = next(
            (about[key] for key in ("ETag", "etag", "blob_id", "mtime") if about.get(key)), ""
        )
        return Entry(name, int(about.get("size") or 0), str(etag))

    def head(self, name: str) -> Entry:
        try:
            return self._entry(name, self._files.info(self._path(name)))
        except Exception as error:
            raise self._failure(error, name) from None

    def read(self, name: str, etag: str = "") -> tuple[bytes, str]:
        try:
            return bytes(self._files.cat_file(self._path(name))), etag
        except Exception as error:
            raise self._failure(error, name) from None

    def read_range(self, name: str, start: int, stop: int, etag: str = "") -> bytes:
        try:
            return bytes(self._files.cat_file(self._path(name), start=start, end=stop))
        except Exception as error:
            raise self._failure(error, name) from None

    def delete(self, name: str) -> None:
        try:
            self._files.rm_file(self._path(name))
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._failure(error, name) from None

    def inside(self, prefix: str) -> Iterator[Entry]:
        root = self._path("").rstrip("/")
        try:
            self._files.invalidate_cache()
            found = self._files.ls(self._path(prefix), detail=True)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._failure(error, prefix) from None
        for about in found:
            if about.get("type") == "file":
                path = str(about["name"])
                yield self._entry(path[len(root) :].lstrip("/") if root else path, about)

    def put(
        self, name: str, parts: Sequence[bytes], only_if_absent: bool = False, etag: str = ""
    ) -> None:
        try:
            if only_if_absent and self._files.exists(self._path(name)):
                raise FileExistsError
            self._placed(name, lambda path: self._files.pipe_file(path, b"".join(parts)))
        except Exception as error:
            raise self._failure(error, name) from None
        # File systems do not report whether the file still had this ETag.

    def put_file(self, name: str, path: str) -> None:
        try:
            self._placed(name, lambda part: self._files.put_file(path, part))
        except Exception as error:
            raise self._failure(error, name) from None

    def _placed(self, name: str, write: Callable[[str], Any]) -> None:
        """Write under another name, then rename: not all file systems write atomically."""
        path = self._path(name)
        folder, _, last = path.rpartition("/")
        part = f"{folder}/.{last}.part" if folder else f".{last}.part"
        try:
            write(part)
        except FileNotFoundError:
            self._files.makedirs(folder, exist_ok=True)
            write(part)
        self._files.mv(part, path)
