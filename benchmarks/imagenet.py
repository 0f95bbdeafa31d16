"""Measures W9, the ImageNet recipe: photographs of any size, a random crop resized to 224, a flip, uint8, shuffled.

python benchmarks/imagenet.py                      # all that is installed
python benchmarks/imagenet.py --rounds 5 --data ~/photos
python benchmarks/imagenet.py --python DALI=dali/bin/python FFCV=ffcv/bin/python   # these in environments of their own

DALI: pip install nvidia-dali-cuda120 opencv-python-headless psutil tqdm (450 MB; no GPU is needed). FFCV is built:
apt-get install pkg-config g++ libturbojpeg0-dev libopencv-dev; pip install torch opencv-python-headless psutil
numba terminaltables pytorch_pfn_extras fastargs assertpy tqdm pandas "setuptools<81" wheel; then
pip install --no-build-isolation --no-deps ffcv.

Every run is a separate process, and rounds are interleaved. Rows marked `kept` may cache data in RAM. The limit
is the time in which one thread decodes and crops whole photographs, in reused memory.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import cv2
import data
import machine
import numpy as np

SIDE, BATCH = data.SIDE, 32
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)

Epochs = Callable[[int], Iterator[Any]]
CONTESTANTS: dict[str, Callable[[list[str], int], Epochs]] = {}


def takes_part(name: str) -> Callable[[Callable[..., Epochs]], Callable[..., Epochs]]:
    """Register a function that makes a contestant from the paths and the number of workers."""

    def register(make: Callable[..., Epochs]) -> Callable[..., Epochs]:
        CONTESTANTS[name] = make
        return make

    return register


def window(height: int, width: int, rng: Any) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop of 8 to 100 % of the area, 3:4 to 4:3."""
    for _ in range(10):
        area = height * width * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def finished(part: Any, rng: Any) -> Any:
    """A window resized to 224 x 224, and flipped half of the time."""
    image = cv2.resize(part, (SIDE, SIDE))
    return cv2.flip(image, 1) if rng.random() < 0.5 else image


def cropped(image: Any, rng: Any) -> Any:
    """A random window of an image, resized and flipped."""
    top, left, height, width = window(*image.shape[:2], rng)
    return finished(image[top : top + height, left : left + width], rng)


# ----------------------------------------------------------------------------------------- kloaders


def ours(paths: list[str], cache: str | None, whole: bool) -> Epochs:
    import kloaders as kl

    if not whole:
        from nvidia import nvimgcodec  # noqa: F401  the row is left out where it is missing

    def whole_decoded(x: Any, y: Any, rng: Any) -> Any:
        return cropped(x, rng), y

    def window_decoded(x: Any, y: Any, rng: Any) -> Any:
        part = kl.decode_and_crop(x, lambda height, width: window(height, width, rng))
        return finished(part, rng), y

    loader = kl.PathSequenceLoader(
        paths,
        np.arange(len(paths)),
        BATCH,
        decode=None if whole else kl.keep_encoded,
        transform=whole_decoded if whole else window_decoded,
        shuffle=True,
        seed=1,
        cache=cache,
    )
    return lambda _: iter(loader)


@takes_part("kloaders, whole photographs")
def kloaders_whole(paths: list[str], workers: int) -> Epochs:
    return ours(paths, None, whole=True)


@takes_part("kloaders, decode_and_crop")
def kloaders_window(paths: list[str], workers: int) -> Epochs:
    return ours(paths, None, whole=False)


@takes_part("kloaders, decode_and_crop, files kept in RAM")
def kloaders_window_kept(paths: list[str], workers: int) -> Epochs:
    return ours(paths, "ram", whole=False)


@takes_part("kloaders, decoded photographs kept in RAM")
def kloaders_kept(paths: list[str], workers: int) -> Epochs:
    return ours(paths, "ram", whole=True)


# ----------------------------------------------------------------------------------------- limit


@takes_part("limit: full decode + crop, one thread")
def limit(paths: list[str], workers: int) -> Epochs:
    raws = [np.frombuffer(Path(path).read_bytes(), np.uint8) for path in paths]
    rng = np.random.default_rng(0)

    def epoch(number: int) -> Iterator[Any]:
        out = np.empty((BATCH, SIDE, SIDE, 3), np.uint8)
        numbers = rng.permutation(len(raws))
        for first in range(0, len(raws), BATCH):
            some = numbers[first : first + BATCH]
            for row, k in enumerate(some):
                out[row] = cropped(cv2.imdecode(raws[k], cv2.IMREAD_COLOR), rng)
            yield out[: len(some)], some

    return epoch


# ----------------------------------------------------------------------------------------- tf.data


