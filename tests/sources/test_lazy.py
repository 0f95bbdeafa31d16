"""Arrays that lie elsewhere: rows are read as a batch needs them, by a handle for each thread."""

import gc
import pickle
import threading

import h5py
import numpy as np
import pytest

import kloaders as kl
from kloaders.sources.lazy import LazyArray, LazyColumn, is_lazy
from tests.support.recording import numbers_of, recording_model, row_of

N = 24


def rows():
    return np.stack([row_of(n) for n in range(N)])


def labels():
    return np.arange(N, dtype=np.float32)


class Rows:
    """A user's own array: shape, dtype, rows. It notes what is read, by whom, and how many at once."""

    def __init__(self, array, broken=None):
        self.array, self.broken, self.reads, self.busy = array, broken, [], 0
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, index):
        self.busy += 1
        assert self.busy == 1, "two threads at once"
        self.reads.append(index)
        got = self.array[index]
        self.busy -= 1
        if self.broken is not None and np.any(got.reshape(-1, 2)[:, 0] == self.broken):
            raise OSError(f"chunk of row {self.broken} is damaged")
        return got

    def __array__(self, *arguments, **options):
        raise AssertionError("read as a whole")

    __len__ = None


def hdf5(folder, **layout):
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("x", data=rows(), **layout)
        file["y"] = labels()
    return h5py.File(folder / "a.h5")


def zarr_array(folder):
    zarr = pytest.importorskip("zarr")
    store = zarr.create_array(str(folder / "a.zarr"), shape=(N, 2), chunks=(4, 2), dtype="float32")
    store[:] = rows()
    return zarr.open_array(str(folder / "a.zarr"), mode="r")


KINDS = {
    "HDF5": lambda folder: hdf5(folder)["x"],
    "HDF5 in chunks": lambda folder: hdf5(folder, chunks=(5, 2), compression="gzip")["x"],
    "zarr": zarr_array,
    "an own class": lambda folder: Rows(rows()),
    "opened by each thread": lambda folder: kl.PerThread(opened, hdf5(folder).filename),
    "opened by each thread, as an array": lambda folder: kl.PerThread(rows),
}


def opened(path):
    return h5py.File(path)["x"]


@pytest.fixture(params=KINDS)
def array(request, tmp_path):
    return KINDS[request.param](tmp_path)


# ---------------------------------------------------------------- what is one


def test_what_has_memory_behind_it_is_an_array_and_no_lazy_one(tmp_path):
    np.save(tmp_path / "a.npy", rows())
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    for values in (rows(), mapped, [1, 2], "text", rows().tolist(), 3, np.float32(1), {}, None):
        assert not is_lazy(values)


def test_tensors_and_tables_are_arrays():
    pandas = pytest.importorskip("pandas")
    import keras

    tensor = keras.ops.convert_to_tensor(rows())
    for values in (pandas.DataFrame(rows()), pandas.Series(labels()), tensor):
        assert not is_lazy(values)
        assert kl.ArraySequenceLoader(values, batch_size=4)[0].shape[0] == 4


def test_what_has_to_be_read_is_one(array):
    assert is_lazy(array)


# ---------------------------------------------------------------- which rows arrive


def test_a_model_receives_each_row_once_with_its_label(array, keep):
    model, received = recording_model()
    loader = keep(kl.ArraySequenceLoader(array, labels(), 5, seed=1, workers=3))
    history = model.fit(loader, epochs=2, verbose=0).history
    assert max(history["mismatch"]) == 0
    for epoch in range(2):
        batches = received.trained[epoch * 5 : epoch * 5 + 5]
        assert sorted(n for batch in batches for n in batch) == list(range(N))
    predicted = model.predict(loader, verbose=0)[:, 1]
    assert np.rint(predicted).astype(int).tolist() == list(range(N))


def test_batches_are_those_of_the_array(array, keep):
    lazy = keep(kl.ArraySequenceLoader(array, labels(), 5, seed=1, shuffle=True))
    plain = keep(kl.ArraySequenceLoader(rows(), labels(), 5, seed=1, shuffle=True))
    for (x, y), (a, b) in zip(lazy.epoch_batches(), plain.epoch_batches(), strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)


def test_a_cast_and_a_part_of_it(array, keep):
    loader = keep(kl.ArraySequenceLoader(array, None, 4, dtype="float64"))
    part = keep(kl.subset(loader, [7, 3, 3, 20]))
    assert part[0].dtype == np.float64
    assert numbers_of(part[0]) == [7, 3, 3, 20]
    assert numbers_of(keep(kl.preload(loader, progress=False))[1]) == [4, 5, 6, 7]


def test_processes_read_what_threads_read(array, keep):
    if isinstance(array, Rows):
        pytest.skip("its assertions are in a module that imports Keras")
    threads = keep(kl.ArraySequenceLoader(array, labels(), 5, seed=1, shuffle=True))
    others = keep(
        kl.ArraySequenceLoader(
            array, labels(), 5, seed=1, shuffle=True, transform=same, processes=True, workers=1
        )
    )
    for (x, y), (a, b) in zip(threads.epoch_batches(), others.epoch_batches(), strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)


def same(x, y, rng):
    return x, y


# ---------------------------------------------------------------- what is read


def test_a_batch_reads_its_rows_and_neighbours_in_one_call():
    array = Rows(rows())
    column = LazyColumn(LazyArray(array))
    out = np.empty((6, 2), np.float32)
    column.fill(np.array([9, 3, 4, 20, 5, 3]), out, 0, pytest.fail)
    assert array.reads == [slice(3, 6), slice(9, 10), slice(20, 21)]
    assert numbers_of(out) == [9, 3, 4, 20, 5, 3]


