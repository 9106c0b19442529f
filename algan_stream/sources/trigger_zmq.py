"""Triggers by ZeroMQ: a REQ socket asks with a part's name and is answered with its verdict.

A request is `{"part_id": "A-17"}`, in JSON or MessagePack; `part_id` may be left out. The answer is the
verdict with all its fields, in the same encoding, or `{"error": CODE, "message": TEXT}`: then no picture was
announced. Every request gets exactly one answer.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from socket import socketpair
from typing import Any

import msgspec
import zmq

from algan_stream import endpoints
from algan_stream.errors import ConfigError
from algan_stream.sources.triggers import Trigger, TriggerPort

#: How long the last verdicts may take to leave.
_LINGER_MS = 3000
_MOST_BYTES = 4096
_MOST_LETTERS = 256


class ZmqTrigger(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="zmq"
):
    """Section `trigger` with `kind: zmq`.

    Attributes:
        bind: `ipc://PATH` or `tcp://ADDRESS:PORT`.
        insecure: Allow an address that other hosts reach, without encryption or authentication.
    """

    bind: str
    insecure: bool = False


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    part_id: str = ""


class ZmqPort(TriggerPort):
    """A ROUTER socket, owned by the thread that listens; verdicts come over a deque from other threads.

    Args:
        config: The section.
        counts: Where refused requests are counted, by code.

    Raises:
        ConfigError: The endpoint cannot be bound.
    """

    def __init__(self, config: ZmqTrigger, counts: Counter[str]) -> None:
        super().__init__()
        self._counts = counts
        self._zmq = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._zmq.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MOST_BYTES)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._socket.setsockopt(zmq.SNDTIMEO, 0)  # who does not read must not stop the others
        try:
            self.endpoint = endpoints.bind(self._socket, config.bind, insecure=config.insecure)
        except ConfigError:
            self._zmq.destroy(linger=0)
            raise
        self._answers: deque[tuple[list[bytes], Any]] = deque()
        self._wake_read, self._wake_write = socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._closing, self._listening = threading.Event(), threading.Lock()

    def listen(self, stop: threading.Event, take: Callable[[Trigger], bool]) -> None:
        """Serves requests until `close`."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_read, zmq.POLLIN)
        with self._listening:
            while not self._closing.is_set():
                ready = dict(poller.poll(100))
                self._send_answers()
                if self._socket in ready:
                    self._serve(self._socket.recv_multipart(), stop, take)

    def close(self) -> None:
        """Sends the last answers and frees the address. May be called twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake()
        with self._listening:
            self._send_answers()
            self._socket.close()
        self._zmq.term()
        self._wake_read.close()
        self._wake_write.close()

    def _serve(self, parts: list[bytes], stop: threading.Event, take: Callable[[Trigger], bool]) -> None:
        *envelope, body = parts
        encode: Callable[[Any], bytes] = msgspec.json.encode if body[:1] in b"{" else msgspec.msgpack.encode
        try:
            decode: Any = msgspec.json.decode if body[:1] in b"{" else msgspec.msgpack.decode
            request = decode(body, type=_Request)
            if len(request.part_id) > _MOST_LETTERS:
                raise msgspec.ValidationError(f"part_id: expected at most {_MOST_LETTERS} letters")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return self._refuse(envelope, encode, "malformed", str(error))
        trigger = Trigger(request.part_id, verdict=lambda verdict: self._answer(envelope, encode(verdict)))
        if stop.is_set():
            return self._refuse(envelope, encode, "stopping", "the service stops")
        if not take(trigger):
            return self._refuse(envelope, encode, "busy", "too many parts wait for their picture")
        return None

    def _refuse(self, envelope: list[bytes], encode: Callable[[Any], bytes], code: str, message: str) -> None:
        self._counts[code] += 1
        self._answers.append((envelope, encode({"error": code, "message": message})))
        self._send_answers()

    def _answer(self, envelope: list[bytes], body: bytes) -> None:
        """Called from the pipeline's threads."""
        self._answers.append((envelope, body))
        self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # the buffer is full of wake-ups already
            self._wake_write.send(b"\0")

    def _send_answers(self) -> None:
        with suppress(BlockingIOError):  # nothing but time woke us
            self._wake_read.recv(4096)
        while self._answers:
            envelope, body = self._answers.popleft()
            try:
                self._socket.send_multipart([*envelope, body])
            except zmq.ZMQError:  # gone, or not reading
                self._counts["undeliverable"] += 1
