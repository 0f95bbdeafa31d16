"""Caches and hooks whose attributes are assigned between epochs: nothing that was made before is served."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import kloaders as kl

SAMPLES, BATCH = 12, 4


class Decode:
    """A value that is assigned, and how often it was asked."""

    def __init__(self):
        self.add, self.side, self.calls = 0, 4, 0

    def __call__(self, raw):
        self.calls += 1
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
        return cv2.resize(image, (self.side, self.side)) + np.uint8(self.add)


class Hooked(kl.PathSequenceLoader):
    """The same by load_sample, with its state in the loader."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.add, self.side, self.calls = 0, 4, 0

    def load_sample(self, path):
        self.calls += 1
        return cv2.resize(cv2.imread(path), (self.side, self.side)) + np.uint8(self.add)


class Preprocess:
    """The same by preprocess=."""

    def __init__(self):
        self.add, self.side, self.calls = 0, 4, 0

    def __call__(self, x, y):
        self.calls += 1
        return cv2.resize(x, (self.side, self.side)) + np.uint8(self.add), y


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "files").mkdir()
    made = [str(tmp_path / "files" / f"{k:02d}.png") for k in range(SAMPLES)]
    for k, path in enumerate(made):
        assert cv2.imwrite(path, np.full((8, 8, 3), k, np.uint8))
    return made


WAYS = ("decode", "load_sample", "preprocess")


@pytest.fixture(params=WAYS)
def made(request, paths):
    """made(cache=...) -> a loader and what has its state."""

    def make(**options):
        options = {"workers": 2, "shuffle": True, "seed": 1, **options}
        if request.param == "load_sample":
            loader = Hooked(paths, np.arange(SAMPLES), BATCH, **options)
            return loader, loader
        hook = Decode() if request.param == "decode" else Preprocess()
        name = {"decode": "decode", "preprocess": "preprocess"}[request.param]
        return kl.PathSequenceLoader(
            paths, np.arange(SAMPLES), BATCH, **{name: hook}, **options
        ), hook

    return make


def place(kind, tmp_path):
    return "ram" if kind == "ram" else tmp_path / "cache"


def epoch(loader):
    """Shape of the samples, and what was added to their number."""
    shapes, added = set(), set()
    for x, y in loader:
        shapes.add(x.shape[1:3])
        added.update((x[:, 0, 0, 0].astype(int) - y).tolist())
    return shapes, added


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["ram", "folder"])
def test_the_next_epoch_has_what_was_assigned(made, kind, workers, tmp_path):
    loader, hook = made(cache=place(kind, tmp_path), workers=workers)
    with loader:
        assert epoch(loader) == ({(4, 4)}, {0})
        calls = hook.calls
        assert epoch(loader) == ({(4, 4)}, {0})
        # And nothing is dropped without a reason. Threads may read a sample for two epochs at once.
        assert workers or hook.calls == calls
        hook.add = 100
        assert epoch(loader) == ({(4, 4)}, {100})
        calls = hook.calls
        assert epoch(loader) == ({(4, 4)}, {100})
        assert workers or hook.calls == calls
        y = loader[0][1]
        hook.add = 50
        assert (loader[0][0][:, 0, 0, 0] == y + 50).all()
        hook.add = 0
        assert epoch(loader) == ({(4, 4)}, {0})


@pytest.mark.parametrize("kind", ["ram", "folder"])
def test_samples_of_another_size(made, kind, tmp_path):
    loader, hook = made(cache=place(kind, tmp_path))
    with loader:
        epoch(loader)
        hook.side = 6
        for _ in range(2):
            assert epoch(loader) == ({(6, 6)}, {0})


def test_a_folder_is_found_again_by_the_next_loader(made, tmp_path):
    """What was made before and after are two things in it; the next one finds what it would make."""
    loader, hook = made(cache=tmp_path / "cache")
    with loader:
        epoch(loader)
        hook.add = 100
        epoch(loader)
    loader, hook = made(cache=tmp_path / "cache")
    with loader:
        assert epoch(loader) == ({(4, 4)}, {0})
        assert hook.calls <= 1
    loader, hook = made(cache=tmp_path / "cache")
    hook.add = 100
    with loader:
        assert epoch(loader) == ({(4, 4)}, {100})


def test_worker_processes_have_it_as_well(paths, tmp_path):
    hook = Decode()
    with kl.PathSequenceLoader(
        paths,
        np.arange(SAMPLES),
        BATCH,
        decode=hook,
        cache=tmp_path / "c",
        processes=True,
        workers=1,
    ) as loader:
        assert epoch(loader) == ({(4, 4)}, {0})
        hook.add = 100
        assert epoch(loader) == ({(4, 4)}, {100})


def test_the_users_own_key_stands_for_the_functions(paths, tmp_path):
    """cache_key= says what they make: it is not looked behind."""
    hook = Decode()
    with kl.PathSequenceLoader(
        paths, np.arange(SAMPLES), BATCH, decode=hook, cache=tmp_path / "c", cache_key="1"
    ) as loader:
        epoch(loader)
        hook.add = 100
        assert epoch(loader) == ({(4, 4)}, {0})
