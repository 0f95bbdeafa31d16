"""A batch under construction: its rows, samples that do not load, and samples that do not fit."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from kloaders.core.errors import SampleError
from kloaders.engine import batches
from kloaders.engine.batches import AnyShapeBuild, BatchBuild, in_storage_order
from kloaders.plan.rng import Moment, sample_rng
from tests.support.sources import Numbered, steps_of

NUMBERS = np.array([7, 2, 9, 2])


def build_of(maker: Any, numbers: Any = NUMBERS, kind: Any = BatchBuild, **options: Any) -> Any:
    return kind(maker, np.array(numbers), Moment(), **options)


def filled(build: Any) -> Any:
    build.fill(0, build.rows)
    return build


def rows_of(build: Any) -> tuple[list[int], list[int], list[int]]:
    """Sample numbers, what x holds, and labels."""
    numbers, (x, y) = build.finish_leaves()
    assert np.all(x == x[:, :1])
    return numbers.tolist(), x[:, 0].astype(int).tolist(), y.tolist()


def test_rows_are_in_the_order_of_their_numbers(runner):
    """Parts may come in any order, from several threads; a sample may come twice."""
    build = build_of(runner(Numbered(10)))
    threads = [threading.Thread(target=build.fill, args=part) for part in ((2, 4), (0, 1), (1, 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows_of(build) == ([7, 2, 9, 2],) * 3


def test_arrays_are_taken_when_the_first_row_is_made(runner):
    """Not before: memory taken ten batches ahead has left the cache."""
    build = build_of(runner(Numbered(10)))
    assert build._leaves is None
    build.fill(0, 1)
    assert [leaf.shape for leaf in build._leaves] == [(4, 2), (4,)]


def test_given_arrays_are_filled(runner):
    x, y = np.zeros((4, 2), np.float32), np.zeros(4, np.int64)
    filled(build_of(runner(Numbered(10)), leaves=[x, y]))
    assert x[:, 0].tolist() == y.tolist() == NUMBERS.tolist()


def test_raw_samples_are_not_transformed(runner):
    maker = runner(Numbered(10), transform=lambda x, y, rng: (x + 100, y))
    for raw, more in ((True, 0), (False, 100)):
        _, x, y = rows_of(filled(build_of(maker, raw=raw)))
        assert [a - b for a, b in zip(x, y, strict=True)] == [more] * 4


# ---------------------------------------------------------------- samples that do not load


def test_an_error_is_raised_with_the_name_of_the_first(runner):
    maker = runner(Numbered(10, broken=[9, 2]))
    with pytest.raises(SampleError, match=r"sample 2 \(index 2\): .*number 2 is broken"):
        filled(build_of(maker)).finish()
    assert {error.index for error in maker.log.errors} == {2, 9}


def test_skipped_rows_are_left_out(runner):
    maker = runner(Numbered(10, broken=[2]), on_error="skip")
    assert rows_of(filled(build_of(maker))) == ([7, 9],) * 3
    assert [error.index for error in maker.log.errors] == [2]


def test_replaced_rows_hold_other_samples(runner):
    """The same ones each time, drawn by seed, epoch and sample; the broken one never."""
    found = []
    for _ in range(2):
        maker = runner(Numbered(10, broken=[2]), on_error="replace")
        numbers, x, y = rows_of(filled(build_of(maker)))
        assert numbers == x == y
        assert (numbers[0], numbers[2]) == (7, 9)
        found.append(numbers)
    assert found[0] == found[1]
    rng = sample_rng(3, 0, 2, draw=2**32)
    drawn = next(n for n in iter(lambda: int(rng.integers(10)), None) if n != 2)
    assert found[0][1] == found[0][3] == drawn


def test_replacing_comes_to_an_end(runner):
    maker = runner(Numbered(50, broken=range(1, 50)), on_error="replace")
    build = filled(build_of(maker, np.arange(1, 50)))  # for one of them sample 0 may be drawn
    with pytest.raises(SampleError, match=r"sample \d+ .*\(and 20 samples drawn to replace it"):
        build.finish()


def test_a_batch_with_nothing_left_has_one_other_sample(runner):
    """Keras cannot take an empty one."""
    maker = runner(Numbered(10, broken=[2, 7]), on_error="skip")
    x, y = filled(build_of(maker, [7, 2])).finish()
    assert len(x) == 1
    assert x[0].tolist() == [y[0], y[0]]
    assert y[0] not in (2, 7)


# ---------------------------------------------------------------- samples that do not fit


def longer(*numbers: int, dtype: Any = np.float32) -> Numbered:
    """Ten samples of two steps, but for these: three, of this dtype."""
    return Numbered(
        10, make=lambda k: steps_of(k, 3).astype(dtype) if k in numbers else steps_of(k)
    )


def test_a_whole_batch_may_have_another_shape(runner):
    x, y = filled(build_of(runner(longer(7, 2, 9)))).finish()
    assert x.shape == (4, 3)
    assert x[:, 2].tolist() == y.tolist() == NUMBERS.tolist()


def test_one_that_differs_is_named_with_the_first(runner):
    with pytest.raises(
        ValueError, match=r"index 9\): it is float32 of shape \(3,\), but index 7, in the.*2"
    ):
        filled(build_of(runner(longer(9)))).finish()
    with pytest.raises(
        ValueError, match=r"index 7\): it is float32 of shape \(3,\), but index 2, in the.*2"
    ):
        filled(build_of(runner(longer(7)))).finish()


def test_what_was_skipped_does_not_count(runner):
    """All that are left have the other shape."""
    source = longer(7, 9)
    source.broken = {2}
    x, y = filled(build_of(runner(source, on_error="skip"))).finish()
    assert x.shape == (2, 3)
    assert y.tolist() == [7, 9]


def test_samples_of_any_shape_are_a_list(runner):
    build = filled(build_of(runner(longer(9, 2)), kind=AnyShapeBuild))
    numbers, (x, y) = build.finish()
    assert [row.shape for row in x] == [(2,), (3,), (3,), (3,)]
    assert [int(row[0]) for row in x] == y.tolist() == numbers.tolist() == NUMBERS.tolist()


def test_samples_of_any_shape_without_those_that_fail(runner):
    source = longer(9)
    source.broken = {2}
    numbers, (x, y) = filled(build_of(runner(source, on_error="skip"), kind=AnyShapeBuild)).finish()
    assert [row.tolist() for row in x] == [[7, 7], [9, 9, 9]]
    assert numbers.tolist() == y.tolist() == [7, 9]


def test_samples_of_any_shape_have_one_dtype(runner):
    with pytest.raises(ValueError, match=r"index 9\): it is float64, but index 0 is float32"):
        filled(build_of(runner(longer(9, dtype="f8")), kind=AnyShapeBuild)).finish()


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize(("start", "stop"), [(0, 50), (3, 20), (7, 8)])
def test_all_samples_in_storage_order(runner, monkeypatch, threads, start, stop):
    """Each once, in runs that fit the bytes allowed for one."""
    monkeypatch.setattr(batches, "_RUN_BYTES", 7 * 16)
    source = Numbered(50)
    maker = runner(source)
    assert maker.specs.raw
    source.reads.clear()

    def make(numbers: Any) -> Any:
        return build_of(maker, numbers)

    found, asked = [], []
    for count, (_, y) in in_storage_order(maker, start, stop, 16, make, threads):
        asked.append(count)
        found += y.tolist()
    assert found == sorted(source.reads) == list(range(start, stop))
    assert asked == [7] * ((stop - start) // 7) + [(stop - start) % 7] * ((stop - start) % 7 > 0)
