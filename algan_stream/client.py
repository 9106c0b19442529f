"""The client that others embed: sends frames to a service and gets their verdicts.

with Client("tcp://127.0.0.1:5555", camera="press-3") as client:
    client.send(image_bgr, part_id="A-0017")
    for verdict in client.poll(timeout_s=0.1):
        ...
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream import wire
from algan_stream.curve import ClientKeys
from algan_stream.errors import InputError
from algan_stream.ring_client import RingLease, RingUser, ShmMode, Slot
from algan_stream.sent import ClientAccount, check_image, checked_boxes, checked_vector, image_shape
from algan_stream.session import Session
from algan_stream.types import FrameVerdict, PixelFormat

__all__ = ["Client", "ClientAccount"]


class Client(Session):
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
        shm: `auto`: large frames go through shared memory where the service is on this host and offers it;
            `always`: all frames, or it is an error; `never`.
        slots: Most frames in shared memory at a time.

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
        shm: ShmMode = "auto",
        slots: int = 8,
    ) -> None:
        super().__init__(
            endpoint, camera, timeout_s, curve, resend, RingUser(endpoint, shm, slots, timeout_s)
        )

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
            image: uint8 (H, W, 3), or (H, W) for `grey8`; it must not change before its verdict, unless it
                went through shared memory (see `shared`). Rows with gaps are copied together first.
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
        check_image(image, pixel_format, self._max_frame_bytes)
        if self._lease_for(image.nbytes) is None:
            header = self._header(image, pixel_format, boxes, part_id, deadline_ms, captured_ns)
            return self._dispatch(header, np.ascontiguousarray(image).data)
        with self.slot(image.shape[0], image.shape[1], pixel_format) as slot:
            np.copyto(slot.image, image)
            return slot.send(boxes=boxes, part_id=part_id, deadline_ms=deadline_ms, captured_ns=captured_ns)

    @property
    def shared(self) -> bool:
        """Whether the last large frame went through shared memory."""
        return self._shared.active

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
        if not 1 <= (nbytes := math.prod(shape)) <= self._max_frame_bytes:
            raise InputError(f"image: expected 1 to {self._max_frame_bytes} bytes, got {nbytes}")
        lease = self._lease_for(nbytes)
        place = -1 if lease is None else self._free_slot(lease)
        image = np.empty(shape, np.uint8) if lease is None else lease.pixels(place, shape)

        def send(
            boxes: npt.ArrayLike | None, part_id: str, deadline_ms: float | None, captured_ns: int | None
        ) -> int:
            header = self._header(image, pixel_format, boxes, part_id, deadline_ms, captured_ns)
            if lease is None or not lease.usable:  # the connection broke, and the ring with it
                return self._dispatch(header, image.data)
            return self._dispatch(header, image.data, lease.commit(place, header))

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

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _header(
        self,
        image: npt.NDArray[np.uint8],
        pixel_format: PixelFormat,
        boxes: npt.ArrayLike | None,
        part_id: str,
        deadline_ms: float | None,
        captured_ns: int | None,
    ) -> wire.SendFrame:
        listed = checked_boxes(boxes)
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
        if not self._shared.wants(nbytes):
            return None
        self._await_credit()  # and with it a connection
        assert self._welcome is not None
        return self._shared.lease_for(
            self._welcome, nbytes, lambda lease: self._read_until(lambda: lease.idle)
        )

    def _free_slot(self, lease: RingLease) -> int:
        """Waits for a slot of which no frame is without result."""
        while (place := lease.begin()) is None:
            self._read_until(lambda: lease.has_room)
        return place
