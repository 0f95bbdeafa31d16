"""The parts of Keras and TensorFlow that are not public and that we touch: all of them are here.

Each works around something that their public interface does not offer. Where a name is gone, a
function here finds nothing, and its caller does without; no exception comes of it. docs/upstream.md
has a report for each, which would make it needless.

    what is touched                    | why                              | where it is gone           | tests/
    the modules that PyDataset and its | who calls a loader: Keras' own   | a pass that was broken off | keras_api/test_private.py
    adapter, and epochs, lie in; fit,  | reading, or the user; and        | is noticed when the next   |
    evaluate and predict among frames  | whether its fit is still running | begins, two calls at once  |
    (`asker`)                          |                                  | are not noticed            |
    the class name PyDatasetAdapter    | TensorFlow keeps it, and with it | a forgotten loader keeps   | contract/test_resources_freed.py
    (`is_adapter`, `adapter_around`)   | each loader that was ever fitted | its data                   |
    the local variable `iterator` of   | its destructor waits up to a     | an epoch's end may take as | keras_api/test_tf_iterators.py
    fit, evaluate and predict, and two | minute for tf.data's tuner       | long as without kloaders   |
    attributes of it (`take_iterator`) |                                  |                            |
    CallbackList.callbacks, and the    | an error ends a fit without any  | logs of other callbacks    | keras_api/test_private.py
    frame of fit (`FitFrame`)          | callback; who else is listed     | may lack ours; see `asker` |
    the local variable `x` of fit      | a callback of another loader     | it shows at the first      | training/test_callback.py
    (`data_of_fit`)                    | would save a position for ever   | batch, and only with path= |
    Model._initial_epoch               | a callback cannot choose the     | LoaderCallback says: call  | training/test_resume_fit.py
    (`begin_at_epoch`)                 | epoch that fit begins with       | fit(initial_epoch=k)       |
    Model.train_function on JAX        | a callback cannot leave out the  | the epoch ends as on other | training/test_resume_fit.py
    (`without_step`)                   | rest of an epoch                 | backends                   |
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


# ---------------------------------------------------------------------------- who calls a loader


class Call(NamedTuple):
    """A call of fit, evaluate or predict; known by the address of its frame, which it does not hold.

    Attributes:
        method: its name.
        thread: the thread that it was made in.
        frame: the address.
        code: what that frame runs.
    """

    method: str
    thread: int
    frame: int
    code: CodeType

    def running(self) -> bool:
        """Whether it has not returned, and no exception has ended it."""
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
    """Who calls a loader.

    Attributes:
        by_keras: whether Keras' adapter does, through a wrapper perhaps; None where that is unknown.
        stream: the address of the generator of Keras' that reads, where it does.
        call: the nearest call of a method around it, where that was asked for.
    """

    by_keras: bool | None
    stream: int | None = None
    call: Call | None = None


_UNKNOWN = Asker(None)


def asker(with_call: bool = True) -> Asker:
    """Who calls the loader that this is called from.

    The nearest function of Keras on the stack tells: one that reads data, or one that calls what users
    write, such as callbacks and training steps.
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


# The generator of Keras' that read last: it is recognized at once, where each batch asks for it.
_reader: list[CodeType | None] = [None]


def _reading_modules() -> tuple[str, str] | None:
    """Where Keras reads from a PyDataset: the beginnings of names of modules."""
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
    """Whether this is what Keras makes around a PyDataset for each call of a method."""
    return type(thing).__name__ == _ADAPTER


def adapter_around() -> Any:
    """The adapter whose method calls what calls this, through a property of a loader perhaps."""
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
    """-> the iterator of the method of Keras around this call, and what its destructor waits for.

    None with another backend, or one iterator for each replica. The dataset has the functions that
    the iterator calls as it ends, and is to be dropped after it: it is the first of the list.
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


# ---------------------------------------------------------------------------- a fit, from its callback


class FitFrame:
    """The call of fit that is under way; made in `on_train_begin`.

    Keras calls no callback when a fit ends in an error. Its frame is then no longer on the stack
    of its thread; the frame is known by its address, which is its own as long as the list of
    callbacks, a local variable of fit, is alive. Neither is kept alive by this.

    Attributes:
        shuffle: the argument of that name; None where it cannot be seen.
    """

    def __init__(self) -> None:
        self._list: Callable[[], Any] = lambda: True  # of callbacks; None once it is gone
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
        """The callbacks of this fit, in their order; empty where they are not seen."""
        return list(getattr(self._list(), "callbacks", ()))

    def put_first(self, callback: Any) -> Callable[[], None]:
        """Let a callback stand before all others. -> what takes it out again."""
        listed = self._list()
        if not getattr(listed, "callbacks", None):
            return lambda: None
        # A new list: a loop over the old one calls nobody twice.
        listed.callbacks = [callback, *listed.callbacks]

        def take_out() -> None:
            listed.callbacks = [other for other in listed.callbacks if other is not callback]

        return take_out

    def keep_from_bar(self, names: Collection[str]) -> Callable[[], None]:
        """Leave these logs out of Keras' progress bar. -> what lets them in again."""
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
        """Whether it has ended. Unknown in other threads."""
        if self._call is None or threading.get_ident() != self._call.thread:
            return False
        return self._list() is None or not self._call.running()


def data_of_fit() -> Any:
    """The training data of the fit around this call; None if not visible."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "fit" and "callbacks" in frame.f_code.co_varnames:
            return frame.f_locals.get("x")
        frame = frame.f_back
    return None


def begin_at_epoch(model: Any, epoch: Any) -> Any:
    """Let the fit that is about to begin start with this epoch, as `BackupAndRestore` does.

    -> what was there before, to be put back by another call. The caller has to look whether the
    epoch is the one that fit began with.
    """
    before = getattr(model, _INITIAL_EPOCH, None)
    setattr(model, _INITIAL_EPOCH, epoch)
    return before


def without_step(model: Any, logs: dict[str, Any]) -> Any:
    """On JAX, let the next step be one without a batch that gives these logs.

    -> what to give to `restore_step` after it; None where there is no such function.
    """
    step = getattr(model, _STEP, None)
    if step is not None:
        setattr(model, _STEP, lambda state, _: (logs, state))
    return step


def restore_step(model: Any, step: Any) -> None:
    """Restore the steps from before `without_step`."""
    setattr(model, _STEP, step)
