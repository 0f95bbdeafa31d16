"""Measurements of a loader and a model: numbers only."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Measured", "Run", "Settings"]


@dataclass(frozen=True)
class Run:
    """The measurement of a loader that runs alone, without a model.

    Attributes:
        rate: samples per second.
        busy: the average number of cores that this process kept busy.
        inline: whether batches were so cheap that the calling thread made them.
        decoding: the share of the time that Ray actors worked; None without Ray actors.
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
    #: Whether the transform turns bytes into an image, which no layer of a model does.
    transform_decodes: bool = False
    #: Whether loading a sample calls a user's function, which may hold the GIL.
    users_code: bool = False
    #: Whether `cache=` can keep the samples, since they come from files or hooks.
    cacheable: bool = True
    cache: str | None = "auto"
    #: Bytes of a sample: as delivered, as decoded (before the transform), and as stored in its files.
    sample_bytes: int = 0
    raw_bytes: int = 0
    stored_bytes: float | None = None
    #: Bytes per value of x as delivered, divided by bytes per value as decoded.
    widened: float = 1.0
    free_bytes: int = 0
    #: Share of the samples that the cache holds after the first epoch.
    kept: float = 0.0
    #: Whether all files fit in the page cache.
    files_fit: bool = True
    #: Whether samples are fetched by URL; and whether a cache on a local disk keeps them.
    remote: bool = False
    downloads_kept: bool = False
    #: The number of Ray actors that make batches; 0 if this machine makes them.
    decoders: int = 0


@dataclass(frozen=True)
class Measured:
    """The measurements, in seconds per sample in one thread, unless the name says otherwise."""

    settings: Settings
    #: Reading a file that is not in the page cache, and one that is; None without files.
    read_s: float | None = None
    read_cached_s: float = 0.0
    decode_s: float = 0.0
    transform_s: float = 0.0
    copy_s: float = 0.0
    #: Decoding with dct_scaling=True, if that makes a difference.
    dct_decode_s: float | None = None
    #: The share of a core that one thread got; below 1 if other programs use the machine.
    alone_busy: float = 1.0
    #: The loader with files from disk, with files in the page cache, with decoded samples in RAM.
    cold: Run | None = None
    warm: Run | None = None
    ram: Run | None = None
    #: Files per second of threads that only read: with as many threads as the loader has, and with more.
    disk_rate: float | None = None
    disk_rate_more: float | None = None
    #: While the loader ran alone: seconds per requested object, and concurrent requests.
    request_s: float | None = None
    requests: float = 0.0
    #: The model, in seconds per batch: a step on a batch in memory, the CPU time of that step,
    #: copying a batch to the device, and a step of a fit on this loader.
    step_s: float | None = None
    step_cpu_s: float | None = None
    to_device_s: float | None = None
    fit_s: float | None = None
    #: Where the last four come from: "model", "fit" or None.
    model_from: str | None = None
    #: Number of samples read, and seconds that measuring took.
    probed: int = 0
    seconds: float = 0.0
