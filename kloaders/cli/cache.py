"""The command for download caches: list, check, clear."""

from __future__ import annotations

import os
import sys
import time

import click

__all__ = ["cache_command"]


@click.command("cache")
@click.argument("folder")
@click.option("--check", is_flag=True, help="Read all files, and compare checksums.")
@click.option("--clear", is_flag=True, help="Delete all files that no process uses.")
def cache_command(folder: str, check: bool, clear: bool) -> None:
    """List, check or clear a download cache.

    FOLDER is the folder that was passed to a loader as `download_cache=`. Only files written by a
    loader are deleted, and no file that a process is using.

    \b
    Exit code: 0 no damage, 1 damaged files (they are downloaded again when needed), 2 not a cache.

    \b
    Examples:
        kloaders cache downloads/
        kloaders cache downloads/ --check
        kloaders cache downloads/ --clear
    """  # noqa: D301 (\b is for click)
    from kloaders.core.memory import format_bytes
    from kloaders.core.messages import visible
    from kloaders.places import segments as cached

    if not os.path.exists(os.path.join(folder, cached.MARKER)):
        raise click.UsageError(
            f"{visible(folder)} is not a download cache: pass the folder that a loader got as "
            "download_cache=."
        )
    if clear:
        gone, stay = cached.clear(folder)
        used = f", {format_bytes(stay)} are in use and were kept" if stay else ""
        click.echo(f"{folder}: {format_bytes(gone)} deleted{used}")
        return
    segments = sorted(cached.segments_of(folder))
    sets: dict[str, list[cached.Segment]] = {}
    for segment in segments:
        sets.setdefault(segment.data, []).append(segment)
    bad = 0
    for data, own in sets.items():
        size = sum(segment.size for segment in own)
        last = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(one.used for one in own)))
        said = f"data set {data}: {format_bytes(size)}, last written {last}"
        if check:
            found = [cached.damaged_in(folder, segment) for segment in own]
            whole, damaged = (sum(counts) for counts in zip(*found, strict=True))
            bad += damaged
            said += f", {whole:,} objects intact, {damaged:,} damaged"
        click.echo(said)
    total = format_bytes(sum(segment.size for segment in segments))
    click.echo(f"{folder}: {total} in total")
    if bad:
        sys.exit(1)
