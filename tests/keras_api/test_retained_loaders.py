"""A loader that only Keras' adapters refer to is emptied; all others stay unchanged."""

import gc
import weakref

import pytest

from kloaders.keras_api import base, private, retained_loaders
from kloaders.keras_api.retained_loaders import note_adapter


class Loader:
    """Holds something."""

    def __init__(self):
        self.data = [1, 2, 3]

    def __eq__(self, other):
        return True

    __hash__ = None


class Adapter:
    """Stands in for Keras' adapter."""

    def __init__(self, loader):
        self.loader = loader


class SlottedAdapter:
    """One without a dict, which the collector sees itself."""

    __slots__ = ("loader",)

    def __init__(self, loader):
        self.loader = loader


@pytest.fixture(autouse=True)
def tensorflow(monkeypatch):
    """A backend that keeps adapters, and adapters of ours."""
    monkeypatch.setattr(base, "keeps_adapters", lambda: True)
    monkeypatch.setattr(retained_loaders, "_retained", {})
    monkeypatch.setattr(
        private, "is_adapter", lambda found: isinstance(found, Adapter | SlottedAdapter)
    )


@pytest.fixture(autouse=True)
def few_objects():
    """The collector looks at those of the test alone; else it would take seconds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def registry():
    """What TensorFlow keeps for ever."""
    return []


def empty(loader):
    loader.data = None


def adapted(registry, kind=Adapter, times=1):
    loader = Loader()
    for _ in range(times):
        note_adapter(loader, empty)
        registry.append(kind(loader))
    return loader


@pytest.mark.parametrize("kind", [Adapter, SlottedAdapter])
@pytest.mark.parametrize("times", [1, 3])
def test_a_forgotten_loader_is_emptied(registry, kind, times):
    loader = adapted(registry, kind, times)
    del loader
    gc.collect()
    assert registry[0].loader.data is None


def test_a_loader_in_use_is_left_alone(registry):
    loader = adapted(registry)
    gc.collect()
    assert loader.data == [1, 2, 3]
    del loader
    gc.collect()
    assert registry[0].loader.data is None


def test_one_that_somebody_else_refers_to_is_left_alone(registry):
    """In a list, an attribute or a closure: reachable loaders may still be read."""

    def closure_over(loader):
        return lambda: loader

    holders = [[adapted(registry)], {"a": adapted(registry)}, closure_over(adapted(registry))]
    gc.collect()
    assert len(holders) == 3
    assert [adapter.loader.data for adapter in registry] == [[1, 2, 3]] * 3
    holders.clear()
    gc.collect()
    assert [adapter.loader.data for adapter in registry] == [None] * 3


def test_each_loader_is_emptied_on_its_own(registry):
    """They compare equal, and are still distinguished."""
    kept, forgotten = adapted(registry), adapted(registry)
    del forgotten
    gc.collect()
    assert [adapter.loader.data for adapter in registry] == [[1, 2, 3], None]
    assert kept.data == [1, 2, 3]


def test_a_loader_that_is_gone_is_forgotten(registry):
    loader = adapted(registry)
    del loader
    registry.clear()
    gc.collect()
    assert retained_loaders._retained == {}


def test_only_full_collections_look(registry):
    loader = adapted(registry)
    del loader
    gc.collect(0)
    gc.collect(1)
    assert registry[0].loader.data == [1, 2, 3]


def test_other_backends_note_nothing(registry, monkeypatch):
    monkeypatch.setattr(base, "keeps_adapters", lambda: False)
    loader = adapted(registry)
    assert retained_loaders._retained == {}
    del loader
    gc.collect()
    assert registry[0].loader.data == [1, 2, 3]


def test_a_new_loader_has_the_forgotten_ones_emptied(registry):
    """Before any collection: a script may make a loader for each of many fits."""
    gc.disable()
    try:
        for k in range(5):
            loader = adapted(registry)
            assert [a.loader.data for a in registry] == [None] * max(0, k - 1) + [[1, 2, 3]] * (
                1 + (k > 0)
            )
        del loader
        note_adapter(Loader(), empty)
        assert [a.loader.data for a in registry] == [None] * 5
    finally:
        gc.enable()


class Keeping:
    """Like Keras' adapter: it reads from its loader when it is made, and keeps the loader."""

    def __init__(self, loader):
        self.loader = loader
        note_adapter(loader, empty)


@pytest.fixture
def keeping(monkeypatch, registry):
    """Make this many adapters of a loader, which the registry keeps."""
    monkeypatch.setattr(private, "is_adapter", lambda found: isinstance(found, Keeping))
    return lambda loader, times=1: registry.extend(Keeping(loader) for _ in range(times))


@pytest.mark.parametrize("times", [1, 3])
def test_a_closed_loader_goes_with_its_last_reference(registry, keeping, times):
    """Without a collection; until then its adapters can be used."""
    gc.disable()
    try:
        loader = Loader()
        keeping(loader, times)
        gone = weakref.ref(loader)
        retained_loaders.let_go(loader)
        assert [adapter.loader.data for adapter in registry] == [[1, 2, 3]] * times
        del loader
        assert gone() is None
    finally:
        gc.enable()


def test_a_loader_that_is_used_again_can_be_let_go_again(registry, keeping):
    loader = Loader()
    for _ in range(2):
        keeping(loader)
        retained_loaders.let_go(loader)
    keeping(loader)
    del loader
    assert registry[-1].loader.data == [1, 2, 3]
    gc.collect()
    assert registry[-1].loader.data is None


def test_a_loader_that_keras_never_met_can_be_let_go():
    retained_loaders.let_go(Loader())
