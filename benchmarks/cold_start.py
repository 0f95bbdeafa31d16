"""Measures the cold start, from import to first batch, of kloaders, Keras, Hugging Face and torchvision.

python benchmarks/cold_start.py

The data are 100,000 JPEG files in 100 folders, a table of a million rows that lists each file by ten
paths, as CSV and as Parquet, 1,000 TFRecord files and a pack. Each run is a separate process. The time
starts after the import of Keras (or torch, for PyTorch), and ends with a batch of 32. Rounds are
interleaved, and follow a warm-up round with few files.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import machine

CLASSES, BATCH, SIDE, COPIES = 100, 32, 32, 10
# A contestant that takes longer runs once.
SLOW_SECONDS = 10.0


# ---------------------------------------------------------------------- contestants


def ours(make: Callable[..., Any], **options: Any) -> Callable[[str], Any]:
    """make(kl, folder, **options) -> a loader."""

    def run(folder: str) -> Any:
        import kloaders as kl

        kl.SequenceLoader  # noqa: B018  loads what every loader needs
        done("import")
        batch = make(kl, folder, **options)[0]
        return batch[0] if isinstance(batch, tuple) else batch

    return run


def keras_folder(folder: str) -> Any:
    import keras

    done("import")
    dataset = keras.utils.image_dataset_from_directory(
        f"{folder}/photos", image_size=(SIDE, SIDE), batch_size=BATCH, seed=1, verbose=False
    )
    return next(iter(dataset))[0].numpy()


def hugging_face(folder: str) -> Any:
    import datasets
    import numpy as np

    done("import")
    datasets.disable_progress_bars()
    dataset = datasets.load_dataset(
        "imagefolder", data_dir=f"{folder}/photos", split="train", cache_dir=f"{folder}/cache"
    )
    rows = dataset.shuffle(seed=1)[:BATCH]
    return np.stack([np.asarray(image) for image in rows["image"]])


def torchvision_folder(folder: str) -> Any:
    import torch

    if not torch.backends.cuda.is_built():  # PyPI's torchvision then lacks its C++ part
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    done("import")
    loader = torch.utils.data.DataLoader(
        ImageFolder(f"{folder}/photos", ToTensor()), batch_size=BATCH, shuffle=True
    )
    return next(iter(loader))[0].numpy()


def no_cache(folder: str) -> None:
    shutil.rmtree(f"{folder}/cache", ignore_errors=True)


def no_indexes(folder: str) -> None:
    for index in Path(folder, "records").glob(".*.index"):
        index.unlink()


def nothing(folder: str) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Contestant:
    """One library with one kind of data.

    before: a function that prepares the data. needs: packages; the first is the framework.
    """

    kind: str
    name: str
    run: Callable[[str], Any]
    needs: tuple[str, ...] = ("keras",)
    before: Callable[[str], None] = nothing


def from_folder(kl: Any, at: str, **options: Any) -> Any:
    train, _ = kl.from_directory(f"{at}/photos", size=(SIDE, SIDE), shuffle=True, seed=1, **options)
    return train


def from_table(kl: Any, at: str, name: str, **options: Any) -> Any:
    train, _ = kl.from_dataframe(
        f"{at}/{name}", "path", "label", folder=at, shuffle=True, seed=1, **options
    )
    return train


def from_records(kl: Any, at: str) -> Any:
    return kl.TFRecordSequenceLoader(f"{at}/records/*.tfrecord", None, BATCH, shuffle=True, seed=1)


def from_pack(kl: Any, at: str) -> Any:
    return kl.PackSequenceLoader(f"{at}/pack", BATCH, shuffle=True, seed=1)


WHOLE: dict[str, Any] = {"validation": None}
PHOTOS, TABLE, RECORDS, PACK = "files of a folder", "rows of a table", "TFRecord files", "pack"
CONTESTANTS = [
    Contestant(PHOTOS, "kloaders", ours(from_folder, **WHOLE)),
    Contestant(PHOTOS, "kloaders, a fifth for validation", ours(from_folder)),
    Contestant(
        PHOTOS, "keras image_dataset_from_directory", keras_folder, ("keras", "tensorflow")
    ),
    Contestant(PHOTOS, "torchvision ImageFolder", torchvision_folder, ("torch", "torchvision")),
    Contestant(PHOTOS, "HF imagefolder, first run", hugging_face, ("torch", "datasets"), no_cache),
    Contestant(PHOTOS, "HF imagefolder, later runs", hugging_face, ("torch", "datasets")),
    Contestant(TABLE, "kloaders, CSV", ours(from_table, name="table.csv", **WHOLE)),
    Contestant(
        TABLE, "kloaders, CSV, a fifth for validation", ours(from_table, name="table.csv")
    ),
    Contestant(
        TABLE, "kloaders, Parquet", ours(from_table, name="table.parquet", **WHOLE),
        ("keras", "pyarrow"),
    ),
    Contestant(RECORDS, "kloaders, first run", ours(from_records), before=no_indexes),
    Contestant(RECORDS, "kloaders, later runs", ours(from_records)),
    Contestant(PACK, "kloaders", ours(from_pack)),
]  # fmt: skip


# ---------------------------------------------------------------------- one run, in its own process


marks: dict[str, tuple[float, float]] = {}


def done(what: str) -> None:
    """Record the time, and the CPU time of this process and its children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    marks[what] = time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)


