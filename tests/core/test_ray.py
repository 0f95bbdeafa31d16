"""Ray(...), a value: checked when it is made."""

import pytest

import kloaders as kl
from kloaders.core.options import WorkOptions
from kloaders.core.ray import checked_engine


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cpus": 0}, ValueError, "cpus"),
        ({"cpus": 2.5}, TypeError, "cpus"),
        ({"cpus": 2, "min_cpus": 3}, ValueError, "min_cpus=3 is more than cpus=2"),
        ({"cpus": 2, "address": 8265}, TypeError, 'expected a string such as "auto"'),
        ({"cpus": 2, "patience": 0}, ValueError, "more than 0 seconds"),
        ({"cpus": 2, "patience": "long"}, TypeError, "a number of seconds"),
    ],
)
def test_bad_values_are_named(options, error, message):
    with pytest.raises(error, match=message):
        kl.Ray(**options)


def test_what_it_starts_with():
    assert kl.Ray(cpus=4).least == 4
    assert kl.Ray(cpus=4, min_cpus=1).least == 1
    assert kl.Ray(cpus=4) == kl.Ray(cpus=4)


def test_workers_beside_it_are_refused():
    with pytest.raises(ValueError, match=r"workers=2 and processes=Ray.*Leave workers= out"):
        WorkOptions(workers=2, processes=kl.Ray(cpus=4))


def test_engines():
    assert checked_engine(None) is None
    assert checked_engine(kl.Ray(cpus=2)) == kl.Ray(cpus=2)
    with pytest.raises(TypeError, match=r"engine='ray', expected None"):
        checked_engine("ray")
