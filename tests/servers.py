"""Starts real servers on this host for a test: Mosquitto, PostgreSQL, a small web server."""

from __future__ import annotations

import http.server
import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, "nothing happened in time"
        time.sleep(0.02)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Mosquitto:
    """An MQTT broker that can be stopped and started again at the same port."""

    def __init__(self, folder: Path, *settings: str) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            pytest.skip("mosquitto is not installed (Debian: apt install mosquitto)")
        self.port = free_port()
        config = folder / "mosquitto.conf"
        # As root it would become a user of its own, who may not read the test's files.
        settings = (*(settings or ("allow_anonymous true",)), *(("user root",) if os.getuid() == 0 else ()))
        config.write_text("\n".join([f"listener {self.port} 127.0.0.1", *settings]))
        self._command = [program, "-c", str(config)]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=True
        )
        wait_for(lambda: answers(self.port))

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None


class PostgreSql:
    """A database cluster of its own; the server refuses to run as root, so it then runs as `nobody`."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            pytest.skip("postgresql is not installed (Debian: apt install postgresql)")
        self._bin, self._data, self.port = found[-1].parent, folder / "pg", free_port()
        self._user = pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else None
        self._data.mkdir()
        if self._user is not None:
            for part in (self._data, *folder.parents, folder):
                if part == self._data:
                    os.chown(part, self._user, -1)
                elif part.owner() == "root" and str(part).startswith("/tmp/"):
                    part.chmod(part.stat().st_mode | 0o011)
        self._run("initdb", "-D", str(self._data), "-U", "algan", "-A", "trust", "--no-sync")
        self.url = f"postgresql://algan@127.0.0.1:{self.port}/postgres"
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        log = str(self._data / "log")
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._bin / program), *arguments],
            check=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self._data,
            user=self._user,
        )


class WebServer:
    """Takes POSTs and answers each with the next of `statuses`, then with 204.

    Attributes:
        got: Body and headers of each POST that was answered with 2xx.
    """

    def __init__(self, port: int = 0) -> None:
        self.got: list[tuple[bytes, dict[str, str]]] = []
        self.statuses: list[int] = []
        self._connections: list[socket.socket] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                outer._connections.append(self.connection)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = outer.statuses.pop(0) if outer.statuses else 204
                if status < 300:
                    outer.got.append((body, {key.lower(): value for key, value in self.headers.items()}))
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "https://mes.plant/new")
                if status != 204:
                    self.send_header("Content-Length", "5")
                self.end_headers()
                if status != 204:
                    self.wfile.write(b"sorry")

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
        for connection in self._connections:  # as the end of its process would
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