def run_here(number: int, folder: str) -> None:
    one = CONTESTANTS[number]
    importlib.import_module(one.needs[0])
    done("begin")
    batch = one.run(folder)
    done("batch")
    assert len(batch) == BATCH, batch.shape
    spent = {what: [marks[what][k] - marks["begin"][k] for k in (0, 1)] for what in marks}
    print(json.dumps({"wall": spent["batch"][0], "cpu": spent["batch"][1],
                      "import": spent["import"][1]}))  # fmt: skip


def run_apart(number: int, folder: str) -> dict[str, float]:
    CONTESTANTS[number].before(folder)
    # As on a user's machine: bytecode is compiled once, not in each process.
    own = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    said = subprocess.run(
        [sys.executable, __file__, "--run", str(number), folder],
        env={**own, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if said.returncode:
        sys.exit(f"{CONTESTANTS[number].name}: {said.stderr[-2000:]}")
    found: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    return found


# ---------------------------------------------------------------------- data


def make_data(folder: str, files: int, shards: int) -> dict[str, int]:
    """Write all data below `folder`; return the number of items of each kind."""
    import cv2
    import numpy as np

    import kloaders as kl

    draw = np.random.default_rng(1)
    classes = min(CLASSES, files // 20)
    names = [f"class{k % classes:02}/{k:06}.jpg" for k in range(files)]
    for k in range(classes):
        os.makedirs(f"{folder}/photos/class{k:02}")
    image = draw.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    for k, name in enumerate(names):  # many names, but only one file per class on the disk
        if k < classes:
            cv2.imwrite(f"{folder}/photos/{name}", image)
        else:
            os.link(f"{folder}/photos/{names[k % classes]}", f"{folder}/photos/{name}")
    for copy in range(COPIES):
        os.symlink("photos", f"{folder}/copy{copy}")
    paths = [f"copy{copy}/{name}" for copy in range(COPIES) for name in names]
    labels = [name.partition("/")[0] for name in names] * COPIES
    with open(f"{folder}/table.csv", "w") as file:
        file.write("path,label\n")
        file.writelines(f"{path},{label}\n" for path, label in zip(paths, labels, strict=True))
    if importlib.util.find_spec("pyarrow"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"path": paths, "label": labels}), f"{folder}/table.parquet")
    os.mkdir(f"{folder}/records")
    x = draw.integers(0, 256, (20 * shards, 64), np.uint8)
    loader = kl.ArraySequenceLoader(x, np.arange(len(x)), BATCH)
    kl.write_tfrecords(loader, out=f"{folder}/records/part", shards=shards, progress=False)
    kl.write_pack(loader, folder=f"{folder}/pack", progress=False)
    return {PHOTOS: files, TABLE: len(paths), RECORDS: shards, PACK: len(x)}


# ---------------------------------------------------------------------- all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a smoke test: few files, one round")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="parts of names")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run_here(int(args.run[0]), args.run[1])
        return
    chosen = [
        k for k, one in enumerate(CONTESTANTS)
        if not args.only or any(part in f"{one.kind} {one.name}" for part in args.only)
    ]  # fmt: skip
    missing = {
        CONTESTANTS[k].name: name for k in chosen for name in CONTESTANTS[k].needs
        if importlib.util.find_spec(name) is None
    }  # fmt: skip
    chosen = [k for k in chosen if CONTESTANTS[k].name not in missing]
    for name, package in missing.items():
        print(f"skipped, since {package} is not installed: {name}")
    found: dict[int, list[dict[str, float]]] = {k: [] for k in chosen}
    with tempfile.TemporaryDirectory(prefix="kloaders-cold-") as folder:
        few, all_of_them = Path(folder, "few"), Path(folder, "all")
        few.mkdir()
        counts = make_data(str(few), 200, 5)
        if args.quick:
            all_of_them, args.rounds = few, 1
        else:
            for k in chosen:
                run_apart(k, str(few))
            all_of_them.mkdir()
            counts = make_data(str(all_of_them), args.files, args.shards)
        for _ in range(args.rounds):
            for k in chosen:
                if not found[k] or found[k][-1]["wall"] < SLOW_SECONDS:
                    found[k].append(run_apart(k, str(all_of_them)))
    print("| | | CPU s | of these: import | wall s | slowest | runs |")
    print("| --- |" + " --- |" * 6)
    for k in chosen:
        one, runs = CONTESTANTS[k], found[k]
        cpu, alone, wall = (
            statistics.median(run[what] for run in runs) for what in ("cpu", "import", "wall")
        )
        name = f"**{one.name}**" if one.name.startswith("kloaders") else one.name
        slowest = max(run["wall"] for run in runs)
        print(
            f"| {counts[one.kind]:,} {one.kind} | {name} | {cpu:.2f} | {alone:.2f} | {wall:.2f} "
            f"| {slowest:.2f} | {len(runs)} |"
        )
    print(f"\n{machine.in_words()}")
    if args.json:
        rows = [{"kind": CONTESTANTS[k].kind, "name": CONTESTANTS[k].name, "runs": found[k]}
                for k in chosen]  # fmt: skip
        about = {"about": machine.describe(), "results": rows}
        Path(args.json).write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
