"""What a loader says once, on the log named "kloaders"."""

from __future__ import annotations

import logging
import sys
import threading

__all__ = ["say"]

_log = logging.getLogger("kloaders")
_said: set[str] = set()
_lock = threading.Lock()


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Follows sys.stderr, which notebooks and tests replace."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def say(message: str, once: str | None = None) -> None:
    """Log at level INFO, to stderr unless the application has set up logging itself.

    once: a key; a message of that key is said one time in the life of the process.
    `logging.getLogger("kloaders").setLevel("WARNING")` silences these messages.
    """
    if once is not None:
        with _lock:
            if once in _said:
                return
            _said.add(once)
    if not _log.handlers and not logging.getLogger().handlers:
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("kloaders: %(message)s"))
        _log.addHandler(handler)
        if _log.level == logging.NOTSET:
            _log.setLevel(logging.INFO)
    _log.info(message)
