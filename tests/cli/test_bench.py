"""Compares loaders with plain threads."""

from pathlib import Path

from kloaders.cli import bench


def test_a_table_for_people():
    lines = bench.table([bench.Row("files", "as they are", 1234.5, 0.5)]).splitlines()
    assert lines[1].split() == ["files", "1,234", "0.50", "as", "they", "are"]
    assert bench.as_dicts([bench.Row("files", "as they are", 2.0)])[0]["of_limit"] is None


def test_each_file_is_read_as_often_as_the_others(tmp_path):
    """By threads, until the time is over; the first round is not counted."""
    import threading
    from collections import Counter

    seen, lock = Counter(), threading.Lock()

    def work(path):
        with lock:
            seen[path] += 1

    paths = [str(k) for k in range(40)]
    assert bench._by_threads(paths, work, 0.05) > 0
    assert set(seen) == set(paths)
    assert min(seen.values()) >= 1


def test_images_are_made_where_none_are_given(photos):
    """And are gone afterwards; the tiny ones are hidden."""
    with bench.made_or(str(photos)) as there:
        assert there == str(photos)
    with bench.made_or(None) as there:
        shown = sorted(path.name for path in Path(there).iterdir() if path.name[0] != ".")
        assert shown == ["china", "flower"]
    assert not Path(there).exists()
