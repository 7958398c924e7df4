"""A real reverse proxy with the configuration of docs/proxies, a real checker before it decides, and a backend."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.end_to_end.checker_server import CLIENT
from tests.waiting import eventually

DOCS = Path(__file__).parents[2] / "docs/proxies"
_NGINX = """
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include {site};
}}
"""


class Answer(NamedTuple):
    """What came back; names of headers are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes


class Proxied(NamedTuple):
    """Ports on 127.0.0.1, and the checker's process."""

    port: int
    checker_port: int
    checker: subprocess.Popen[bytes]

    def ask(
        self, head: str, key: str | None = None, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Send a request from CLIENT; `head` is as in `GET /`."""
        named = dict(headers or {}) | ({} if key is None else {"Authorization": f"Bearer {key}"})
        named |= {"Content-Length": str(len(body))} if body else {}
        lines = [f"{head} HTTP/1.1", "Host: example", *(f"{name}: {value}" for name, value in named.items()), "", ""]
        with socket.create_connection(("127.0.0.1", self.port), 10, (CLIENT, 0)) as connection:
            connection.sendall("\r\n".join(lines).encode() + body)
            return read_answer(connection, has_body=not head.startswith("HEAD"))

    def tell_checker(self, word: str) -> None:
        """Make the checker `stale` or `fresh`."""
        with socket.create_connection(("127.0.0.1", self.checker_port), 10) as connection:
            connection.sendall(f"POST /-/{word} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            assert read_answer(connection).status == 200


def read_answer(connection: socket.socket, *, has_body: bool = True) -> Answer:
    """One answer of HTTP/1.1."""
    with connection.makefile("rb") as lines:
        status = int(lines.readline().split()[1])
        headers = _headers(lines)
        if status == 101:
            connection.sendall(b"ping")
            return Answer(status, headers, lines.read(4))
        length = int(headers.get("content-length", 0)) if has_body else 0
        body = _chunks(lines) if has_body and "chunked" in headers.get("transfer-encoding", "") else lines.read(length)
    return Answer(status, headers, body)


def _headers(lines: Any) -> dict[str, str]:
    headers: dict[str, str] = {}
    while line := lines.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = ", ".join(filter(None, (headers.get(name.lower()), value.strip())))
    return headers


def _chunks(lines: Any) -> bytes:
    body = b""
    while length := int(lines.readline(), 16):
        body += lines.read(length)
        lines.readline()
    lines.readline()
    return body


@contextmanager
def backend() -> Iterator[int]:
    """A server that tells what it got, and after an upgrade sends back what it reads; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def _serve(listening: socket.socket) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:  # The test is over.
            return
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as lines:
        line = lines.readline().decode().strip()
        if not line:
            return
        headers = _headers(lines)
        if "upgrade" in headers:
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            connection.sendall(lines.read(4))
            return
        chunked = "chunked" in headers.get("transfer-encoding", "")
        body = _chunks(lines) if chunked else lines.read(int(headers.get("content-length", 0)))
        told = json.dumps({"request": line, "headers": headers, "body": len(body)}).encode()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(told)}\r\nConnection: close\r\n"
        )
        connection.sendall(head.encode() + b"\r\n" + (b"" if line.startswith("HEAD") else told))


@contextmanager
def proxied(name: str, folder: Path) -> Iterator[Proxied]:
    """A running `nginx` or `caddy` before a checker and a backend."""
    port, checker_port = free_ports(2)
    with ExitStack() as stack:
        backend_port = stack.enter_context(backend())
        command = checker_command(checker_port, folder)
        checker = stack.enter_context(running(command, folder, checker_port))
        file = {"nginx": "nginx.conf", "caddy": "Caddyfile"}[name]
        site = folder / file
        text = (DOCS / file).read_text()
        for documented, real in ((8080, port), (8003, checker_port), (9000, backend_port)):
            assert f":{documented}" in text
            text = text.replace(f":{documented}", f":{real}")
        site.write_text(text)
        stack.enter_context(running(_command(name, folder, site), folder, port))
        yield Proxied(port, checker_port, checker)


def checker_command(port: int, folder: Path) -> list[str]:
    """How the checker of these tests is started."""
    return [sys.executable, "-m", "tests.end_to_end.checker_server", str(port), str(folder / "checker")]


def _command(name: str, folder: Path, site: Path) -> list[str]:
    program = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert program, f"{name} is not installed: the tests of docs/proxies need it"
    if name == "caddy":
        return [program, "run", "--adapter", "caddyfile", "--config", str(site)]
    whole = folder / "whole.conf"
    whole.write_text(_NGINX.format(site=site))
    # One process, so that none of it is left over.
    return [program, "-p", str(folder), "-c", str(whole), "-g", "daemon off; master_process off;"]


@contextmanager
def running(command: list[str], folder: Path, port: int, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens on a port, which ends with the block, or with the tests if they are killed."""
    log = folder / f"{port}.log"
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "XDG_DATA_HOME": str(folder), **more}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[2],
            env=environment,
        )
    try:
        eventually(lambda: _listens(port, process, log), 30, f"{command[0]} listens")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"it ended with {process.returncode}: {log.read_text()[-2000:]}")
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
