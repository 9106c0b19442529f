"""Checks a running service against docs/protocol.md, rule by rule.

Speaks ZeroMQ and msgpack by itself, with none of this package's own client or message types, so that it says
what a client written from the document alone would meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import zmq

from algan_stream.curve import ClientKeys

Message = dict[str, Any]
SIDE = 64
PIXELS = bytes(SIDE * SIDE)
PATIENCE_MS = 10_000
_VERDICTS = ("pass", "reject", "unknown")


class Broken(Exception):  # noqa: N818  a rule was, not the program
    """A rule does not hold; says what was expected and what came."""


@dataclass(frozen=True)
class Verdict:
    """On one rule: whether it holds, `None` where it could not be tried, and why not."""

    rule: str
    holds: bool | None
    why: str = ""


class Peer:
    """One raw DEALER."""

    def __init__(self, lab: Lab) -> None:
        self._patience_ms = lab.patience_ms
        self._socket = lab.context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        if lab.keys is not None:
            lab.keys.apply(self._socket)
        self._socket.connect(lab.endpoint)

    def send(self, header: Message | bytes, *payload: bytes) -> None:
        """Sends a header, packed unless it is bytes already, and what follows it."""
        packed = header if isinstance(header, bytes) else msgspec.msgpack.encode(header)
        self._socket.send_multipart((packed, *payload))

    def answer(self, kind: str) -> Message:
        """The next message, which must be of that type."""
        if not self._socket.poll(self._patience_ms):
            raise Broken(f"expected a {kind}, got nothing within {self._patience_ms / 1000:g} s")
        parts = self._socket.recv_multipart()
        message: Message = msgspec.msgpack.decode(parts[0])
        if len(parts) != 1 or message.get("type") != kind:
            raise Broken(f"expected one part of type {kind}, got {len(parts)}: {message}")
        return message

    def hello(self, camera: str = "conformance", **more: Any) -> Message:
        """Greets, and returns the welcome."""
        self.send({"type": "hello", "version": 1, "camera": camera, **more})
        return self.answer("welcome")

    def frame(self, frame_id: int, *payload: bytes, **more: Any) -> None:
        """Sends a small grey frame."""
        header = {
            "type": "frame",
            "frame_id": frame_id,
            "height_px": SIDE,
            "width_px": SIDE,
            "pixel_format": "grey8",
            "captured_ns": 1,
        }
        self.send({**header, **more}, *(payload or (PIXELS,)))

    def verdict(self, frame_id: int) -> Message:
        """The result of that frame."""
        verdict: Message = self.answer("result")["verdict"]
        expect("frame_id", verdict["frame_id"], frame_id)
        if verdict["verdict"] not in _VERDICTS:
            raise Broken(f"verdict: expected one of {', '.join(_VERDICTS)}, got {verdict['verdict']!r}")
        if (verdict["verdict"] == "pass") != (verdict["reason"] == ""):
            raise Broken(f"reason: expected none with pass and one without, got {verdict}")
        return verdict

    def unknown(self, frame_id: int, reason: str) -> None:
        """The result of a frame that must be unknown for that reason."""
        verdict = self.verdict(frame_id)
        expect("verdict", verdict["verdict"], "unknown")
        if not verdict["reason"].startswith(reason):
            raise Broken(f"reason: expected {reason}…, got {verdict['reason']!r}")

    def refusal(self, code: str, frame_id: int | None = None) -> None:
        """A refusal with that code."""
        refusal = self.answer("refusal")
        expect("code", refusal["code"], code)
        expect("frame_id", refusal["frame_id"], frame_id)

    def close(self) -> None:
        """Says goodbye."""
        self.send({"type": "bye"})
        self._socket.close(linger=500)


class Lab:
    """Where rules are tried.

    Args:
        endpoint: Of a `zmq` source.
        keys: For one that asks for them.
        patience_ms: Longest wait for an answer.
    """

    def __init__(self, endpoint: str, keys: ClientKeys | None = None, patience_ms: int = PATIENCE_MS) -> None:
        self.endpoint, self.keys, self.context = endpoint, keys, zmq.Context()
        self.patience_ms = patience_ms

    @contextmanager
    def peer(self) -> Iterator[Peer]:
        """A client that says goodbye at the end."""
        peer = Peer(self)
        try:
            yield peer
        finally:
            peer.close()

    def run(self) -> Iterator[Verdict]:
        """Tries every rule, in the order of the document."""
        for rule in RULES:
            text = (rule.__doc__ or "").strip()
            try:
                holds = rule(self)
                yield Verdict(text, None if holds else True, holds or "")
            except Broken as broken:
                yield Verdict(text, False, str(broken))
            except (KeyError, TypeError, msgspec.DecodeError, zmq.ZMQError, OSError) as error:
                yield Verdict(text, False, f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Ends all connections."""
        self.context.destroy(linger=500)


def expect(what: str, got: object, wanted: object) -> None:
    """Raises Broken unless they are equal."""
    if got != wanted:
        raise Broken(f"{what}: expected {wanted!r}, got {got!r}")


#: A rule's docstring is its text. It returns why it could not be tried, or nothing.
Rule = Callable[[Lab], str | None]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Adds a rule."""
    RULES.append(function)
    return function
