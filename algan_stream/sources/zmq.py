"""Frames from other processes, by wire protocol v1 (see `wire.py`)."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from socket import socketpair
from typing import Literal

import msgspec
import zmq

from algan_stream import endpoints, wire
from algan_stream.config import CAMERA_NAME
from algan_stream.curve import CurveConfig
from algan_stream.errors import ConfigError, InputError, ProtocolError
from algan_stream.logs import SeldomWarning
from algan_stream.ranges import check_ranges
from algan_stream.rings import Ring, RingHost
from algan_stream.sources.base import Source, SourceContext
from algan_stream.types import Frame, FrameVerdict
from algan_stream.unpack import frame_of, unpack

log = logging.getLogger(__name__)

#: After a stop, frames that are already on their way are still taken (and answered) until none came for
#: this long.
_QUIET_S = 0.2
_LONGEST_GOODBYE_S = 3.0
#: How long the last results may take to leave before the process ends without them.
_LINGER_MS = 3000
#: Messages besides frames and results that may wait for a client, or from it.
_CONTROL_MESSAGES = 100
#: Messages that are taken before everything else gets its turn.
_AT_A_TIME = 256


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source with `kind: zmq`.

    Attributes:
        bind: `ipc://PATH` or `tcp://ADDRESS:PORT`.
        credits: Frames that one client may have without a result.
        max_clients: Clients served at the same time.
        max_cameras: Different names of cameras, over the whole life of the service.
        max_frame_bytes: Largest frame; a bigger one is refused, and beyond a mebibyte closes that client's
            connection before it is read.
        curve: Own keys and those of clients who may connect; needed where other hosts reach the address.
        insecure: Allow that without encryption or authentication.
        shared_memory_bytes: Most memory for the frames of clients on this host, all together; 0: none, their
            frames come through the socket. By default 512 MiB, or a quarter of what is free.
    """

    kind: Literal["zmq"] = "zmq"
    bind: str
    credits: int = 16
    max_clients: int = 64
    max_cameras: int = 256
    max_frame_bytes: int = 64 << 20
    curve: CurveConfig | None = None
    insecure: bool = False
    shared_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        check_ranges(
            ("credits", self.credits, 1, 4096),
            ("max_clients", self.max_clients, 1, 4096),
            ("max_cameras", self.max_cameras, 1, 65_536),
            ("max_frame_bytes", self.max_frame_bytes, 1, 1 << 31),
        )
        if self.shared_memory_bytes is not None and not 0 <= self.shared_memory_bytes < 1 << 50:
            raise ValueError(f"shared_memory_bytes: expected 0 to 2^50, got {self.shared_memory_bytes}")


@dataclass
class _Client:
    identity: bytes
    camera: str
    next_id: int = 0
    outstanding: set[int] = field(default_factory=set)
    in_slots: dict[int, tuple[Ring, int]] = field(default_factory=dict)  # frames that lie in shared memory


