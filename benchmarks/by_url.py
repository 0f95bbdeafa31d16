"""Compares data by URL and in third-party formats with local data and with the peers' own readers.

python benchmarks/by_url.py --data ~/photos --python /path/to/venv/bin/python --page docs/performance.md

Photographs -> RGB, 224 x 224, uint8, batches of 32, fully shuffled. nginx on this machine serves the URLs, 20 ms
after each request (apt-get install nginx-light libnginx-mod-http-echo). It ignores S3's signatures, so it also
serves as a bucket. Each contestant is a separate process, which lives as long as the benchmark and delivers one
epoch per request. Rounds are interleaved, and the result is the median, over the rounds, of the ratios within one
round. The first epoch is not timed. `--page FILE` writes the table between the marks in that file.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

BATCH, SIZE, LATENCY, WORKERS = 32, (224, 224), 0.020, 2
# Concurrent requests without a loader: about as many as kloaders has here.
IN_FLIGHT = 32
# The number of rows of the pack, and of the files that are read one after another, which is slow.
PACK_ROWS, FEW = 3000, 50
MARKS = "<!-- by_url: begin -->\n", "<!-- by_url: end -->"
# The comparisons: our contestant, the other one, the wanted ratio, and a description.
ROWS = [
    (
        "url",
        "local",
        0.9,
        "photographs by URL, nothing kept, compared with the same files on the local disk",
    ),
    (
        "s3",
        "local",
        0.9,
        "the same photographs in a bucket (s3://), compared with the files on the local disk",
    ),
    (
        "bare",
        "local",
        None,
        "limit: fetched by obstore and decoded, without a loader, compared with local files",
    ),
    ("bare_s3", "local", None, "limit: the same in a bucket, compared with local files"),
    ("url", "bare", 0.95, "photographs by URL, compared with that limit"),
    ("s3", "bare_s3", 0.95, "photographs in a bucket, compared with that limit"),
    (
        "url",
        "fsspec",
        3.0,
        "by URL, compared with torch's DataLoader with fsspec, a batch at a time",
    ),
    (
        "s3",
        "s3fs",
        3.0,
        "in a bucket, compared with torch's DataLoader with s3fs, a batch at a time",
    ),
    ("local", "fsspec", None, "limit of these ratios: local files, compared with fsspec by URL"),
    ("local", "s3fs", None, "limit of these ratios: local files, compared with s3fs in a bucket"),
    (
        "url_raw",
        "fsspec_raw",
        3.0,
        "fetched by URL and not decoded, compared with the same with fsspec",
    ),
    (
        "s3_raw",
        "s3fs_raw",
        3.0,
        "fetched from a bucket and not decoded, compared with the same with s3fs",
    ),
    ("url", "fsspec_one", None, "by URL, compared with the same with fsspec.open, file after file"),
    (
        "cached",
        "local",
        0.97,
        "from the download cache, compared with the same files on the local disk",
    ),
    (
        "pack_url",
        "pack_streaming",
        2.0,
        "rows of 150 KB, the download cache holds half: a pack by URL, compared with mosaicml-streaming (py1e)",
    ),
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


# --------------------------------------------------------------------------------------------- data


def prepare(photos: list[Path], folder: Path) -> None:
    """Write the photographs in each format; the name of a sample is its number."""
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
    _prepare_pack(folder)


def _prepare_pack(folder: Path) -> None:
    """Write raw images into a pack and into MDS."""
    import kloaders as kl

    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (PACK_ROWS, *SIZE, 3), np.uint8)
    labels = np.arange(PACK_ROWS)
    loader = kl.ArraySequenceLoader(pictures, labels, batch_size=BATCH, shuffle=False)
    kl.write_pack(loader, folder / "pack", progress=False)
    with contextlib.suppress(ImportError):
        from streaming import MDSWriter

        columns = {"image": f"ndarray:uint8:{SIZE[0]},{SIZE[1]},3", "label": "int"}
        with MDSWriter(out=str(folder / "pictures"), columns=columns, size_limit=2**23) as writer:
            for k in range(PACK_ROWS):
                writer.write({"image": pictures[k], "label": k})


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


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "files").iterdir())


def _paths(folder: Path, server: str) -> tuple[list[str], list[int]]:
    names = _names(folder)
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


def _size(content: bytes) -> Any:
    return np.array(len(content))


def url_raw(folder: Path, server: str) -> Epoch:
    import kloaders as kl

    options: dict[str, Any] = {**_options(), "size": None, "decode": _size}
    return _ours(kl.PathSequenceLoader(*_paths(folder, server), **options))


def s3_raw(folder: Path, server: str) -> Epoch:
    _our_bucket(server)
    return url_raw(folder, "s3:/")


_KEYS = {"access_key": "key", "secret_key": "secret"}  # any values: the server ignores them


def _our_bucket(server: str) -> None:
    import kloaders as kl

    kl.storage("s3", endpoint=server, region="us-east-1", allow_http=True, **_KEYS)


def s3(folder: Path, server: str) -> Epoch:
    _our_bucket(server)
    return url(folder, "s3:/")


def bare(folder: Path, server: str) -> Epoch:
    from obstore.store import HTTPStore

    store = HTTPStore.from_url(server, client_options={"allow_http": True})
    return _without_loader(store, [f"files/{name}" for name in _names(folder)])


def bare_s3(folder: Path, server: str) -> Epoch:
    from obstore.store import S3Store

    where = {"endpoint": server, "region": "us-east-1", "client_options": {"allow_http": True}}
    return _without_loader(S3Store("files", **where, **_ids()), _names(folder))


def _without_loader(store: Any, names: list[str]) -> Epoch:
    """What any loader has to do: threads that fetch, and threads that decode what has come into batches.

    No order is kept, no error handled, nothing bounded. The client and the decoder are those of kloaders.
    """
    import obstore

    from kloaders.formats.images import decode_image
    from kloaders.formats.options import ImageOptions

    options, random = ImageOptions(size=SIZE), np.random.default_rng(7)

    def fetch(rows: Iterator[int], fetched: Any) -> None:
        for row in rows:  # threads share this iterator
            fetched.put((row, bytes(obstore.get(store, names[row]).bytes())))

    def decode(counted: Iterator[int], fetched: Any, ready: Any) -> None:
        x, y = np.empty((BATCH, *SIZE, 3), np.uint8), []
        for _ in counted:
            row, content = fetched.get()
            decode_image(content, options, x[len(y), ...], names[row])
            y.append(row)
            if len(y) == BATCH:
                ready.put((x, y))
                x, y = np.empty_like(x), []
        ready.put((x[: len(y)], y))

    def run() -> Iterator[Any]:
        fetched: Any = queue.SimpleQueue()
        ready: Any = queue.SimpleQueue()
        rows, counted = iter(random.permutation(len(names)).tolist()), iter(range(len(names)))
        jobs = IN_FLIGHT * [(fetch, rows, fetched)] + WORKERS * [(decode, counted, fetched, ready)]
        for job, *args in jobs:
            threading.Thread(target=job, args=args).start()
        left = len(names)
        while left:
            x, y = ready.get()
            left -= len(y)
            if y:
                yield x, y

    return run


def _half(name: str, folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / name).iterdir()) // 2


def pack_url(folder: Path, server: str) -> Epoch:
    import kloaders as kl

    kept = {"download_cache": str(folder / "kept"), "download_budget": _half("pack", folder)}
    return _ours(kl.PackSequenceLoader(f"{server}/pack", batch_size=BATCH, seed=7, **kept))


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
    return cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA)  # the same as in kloaders


def _theirs(dataset: Any, **options: Any) -> Epoch:
    import cv2
    from torch.utils.data import DataLoader

    cv2.setNumThreads(1)
    options = {"batch_size": BATCH, "num_workers": WORKERS, "persistent_workers": True, **options}
    loader = DataLoader(dataset, **options)
    return lambda: iter(loader)


class _Fetched:
    """Files by fsspec, all files of a batch at once, which is its fastest way."""

    def __init__(self, paths: list[str], decode: Callable[[bytes], Any] = _decoded) -> None:
        self.paths, self.decode, self.files = paths, decode, None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, rows: list[int]) -> list[Any]:
        if self.files is None:  # opened once per worker
            self.files = self.opened()
        found = self.files.cat([self.paths[k] for k in rows])
        return [(self.decode(found[self.paths[k]]), k) for k in rows]

    def opened(self) -> Any:
        import fsspec

        return fsspec.filesystem("http", skip_instance_cache=True)


def fsspec(folder: Path, server: str) -> Epoch:
    return _theirs(_Fetched(_paths(folder, server)[0]), shuffle=True)


def fsspec_raw(folder: Path, server: str) -> Epoch:
    return _theirs(_Fetched(_paths(folder, server)[0], _size), shuffle=True)


class _FetchedFromBucket(_Fetched):
    """The same from a bucket, with one connection per file of a batch."""

    def __init__(
        self, paths: list[str], server: str, decode: Callable[[bytes], Any] = _decoded
    ) -> None:
        super().__init__([path.removeprefix("s3://") for path in paths], decode)
        self.server = server

    def opened(self) -> Any:
        import fsspec

        where = {"endpoint_url": self.server, "region_name": "us-east-1"}
        many = {"max_pool_connections": BATCH}
        keys = {"key": _KEYS["access_key"], "secret": _KEYS["secret_key"]}
        return fsspec.filesystem(
            "s3", client_kwargs=where, config_kwargs=many, skip_instance_cache=True, **keys
        )


def s3fs(folder: Path, server: str) -> Epoch:
    return _theirs(_FetchedFromBucket(_paths(folder, "s3:/")[0], server), shuffle=True)


def s3fs_raw(folder: Path, server: str) -> Epoch:
    return _theirs(_FetchedFromBucket(_paths(folder, "s3:/")[0], server, _size), shuffle=True)


class _Opened(_Fetched):
    """Files by fsspec, one after another, as most code does it."""

    __getitems__ = None  # type: ignore[assignment]  # so torch requests samples one by one

    def __getitem__(self, row: int) -> Any:
        import fsspec

        with fsspec.open(self.paths[row], block_size=0) as file:
            return self.decode(file.read()), row


def fsspec_one(folder: Path, server: str) -> Epoch:
    return _theirs(_Opened(_paths(folder, server)[0][:FEW]), shuffle=True)


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


def pack_streaming(folder: Path, server: str) -> Epoch:
    from streaming import StreamingDataset

    os.environ |= {"S3_ENDPOINT_URL": server, "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {f"AWS_{name}".upper(): key for name, key in _ids().items()}
    data = StreamingDataset(
        remote="s3://pictures",
        local=str(folder / "streamed"),
        cache_limit=_half("pictures", folder),
        shuffle=True,
        shuffle_algo="py1e",
        # By default it would shuffle over all rows, and fetch each shard many times.
        shuffle_block_size=PACK_ROWS // 8,
        batch_size=BATCH,
    )
    return _theirs(data, collate_fn=_pictures)


def _ids() -> dict[str, str]:
    return {"access_key_id": _KEYS["access_key"], "secret_access_key": _KEYS["secret_key"]}


def _pictures(rows: list[Any]) -> Any:
    from torch.utils.data import default_collate

    return default_collate([(row["image"], row["label"]) for row in rows])


# --------------------------------------------------------------------------------------- measurement


def samples_of(name: str, photos: int) -> int:
    """The number of samples per epoch of a contestant."""
    return PACK_ROWS if name.startswith("pack_") else FEW if name.endswith("_one") else photos


def _asked_and_found() -> tuple[int, int]:
    """The number of requests to the download caches of this process, and the number of hits."""
    from kloaders.places.download_cache import DownloadCache

    caches = [one for one in gc.get_objects() if type(one) is DownloadCache]
    return sum(one.asked for one in caches), sum(one.hits for one in caches)


def contestant(name: str, folder: Path, server: str, samples: int) -> None:
    """Deliver one epoch per line of stdin, and print its seconds."""
    import psutil

    answer = os.dup(1)
    os.dup2(2, 1)
    epoch: Epoch = globals()[name](folder, server)
    process = psutil.Process()
    for _ in sys.stdin:
        asked_before, hits_before = _asked_and_found()
        before, begin = _cpu(process), time.perf_counter()
        seen = np.concatenate([np.asarray(y).reshape(-1) for _, y in epoch()])
        seconds, cpu = time.perf_counter() - begin, _cpu(process) - before
        missed = samples - len(np.unique(seen))
        asked, hits = _asked_and_found()
        line = {
            "hits": (hits - hits_before) / max(1, asked - asked_before),
            "seconds": seconds,
            "cpu": cpu,
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
    """The answers of all rounds by contestant; None for a contestant that cannot run."""
    import psutil

    serving = psutil.Process(int((folder.parent / "nginx" / "pid").read_text()))
    names = list(dict.fromkeys(name for row in rows for name in row[:2]))
    environment = {"KERAS_BACKEND": "torch", **os.environ, "CUDA_VISIBLE_DEVICES": ""}
    running = {}
    found: dict[str, Any] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        for name in names:
            count = str(samples_of(name, samples))
            command = [python, __file__, "--contestant", name, str(folder), server, count]
            running[name] = process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        for _ in range(rounds + 1):
            for name, process in running.items():
                if found[name] is None:
                    continue
                before = _cpu(serving)
                try:
                    print(file=process.stdin, flush=True)
                    line = process.stdout.readline()
                except BrokenPipeError:
                    line = ""
                if line:
                    answer = {**json.loads(line), "server": _cpu(serving) - before}
                    found[name].append(answer)
                    print(name, answer, flush=True)
                else:
                    found[name] = None
                    print(f"{name} does not run here: {process.wait()}", flush=True)
    return {name: answers and answers[1:] for name, answers in found.items()}


def table(rows: list[Any], found: dict[str, Any], samples: int) -> str:
    titles = ["", "samples/s", "the other's", "ratio (rounds)", "goal"]
    titles += ["CPU us per sample (+ the server's)", "the other's"]
    lines = [f"| {' | '.join(titles)} |", "| --- |" + " --- |" * 6]
    short = []
    for ours, other, wanted, words in rows:
        mine, theirs = found[ours], found[other]
        if not mine or not theirs:
            lines.append(f"| {words} | | | does not run here | {wanted or ''} | | |")
            continue
        counts = [samples_of(name, samples) for name in (ours, other)]
        more = counts[0] / counts[1]
        ratios = sorted(
            b["seconds"] / a["seconds"] * more for a, b in zip(mine, theirs, strict=True)
        )
        both = list(zip(counts, (mine, theirs), strict=True))
        rates = [count / median(r["seconds"] for r in them) for count, them in both]
        cpu = [_cpu_in_words(them, count) for count, them in both]
        missed = max(r["missed"] for r in theirs)
        said = f"; the other left out up to {missed} samples per epoch" if missed else ""
        if ours == "pack_url":
            hits = sorted(r["hits"] for r in mine)
            said += f"; hits {hits[0]:.1%} to {hits[-1]:.1%} per epoch"
        lines.append(
            f"| {words}{said} | {rates[0]:,.0f} | {rates[1]:,.0f} | {median(ratios):.2f} ({ratios[0]:.2f} to "
            f"{ratios[-1]:.2f}) | {wanted or ''} | {cpu[0]} | {cpu[1]} |"
        )
        if wanted and median(ratios) < wanted:
            short.append(words)
    end = f"\nBelow the goal: {'; '.join(short)}.\n" if short else ""
    return "\n".join(lines) + "\n" + end


def _cpu_in_words(answers: list[Any], samples: int) -> str:
    """CPU microseconds per sample: of the contestant, and of the server."""
    own = median(r["cpu"] for r in answers) / samples * 1e6
    served = sum(r["server"] for r in answers) / len(answers) / samples * 1e6  # in ticks of 10 ms
    return f"{own:,.0f}" + (f" + {served:,.0f}" if served > 1 else "")


def main() -> None:
    if sys.argv[1:2] == ["--contestant"]:
        name, folder, server, samples = sys.argv[2:]
        contestant(name, Path(folder), server, int(samples))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder of photographs (JPEG)")
    parser.add_argument(
        "--python", default=sys.executable, help="the Python of an environment with the peers"
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--samples",
        type=int,
        default=2400,  # two seconds: the wait for an epoch's first answer is a hundredth of them
        help="number of photographs; fewer are read repeatedly",
    )
    parser.add_argument(
        "--only", nargs="+", help="contestants: " + ", ".join(dict.fromkeys(r[0] for r in ROWS))
    )
    parser.add_argument(
        "--page", metavar="FILE", help="write the table into FILE, between the marks"
    )
    args = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    sys.path.insert(0, str(root))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    import machine

    from tests.support.servers import nginx

    photos = sorted(p for p in Path(args.data).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    photos = [photos[k % len(photos)] for k in range(args.samples)]
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
