"""A small object server for tests: the part of S3's protocol that loaders need, and faults on demand.

It is also a web server: `server.web_url(name)`. It does not check signatures; moto's server does
(tests/support/s3.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import kloaders as kl

BUCKET = "bucket"
#: fault(method, name, count) -> None, (status, code), "cut" (a body that breaks off), "drop" (no answer),
#: "short" (a byte fewer than asked for, as if that were all), "whole" (all of an object for a range of it),
#: "longer" (a size that is too large).
Fault = Callable[[str, str, int], Any]


class ObjectServer(ThreadingHTTPServer):
    """Objects of one bucket, by name."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        #: The requests: (method, name, the Range header or "").
        self.requests: list[tuple[str, str, str]] = []
        self.fault: Fault | None = None
        self.latency = 0.0
        self.in_flight = self.peak = 0
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def url(self, name: str = "") -> str:
        """The s3:// URL of an object, or of the bucket."""
        return f"s3://{BUCKET}/{name}".rstrip("/")

    def web_url(self, name: str) -> str:
        """The http:// URL of an object."""
        return f"{self.endpoint}/{BUCKET}/{urllib.parse.quote(name)}"

    def got(self, method: str = "GET") -> list[str]:
        """Names of the objects that were requested with this method, in order."""
        return [name for how, name, _ in self.requests if how == method and name]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet, or Nagle's algorithm waits 40 ms
    disable_nagle_algorithm = True
    server: ObjectServer

    def log_message(self, *args: Any) -> None:
        pass

    def _name(self) -> str:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        return path.removeprefix(f"/{BUCKET}").removeprefix("/")

    def _answer(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        name = self._name()
        with server.lock:
            server.requests.append((self.command, name, self.headers.get("Range") or ""))
            count = len(server.requests)
            server.in_flight += 1
            server.peak = max(server.peak, server.in_flight)
        try:
            if server.latency:
                time.sleep(server.latency)
            fault = server.fault(self.command, name, count) if server.fault else None
            if fault == "drop":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            elif isinstance(fault, tuple):
                self._error(*fault)
            else:
                getattr(self, f"_{self.command.lower()}")(name, body, fault)
        finally:
            with server.lock:
                server.in_flight -= 1

    do_GET = do_HEAD = do_PUT = do_POST = do_PROPFIND = _answer

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _send(self, status: int, body: bytes, cut: bool = False, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Mon, 02 Nov 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.wfile.flush()
        if cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _error(self, status: int, code: str, more: str = "") -> None:
        text = f"<Error><Code>{code}</Code><Message>it is AKIDSECRETIVE</Message>{more}</Error>"
        self._send(status, text.encode())

    def _get(self, name: str, body: bytes, fault: Any) -> None:
        if not name:
            self._list()
            return
        data = self.server.objects.get(name)
        if data is None:
            self._error(404, "NoSuchKey")
            return
        etag = etag_of(data)
        if self.headers.get("If-Match", etag) != etag:
            self._error(412, "PreconditionFailed")
            return
        status, headers = 200, {}
        asked = None if fault == "whole" else self.headers.get("Range")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(data)) + 1, len(data))
            if start >= len(data):
                self._error(416, "InvalidRange")
                return
            headers["Content_Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            data, status = data[start:stop], 206
        if fault == "longer":
            data += bytes(1000)
        self._send(
            status, data[:-1] if fault == "short" else data, fault == "cut", ETag=etag, **headers
        )

    _head = _get

    def _propfind(self, name: str, body: bytes, fault: Any) -> None:
        self._error(405, "MethodNotAllowed")

    def _put(self, name: str, body: bytes, fault: Any) -> None:
        with self.server.lock:
            there = self.server.objects.get(name)
            absent = self.headers.get("If-None-Match") == "*"
            wanted = self.headers.get("If-Match")
            if (absent and there is not None) or (
                wanted and (there is None or etag_of(there) != wanted)
            ):
                self._error(412, "PreconditionFailed")
                return
            self.server.objects[name] = body
        self._send(200, b"", ETag=etag_of(body))

    def _post(self, name: str, body: bytes, cut: bool) -> None:
        """Deletes several objects."""
        names = [html.unescape(n) for n in re.findall(r"<Key>(.*?)</Key>", body.decode())]
        with self.server.lock:
            for each in names:
                self.server.objects.pop(each, None)
        done = "".join(f"<Deleted><Key>{html.escape(n)}</Key></Deleted>" for n in names)
        self._send(200, f"<?xml version='1.0'?><DeleteResult>{done}</DeleteResult>".encode())

    def _list(self) -> None:
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        prefix = asked.get("prefix", "")
        names = sorted(n for n in self.server.objects if n.startswith(prefix))
        if asked.get("delimiter"):
            names = [name for name in names if "/" not in name[len(prefix) :]]
        after = asked.get("continuation-token", "")
        names = [name for name in names if name > after]
        page, rest = names[:1000], names[1000:]
        text = "<?xml version='1.0'?><ListBucketResult>"
        text += f"<IsTruncated>{'true' if rest else 'false'}</IsTruncated>"
        if rest:
            text += f"<NextContinuationToken>{html.escape(page[-1])}</NextContinuationToken>"
        for name in page:
            data = self.server.objects[name]
            text += (
                f"<Contents><Key>{html.escape(name)}</Key><Size>{len(data)}</Size>"
                f"<ETag>{html.escape(etag_of(data))}</ETag>"
                "<LastModified>2026-11-02T00:00:00.000Z</LastModified></Contents>"
            )
        self._send(200, (text + "</ListBucketResult>").encode())


def etag_of(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


@contextlib.contextmanager
def serving(**settings: Any) -> Iterator[ObjectServer]:
    """A server, and this process set up to read from it; `settings` are those of `kl.storage`."""
    with ObjectServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        given = {
            "access_key": "AKIDSECRETIVE",
            "secret_key": "verysecretkey",
            "region": "us-east-1",
        }
        given |= {"endpoint": server.endpoint, "allow_http": True, "patience": 20}
        kl.storage("s3", **(given | settings))
        kl.storage("http", patience=settings.get("patience", 20))
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
