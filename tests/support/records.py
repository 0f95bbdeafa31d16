"""Files of records, and functions that read them."""

import os

from kloaders.formats.errors import DecodeError

DATA = [b"first", b"", bytes(300), os.urandom(70_000), b"middle" * 9, os.urandom(40_000), b"last"]


def read_all(files):
    """Data, or the message, of each record."""
    found = []
    for k in range(len(files)):
        try:
            found.append(files.read(k))
        except DecodeError as error:
            found.append(str(error))
    return found


def index_path(path):
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.index")
