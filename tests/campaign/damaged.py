"""The kinds of files for the fuzzer: valid files, one of which is mutated, and the accepted results."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np

from . import beds
from .beds import BATCH, LABELS, SAMPLES, numbers
from .mutations import mutated

KINDS = {}


def kind(name):
    def register(cls):
        KINDS[name] = cls
        return cls

    return register


class Wrong(AssertionError):
    """A wrong result without an error."""


class Files:
    """Valid files in memory; for each case one is mutated and written to a file."""

    suffix, text = "", False
    long = 2_000

    def __init__(self, kl, folder):
        self.kl, self.folder = kl, folder
        self.seeds = self.make()
        self.path = os.path.join(folder, f"case{self.suffix}")

    def case(self, rng):
        seed = rng.choice(self.seeds)
        data = mutated(rng, seed, self.seeds, self.text)
        Path(self.path).write_bytes(data)
        return self.check(data, seed)


class Picture(Files):
    def check(self, data, seed):
        from kloaders.formats.image_headers import image_shape
        from kloaders.formats.images import read_image
        from kloaders.formats.options import ImageOptions

        options = ImageOptions(channels=None)
        shape = image_shape(data)
        got = read_image(self.path, options)
        if got.ndim != 3 or got.shape[0] * got.shape[1] > options.max_pixels:
            raise Wrong(f"shape {got.shape}")
        if shape is not None and got.shape[:2] != shape:
            raise Wrong(f"{got.shape} is not the header's {shape}")
        read_image(self.path, ImageOptions(size=(8, 8)))


def photograph():
    noise = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(40) * 3, np.arange(56) * 2)[..., None] % 256
    return np.clip(ramp + noise.integers(0, 40, (40, 56, 3)), 0, 255).astype(np.uint8)


@kind("JPEG")
class Jpeg(Picture):
    suffix = ".jpg"
    long = 10_000

    def make(self):
        import cv2

        kinds = ((), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2))
        seeds = [cv2.imencode(".jpg", photograph(), list(kind))[1].tobytes() for kind in kinds]
        seeds.append(cv2.imencode(".jpg", photograph()[..., 0])[1].tobytes())
        exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
        seeds.append(
            seeds[0][:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + seeds[0][2:]
        )
        return seeds


@kind("PNG")
class Png(Picture):
    suffix = ".png"

    def make(self):
        import cv2

        shown = photograph()
        deep = shown.astype(np.uint16) * 257
        alpha = np.dstack([shown, shown[..., :1]])
        many = (shown, shown[..., 0], deep, alpha)
        return [cv2.imencode(".png", array)[1].tobytes() for array in many]

    def case(self, rng):
        seed = rng.choice(self.seeds)
        data = bytearray(mutated(rng, seed, self.seeds))
        if rng.random() < 0.5:  # matching checksums, as an attacker would write them
            at = 8
            while at + 12 <= len(data):
                size = int.from_bytes(data[at : at + 4], "big")
                if at + 12 + size > len(data):
                    break
                crc = zlib.crc32(data[at + 4 : at + 8 + size])
                data[at + 8 + size : at + 12 + size] = crc.to_bytes(4, "big")
                at += 12 + size
        Path(self.path).write_bytes(data)
        return self.check(bytes(data), seed)


@kind("other images")
class Others(Picture):
    suffix = ".img"

    def make(self):
        import cv2

        shown = photograph()
        ends = (".bmp", ".webp", ".tiff", ".gif")
        found = []
        for end in ends:
            with contextlib.suppress(cv2.error):
                found.append(cv2.imencode(end, shown)[1].tobytes())
        return found


ARRAYS = (
    np.arange(60, dtype=np.int64).reshape(5, 12),
    np.arange(60, dtype=">f4").reshape(5, 3, 4),
    np.asfortranarray(np.arange(60, dtype=np.uint8).reshape(5, 12)),
    np.float64(3.5),
)


class Trap:
    """Creates a file when it is unpickled, so unpickling is noticed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@kind("NPY")
class Npy(Files):
    suffix = ".npy"

    def make(self):
        self.trap = os.path.join(self.folder, "code-was-run")
        objects = np.array([Trap(self.trap)], object)
        return [*map(npy, ARRAYS), npy(objects, allow_pickle=True), pickle.dumps(Trap(self.trap))]

    def check(self, data, seed):
        from kloaders.formats import npy

        try:
            got = npy.read_array(self.path)
            if got.nbytes > len(data) * self.ratio or got.dtype.kind not in "biufc":
                raise Wrong(f"{got.dtype} {got.shape} out of {len(data)} bytes")
            out = np.empty((5, 12), np.int64)
            npy.read_array(self.path, out)
        finally:
            if os.path.exists(self.trap):
                raise Wrong("code out of a file was run")

    ratio = 1


