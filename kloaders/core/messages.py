"""The logger "kloaders": WARNING for what costs data or time, INFO for everything else.

The package installs no handler: the application decides what to show. Without any handler, Python
writes warnings to stderr.
"""

from __future__ import annotations

import logging
import sys
import threading

__all__ = ["inform", "shortened", "show_messages", "visible", "warn"]

_log = logging.getLogger("kloaders")
_logged: set[str] = set()
_lock = threading.Lock()
_NAME_LENGTH = 1000


def warn(message: str, once: str | None = None) -> None:
    """Log at level WARNING: samples are left out or changed, or time is lost.

    Args:
        message: one or more sentences, with advice.
        once: a key; messages with the same key are logged only once per process.
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
    _log.log(level, "%s", visible(message, lines=True))


def shortened(text: str, length: int) -> str:
    """A text shortened to `length` characters: its beginning and its end.

    >>> shortened("abcdefghijklmnop", 10)
    'abcde...op'
    """
    if len(text) <= length:
        return text
    end = (length - 3) // 3
    return f"{text[: length - 3 - end]}...{text[len(text) - end :]}"


def visible(text: object, lines: bool = False) -> str:
    r"""A text with unprintable characters escaped: names of files and classes may contain anything.

    A terminal interprets escape sequences, a newline would split a log entry, and direction marks reorder
    letters. lines: keep newlines and tabs, for texts other than names. A name is cut at 1,000 characters;
    a longer one is usually the content of a file, passed in place of its name.

    >>> print(visible("cat" + chr(27) + "[2J"))
    cat\x1b[2J
    """
    found = str(text) if lines else shortened(str(text), _NAME_LENGTH)
    if found.isprintable():
        return found
    found = "".join(
        c if c.isprintable() or (lines and c in "\n\t") else c.encode("unicode_escape").decode()
        for c in found
    )
    return found if lines else shortened(found, _NAME_LENGTH)


def show_messages() -> None:
    """Write all messages to stderr, for a command. An application's own logging set-up stays in use."""
    if _log.handlers or logging.getLogger().handlers:
        return
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("kloaders: %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Follows sys.stderr, which tests of the commands replace."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)
