"""The result of a conversion."""

from __future__ import annotations

from typing import NamedTuple

from kloaders.core.errors import SampleError
from kloaders.core.notebooks import sentence_and_table

__all__ = ["Written"]


class Written(NamedTuple):
    """The result of `write_tfrecords` or `write_pack`.

    Attributes:
        files: the paths of the files.
        validation: the paths of the validation files, if the samples were split.
        samples: the number of samples in all files.
        errors: the errors of samples that failed to load and were left out or replaced.
    """

    files: list[str]
    validation: list[str]
    samples: int
    errors: list[SampleError]

    def __str__(self) -> str:
        bad = "1 sample" if len(self.errors) == 1 else f"{len(self.errors):,} samples"
        said = f"; {bad} failed to load" if self.errors else ""
        two = f", {len(self.validation):,} of them for validation" if self.validation else ""
        count = len(self.files) + len(self.validation)
        return f"{self.samples:,} samples in {count:,} file{'' if count == 1 else 's'}{two}{said}."

    def _repr_html_(self) -> str:
        rows = [(error.index, error.name, error.cause) for error in self.errors]
        return sentence_and_table(str(self), ("sample", "file", "what"), rows)
