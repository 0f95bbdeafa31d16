"""`kloaders verify`: what is damaged is found at whatever byte, what is sound is not accused."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import kloaders as kl
from kloaders.cli.main import cli
from kloaders.diagnostics.verify import report as verification
from kloaders.diagnostics.verify import worker as inspection
from kloaders.formats.errors import DecodeError
from kloaders.formats.image_structure import kind_of, unfinished
from kloaders.formats.images import decode_image
from kloaders.formats.integrity import check_content, check_file
from kloaders.formats.options import ImageOptions


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray[Any, Any]:
    """Blobs of colour: smooth enough to be small, no two areas alike."""
    few = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_CUBIC)


def saved(image: Any, kind: str, **options: Any) -> bytes:
    """A picture as Pillow writes it."""
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        stream, kind, **options
    )
    return stream.getvalue()


def with_thumbnail(raw: bytes) -> bytes:
    """A JPEG with an EXIF segment that holds a JPEG of its own, end marker and all."""
    inner = saved(picture(8, 8), "JPEG")
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + inner
    return raw[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + raw[2:]


def jpegs() -> dict[str, bytes]:
    image = picture()
    restarts = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_RST_INTERVAL, 3])[1].tobytes()
    baseline = saved(image, "JPEG")
    return {
        "baseline": baseline,
        "4:4:4": saved(image, "JPEG", subsampling=0, quality=95),
        "grey": saved(image[..., 0], "JPEG"),
        "progressive": saved(image, "JPEG", progressive=True),
        "restart markers": restarts,
        "thumbnail": with_thumbnail(baseline),
        "progressive thumbnail": with_thumbnail(saved(image, "JPEG", progressive=True)),
        "CMYK": saved(Image.fromarray(image).convert("CMYK"), "JPEG"),
    }


def others() -> dict[str, bytes]:
    image = picture(24, 32)
    pages = [Image.fromarray(picture(24, 32, seed)) for seed in (1, 2)]
    sixteen = cv2.imencode(".png", image.astype(np.uint16) * 200)[1].tobytes()
    found = {
        "png": saved(image, "PNG"),
        "png 16": sixteen,
        "png palette": saved(Image.fromarray(image).convert("P"), "PNG"),
        "png alpha": saved(np.dstack([image, image[..., :1]]), "PNG"),
        "bmp": saved(image, "BMP"),
        "webp": saved(image, "WEBP"),
        "webp lossless": saved(image, "WEBP", lossless=True),
        "tiff": saved(image, "TIFF"),
        "tiff lzw": saved(image, "TIFF", compression="tiff_lzw"),
        "tiff pages": saved(image, "TIFF", save_all=True, append_images=pages),
        "tiff opencv": cv2.imencode(".tiff", image)[1].tobytes(),
    }
    if tuple(map(int, cv2.__version__.split(".")[:2])) >= (4, 12):
        found["gif"] = saved(Image.fromarray(image).convert("P"), "GIF")
        found["gif frames"] = saved(image, "GIF", save_all=True, append_images=pages)
    return found


JPEGS, OTHERS = jpegs(), others()
ALL = {**JPEGS, **OTHERS}


def kinds(raw: bytes) -> list[str]:
    return [kind for kind, _ in check_content(raw, "it").problems]


# ------------------------------------------------------------------------------------- one picture


@pytest.mark.parametrize("name", ALL)
def test_sound_pictures_are_not_accused(name: str) -> None:
    """As Pillow and OpenCV write them; nor for what follows their end."""
    found = check_content(ALL[name], "it")
    assert found.problems == []
    assert found.form[0] == "picture"
    if kind_of(ALL[name][:12]) != "TIFF":
        assert kinds(ALL[name] + b"behind the end") == []
    if name in JPEGS:
        assert kinds(ALL[name] + bytes(5) + JPEGS["baseline"]) == []  # a preview, as phones append


@pytest.mark.parametrize("name", ALL)
def test_the_end_is_missed_at_every_byte(name: str) -> None:
    """By structure alone, without a decoder: every cut from the first bytes on."""
    raw = ALL[name]
    known = next(k for k in range(len(raw)) if kind_of(raw[:k][:12]))
    sound = [cut for cut in range(known, len(raw)) if unfinished(raw[:cut]) is None]
    # Behind the last strip of a TIFF may lie a few bytes that nothing points at.
    assert len(sound) <= (4 if "tiff" in name else 0)
    assert unfinished(raw) is None


@settings(max_examples=150)
@given(st.sampled_from(sorted(ALL)), st.data())
def test_cut_at_any_byte(name: str, data: Any) -> None:
    """Whatever the picture: a part of it is reported, or is all of its pixels."""
    raw = ALL[name]
    cut = data.draw(st.integers(0, len(raw) - 1))
    found = check_content(raw[:cut], "it")
    if not found.problems:
        assert "tiff" in name
        whole = decode_image(raw, ImageOptions(channels=None))
        np.testing.assert_array_equal(decode_image(raw[:cut], ImageOptions(channels=None)), whole)


@settings(max_examples=80)
@given(st.sampled_from(sorted(JPEGS)), st.data())
def test_a_loader_sees_a_cut_jpeg(name: str, data: Any) -> None:
    """Half a picture is never trained on: decoding refuses it, so that on_error sees it."""
    cut = data.draw(st.integers(0, len(JPEGS[name]) - 1))
    with pytest.raises(DecodeError):
        decode_image(JPEGS[name][:cut], ImageOptions())


@pytest.mark.parametrize("name", JPEGS)
def test_an_end_marker_behind_half_the_data(name: str) -> None:
    """Cut and given a new end, as some programs leave files: the data tell."""
    raw = JPEGS[name]
    scan = raw.rfind(b"\xff\xda")
    cuts = list(range(scan + 20, len(raw) - 8, 11))
    missed = [cut for cut in cuts if not kinds(raw[:cut].rstrip(b"\xff") + b"\xff\xd9")]
    assert len(missed) <= len(cuts) // 50


@pytest.mark.parametrize("name", JPEGS)
def test_only_the_end_marker_is_missing(name: str) -> None:
    """It is said, and what to do works; where data are missing as well it is not."""
    raw = JPEGS[name]
    for cut in (1, 2):
        ((kind, said),) = check_content(raw[:-cut], "it").problems
        assert (kind, said.endswith("append the bytes ff d9")) == ("truncated", True)
    whole = decode_image(raw, ImageOptions())
    np.testing.assert_array_equal(decode_image(raw[:-2] + b"\xff\xd9", ImageOptions()), whole)
    ((_, said),) = check_content(raw[:-40], "it").problems
    assert "append" not in said


def test_scans_that_are_missing() -> None:
    """A progressive JPEG that ends well after its first scans is blurred, and not whole."""
    raw = JPEGS["progressive"]
    scans = [found.start() for found in re.finditer(rb"\xff\xda", raw)]
    for at in scans[1:]:
        table = raw.rfind(b"\xff\xc4", 0, at)  # the tables of a scan lie before it
        end = table if table > scans[0] and raw[table - 2 : table - 1] != b"\xff" else at
        assert kinds(raw[:end] + b"\xff\xd9") == ["truncated"]


def test_restart_intervals_that_are_missing() -> None:
    """Cut between two intervals, and given an end."""
    raw = JPEGS["restart markers"]
    for found in re.finditer(rb"\xff[\xd0-\xd7]", raw[raw.rfind(b"\xff\xda") :]):
        cut = raw.rfind(b"\xff\xda") + found.start()
        assert kinds(raw[:cut] + b"\xff\xd9") == ["truncated"]


def test_a_changed_byte_of_a_png() -> None:
    """Every chunk has a checksum; what a decoder passes over is compared as well."""
    raw = bytearray(OTHERS["png"])
    text = b"tEXtComment\0words"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    with_text = bytes(raw[:33] + chunk + raw[33:])
    assert kinds(with_text) == []
    assert kinds(with_text.replace(b"words", b"Words")) == ["broken"]


@settings(max_examples=150)
@given(st.sampled_from(sorted(ALL)), st.data())
def test_any_damage_has_an_answer(name: str, data: Any) -> None:
    """Changed, cut, put together otherwise: an answer, never an exception, and soon."""
    raw = bytearray(ALL[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    check_content(bytes(raw), "it", max_pixels=10**6)


def test_hostile_structures_end_soon() -> None:
    """Millions of empty segments, chunks and blocks, and directories that lead in circles."""
    loop = b"II*\0\x08\0\0\0" + bytes(2) + struct.pack("<I", 8)
    for raw in (
        b"\xff\xd8" + b"\xff\xe0\0\2" * 10**6,
        b"\xff\xd8" + b"\xff\xe0\0\0" * 10**6,
        b"\x89PNG\r\n\x1a\n" + bytes(10**7),
        b"GIF89a" + bytes(10**6),
        loop,
    ):
        assert kinds(raw)


# ------------------------------------------------------------------------------------------ arrays


@pytest.mark.parametrize("name", ["npy", "npz", "npz compressed"])
def test_arrays_cut_at_any_byte(tmp_path: Path, name: str) -> None:
    """Their headers, sums and lists of members tell."""
    path = str(tmp_path / f"it.{name[:3]}")
    x, y = np.arange(40.0).reshape(5, 8), np.arange(5)
    if name == "npy":
        np.save(path, x)
    else:
        (np.savez if name == "npz" else np.savez_compressed)(path, x=x, y=y)
    assert check_file(path).problems == []
    raw = Path(path).read_bytes()
    for cut in range(0, len(raw), 1 if name == "npy" else 3):
        Path(path).write_bytes(raw[:cut])
        problems = check_file(path).problems
        assert problems, cut
        assert problems[0][0] in ("empty", "truncated", "broken")
    if name != "npy":
        damaged = bytearray(raw)
        damaged[len(raw) // 3] ^= 1
        Path(path).write_bytes(damaged)
        assert check_file(path).problems


def test_archives_that_claim_too_much(tmp_path: Path) -> None:
    """Zeros that grow a thousandfold are a bomb where that is more than a picture may take."""
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, x=np.zeros(10**6))
    assert check_file(str(path), max_pixels=3 * 10**6).problems == []
    ((kind, said),) = check_file(str(path), max_pixels=10**4).problems
    assert kind == "bomb"
    assert "8,000,128 bytes" in said


def test_texts_beside_arrays_do_no_harm(tmp_path: Path) -> None:
    """As in SciPy's sparse matrices: somebody's load_sample() chooses."""
    path = str(tmp_path / "it.npz")
    np.savez(path, data=np.arange(5.0), format="csc")
    assert check_file(path).problems == []
    np.savez(path, format="csc")
    ((kind, said),) = check_file(path).problems
    assert (kind, "expected plain numbers" in said) == ("broken", True)


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    """An array of objects is broken, for nobody loads it."""
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    ((kind, said),) = check_file(str(path)).problems
    assert kind == "broken"
    assert "never unpickled" in said


# ---------------------------------------------------------------------------------------- a folder


def bomb() -> bytes:
    def chunk(kind: bytes, body: bytes = b"") -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT") + chunk(b"IEND")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of six sound pictures each, in a folder of their own."""
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(6):
            raw = saved(picture(60, 80, 10 * k + n), "JPEG")
            (tmp_path / "photos" / name / f"{n}.jpg").write_bytes(raw)
    return tmp_path / "photos"


