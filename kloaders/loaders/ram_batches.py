"""A loader that reads RAM batches of thousands of samples, and serves batches from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from kloaders.core.checks import checked_count
from kloaders.core.options import RamOptions, shows_options
from kloaders.engine.ram_batches import RamRunner
from kloaders.loaders.paths import PathOptions, PathSequenceLoader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.sources.source import Source

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["RamBatchSequenceLoader", "TwoLevelLoader"]


class TwoLevelLoader(SequenceLoader):
    """A loader that may serve from RAM batches; if it does not, `ram_batch_size` is 0.

    A subclass puts its RAM batches into `_levels` before it is set up.
    """

    #: Fields of `LoaderOptions`: ram and echo.
    _levels: dict[str, Any]

    def _begin(self, samples: int | Source, batch_size: int, given: Any, **more: Any) -> None:
        super()._begin(samples, batch_size, given, **more, **self._levels)

    @property
    def ram_batch_size(self) -> int:
        """The number of samples in a RAM batch."""
        return self.runner.size.samples if isinstance(self.runner, RamRunner) else 0

    @property
    def ram_batches_read(self) -> int:
        """The number of RAM batches started so far."""
        return self.runner.ram_batches_read if isinstance(self.runner, RamRunner) else 0


class RamBatchSequenceLoader(TwoLevelLoader, PathSequenceLoader):
    """Batches from a RAM batch, while the next one is read in the background.

    The batches of one RAM batch are served in random order while the next RAM batch is read; a
    step waits only if the disk is slower than the model. Two RAM batches exist at a time.

    Args:
        paths, labels, batch_size: see `PathSequenceLoader`.
        ram_batch_size: samples in a RAM batch; rounded down to whole batches.
        ram_budget: maximum memory in bytes, or a text such as "4GiB", for both RAM batches and the
            prefetched batches together; the size of a RAM batch is computed from it and from some
            samples. Pass one of the two; the default is 4 GiB, or a quarter of the free memory if
            that is less. Data that fit completely are read once and stay in RAM.
        draw: "global" fills RAM batches from one shuffle of all samples. "windows" reads runs of
            adjacent files, in storage order, and shuffles the runs and the samples in them: for
            disks with slow random reads, and data that are not sorted by class.
        echo: how often each RAM batch is used before it is replaced, for disks slower than the
            accelerator: an epoch has each sample this many times (Choi et al., "Faster neural
            network training with data echoing", arXiv:1907.05550). A transform gets other random
            numbers each time. More than 1 needs a shuffled order: shuffle=None then means True.
        **options: those of `PathSequenceLoader` and `SequenceLoader`.

    Raises:
        ValueError: a RAM batch would be smaller than a batch, or samples differ in shape.

    In addition to the attributes of `PathSequenceLoader`, `ram_batch_size` is the chosen size, and
    `ram_batches_read` the number of RAM batches started so far.
    """

    @shows_options(PathOptions, PathSequenceLoader.__init__)
    def __init__(
        self,
        paths: Any,
        labels: Any = None,
        batch_size: int = 32,
        *,
        ram_batch_size: int | None = None,
        ram_budget: int | str | None = None,
        draw: Literal["windows", "global"] = "global",
        echo: int = 1,
        **options: Unpack[PathOptions],
    ) -> None:
        if draw not in ("windows", "global"):
            raise ValueError(f'draw={draw!r:.80} is not known: choose "global" or "windows".')
        self._levels = {
            "ram": RamOptions(ram_batch_size, ram_budget, draw),
            "echo": checked_count(echo, "echo", 1),
        }
        # The free memory does not matter, because ram_budget limits this loader.
        options["cache"] = None if options.get("cache") == "auto" else options.get("cache")
        super().__init__(paths, labels, batch_size, **options)
