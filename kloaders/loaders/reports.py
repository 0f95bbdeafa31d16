"""The methods with which every loader describes itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kloaders.core.arrays import Indices
from kloaders.diagnostics import summary
from kloaders.loaders.known import class_counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kloaders.diagnostics.explain.explanation import Explanation

__all__ = ["Reports"]


class Reports:
    """Methods that every loader has for inspection; they change nothing."""

    # `setting_of` finds these, so that subclasses may have attributes with the same names.
    if TYPE_CHECKING:

        @property
        def labels(self) -> Any:
            """The labels of all samples, before the transform; None if unknown without reading."""

        @property
        def file_paths(self) -> list[str] | None:
            """The file of each sample (of its first input); None if samples are not files."""

        @property
        def num_classes(self) -> int:
            """The number of classes: the number of class names, or the largest label plus one."""

    def class_counts(self) -> dict[Any, int]:
        """How many samples each class has: {name: count}, or {number: count} without names.

        Raises:
            ValueError: labels are not classes, or unknown without reading samples.
        """
        return class_counts(_loader(self))

    def ids_of(self, batch: Any) -> Indices:
        """The numbers of the samples in a batch, int64, one for each row; -1 for rows of padding.

        Sample k is `labels[k]`, `file_paths[k]`, and row k of `predict`.

        Args:
            batch: as this loader delivered it, or its x. It is identified by object, while it exists.

        Raises:
            ValueError: this loader did not deliver it, or it is a copy.
        """
        found: Indices = _loader(self).runner.delivery.ids.of(batch)
        return found

    def summary(self) -> str:
        """A text about samples, shapes, sizes, classes and their balance, order, workers and memory."""
        return summary.as_text(_loader(self))

    def _repr_html_(self) -> str:
        return summary.as_html(_loader(self))

    def show(
        self,
        batch: int = 0,
        *,
        samples: int = 16,
        epoch: int = 0,
        box_format: str | None = None,
        save: str | os.PathLike[str] | None = None,
    ) -> Figure:
        """Plot a batch as the model gets it: after both transforms, in the order of `fit`.

        Safe during `fit`: it uses a view, in the caller's thread. See the page "Inspect and profile".

        Args:
            batch: the number of the batch in the epoch.
            samples: the maximum number of samples to draw.
            epoch: the number of the epoch; random transforms differ between epochs.
            box_format: "xyxy", "xywh", "yxyx" or "center_xywh", in pixels, or with the prefix `rel_`
                relative to the image size; None uses "rel_xyxy" if all numbers are from 0 to 1,
                otherwise "xyxy".
            save: a file to write, such as "batch.png".

        Raises:
            ImportError: matplotlib is missing (`pip install matplotlib`).
            IndexError: the batch does not exist.
        """
        from kloaders.diagnostics.show import show

        return show(_loader(self), batch, samples, epoch, box_format, save)

    def explain(
        self, model: Any = None, *, check: bool = False, seconds: float = 6.0
    ) -> Explanation:
        """Measure where the time goes, find the bottleneck, and suggest what to change.

        Reads a few hundred samples as `fit` would, without the cache; the model, its optimizer and
        its history are restored afterwards.

        Args:
            model: a compiled keras.Model; None uses the times of the last fit with `LoaderCallback`.
            check: try each suggested change, and report its measured effect.
            seconds: approximate time to measure, without compiling and starting processes.

        Returns:
            An Explanation. `print` it; `.save("explain.html")` writes a page with charts. If other
            programs used the machine meanwhile, `busy` lists measurements that contradict each other.

        Raises:
            SampleError: a sample does not load (on_error="raise").
            TypeError, ValueError: model is not a keras.Model, or is not compiled.
        """
        from kloaders.diagnostics.explain.run import explain

        return explain(_loader(self), model, check=check, seconds=seconds)


def _loader(reports: Reports) -> Any:
    """The loader that has these methods."""
    return reports
