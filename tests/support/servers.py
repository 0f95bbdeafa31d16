"""Third-party servers on this machine, for tests: nginx, with latency and faults; Azurite, for az://.

A test whose server is not installed is skipped, unless KLOADERS_SERVERS names it, as .ci/run does.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

import kloaders as kl

_ECHO = "/usr/lib/nginx/modules/ngx_http_echo_module.so"
# Azurite's own account, which its documentation has for everybody.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_SECONDS = 60

_NGINX = """
{load}
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; tcp_nopush on;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    split_clients $request_id $fate {{ {errors}% away; {resets}% reset; * well; }}
    server {{
        listen 127.0.0.1:{port}; root {root};
        if ($fate = away) {{ return 503; }}
        if ($fate = reset) {{ return 444; }}
        {delay}
    }}
}}
"""
_DELAY = "location / {{ echo_sleep {seconds}; echo_exec @file; }} location @file {{ }}"


def missing(name: str, found: bool, how: str) -> None:
    """Skip the test if a server is not installed; fail if KLOADERS_SERVERS names it."""
    if found:
        return
    if name in os.environ.get("KLOADERS_SERVERS", "").split():
        pytest.fail(f"KLOADERS_SERVERS names {name}, and it is not there")
    pytest.skip(f"needs {how}")


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    """A server in a process of its own, from when it answers."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + _SECONDS
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
                assert time.monotonic() < end, f"{command[0]} does not answer"
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def nginx(
    root: Path, folder: Path, latency: float = 0, errors: int = 0, resets: int = 0
) -> Iterator[str]:
    """Serves the files below `root`; the URL that they begin with.

    Args:
        root: a folder.
        folder: for what nginx writes.
        latency: seconds before each answer.
        errors: this many of 100 requests are answered by 503.
        resets: this many of 100 requests are closed without an answer.
    """
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    missing("nginx", os.access(program, os.X_OK), "nginx (apt-get install nginx-light)")
    if latency:
        missing("nginx", os.path.exists(_ECHO), "nginx with latency (libnginx-mod-http-echo)")
    port = _free_port()
    text = _NGINX.format(
        load=f"load_module {_ECHO};" if latency else "",
        folder=folder,
        errors=errors or 0.01,
        resets=resets or 0.01,
        port=port,
        root=root,
        delay=_DELAY.format(seconds=latency) if latency else "",
    )
    if not errors and not resets:
        text = "\n".join(line for line in text.splitlines() if "fate" not in line)
    (folder / "nginx.conf").write_text(("user root;\n" if os.geteuid() == 0 else "") + text)
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with _running([*command, "-e", str(folder / "error.log")], port):
        kl.storage("http", patience=20)
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """An Azure Blob server with one container; its URL."""
    pytest.importorskip("obstore", reason="needs the extra `cloud`")
    program = shutil.which("azurite-blob")
    missing("azurite", program is not None, "azurite-blob (npm install -g azurite)")
    port = _free_port()
    command = [program or "", "--blobPort", str(port), "--location", str(folder), "--silent"]
    with _running([*command, "--skipApiVersionCheck"], port):
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        _make_container(endpoint, "container")
        kl.storage(
            "az",
            endpoint=endpoint,
            access_key=KEY,
            account_name=ACCOUNT,
            allow_http=True,
            patience=20,
        )
        yield "az://container"


def _make_container(endpoint: str, name: str) -> None:
    date = formatdate(usegmt=True)
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signed = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-08-06\n{resource}"
    digest = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": "2021-08-06",
        "Content-Length": "0",
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}",
    }
    request = urllib.request.Request(
        f"{endpoint}/{name}?restype=container", method="PUT", headers=headers
    )
    with urllib.request.urlopen(request):
        pass
