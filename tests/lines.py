"""Lines of folders in this process, watched over HTTP as Prometheus and Kubernetes would."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from algan_stream.bundle import Bundle
from algan_stream.config import LineConfig
from algan_stream.plugins import convert
from algan_stream.service import Service
from algan_stream.sinks.base import Sink


def line_of(bundle: Bundle, *sources: dict[str, Any], **more: Any) -> LineConfig:
    """A line with cameras `cam0`, `cam1`, …, and HTTP on a free port."""
    cameras = [{"id": f"cam{i}", "source": source} for i, source in enumerate(sources)]
    section = {"bundle": str(bundle.path), "cameras": cameras, "http": {"bind": "127.0.0.1:0"}, **more}
    line: LineConfig = convert(section, LineConfig, "")
    return line


@contextmanager
def running(line: LineConfig, *sinks: Sink) -> Iterator[Service]:
    """Runs it until the block ends; what `run` raised is kept in `service.failures` or the log."""
    service = Service(line, sinks)

    def run() -> None:
        try:
            service.run()
        except Exception as error:
            service._failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: service.phase != "starting")
        yield service
    finally:
        service.stop()
        thread.join(30)
        assert not thread.is_alive(), "run hangs"


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "in vain"
        time.sleep(0.01)


def everything_waiting(datagrams: socket.socket) -> list[bytes]:
    """What can be received at once."""
    datagrams.setblocking(False)
    received = []
    with suppress(BlockingIOError):
        while True:
            received.append(datagrams.recv(4096))
    return received


def get(service: Service, path: str, **headers: str) -> tuple[int, str, str]:
    """Status, content type and text of an answer."""
    assert service.http
    request = urllib.request.Request(service.http.endpoint + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def state(service: Service, path: str) -> tuple[int, list[str]]:
    """Status and reasons of `/healthz` or `/readyz`."""
    status, kind, text = get(service, path)
    assert kind == "application/json"
    said = json.loads(text)
    assert said[{"/healthz": "healthy", "/readyz": "ready"}[path]] is (status == 200)
    return status, said["reasons"]