@kind("NPZ")
class Npz(Npy):
    suffix = ".npz"
    ratio = 1032

    def make(self):
        self.trap = os.path.join(self.folder, "code-was-run")
        seeds = []
        for save in (np.savez, np.savez_compressed):
            for array in (*ARRAYS[:2], np.array([Trap(self.trap)], object)):
                stream = io.BytesIO()
                save(stream, x=array)
                seeds.append(stream.getvalue())
        return seeds


class Store:
    """A folder that a loader reads; for each case one of its files is mutated.

    `spoil` chooses and mutates the file; `check` reads all samples, which must be right or errors.
    """

    of = ""
    long = 400  # each reads 48 samples

    def __init__(self, kl, folder):
        self.kl, self.folder = kl, folder
        beds.make(kl, self.of, folder).close()
        self.home = os.path.join(folder, self.of.replace(" ", "-"))
        self.prepare()
        self.whole = {
            str(p.relative_to(self.home)): p.read_bytes()
            for p in Path(self.home).rglob("*")
            if p.is_file()
        }
        secret = Path(folder, "secret.npy")
        np.save(secret, np.full((20, 16), 10**6, np.int64))

    def prepare(self):
        pass

    def case(self, rng):
        name = self.choose(rng)
        path = os.path.join(self.home, name)
        try:
            Path(path).write_bytes(self.spoil(rng, self.whole[name]))
            self.check(name)
        finally:
            self.mend()

    def choose(self, rng):
        return rng.choice([n for n in self.whole if re.search(self.files, n)])

    files = ""

    def spoil(self, rng, data):
        others = [d for n, d in self.whole.items() if re.search(self.files, n)]
        return mutated(rng, data, others)

    def mend(self):
        for path in Path(self.home).rglob("*"):
            if path.is_file() and str(path.relative_to(self.home)) not in self.whole:
                path.unlink()
        for name, data in self.whole.items():
            path = Path(self.home, name)
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)

    def read(self, **options):
        """Check each delivered sample."""
        loader = beds.make(self.kl, self.of, self.folder, workers=0, on_error="skip", **options)
        with loader:
            found = [k for batch in loader.epoch_batches(0, False) for k in self.numbers(batch)]
            return found, loader.errors

    def numbers(self, batch):
        try:
            found = numbers(batch)
        except AssertionError as error:
            raise Wrong(str(error)) from None
        if not set(found) <= set(range(SAMPLES)):
            raise Wrong(f"samples {found}")
        return found

    def check(self, name):
        self.read()


@kind("TFRecord")
class Record(Store):
    of, files = "TFRecord", r"\.tfrecord$"

    def choose(self, rng):
        for path in Path(self.home).glob(".*.index"):
            path.unlink()
        return super().choose(rng)


@kind("TFRecord, compressed")
class Compressed(Record):
    of = "TFRecord, compressed"


@kind("TFRecord index")
class Index(Store):
    of, files = "TFRecord", r"\.index$"

    def spoil(self, rng, data):
        from kloaders.formats import sidecar_index

        data = bytearray(super().spoil(rng, data))
        size = sidecar_index._INDEX.size
        if rng.random() < 0.6 and len(data) > size:  # matching checksums, as if forged
            data[size - 8 : size - 4] = struct.pack("<I", zlib.crc32(data[size:]))
            head = bytes(data[: size - 4]) + bytes(4)
            data[size - 4 : size] = struct.pack("<I", zlib.crc32(head))
        return bytes(data)

    def check(self, name):
        # The index is put back, not its file's time: made before, as it says.
        found, errors = self.read()
        if len(found) + len(errors) < SAMPLES and not errors:
            raise Wrong(f"{len(found)} samples, and no error")


@kind("Example in a record")
class Example(Store):
    """Damage with a matching checksum: the content may be anything, even a right sample."""

    of, files = "TFRecord", r"\.tfrecord$"

    def choose(self, rng):
        for path in Path(self.home).glob(".*.index"):
            path.unlink()
        return super().choose(rng)

    def spoil(self, rng, data):
        from kloaders.formats.tfrecord.framing import framed

        found, at = [], 0
        while at < len(data):
            size = struct.unpack_from("<Q", data, at)[0]
            found.append(data[at + 12 : at + 12 + size])
            at += 16 + size
        k = rng.randrange(len(found))
        found[k] = mutated(rng, found[k], found)
        return b"".join(map(framed, found))

    def numbers(self, batch):
        return np.asarray(batch[1]).reshape(-1).tolist()


