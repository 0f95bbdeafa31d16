"""The result of `verify`: findings by kind, as lines, JSON or a CSV file."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone

from kloaders.core.messages import warn
from kloaders.core.notebooks import sentence_and_table
from kloaders.core.version import __version__
from kloaders.formats.atomic import whole_file
from kloaders.sources import quarantine

__all__ = ["ERRORS", "WARNINGS", "Finding", "Report", "lines_of", "summary"]

# Kinds of findings, the worst first. Errors: files that fail to load or have a wrong suffix. Warnings:
# files that load and may be intended.
ERRORS = (
    *("unreadable", "empty", "truncated", "broken", "unsupported", "too many pixels", "misnamed"),
)
WARNINGS = ("conflicting labels", "duplicate", "inconsistent")


@dataclass(frozen=True)
class Finding:
    """One finding: the file or record, the kind (see `Report`), and a text."""

    path: str
    kind: str
    message: str

    @property
    def is_error(self) -> bool:
        """Whether it would break training or another reader."""
        return self.kind in ERRORS


@dataclass
class Report:
    """The result of `verify`.

    Kinds of errors: "unreadable" (missing, or permission denied), "empty", "truncated", "broken",
    "unsupported" (a variant of a format that kloaders does not read; the file may be valid), "too many
    pixels" (more than max_pixels), "misnamed" (PNG bytes in a .jpg). Kinds of warnings: "conflicting
    labels" (the same content with two labels), "duplicate" (the same content again), "inconsistent"
    (another shape or dtype than nearly all others).

    Attributes:
        source: the sources that were verified, as text.
        files: the number of files or records that were read.
        findings: all findings, the worst kinds first.
        left_out: the number of files in folders that have an unsupported suffix.
        seconds: the duration.
    """

    source: str
    files: int = 0
    findings: list[Finding] = field(default_factory=list)
    left_out: int = 0
    seconds: float = 0.0

    @property
    def errors(self) -> list[Finding]:
        """Findings that would break training, or another reader."""
        return [finding for finding in self.findings if finding.is_error]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that may be intended."""
        return [finding for finding in self.findings if not finding.is_error]

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    def __str__(self) -> str:
        return summary(self)

    def _repr_html_(self) -> str:
        rows = [(one.kind, one.path, one.message) for one in self.findings]
        return sentence_and_table(summary(self), ("kind", "file", "what"), rows)

    def add(self, path: str, kind: str, message: str) -> None:
        """Append a finding."""
        self.findings.append(Finding(path, kind, message))

    def counts(self) -> dict[str, int]:
        """Number of findings of each kind, the worst kinds first."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in (*ERRORS, *WARNINGS) if found[kind]}

    def to_json(self) -> str:
        """The report as a JSON object."""
        content = {
            "version": __version__,
            "source": self.source,
            "ok": self.ok,
            "files": self.files,
            "left_out": self.left_out,
            "seconds": self.seconds,
            "counts": self.counts(),
            "findings": [
                {**asdict(one), "severity": "error" if one.is_error else "warning"}
                for one in self.findings
            ],
        }
        return json.dumps(content, indent=2)

    def write_csv(self, path: str | os.PathLike[str], warnings: bool = False) -> int:
        """Write the errors as a list for `exclude=` of loaders, and return the number of rows.

        An existing list is replaced; files that are found again keep their first_seen. With
        warnings=True the files with warnings are written too (all duplicates except the first).

        A file that cannot be read is only written if other files in its folder can be read: otherwise
        the disk was probably not available. A warning gives the number of files not written.

        Raises ValueError if the existing file at this path is not such a list.
        """
        before = quarantine.first_seen(path)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        rows: dict[str, tuple[str, str, str]] = {}
        unread = {os.path.abspath(one.path) for one in self.findings if one.kind == "unreadable"}
        there: dict[str, bool] = {}
        away = []
        for finding in self.findings if warnings else self.errors:
            if finding.kind == "unreadable":
                folder = os.path.dirname(os.path.abspath(finding.path))
                if folder not in there:
                    there[folder] = _has_readable(folder, unread)
                if not there[folder]:
                    away.append(finding.path)
                    continue
            name = quarantine.whole_name(finding.path)
            text = " ".join(f"{finding.kind}: {finding.message}".split())
            rows.setdefault(name, (name, text, before.get(name, now)))
        if away:
            warn(
                f"{len(away):,} files that cannot be read are not written to {os.fspath(path)}, such "
                f"as {away[0]}: no other file in their folder can be read either. If the disk was not "
                "available, run verify again."
            )
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with whole_file(os.fspath(path)) as file:
            file.write(quarantine.lines([quarantine.FIELDS, *rows.values()]))
        return len(rows)


# The maximum number of other files in a folder that are tried.
_TRIED = 20


def _has_readable(folder: str, but: set[str]) -> bool:
    """Whether other files in a folder can be read, which means that the folder is available."""
    others, tried = False, 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.path in but:
                    continue
                others = True
                if not entry.is_file():
                    continue
                tried += 1
                with contextlib.suppress(OSError), open(entry.path, "rb") as file:
                    file.read(1)
                    return True
                if tried == _TRIED:
                    break
    except OSError:
        return False
    return others and not tried


def lines_of(report: Report, most: int = 100) -> Iterable[str]:
    """The report as text, with a limited number of lines per kind."""
    shown: Counter[str] = Counter()
    for finding in report.findings:
        shown[finding.kind] += 1
        if shown[finding.kind] <= most:
            yield f"{finding.kind}: {finding.message}"
        elif shown[finding.kind] == most + 1:
            more = report.counts()[finding.kind] - most
            yield f"{finding.kind}: and {more:,} more; --json FILE and --csv FILE list all"


def summary(report: Report) -> str:
    """One line with the numbers of files and findings."""
    counts = ", ".join(f"{count:,} {kind}" for kind, count in report.counts().items())
    left = (
        f" {report.left_out:,} files with other suffixes were left out." if report.left_out else ""
    )
    return (
        f"{report.source}: {report.files:,} read in {report.seconds:.1f} s, "
        f"{counts or 'no findings'}.{left}"
    )
