"""Collects the answers of workers, and compares files with each other: duplicates, inconsistent shapes."""

from __future__ import annotations

import sys
from collections import Counter

from kloaders.diagnostics.verify.report import ERRORS, WARNINGS, Report
from kloaders.diagnostics.verify.tasks import Task, size_of
from kloaders.diagnostics.verify.worker import Answer

__all__ = ["Comparison"]

# Files are inconsistent only if nearly all other files are alike, and there are several of those.
_INCONSISTENT_SHARE, _ALIKE = 0.1, 3


class Comparison:
    """Collects the answers of workers, and compares files at the end."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._names: list[str] = []
        self._digests: list[bytes] = []
        self._classes: list[str | None] = []
        self._forms: dict[tuple[str, ...], int] = {}
        self._form_of: list[int] = []

    def take(self, task: Task, answers: Answer) -> None:
        """Record the answer to a task."""
        self.report.files += size_of(task)
        for answer in answers:
            name, label = answer["name"], answer["class"]
            if not isinstance(task, dict):
                name, label = task  # shared objects, to save memory
            else:
                label = task.get("class", label)
            bad = False
            for kind, message in answer["problems"]:
                self.report.add(name, kind, message)
                bad = bad or kind != "misnamed"
            compared = not isinstance(task, dict) or task.get("compared", True)
            if compared and not bad and answer["digest"]:
                self.note(name, tuple(answer["form"]), bytes.fromhex(answer["digest"]), label)

    def note(
        self, name: str, form: tuple[str, ...], digest: bytes = b"", label: str | None = None
    ) -> None:
        """Record a valid file; an empty digest means that its content is not compared."""
        self._names.append(name)
        self._digests.append(digest)
        self._classes.append(None if label is None else sys.intern(label))
        self._form_of.append(self._forms.setdefault(form, len(self._forms)))

    def finish(self, duplicates: bool) -> None:
        """Compare all files with each other, and sort the findings."""
        # Answers arrive in any order, so sort by name: the first of equal files is not the duplicate.
        order = sorted(
            range(len(self._names)), key=lambda k: (self._names[k], self._classes[k] or "")
        )
        if duplicates:
            self._find_duplicates(order)
        self._find_inconsistent(order)
        rank = {kind: k for k, kind in enumerate((*ERRORS, *WARNINGS))}
        self.report.findings.sort(key=lambda one: (rank[one.kind], one.path, one.message))

    def _find_duplicates(self, order: list[int]) -> None:
        first_of: dict[bytes, int] = {}
        for k in order:
            if not self._digests[k]:
                continue
            first = first_of.setdefault(self._digests[k], k)
            if first == k:
                continue
            here, there = self._classes[k], self._classes[first]
            name, other = self._names[k], self._names[first]
            if here != there:
                said = f"{name} (class {here}) has the content of {other} (class {there})"
                self.report.add(name, "conflicting labels", said)
            else:
                self.report.add(name, "duplicate", f"{name} has the content of {other}")

    def _find_inconsistent(self, order: list[int]) -> None:
        """Compare sides and channels of images, and shape and dtype of arrays."""
        forms = list(self._forms)
        for what in ("picture", "array"):
            chosen = [k for k in order if forms[self._form_of[k]][:1] == (what,)]
            for aspect in (1, 2) if what == "picture" else (1,):
                count = Counter(forms[self._form_of[k]][aspect] for k in chosen)
                if len(count) < 2:
                    continue
                usual, alike = count.most_common(1)[0]
                others = len(chosen) - alike
                if alike < _ALIKE or others > max(1, _INCONSISTENT_SHARE * len(chosen)):
                    continue
                for k in chosen:
                    form = forms[self._form_of[k]][aspect]
                    if form != usual:
                        name = self._names[k]
                        self.report.add(
                            name,
                            "inconsistent",
                            f"{name} is {form}, but {alike:,} others are {usual}",
                        )
