"""The list of samples that do not load, as an object at a URL. Its lines are those of `quarantine`."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable
from typing import Any

from kloaders.core import forks
from kloaders.places import access
from kloaders.places.errors import ChangedError, PlaceError
from kloaders.places.urls import is_url, parsed
from kloaders.sources.quarantine import Quarantine, added_to

__all__ = ["AnyQuarantine", "RemoteQuarantine", "quarantine_at"]

# Number of lost races after which it gives up; maximum seconds to wait before each.
_TRIES, _LONGEST_WAIT = 50, 0.5


def quarantine_at(path: Any) -> AnyQuarantine:
    """The list at a path or URL, made if it is not there; OSError or ValueError as for `Quarantine`."""
    return RemoteQuarantine(path) if is_url(path) else Quarantine(path)


class RemoteQuarantine:
    """An object that several threads, processes and machines add lines to.

    It is read and rewritten, on the condition that it has not changed meanwhile (If-Match): no
    line of another writer is lost, and a killed one leaves it as it was. Through fsspec, which has no
    such condition, the last one of two writers at a time stays. Pickles as its URL.
    """

    def __init__(self, url: str) -> None:
        parsed(url)
        self.path = url
        self._set_up()
        self.add(())

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def _set_up(self) -> None:
        self.after_fork()
        forks.watch(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._set_up()

    def add(self, errors: Iterable[tuple[str, str]]) -> int:
        """Append those that are new, (name, error) each; how many there were."""
        errors = list(errors)
        with self._lock:
            for _ in range(_TRIES):
                before, etag = self._now()
                content, added = added_to(before or b"", errors, self.path)
                if content == before:
                    return 0
                try:
                    access.put(self.path, [content], only_if_absent=before is None, etag=etag)
                except (ChangedError, FileExistsError):
                    time.sleep(random.uniform(0, _LONGEST_WAIT))  # noqa: S311  jitter
                else:
                    return added
        raise PlaceError(
            f"{self.path} was written by somebody else {_TRIES} times while a line was added."
        )

    def _now(self) -> tuple[bytes | None, str]:
        """The content, None if there is none, and its ETag."""
        try:
            return access.read_with_etag(self.path)
        except FileNotFoundError:
            return None, ""


AnyQuarantine = Quarantine | RemoteQuarantine