class Pack(Store):
    of = "pack"

    def sources(self):
        rows = np.stack([beds.row(k) for k in range(SAMPLES)])
        return self.kl.ArraySequenceLoader(rows, LABELS, BATCH, workers=0)


@kind("pack manifest")
class Manifest(Pack):
    files = r"pack\.json"

    def spoil(self, rng, data):
        return mutated(rng, data, text=True)

    def numbers(self, batch):
        # By hand a manifest may be changed to what is another pack; verify() tells. What it names
        # stays in its folder, and as many bytes are read as there are.
        leaves = [np.asarray(part) for part in batch if not isinstance(part, (dict, tuple))]
        if any((leaf == 10**6).any() for leaf in leaves):
            raise Wrong("a file outside of the folder was read")
        return []

    def check(self, name):
        from kloaders.formats.pack import manifest_changed

        loader = self.kl.PackSequenceLoader(self.home, BATCH, workers=0, on_error="skip")
        with loader:
            changed = manifest_changed(self.home)
            for batch in loader.epoch_batches(0, False):
                if changed:
                    self.numbers(batch if isinstance(batch, tuple) else (batch,))
                else:
                    super().numbers(batch)


@kind("pack values")
class Values(Pack):
    files = r"[xy]\.npy"

    def numbers(self, batch):
        return np.asarray(batch[1]).reshape(-1).tolist()  # verify() is for changed values

    def check(self, name):
        with self.kl.PackSequenceLoader(self.home, BATCH, workers=0, on_error="skip") as loader:
            for batch in loader.epoch_batches(0, False):
                self.numbers(batch)
            if Path(self.home, name).read_bytes() != self.whole[name]:
                try:
                    loader.verify(progress=False)
                except ValueError:
                    return
                raise Wrong("verify() found nothing")


@kind("pack index")
class PackIndex(Store):
    of, files = "pack", r"index\.npy"

    def prepare(self):
        ragged = [beds.row(k, 1 + k % 5) for k in range(SAMPLES)]
        shutil.rmtree(self.home)
        with beds.quiet():
            source = self.kl.ArraySequenceLoader(ragged, LABELS, 1, workers=0)
            self.kl.write_pack(source, self.home, shard_size=600, progress=False)

    def spoil(self, rng, data):
        # Behind the header, whose bytes are compared with the manifest: so this comes through.
        return data[:256] + mutated(rng, data[256:])[: len(data) - 256].ljust(
            len(data) - 256, b"\0"
        )

    def check(self, name):
        with self.kl.PackSequenceLoader(self.home, 1, workers=0, on_error="replace") as loader:
            for batch in loader.epoch_batches(0, False):
                if np.asarray(batch[0]).nbytes > 10**6:
                    raise Wrong("more values than there are")


@kind("pack journal")
class PackJournal(Pack):
    files = r"unfinished\.jsonl"

    def prepare(self):
        # Stopped when all but the manifest was there.
        from kloaders.convert import packs as pack_writer

        shutil.rmtree(self.home)
        real = pack_writer.Manifest.text

        def stop(manifest):
            raise KeyboardInterrupt

        pack_writer.Manifest.text = stop
        with beds.quiet(), contextlib.suppress(KeyboardInterrupt):
            self.write()
        pack_writer.Manifest.text = real

    def write(self):
        self.kl.write_pack(self.sources(), self.home, shard_size=20 * 8 * 17, progress=False)

    def spoil(self, rng, data):
        return mutated(rng, data, text=True)

    def check(self, name):
        with beds.quiet():
            self.write()
        found, errors = self.read()
        if errors or sorted(found) != list(range(SAMPLES)):
            raise Wrong(f"{len(found)} samples and {len(errors)} errors in a pack just written")