def test_an_epoch_never_reads_it_whole(keep):
    array = Rows(rows())
    loader = keep(kl.ArraySequenceLoader(array, labels(), 5, seed=1, shuffle=True, workers=2))
    loader.summary()
    loader.state_dict()
    for epoch in range(2):
        list(loader.epoch_batches(epoch))
    assert max(index.stop - index.start for index in array.reads) <= 5


def test_each_thread_has_a_handle_of_hdf5_of_its_own(tmp_path):
    lazy = LazyArray(hdf5(tmp_path)["x"])
    ids = {}

    def read(name):
        lazy.rows(0, 1)
        ids[name] = lazy._handle().id

    for name in ("a", "b"):
        thread = threading.Thread(target=read, args=(name,))
        thread.start()
        thread.join()
    assert ids["a"] is not ids["b"]


def test_the_users_file_may_be_closed(tmp_path, keep):
    with hdf5(tmp_path) as file:
        loader = keep(kl.ArraySequenceLoader(file["x"], file["y"], 5))
    x, y = loader[2]
    assert numbers_of(x) == y.astype(int).tolist() == [10, 11, 12, 13, 14]
    loader.close()
    gc.collect()  # threads have let go of it
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["z"] = 1


def test_a_file_in_memory_is_shared(keep):
    file = h5py.File("nowhere.h5", "w", driver="core", backing_store=False)
    file["x"] = rows()
    loader = keep(kl.ArraySequenceLoader(file["x"], labels(), 5, workers=3))
    assert numbers_of(np.concatenate([x for x, _ in loader.epoch_batches()])) == list(range(N))


def test_it_is_sent_by_name(tmp_path):
    with hdf5(tmp_path) as file:
        loader = kl.ArraySequenceLoader(file["x"], file["y"], 5)
    sent = pickle.dumps(loader)
    assert len(sent) < 2500
    x, y = pickle.loads(sent)[1]
    assert numbers_of(x) == y.astype(int).tolist() == [5, 6, 7, 8, 9]


def test_labels_that_lie_elsewhere_are_known(tmp_path, keep):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = rows(), np.arange(N) % 3
    with h5py.File(tmp_path / "a.h5") as file:
        loader = keep(kl.ArraySequenceLoader(file["x"], file["y"], 6, seed=1, shuffle=True))
        balanced = keep(kl.ArraySequenceLoader(file["x"], file["y"], 6, seed=1, class_balance=True))
    val = keep(kl.split(loader, validation=0.25, stratify=True)[1])
    assert np.bincount(np.concatenate([y for _, y in val.epoch_batches()])).tolist() == [2, 2, 2]
    assert np.bincount(balanced[0][1]).tolist() == [2, 2, 2]


# ---------------------------------------------------------------- what goes wrong


def test_rows_that_do_not_load_are_named(keep):
    loader = keep(
        kl.ArraySequenceLoader(Rows(rows(), broken=7), labels(), 5, on_error="skip", workers=0)
    )
    found = [numbers_of(x) for x, _ in loader.epoch_batches()]
    assert found[1] == [5, 6, 8, 9]
    (error,) = loader.errors
    assert error.index == 7
    assert "chunk of row 7 is damaged" in str(error)


def test_a_damaged_file_is_named(tmp_path, keep):
    with hdf5(tmp_path, chunks=(5, 2), compression="gzip", fletcher32=True) as file:
        place = file["x"].id.get_chunk_info(2).byte_offset
    path = tmp_path / "a.h5"
    with path.open("r+b") as raw:
        raw.seek(place + 4)
        raw.write(b"\0" * 8)
    with h5py.File(path) as file:
        loader = keep(kl.ArraySequenceLoader(file["x"], file["y"], 4, on_error="skip"))
    got = np.concatenate([x for x, _ in loader.epoch_batches()])
    assert numbers_of(got) == [*range(10), *range(15, N)]
    assert "row 10 of /x in" in str(loader.errors[0])
    assert "a.h5" in str(loader.errors[0])


class Masked(Rows):
    def __getitem__(self, index):
        return np.ma.masked_equal(super().__getitem__(index), 3)


def test_masked_values_are_refused():
    loader = kl.ArraySequenceLoader(Masked(rows()), labels(), 5, workers=0)
    with pytest.raises(kl.SampleError, match="has masked values"):
        loader[0]
    assert numbers_of(kl.ArraySequenceLoader(Masked(rows()), batch_size=4, workers=0)[5]) == [
        *range(20, 24)
    ]


class Shrinking(Rows):
    def __getitem__(self, index):
        return super().__getitem__(index)[:1]


def test_fewer_rows_than_asked_for_are_an_error():
    lazy = LazyArray(Shrinking(rows()))
    with pytest.raises(ValueError, match="was it changed since the loader was made"):
        lazy.rows(3, 5)


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        (np.array(["a", "b"]), TypeError, "dtype"),
        (np.float32(3), TypeError, "single value"),
    ],
)
def test_what_is_no_rows_of_numbers_is_refused(values, error, words):
    with pytest.raises(error, match=words):
        kl.ArraySequenceLoader(Rows(values), batch_size=1)


def test_texts_of_hdf5_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = ["a", "b"]
        with pytest.raises(TypeError, match="x has dtype object"):
            kl.ArraySequenceLoader(file["x"])


def test_a_per_thread_that_opens_something_else():
    with pytest.raises(TypeError, match="PerThread that opens a list"):
        kl.ArraySequenceLoader(kl.PerThread(list))


def test_lengths_are_compared(tmp_path):
    with pytest.raises(ValueError, match="lengths differ: x has 24, y has 3"):
        kl.ArraySequenceLoader(hdf5(tmp_path)["x"], [1, 2, 3])
