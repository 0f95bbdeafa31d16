"""moto's S3 server, which checks what a client sends as S3 does, for tests on loopback."""

from __future__ import annotations

import contextlib
import logging
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import kloaders as kl

BUCKET = "bucket"


class S3:
    """A bucket on moto's server; `settings` are those of `kl.storage`."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.settings: dict[str, Any] = {
            "endpoint": endpoint,
            "region": "us-east-1",
            "access_key": "testing",
            "secret_key": "secretkeyoftests",
            "allow_http": True,
            "patience": 20,
        }
        self.reset()
        self._send("PUT", BUCKET)

    def reset(self) -> None:
        """Forget all buckets: servers of one process share what they hold."""
        self._send("POST", "moto-api/reset")

    def _send(self, method: str, path: str) -> None:
        request = urllib.request.Request(f"{self.endpoint}/{path}", method=method)
        with urllib.request.urlopen(request):
            pass

    def put(self, objects: dict[str, bytes]) -> None:
        """Write objects, with the client that loaders use."""
        import obstore
        from obstore.store import S3Store

        store = S3Store(
            BUCKET,
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id="testing",
            secret_access_key="secretkeyoftests",
            client_options={"allow_http": True},
        )
        for name, data in objects.items():
            obstore.put(store, name, data)

    def url(self, name: str = "") -> str:
        return f"s3://{BUCKET}/{name}".rstrip("/")


@contextlib.contextmanager
def moto() -> Iterator[S3]:
    """The server with one bucket; this process is set up to read from it."""
    pytest.importorskip("obstore", reason="needs the extra `cloud`")
    server = pytest.importorskip("moto.server", reason="needs moto[server]")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line for each request otherwise
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        found = S3(f"http://{host}:{port}")
        kl.storage("s3", **found.settings)
        yield found
        found.reset()
    finally:
        running.stop()
