"""What patterns in braces stand for."""

import pytest

from kloaders.sources.braces import without_braces


@pytest.mark.parametrize(
    ("pattern", "want"),
    [
        ("a.tar", ["a.tar"]),
        ("{0..2}", ["0", "1", "2"]),
        ("s-{008..010}.tar", ["s-008.tar", "s-009.tar", "s-010.tar"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{train}.tar", ["{train}.tar"]),
    ],
)
def test_what_a_pattern_stands_for(pattern, want):
    assert without_braces(pattern) == want
    assert without_braces([pattern, "z"]) == [*want, "z"]


def test_a_file_of_that_very_name_is_meant(tmp_path):
    path = tmp_path / "{0..2}.tar"
    path.touch()
    assert without_braces(path) == [str(path)]


def test_what_is_no_path_is_left_to_others():
    assert without_braces([3]) == [3]
