"""What loaders log, under the name "kloaders": WARNING for what costs data or time, INFO for the rest.

No handler is installed: an application decides what it shows, and without any Python itself writes
warnings to stderr.
"""

from __future__ import annotations

import logging
import sys
import threading

__all__ = ["inform", "show_messages", "warn"]

_log = logging.getLogger("kloaders")
_logged: set[str] = set()
_lock = threading.Lock()


def warn(message: str, once: str | None = None) -> None:
    """Log at level WARNING: data are left out or changed, or time is lost.

    Args:
        message: one or more sentences, with what can be done about it.
        once: a key; a message of this key is logged one time in the life of the process.
    """
    _log_at(logging.WARNING, message, once)


def inform(message: str, once: str | None = None) -> None:
    """Log at level INFO: what was found, chosen or resumed; see `warn`."""
    _log_at(logging.INFO, message, once)


def _log_at(level: int, message: str, once: str | None) -> None:
    if once is not None:
        with _lock:
            if once in _logged:
                return
            _logged.add(once)
    _log.log(level, "%s", message)


def show_messages() -> None:
    """Write all messages to stderr, for a command; an application that set up logging keeps its way."""
    if _log.handlers or logging.getLogger().handlers:
        return
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("kloaders: %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Follows sys.stderr, which tests of commands replace."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)
