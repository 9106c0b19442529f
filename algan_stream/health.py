"""Whether a service is well, and a small HTTP server that says so to Kubernetes, Docker and Prometheus."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from algan_stream.config import HttpConfig
from algan_stream.errors import ConfigError, LedgerError
from algan_stream.metrics import Metrics

if TYPE_CHECKING:
    from algan_stream.service import Service

log = logging.getLogger(__name__)

#: Requests that are answered at the same time, and the longest that one may take; a client that is slow, or
#: means ill, must not keep a probe waiting.
MAX_CONNECTIONS = 16
LONGEST_REQUEST_S = 5.0
_GLANCE_S = 0.1
_JSON = "application/json"

#: Takes the header `Accept`; gives status, content type and body.
_Page: TypeAlias = Callable[[str], tuple[int, str, bytes]]


class Health:
    """Answers for a service; may be asked from any thread.

    A service in which frames wait while no verdict comes is not well either. That shows in what changed
    between two questions, so it needs somebody who asks regularly, as probes and watchdogs do.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._ended, self._since = -1, 0.0

    def problems(self) -> list[str]:
        """Why the process should be ended and started again; empty if it is alive."""
        if self._service.pipeline.broken.is_set():
            return ["a thread of the pipeline has died; the log says why"]
        try:
            accounts = self._service.accounts().values()
        except LedgerError as error:
            return [f"the accounts do not add up: {error}"]
        received = sum(account.frames.received for account in accounts)
        in_flight = sum(account.frames.in_flight for account in accounts)
        waited_s, longest_s = self._waited(received, in_flight), 2 * self._service.engine.patience_s
        if waited_s > longest_s:  # the engine itself gives up, with a verdict, after once its patience
            return [f"no verdict for {waited_s:.0f} s while {in_flight} frames are in flight"]
        return []

    def not_ready(self) -> list[str]:
        """Why it should get no frames now; empty if all is well."""
        reasons = [] if self._service.phase == "running" else [self._service.phase]
        away = [problem for link in self._service.links().values() if (problem := link.problem())]
        return [*reasons, *self.problems(), *self._service.failures, *away]

    def warnings(self) -> list[str]:
        """What somebody should look at, though frames are judged as well as can be: faulty cameras, drift."""
        guards = self._service.guards.values()
        return [*(line for guard in guards for line in guard.warnings()), *self._service.drift.warnings()]

    def _waited(self, received: int, in_flight: int) -> float:
        now = time.monotonic()
        with self._lock:
            if in_flight == 0 or received - in_flight != self._ended:
                self._ended, self._since = received - in_flight, now
            return now - self._since


class HealthServer:
    """Serves `GET /metrics`, `/healthz` and `/readyz` in threads of its own, and nothing else.

    Args:
        config: Where.
        health: What `/healthz` and `/readyz` ask; each answers 200, or 503 with reasons in JSON.
        metrics: What `/metrics` shows.

    Raises:
        ConfigError: The address cannot be bound.
    """

    def __init__(self, config: HttpConfig, health: Health, metrics: Metrics) -> None:
        pages: dict[str, _Page] = {
            "/metrics": lambda accept: _text(*metrics.expose(accept)),
            "/healthz": lambda _: _state("healthy", health.problems(), health.warnings()),
            "/readyz": lambda _: _state("ready", health.not_ready(), health.warnings()),
        }
        host, _, port = config.bind.rpartition(":")
        try:
            self._server = _Server((host.strip("[]"), int(port)), pages)
        except OSError as error:
            raise ConfigError(
                f"http.bind: cannot bind {config.bind}: {error.strerror}; stop what uses it, or name another"
            ) from error
        #: With its real port.
        self.endpoint = f"http://{host or '0.0.0.0'}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_GLANCE_S,), name="http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stops serving and frees the port. May be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _text(body: bytes, content_type: str) -> tuple[int, str, bytes]:
    return 200, content_type, body


def _state(name: str, reasons: list[str], warnings: list[str]) -> tuple[int, str, bytes]:
    body = msgspec.json.encode({name: not reasons, "reasons": reasons, "warnings": warnings})
    return 503 if reasons else 200, _JSON, body + b"\n"


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True  # a client that holds on must not hold up the end of the process
    block_on_close = False
    allow_reuse_port = False  # two services on one port would each answer now and then
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], pages: Mapping[str, _Page]) -> None:
        self.pages = pages
        self._open: dict[Any, float] = {}
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """As HTTPServer's, but without asking the network for this host's name, which can take a minute."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuses a connection too many by closing it."""
        if len(self._open) >= MAX_CONNECTIONS:
            return False
        self._open[request] = time.monotonic()
        return True

    def shutdown_request(self, request: Any) -> None:
        self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called by `serve_forever` now and then: ends what takes too long."""
        overdue = time.monotonic() - LONGEST_REQUEST_S
        for request, since in list(self._open.items()):
            if since < overdue:
                with suppress(OSError):  # it ended just now
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a request from %s broke off", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "algan-stream", ""
    timeout = LONGEST_REQUEST_S

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            return self._answer(404, "text/plain", b"there are /metrics, /healthz and /readyz\n")
        try:
            answer = page(self.headers.get("Accept", ""))
        except Exception as error:  # accounts that do not add up, or a bug: the probe shall see it as one
            log.exception("%s cannot be answered", self.path)
            answer = 500, "text/plain", f"{error}\n".encode()
        return self._answer(*answer)

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its signature
        log.debug("%s: %s", self.client_address[0], format % args)
