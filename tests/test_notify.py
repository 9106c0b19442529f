"""What systemd hears, on real datagram sockets of both kinds."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from algan_stream import service as service_module
from algan_stream.bundle import Bundle
from algan_stream.notify import Notifier, attending, watchdog_s
from algan_stream.service import Service
from fakes import FakeEngine
from lines import everything_waiting, line_of
from processes import Service as Process


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"@algan-{uuid.uuid4()}" if request.param == "abstract" else str(tmp_path / "notify")


@pytest.fixture
def systemd(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        made.settimeout(20)
        yield made


@pytest.fixture
def line(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = FakeEngine(spec=bundle.manifest.input_spec)
    monkeypatch.setattr(service_module, "open_engine", lambda *_: made)
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(tmp_path / "images" / "a.png")
    source = {"kind": "folder", "path": str(tmp_path / "images"), "loop": True, "fps": 100}
    return line_of(bundle, source, http=None)


def _until(systemd: socket.socket, wanted: bytes) -> list[bytes]:
    said = []
    while wanted not in said:
        said.append(systemd.recv(4096))
    return said


def test_a_message_is_one_datagram_of_lines(systemd: socket.socket, address: str) -> None:
    notifier = Notifier(address)
    notifier.tell(READY=1, STATUS="two\nlines = 2 \udcff")
    notifier.close()
    assert systemd.recv(4096) == b"READY=1\nSTATUS=two lines = 2 ?"


def test_a_line_from_start_to_end(systemd: socket.socket, address: str, line: Any) -> None:
    service = Service(line)
    with attending(service, {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"}):
        before = [systemd.recv(4096) for _ in range(6)]
        assert b"READY=1" not in before  # no frame is taken yet
        thread = threading.Thread(target=service.run, daemon=True)
        thread.start()
        _until(systemd, b"READY=1")
        started = time.monotonic()
        beats = [said for _ in range(20) if (said := systemd.recv(4096)) == b"WATCHDOG=1"]
        assert len(beats) == 10  # every other message is the status
        assert time.monotonic() - started > 0.3  # at half the period, and not as fast as it goes
        service.stop()
        _until(systemd, b"STOPPING=1")
        thread.join(20)
    after = everything_waiting(systemd)
    assert b"STOPPING=1" not in after
    assert b"READY=1" not in after
    assert re.fullmatch(rb"STATUS=stopping: 1 cameras, \d+ frames received, 0 in flight", after[-1])


def test_a_line_that_ends_within_a_moment_was_ready(systemd: socket.socket, address: str, line: Any) -> None:
    service = Service(line)
    service.stop()
    with attending(service, {"NOTIFY_SOCKET": address}):
        service.run()
    said = _until(systemd, b"STOPPING=1")
    assert said[-2:] == [b"READY=1", b"STOPPING=1"]


def test_without_a_watchdog_there_are_no_beats(systemd: socket.socket, address: str, line: Any) -> None:
    service = Service(line)
    threading.Timer(0.3, service.stop).start()
    with attending(service, {"NOTIFY_SOCKET": address}):
        service.run()
    assert b"WATCHDOG=1" not in _until(systemd, b"STOPPING=1")


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_elsewhere_there_is_nothing_to_tell(line: Any, environment: dict[str, str]) -> None:
    service = Service(line)
    threads = threading.active_count()
    with attending(service, environment):
        assert threading.active_count() == threads
    service.stop()
    service.run()


def test_a_systemd_that_is_gone_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(str(tmp_path / "nobody"))
    with caplog.at_level(logging.WARNING):
        notifier.tell(READY=1)
    notifier.close()
    assert "systemd cannot be told READY=1: [Errno 2] No such file or directory" in caplog.text


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),  # another process is meant
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_period_of_the_watchdog(environment: dict[str, str], expected: float | None) -> None:
    assert watchdog_s(environment) == expected


def test_the_command_reports(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(60)
        with Process(tmp_path, bundle.path) as service:
            assert b"READY=1" in _until(systemd, b"WATCHDOG=1") + _until(systemd, b"WATCHDOG=1")
            systemd.settimeout(20)
            stopping = threading.Thread(target=service.stop)
            stopping.start()
            _until(systemd, b"STOPPING=1")
            stopping.join(60)
            assert service.process.returncode == 0
