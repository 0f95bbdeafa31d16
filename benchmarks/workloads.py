"""What an epoch of each workload must deliver, and the checks for this."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import data
import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Workload:
    """One kind of work.

    samples, quick: samples per epoch, without and with --quick. fit: a model takes the batches
    through `model.fit`; otherwise a loop takes them. kept: decoded images may stay in RAM between
    epochs. cold: the page cache is empty, and the first epoch is timed. at_once: Keras'
    steps_per_execution.
    """

    title: str
    samples: int
    quick: int
    shape: tuple[int, ...] = (data.SIDE, data.SIDE, 3)
    dtype: str = "uint8"
    batch: int = 32
    fit: bool = False
    kept: bool = False
    cold: bool = False
    at_once: int = 1


WORKLOADS = {
    "W1": Workload("JPEG files -> uint8 224x224", 1000, 200),
    "W2": Workload("JPEG files -> float32 / 255 -> fit", 1000, 200, dtype="float32", fit=True),
    "W2-uint8": Workload("JPEG files -> uint8 -> fit, Rescaling in the model", 1000, 200, fit=True),
    "W3": Workload("packed uint8 224x224, shuffled", 8000, 1000),
    "W5": Workload("W1 and 2 ms of plain Python a sample", 1000, 200),
    "W6": Workload("small .npy files", 5000, 1000, shape=data.SMALL_SHAPE, dtype="float64"),
    "W7": Workload("W1, decoded pictures may stay in RAM", 1000, 200, kept=True),
    "W8": Workload("W1 from a cold page cache", 20_000, 1000, cold=True),
}
for _batch, _at_once in ((32, 1), (32, 10), (128, 1), (256, 1)):
    _more = f"x{_at_once}" if _at_once > 1 else ""
    WORKLOADS[f"W4-{_batch}{_more}"] = Workload(
        f"arrays in RAM -> fit, batches of {_batch}"
        + (f", steps_per_execution={_at_once}" if _more else ""),
        50_000,
        10_000,
        shape=(32, 32, 3),
        batch=_batch,
        fit=True,
        at_once=_at_once,
    )


@dataclass
class Work:
    """A workload as passed to a contestant: the folder of its data, and the number of workers.

    A label is the number of its sample, so that the checks know which samples came.
    """

    name: str
    folder: str
    workers: int
    seed: int = 0
    quick: bool = False
    given: str | None = None
    labels: Array = field(init=False)

    def __post_init__(self) -> None:
        self.spec = WORKLOADS[self.name]
        self.samples = self.spec.quick if self.quick else self.spec.samples
        self.batch, self.shape, self.dtype = self.spec.batch, self.spec.shape, self.spec.dtype
        self.labels = np.arange(self.samples)

    @property
    def steps(self) -> int:
        return -(-self.samples // self.batch)

    @property
    def is_float(self) -> bool:
        """Whether images are delivered as float32 from 0 to 1."""
        return self.dtype == "float32"

    # ------------------------------------------------------------------ data

    def place(self, name: str) -> str:
        """A path in the work folder; the user's own images have a separate folder."""
        return f"{self.folder}/{'given' if self.given else 'made'}-{name}"

    @property
    def photographs(self) -> list[str]:
        count = WORKLOADS["W1"].quick if self.quick else WORKLOADS["W1"].samples
        return data.photographs(self.place(f"jpegs-{count}"), count, self.given)

    @property
    def paths(self) -> list[str]:
        """The files of this workload, one per sample."""
        if self.name == "W6":
            return data.small_arrays(f"{self.folder}/arrays-{self.samples}", self.samples)
        if self.spec.cold:
            return data.copies(self.place(f"copies-{self.samples}"), self.samples, self.photographs)
        return self.photographs

    @property
    def packed_file(self) -> str:
        return self.place(f"packed-{self.samples}.npy")

    @property
    def packed(self) -> Array:
        """The rows of W3, memory-mapped."""
        return data.packed(self.packed_file, self.samples, self.photographs)

    def arrays(self) -> tuple[Array, Array]:
        """x and y of W4."""
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (self.samples, *self.shape), np.uint8), self.labels

    def prepare(self) -> None:
        """Create missing files."""
        if self.name == "W3":
            _ = self.packed
        elif not self.name.startswith("W4"):
            _ = self.paths
        if self.shows_photographs:
            self.thumbnails()

    # ------------------------------------------------------------------ order, for peers without

    def order(self, epoch: int) -> Array:
        return np.random.default_rng([self.seed, epoch]).permutation(self.samples)

    def batches(self, epoch: int) -> list[Array]:
        """The shuffled sample numbers of each batch."""
        order = self.order(epoch)
        return [order[k : k + self.batch] for k in range(0, self.samples, self.batch)]

    # ------------------------------------------------------------------ references

    @property
    def shows_photographs(self) -> bool:
        return self.shape == (data.SIDE, data.SIDE, 3)

    def thumbnails(self) -> Array:
        paths = self.photographs
        return data.thumbnails(self.place(f"thumbnails-{len(paths)}.npy"), paths)


