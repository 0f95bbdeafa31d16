"""The origin of a module: this package, a library with a version, or the user."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

__all__ = ["is_ours", "library_name", "module_of", "version_of"]

_OURS = __name__.partition(".")[0]


def is_ours(module: Any) -> bool:
    """Whether this is the name of one of this package's modules."""
    return isinstance(module, str) and (module == _OURS or module.startswith(f"{_OURS}."))


def version_of(module: Any) -> str | None:
    """The version of the library that contains the module of this name; None for the user's modules.

    Modules of Python's library have the version of Python. A package installed without a version may be
    anything, and so counts as the user's; so does an editable install.
    """
    return _version_of(module.partition(".")[0]) if isinstance(module, str) else None


@functools.lru_cache(maxsize=256)
def _version_of(top: str) -> str | None:
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return "{}.{}".format(*sys.version_info)
    module = sys.modules.get(top)
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    parts = {part for place in places if place for part in os.path.normpath(place).split(os.sep)}
    if not parts & {"site-packages", "dist-packages"}:
        return None
    version = getattr(module, "__version__", None)
    if isinstance(version, str):
        return version
    try:
        return importlib.metadata.version(top)
    except Exception:  # not an installed distribution, or one without a version
        return None


def library_name(value: Any) -> str | None:
    """The qualified name and version under which a library has this object; None if none does."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str) or is_ours(module):
        return None
    version = version_of(module)
    if version is None:
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}.{name} {version}" if found is value else None


def module_of(name: str, level: int, inside: dict[str, Any]) -> ModuleType:
    """Return what `import name` returns in a module with these globals; `level` counts leading dots.

    Raises:
        ImportError, or whatever the module raises when it is imported.
    """
    if level:
        package = inside.get("__package__") or str(inside.get("__name__", "")).rpartition(".")[0]
        name = importlib.util.resolve_name("." * level + name, package)
    return importlib.import_module(name)
