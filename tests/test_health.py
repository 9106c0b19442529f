"""Probes are answered by what really runs: alive, ready, stopping, stuck and dead."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from algan_stream import health as health_module
from algan_stream import service as service_module
from algan_stream.bundle import Bundle
from algan_stream.config import HttpConfig, LineConfig
from algan_stream.errors import AlganError, ConfigError
from algan_stream.notify import attending
from algan_stream.plugins import convert
from algan_stream.probe import probe
from algan_stream.service import Service
from algan_stream.types import Frame, FrameVerdict
from fakes import FakeEngine, ListSink
from lines import everything_waiting, get, line_of, running, state, wait_for
from processes import Service as Process
from processes import algan_stream


@pytest.fixture
def engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    made = FakeEngine(spec=bundle.manifest.input_spec)
    monkeypatch.setattr(service_module, "open_engine", lambda *_: made)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "images"
    path.mkdir()
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(path / "a.png")
    return {"kind": "folder", "path": str(path), "loop": True, "fps": 100}


class Lingering:
    """Makes a service's first source hold on after a stop, so that the end can be looked at."""

    def __init__(self, service: Service) -> None:
        self.go = threading.Event()
        source = service.sources[0][1]
        real = source.frames

        def frames(stop: threading.Event) -> Iterator[Frame]:
            yield from real(stop)
            self.go.wait(20)

        source.frames = frames  # type: ignore[method-assign]


def test_ready_while_it_runs_and_not_when_it_stops(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any]
) -> None:
    service = Service(line_of(bundle, folder))
    assert state(service, "/readyz") == (503, ["starting"])
    assert state(service, "/healthz") == (200, [])
    lingering = Lingering(service)
    thread = threading.Thread(target=service.run, daemon=True)
    thread.start()
    wait_for(lambda: service.phase == "running")
    assert state(service, "/readyz") == (200, [])
    service.stop()
    assert state(service, "/readyz") == (503, ["stopping"])
    assert state(service, "/healthz") == (200, [])  # it is well, and must not be killed
    lingering.go.set()
    thread.join(20)
    assert service.http
    assert probe(service.http.endpoint + "/healthz")[0] is False  # the port is free again


def test_a_line_whose_sources_end_is_stopping(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any]
) -> None:
    engine.release.clear()
    with running(line_of(bundle, {**folder, "loop": False})) as service:
        wait_for(lambda: service.phase == "stopping")
        assert state(service, "/readyz") == (503, ["stopping"])
        engine.release.set()


def test_a_source_that_broke_is_not_ready_but_alive(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: Any, stop: threading.Event) -> Iterator[Frame]:
        if self._config.fps == 3:
            raise RuntimeError("cable cut")
        return real(self, stop)

    real = service_module.plugins.load("sources", folder, "")[0].FolderSource.frames
    monkeypatch.setattr("algan_stream.sources.folder.FolderSource.frames", breaks)
    with running(line_of(bundle, folder, {**folder, "fps": 3})) as service:
        wait_for(lambda: bool(service.failures))
        assert state(service, "/readyz") == (503, ["a source broke: cable cut"])
        assert state(service, "/healthz") == (200, [])


def test_a_dead_thread_of_the_pipeline_is_seen_and_the_watchdog_falls_silent(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any], tmp_path: Path
) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(0.5)
        service = Service(line_of(bundle, folder))
        lingering = Lingering(service)
        ended: list[str] = []
        thread = threading.Thread(target=lambda: ended.append(_broken(service)), daemon=True)
        environment = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "100000"}
        with attending(service, environment):
            thread.start()
            alive = [systemd.recv(4096) for _ in range(8)]
            assert b"WATCHDOG=1" in alive
            assert state(service, "/healthz") == (200, [])

            def dies(*_: object) -> None:
                raise MemoryError("boom")

            service.pipeline.model.decider.decide = dies  # type: ignore[method-assign]
            wait_for(service.pipeline.broken.is_set)
            status, reasons = state(service, "/healthz")
            assert (status, "has died" in reasons[0]) == (503, True)
            assert state(service, "/readyz")[0] == 503
            time.sleep(0.2)
            everything_waiting(systemd)  # what was sent before it died
            systemd.settimeout(2)
            after = {systemd.recv(4096) for _ in range(6)}
            assert b"WATCHDOG=1" not in after
            assert any(b"STATUS=stopping: a thread of the pipeline has died" in said for said in after)
            lingering.go.set()
            thread.join(20)
        assert ended == ["the pipeline broke: boom"]


