"""Servers for tests of places."""

import pytest

from tests.support.object_server import serving


@pytest.fixture
def server():
    pytest.importorskip("obstore", reason="needs the extra `cloud`")
    with serving() as found:
        yield found
