"""A list of samples that failed to load, as a remote object. Its lines are those of `quarantine`."""

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

# The number of attempts when other writers are faster, and the maximum wait before each.
_TRIES, _LONGEST_WAIT = 50, 0.5


def quarantine_at(path: Any) -> AnyQuarantine:
    """The list at a path or URL, created if missing; raises OSError or ValueError like `Quarantine`."""
    return RemoteQuarantine(path) if is_url(path) else Quarantine(path)


class RemoteQuarantine:
    """A remote object to which several threads, processes and machines add lines.

    The object is read and then replaced on the condition that it has not changed meanwhile (If-Match).
    Thus no writer's lines are lost, and a killed writer changes nothing. fsspec has no such condition:
    with two simultaneous writers, the last one wins. Only the URL is pickled.
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
        """Append the errors that are new, each (name, error); return their number."""
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
            f"other writers changed {self.path} {_TRIES} times while a line was added."
        )

    def _now(self) -> tuple[bytes | None, str]:
        """The content, None if the object does not exist, and its ETag."""
        try:
            return access.read_with_etag(self.path)
        except FileNotFoundError:
            return None, ""


AnyQuarantine = Quarantine | RemoteQuarantine
