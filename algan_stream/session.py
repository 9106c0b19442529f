"""One client's talk with a service: credits, answers, and what a broken connection leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
import zmq

from algan_stream import wire
from algan_stream.curve import ClientKeys
from algan_stream.errors import ProtocolError
from algan_stream.link import Link
from algan_stream.ring_client import RingUser
from algan_stream.sent import ClientAccount, Sent
from algan_stream.types import FrameVerdict


class Session:
    """What `Client` stands on; for one thread. Its constructor greets the service.

    Args:
        endpoint: As for `Client`.
        camera: As for `Client`.
        timeout_s: As for `Client`.
        curve: As for `Client`.
        resend: As for `Client`.
        shared: Holds the ring, if there is one.

    Raises:
        ProtocolError: The service does not answer in time or refuses the client.
        ConfigError: A key file cannot be used.
    """

    def __init__(
        self,
        endpoint: str,
        camera: str,
        timeout_s: float,
        curve: ClientKeys | None,
        resend: bool,
        shared: RingUser,
    ) -> None:
        self._shared = shared
        self._endpoint, self._camera, self._timeout_s, self._resend = endpoint, camera, timeout_s, resend
        self._outstanding: dict[int, Sent] = {}
        self._verdicts: list[FrameVerdict] = []
        self._account = ClientAccount()
        self._next_id = 0
        #: Set when the service said that it stops; nothing more can be sent.
        self.closing = False
        self._why_closing = "the service is stopping"
        self.refusals: list[wire.Refusal] = []
        self._welcome: wire.Welcome | None = None  # None while there is no connection
        self._link = Link(endpoint, zmq.DEALER, curve)
        try:
            self._say_hello()
            welcome = self._await_welcome()
        except BaseException:
            self._link.close()
            raise
        #: Name under which the service accounts the frames.
        self.camera = welcome.camera
        self._max_frame_bytes = welcome.max_frame_bytes

    def account(self) -> ClientAccount:
        """What became of the frames so far; those still on their way count as unanswered."""
        return msgspec.structs.replace(self._account, unanswered=len(self._outstanding))

    def close(self) -> ClientAccount:
        """Says goodbye and closes; returns the final account."""
        if not self._link.socket.closed:
            with suppress(zmq.Again):  # the service may be gone already
                self._link.socket.send_multipart((wire.encode(wire.Bye()),), zmq.NOBLOCK)
            self._link.close(linger_ms=500)
            self._shared.close()
        return self.account()

    def _say_hello(self) -> None:
        next_id = min(self._outstanding, default=self._next_id)
        hello = wire.Hello(version=wire.VERSION, camera=self._camera, next_id=next_id)
        self._link.socket.send_multipart((wire.encode(hello),), zmq.NOBLOCK)  # an empty pipe takes it

    def _await_welcome(self) -> wire.Welcome:
        """Waits for the first answer; later ones come as they come."""
        give_up = time.monotonic() + self._timeout_s
        while True:
            if self._welcome is not None:
                return self._welcome
            if self._link.failure and self._link.broken:  # it was turned away, and would be again
                raise ProtocolError(f"{self._endpoint}: {self._link.failure}")
            if self.refusals:
                refusal = self.refusals[0]
                raise ProtocolError(f"{self._endpoint}: refused ({refusal.code}): {refusal.message}")
            if (left_s := give_up - time.monotonic()) <= 0:
                hint = self._link.failure or "is the service running there?"
                raise ProtocolError(f"{self._endpoint}: no answer within {self._timeout_s:g} s; {hint}")
            self._read(left_s)

    def _read_until(self, condition: Callable[[], bool]) -> None:
        give_up = time.monotonic() + self._timeout_s
        while not condition():
            if self.closing:
                raise ProtocolError(f"{self._why_closing} and takes no more frames")
            if time.monotonic() > give_up:
                raise ProtocolError(
                    f"no slot of shared memory free within {self._timeout_s:g} s; the service is stuck or "
                    "gone, or a slot was taken and never sent"
                )
            self._read(0.05)

    def _await_credit(self) -> None:
        give_up = time.monotonic() + self._timeout_s
        self._read(0.0)
        while not self.closing and (self._welcome is None or len(self._outstanding) >= self._welcome.credits):
            if time.monotonic() > give_up:
                if self._welcome is None:
                    hint = self._link.failure or "the service is gone"
                    raise ProtocolError(f"not connected for {self._timeout_s:g} s; {hint}")
                raise ProtocolError(
                    f"no verdict within {self._timeout_s:g} s on any of {len(self._outstanding)} frames; "
                    "the service is stuck or gone"
                )
            self._read(0.05)
        if self.closing:
            raise ProtocolError(f"{self._why_closing} and takes no more frames")

    def _dispatch(
        self, header: wire.Announcement, payload: memoryview, in_slot: wire.SendSlot | None = None
    ) -> int:
        sent = Sent(header, payload, time.monotonic())
        self._outstanding[header.frame_id] = sent
        self._account.sent += 1
        self._next_id += 1
        parts = (wire.encode(header), payload) if in_slot is None else (wire.encode(in_slot),)
        self._link.send(parts, self._timeout_s)
        return header.frame_id

    def _read(self, timeout_s: float) -> None:
        """Takes in all messages that are there, waiting up to `timeout_s` for the first."""
        self._link.wait(timeout_s)  # what a broken connection still brought is all there once it tells
        while (parts := self._link.receive()) is not None:
            self._take(wire.decode_to_client(parts[0]))
        if self._link.broken:
            self._lost_connection()

    def _take(self, message: wire.ToClient) -> None:
        if isinstance(message, wire.Result):
            self._shared.answered(message.verdict.frame_id)
            if self._outstanding.pop(message.verdict.frame_id, None) is not None:
                self._account.answered += 1
                self._verdicts.append(message.verdict)
        elif isinstance(message, wire.Refusal):
            self._refused(message)
        elif isinstance(message, wire.Closing):
            self.closing = True
        elif self._welcome is None:
            self._welcome = message
            self._send_again(message.credits)

    def _refused(self, refusal: wire.Refusal) -> None:
        if refusal.code == "hello_first":  # the service was restarted, faster than we could see
            self._link.broken = True
            return
        self.refusals.append(refusal)
        self._shared.answered(refusal.frame_id)
        if self._outstanding.pop(refusal.frame_id, None) is not None:  # type: ignore[arg-type]
            self._account.refused += 1
        if refusal.code == "superseded" or self._welcome is None:
            self.closing = True
            self._why_closing = f"the service refuses this client ({refusal.code}: {refusal.message})"

    def _lost_connection(self) -> None:
        self._welcome = None
        self._shared.close()  # the service may still read what is in it, so nothing may write there again
        if self.closing or not self._resend:
            self._give_up(list(self._outstanding))
        if not self.closing and self._link.may_renew:
            self._link.renew()
            self._say_hello()

    def _send_again(self, credits_: int) -> None:
        """What a new connection does not take at once is given up; usually it takes as much as the last."""
        ids = sorted(self._outstanding)
        self._give_up(ids[credits_:])
        for frame_id in ids[:credits_]:
            sent = self._outstanding[frame_id]
            self._link.send((wire.encode(sent.header_now()), sent.payload), self._timeout_s)
            self._account.resent += 1

    def _give_up(self, ids: list[int]) -> None:
        for frame_id in sorted(ids):
            self._verdicts.append(self._outstanding.pop(frame_id).lost(self.camera))
            self._account.lost += 1
