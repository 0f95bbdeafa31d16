"""Made-up figures for tests of the verdict: photographs that take 2 ms to decode, on 8 cores."""

from __future__ import annotations

import dataclasses

from kloaders.diagnostics.explain.measured import Measured, Run, Settings

SETTINGS = Settings(
    samples=100_000,
    batch_size=32,
    cores=8,
    workers=8,
    sample_bytes=150_000,
    raw_bytes=150_000,
    stored_bytes=100_000.0,
    free_bytes=2**40,
    files_fit=True,
)
# Photographs that take 2 ms to decode, on 8 cores.
DECODING = Measured(
    SETTINGS,
    read_s=1e-4,
    read_cached_s=1e-5,
    decode_s=2e-3,
    copy_s=1e-5,
    cold=Run(3700, 7.8),
    warm=Run(3900, 7.9),
    ram=Run(300_000, 7.0),
    disk_rate=20_000,
    disk_rate_more=21_000,
)


def figures(settings=None, **values):
    """DECODING, with some of its figures changed."""
    changed = dataclasses.replace(SETTINGS, **(settings or {}))
    return dataclasses.replace(DECODING, settings=changed, **values)


def settings_of(found):
    return [advice.setting for advice in found.advice]
