"""What makes batches, closed when the test ends; files for RAM batches."""

import pytest

from tests.support.ram_reads import raw_files, two_level  # noqa: F401
from tests.support.sources import runner_over


@pytest.fixture
def runner(keep):
    """runner(source, batch_size, **options) -> Runner."""

    def _runner(*arguments, **options):
        return keep(runner_over(*arguments, **options))

    return _runner
