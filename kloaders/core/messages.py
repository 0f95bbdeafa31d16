"""What loaders log, under the name "kloaders": WARNING for what costs data or time, INFO for the rest.

No handler is installed: an application decides what it shows, and without any Python itself writes
warnings to stderr.
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
    _log.log(level, "%s", visible(message, lines=True))


def shortened(text: str, length: int) -> str:
    """A text shortened to this many characters: its beginning and its end.

    >>> shortened("abcdefghijklmnop", 10)
    'abcde...op'
    """
    if len(text) <= length:
        return text
    end = (length - 3) // 3
    return f"{text[: length - 3 - end]}...{text[len(text) - end :]}"


def visible(text: object, lines: bool = False) -> str:
    r"""A text with what is not printable as escapes: names of files and classes may hold anything.

    A terminal obeys escape sequences, a log has lines, and marks of the writing direction put letters
    elsewhere. lines: newlines and tabs stay, in what is more than a name. A name is cut at 1,000 characters,
    which only the content of a file in the place of its name has.

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
    """Write all messages to stderr, for a command; an application that set up logging keeps its way."""
    if _log.handlers or logging.getLogger().handlers:
        return
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("kloaders: %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Follows sys.stderr, which tests of commands replace."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)
