"""Turns `loader[i]` into a batch: interprets the index, and warns about the order of requests."""

from __future__ import annotations

import operator
from typing import Any

from kloaders.core.messages import warn
from kloaders.engine.runner import Runner
from kloaders.keras_api.texts import for_keras
from kloaders.keras_api.tickets import Request

__all__ = ["Requests"]

# This many requests in order indicate predict, or a loop: a shuffled fit begins so once in 24 times.
_IN_ORDER = 4


class Requests:
    """Answers Keras' requests for the batches of one loader.

    Args:
        runner: makes the batches.
        shuffle: the loader's option.
        sampling: how samples are drawn, as text; "" if each is used once.
        title: the loader's name in messages.

    Threads: several may call all methods at once.
    """

    def __init__(self, runner: Runner, shuffle: bool | None, sampling: str, title: str) -> None:
        self.runner, self.shuffle, self.sampling, self.title = runner, shuffle, sampling, title
        self._order_logged = self._interruption_logged = False
        self._counted = False  # whether num_batches was read since the last batch

    def starting(self) -> int:
        """The number of batches; Keras reads it when a pass begins."""
        self.runner.resting = False
        self._counted = True
        return self.runner.tickets.starting()

    def batch(self, index: Any) -> Any:
        """The request that `loader[index]` means now.

        Raises:
            TypeError, IndexError: index is not a batch number.
            ValueError: a loader with a shard and shuffle=None gets requests in a random order.
        """
        runner = self.runner
        released = runner.released
        looked = self._counted and index == 0
        if self._counted:
            self._counted = False
        if type(index) is not int or not 0 <= index < runner.plan.batches:
            index = self._checked(index)
        request = runner.tickets.locate(index)
        self._look_at_order(request)
        if looked and not request.sequential and (wider := runner.wider()) is not None:
            return for_keras(wider)
        return for_keras(runner.batch(request, released))

    def _checked(self, index: Any) -> int:
        try:
            i = operator.index(index)
        except TypeError:
            raise TypeError(f"a loader is indexed by a batch number, got {index!r:.80}.") from None
        last = self.runner.plan.batches - 1
        if not 0 <= i <= last:
            raise IndexError(
                f"batch {i} of {self.title}: batches are numbered from 0 to {last}, "
                "for i in range(len(loader))."
            )
        return i

    def _look_at_order(self, request: Request) -> None:
        """Log once if batches are requested in an unsuitable order."""
        tickets, plan = self.runner.tickets, self.runner.plan
        if plan.shard[1] > 1 and tickets.shuffle is None and not plan.is_stored(request.order):
            raise ValueError(
                "the batches of a loader with shard= are requested in a random order, which differs "
                "between processes: pass shuffle=True to the loader, or call fit(shuffle=False)."
            )
        if tickets.permuted and not self._order_logged:
            self._order_logged = True
            warn(
                f"the batches of {self.title}(shuffle=False) are requested in a random order: "
                "fit() permutes them unless it is called with shuffle=False. Batches are delivered as "
                "requested, without prefetching. shuffle=None shuffles samples instead."
            )
        inside = tickets.in_order == _IN_ORDER and not self._order_logged
        if inside and self.sampling and self.shuffle is None:
            self._order_logged = True
            warn(
                f"this loader draws samples ({self.sampling}), but its batches are requested in order, as "
                "predict and evaluate do: rows do not line up with the data. Predict from a loader "
                "without these options; shuffle=True says that this order is intended."
            )
        if tickets.interrupted and not self._interruption_logged:
            self._interruption_logged = True
            warn(
                "this loader was evaluated or predicted from in the middle of a pass that fit trains "
                "on, so that the rest of this pass cannot be distinguished from a new one: samples may be "
                "repeated in this epoch. Pass LoaderCallback(loader) to fit, or evaluate "
                "loader.view()."
            )
