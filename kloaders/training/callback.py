"""Tells a loader what only Keras' callbacks know: the epoch, the batches trained on, and the end.

With a path, it also saves the training state, and resumes from it in another process.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kloaders.core.checks import checked_flag
from kloaders.core.messages import inform, visible, warn
from kloaders.core.places import check_place
from kloaders.keras_api import private
from kloaders.keras_api.telemetry import LOGGED, Meter
from kloaders.loaders.checking import check_loader
from kloaders.loaders.sequence import SequenceLoader
from kloaders.places.urls import is_url
from kloaders.training import state_file as training_state
from kloaders.training.sample_losses import SampleResults, sample_results

if TYPE_CHECKING:
    from keras.callbacks import Callback
elif os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True"):
    from tf_keras.callbacks import Callback
else:
    from keras.callbacks import Callback

__all__ = ["LoaderCallback"]


class LoaderCallback(Callback):
    """Pass it to `fit` as a callback, together with the loader that `fit` trains on.

    The loader delivers the right batches without it. With it, the loader also knows the true epoch
    number (`initial_epoch`, `BackupAndRestore`), keeps its position when a callback calls
    `evaluate` on the same loader in the middle of an epoch, does not prefetch past the last epoch,
    and frees its threads and prefetched batches when training ends. `loader.state_dict()` is the
    position after the last batch that was trained on.

    With `path`, a killed run resumes from its last save, even in the middle of an epoch: run the same
    program again. List it after callbacks that change the model or the optimizer (but before
    `SwapEMAWeights`).

    It also reports how loading went. The logs of each epoch (in History, CSVLogger and TensorBoard,
    listed before or after this callback, but not in Keras' progress bar) have `samples_per_s`, of
    training without validation; `data_wait_s`, the seconds that the model waited for data;
    `batches_ahead`, the average number of prefetched batches when one was taken; `cache_hits`, the
    share of arrays from the cache, 0 to 1 (of this process: 0 with processes=True); and
    `sample_errors`, the number of samples that failed to load so far. `loader.explain()` uses these
    numbers after fit.

    If the loader has with_ids=True, `samples` has names, losses and predictions of all samples of
    the last finished epoch, and `samples.worst(10)` returns those with the highest loss. This takes
    another pass over the data after each epoch, without training.

    Args:
        loader: the loader that `fit` trains on.
        path: a file, or a URL such as "s3://bucket/run/state", for the training state: the position
            in the data together with the variables of the model and the optimizer. It is written
            atomically at the end of each epoch and as often as `save_freq` says; read when training
            begins, if it exists; and deleted when training is over. With several processes and
            `shard=`, the process with part 0 writes it and all read it, so all need access to it.
        save_freq: 100: every 100 batches (with steps_per_execution, at the next batch that Keras
            reports); "30s", "5min" or "2h": after the first batch that ends after this time;
            "epoch": at the end of epochs only.
        log: whether to add the numbers above to the logs.

    Raises:
        TypeError: `loader` is not a kloaders loader.
        ValueError: save_freq is not valid; or, when training begins: `fit` trains on another
            loader, or a view of this one; the state is damaged, or belongs to other data or another
            model; `BackupAndRestore`, which restores its own state, is used as well; or
            steps_per_epoch is less than the loader's length.
        OSError: when training begins: the state cannot be written or read. If a later save fails, for
            example because the disk is full, a warning is logged, training continues, and the
            previous state stays.
    """

    def __init__(
        self,
        loader: SequenceLoader,
        path: str | os.PathLike[str] | None = None,
        *,
        save_freq: int | str = "5min",
        log: bool = True,
    ) -> None:
        super().__init__()
        check_loader(loader, "LoaderCallback")
        self.loader = loader
        self.log = checked_flag(log, "log")
        self._meter: Meter | None = None
        self._first: _First | None = None
        given = None if path is None else os.fspath(path)
        self.path = given if given is None or is_url(given) else check_place(given, "path")
        self._every, self._seconds = _checked_freq(save_freq)
        if self.path is not None and Callback.__module__.startswith("tf_keras"):
            raise ValueError(
                "path= needs Keras 3: tf_keras stops training after an epoch that was resumed in the "
                "middle. Leave path= out, and use tf_keras.callbacks.BackupAndRestore."
            )
        if self.path is not None and os.path.isdir(self.path):
            raise ValueError(
                f"path='{visible(self.path)}' is a folder, expected a file's name: "
                f"'{visible(os.path.join(self.path, 'state'))}', for example."
            )
        #: The epoch that training begins with, for a custom loop; set in `on_train_begin`.
        self.initial_epoch = 0
        #: Samples of the last epoch, if the loader has with_ids=True; None before its end.
        self.samples: SampleResults | None = None
        self._steps = 1  # steps_per_execution
        self._restored: dict[str, Any] | None = None
        self._metrics: list[tuple[str, Any]] | None = None
        self._random: list[tuple[str, Any]] | None = None
        self._short = False  # whether the epoch resumes in the middle
        self._idle: Any = None  # the model's own step, while a step without a batch replaces it
        self._logs: dict[str, Any] = {}
        self._epoch = 0
        self._batches = 0  # since the last save
        self._saved_at = 0.0
        self._quiet: Any = None
        self._read = False  # whether this fit has read the loader
        self._saved = ""  # the content of the file, in words
        self._failed = False  # whether the last save failed

    # ------------------------------------------------------------------ what Keras calls

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reset the loader; with a path, resume from the saved state."""
        fit = private.FitFrame()
        model = self.model
        self._steps = int(getattr(model, "steps_per_execution", 1) or 1)
        self._restored, self._metrics, self._random = None, None, None
        self._logs, self._short, self._idle = {}, False, None
        self.initial_epoch = 0
        state = None
        self._saved, self._failed = "", False
        self._read = False
        data = private.data_of_fit()
        if isinstance(data, SequenceLoader) and data is not self.loader:
            raise ValueError(
                _ANOTHER.format(f": it has another one, or a view of it, {data!r:.80}")
            )
        if self.path is not None:
            self._check(fit)
            if self.loader.shard[0] == 0:
                training_state.prepare(self.path)
            state = self._restore(self.path, model)
        tickets = self.loader.runner.tickets
        tickets.fit_begin(int(self.params.get("epochs") or 0), fit.ended, fit.shuffle)
        if state is not None:
            tickets.fit_resumes(state["epoch"], state["epoch_trained"])
        self._batches, self._saved_at = 0, time.monotonic()
        if self.log:
            self._meter = self.loader.runner.meter = Meter(self.loader)
            self.loader.runner.last_fit = self._meter.fit
            self._first = _First(self._meter)
            self._first.join(fit)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Report Keras' number of the epoch to the loader."""
        self._epoch = int(epoch)
        self._speak_again()
        if self._meter is not None:
            self._meter.epoch_begin(new_pass=not self.loader.runner.tickets.training)
        steps = self.params.get("steps") or self.loader.plan.batches
        if self._restored is not None:
            self._begin_restored(self._epoch)
        self.loader.runner.tickets.epoch_begin(self._epoch, int(steps))

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """End a resumed epoch when its remaining batches are used up.

        Keras expects the batches of a whole epoch. Without a batch, a step would still run in part on
        TensorFlow (the optimizer counts it, random layers draw numbers), and on JAX the model's
        variables are removed before the batch is requested. A StopIteration ends the epoch before that.
        On PyTorch the epoch has already ended.
        """
        if self._short and self.loader.runner.tickets.used_up():
            if not self._logs or sys.modules["keras"].backend.backend() != "jax":
                raise StopIteration
            # On JAX, Keras needs logs from at least one step: this step without a batch provides them.
            logs, self._logs = self._logs, {}
            self._idle = private.without_step(self.model, logs)
            if self._idle is None:
                raise StopIteration
            return
        self._set_random()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the batches that were trained on, and save if a save is due."""
        if self._idle is not None:  # a step without a batch
            private.restore_step(self.model, self._idle)
            self._idle = None
            return
        if self.path is not None and not (self._read or self.loader.runner.tickets.was_read()):
            raise ValueError(_ANOTHER.format(""))
        self._read = True
        self.loader.runner.tickets.consumed(self._steps)
        if self._meter is not None:
            self._meter.step_end(self._steps)
        if self.path is None:
            return
        self._batches += self._steps
        if self._due():
            self._save(self._epoch)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Validation begins: the training part of the epoch is over."""
        self._end_short()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save the position: the beginning of the next epoch, or the position in this one."""
        self._speak_again()
        if self._first is not None:  # if it could not run before all other callbacks
            self._first.on_epoch_end(epoch, logs)
        self._end_short()
        if self._logs and logs is not None:  # no batch was left to train on, so Keras has no logs
            for name, value in self._logs.items():
                logs.setdefault(name, value)
            self._logs = {}
        if self.loader.with_ids:
            order, batch = self.loader.runner.tickets.position()
            done = order.epoch - (batch == 0)
            self.samples = sample_results(self.model, self.loader, max(0, done))
        if self.path is not None:
            left = self.loader.runner.tickets.training
            self._save(int(epoch) + (not left))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Free resources that only training needs; delete the state, unless an epoch was left early."""
        left = self.loader.runner.tickets.training
        self._speak_again()
        if self._first is not None:
            self._first.leave()
        self._meter = self._first = self.loader.runner.meter = None
        self.loader.runner.fit_end()
        if self.path is not None and not left and self.loader.shard[0] == 0:
            try:
                training_state.remove(self.path)
            except OSError as error:
                warn(
                    f"training is over, and {self.path} cannot be deleted ({error}): delete it yourself."
                )

    # ------------------------------------------------------------------ saving

    def _due(self) -> bool:
        if self._every is not None:
            return self._batches >= self._every
        return self._seconds is not None and time.monotonic() - self._saved_at >= self._seconds

    def _save(self, epoch: int) -> None:
        """Save the position and the variables together; Keras resumes in this epoch."""
        assert self.path is not None
        self._batches, self._saved_at = 0, time.monotonic()
        if self.loader.shard[0] > 0:
            return
        model = self.model
        position = self.loader.state_dict()
        facts = {
            "epoch": epoch,
            # All batches of this epoch were trained on, but validation is still to come.
            "epoch_trained": epoch == self._epoch and not self.loader.runner.tickets.training,
            "position": position,
        }
        arrays = {
            "variables": training_state.values_of(training_state.variables_of(model)),
            "metrics": training_state.values_of(training_state.metrics_of(model)),
            "random": training_state.random_state(),
        }
        try:
            training_state.write(self.path, facts, arrays)
        except OSError as error:
            if not self._failed:
                there = f"keeps the state of {self._saved}" if self._saved else "does not exist yet"
                warn(
                    f"{self.path}: the training state cannot be saved "
                    f"({os.strerror(error.errno) if error.errno else error}). The file {there}. "
                    "Training continues, and the next save tries again."
                )
            self._failed = True
            return
        if self._failed:
            warn(f"{self.path}: the training state can be saved again.")
        self._failed = False
        self._saved = f"epoch {epoch + 1}, after {position['samples']:,} samples"

    # ------------------------------------------------------------------ resuming

    def _check(self, fit: private.FitFrame) -> None:
        callbacks = fit.callbacks
        names = [type(callback).__name__ for callback in callbacks]
        if "BackupAndRestore" in names:
            raise ValueError(
                "BackupAndRestore together with LoaderCallback(loader, path): both would restore the "
                "model when training begins, each to another position. Leave BackupAndRestore out, "
                "since LoaderCallback saves at the end of each epoch as well; or leave path= out."
            )
        if "SwapEMAWeights" in names[: callbacks.index(self) if self in callbacks else 0]:
            raise ValueError(
                "SwapEMAWeights before LoaderCallback(loader, path) in callbacks=[...]: at the end of "
                "an epoch the averages would be saved as the weights. Put LoaderCallback first."
            )
        steps, batches = self.params.get("steps"), self.loader.plan.batches
        if steps and steps < batches:
            raise ValueError(
                f"steps_per_epoch={steps} spreads a pass of {batches} batches over several epochs, "
                "and Keras cannot resume in the middle of such a pass: leave steps_per_epoch out with "
                "LoaderCallback(loader, path), or leave path= out."
            )

    def _restore(self, path: str, model: Any) -> dict[str, Any] | None:
        if not training_state.exists(path):
            return None
        state, arrays = training_state.read(path)
        epoch, trained = state.get("epoch"), state.get("epoch_trained")
        if type(epoch) is not int or epoch < 0 or type(trained) is not bool:
            raise ValueError(f"{visible(path)} is damaged: delete it to restart training.")
        variables, metrics = arrays.get("variables", []), arrays.get("metrics", [])
        try:
            self.loader.load_state_dict(state.get("position"))  # type: ignore[arg-type]  # checked by the loader
        except (TypeError, ValueError) as error:
            raise ValueError(f"{visible(path)}: {error}") from error
        counts = len(variables), len(metrics)
        if not model.built or counts != (
            len(training_state.variables_of(model)),
            len(training_state.metrics_of(model)),
        ):
            # On TensorFlow, Keras creates some variables in the first step: create them now, with a
            # public method.
            batch = self.loader[0]
            model.test_on_batch(*(batch if isinstance(batch, tuple) else (batch,)))
        training_state.assign(training_state.variables_of(model), variables, path)
        if len(metrics) == len(training_state.metrics_of(model)):
            self._metrics = metrics
        self._random = arrays.get("random", [])
        self._restored = state
        self.initial_epoch = epoch
        # _begin_restored checks whether this worked.
        self._before = private.begin_at_epoch(model, epoch)
        done = "all" if trained else f"{state['position']['samples']:,}"
        self._saved = f"epoch {epoch + 1}, after {done} samples"
        inform(
            f"resuming from {path}: epoch {epoch + 1} of {self.params.get('epochs')}, after "
            f"{done} of {self.loader.plan.samples:,} samples"
        )
        return state

    def _begin_restored(self, epoch: int) -> None:
        """Begin the first epoch after a restart; Keras has just reset the metrics."""
        state, self._restored = self._restored, None
        assert state is not None
        model = self.model
        private.begin_at_epoch(model, self._before)
        if epoch != state["epoch"]:
            raise ValueError(
                f"{visible(self.path)} was saved in epoch {state['epoch']} (counted from 0), but fit begins "
                f"with epoch {epoch}: call fit(initial_epoch={state['epoch']})."
            )
        if not (state["epoch_trained"] or state["position"]["samples"]):
            self._set_random()
            return
        self._short = True
        if self._metrics is not None:
            training_state.assign(training_state.metrics_of(model), self._metrics, str(self.path))
        if state["epoch_trained"]:
            self._logs = {k: float(v) for k, v in model.get_metrics_result().items()}
        # Keras expects the batches of a whole epoch, and warns if there are fewer.
        warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
        self._quiet = warnings.filters[0]

    def _end_short(self) -> None:
        if self._short:
            self._short = False
            self._set_random()
            training_state.draw_as_between_epochs()

    def _set_random(self) -> None:
        if self._random is not None:
            saved, self._random = self._random, None
            training_state.set_random_state(saved)

    def _speak_again(self) -> None:
        if self._quiet is not None:
            with contextlib.suppress(ValueError):
                warnings.filters.remove(self._quiet)  # type: ignore[attr-defined]  # it is a list
            self._quiet = None


_ANOTHER = (
    "fit does not train on the loader of LoaderCallback{}. Pass the same object to both, since otherwise "
    "the position in the data is not known. For a Dataset from to_tf_dataset write your own training "
    "loop that counts batches, with loader.state_dict(epoch=..., batch=...)."
)
_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}


