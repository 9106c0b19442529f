"""What a client's message holds, checked part by part before anything of it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import zmq

from algan_stream import wire
from algan_stream.errors import ProtocolError
from algan_stream.rings import Ring
from algan_stream.types import Frame, FrameVerdict


@dataclass
class Unpacked:
    """As much of a frame as could be used before a `fault`; an empty fault means all of it."""

    image: npt.NDArray[np.uint8]
    vector: npt.NDArray[np.float32] | None = None
    boxes: npt.NDArray[np.float32] | None = None
    deadline_ms: float | None = None
    fault: str = ""
    ring: Ring | None = None


def unpack(
    header: wire.Announcement,
    parts: Sequence[zmq.Frame],
    *,
    max_frame_bytes: int,
    credit: str,
    take_slot: Callable[[wire.SendSlot], tuple[Ring, memoryview]],
) -> Unpacked:
    """Takes an announced frame apart.

    Args:
        header: The message's first part, decoded.
        parts: The others.
        max_frame_bytes: Largest payload.
        credit: Why the client may not send it now; empty: it may.
        take_slot: Gives the pixels that stand in shared memory; called last, when all else is well.
    """
    frame = Unpacked(np.zeros((0, 0), np.uint8))
    try:
        expected = 0 if isinstance(header, wire.SendSlot) else 1
        if len(parts) != expected:
            wanted = "header and payload" if expected else "a header alone"
            raise ProtocolError(f"message: expected {wanted}, got {1 + len(parts)} parts")
        frame.deadline_ms = wire.deadline_of(header)
        payload = parts[0].buffer if expected else memoryview(b"")
        if payload.nbytes > max_frame_bytes:
            raise ProtocolError(f"payload: expected at most {max_frame_bytes} bytes")
        if isinstance(header, wire.SendVector):
            frame.vector = wire.vector_of(header, payload)
        else:
            frame.boxes = wire.boxes_of(header)
        if isinstance(header, wire.SendFrame) and not isinstance(header, wire.SendSlot):
            frame.image = wire.image_of(header, payload)
        if credit:
            raise ProtocolError(credit)
        if isinstance(header, wire.SendSlot):
            frame.ring, pixels = take_slot(header)
            frame.image = wire.image_of(header, pixels)
    except ProtocolError as error:
        frame.fault = f"malformed_frame: {error}"
    return frame


def frame_of(
    header: wire.Announcement,
    payload: Unpacked,
    camera: str,
    deadline_ns: int | None,
    reply: Callable[[FrameVerdict], None],
) -> Frame:
    """The frame for the pipeline; one with a fault is announced as well, and answered."""
    intact: Callable[[], bool] | None = None
    if payload.ring is not None and isinstance(header, wire.SendSlot):
        intact = partial(payload.ring.intact, header)
    return Frame(
        camera=camera,
        frame_id=header.frame_id,
        image=payload.image,
        pixel_format="grey8" if isinstance(header, wire.SendVector) else header.pixel_format,
        vector=payload.vector,
        captured_ns=header.captured_ns,
        deadline_ns=deadline_ns,
        boxes=payload.boxes,
        part_id=header.part_id,
        fault=payload.fault,
        reply=reply,
        intact=intact,
    )
