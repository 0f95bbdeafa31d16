"""Tar files as WebDataset writes them: each sample once, whatever the order, and what is broken is named."""

import gzip
import pickle
import tarfile

import numpy as np
import pytest

import kloaders as kl
from tests.support.tar_files import npy_bytes, shards, write_tar

SAMPLES = 30
NOISE = np.random.default_rng(0)
PICTURES = NOISE.integers(0, 256, (SAMPLES, 8, 12, 3), np.uint8)
ROWS = np.arange(SAMPLES, dtype=np.float32)[:, None] * [1, 10]


@pytest.fixture
def tars(tmp_path):
    return shards(tmp_path, ROWS, PICTURES)


@pytest.mark.parametrize(
    "options",
    [{"workers": 0}, {}, {"processes": True, "workers": 2}, {"ram_batch_size": 12}],
    ids=["inline", "threads", "processes", "ram"],
)
def test_each_sample_comes_once_shuffled_as_a_whole(tars, keep, options):
    loader = keep(kl.TarSequenceLoader(tars, 4, x="png", y="cls", shuffle=True, seed=1, **options))
    seen = []
    for x, y in loader:
        np.testing.assert_array_equal(x, PICTURES[y])
        seen += y.tolist()
    assert sorted(seen) == list(range(SAMPLES))
    # batches hold samples of several files
    assert len({n // 10 for n in seen[:8]}) > 1


def test_what_x_and_y_are_is_guessed_and_logged(tars, keep, caplog):
    loader = keep(kl.TarSequenceLoader(tars, 4))
    x, y = loader[1]
    np.testing.assert_array_equal(x, PICTURES[4:8])
    assert y.tolist() == [4, 5, 6, 7]
    assert "x is 'png', y is 'cls'. x= and y= change this." in caplog.text


def test_a_guess_keeps_the_y_that_was_given(tars, keep):
    _, y = keep(kl.TarSequenceLoader(tars, 4, y="json:number"))[1]
    assert y.tolist() == [4, 5, 6, 7]


def test_names_of_classes(tars, keep):
    loader = keep(
        kl.TarSequenceLoader(tars, 4, x="npy", y="txt", class_names=["even", "odd"], seed=1)
    )
    assert loader[0][1].tolist() == [0, 1, 0, 1]
    assert loader.class_names == ["even", "odd"]
    train, validation = kl.split(loader, validation=0.2, seed=1)
    assert train.class_names == validation.class_names == ["even", "odd"]


def test_images_are_resized_and_kept_in_ram(tars, keep):
    loader = keep(kl.TarSequenceLoader(tars, 4, x="png", y="cls", size=(4, 4), seed=1))
    first = [x for x, _ in loader.epoch_batches(shuffle=False)]
    assert first[0].shape == (4, 4, 4, 3)
    assert "cache: 30 of 30 samples in RAM" in loader.summary()
    for again, x in zip(loader.epoch_batches(shuffle=False), first, strict=True):
        np.testing.assert_array_equal(again[0], x)


def test_a_cache_in_a_folder_serves_a_later_run(tars, keep, tmp_path):
    def epoch():
        options = {"size": (4, 4), "cache": tmp_path / "cache"}
        loader = keep(kl.TarSequenceLoader(tars, 4, x="png", y="cls", **options))
        found = list(loader.epoch_batches(shuffle=False))
        loader.close()
        return found, loader

    first, _ = epoch()
    again, loader = epoch()
    for (x, y), (x2, y2) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)
    counts = [store.counts for store in loader.source.stores()]
    assert len(counts) == 2
    assert all(served == asked >= SAMPLES for served, asked in counts)


def test_a_run_goes_on_where_it_was(tars, keep):
    def loader():
        return keep(kl.TarSequenceLoader(tars, 4, x="png", y="cls", shuffle=True, seed=5))

    whole = [y.tolist() for _, y in loader()]
    first = loader()
    batches = iter(first)
    begun = [next(batches)[1].tolist() for _ in range(3)]
    state = first.state_dict()
    second = loader()
    second.load_state_dict(state)
    assert begun + [y.tolist() for _, y in second] == whole


def test_a_state_of_other_files_is_refused(tars, keep, tmp_path):
    state = keep(kl.TarSequenceLoader(tars, 4, x="png", seed=5)).state_dict()
    (tmp_path / "other").mkdir()
    other = shards(tmp_path / "other", ROWS[:20], PICTURES[:20])
    with pytest.raises(ValueError, match="belongs to other data"):
        keep(kl.TarSequenceLoader(other, 4, x="png", seed=5)).load_state_dict(state)


def test_what_is_broken_is_named_and_left_out(tmp_path, keep):
    members = {f"{n}.npy": bytes(8) if n == 3 else _npy(n) for n in range(8)}
    path = write_tar(tmp_path / "a.tar", members)
    loader = keep(kl.TarSequenceLoader(path, 4, on_error="skip"))
    assert np.concatenate(list(loader))[:, 0].tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert [error.name for error in loader.errors] == [f"{path}, 3"]


def test_a_file_cut_short_loses_its_last_sample(tmp_path, keep):
    path = write_tar(
        tmp_path / "a.tar", {f"{n}.npy": _npy(n) for n in range(4)}, tarfile.USTAR_FORMAT
    )
    with tarfile.open(path) as archive:
        end = archive.getmembers()[3].offset_data + 100
    with open(path, "r+b") as file:
        file.truncate(end)
    loader = keep(kl.TarSequenceLoader(path, 4, on_error="skip"))
    assert np.concatenate(list(loader))[:, 0].tolist() == [0, 1, 2]
    assert "a.tar is truncated" in loader.errors[0].cause


def test_a_compressed_file_is_refused_with_advice(tars, tmp_path):
    packed = tmp_path / "s.tar.gz"
    packed.write_bytes(gzip.compress((tmp_path / "s-000.tar").read_bytes()))
    with pytest.raises(kl.DecodeError, match=r"s\.tar\.gz is compressed .*gunzip -k"):
        kl.TarSequenceLoader(packed)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"s-000\.tar does not exist"):
        kl.TarSequenceLoader(str(tmp_path / "s-{000..003}.tar"))


