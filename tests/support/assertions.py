"""Assertions that a model received the batches that the loader promises."""

from __future__ import annotations

from kloaders.plan.epoch import Order


def samples_of(batches):
    return [number for batch in batches for number in batch]


def assert_exact(batches, loader, passes=None):
    """The stream of batches is cut into passes, and each has every sample once."""
    size = len(loader)
    found = [batches[k : k + size] for k in range(0, len(batches), size)]
    if passes is not None:
        assert len(found) == passes, f"{len(batches)} batches"
        assert len(batches) == passes * size
    for one in found:
        numbers = samples_of(one)
        if len(one) == size:
            assert sorted(numbers) == list(range(loader.samples))
        else:
            assert len(set(numbers)) == len(numbers)
    return found


def assert_planned(found, loader, epochs=None):
    """Each pass is the loader's plan for one epoch, batch by batch and sample by sample."""
    for k, one in enumerate(found):
        orders = [
            Order(epoch, head)
            for epoch in ([epochs[k]] if epochs else range(30))
            for head in range(len(loader) + 1)
        ]
        assert any(
            one == [loader.plan.indices(order, b).tolist() for b in range(len(one))]
            for order in orders
        ), f"pass {k} is no order of this loader's plan: {one}"


def in_storage_order(loader):
    starts = range(0, loader.samples, loader.batch_size)
    return [list(range(s, min(s + loader.batch_size, loader.samples))) for s in starts]


def stream_of(loader, batches):
    """The first batches of a loader's endless order."""
    size = loader.batch_size
    stream = loader.plan.stream
    return [stream.samples(k * size, (k + 1) * size).tolist() for k in range(batches)]
