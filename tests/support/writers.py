"""Two processes that write one download cache, killed while they do."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from kloaders.places.segments import damaged_in, segments_of


def used(folder: Path) -> int:
    """Bytes of all segments."""
    return sum(segment.size for segment in segments_of(str(folder)))


def killed_while_they_write(folder: Path, program: str, least: int, most: int) -> None:
    """Run a program twice, with the folder `c` and a letter each; it begins after a line on stdin.

    The first is killed when both have begun to write, the second when the folder holds `least` bytes.
    """
    script = folder / "writer.py"
    script.write_text(program)
    writers = [
        subprocess.Popen(
            [sys.executable, script, folder / "c", letter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for letter in "xy"
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
        deadline = time.monotonic() + 20
        while len(segments_of(str(folder / "c"))) < 2 and time.monotonic() < deadline:
            assert used(folder / "c") <= most
            if used(folder / "c") >= least:
                break
        writers[0].kill()
        while used(folder / "c") < least and time.monotonic() < deadline:
            pass
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            for pipe in (writer.stdin, writer.stdout):
                assert pipe is not None
                pipe.close()
    assert least <= used(folder / "c") <= most
    found = [damaged_in(str(folder / "c"), one) for one in segments_of(str(folder / "c"))]
    assert sum(whole for whole, _ in found)
    assert not sum(damaged for _, damaged in found)
