"""All uses of private parts of Keras and TensorFlow. No other module uses a private name.

Each use works around something that the public interfaces do not offer. If a later version of Keras
or TensorFlow lacks a name, the function here returns nothing instead of raising an exception, and its
caller works without it (third column). docs/upstream.md has a report for each use; once the report is
resolved upstream, the use can be removed.

    private part                       | used because                     | without it                 | tests/
    the modules of PyDataset, of its   | a loader must know whether Keras | an interrupted pass is     | keras_api/test_private.py
    adapter and of the epoch iterator; | or the user calls it, and        | noticed only when the next |
    the frames of fit, evaluate and    | whether its fit is still running | one begins; two calls at   |
    predict (`asker`)                  |                                  | once are not noticed       |
    the class name PyDatasetAdapter    | TensorFlow keeps adapters alive, | an unused loader keeps     | contract/test_resources_freed.py
    (`is_adapter`, `adapter_around`)   | and with them their loaders      | its data in memory         |
    the local variable `iterator` of   | its destructor waits up to a     | the end of an epoch may    | keras_api/test_tf_iterators.py
    fit, evaluate and predict, and two | minute for tf.data's autotuner   | take as long as without    |
    attributes of it (`take_iterator`) |                                  | kloaders                   |
    CallbackList.callbacks, and the    | if a fit ends in an error, no    | logs of other callbacks    | keras_api/test_private.py
    frame of fit (`FitFrame`)          | callback is called; the order of | may lack ours; see `asker` |
                                       | callbacks matters                |                            |
    the local variable `x` of fit      | a callback for another loader    | noticed at the first batch | training/test_callback.py
    (`data_of_fit`)                    | would save the same position     | instead, and only if path= |
                                       | over and over                    | is set                     |
    Model._initial_epoch               | a callback cannot choose the     | LoaderCallback asks for    | training/test_resume_fit.py
    (`begin_at_epoch`)                 | epoch that fit begins with       | fit(initial_epoch=k)       |
    Model.train_function on JAX        | a callback cannot skip the rest  | the epoch ends as on other | training/test_resume_fit.py
    (`without_step`)                   | of an epoch                      | backends                   |
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Collection
from types import CodeType, FrameType
from typing import Any, NamedTuple

__all__ = [
    "Asker",
    "Call",
    "FitFrame",
    "adapter_around",
    "asker",
    "begin_at_epoch",
    "data_of_fit",
    "is_adapter",
    "restore_step",
    "take_iterator",
    "without_step",
]

_METHODS = ("fit", "evaluate", "predict")
_ADAPTER = "PyDatasetAdapter"
_EPOCHS = "epoch_iterator"
_ITERATOR, _RESOURCE, _DATASET = "iterator", "_iterator_resource", "_dataset"
_CALLBACKS = "CallbackList"
_INITIAL_EPOCH = "_initial_epoch"
_STEP = "train_function"


# ---------------------------------------------------------------------------- the caller of a loader


class Call(NamedTuple):
    """A call of fit, evaluate or predict, identified by its frame's address. It keeps no frame alive.

    Attributes:
        method: the name of the method.
        thread: the thread of the call.
        frame: the address of its frame.
        code: the code object of that frame.
    """

    method: str
    thread: int
    frame: int
    code: CodeType

    def running(self) -> bool:
        """Whether the call has neither returned nor raised an exception."""
        frame: FrameType | None
        if threading.get_ident() == self.thread:
            frame = sys._getframe(1)
        else:
            frame = sys._current_frames().get(self.thread)
        while frame is not None:
            if id(frame) == self.frame and frame.f_code is self.code:
                return True
            frame = frame.f_back
        return False


class Asker(NamedTuple):
    """The caller of a loader.

    Attributes:
        by_keras: whether it is Keras' adapter, directly or through a wrapper; None if unknown.
        stream: the address of Keras' generator that reads; None if none does.
        call: the innermost call of fit, evaluate or predict on the stack, if it was looked for.
    """

    by_keras: bool | None
    stream: int | None = None
    call: Call | None = None


_UNKNOWN = Asker(None)


def asker(with_call: bool = True) -> Asker:
    """Find the caller of the loader method that calls this.

    The innermost function of Keras on the stack decides: either it reads data, or it calls users' code,
    such as callbacks and training steps.

    Args:
        with_call: whether to look for the call of fit, evaluate or predict as well.
    """
    by_keras: bool | None = None
    stream: int | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code is _reader[0] and by_keras is None and not with_call:
            return Asker(True, id(frame))
        name = frame.f_globals.get("__name__")
        if name is not None and name.startswith("keras."):
            reading = _reading_modules()
            if reading is None:
                break
            if by_keras is None:
                by_keras = name.startswith(reading)
            if by_keras and stream is None and code.co_flags & inspect.CO_GENERATOR:
                stream = id(frame) if name.startswith(reading[0]) else None
                _reader[0] = _reader[0] if stream is None else code
            if code.co_name in _METHODS:
                call = Call(code.co_name, threading.get_ident(), id(frame), code)
                return Asker(by_keras, stream, call)
            if not with_call and (stream is not None or not by_keras):
                break
        frame = frame.f_back
    return Asker(bool(by_keras), stream) if _reading_modules() else _UNKNOWN


# The code of the Keras generator that read last, to recognize it without looking at module names.
_reader: list[CodeType | None] = [None]


def _reading_modules() -> tuple[str, str] | None:
    """Prefixes of the names of those modules of Keras that read from a PyDataset."""
    try:
        module: str = sys.modules["keras"].utils.PyDataset.__module__
    except (KeyError, AttributeError):
        return None
    return _modules_beside(module, _ADAPTER, _EPOCHS)


@functools.lru_cache
def _modules_beside(module: str, adapter: str, epochs: str) -> tuple[str, str] | None:
    if not hasattr(sys.modules.get(module), adapter):
        return None
    package = module.rpartition(".")[0]  # keras.src.trainers.data_adapters
    return package, f"{package.rpartition('.')[0]}.{epochs}"


def is_adapter(thing: Any) -> bool:
    """Whether this is the adapter that Keras wraps around a PyDataset in each fit, evaluate and predict."""
    return type(thing).__name__ == _ADAPTER


def adapter_around() -> Any:
    """The adapter, if one of its methods is on the stack, at most four frames up; else None."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(4):
        if frame is None:
            break
        found = frame.f_locals.get("self") if "self" in frame.f_code.co_varnames else None
        if is_adapter(found):
            return found
        frame = frame.f_back
    return None


