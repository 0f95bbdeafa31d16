"""Tar files by Python's own tarfile, for tests of what reads them."""

from __future__ import annotations

import io
import json
import tarfile

import cv2
import numpy as np


def write_tar(path, members, kind=tarfile.PAX_FORMAT):
    """A tar file of members, name to content; None: a folder. Gives its path as a text."""
    with tarfile.open(path, "w", format=kind) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return str(path)


def npy_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png_bytes(picture):
    """An RGB picture as PNG."""
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()


def shards(folder, rows, pictures, count=3):
    """Numbered samples in some tar files: `.npy`, `.png`, `.cls`, `.json` and `.txt`; their pattern."""
    for k, numbers in enumerate(np.array_split(np.arange(len(rows)), count)):
        members = {}
        for n in numbers.tolist():
            members |= {
                f"{n:05}.npy": npy_bytes(rows[n]),
                f"{n:05}.png": png_bytes(pictures[n]),
                f"{n:05}.cls": str(n).encode(),
                f"{n:05}.json": json.dumps({"number": n, "half": [n / 2]}).encode(),
                f"{n:05}.txt": ("odd" if n % 2 else "even").encode(),
            }
        write_tar(folder / f"s-{k:03}.tar", members)
    return str(folder / f"s-{{000..{count - 1:03}}}.tar")
