"""The client that others embed: sends frames to a service and gets their verdicts.

with Client("tcp://127.0.0.1:5555", camera="press-3") as client:
    client.send(image_bgr, part_id="A-0017")
    for verdict in client.poll(timeout_s=0.1):
        ...
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

import msgspec
import numpy as np
import numpy.typing as npt
import zmq

from algan_stream import wire
from algan_stream.errors import InputError, ProtocolError
from algan_stream.outgoing import boxes_list, check_image, image_shape, vector_payload
from algan_stream.ring_client import RingLease, RingUser, ShmMode, Slot
from algan_stream.types import FrameVerdict, PixelFormat


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
        shm: `auto`: large frames go through shared memory where the service is on this host and offers it;
            `always`: all frames, or it is an error; `never`.
        slots: Most frames in shared memory at a time.

    Raises:
        ProtocolError: The service does not answer in time or refuses the client.
    """

    def __init__(
        self,
        endpoint: str,
        camera: str = "",
        timeout_s: float = 10.0,
        *,
        shm: ShmMode = "auto",
        slots: int = 8,
    ) -> None:
        self._timeout_s = timeout_s
        self._shared = RingUser(endpoint, shm, slots, timeout_s)
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

    @property
    def shared(self) -> bool:
        """Whether the last large frame went through shared memory."""
        return self._shared.active

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
            image: uint8 (H, W, 3), or (H, W) for `grey8`; it must not change before its verdict, unless it
                went through shared memory (see `shared`). Rows with gaps are copied together first.
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
        check_image(image, pixel_format, self._welcome.max_frame_bytes)
        if self._lease_for(image.nbytes) is None:
            header = self._header(image, pixel_format, boxes, part_id, deadline_ms, captured_ns)
            return self._dispatch(header, np.ascontiguousarray(image).data)
        with self.slot(image.shape[0], image.shape[1], pixel_format) as slot:
            np.copyto(slot.image, image)
            return slot.send(boxes=boxes, part_id=part_id, deadline_ms=deadline_ms, captured_ns=captured_ns)

    @contextmanager
    def slot(self, height_px: int, width_px: int, pixel_format: PixelFormat = "bgr8") -> Iterator[Slot]:
        """Room for one frame, in shared memory where there is some: saves the copy that `send` makes.

            with client.slot(1080, 1920) as slot:
                camera.read_into(slot.image)
                slot.send(part_id="A-0017")

        What is not sent when the block ends is thrown away. Waits for a slot like `send` for a credit.

        Raises:
            InputError: The format is unknown, or the frame too large.
            ProtocolError: The service stops, or had no slot in time.
        """
        shape = image_shape(height_px, width_px, pixel_format)
        if not 1 <= (nbytes := math.prod(shape)) <= self._welcome.max_frame_bytes:
            raise InputError(f"image: expected 1 to {self._welcome.max_frame_bytes} bytes, got {nbytes}")
        lease = self._lease_for(nbytes)
        place = -1 if lease is None else self._free_slot(lease)
        image = np.empty(shape, np.uint8) if lease is None else lease.pixels(place, shape)

        def send(
            boxes: npt.ArrayLike | None, part_id: str, deadline_ms: float | None, captured_ns: int | None
        ) -> int:
            header = self._header(image, pixel_format, boxes, part_id, deadline_ms, captured_ns)
            if lease is None:
                return self._dispatch(header, image.data)
            frame_id = self._dispatch(lease.commit(place, header))
            lease.announced(place, frame_id)
            return frame_id

        slot = Slot(image, send)
        try:
            yield slot
        finally:
            if lease is not None and not slot.sent:
                lease.cancel(place)

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
        payload = vector_payload(vector, self._welcome.max_frame_bytes)
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
            self._shared.close()
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

    def _header(
        self,
        image: npt.NDArray[np.uint8],
        pixel_format: PixelFormat,
        boxes: npt.ArrayLike | None,
        part_id: str,
        deadline_ms: float | None,
        captured_ns: int | None,
    ) -> wire.SendFrame:
        listed = boxes_list(boxes)
        self._await_credit()
        return wire.SendFrame(
            frame_id=self._next_id,
            height_px=image.shape[0],
            width_px=image.shape[1],
            pixel_format=pixel_format,
            captured_ns=time.time_ns() if captured_ns is None else captured_ns,
            boxes=listed,
            part_id=part_id,
            deadline_ms=deadline_ms,
        )

    def _lease_for(self, nbytes: int) -> RingLease | None:
        return self._shared.lease_for(
            self._welcome, nbytes, lambda lease: self._read_until(lambda: lease.idle)
        )

    def _free_slot(self, lease: RingLease) -> int:
        """Waits for a slot of which no frame is without result."""
        while (place := lease.begin()) is None:
            self._read_until(lambda: lease.has_room)
        return place

    def _read_until(self, condition: Callable[[], bool]) -> None:
        give_up = time.monotonic() + self._timeout_s
        while not condition():
            if self.closing:
                raise ProtocolError("the service is stopping and takes no more frames")
            if time.monotonic() > give_up:
                raise ProtocolError(
                    f"no slot of shared memory free within {self._timeout_s:g} s; the service is stuck or "
                    "gone, or a slot was taken and never sent"
                )
            self._read(0.05)

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

    def _dispatch(self, header: wire.Announcement, payload: memoryview | None = None) -> int:
        try:
            if payload is None:
                self._socket.send(wire.encode(header))
            else:
                self._socket.send_multipart((wire.encode(header), payload), copy=False)
        except zmq.Again as error:
            raise ProtocolError(f"not connected for {self._timeout_s:g} s; the service is gone") from error
        self._outstanding.add(header.frame_id)
        self._account.sent += 1
        self._next_id += 1
        return header.frame_id

    def _read(self, timeout_s: float) -> None:
        """Takes in all messages that are there, waiting up to `timeout_s` for the first."""
        if timeout_s > 0 and not self._socket.poll(round(timeout_s * 1000)):
            return
        while True:
            try:
                message = wire.decode_to_client(self._socket.recv_multipart(zmq.NOBLOCK)[0])
            except zmq.Again:
                return
            if isinstance(message, wire.Result):
                self._shared.answered(message.verdict.frame_id)
                if message.verdict.frame_id in self._outstanding:
                    self._outstanding.discard(message.verdict.frame_id)
                    self._account.answered += 1
                    self._verdicts.append(message.verdict)
            elif isinstance(message, wire.Refusal):
                self.refusals.append(message)
                self._shared.answered(message.frame_id)
                if message.frame_id in self._outstanding:
                    self._outstanding.discard(message.frame_id)
                    self._account.refused += 1
                if message.code == "superseded":
                    self.closing = True
            elif isinstance(message, wire.Closing):
                self.closing = True
