"""Decides for a ZeroMQ socket with keys who may connect, and counts who may not."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from pathlib import Path
from socket import socketpair

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from algan_stream.curve import CurveConfig, read_allowed, read_pair
from algan_stream.errors import ConfigError
from algan_stream.logs import SeldomWarning

log = logging.getLogger(__name__)

#: Where libzmq asks about every connection (RFC 27, ZAP).
_ZAP = "inproc://zeromq.zap.01"
_DOMAIN = b"algan-stream"
#: A peer that has not shown its key by then is cut off.
_HANDSHAKE_MS = 10_000


class Doorman:
    """Answers libzmq's questions about connections to one socket, from a thread of its own.

    Whatever goes wrong in here, nobody gets in: libzmq refuses a connection that the thread does not allow.

    Args:
        socket: Not yet bound, and alone in its context.
        config: Own keys and the allow-list.

    Raises:
        ConfigError: A key file or the allow-list cannot be read or used.
    """

    def __init__(self, socket: zmq.Socket[bytes], config: CurveConfig) -> None:
        #: Connections refused: `key_not_allowed`, and `handshake_failed`: no key, or for another service.
        self.counts: Counter[str] = Counter({"key_not_allowed": 0, "handshake_failed": 0})
        #: Why nobody can connect any more; empty while all is well.
        self.failure = ""
        self._allow = Path(config.allow)
        _, secret = read_pair(Path(config.secret_key), "curve.secret_key")
        keys, wrong = read_allowed(self._allow, "curve.allow")
        if wrong:
            raise wrong[0]
        if not keys:
            log.warning("curve.allow: %s holds no *.key file yet: nobody can connect", self._allow)
        self._seldom = SeldomWarning(log)
        self._socket = socket
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, _DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without an answer from here nobody gets in
        socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        self._questions: zmq.Socket[bytes] = socket.context.socket(zmq.REP)
        self._questions.setsockopt(zmq.LINGER, 0)
        self._questions.bind(_ZAP)
        failures = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        self._events: zmq.Socket[bytes] = socket.get_monitor_socket(failures)
        self._stop, self._stopped = socketpair()
        self._thread = threading.Thread(target=self._run, name="curve-doorman", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; before the socket and its context are closed. May be called twice."""
        if self._thread.is_alive():
            self._stop.send(b"\0")
            self._thread.join()
        self._stop.close()
        self._stopped.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        for waits in (self._questions, self._events, self._stopped):
            poller.register(waits, zmq.POLLIN)
        try:
            while True:
                ready = dict(poller.poll())
                if self._stopped.fileno() in ready:
                    return
                if self._questions in ready:
                    self._answer(self._questions.recv_multipart())
                if self._events in ready:
                    self._count(self._events.recv_multipart())
        except BaseException as error:
            self.failure = f"nobody can connect any more, the doorman broke: {error}"
            log.critical("%s", self.failure, exc_info=True)
        finally:
            self._socket.disable_monitor()  # libzmq would wait for somebody to read its events
            self._questions.close()
            self._events.close()

    def _answer(self, question: list[bytes]) -> None:
        """RFC 27: version, id, domain, address, identity, mechanism, key → version, id, status, …."""
        version, request, domain, address, _, mechanism, *credentials = question
        key = z85.encode(credentials[0]) if mechanism == b"CURVE" and credentials else b""
        allowed = version == b"1.0" and domain == _DOMAIN and key in self._allowed()
        if allowed:
            log.info("%s connects with key %s", address.decode(), key.decode())
        else:
            self.counts["key_not_allowed"] += 1
            self._seldom.warning(
                "%s refused: its key %s is not in %s", address.decode(), key.decode(), self._allow
            )
        status = (b"200", b"OK", key) if allowed else (b"400", b"key not allowed", b"")
        self._questions.send_multipart((b"1.0", request, *status, b""))

    def _allowed(self) -> set[bytes]:
        """The list as it is now: who was taken off it is refused from then on."""
        try:
            keys, wrong = read_allowed(self._allow, "curve.allow")
        except ConfigError as error:
            self._seldom.warning("nobody is allowed: %s", error)
            return set()
        for why in wrong:
            self._seldom.warning("%s", why)
        return keys

    def _count(self, event: list[bytes]) -> None:
        if parse_monitor_message(event)["event"] in (
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
            zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
        ):
            self.counts["handshake_failed"] += 1
            self._seldom.warning("a connection broke off before it showed a key for this service")