def plain_python(image: Array) -> Array:
    """The transform of W5: holds the GIL for about 2 ms. The first value becomes a checksum of the rest."""
    out = np.array(image)
    out[0, 0, 0] = 0
    total = 0
    for value in out[::2, ::2].tobytes():
        total = (total * 3 + value) & 0xFFFF
    out[0, 0, 0] = total & 0xFF
    return out


class Check:
    """Checks the delivered batches: every sample once per epoch, the right shape, the right content.

    Reading one value per batch ensures that the batch is complete; all pixels are checked only
    if `thorough`, in the epoch that is not timed.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self._thumbnails = work.thumbnails() if work.shows_photographs else None
        self._seen: list[Array] = []

    def batch(self, x: Any, y: Any, thorough: bool) -> None:
        work = self.work
        x, y = as_numpy(x), as_numpy(y).reshape(-1)
        if x.shape != (len(y), *work.shape) or x.dtype != work.dtype or len(y) > work.batch:
            raise AssertionError(f"a batch is {x.dtype}{x.shape} with {len(y)} labels")
        self._seen.append(np.array(y))
        if work.name == "W6":
            if (x[:, 0, 0, 0, 0] != y).any():
                raise AssertionError("an array came with another's label")
        elif thorough and self._thumbnails is not None:
            self._compare(x, y)
        else:
            x.flat[0]

    def _compare(self, x: Array, y: Array) -> None:
        assert self._thumbnails is not None
        scale = 255 if self.work.is_float else 1
        wanted = self._thumbnails[y % len(self._thumbnails)]
        off = np.abs(data.thumbnail(x) * scale - wanted).mean((1, 2, 3)).max()
        if off > 6:  # of 255; resizing methods differ by 1 or 2
            raise AssertionError(f"a picture differs from the file's by {off:.1f} of 255")
        if self.work.name == "W5" and (plain_python(x[0]) != x[0]).any():
            raise AssertionError("the transform was left out")

    def end(self) -> None:
        """Check that all samples of an epoch came, each once."""
        seen = np.sort(np.concatenate(self._seen))
        self._seen.clear()
        if len(seen) != self.work.samples or (seen != self.work.labels).any():
            raise AssertionError(f"{len(seen)} samples came, {len(np.unique(seen))} different ones")


def as_numpy(value: Any) -> Array:
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)


# ---------------------------------------------------------------------------------------- in fit


def model_of(work: Work) -> Any:
    """A compiled model with almost no computation, whose metrics show which samples came."""
    import keras
    from keras import ops

    class Samples(keras.metrics.Metric):
        """The number of labels, their sum, and the sum of their hashes; all int32."""

        def __init__(self) -> None:
            super().__init__(name="samples")
            self.sums = self.add_variable((3,), "zeros", dtype="int32", name="sums")

        def update_state(self, y: Any, output: Any, sample_weight: Any = None) -> None:
            y = ops.cast(ops.reshape(y, (-1,)), "int32")
            one = [ops.sum(ops.ones_like(y)), ops.sum(y), ops.sum(y * _HASH % _PRIME)]
            self.sums.assign(self.sums + ops.cast(ops.stack(one), "int32"))

        def result(self) -> dict[str, Any]:
            return {name: self.sums[k] for k, name in enumerate(("count", "sum", "hash"))}

    x = image = keras.Input(work.shape, dtype=work.dtype)
    if not work.is_float:
        x = keras.layers.Rescaling(1 / 255)(x)
    x = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x)
    at_once = work.spec.at_once
    model.compile("sgd", loss=_small, metrics=[Samples()], steps_per_execution=at_once)
    return model


def _small(y: Any, output: Any) -> Any:
    """A loss that ignores the labels, since they are sample numbers."""
    from keras import ops

    return ops.mean(ops.square(output), -1)


# Sums over 50,000 samples stay below 2**31.
_HASH, _PRIME = 7919, 10007


def check_logs(logs: dict[str, Any], work: Work) -> None:
    """The values that the metrics of `model_of` must have after an epoch."""
    y = work.labels
    wanted = {"count": len(y), "sum": int(y.sum()), "hash": int((y * _HASH % _PRIME).sum())}
    got = {name: int(logs[name]) for name in wanted}
    if got != wanted:
        raise AssertionError(f"fit saw {got}, expected {wanted}")