class Doubled(kl.TarSequenceLoader):
    def load_sample(self, index):
        x, y = super().load_sample(index)
        return x * 2, y

    def sample_name(self, index):
        return f"no. {index}"


def test_hooks(tars, keep):
    loader = keep(Doubled(tars, 4, x="npy", y="cls", shuffle=False))
    np.testing.assert_array_equal(loader[2][0], ROWS[8:12] * 2)
    assert pickle.loads(pickle.dumps(loader)).sample_name(3) == "no. 3"


def _npy(number):
    return npy_bytes(np.full(60, number, np.int16))


# ---------------------------------------------------------------- by WebDataset itself


@pytest.fixture
def written(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="WebDataset is not installed")
    number = 0
    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / f"w-{shard}.tar")) as writer:
            for _ in range(6):
                writer.write(
                    {
                        "__key__": f"photos/{number:04}",
                        "png": PICTURES[number],
                        "cls": number,
                        "json": {"half": number / 2},
                        "npy": ROWS[number],
                    }
                )
                number += 1
    return str(tmp_path / "w-{0..1}.tar")


def test_bit_equal_to_webdataset(written, keep):
    import webdataset

    theirs = webdataset.WebDataset(written, shardshuffle=False).decode("rgb8")
    wanted = list(theirs.to_tuple("png", "npy", "json", "cls"))
    loader = keep(
        kl.TarSequenceLoader(
            written, 12, x={"png": "png", "npy": "npy", "half": "json:half"}, y="cls"
        )
    )
    x, y = loader[0]
    assert len(wanted) == len(y) == 12
    for k, (png, npy, text, number) in enumerate(wanted):
        np.testing.assert_array_equal(x["png"][k], png)
        np.testing.assert_array_equal(x["npy"][k], npy)
        assert (x["half"][k], y[k]) == (text["half"], number)
