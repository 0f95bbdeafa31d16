"""Tracks which calls of Keras read from a loader, and rejects two at the same time.

A loader has one position, so two calls that read from it at once would get each other's batches.
Keras calls no hook when a fit is interrupted in the middle of an epoch (by an error, Ctrl-C or
`stop_training`). On TensorFlow the abandoned iterator may then read one more batch, even while the
next fit is running.
"""

from __future__ import annotations

from kloaders.keras_api.private import Asker, Call

__all__ = ["Callers"]


class Callers:
    """The calls that read from one loader."""

    def __init__(self) -> None:
        self._calls: list[Call] = []  # calls that read num_batches; some may have ended
        self._training: Call | None = None  # the last fit that began an epoch
        self._epoch: Call | None = None  # the call that began the current epoch
        self._stream: int | None = None  # Keras' generator that reads the current pass
        self._abandoned: set[int] = set()  # the generators of interrupted passes

    @property
    def watched(self) -> bool:
        """Whether `locate` has to find out which call reads a batch."""
        return self._epoch is not None or bool(self._abandoned)

    @property
    def in_epoch(self) -> bool:
        """Whether a call of Keras began the current epoch, and is still running."""
        return self._epoch is not None and self._epoch.running()

    @property
    def broken_off(self) -> bool:
        """Whether the call of Keras that began the current epoch has ended."""
        return self._epoch is not None and not self._epoch.running()

    @property
    def in_fit(self) -> bool:
        """Whether the fit that trains on this loader is running."""
        return self._training is not None and self._training.running()

    def size_read(self, asked: Asker) -> None:
        """Keras reads `num_batches`.

        Raises:
            RuntimeError: while another call reads from this loader.
        """
        if asked.call is not None:
            self._check_alone(asked.call)
            if asked.call not in self._calls:
                self._calls.append(asked.call)
        if asked.stream is not None:
            self._stream = asked.stream
            self._abandoned.discard(asked.stream)  # a new generator at the address of an old one

    def epoch_begins(self, call: Call | None, training: bool) -> None:
        """An epoch begins, in a call of Keras or in a loop of the user.

        Args:
            call: the call that begins it; None for a loop of the user.
            training: whether the epoch is known to lie within the training pass of another call.

        Raises:
            RuntimeError: while another call reads from this loader.
        """
        if call is not None:
            self._check_alone(call)
            if call.method == "fit":
                if self._training != call and self.in_fit:
                    raise RuntimeError(_TWO_FITS)
                self._training = call
        if not training:
            self._epoch = call

    def epoch_ends(self, complete: bool) -> None:
        """The current pass is over.

        Args:
            complete: whether Keras requested all batches of the pass. If so, no older pass continues.
        """
        self._epoch = None
        if complete:
            self._abandoned.clear()

    def abandon(self) -> None:
        """The current pass was interrupted: later requests of its generator are ignored."""
        if self._stream is not None:
            self._abandoned.add(self._stream)
        self._stream = self._epoch = None

    def is_stray(self, asked: Asker) -> bool:
        """Whether this read comes from the generator of an interrupted pass."""
        return asked.stream is not None and asked.stream in self._abandoned

    def _check_alone(self, call: Call) -> None:
        self._calls = [other for other in self._calls if other.running()]
        for other in self._calls:
            if other.thread != call.thread:
                raise RuntimeError(
                    f"{call.method}() was given a loader that {other.method}() is reading from in "
                    "another thread. A loader has one position, so both would get wrong samples: "
                    "give each call its own loader over the same data, loader.view()."
                )


_TWO_FITS = (
    "fit() was called inside another fit() that trains on the same loader. A loader has one position, "
    "so both would get wrong samples: give this one its own loader over the same data, loader.view()."
)