def tf_data(paths: list[str], kept: bool) -> Epochs:
    import tensorflow as tf

    def read(path: Any, label: Any) -> Any:
        return tf.io.read_file(path), label

    def decode(raw: Any, label: Any) -> Any:
        shape = tf.io.extract_jpeg_shape(raw)
        box = tf.reshape(tf.constant([0.0, 0.0, 1.0, 1.0]), (1, 1, 4))
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            shape,
            box,
            min_object_covered=0.1,
            aspect_ratio_range=RATIO,
            area_range=AREA,
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        cut = tf.stack([begin[0], begin[1], size[0], size[1]])
        image = tf.io.decode_and_crop_jpeg(raw, cut, channels=3)
        image = tf.image.random_flip_left_right(tf.image.resize(image, (SIDE, SIDE)))
        return tf.cast(tf.round(image), tf.uint8), label

    dataset = tf.data.Dataset.from_tensor_slices((paths, np.arange(len(paths))))
    if kept:
        dataset = dataset.map(read, tf.data.AUTOTUNE).cache()
        dataset = dataset.shuffle(len(paths)).map(decode, tf.data.AUTOTUNE)
    else:
        dataset = dataset.shuffle(len(paths)).map(read, tf.data.AUTOTUNE)
        dataset = dataset.map(decode, tf.data.AUTOTUNE)
    dataset = dataset.batch(BATCH).prefetch(tf.data.AUTOTUNE)
    return lambda _: iter(dataset)


@takes_part("tf.data, decode_and_crop_jpeg")
def tf_data_plain(paths: list[str], workers: int) -> Epochs:
    return tf_data(paths, kept=False)


@takes_part("tf.data, cache() of the files")
def tf_data_kept(paths: list[str], workers: int) -> Epochs:
    return tf_data(paths, kept=True)


# ----------------------------------------------------------------------------------------- PyTorch


class Photographs:
    """A map-style dataset of PyTorch."""

    def __init__(self, paths: list[str], by: str) -> None:
        self.paths, self.by = paths, by
        if by == "albumentations":
            import albumentations

            self.augment = albumentations.Compose(
                [
                    albumentations.RandomResizedCrop((SIDE, SIDE), AREA, RATIO),
                    albumentations.HorizontalFlip(),
                ]
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, k: int) -> Any:
        image = cv2.imread(self.paths[k])
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
        if self.by == "albumentations":
            return self.augment(image=image)["image"], k
        return cropped(image, np.random.default_rng()), k


def torch_loader(paths: list[str], workers: int, by: str) -> Epochs:
    from torch.utils.data import DataLoader

    loader = DataLoader(
        Photographs(paths, by), BATCH, shuffle=True, num_workers=workers, persistent_workers=True
    )
    return lambda _: iter(loader)


@takes_part("torch DataLoader, OpenCV")
def torch_opencv(paths: list[str], workers: int) -> Epochs:
    return torch_loader(paths, workers, "opencv")


@takes_part("torch DataLoader, albumentations")
def torch_albumentations(paths: list[str], workers: int) -> Epochs:
    return torch_loader(paths, workers, "albumentations")


# ----------------------------------------------------------------------------------------- Grain


@takes_part("Grain, OpenCV, threads")
def grain(paths: list[str], workers: int) -> Epochs:
    from grain.python import MapDataset, ReadOptions

    def load(k: int, rng: Any) -> Any:
        image = cv2.imread(paths[k])
        return cropped(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), rng), k

    def epoch(number: int) -> Iterator[Any]:
        dataset = MapDataset.range(len(paths)).shuffle(seed=number).seed(number).random_map(load)
        return iter(dataset.to_iter_dataset(ReadOptions(num_threads=workers)).batch(BATCH))

    return epoch


# ----------------------------------------------------------------------------------------- DALI


@takes_part("DALI on the CPU, decoders.image_random_crop")
def dali(paths: list[str], workers: int) -> Epochs:
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=workers, device_id=None, seed=1)
    def pipe() -> Any:
        raw, number = fn.readers.file(
            files=paths,
            labels=list(range(len(paths))),
            random_shuffle=True,
            initial_fill=len(paths),
            pad_last_batch=True,
            name="files",
        )
        image = fn.decoders.image_random_crop(
            raw,
            device="cpu",
            output_type=types.RGB,
            random_area=list(AREA),
            random_aspect_ratio=list(RATIO),
        )
        image = fn.resize(
            image, size=(SIDE, SIDE), interp_type=types.INTERP_LINEAR, antialias=False
        )
        return fn.flip(image, horizontal=fn.random.coin_flip()), number

    made = pipe()
    made.build()

    def epoch(number: int) -> Iterator[Any]:
        left = len(paths)
        while left:
            x, y = (part.as_array() for part in made.run())
            rest = x[:left], y[:left, 0]
            left -= len(rest[0])
            yield rest

    return epoch


# ----------------------------------------------------------------------------------------- FFCV


