"""verify of tar files, Parquet files and folders in MDS, on disk and by URL; and exclude= of what it lists."""

import numpy as np
import pytest
from click.testing import CliRunner

import kloaders as kl
from kloaders.cli.main import cli
from kloaders.diagnostics.verify.rows import RowFile
from kloaders.diagnostics.verify.tasks import is_rows
from kloaders.formats.integrity import is_image
from tests.support.mds_files import write_mds
from tests.support.object_server import serving
from tests.support.range_files import put_folder
from tests.support.remote import epoch
from tests.support.tar_files import npy_bytes, png_bytes, write_tar

SAMPLES = 12
#: Of the samples below these are broken.
CUT, WRONG = 3, 8


def picture(number):
    """The image of a sample; that of two is broken."""
    pixels = np.full((6, 6, 3), number, np.uint8)
    pixels[0] = np.arange(18).reshape(6, 3)
    raw = png_bytes(pixels)
    if number == CUT:
        return raw[:-20]
    return raw[:45] + bytes(12) + raw[57:] if number == WRONG else raw


def tar(folder):
    folder.mkdir()
    members = {}
    for k in range(SAMPLES):
        members |= {f"{k:02}.png": picture(k), f"{k:02}.cls": str(k % 3).encode()}
        members[f"{k:02}.npy"] = npy_bytes(np.arange(4)) if k != 5 else b"\x93NUMPY\1\0 broken"
    write_tar(folder / "a.tar", members)
    return folder / "a.tar", {"x": "png", "y": "cls"}


def parquet(folder):
    pa = pytest.importorskip("pyarrow", reason="needs the extra `parquet`")
    import pyarrow.parquet

    folder.mkdir()
    table = pa.table({"image": [picture(k) for k in range(SAMPLES)], "label": range(SAMPLES)})
    pyarrow.parquet.write_table(table, folder / "a.parquet", row_group_size=4)
    return folder / "a.parquet", {"x": "image", "y": "label"}


def mds(folder):
    samples = [{"image": picture(k), "label": k} for k in range(SAMPLES)]
    write_mds(folder, {"image": "png", "label": "int"}, samples)
    return folder, {"x": "image", "y": "label"}


LOADERS = {
    tar: kl.TarSequenceLoader,
    parquet: kl.ParquetSequenceLoader,
    mds: kl.MDSSequenceLoader,
}


