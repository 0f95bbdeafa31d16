"""The size of a RAM batch, from the options and the size of real samples."""

from __future__ import annotations

import contextlib
import math

import numpy as np

from kloaders.core.memory import available_bytes, format_bytes
from kloaders.core.options import RamOptions
from kloaders.core.structure import flatten, is_text
from kloaders.engine.specs import SampleSpecs
from kloaders.plan.rng import Moment

__all__ = ["RamSize"]

# The default budget: large enough to help with a slow disk, small compared to most machines' RAM.
_BUDGET, _BUDGET_SHARE = 4 * 2**30, 0.25
# The number of samples whose size is measured; all must have the same shape anyway.
_MEASURED = 8
# The size in bytes of a sample number and a row number, for each sample of a RAM batch.
_BOOKKEEPING = 24


class RamSize:
    """The size of a RAM batch, from the options and the size of real samples.

    Args:
        options: a size or a budget.
        specs: the specs of the samples.
        batch_size: samples per batch; a RAM batch holds whole batches.
        queue_size: the maximum number of prefetched batches.
        shards: the number of loaders that share an epoch.
        copies: samples per epoch made from each stored one; a RAM batch holds all of them.

    Attributes:
        samples: samples per RAM batch.
        held: stored samples per RAM batch.
        resident: whether it holds the whole data set, which is then read only once.
        budget: in bytes, for both RAM batches and the prefetched ones; None if the size was given.
    """

    def __init__(
        self,
        options: RamOptions,
        specs: SampleSpecs,
        batch_size: int,
        queue_size: int,
        shards: int,
        copies: int = 1,
    ) -> None:
        self.specs, self.batch_size, self.queue_size = specs, batch_size, queue_size
        self.copies = copies
        self.all = specs.log.samples * copies
        self._step = math.lcm(batch_size, copies)
        self._capped = options.most_batches is not None
        self.budget = options.budget_bytes
        size = options.ram_batch_size
        if size is None:
            size = self._of_budget()
            if options.most_batches is not None:
                size = min(size, options.most_batches * batch_size)
        elif size < batch_size:
            raise ValueError(
                f"ram_batch_size={size} is smaller than batch_size={batch_size}: a RAM batch "
                "serves whole batches; make it some hundred times larger."
            )
        size = max(self._step, size - size % self._step)
        self.samples = min(size, -(-self.all // self._step) * self._step)
        self.held = min(self.samples, self.all) // copies
        # The whole data set fits: windows are not needed and nothing is read twice, unless samples
        # differ between epochs.
        random = specs.pipeline.source.random
        self.resident = self.samples >= self.all and shards == 1 and not random

    def _of_budget(self) -> int:
        if any(is_text(spec.dtype) for spec in flatten(self.specs.raw)):
            raise TypeError(
                "the samples contain texts, whose size is unknown before they are read: pass "
                "ram_batch_size=, the number of samples in a RAM batch, instead of ram_budget="
            )
        if self.budget is None:
            self.budget = int(min(_BUDGET, _BUDGET_SHARE * available_bytes()))
        # RAM batches were not requested: read only the one sample that is read anyway.
        measured = self.specs.raw_bytes if self._capped else self._measured_bytes()
        each = -(-measured // self.copies)
        delivered = sum(s.nbytes for s in flatten(self.specs.delivered))
        if self.specs.pipeline.transforms.transform is None:
            delivered = each * self.copies
        ahead = self.ahead(delivered * self.batch_size, self.budget)
        # The prefetched batches, the one being served, and the one that the framework still holds.
        batches = (ahead + 2) * delivered * self.batch_size
        whole = (each + _BOOKKEEPING) * self.all + batches
        if whole <= self.budget:
            return -(-self.all // self._step) * self._step
        size = (self.budget - batches) // (2 * (each + _BOOKKEEPING))
        if size < self._step:
            need = batches + 2 * (each + _BOOKKEEPING) * self._step
            raise ValueError(
                f"ram_budget={format_bytes(self.budget)} is too small for two RAM batches of even one "
                f"batch: samples are {format_bytes(each * self.copies)} each, so that batch_size="
                f"{self.batch_size} needs {format_bytes(need, round_up=True)} or more. Raise "
                "ram_budget, or lower batch_size or size."
            )
        return int(size)

    def ahead(self, batch_bytes: int, budget: int) -> int:
        """The number of prefetched batches, for an eighth of the budget: making them from RAM is cheap."""
        return max(1, min(self.queue_size, 4, budget // 8 // max(1, batch_bytes)))

    def _measured_bytes(self) -> int:
        """The stored size in bytes of the largest of a few samples."""
        source = self.specs.pipeline.source
        there = self.specs.log.samples
        looked = np.unique(np.linspace(0, there - 1, _MEASURED).astype(int))
        # With sequential access only, reading other samples would read everything before them.
        if source.in_order:
            looked = np.arange(min(_MEASURED, there))
        sizes = [self.specs.raw_bytes]
        for index in looked[1:].tolist():
            with contextlib.suppress(Exception):  # handled by on_error when the sample is read
                sizes.append(sum(a.nbytes for a in flatten(source.sample(index, Moment()))))
        return int(max(sizes))