class Numbered:
    """A dataset of photographs for FFCV's writer."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, k: int) -> Any:
        image = cv2.imread(self.paths[k])
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), k


@takes_part("FFCV, its own file of JPEGs")
def ffcv(paths: list[str], workers: int) -> Epochs:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, ToTensor
    from ffcv.writer import DatasetWriter

    file = Path(paths[0]).parents[1] / "photographs.beton"
    if not file.exists():
        fields = {"x": RGBImageField(write_mode="jpg", jpeg_quality=95), "y": IntField()}
        part = file.with_suffix(".part")
        DatasetWriter(str(part), fields, num_workers=workers).from_indexed_dataset(Numbered(paths))
        part.rename(file)
    crop = RandomResizedCropRGBImageDecoder((SIDE, SIDE), AREA, RATIO)
    loader = Loader(
        str(file),
        batch_size=BATCH,
        num_workers=workers,
        os_cache=True,
        order=OrderOption.RANDOM,
        drop_last=False,
        pipelines={
            "x": [crop, RandomHorizontalFlip(), ToTensor()],
            "y": [IntDecoder(), ToTensor()],
        },
    )
    return lambda _: ((x, y[:, 0]) for x, y in loader)


# ----------------------------------------------------------------------------------------- measuring


def run(name: str, paths: list[str], workers: int, seconds: float) -> dict[str, float]:
    """Run one contestant in this process: samples per second, and CPU seconds including children."""
    epochs = CONTESTANTS[name](paths, workers)

    def one(number: int) -> None:
        seen = []
        for x, y in epochs(number):
            x, y = np.asarray(x), np.asarray(y)  # noqa: PLW2901  tensors of all kinds
            assert (x.shape[1:], x.dtype) == ((SIDE, SIDE, 3), np.uint8), (x.shape, x.dtype)
            seen.extend(y.tolist())
        assert sorted(seen) == list(range(len(paths))), "not every photograph came once"

    one(0)  # not timed: threads start, caches fill
    begin, cpu, samples, number = time.perf_counter(), machine_cpu(), 0, 0
    while time.perf_counter() - begin < seconds:
        number += 1
        one(number)
        samples += len(paths)
    passed = time.perf_counter() - begin
    return {"rate": samples / passed, "cpu_us": (machine_cpu() - cpu) / samples * 1e6}


def machine_cpu() -> float:
    """CPU seconds of this process and of its children, including running ones."""
    import psutil

    me = psutil.Process()
    found = 0.0
    for process in (me, *me.children(recursive=True)):
        times = process.cpu_times()
        found += times.user + times.system
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", metavar="FOLDER", help="your own .jpg files")
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument(
        "--only", nargs="*", help="only contestants whose names contain one of these"
    )
    parser.add_argument(
        "--python",
        nargs="*",
        default=[],
        metavar="NAME=PATH",
        help="the interpreter for contestants whose names begin with NAME",
    )
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    args = parser.parse_args()
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    if args.run:
        paths = sorted(str(path) for path in Path(args.data).iterdir())
        print("RESULT", json.dumps(run(args.run, paths, workers, args.seconds)), flush=True)
        os._exit(0)  # some contestants wait for their threads
    names = [n for n in CONTESTANTS if not args.only or any(o in n for o in args.only)]
    found: dict[str, list[dict[str, float]]] = {}
    reasons: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="kloaders-imagenet-") as folder:
        photographs = f"{folder}/jpegs"
        data.photographs(photographs, args.files, args.data)
        for _ in range(args.rounds):
            for name in [n for n in names if n not in reasons]:
                others = [one.partition("=") for one in args.python]
                python = [path for begin, _, path in others if name.startswith(begin)]
                command = [*python, sys.executable][:1]
                command += [__file__, "--run", name, "--data", photographs]
                command += ["--seconds", str(args.seconds)]
                ended = subprocess.run(command, capture_output=True, text=True, check=False)
                lines = [x for x in ended.stdout.splitlines() if x.startswith("RESULT")]
                if lines:
                    found.setdefault(name, []).append(json.loads(lines[-1][7:]))
                else:
                    reasons[name] = (ended.stderr.strip().splitlines() or ["no output"])[-1]
    table(found)
    for name, reason in reasons.items():
        print(f"\n{name}: left out, {reason:.200}")
    print(f"\n{machine.in_words()}")
    if args.json:
        about = {"about": machine.describe(), "results": found, "left out": reasons}
        Path(args.json).write_text(json.dumps(about, indent=1) + "\n")


def table(found: dict[str, list[dict[str, float]]]) -> None:
    """Medians; the best rate first."""
    middle = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in found.items()
    }
    floor = next((row["cpu_us"] for name, row in middle.items() if name.startswith("limit")), 0.0)
    best = max((row["rate"] for row in middle.values()), default=1.0)
    print(
        "| | photographs/s | relative to the best | CPU us per photograph "
        "| CPU relative to the limit |"
    )
    print("| --- | --- | --- | --- | --- |")
    for name, row in sorted(middle.items(), key=lambda item: -item[1]["rate"]):
        share = f"{row['cpu_us'] / floor:.2f}" if floor else "-"
        print(
            f"| {name} | {row['rate']:.0f} | {row['rate'] / best:.2f} | {row['cpu_us']:.0f} | {share} |"
        )


if __name__ == "__main__":
    main()
