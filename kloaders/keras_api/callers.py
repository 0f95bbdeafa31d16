"""Which calls of Keras read from a loader, and which of them are over: one at a time.

A loader has one position, so two calls that read from it at once would get each other's batches.
And Keras calls nothing when a fit is broken off in mid-epoch: by an error, by Ctrl-C, by
`stop_training`. Then on TensorFlow an abandoned iterator may read once more, even while the next fit
is under way.
"""

from __future__ import annotations

from kloaders.keras_api.private import Asker, Call

__all__ = ["Callers"]


class Callers:
    """The calls that read from one loader."""

    def __init__(self) -> None:
        self._calls: list[Call] = []  # that have read its size; some may have ended
        self._training: Call | None = None  # the fit that began an epoch last
        self._epoch: Call | None = None  # the call that began the epoch under way
        self._stream: int | None = None  # Keras' generator that reads the current pass
        self._abandoned: set[int] = set()  # those that read passes that were broken off

    @property
    def watched(self) -> bool:
        """Whether it matters who reads a batch."""
        return self._epoch is not None or bool(self._abandoned)

    @property
    def in_epoch(self) -> bool:
        """Whether a call of Keras began the epoch under way, and is running."""
        return self._epoch is not None and self._epoch.running()

    @property
    def broken_off(self) -> bool:
        """Whether a call of Keras began the epoch under way, and has ended."""
        return self._epoch is not None and not self._epoch.running()

    @property
    def in_fit(self) -> bool:
        """Whether the fit that trains on this loader is running."""
        return self._training is not None and self._training.running()

    def size_read(self, asked: Asker) -> None:
        """Keras reads how many batches there are.

        Raises:
            RuntimeError: while another call reads from this loader.
        """
        if asked.call is not None:
            self._check_alone(asked.call)
            if asked.call not in self._calls:
                self._calls.append(asked.call)
        if asked.stream is not None:
            self._stream = asked.stream
            self._abandoned.discard(asked.stream)  # another generator, at the same address

    def epoch_begins(self, call: Call | None, training: bool) -> None:
        """An epoch begins: one of Keras', or of a loop of the user's, which has no call.

        Args:
            call: whose epoch it is.
            training: it is known to lie within the training pass of another call.

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
        """No pass is under way any more.

        Args:
            complete: all batches of a pass by Keras were requested, so that no older pass continues.
        """
        self._epoch = None
        if complete:
            self._abandoned.clear()

    def abandon(self) -> None:
        """The current pass was broken off: later requests of its generator are ignored."""
        if self._stream is not None:
            self._abandoned.add(self._stream)
        self._stream = self._epoch = None

    def is_stray(self, asked: Asker) -> bool:
        """Whether this read comes from the generator of a pass that was broken off."""
        return asked.stream is not None and asked.stream in self._abandoned

    def _check_alone(self, call: Call) -> None:
        self._calls = [other for other in self._calls if other.running()]
        for other in self._calls:
            if other.thread != call.thread:
                raise RuntimeError(
                    f"{call.method}() was given a loader that {other.method}() reads from in another "
                    "thread at this moment. A loader has one position, so both would get wrong "
                    "samples: give each call its own loader over the same data, loader.view()."
                )


_TWO_FITS = (
    "fit() was called inside another fit() that trains on the same loader. A loader has one position, "
    "so both would get wrong samples: give this one its own loader over the same data, loader.view()."
)