def _broken(service: Service) -> str:
    with pytest.raises(AlganError) as caught:
        service.run()
    return str(caught.value)


class HangingSink(ListSink):
    """Takes one verdict, and then none any more until it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, verdict: FrameVerdict) -> None:
        super().write(verdict)
        self.go.wait(20)


def test_a_pipeline_that_is_stuck_is_not_alive(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any]
) -> None:
    engine.patience_s = 0.2
    sink = HangingSink()
    with running(line_of(bundle, folder), sink) as service:
        wait_for(lambda: bool(sink.verdicts))
        wait_for(lambda: state(service, "/healthz")[0] == 503)
        assert "no verdict for" in state(service, "/healthz")[1][0]
        sink.go.set()
        wait_for(lambda: state(service, "/healthz") == (200, []))  # and it may recover


def test_an_idle_line_is_well(bundle: Bundle, engine: FakeEngine, tmp_path: Path) -> None:
    engine.patience_s = 0.01
    with running(line_of(bundle, {"kind": "zmq", "bind": f"ipc://{tmp_path / 's'}"})) as service:
        for _ in range(5):
            assert state(service, "/healthz") == (200, [])
            time.sleep(0.05)


# ---- the server -----------------------------------------------------------------------------------------


def _raw(service: Service, request: bytes) -> bytes:
    assert service.http
    address = urlsplit(service.http.endpoint)
    with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
        raw.sendall(request)
        answer = b""
        while part := raw.recv(65536):
            answer += part
        return answer


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/", "/../etc/passwd", "/%2e%2e/x", "/é"])
def test_there_are_no_other_pages(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any], path: str
) -> None:
    with running(line_of(bundle, folder)) as service:
        assert _raw(service, f"GET {path} HTTP/1.0\r\n\r\n".encode()).startswith(b"HTTP/1.0 404 ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "get"])
def test_there_are_no_other_methods(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any], method: str
) -> None:
    with running(line_of(bundle, folder)) as service:
        answer = _raw(service, f"{method} /metrics HTTP/1.0\r\nContent-Length: 0\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.0 501 ")
        assert b"algan_" not in answer


def test_strangers_do_not_keep_a_probe_waiting(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "LONGEST_REQUEST_S", 1.0)
    with running(line_of(bundle, folder)) as service:
        assert service.http
        address = urlsplit(service.http.endpoint)
        slow = []
        for _ in range(health_module.MAX_CONNECTIONS - 1):
            slow.append(http.client.HTTPConnection(str(address.hostname), address.port))
            slow[-1].connect()
            slow[-1].sock.sendall(b"GET /metr")  # and nothing more
        assert state(service, "/readyz") == (200, [])
        for junk in (b"\0\xff\r\n\r\n", b"GET " + b"a" * 100_000, b"\r\n", b"GET /metrics HTTP/9.9\r\n\r\n"):
            _raw(service, junk + b"\r\n\r\n")
        drip = slow[0].sock
        assert drip

        def dripped() -> bool:
            try:
                drip.sendall(b"i")
            except OSError:
                return True
            time.sleep(0.05)
            return False

        wait_for(dripped, 5)  # a client that is slow for ever is cut off
        for connection in slow:
            connection.close()
        assert state(service, "/readyz") == (200, [])


def test_a_port_in_use_is_an_error_at_the_start(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any]
) -> None:
    sink = ListSink()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as some servers would share it
        other.bind(("127.0.0.1", 0))
        other.listen()
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"http.bind: cannot bind {bind}: Address already in use"):
            Service(line_of(bundle, folder, http={"bind": bind}), [sink])
    assert (engine.closed, sink.closed) == (1, 1)


@pytest.mark.parametrize("bind", ["0.0.0.0:9108", ":9108", "10.0.0.1:9108", "[::]:9108", "example.org:80"])
def test_other_hosts_are_refused_in_words(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"http: bind: .*can be reached from other hosts.*insecure: true"):
        convert({"bundle": "b", "cameras": [], "http": {"bind": bind}}, LineConfig, "")
    assert HttpConfig(bind=bind, insecure=True).bind == bind


@pytest.mark.parametrize(
    "bind", ["", "9108", "127.0.0.1", "127.0.0.1:", "127.0.0.1:*", "[::1:9", "a:99999", "a:-1"]
)
def test_addresses_that_are_none(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"http: bind: expected ADDRESS:PORT"):
        convert({"bundle": "b", "cameras": [], "http": {"bind": bind}}, LineConfig, "")


def test_off_by_default(bundle: Bundle, engine: FakeEngine, folder: dict[str, Any]) -> None:
    with running(line_of(bundle, folder, http=None)) as service:
        assert service.http is None
        assert service.sinks == [service.drift]


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6(bundle: Bundle, engine: FakeEngine, folder: dict[str, Any]) -> None:
    try:
        with socket.socket(socket.AF_INET6) as try_it:
            try_it.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with running(line_of(bundle, folder, http={"bind": "[::1]:0"})) as service:
        assert get(service, "/readyz")[0] == 200


# ---- the command, on a real process ---------------------------------------------------------------------


def test_a_process_its_probe_and_its_log(bundle: Bundle, tmp_path: Path) -> None:
    with Process(tmp_path, bundle.path, http={"bind": "127.0.0.1:0"}) as service:
        (url,) = [e for e in service.ready["endpoints"] if e.startswith("http://")]
        wait_for(lambda: probe(f"{url}/readyz")[0])
        asked = algan_stream("health", f"{url}/readyz")
        assert (asked.returncode, asked.stdout, asked.stderr) == (0, f"{url}/readyz: 200 OK\n", "")
        again = algan_stream("run", _on_port(service.file, url))
        assert again.returncode == 2
        assert f"http.bind: cannot bind {url.removeprefix('http://')}: Address already in use" in again.stderr
        assert service.stop() == 0
    asked = algan_stream("health", f"{url}/readyz")
    assert (asked.returncode, asked.stdout) == (1, f"{url}/readyz: [Errno 111] Connection refused\n")


def _on_port(file: Path, url: str) -> Path:
    other = file.with_name("other.yaml")
    text = file.read_text().replace("127.0.0.1:0", url.removeprefix("http://"))
    other.write_text(text.replace("/in\n", "/in2\n").replace("/in}", "/in2}"))
    return other


def test_the_probe_says_why(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # for other hosts, not for this one
    service = Service(line_of(bundle, folder))
    assert service.http
    url = service.http.endpoint
    assert probe(f"{url}/readyz") == (False, f"{url}/readyz: 503: starting")
    assert probe(f"{url}/healthz") == (True, f"{url}/healthz: 200 OK")
    assert probe(f"{url}/else") == (False, f"{url}/else: 404: Not Found")
    service.stop()
    service.run()


def test_the_probe_is_sure_of_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "fine").write_text('{"ready": true}')
    for url in (f"file://{tmp_path / 'fine'}", "9108", "", "http://", "http://[", "ftp://127.0.0.1/x"):
        assert probe(url, 1.0)[0] is False
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        well, line = probe(f"http://127.0.0.1:{silent.getsockname()[1]}/readyz", 0.2)
        assert (well, line.count("\n")) == (False, 0)
        assert "timed out" in line


def test_the_log_of_a_line_is_json_to_the_last_line(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(json.dumps({"bundle": str(bundle.path), "surprise": 1}))
    ended = algan_stream("run", tmp_path / "bad.yaml", "--log", "json")
    assert ended.returncode == 2
    (record,) = [json.loads(line) for line in ended.stderr.splitlines()]
    assert record["level"] == "critical"
    assert "surprise: unknown key" in record["message"]
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(images / "a.png")
    camera = {"id": "cam", "source": {"kind": "folder", "path": str(images)}}
    (tmp_path / "line.yaml").write_text(
        json.dumps(
            {
                "bundle": str(bundle.path),
                "cameras": [camera],
                "sinks": [{"kind": "jsonl", "path": "/dev/full"}],
            }
        )
    )
    ended = algan_stream("run", tmp_path / "line.yaml", "--log", "json", "--log-level", "info")
    assert ended.returncode == 0, ended.stderr
    records = [json.loads(line) for line in ended.stderr.splitlines()]
    assert any("golden images" in record["message"] for record in records if record["level"] == "info")
    (lost,) = [record for record in records if record["level"] == "error"]
    assert (lost["camera"], lost["frame"], lost["logger"]) == ("cam", 0, "algan_stream.outgoing")
    assert "No space left on device" in lost["exception"]