@pytest.fixture
def spoilt(photos: Path) -> dict[str, str]:
    """What is wrong in `photos` from now on: paths and kinds."""
    cat, dog = photos / "cat", photos / "dog"
    sound = (cat / "0.jpg").read_bytes()
    (cat / "cut.jpg").write_bytes(sound[: len(sound) // 2])
    (cat / "none.jpg").write_bytes(b"")
    (cat / "html.jpg").write_bytes(b"<html>404</html>")
    (cat / "lie.jpg").write_bytes(saved(picture(60, 80, 90), "PNG"))
    (dog / "bomb.png").write_bytes(bomb())
    (dog / "gone.jpg").symlink_to(dog / "nowhere.jpg")
    os.mkfifo(dog / "pipe.jpg")
    (dog / "again.jpg").write_bytes((dog / "1.jpg").read_bytes())
    (dog / "both.jpg").write_bytes(sound)
    (dog / "grey.png").write_bytes(saved(picture(60, 80, 91)[..., 0], "PNG"))
    (dog / "notes.txt").write_text("left out")
    (dog / ".hidden.jpg").write_text("left out")
    return {
        str(cat / "cut.jpg"): "truncated",
        str(cat / "none.jpg"): "empty",
        str(cat / "html.jpg"): "broken",
        str(cat / "lie.jpg"): "misnamed",
        str(dog / "bomb.png"): "bomb",
        str(dog / "gone.jpg"): "unreadable",
        str(dog / "pipe.jpg"): "unreadable",
        str(dog / "both.jpg"): "two classes",
        str(dog / "again.jpg"): "duplicate",
        str(dog / "grey.png"): "odd",
    }


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["verify", *map(str, arguments)])


@pytest.mark.parametrize("workers", [0, 2])
def test_each_kind_is_found(photos: Path, spoilt: dict[str, str], workers: int) -> None:
    """In this process or in others: the same report, the worst first."""
    report = kl.verify(photos, workers=workers, progress=False)
    assert {one.path: one.kind for one in report.findings} == spoilt
    assert len(report.findings) == len(spoilt)
    assert (report.files, report.left_out) == (12 + 10, 1)
    assert [one.kind for one in report.errors] == sorted(
        (kind for kind in spoilt.values() if kind in verification.ERRORS),
        key=verification.ERRORS.index,
    )
    assert not report.ok


def test_a_sound_folder(photos: Path) -> None:
    """Exit code 0, one line."""
    done = run(photos)
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"{re.escape(str(photos))}: 12 read in [\d.]+ s, all sound\.\n", done.stdout
    )


