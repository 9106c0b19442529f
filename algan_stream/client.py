"""The client that others embed: sends frames to a service and gets their verdicts.

with Client("tcp://127.0.0.1:5555", camera="press-3") as client:
    client.send(image_bgr, part_id="A-0017")
    for verdict in client.poll(timeout_s=0.1):
        ...
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

import msgspec
import numpy as np
import numpy.typing as npt
import zmq

from algan_stream import wire
from algan_stream.curve import ClientKeys
from algan_stream.errors import ProtocolError
from algan_stream.link import Link
from algan_stream.sent import ClientAccount, Sent, check_image, checked_boxes, checked_vector
from algan_stream.types import FrameVerdict, PixelFormat


class Client:
    """One camera's connection; for one thread.

    Where the service is killed, or the network fails, the client connects again by itself and goes on with
    its count. Frames without a verdict by then end as `unknown`, or are sent again; see `resend`.

    Args:
        endpoint: Where the service's `zmq` source is bound.
        camera: Name to send under; empty: the service's own.
        timeout_s: Longest wait for the service to answer, at connection and for a credit.
        curve: Own key and the service's, where the source has `curve`.
        resend: After a broken connection, send frames without a verdict once more, under their old ids. The
            service may then give a second verdict on one that it had scored already.

    Raises:
        ProtocolError: The service does not answer in time or refuses the client.
        ConfigError: A key file cannot be used.
    """

    def __init__(
        self,
        endpoint: str,
        camera: str = "",
        timeout_s: float = 10.0,
        *,
        curve: ClientKeys | None = None,
        resend: bool = False,
    ) -> None:
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

    def send(
        self,
        image: npt.NDArray[np.uint8],
        *,
        pixel_format: PixelFormat = "bgr8",
        boxes: npt.ArrayLike | None = None,
        part_id: str = "",
        deadline_ms: float | None = None,
        captured_ns: int | None = None,
    ) -> int:
        """Sends one frame; waits for a credit if the service has enough of our frames in hand.

        Args:
            image: uint8 (H, W, 3), or (H, W) for `grey8`; sent as it is, so it must not change before
                its verdict. Rows with gaps are copied together first.
            pixel_format: Order of the last axis.
            boxes: (N, 4) xyxy pixels to score, or None for the whole frame.
            part_id: Comes back with the verdict.
            deadline_ms: A verdict later than this after arrival comes as `unknown`.
            captured_ns: Unix time of capture; now, if not given.

        Returns:
            The frame's id in this session.

        Raises:
            InputError: The image does not have the stated format.
            ProtocolError: The service stops, or gave no credit in time.
        """
        check_image(image, pixel_format, self._max_frame_bytes)
        self._await_credit()
        header = wire.SendFrame(
            frame_id=self._next_id,
            height_px=image.shape[0],
            width_px=image.shape[1],
            pixel_format=pixel_format,
            captured_ns=time.time_ns() if captured_ns is None else captured_ns,
            boxes=checked_boxes(boxes),
            part_id=part_id,
            deadline_ms=deadline_ms,
        )
        return self._dispatch(header, np.ascontiguousarray(image).data)

    def send_vector(
        self,
        vector: npt.ArrayLike,
        *,
        part_id: str = "",
        deadline_ms: float | None = None,
        captured_ns: int | None = None,
    ) -> int:
        """Sends one feature vector to a line whose bundle takes vectors; otherwise like `send`.

        Args:
            vector: (features,) numbers, sent as float32. What is not finite comes back as `unknown`.
            part_id: As for `send`.
            deadline_ms: As for `send`.
            captured_ns: As for `send`.

        Returns:
            The frame's id in this session.

        Raises:
            InputError: It is no vector of numbers.
            ProtocolError: The service stops, or gave no credit in time.
        """
        payload = checked_vector(vector, self._max_frame_bytes)
        self._await_credit()
        header = wire.SendVector(
            frame_id=self._next_id,
            dtype="f32",
            length=payload.size,
            captured_ns=time.time_ns() if captured_ns is None else captured_ns,
            part_id=part_id,
            deadline_ms=deadline_ms,
        )
        return self._dispatch(header, payload.data)

    def skip(self, frames: int = 1) -> None:
        """Leaves a gap in the frame ids for frames that the camera lost, so that the service counts them."""
        self._next_id += frames

    def poll(self, timeout_s: float = 0.0) -> list[FrameVerdict]:
        """Returns the verdicts that have come since the last call, waiting for the first if there is none."""
        give_up = time.monotonic() + timeout_s
        self._read(0.0)
        while not self._verdicts and (left_s := give_up - time.monotonic()) > 0:
            self._read(left_s)  # returns with any message, such as credits, or that the service is closing
        came, self._verdicts = self._verdicts, []
        return came

    def drain(self, timeout_s: float) -> Iterator[FrameVerdict]:
        """Yields verdicts until every sent frame has one, or none came for `timeout_s`."""
        yield from self.poll()
        while self._outstanding:
            came = self.poll(timeout_s)
            if not came:
                return
            yield from came

    def account(self) -> ClientAccount:
        """What became of the frames so far; those still on their way count as unanswered."""
        return msgspec.structs.replace(self._account, unanswered=len(self._outstanding))

    def close(self) -> ClientAccount:
        """Says goodbye and closes; returns the final account."""
        if not self._link.socket.closed:
            with suppress(zmq.Again):  # the service may be gone already
                self._link.socket.send_multipart((wire.encode(wire.Bye()),), zmq.NOBLOCK)
            self._link.close(linger_ms=500)
        return self.account()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- the connection ---------------------------------------------------------------------------------

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

    def _dispatch(self, header: wire.Announcement, payload: memoryview) -> int:
        sent = Sent(header, payload, time.monotonic())
        self._outstanding[header.frame_id] = sent
        self._account.sent += 1
        self._next_id += 1
        self._link.send((wire.encode(header), payload), self._timeout_s)
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
        if self._outstanding.pop(refusal.frame_id, None) is not None:  # type: ignore[arg-type]
            self._account.refused += 1
        if refusal.code == "superseded" or self._welcome is None:
            self.closing = True
            self._why_closing = f"the service refuses this client ({refusal.code}: {refusal.message})"

    def _lost_connection(self) -> None:
        self._welcome = None
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