# ---------------------------------------------------------------------------- tf.data's iterator


def take_iterator() -> tuple[Any, list[Any]] | None:
    """-> the iterator of the surrounding fit, evaluate or predict, and [its dataset, its resource].

    None on other backends, and if there is one iterator for each replica. The caller has to drop the
    resource before the dataset: when the iterator ends, it calls functions that the dataset owns.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name in _METHODS and _ITERATOR in code.co_varnames:
            variables = frame.f_locals
            iterator = variables.get(_ITERATOR)
            if type(variables) is dict:  # before Python 3.13 a copy that lives as long as the call
                variables.pop(_ITERATOR, None)
            resource = getattr(iterator, _RESOURCE, None)
            if resource is None:
                return None
            return iterator, [getattr(iterator, _DATASET, None), resource]
        frame = frame.f_back
    return None


# ---------------------------------------------------------------------------- the fit around a callback


class FitFrame:
    """The running call of fit; made in `on_train_begin`.

    Keras calls no callback when a fit ends in an error. So `ended` looks for fit's frame on the stack of
    its thread, by its address. That address cannot belong to another frame as long as the list of
    callbacks, a local variable of fit, is alive. A FitFrame keeps neither of them alive.

    Attributes:
        shuffle: fit's argument of that name; None if it cannot be seen.
    """

    def __init__(self) -> None:
        # Returns the list of callbacks; None once the list is gone.
        self._list: Callable[[], Any] = lambda: True
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name != "fit":
            caller = frame.f_locals.get("self")
            if type(caller).__name__ == _CALLBACKS:
                self._list = weakref.ref(caller)
            frame = frame.f_back
        self.shuffle: bool | None = None
        self._call: Call | None = None
        if frame is not None:
            said = frame.f_locals.get("shuffle")
            self.shuffle = said if isinstance(said, bool) else None
            self._call = Call("fit", threading.get_ident(), id(frame), frame.f_code)

    @property
    def callbacks(self) -> list[Any]:
        """The callbacks of this fit, in their order; empty if they cannot be seen."""
        return list(getattr(self._list(), "callbacks", ()))

    def put_first(self, callback: Any) -> Callable[[], None]:
        """Call this callback before all others. -> a function that removes it again."""
        listed = self._list()
        if not getattr(listed, "callbacks", None):
            return lambda: None
        # A new list: a loop that is running over the old one calls no callback twice.
        listed.callbacks = [callback, *listed.callbacks]

        def take_out() -> None:
            listed.callbacks = [other for other in listed.callbacks if other is not callback]

        return take_out

    def keep_from_bar(self, names: Collection[str]) -> Callable[[], None]:
        """Leave these logs out of Keras' progress bar. -> a function that undoes this."""
        bars = [one for one in self.callbacks if type(one).__name__ == "ProgbarLogger"]

        def shorten(bar: Any) -> None:
            real = bar.on_epoch_end

            def on_epoch_end(epoch: int, logs: dict[str, Any] | None = None) -> None:
                real(epoch, {k: v for k, v in (logs or {}).items() if k not in names})

            bar.on_epoch_end = on_epoch_end

        def let_in() -> None:
            for bar in bars:
                vars(bar).pop("on_epoch_end", None)

        for bar in bars:
            shorten(bar)
        return let_in

    def ended(self) -> bool:
        """Whether fit has ended. False if called in another thread, which cannot know."""
        if self._call is None or threading.get_ident() != self._call.thread:
            return False
        return self._list() is None or not self._call.running()


def data_of_fit() -> Any:
    """The training data of the surrounding fit; None if it cannot be seen."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "fit" and "callbacks" in frame.f_code.co_varnames:
            return frame.f_locals.get("x")
        frame = frame.f_back
    return None


def begin_at_epoch(model: Any, epoch: Any) -> Any:
    """Make the next fit start with this epoch, as `BackupAndRestore` does.

    -> the value from before, which the caller restores with a second call. The caller has to check
    that fit has really begun with this epoch.
    """
    before = getattr(model, _INITIAL_EPOCH, None)
    setattr(model, _INITIAL_EPOCH, epoch)
    return before


def without_step(model: Any, logs: dict[str, Any]) -> Any:
    """On JAX, replace the next training step by one that uses no batch and returns these logs.

    -> the value for `restore_step`; None if the model has no such function.
    """
    step = getattr(model, _STEP, None)
    if step is not None:
        setattr(model, _STEP, lambda state, _: (logs, state))
    return step


def restore_step(model: Any, step: Any) -> None:
    """Restore the training step from before `without_step`."""
    setattr(model, _STEP, step)