def _checked_freq(save_freq: Any) -> tuple[int | None, float | None]:
    """-> the number of batches between saves, or of seconds; (None, None) for "epoch"."""
    if type(save_freq) is int and save_freq >= 1:
        return save_freq, None
    if save_freq == "epoch":
        return None, None
    if isinstance(save_freq, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|sec|min|h)\s*", save_freq)
        if found and float(found[1]) > 0:
            return None, float(found[1]) * _UNITS[found[2]]
    raise ValueError(
        f'save_freq={save_freq!r:.80} is not valid: 100 means every 100 batches, "5min" every five '
        'minutes ("30s", "2h"), "epoch" the end of each epoch.'
    )


class _First(Callback):
    """Adds numbers to an epoch's logs before any other callback reads the logs.

    Keras passes one dict to all callbacks, in the order of their list, and CSVLogger and TensorBoard
    may be before ours.
    """

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.async_safe = True  # it ignores batches
        self._measured = meter
        self._take_out: Callable[[], None] | None = None
        self._epoch: int | None = None

    def join(self, fit: private.FitFrame) -> None:
        """Put this callback before all others of a fit, if its list of callbacks is found."""
        take_out, let_in = fit.put_first(self), fit.keep_from_bar(LOGGED)

        def leave() -> None:
            take_out()
            let_in()

        self._take_out = leave

    def leave(self) -> None:
        if self._take_out is not None:
            self._take_out()
            self._take_out = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch != self._epoch and logs is not None:
            self._epoch = epoch
            logs.update(self._measured.epoch_end().logs())
