"""Data by URL and in other people's formats, beside the same data local and beside the peers' own readers.

python benchmarks/by_url.py --data ~/photos --python /path/to/venv/bin/python --page docs/performance.md

Photographs -> RGB, 224 x 224, uint8, batches of 32, fully shuffled. URLs are served by nginx on this
machine, 20 ms after each request (apt-get install nginx-light libnginx-mod-http-echo). Each contestant is
a process of its own, which lives as long as the benchmark and delivers one epoch whenever it is told to:
rounds are interleaved, and what counts is the median over the rounds of ratios within one round. The first
epoch is not timed. `--page FILE` writes the table between the marks in that file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

BATCH, SIZE, LATENCY, WORKERS = 32, (224, 224), 0.020, 2
MARKS = "<!-- by_url: begin -->\n", "<!-- by_url: end -->"
# What is compared: ours, the other, what the ratio is to be, and in words.
ROWS = [
    ("url", "local", 0.9, "photographs by URL without a cache, compared with local files"),
    (
        "url",
        "fsspec",
        3.0,
        "compared with torch's DataLoader and fsspec (32 requests in flight per worker)",
    ),
    ("url", "fsspec_one", None, "compared with fsspec.open, one file after another"),
    ("cached", "local", 0.97, "from the download cache, compared with local files"),
    (
        "tar",
        "webdataset",
        1.0,
        "tar shards, compared with webdataset (shuffle buffer of all samples)",
    ),
    (
        "parquet",
        "datasets",
        1.0,
        "Parquet, compared with Hugging Face datasets with torch's DataLoader",
    ),
    (
        "mds",
        "streaming",
        1.0,
        "MDS, compared with mosaicml-streaming (py1e) with torch's DataLoader",
    ),
]
Epoch = Callable[[], Iterator[Any]]


# ------------------------------------------------------------------------------------- what is read


def prepare(photos: list[Path], folder: Path) -> None:
    """The photographs in each format; in it the name of a sample is its number."""
    import io
    import tarfile

    (folder / "files").mkdir()
    rows = [path.read_bytes() for path in photos]
    for k, content in enumerate(rows):
        (folder / "files" / f"{k:06}.jpg").write_bytes(content)
    shards = np.array_split(np.arange(len(rows)), 4)
    for number, shard in enumerate(shards):
        with tarfile.open(
            folder / f"shard-{number:02}.tar", "w", format=tarfile.USTAR_FORMAT
        ) as tar:
            for k in shard.tolist():
                for suffix, content in (("jpg", rows[k]), ("cls", str(k).encode())):
                    member = tarfile.TarInfo(f"{k:06}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    with contextlib.suppress(ImportError):
        import pyarrow as pa
        from pyarrow import parquet

        images = [{"bytes": content, "path": f"{k}.jpg"} for k, content in enumerate(rows)]
        table = pa.table({"image": images, "label": list(range(len(rows)))})
        parquet.write_table(table, folder / "photos.parquet", row_group_size=100)
    with contextlib.suppress(ImportError):
        from streaming import MDSWriter

        columns = {"image": "bytes", "label": "int"}
        with MDSWriter(out=str(folder / "mds"), columns=columns, size_limit=2**24) as writer:
            for k, content in enumerate(rows):
                writer.write({"image": content, "label": k})


# -------------------------------------------------------------------------------------- contestants


def _ours(loader: Any) -> Epoch:
    epoch = 0

    def run() -> Iterator[Any]:
        nonlocal epoch
        epoch += 1
        yield from loader.epoch_batches(epoch, shuffle=True)

    return run


def _options() -> dict[str, Any]:
    return {"batch_size": BATCH, "size": SIZE, "seed": 7, "cache": None}


def _paths(folder: Path, server: str) -> tuple[list[str], list[int]]:
    names = sorted(path.name for path in (folder / "files").iterdir())
    begin = f"{server}/files" if server else str(folder / "files")
    return [f"{begin}/{name}" for name in names], list(range(len(names)))


def local(folder: Path, server: str) -> Epoch:
    import kloaders as kl

    return _ours(kl.PathSequenceLoader(*_paths(folder, ""), **_options()))


def url(folder: Path, server: str) -> Epoch:
    import kloaders as kl

    return _ours(kl.PathSequenceLoader(*_paths(folder, server), **_options()))


def cached(folder: Path, server: str) -> Epoch:
    import kloaders as kl

    kept = str(folder / "downloads")
    return _ours(kl.PathSequenceLoader(*_paths(folder, server), download_cache=kept, **_options()))


def tar(folder: Path, server: str) -> Epoch:
    import kloaders as kl

    return _ours(kl.TarSequenceLoader(str(folder / "shard-*.tar"), x="jpg", y="cls", **_options()))


def parquet(folder: Path, server: str) -> Epoch:
    import kloaders as kl

    return _ours(
        kl.ParquetSequenceLoader(str(folder / "photos.parquet"), x="image", y="label", **_options())
    )


def mds(folder: Path, server: str) -> Epoch:
    import kloaders as kl

    return _ours(kl.MDSSequenceLoader(str(folder / "mds"), x="image", y="label", **_options()))


def _decoded(content: bytes) -> Any:
    import cv2

    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA)  # as ours


def _theirs(dataset: Any, **options: Any) -> Epoch:
    import cv2
    from torch.utils.data import DataLoader

    cv2.setNumThreads(1)
    options = {"batch_size": BATCH, "num_workers": WORKERS, "persistent_workers": True, **options}
    loader = DataLoader(dataset, **options)
    return lambda: iter(loader)


class _Fetched:
    """Files by fsspec, all of a batch at a time: its quickest way."""

    def __init__(self, paths: list[str]) -> None:
        self.paths, self.files = paths, None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, rows: list[int]) -> list[Any]:
        import fsspec

        if self.files is None:  # of this worker
            self.files = fsspec.filesystem("http", skip_instance_cache=True)
        found = self.files.cat([self.paths[k] for k in rows])
        return [(_decoded(found[self.paths[k]]), k) for k in rows]


def fsspec(folder: Path, server: str) -> Epoch:
    return _theirs(_Fetched(_paths(folder, server)[0]), shuffle=True)


class _Opened(_Fetched):
    """Files by fsspec, one after another: how it is mostly written."""

    __getitems__ = None  # type: ignore[assignment]  # torch then asks one by one

    def __getitem__(self, row: int) -> Any:
        import fsspec

        with fsspec.open(self.paths[row], block_size=0) as file:
            return _decoded(file.read()), row


def fsspec_one(folder: Path, server: str) -> Epoch:
    return _theirs(_Opened(_paths(folder, server)[0]), shuffle=True)


def _of_record(row: dict[str, Any]) -> Any:
    image = row["image"]
    return _decoded(image["bytes"] if isinstance(image, dict) else image), row["label"]


def _rows_of_records(rows: list[Any]) -> Any:
    from torch.utils.data import default_collate

    return default_collate([_of_record(row) for row in rows])


def _of_tar(row: Any) -> Any:
    return _decoded(row[0]), int(row[1])


def webdataset(folder: Path, server: str) -> Epoch:
    import webdataset as wds

    shards = sorted(map(str, folder.glob("shard-*.tar")))
    samples = len(_paths(folder, "")[0])
    data = wds.WebDataset(shards, shardshuffle=len(shards))
    data = data.shuffle(samples, initial=samples).to_tuple("jpg", "cls").map(_of_tar)
    return _theirs(data)


def datasets(folder: Path, server: str) -> Epoch:
    from datasets import Dataset

    data = Dataset.from_parquet(str(folder / "photos.parquet"), cache_dir=str(folder / "hf"))
    return _theirs(data, shuffle=True, collate_fn=_rows_of_records)


def streaming(folder: Path, server: str) -> Epoch:
    from streaming import StreamingDataset

    data = StreamingDataset(
        local=str(folder / "mds"), shuffle=True, shuffle_algo="py1e", batch_size=BATCH
    )
    return _theirs(data, collate_fn=_rows_of_records)


# ------------------------------------------------------------------------------------ the measuring


def contestant(name: str, folder: Path, server: str, samples: int) -> None:
    """Deliver an epoch for each line of stdin; answer with its seconds."""
    import psutil

    answer = os.dup(1)
    os.dup2(2, 1)
    epoch: Epoch = globals()[name](folder, server)
    process = psutil.Process()
    for _ in sys.stdin:
        before = _cpu(process)
        begin = time.perf_counter()
        seen = np.concatenate([np.asarray(y).reshape(-1) for _, y in epoch()])
        seconds = time.perf_counter() - begin
        missed = samples - len(np.unique(seen))
        line = {
            "seconds": seconds,
            "cpu": _cpu(process) - before,
            "seen": len(seen),
            "missed": missed,
        }
        os.write(answer, json.dumps(line).encode() + b"\n")


def _cpu(process: Any) -> float:
    times = [p.cpu_times() for p in (process, *process.children(recursive=True))]
    return float(sum(t.user + t.system for t in times))


def measure(
    python: str, rows: list[Any], folder: Path, server: str, samples: int, rounds: int
) -> Any:
    """Per contestant, the answers of all rounds; None for one that does not run."""
    names = list(dict.fromkeys(name for row in rows for name in row[:2]))
    environment = {"KERAS_BACKEND": "torch", **os.environ, "CUDA_VISIBLE_DEVICES": ""}
    running = {}
    found: dict[str, Any] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        for name in names:
            command = [python, __file__, "--contestant", name, str(folder), server, str(samples)]
            running[name] = process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        for _ in range(rounds + 1):
            for name, process in running.items():
                if found[name] is None:
                    continue
                try:
                    print(file=process.stdin, flush=True)
                    line = process.stdout.readline()
                except BrokenPipeError:
                    line = ""
                if line:
                    found[name].append(json.loads(line))
                    print(name, line.strip(), flush=True)
                else:
                    found[name] = None
                    print(f"{name} does not run here: {process.wait()}", flush=True)
    return {name: answers and answers[1:] for name, answers in found.items()}


def table(rows: list[Any], found: dict[str, Any], samples: int) -> str:
    lines = [
        "| | samples/s | the other's | ratio (rounds) | wanted | CPU us per sample | the other's |"
    ]
    lines.append("| --- |" + " --- |" * 6)
    short = []
    for ours, other, wanted, words in rows:
        mine, theirs = found[ours], found[other]
        if not mine or not theirs:
            lines.append(f"| {words} | | | does not run here | {wanted or ''} | | |")
            continue
        ratios = sorted(b["seconds"] / a["seconds"] for a, b in zip(mine, theirs, strict=True))
        rates = [samples / median(r["seconds"] for r in them) for them in (mine, theirs)]
        cpu = [median(r["cpu"] for r in them) / samples * 1e6 for them in (mine, theirs)]
        missed = max(r["missed"] for r in theirs)
        more = f"; the other left out up to {missed} samples an epoch" if missed else ""
        lines.append(
            f"| {words}{more} | {rates[0]:,.0f} | {rates[1]:,.0f} | {median(ratios):.2f} ({ratios[0]:.2f} to "
            f"{ratios[-1]:.2f}) | {wanted or ''} | {cpu[0]:,.0f} | {cpu[1]:,.0f} |"
        )
        if wanted and median(ratios) < wanted:
            short.append(words)
    said = f"\nBelow the target: {'; '.join(short)}.\n" if short else ""
    return "\n".join(lines) + "\n" + said


def main() -> None:
    if sys.argv[1:2] == ["--contestant"]:
        name, folder, server, samples = sys.argv[2:]
        contestant(name, Path(folder), server, int(samples))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder of photographs (JPEG)")
    parser.add_argument("--python", default=sys.executable, help="of an environment with the peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, help="so many of the photographs")
    parser.add_argument(
        "--only", nargs="+", help="contestants of ours: " + ", ".join(r[0] for r in ROWS)
    )
    parser.add_argument("--page", metavar="FILE", help="write the table there, between the marks")
    args = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    sys.path.insert(0, str(root))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    import machine

    from tests.support.servers import nginx

    photos = sorted(p for p in Path(args.data).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    photos = photos[: args.samples]
    rows = [row for row in ROWS if not args.only or row[0] in args.only]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "data").mkdir()
        (folder / "nginx").mkdir()
        making = (
            "import sys; sys.path.insert(0, sys.argv[1]); import by_url; from pathlib import Path; "
        )
        making += "by_url.prepare([Path(p) for p in sys.argv[3:]], Path(sys.argv[2]))"
        command = [args.python, "-c", making, str(Path(__file__).parent), str(folder / "data")]
        subprocess.run([*command, *map(str, photos)], check=True)
        with nginx(folder / "data", folder / "nginx", latency=LATENCY) as server:
            found = measure(args.python, rows, folder / "data", server, len(photos), args.rounds)
    load = os.getloadavg()[2]
    said = table(rows, found, len(photos)) + (
        f"\n{len(photos)} photographs, {args.rounds} rounds; the machine's load of the last 15 minutes was "
        f"{load:.1f} on {machine.cores()} cores, of other programs. {machine.in_words()}\n"
    )
    print(said)
    if args.page:
        page = Path(args.page)
        before, _, rest = page.read_text().partition(MARKS[0])
        page.write_text(before + MARKS[0] + said + MARKS[1] + rest.partition(MARKS[1])[2])


if __name__ == "__main__":
    main()