@pytest.fixture(params=LOADERS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


def numbers_in(report):
    """The samples that a report names, by the number in their name."""
    names = [finding.path for finding in report.errors]
    found = []
    for name in names:
        assert ", " in name
        place = name.rpartition(", ")[2].split()
        found.append(int(place[-1] if len(place) == 1 else place[1]))
    return names, found


def test_each_broken_sample_is_named_and_left_out(kind, tmp_path, keep):
    source, columns = kind(tmp_path / "files")
    loader = keep(LOADERS[kind](source, 4, **columns, shuffle=False, size=4))
    for what in (str(source), loader):
        report = kl.verify(what, workers=0, progress=False)
        assert not report.ok
        names, _ = numbers_in(report)
        kinds = sorted(one.kind for one in report.errors)
        extra = [] if kind is not tar else ["truncated"]  # an array that the loader does not read
        assert kinds == sorted(["broken", "truncated", *extra])
        assert report.files == SAMPLES
    listed = tmp_path / "bad.csv"
    report.write_csv(listed)
    weights = np.arange(SAMPLES, dtype=np.float32)
    clean = keep(
        LOADERS[kind](
            source, 4, **columns, shuffle=False, size=4, exclude=listed, sample_weights=weights
        )
    )
    left_out = {CUT, WRONG} | ({5} if kind is tar else set())
    assert clean.samples == SAMPLES - len(left_out)
    got = [w for batch in epoch(clean) for w in batch[2].tolist()]
    assert got == [k for k in range(SAMPLES) if k not in left_out]
    assert not set(names) & {clean.sample_name(k) for k in range(clean.samples)}


def test_by_url(kind, tmp_path, keep, monkeypatch):
    pytest.importorskip("obstore", reason="needs the extra `cloud`")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    source, columns = kind(tmp_path / "files")
    with serving() as server:
        url = put_folder(server, tmp_path / "files")
        url = url if kind is mds else f"{url}/{source.name}"
        report = kl.verify(url, workers=0, progress=False)
        names, _ = numbers_in(report)
        assert all(name.startswith(url) for name in names)
        assert report.files == SAMPLES
        report.write_csv(tmp_path / "bad.csv")
        loader = keep(
            LOADERS[kind](url, 4, **columns, shuffle=False, size=4, exclude=tmp_path / "bad.csv")
        )
        assert loader.samples == SAMPLES - len(names)
        assert len(epoch(loader)) == len(loader)


def test_the_command(kind, tmp_path):
    source, _ = kind(tmp_path / "files")
    listed = tmp_path / "bad.csv"
    for what in {source, tmp_path / "files"}:
        result = CliRunner().invoke(
            cli, ["verify", str(what), "--workers", "0", "--csv", str(listed)]
        )
        assert result.exit_code == 1
        assert "truncated" in result.output
        assert len(listed.read_text().splitlines()) >= 3


@pytest.mark.slow
def test_processes_that_read(kind, tmp_path):
    source, _ = kind(tmp_path / "files")
    report = kl.verify(source, workers=2, progress=False)
    assert {"broken", "truncated"} == {one.kind for one in report.errors}


def test_a_sound_file(tmp_path):
    members = {f"{k:02}.npy": npy_bytes(np.arange(k + 1)) for k in range(4)}
    write_tar(tmp_path / "a.tar", members)
    report = kl.verify(tmp_path / "a.tar", workers=0, progress=False)
    assert report.ok
    assert report.files == 4


def test_what_holds_no_samples_any_more(tmp_path, keep):
    """A tar file that is damaged between members: named as a whole, and left out as a whole."""
    for name in "ab":
        write_tar(
            tmp_path / f"{name}.tar", {f"{k}.npy": npy_bytes(np.full(3, k)) for k in range(9)}
        )
    raw = bytearray((tmp_path / "a.tar").read_bytes())
    raw[2048:2560] = b"?" * 512
    (tmp_path / "a.tar").write_bytes(raw)
    report = kl.verify(tmp_path, workers=0, progress=False)
    assert [one.path for one in report.errors] == [str(tmp_path / "a.tar")]
    report.write_csv(tmp_path / "bad.csv")
    pattern = str(tmp_path / "*.tar")
    loader = keep(kl.TarSequenceLoader(pattern, 3, x="npy", exclude=tmp_path / "bad.csv"))
    assert loader.samples == 9
    with pytest.raises(ValueError, match="leaves out all 1 files"):
        kl.TarSequenceLoader(tmp_path / "a.tar", 3, x="npy", exclude=tmp_path / "bad.csv")


def test_a_damaged_row_group_is_one_finding(tmp_path, keep):
    source, _ = parquet(tmp_path / "files")
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(source).drop_columns("image")
    pyarrow.parquet.write_table(
        table.append_column("x", [range(SAMPLES)]),
        source,
        row_group_size=4,
        write_page_checksum=True,
        use_dictionary=False,
        compression="none",
    )
    group = pyarrow.parquet.read_metadata(source).row_group(1).column(1)
    raw = bytearray(source.read_bytes())
    raw[group.data_page_offset + group.total_compressed_size - 3] ^= 255
    source.write_bytes(raw)
    loader = keep(kl.ParquetSequenceLoader(source, 4, x="x", y="label", shuffle=False))
    for what in (source, loader):
        report = kl.verify(what, workers=0, progress=False)
        assert [one.path.rpartition(", ")[2] for one in report.errors] == ["row group 1"]
    report.write_csv(tmp_path / "bad.csv")
    loader = keep(
        kl.ParquetSequenceLoader(
            source, 4, x="x", y="label", shuffle=False, exclude=tmp_path / "bad.csv"
        )
    )
    assert [y for _, y in epoch(loader) for y in y.tolist()] == [0, 1, 2, 3, 8, 9, 10, 11]


def test_what_files_are_called():
    assert is_rows("a/b.tar")
    assert is_rows("s3://b/c.parquet")
    assert not is_rows("a.tar.gz")
    assert is_image(picture(0))
    assert not is_image(b"BM plain text that begins like a BMP" * 2)


def test_steps_cover_all(tmp_path):
    source, _ = tar(tmp_path / "files")
    assert list(RowFile(str(source)).steps(5)) == [(0, 5), (5, 5), (10, 2)]