class ZmqSource(Source):
    """ROUTER socket, owned by the thread that runs `frames`; results come over a deque from other threads."""

    payloads = ("image", "vector")  # what does not fit the bundle is answered with unknown, one by one
    live = False  # credits hold the clients back; nothing is dropped here

    def __init__(self, config: Config, context: SourceContext) -> None:
        super().__init__()
        self._config, self._context = config, context
        # A context of its own: only its end makes sure that the last results are out before the process is.
        self._zmq = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._zmq.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, max(config.max_frame_bytes, wire.MAX_HEADER_BYTES))
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a vanished client is an error we can count
        self._socket.setsockopt(zmq.SNDTIMEO, 0)  # a client that does not read must not stop the others
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        # Room for what credits allow, and a little more; whoever sends beyond that waits in his own memory.
        self._socket.setsockopt(zmq.RCVHWM, config.credits + _CONTROL_MESSAGES)
        self._socket.setsockopt(zmq.SNDHWM, max(1000, config.credits + _CONTROL_MESSAGES))
        for option in (zmq.HEARTBEAT_IVL, zmq.HEARTBEAT_TIMEOUT):
            self._socket.setsockopt(option, 2000)
        try:
            self.endpoint, self.doorman = endpoints.listen(
                self._socket, config.bind, insecure=config.insecure, curve=config.curve
            )
            self._rings = self._open_rings()
        except ConfigError:
            self._zmq.destroy(linger=0)
            raise
        self._seldom = SeldomWarning(log)
        self._clients: dict[bytes, _Client] = {}
        self._cameras: set[str] = set()  # all names ever used here; each costs memory for good
        self._results: deque[tuple[_Client, FrameVerdict]] = deque()
        self._wake_read, self._wake_write = socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yields frames of all clients; after `stop`, those still on their way."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_read, zmq.POLLIN)
        if self._rings is not None:
            poller.register(self._rings, zmq.POLLIN)
        goodbye: float | None = None
        last_frame = time.monotonic()
        while True:
            ready = dict(poller.poll(50))
            self._send_results()
            parts: list[zmq.Frame] | None = None
            for _ in range(_AT_A_TIME if self._socket in ready else 0):
                if (parts := self._receive()) is None:
                    break
                if (frame := self._take(parts)) is not None:
                    last_frame = time.monotonic()
                    yield frame
                    self._send_results()
            if self._rings is not None:
                self._rings.serve(quiet=parts is None)
            now = time.monotonic()
            if stop.is_set() and goodbye is None:
                goodbye = now
                for client in list(self._clients.values()):
                    self._send(client.identity, wire.Closing())
            if goodbye is not None and (
                now - max(goodbye, last_frame) > _QUIET_S or now - goodbye > _LONGEST_GOODBYE_S
            ):
                return

    def close(self) -> None:
        """Sends the last results and closes the socket."""
        if self._socket.closed:
            return
        self._send_results()
        if self.doorman:
            self.doorman.close()
        if self._rings is not None:
            self._rings.close()
        self._socket.close()
        self._zmq.term()
        self._wake_read.close()
        self._wake_write.close()

    # ---- from clients -----------------------------------------------------------------------------------

    def _receive(self) -> list[zmq.Frame] | None:
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None

    def _take(self, parts: list[zmq.Frame]) -> Frame | None:
        identity = parts[0].bytes
        try:
            if len(parts) < 2:
                raise ProtocolError("message: expected a header, got none")
            message = wire.decode_to_service(parts[1].buffer)
            if isinstance(message, wire.Hello):
                self._welcome(identity, message)
                return None
            if isinstance(message, wire.Bye):
                self._forget(identity)
                return None
        except ProtocolError as error:
            self._refuse(identity, "malformed", str(error))
            return None
        client = self._clients.get(identity)
        if client is None:
            self._refuse(identity, "hello_first", "expected hello before the first frame", message.frame_id)
            return None
        return self._announced(client, message, parts)

    def _welcome(self, identity: bytes, hello: wire.Hello) -> None:
        camera = hello.camera or self._context.camera
        if hello.version != wire.VERSION:
            self._refuse(identity, "version", f"expected protocol {wire.VERSION}, got {hello.version}")
            return
        if hello.next_id < 0:
            self._refuse(identity, "malformed", f"next_id: expected 0 or more, got {hello.next_id}")
            return
        try:
            self._open_camera(camera)
        except InputError as error:
            self._refuse(identity, "camera", str(error))
            return
        for other in [c for c in self._clients.values() if c.camera == camera and c.identity != identity]:
            # The usual case is a client that was killed and started again; its old self must not block it.
            self._forget(other.identity)
            self._refuse(other.identity, "superseded", f"another client has taken over camera {camera}")
        if len(self._clients) >= self._config.max_clients:
            self._forget_the_vanished()
        if len(self._clients) >= self._config.max_clients and identity not in self._clients:
            self._refuse(identity, "full", f"expected at most {self._config.max_clients} clients")
            return
        self._clients[identity] = _Client(identity, camera, hello.next_id)
        self._send(identity, self._welcome_to(identity, camera))

    def _open_camera(self, camera: str) -> None:
        if not CAMERA_NAME.fullmatch(camera):
            raise InputError(f"expected 1 to 64 letters, digits, '_', '.', '-', got {camera!r}")
        if camera not in self._cameras and len(self._cameras) >= self._config.max_cameras:
            raise InputError(f"expected at most {self._config.max_cameras} different cameras")
        self._context.open_camera(camera, max(self._context.queue_size, self._config.credits))
        self._cameras.add(camera)

    def _open_rings(self) -> RingHost | None:
        config = self._config
        if config.shared_memory_bytes == 0:
            return None
        sizes = config.credits, config.max_frame_bytes, config.max_clients
        try:
            return RingHost(self.endpoint, config.shared_memory_bytes, *sizes)
        except ConfigError:
            if self.doorman:
                self.doorman.close()
            raise

    def _forget(self, identity: bytes) -> None:
        self._clients.pop(identity, None)
        if self._rings is not None:
            self._rings.drop(identity)

    def _welcome_to(self, identity: bytes, camera: str) -> wire.Welcome:
        return wire.Welcome(
            version=wire.VERSION,
            camera=camera,
            credits=self._config.credits,
            max_frame_bytes=self._config.max_frame_bytes,
            ring=self._rings.offer(identity) if self._rings is not None else None,
        )

    def _forget_the_vanished(self) -> None:
        """Only sending to it tells a ROUTER that a client was killed; a second welcome does no harm."""
        for client in list(self._clients.values()):
            self._send(client.identity, self._welcome_to(client.identity, client.camera))

    def _announced(self, client: _Client, header: wire.Announcement, parts: list[zmq.Frame]) -> Frame | None:
        if header.frame_id < client.next_id:
            message = f"frame_id: expected {client.next_id} or more, got {header.frame_id}"
            self._refuse(client.identity, "malformed", message, header.frame_id)
            return None
        if header.frame_id > client.next_id:
            self._context.ledger.missed(client.camera, header.frame_id - client.next_id)
        client.next_id = header.frame_id + 1
        credit = ""
        if len(client.outstanding) >= self._config.credits:
            credit = f"credits: expected at most {self._config.credits} frames without result"
        payload = unpack(
            header,
            parts[2:],
            max_frame_bytes=self._config.max_frame_bytes,
            credit=credit,
            take_slot=lambda slot: self._take_slot(client, slot),
        )
        if payload.fault:
            self.counts["malformed"] += 1
        client.outstanding.add(header.frame_id)
        deadline_ns = self._context.deadline_ns(payload.deadline_ms)
        return frame_of(header, payload, client.camera, deadline_ns, lambda said: self._result(client, said))

    def _take_slot(self, client: _Client, header: wire.SendSlot) -> tuple[Ring, memoryview]:
        if self._rings is None:
            raise ProtocolError("ring: this service has no shared memory")
        ring, pixels = self._rings.take(client.identity, header)
        client.in_slots[header.frame_id] = ring, header.slot
        return ring, pixels

    # ---- to clients -------------------------------------------------------------------------------------

    def _result(self, client: _Client, verdict: FrameVerdict) -> None:
        """Called from the pipeline's threads."""
        self._results.append((client, verdict))
        with suppress(BlockingIOError):  # the buffer is full of wake-ups already
            self._wake_write.send(b"\0")

    def _send_results(self) -> None:
        with suppress(BlockingIOError):  # nothing but time woke us
            self._wake_read.recv(4096)
        while self._results:
            client, verdict = self._results.popleft()
            client.outstanding.discard(verdict.frame_id)
            if (held := client.in_slots.pop(verdict.frame_id, None)) is not None:
                held[0].give_back(held[1])
            self._send(client.identity, wire.Result(verdict=verdict))

    def _refuse(self, identity: bytes, code: str, message: str, frame_id: int | None = None) -> None:
        self.counts[code] += 1
        self._seldom.warning("client %s: %s: %s", identity.hex(), code, message)
        self._send(identity, wire.Refusal(code=code, message=message, frame_id=frame_id))

    def _send(self, identity: bytes, message: wire.ToClient) -> None:
        try:
            self._socket.send_multipart((identity, wire.encode(message)))
        except zmq.ZMQError as error:  # gone, or not reading
            self.counts["undeliverable"] += 1
            if error.errno == zmq.EHOSTUNREACH:
                self._forget(identity)


def create(config: Config, context: SourceContext) -> ZmqSource:
    """Binds the socket.

    Raises:
        ConfigError: The endpoint cannot be bound, or is open to other hosts without `curve` or `insecure`.
    """
    return ZmqSource(config, context)
