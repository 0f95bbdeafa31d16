"""Measurements of a loader and a model: numbers only."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Measured", "Run", "Settings"]


@dataclass(frozen=True)
class Run:
    """A loader running by itself for a while.

    Attributes:
        rate: samples per second.
        busy: cores that this process kept busy, on average.
        inline: batches were cheap enough to be made in the calling thread.
        decoding: share of their time that Ray actors worked; None if there are none.
    """

    rate: float
    busy: float = 1.0
    inline: bool = False
    decoding: float | None = None


@dataclass(frozen=True)
class Settings:
    """Properties of the loader and the machine that matter for speed."""

    samples: int
    batch_size: int
    cores: int
    workers: int
    processes: bool = False
    has_transform: bool = False
    #: Whether a sample needs a user's function, which may hold the GIL.
    users_code: bool = False
    #: Whether `cache=` can keep its samples: they come from files or hooks.
    cacheable: bool = True
    cache: str | None = "auto"
    #: Bytes of a sample: as delivered, as decoded (before the transform), and of its files.
    sample_bytes: int = 0
    raw_bytes: int = 0
    stored_bytes: float | None = None
    #: x is delivered with more bytes per value than it is decoded with.
    widened: float = 1.0
    free_bytes: int = 0
    #: Share of the samples that the cache holds after the first epoch.
    kept: float = 0.0
    #: Whether the system can hold all files in memory.
    files_fit: bool = True
    #: Whether samples are fetched by URL; and whether a cache on a local disk keeps them.
    remote: bool = False
    downloads_kept: bool = False
    #: Number of Ray actors that make batches; 0: this machine does.
    decoders: int = 0


@dataclass(frozen=True)
class Measured:
    """The measurements, in seconds per sample in one thread, unless the name says otherwise."""

    settings: Settings
    #: Waiting for a file that is not in memory, and reading one that is; None: no files to read.
    read_s: float | None = None
    read_cached_s: float = 0.0
    decode_s: float = 0.0
    transform_s: float = 0.0
    copy_s: float = 0.0
    #: Decoding with dct_scaling=True, if that makes a difference.
    dct_decode_s: float | None = None
    #: The share of a core that one thread got: less than 1 if others use the machine.
    alone_busy: float = 1.0
    #: The loader with files from disk, with files in memory, with decoded samples in RAM.
    cold: Run | None = None
    warm: Run | None = None
    ram: Run | None = None
    #: Files per second by threads that only read: as many as the loader has, and more.
    disk_rate: float | None = None
    disk_rate_more: float | None = None
    #: While the loader ran alone: seconds per requested object, and concurrent requests.
    request_s: float | None = None
    requests: float = 0.0
    #: The model, in seconds per batch: a step on an existing batch, the CPU time of it,
    #: moving a batch to the device, and a step of a fit on this loader.
    step_s: float | None = None
    step_cpu_s: float | None = None
    to_device_s: float | None = None
    fit_s: float | None = None
    #: The source of the last four: "model", "fit" or None.
    model_from: str | None = None
    #: Number of samples read, and seconds that measuring took.
    probed: int = 0
    seconds: float = 0.0
