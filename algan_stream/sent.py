"""What a client sends, checked, and what became of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream import wire
from algan_stream.decision import unknown
from algan_stream.detections import to_xyxy
from algan_stream.errors import InputError
from algan_stream.types import MAX_FEATURES, Box, FrameVerdict, Outcome, PixelFormat, VerdictKind

_SHAPES = {"bgr8": 3, "rgb8": 3, "grey8": 2}


class ClientAccount(msgspec.Struct, kw_only=True):
    """What became of the frames that this client sent.

    Attributes:
        sent: Frames handed to the socket, each counted once; sum of the four below.
        answered: Frames with a verdict of the service.
        refused: Frames that the service refused by name.
        lost: Frames whose answer was lost with the connection; they came as `unknown`, `connection_lost`.
        unanswered: Frames without any of these. They are not OK; send them again if they matter.
        resent: How often a frame was sent once more; not in the sum.
    """

    sent: int = 0
    answered: int = 0
    refused: int = 0
    lost: int = 0
    unanswered: int = 0
    resent: int = 0


@dataclass(frozen=True)
class Sent:
    """A frame without an answer; holds its pixels, for they may have to be sent again."""

    header: wire.Announcement
    payload: memoryview
    at: float

    def header_now(self) -> wire.Announcement:
        """The header to send it again with: its deadline has come nearer."""
        if self.header.deadline_ms is None:
            return self.header
        left_ms = self.header.deadline_ms - (time.monotonic() - self.at) * 1e3
        return msgspec.structs.replace(self.header, deadline_ms=max(left_ms, -1.0))

    def lost(self, camera: str) -> FrameVerdict:
        """The verdict of the client itself, where that of the service cannot come any more."""
        boxes = self.header.boxes if isinstance(self.header, wire.SendFrame) else None
        return FrameVerdict(
            camera=camera,
            frame_id=self.header.frame_id,
            part_id=self.header.part_id,
            verdict=VerdictKind.UNKNOWN,
            reason="connection_lost",
            boxes=tuple(unknown("connection_lost", box) for box in (boxes if boxes is not None else [None])),
            outcome=Outcome.FAILED,
            captured_ns=self.header.captured_ns,
        )


def image_shape(height_px: int, width_px: int, pixel_format: PixelFormat) -> tuple[int, ...]:
    """(H, W, 3), or (H, W) for grey; raises InputError if the format is unknown."""
    wanted = _SHAPES.get(pixel_format)
    if wanted is None:
        raise InputError(f"pixel_format: expected one of {', '.join(_SHAPES)}, got {pixel_format!r}")
    return (height_px, width_px, 3)[:wanted]


def check_image(image: npt.NDArray[np.uint8], pixel_format: PixelFormat, most_bytes: int) -> None:
    """Raises InputError unless the image has the stated format and is small enough."""
    wanted = len(image_shape(1, 1, pixel_format))
    if image.dtype != np.uint8 or image.ndim != wanted or (wanted == 3 and image.shape[2] != 3):
        shape = "(H, W)" if wanted == 2 else "(H, W, 3)"
        raise InputError(f"image: expected uint8 {shape} for {pixel_format}, got {image.dtype} {image.shape}")
    if image.nbytes > most_bytes:
        raise InputError(f"image: expected at most {most_bytes} bytes, got {image.nbytes}")


def checked_vector(vector: npt.ArrayLike, most_bytes: int) -> npt.NDArray[np.float32]:
    """The vector as little-endian float32; raises InputError if it is none, or too long."""
    numbers = np.asarray(vector)
    if numbers.dtype.kind not in "fiu" or numbers.ndim != 1 or not 1 <= numbers.size <= MAX_FEATURES:
        raise InputError(
            f"vector: expected 1 to {MAX_FEATURES} numbers of shape (features,), "
            f"got {numbers.dtype} {numbers.shape}"
        )
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and then unknown
        payload = numbers.astype("<f4")
    if payload.nbytes > most_bytes:
        raise InputError(f"vector: expected at most {most_bytes} bytes, got {payload.nbytes}")
    return payload


def checked_boxes(boxes: Any) -> list[Box] | None:
    """Boxes as the wire has them, of whatever `to_xyxy` takes; raises InputError for anything else."""
    if boxes is None:
        return None
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in to_xyxy(boxes).tolist()]
