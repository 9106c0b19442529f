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
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import zmq

from algan_stream import wire
from algan_stream.detections import to_xyxy
from algan_stream.errors import InputError, ProtocolError
from algan_stream.types import MAX_FEATURES, Box, FrameVerdict, PixelFormat

_SHAPES = {"bgr8": 3, "rgb8": 3, "grey8": 2}


class ClientAccount(msgspec.Struct, kw_only=True):
    """What became of the frames that this client sent.

    Attributes:
        sent: Frames handed to the socket; sum of the three below.
        answered: Frames with a verdict.
        refused: Frames that the service refused by name.
        unanswered: Frames without either. They are not OK; send them again if they matter.
    """

    sent: int = 0
    answered: int = 0
    refused: int = 0
    unanswered: int = 0


class Client:
    """One camera's connection; for one thread.

    Args:
        endpoint: Where the service's `zmq` source is bound.
        camera: Name to send under; empty: the service's own.
        timeout_s: Longest wait for the service to answer, at connection and for a credit.

    Raises:
        ProtocolError: The service does not answer in time or refuses the client.
    """

    def __init__(self, endpoint: str, camera: str = "", timeout_s: float = 10.0) -> None:
        self._timeout_s = timeout_s
        self._outstanding: set[int] = set()
        self._verdicts: list[FrameVerdict] = []
        self._account = ClientAccount()
        self._next_id = 0
        #: Set when the service said that it stops; nothing more can be sent.
        self.closing = False
        self.refusals: list[wire.Refusal] = []
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        # Verdicts wait here until they are read, as many as there are credits. ZMQ_IMMEDIATE would throw away
        # those that wait when the service ends.
        self._socket.setsockopt(zmq.RCVHWM, 0)
        for option in (zmq.HEARTBEAT_IVL, zmq.HEARTBEAT_TIMEOUT):
            self._socket.setsockopt(option, 2000)
        try:
            self._socket.connect(endpoint)
            self._welcome = self._greet(endpoint, camera)
        except zmq.ZMQError as error:
            self._socket.close()
            raise InputError(
                f"endpoint: expected ipc://PATH or tcp://ADDRESS:PORT, got {endpoint!r}: {error.strerror}"
            ) from error
        except BaseException:
            self._socket.close()
            raise

    @property
    def camera(self) -> str:
        """Name under which the service accounts the frames."""
        return self._welcome.camera

    def send(
        self,
        image: npt.NDArray[np.uint8],
        *,
        pixel_format: PixelFormat = "bgr8",
        boxes: Any = None,
        part_id: str = "",
        deadline_ms: float | None = None,
        captured_ns: int | None = None,
    ) -> int:
        """Sends one frame; waits for a credit if the service has enough of our frames in hand.

        Args:
            image: uint8 (H, W, 3), or (H, W) for `grey8`; sent as it is, so it must not change before
                its verdict. Rows with gaps are copied together first.
            pixel_format: Order of the last axis.
            boxes: (N, 4) xyxy pixels to score, or what a detector gave: whatever `detections.to_xyxy` takes;
                None for the whole frame.
            part_id: Comes back with the verdict.
            deadline_ms: A verdict later than this after arrival comes as `unknown`.
            captured_ns: Unix time of capture; now, if not given.

        Returns:
            The frame's id in this session.

        Raises:
            InputError: The image does not have the stated format.
            ProtocolError: The service stops, or gave no credit in time.
        """
        wanted = _SHAPES.get(pixel_format)
        if wanted is None:
            raise InputError(f"pixel_format: expected one of {', '.join(_SHAPES)}, got {pixel_format!r}")
        if image.dtype != np.uint8 or image.ndim != wanted or (wanted == 3 and image.shape[2] != 3):
            shape = "(H, W)" if wanted == 2 else "(H, W, 3)"
            raise InputError(
                f"image: expected uint8 {shape} for {pixel_format}, got {image.dtype} {image.shape}"
            )
        if image.nbytes > self._welcome.max_frame_bytes:
            raise InputError(
                f"image: expected at most {self._welcome.max_frame_bytes} bytes, got {image.nbytes}"
            )
        self._await_credit()
        header = wire.SendFrame(
            frame_id=self._next_id,
            height_px=image.shape[0],
            width_px=image.shape[1],
            pixel_format=pixel_format,
            captured_ns=time.time_ns() if captured_ns is None else captured_ns,
            boxes=_boxes(boxes),
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
        numbers = np.asarray(vector)
        if numbers.dtype.kind not in "fiu" or numbers.ndim != 1 or not 1 <= numbers.size <= MAX_FEATURES:
            raise InputError(
                f"vector: expected 1 to {MAX_FEATURES} numbers of shape (features,), "
                f"got {numbers.dtype} {numbers.shape}"
            )
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and then unknown
            payload = numbers.astype("<f4")
        if payload.nbytes > self._welcome.max_frame_bytes:
            raise InputError(
                f"vector: expected at most {self._welcome.max_frame_bytes} bytes, got {payload.nbytes}"
            )
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
        if not self._socket.closed:
            with suppress(zmq.Again):  # the service may be gone already
                self._socket.send_multipart((wire.encode(wire.Bye()),), zmq.NOBLOCK)
            self._socket.close(linger=500)
        return self.account()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _greet(self, endpoint: str, camera: str) -> wire.Welcome:
        give_up = time.monotonic() + self._timeout_s
        self._socket.setsockopt(zmq.SNDTIMEO, round(self._timeout_s * 1000))
        silent = ProtocolError(
            f"{endpoint}: no answer within {self._timeout_s:g} s; is the service running there?"
        )
        try:
            self._socket.send_multipart((wire.encode(wire.Hello(version=wire.VERSION, camera=camera)),))
        except zmq.Again as error:
            raise silent from error
        while (left := give_up - time.monotonic()) > 0 and self._socket.poll(round(left * 1000)):
            answer = wire.decode_to_client(self._socket.recv_multipart()[0])
            if isinstance(answer, wire.Welcome):
                return answer
            if isinstance(answer, wire.Refusal):
                raise ProtocolError(f"{endpoint}: refused ({answer.code}): {answer.message}")
        raise silent

    def _await_credit(self) -> None:
        give_up = time.monotonic() + self._timeout_s
        self._read(0.0)
        while not self.closing and len(self._outstanding) >= self._welcome.credits:
            if time.monotonic() > give_up:
                raise ProtocolError(
                    f"no verdict within {self._timeout_s:g} s on any of {len(self._outstanding)} frames; "
                    "the service is stuck or gone"
                )
            self._read(0.05)
        if self.closing:
            raise ProtocolError("the service is stopping and takes no more frames")

    def _dispatch(self, header: wire.Announcement, payload: memoryview) -> int:
        try:
            self._socket.send_multipart((wire.encode(header), payload), copy=False)
        except zmq.Again as error:
            raise ProtocolError(f"not connected for {self._timeout_s:g} s; the service is gone") from error
        self._outstanding.add(header.frame_id)
        self._account.sent += 1
        self._next_id += 1
        return header.frame_id

    def _read(self, timeout_s: float) -> None:
        """Takes in all messages that are there, waiting up to `timeout_s` for the first."""
        if not self._socket.poll(round(timeout_s * 1000)):
            return
        while self._socket.poll(0):
            message = wire.decode_to_client(self._socket.recv_multipart()[0])
            if isinstance(message, wire.Result):
                if message.verdict.frame_id in self._outstanding:
                    self._outstanding.discard(message.verdict.frame_id)
                    self._account.answered += 1
                    self._verdicts.append(message.verdict)
            elif isinstance(message, wire.Refusal):
                self.refusals.append(message)
                if message.frame_id in self._outstanding:
                    self._outstanding.discard(message.frame_id)
                    self._account.refused += 1
                if message.code == "superseded":
                    self.closing = True
            elif isinstance(message, wire.Closing):
                self.closing = True


def _boxes(boxes: Any) -> list[Box] | None:
    if boxes is None:
        return None
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in to_xyxy(boxes).tolist()]
