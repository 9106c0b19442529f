"""A client's connection: knows when it broke, and can be made anew."""

from __future__ import annotations

import time
from collections.abc import Sequence

import zmq
from zmq.utils.monitor import parse_monitor_message

from algan_stream.curve import ClientKeys
from algan_stream.errors import InputError

#: Between two attempts after the service has turned the connection away.
_RETRY_S = 1.0
#: Longest wait of libzmq between two attempts to reach a service that is not there.
_RECONNECT_MOST_MS = 2000
_HEARTBEAT_MS = 2000
#: A host that is gone is noticed after 25 s.
_KEEPALIVE = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 10,
    zmq.TCP_KEEPALIVE_INTVL: 5,
    zmq.TCP_KEEPALIVE_CNT: 3,
}
#: After these libzmq tries no more by itself.
_TURNED_AWAY = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "this client's key is not allowed there; see `algan-stream keys allow`",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "no agreement on keys: one side has none, or another's",
}
_BROKE_OFF = "the connection broke off at once; a service with other keys than server_key does that"
#: Whether libzmq still gets to read why depends on which packet is faster.
_BROKE_OFF_WITHOUT = "the connection broke off at once; a service that asks for keys does that"


class Link:
    """A socket to one service; for one thread.

    Args:
        endpoint: `ipc://PATH` or `tcp://ADDRESS:PORT`.
        kind: `zmq.DEALER` or `zmq.SUB`.
        keys: For a service that asks for them.

    Raises:
        InputError: The endpoint is malformed.
        ConfigError: A key file cannot be used.
    """

    def __init__(self, endpoint: str, kind: int, keys: ClientKeys | None = None) -> None:
        self._endpoint, self._kind, self._keys = endpoint, kind, keys
        #: Why the last connection did not come about; empty if it did, or nobody is there.
        self.failure = ""
        #: Whether what was sent may be lost; until `renew`.
        self.broken = False
        self._closed = False
        self._open()

    @property
    def may_renew(self) -> bool:
        """Whether it is broken, and time for another attempt."""
        return self.broken and time.monotonic() >= self._not_before

    def wait(self, timeout_s: float) -> bool:
        """Waits until there may be something to receive, or the connection broke; returns whether so."""
        if self.broken:  # there is a retry to be made in time
            timeout_s = min(timeout_s, 0.2)
        ready = dict(self._poller.poll(round(timeout_s * 1000)))
        if self._events in ready:
            self._look()
        return bool(ready)

    def receive(self) -> list[bytes] | None:
        """The next message that is there, or None."""
        try:
            return self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def send(self, parts: Sequence[bytes | memoryview], timeout_s: float) -> None:
        """Hands over a message, payloads not copied; no room within `timeout_s` means a broken link."""
        self.socket.setsockopt(zmq.SNDTIMEO, round(timeout_s * 1000))
        try:
            self.socket.send_multipart(parts, copy=len(parts) == 1)  # a header alone is cheaper to copy
        except zmq.Again:
            self.broken = True

    def renew(self) -> None:
        """Begins a new connection. What the old one has not sent, or not given out, is gone."""
        self._shut(linger_ms=0)
        self.broken = False
        self._open()

    def close(self, linger_ms: int = 0) -> None:
        """Ends it; what is sent already may leave for that long. May be called twice."""
        if not self._closed:
            self._closed = True
            self._shut(linger_ms)

    def _open(self) -> None:
        self._stood, self._not_before = False, 0.0
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.socket: zmq.Socket[bytes] = context.socket(self._kind)
        self._events: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        try:
            self._configure()
            self.socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise InputError(
                f"endpoint: expected ipc://PATH or tcp://ADDRESS:PORT, got {self._endpoint!r}: "
                f"{error.strerror}"
            ) from error
        except BaseException:
            self.close()
            raise
        self._poller = zmq.Poller()
        self._poller.register(self.socket, zmq.POLLIN)
        self._poller.register(self._events, zmq.POLLIN)

    def _configure(self) -> None:
        self.socket.setsockopt(zmq.LINGER, 0)
        # Verdicts wait here until they are read, as many as there are credits. ZMQ_IMMEDIATE would throw away
        # those that wait when the service ends.
        if self._kind == zmq.DEALER:
            self.socket.setsockopt(zmq.RCVHWM, 0)
            for option in (zmq.HEARTBEAT_IVL, zmq.HEARTBEAT_TIMEOUT):
                self.socket.setsockopt(option, _HEARTBEAT_MS)
        else:
            # Heartbeats and a limit on what waits do not go together: libzmq takes a full queue for a dead
            # peer, and may then end the process ("Assertion failed: _input_stopped"). TCP looks instead.
            for option, value in _KEEPALIVE.items():
                self.socket.setsockopt(option, value)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MOST_MS)
        if self._keys is not None:
            self._keys.apply(self.socket)
        self._events.setsockopt(zmq.RCVHWM, 0)  # libzmq would wait for us to read them
        self._events.setsockopt(zmq.LINGER, 0)
        where = f"inproc://algan-link-{id(self)}-{time.monotonic_ns()}"
        seen = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        self.socket.monitor(where, seen | sum(_TURNED_AWAY))
        self._events.connect(where)

    def _look(self) -> None:
        while self._events.poll(0):
            event = int(parse_monitor_message(self._events.recv_multipart())["event"])
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._stood, self.failure = True, ""
            elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                # The next attempt may hear less than the one before did.
                self.failure = self.failure or (_BROKE_OFF if self._keys else _BROKE_OFF_WITHOUT)
            elif event in _TURNED_AWAY:
                self.failure = _TURNED_AWAY[zmq.Event(event)]
                self.broken, self._not_before = True, time.monotonic() + _RETRY_S
            elif event == zmq.EVENT_DISCONNECTED:
                self.broken = self.broken or self._stood

    def _shut(self, linger_ms: int) -> None:
        self.socket.monitor(None, 0)
        self._events.close()
        self.socket.close(linger=linger_ms)