def test_as_a_user_runs_it(photos: Path, spoilt: dict[str, str]) -> None:
    """In a pipe: no bar, nothing of the decoders' own; exit code 1, and every name."""
    done = subprocess.run(
        [sys.executable, "-m", "kloaders", "verify", str(photos)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    for path, kind in spoilt.items():
        assert re.search(rf"^{kind}: {re.escape(path)} ", done.stdout, re.MULTILINE)


def test_warnings_do_not_fail(photos: Path) -> None:
    """Duplicates and odd shapes are told with exit code 0, and with 1 if asked for."""
    (photos / "cat" / "again.jpg").write_bytes((photos / "cat" / "1.jpg").read_bytes())
    assert run(photos).exit_code == 0
    assert "duplicate: " in run(photos).stdout
    assert run(photos, "--strict").exit_code == 1
    done = run(photos, "--strict", "--no-duplicates")
    assert (done.exit_code, "duplicate" in done.stdout) == (0, False)


def test_json(photos: Path, spoilt: dict[str, str], tmp_path: Path) -> None:
    """To a file, or alone on stdout."""
    done = run(photos, "--json", "-")
    report = json.loads(done.stdout)
    assert done.exit_code == 1
    assert not report["ok"]
    assert {one["path"]: one["kind"] for one in report["findings"]} == spoilt
    assert report["counts"]["unreadable"] == 2
    assert {one["severity"] for one in report["findings"] if one["kind"] == "odd"} == {"warning"}
    assert "cut.jpg" in run(photos, "--json", tmp_path / "report.json").stdout
    assert json.loads((tmp_path / "report.json").read_text())["findings"] == report["findings"]


def test_the_csv_is_what_exclude_takes(
    photos: Path, spoilt: dict[str, str], tmp_path: Path, monkeypatch: Any
) -> None:
    """verify --csv, then exclude=: an epoch without an error, and every sound file in it."""
    monkeypatch.chdir(tmp_path)
    done = run("photos", "--csv", "bad.csv")
    assert "exclude='bad.csv'" in done.stdout
    with open("bad.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    errors = {path: kind for path, kind in spoilt.items() if kind in verification.ERRORS}
    assert {row["path"]: row["error"].split(":")[0] for row in rows} == errors
    train, _ = kl.from_directory(photos, validation=None, size=(8, 8), exclude="bad.csv")
    with train:
        assert sum(len(train[k][1]) for k in range(len(train))) == 12 + 3
    # Again, after one was mended: it is gone from the list, others keep their time.
    before = {row["path"]: row["first_seen"] for row in rows}
    (photos / "cat" / "none.jpg").unlink()
    aged = Path("bad.csv").read_text().replace("first_seen", "FS").replace("20", "19")
    Path("bad.csv").write_text(aged.replace("FS", "first_seen"))
    run("photos", "--csv", "bad.csv")
    with open("bad.csv", newline="") as file:
        after = {row["path"]: row["first_seen"] for row in csv.DictReader(file)}
    assert set(after) == set(before) - {str(photos / "cat" / "none.jpg")}
    assert all(time.startswith("19") for time in after.values())


def test_a_csv_of_another_kind_stays(photos: Path, spoilt: dict[str, str], tmp_path: Path) -> None:
    """A table of labels, named by mistake, is not overwritten."""
    table = tmp_path / "train.csv"
    table.write_text("file,label\na,1\n")
    done = run(photos, "--csv", table)
    assert done.exit_code == 2
    assert "train.csv is no list of bad files" in done.stderr
    assert table.read_text() == "file,label\na,1\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument 'SOURCE...'"),
        (["gone"], "gone does not exist. Relative paths start at"),
        (["empty"], "holds nothing that is read here"),
        (["table.csv"], "no column 'path', it has file, label"),
        (["table.csv", "--path-column", "file", "--max-pixels", "x"], "is not a valid int"),
    ],
)
def test_usage(arguments: list[str], words: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Exit code 2, so that a script can tell it from a broken file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").write_text("file,label\na.jpg,1\n")
    done = run(*arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.replace("\n", " ").split())


def test_a_table(photos: Path, tmp_path: Path) -> None:
    """Paths and classes come from columns; what it lists and is not there is named."""
    rows = [("cat/0.jpg", "a"), ("dog/0.jpg", "b"), ("cat/0.jpg", "b"), ("cat/gone.jpg", "a")]
    text = "\n".join(["file,kind", *(",".join(row) for row in rows)])
    (tmp_path / "all.csv").write_text(text + "\n")
    options = ["--path-column", "file", "--label-column", "kind", "--folder", photos]
    done = run(tmp_path / "all.csv", *options)
    assert done.exit_code == 1
    assert f"unreadable: {photos}/cat/gone.jpg cannot be read: No such file" in done.stdout
    assert "(class b) has the content of" in done.stdout


def test_names_that_are_not_utf8(photos: Path) -> None:
    """Printed with escapes, listed byte for byte, and excluded."""
    name = os.fsencode(photos / "cat") + b"/\xff.jpg"
    try:
        with open(name, "wb"):
            pass
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    bad = photos.parent / "bad.csv"
    done = run(photos, "--csv", bad)
    assert done.exit_code == 1
    assert b"/\xff.jpg" in bad.read_bytes()
    train, _ = kl.from_directory(photos, validation=None, exclude=bad)
    assert train.samples == 12


def test_odd_shapes(tmp_path: Path) -> None:
    """One array of another shape among many; not where shapes differ anyway."""
    for k in range(20):
        np.save(tmp_path / f"{k:02}.npy", np.full(3 + (k == 7), k, np.float32))
    (one,) = kl.verify(tmp_path, workers=0, progress=False).findings
    assert (one.kind, os.path.basename(one.path)) == ("odd", "07.npy")
    assert "float32 of shape (4,), and 19 others are float32 of shape (3,)" in one.message
    for k in range(20):
        np.save(tmp_path / f"{k:02}.npy", np.full(3 + k % 5, k, np.float32))
    assert not kl.verify(tmp_path, workers=0, progress=False).findings


# ------------------------------------------------------------------------------- records and packs


@pytest.mark.parametrize("compression", [None, "GZIP"])
def test_records(photos: Path, tmp_path: Path, compression: Any) -> None:
    """A picture cut short inside a sound record, the same one with two labels, and file names."""
    paths = sorted(map(str, photos.glob("*/*.jpg")))
    Path(paths[2]).write_bytes(Path(paths[2]).read_bytes()[:-300])
    Path(paths[8]).write_bytes(Path(paths[1]).read_bytes())
    labels = [int("dog" in path) for path in paths]
    written = kl.write_tfrecords(
        paths, labels, tmp_path / "out" / "x", compression=compression, on_error="skip",
        progress=False,
    )  # fmt: skip
    assert written.samples == 11  # the converter sees it too; so it is put in by hand
    report = kl.verify(tmp_path / "out", progress=False)
    assert (report.files, [one.kind for one in report.findings]) == (11, ["two classes"])
    assert "record 7 at byte" in report.findings[0].path


def test_a_cut_picture_in_a_record(tmp_path: Path) -> None:
    """Written by somebody else: the record is sound, and what is in it is not."""
    from kloaders.formats.tfrecord.examples import encode_example
    from kloaders.formats.tfrecord.framing import framed

    raw = JPEGS["baseline"]
    pictures = [raw, saved(picture(seed=3), "JPEG"), JPEGS["progressive"][:-100]]
    path = tmp_path / "a.tfrecord"
    examples = [encode_example({"image": p, "label": k}) for k, p in enumerate(pictures)]
    path.write_bytes(b"".join(map(framed, examples)))
    (one,) = kl.verify(path, progress=False).findings
    assert one.kind == "truncated"
    assert re.match(r".*a\.tfrecord, record 2 at byte \d+, image is truncated", one.message)


def test_damaged_records(tmp_path: Path) -> None:
    """A changed byte costs one record, a cut the last one; the list excludes them."""
    values = np.arange(60, dtype=np.float32).reshape(20, 3)
    written = kl.write_tfrecords(
        kl.ArraySequenceLoader(values), None, tmp_path / "all", progress=False
    )
    raw = bytearray(Path(written.files[0]).read_bytes())
    raw[len(raw) // 2] ^= 1
    Path(written.files[0]).write_bytes(raw[:-5])
    bad = tmp_path / "bad.csv"
    done = run(written.files[0], "--csv", bad)
    assert done.exit_code == 1
    assert re.search(
        r"^truncated: .*record 19 at byte \d+: it is truncated", done.stdout, re.MULTILINE
    )
    assert re.search(
        r"^broken: .*record \d+ at byte \d+: its .* checksum", done.stdout, re.MULTILINE
    )
    with kl.TFRecordSequenceLoader(written.files, {"x": "x"}, 6, exclude=bad) as loader:
        assert loader.samples == 18
        assert len(np.concatenate([loader[k] for k in range(3)])) == 18


@pytest.mark.parametrize("content", [b"", b"no records at all, but a text of some length"])
def test_files_that_hold_no_records(tmp_path: Path, content: bytes) -> None:
    """Named, among others that are sound."""
    (tmp_path / "a.tfrecord").write_bytes(content)
    (one,) = kl.verify(tmp_path, progress=False).findings
    assert one.path == str(tmp_path / "a.tfrecord")
    assert one.kind == ("broken" if content else "empty")


def test_packs(tmp_path: Path) -> None:
    """Sums, sizes, headers, and the manifest itself."""
    pack = tmp_path / "pack"
    x = np.random.default_rng(0).random((40, 30), np.float32)
    kl.write_pack(kl.ArraySequenceLoader(x, np.arange(40)), pack, shard_size=1500, progress=False)
    report = kl.verify(pack, progress=False)
    assert report.ok
    assert report.files == len(list(pack.glob("*.npy")))
    first, second, third = sorted(pack.glob("x*.npy"))[:3]
    raw = bytearray(first.read_bytes())
    raw[-7] ^= 1
    first.write_bytes(raw)
    second.write_bytes(second.read_bytes()[:-1])
    third.unlink()
    found = {one.path: one.kind for one in kl.verify(pack, progress=False).findings}
    assert found == {str(first): "broken", str(second): "truncated", str(third): "unreadable"}
    (pack / "pack.json").write_text("{}")
    done = run(pack)
    assert (done.exit_code, "pack.json is damaged" in done.stdout) == (1, True)


# --------------------------------------------------------------------------------------- processes


def test_workers_bring_in_nothing_heavy() -> None:
    """No Keras, no TensorFlow: a process is there in half a second."""
    code = (
        "import sys, kloaders.diagnostics.verify.report; "
        "print(sorted({'keras', 'tensorflow', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_file_that_ends_the_decoder_is_named(photos: Path, monkeypatch: Any) -> None:
    """Its process is gone, and so is a second one: the file is reported."""
    program = "import os, sys; sys.stdin.readline(); os.abort()"
    popen = subprocess.Popen
    monkeypatch.setattr(
        inspection.subprocess, "Popen", lambda _, **o: popen([sys.executable, "-c", program], **o)
    )
    report = kl.verify(photos / "cat" / "0.jpg", progress=False)
    (finding,) = report.findings
    assert finding.kind == "broken"
    assert finding.message.endswith("cat/0.jpg ends the process that reads it (signal 6)")


def test_a_process_that_is_ended_by_others_is_replaced(photos: Path) -> None:
    """The kernel may take it for lack of memory: no file is accused of that."""
    inspector = inspection.Inspector()
    task = {"path": str(photos / "cat" / "0.jpg"), "max_pixels": 10**6}
    with contextlib.closing(inspector):
        assert inspector.ask(task)[0]["problems"] == []
        first = inspector._process
        assert first is not None
        first.kill()
        first.wait()
        assert inspector.ask(task)[0]["problems"] == []
        assert inspector._process is not first


def test_a_file_that_hangs_is_named(photos: Path, monkeypatch: Any) -> None:
    """After a while it is given up, and the next one is read."""
    monkeypatch.setattr(inspection, "HANG_SECONDS", 0.2)
    inspector = inspection.Inspector()
    task = {"path": str(photos / "cat" / "0.jpg"), "max_pixels": 10**6}
    with contextlib.closing(inspector):
        assert inspector.ask(task)[0]["problems"] == []
        assert inspector._process is not None
        inspector._process.send_signal(signal.SIGSTOP)
        (answer,) = inspector.ask({**task, "hangs": True})
        assert "takes more than 0 seconds to read" in answer["problems"][0][1]
        assert inspector.ask(task)[0]["problems"] == []


def test_nothing_is_left_of_one_that_was_stopped(photos: Path, monkeypatch: Any) -> None:
    """Ctrl-C in the middle: the processes end."""
    begun = []
    started = inspection.Inspector._started

    def noted(self: Any) -> Any:
        process = started(self)
        begun.append(process)
        return process

    monkeypatch.setattr(inspection.Inspector, "_started", noted)
    tasks = [(str(path), None) for path in photos.glob("*/*.jpg")]
    answers = verification._answers(tasks, 2, 10**6)
    next(answers)
    answers.close()
    assert begun
    assert all(process.poll() is not None for process in begun)
