"""Compares Keras' own image loaders with the replacements in kloaders.migrate: same calls, same files.

python benchmarks/migrate.py

JPEG files of 0.1 to 0.3 megapixels become float32 batches of 32 images of 224 x 224. Rounds are
interleaved, with one epoch of each loader in turn; the first round is a warm-up and not timed. All
batches are counted, and the first image of kloaders is compared with that of Keras.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import data
import keras
import machine
import numpy as np
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from kloaders import migrate

SIZE = (data.SIDE, data.SIDE)
Epoch = Callable[[], Iterator[Any]]


def by_index(flow: Any) -> Epoch:
    return lambda: (flow[k] for k in range(len(flow)))


def by_loader(loader: Any) -> Epoch:
    return lambda: loader.epoch_batches(0, False)


def contestants(folder: str) -> dict[str, dict[str, Epoch]]:
    """For each function of Keras, the loaders that replace it, Keras' own first."""
    generator = {"target_size": SIZE, "class_mode": "sparse", "shuffle": False}
    dataset = {"image_size": SIZE, "shuffle": False}
    scaled = {"rescale": 1 / 255}
    ours = migrate.ImageDataGenerator(**scaled)
    own = ImageDataGenerator(**scaled)
    made: dict[str, dict[str, Epoch]] = {}
    for name in ("nearest", "bilinear"):
        options = {**generator, "interpolation": name}
        made[f"ImageDataGenerator, {name}"] = {
            "Keras": by_index(own.flow_from_directory(folder, **options)),
            "ours, every file read": by_loader(
                ours.flow_from_directory(folder, **options, cache=None)
            ),
            "ours, files kept in RAM": by_loader(ours.flow_from_directory(folder, **options)),
        }
    theirs = keras.utils.image_dataset_from_directory(folder, verbose=False, **dataset)
    made["image_dataset_from_directory"] = {
        "Keras": lambda: iter(theirs),
        "ours, every file read": by_loader(
            migrate.image_dataset_from_directory(folder, **dataset, cache=None)
        ),
        "ours, files kept in RAM": by_loader(
            migrate.image_dataset_from_directory(folder, **dataset)
        ),
    }
    return made


def timed(epoch: Epoch, files: int) -> tuple[float, np.ndarray[Any, Any]]:
    """Images per second, and the first image."""
    begin, seen, first = time.perf_counter(), 0, None
    for x, _ in epoch():
        if first is None:
            first = np.asarray(x)[0]
        seen += len(x)
    assert seen == files, f"{seen} pictures, expected {files}"
    assert first is not None
    return files / (time.perf_counter() - begin), first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", metavar="FOLDER", help="your own .jpg files")
    parser.add_argument("--files", type=int, default=400, help="how many (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kloaders-migrate-") as folder:
        data.photographs(f"{folder}/photos/all", args.files, args.data)
        calls = contestants(f"{folder}/photos")
        rates: dict[tuple[str, str], list[float]] = {}
        for number in range(args.rounds + 1):
            for call, ways in calls.items():
                pictures = {}
                for way, epoch in ways.items():
                    rate, pictures[way] = timed(epoch, args.files)
                    if number:
                        rates.setdefault((call, way), []).append(rate)
                for way, picture in pictures.items():
                    off = np.abs(picture - pictures["Keras"]).mean() / pictures["Keras"].max()
                    assert off < 0.01, f"{call}, {way}: another picture"
    print("| | images per second | slowest and quickest | beside Keras |")
    print("| --- | --- | --- | --- |")
    for (call, way), found in rates.items():
        keras_own = statistics.median(rates[call, "Keras"])
        middle = statistics.median(found)
        print(
            f"| {call}: {way} | {middle:,.0f} | {min(found):,.0f} to {max(found):,.0f} "
            f"| {middle / keras_own:.1f} |"
        )
    print(f"\n{machine.in_words()}")
    if args.json:
        rows = [{"call": c, "way": w, "rates": found} for (c, w), found in rates.items()]
        Path(args.json).write_text(
            json.dumps({"about": machine.describe(), "results": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