@kind("TFRecord journal")
class RecordJournal(Store):
    of, files = "TFRecord", r"\.unfinished\.jsonl"

    def prepare(self):
        from kloaders.convert import tfrecords as tfrecord_writer

        shutil.rmtree(self.home)
        real = tfrecord_writer.write_shards

        def stop(*arguments, **options):
            real(*arguments, **options)
            raise KeyboardInterrupt

        tfrecord_writer.write_shards = stop
        with beds.quiet(), contextlib.suppress(KeyboardInterrupt):
            self.write()
        tfrecord_writer.write_shards = real

    def write(self):
        out = os.path.join(self.home, "r")
        paths = beds.files(os.path.join(self.folder, "files"))
        self.kl.write_tfrecords(paths, LABELS, out, shards=3, progress=False)

    def spoil(self, rng, data):
        return mutated(rng, data, text=True)

    def check(self, name):
        with beds.quiet():
            self.write()
        found, errors = self.read()
        if errors or sorted(found) != list(range(SAMPLES)):
            raise Wrong(f"{len(found)} samples and {len(errors)} errors in files just written")


@kind("cache segment")
class Segment(Store):
    of, files = "images cached in a folder", r"\.segment$"

    def prepare(self):
        self.read()

    def check(self, name):
        found, errors = self.read()
        if errors or sorted(found) != list(range(SAMPLES)):
            raise Wrong(f"{len(found)} samples and {len(errors)} errors: damage of a cache counts")


@kind("CSV")
class Csv(Files):
    suffix, text = ".csv", True
    long = 400

    def make(self):
        names = [os.path.basename(p) for p in beds.files(os.path.join(self.folder, "files"))]
        rows = [f"{name},{k}" for k, name in enumerate(names)]
        quoted = [f'"{name}","{k % 3}"' for k, name in enumerate(names)]
        return [("\n".join(["file,label", *r]) + "\n").encode() for r in (rows, quoted)]

    def check(self, data, seed):
        train, val = self.kl.from_dataframe(
            self.path, "file", "label", folder=os.path.join(self.folder, "files"), seed=1,
            batch_size=BATCH, workers=0, on_error="skip",
        )  # fmt: skip
        for loader in (train, val):
            with loader:
                for batch in loader.epoch_batches(0, False):
                    if len(np.asarray(batch[0])) > BATCH:
                        raise Wrong("more rows than asked for")


@kind("training state")
class Training(Files):
    suffix, long = ".state", 1_000

    def make(self):
        from kloaders.training import state_file as training_state

        rng = np.random.default_rng(0)
        self.arrays = {
            "variables": [
                (f"v{n}", rng.normal(size=shape)) for n, shape in enumerate(((3, 4), ()))
            ],
            "metrics": [("m", np.arange(5, dtype=np.int64))],
        }
        path = os.path.join(self.folder, "seed.state")
        training_state.write(path, {"epoch": 3, "position": {"samples": 8}}, self.arrays)
        return [Path(path).read_bytes()]

    def check(self, data, seed):
        from kloaders.training import state_file as training_state

        facts, arrays = training_state.read(self.path)
        if facts["epoch"] != 3 or facts["position"] != {"samples": 8}:
            raise Wrong("another position than was written")
        if set(arrays) != set(self.arrays):
            raise Wrong("other arrays than were written")
        for kind_of, named in self.arrays.items():
            for (name, want), (got_name, got) in zip(named, arrays[kind_of], strict=True):
                if name != got_name or got.dtype != want.dtype or not np.array_equal(got, want):
                    raise Wrong(f"{name} is not what was written")


@kind("position of a loader")
class Positions(Files):
    suffix, text, long = ".json", True, 1_000

    def loader(self, shuffle):
        x = np.arange(SAMPLES)
        return self.kl.ArraySequenceLoader(x, batch_size=BATCH, shuffle=shuffle, seed=1, workers=0)

    def make(self):
        seeds = []
        for shuffle in (True, False):
            with self.loader(shuffle) as loader:
                for epoch, batch in ((0, 0), (1, 2), (70, len(loader) - 1)):
                    state = loader.state_dict(epoch, batch)
                    seeds.append(json.dumps(state, indent=0).encode())
        return seeds

    def check(self, data, seed):
        state = json.loads(data)
        with self.loader(b'"shuffle": true' in seed) as loader:
            loader.load_state_dict(state)
            loader.on_epoch_begin()
            got = [int(n) for k in range(len(loader)) for n in loader[k]]
        left = SAMPLES - state["samples"]
        if len(set(got)) != len(got) or not set(got) <= set(range(SAMPLES)):
            raise Wrong(f"samples come twice, or from nowhere: {got}")
        if len(got) != left:
            raise Wrong(f"{len(got)} samples behind {state['samples']} of {SAMPLES}")
