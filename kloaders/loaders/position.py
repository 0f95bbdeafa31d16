"""The position of a loader in its data: a saved state, and whether it fits."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from kloaders.core.checks import checked_count
from kloaders.core.structure import flatten
from kloaders.engine.runner import Runner
from kloaders.keras_api.tickets import Position
from kloaders.loaders.assembly import stream_of
from kloaders.loaders.options import LoaderOptions
from kloaders.sources import fingerprint

__all__ = ["PositionKeeper"]


class PositionKeeper:
    """Saves a loader's position as a state, and resumes from states."""

    def __init__(self, runner: Runner, options: LoaderOptions) -> None:
        self.runner, self.options = runner, options
        self._made_for: dict[str, Any] | None = None
        # The state that was loaded last; it is the position until a batch is served.
        self._loaded: dict[str, Any] | None = None

    def made_for(self) -> dict[str, Any]:
        """The settings that a state depends on: a loader rejects a state if any of them differs.

        Settings that may differ, such as workers and batch size, are not included.
        """
        if self._made_for is None:
            runner, found = self.runner, self.runner.pipeline.source.fingerprint()
            weights = found.pop("weights", None)
            specs = flatten(runner.specs.delivered)
            if self.options.weights is not None:
                digest = fingerprint.Digest()
                digest.add_bytes(self.options.weights)
                weights = digest.text()
            if self.options.classes is not None:
                weights = f"{weights}, by class {self.options.classes}"
            self._made_for = {
                **runner.plan.made_for(),
                "shuffle": self.options.effective_shuffle,
                "sample": " ".join(f"{spec.dtype}{list(spec.shape)}" for spec in specs),
                "weights": weights,
                **found,
            }
        return self._made_for

    def state(self, epoch: int | None, batch: int | None) -> dict[str, Any]:
        """The position, as `SequenceLoader.state_dict` returns it."""
        runner = self.runner
        if (epoch is None) != (batch is None):
            raise TypeError("epoch= and batch= belong together: pass both, or neither.")
        if epoch is None or batch is None:
            order, done = runner.tickets.position()
            if self._loaded is not None and (order, done) == runner.loaded_at:
                return copy.deepcopy(self._loaded)
        else:
            shuffled = self.options.effective_shuffle
            order = runner.order_of(checked_count(epoch, "epoch", 0), shuffled)
            done = checked_count(batch, "batch", 0)
            if done > runner.plan.batches:
                raise ValueError(
                    f"batch={done} is after the end of an epoch of {runner.plan.batches} batches."
                )
            if done == runner.plan.batches:
                order, done = runner.order_of(epoch + 1, shuffled), 0
        return {
            "version": fingerprint.VERSION,
            **runner.plan.state(order, done),
            "made_for": self.made_for(),
            **({"set": dict(self.options.changed)} if self.options.changed else {}),
        }

    def restored(self, state: Any, whose: str) -> tuple[PositionKeeper, LoaderOptions]:
        """Resume from a state, if it belongs to the same data and options.

        If the loader's own seed was drawn, it uses the state's seed.

        Args:
            state: the result of any loader's `state`.
            whose: what errors call the loader.

        Returns:
            The object that keeps the position from now on, and the options with the state's seed.

        Raises:
            TypeError, ValueError: it belongs to other data or options; the message says which.
        """
        runner, options, keeper = self.runner, self.options, self
        before = runner.pipeline, runner.plan
        seed = _seed_in(state)
        if options.order.seed_drawn and seed is not None and seed != options.order.seed:
            options = replace(options, order=replace(options.order, seed=seed))
            runner.reseed(seed, stream_of(options, runner.log.samples))
            keeper = PositionKeeper(runner, options)
        try:
            checked = fingerprint.checked_state(state, keeper.made_for(), whose)
            order, first = runner.plan.position(checked)
        except Exception:
            runner.pipeline, runner.plan = before
            raise
        keeper._loaded = copy.deepcopy(checked)
        runner.resume_at(Position(order, first, runner.plan.count(order) - first))
        return keeper, options


def _seed_in(state: Any) -> int | None:
    """The seed that a state was made with, if it is a state."""
    made_for = state.get("made_for") if isinstance(state, dict) else None
    seed = made_for.get("seed") if isinstance(made_for, dict) else None
    return seed if type(seed) is int and seed >= 0 else None
