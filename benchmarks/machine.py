"""Describes the machine on which figures are measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = (
    "kloaders",
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "torch",
    "jax",
    "grain",
    "numpy",
    "opencv-python-headless",
    "simplejpeg",
    "pillow",
)


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "versions": versions,
        "commit": _commit(),
    }


def in_words() -> str:
    """One line of text, to print below a table."""
    about = describe()
    versions = about["versions"]
    shown = ", ".join(f"{name} {versions[name]}" for name in versions)
    return (
        f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB; "
        f"Python {about['python']}, {shown}; backend {about['backend']}"
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()
