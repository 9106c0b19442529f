"""What every box plugin is."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream.errors import InputError
from algan_stream.plain import as_plain, size_of
from algan_stream.types import CameraFormat, Frame, PixelFormat

log = logging.getLogger(__name__)

#: Most characters of an error that a verdict repeats.
_MAX_REASON = 200


def usable_boxes(
    boxes: npt.NDArray[np.float32], image: npt.NDArray[Any], pixel_format: CameraFormat = "bgr8"
) -> npt.NDArray[np.bool_]:
    """Which of (N, 4) xyxy boxes are finite and lie, at least in part, on the image."""
    width, height = size_of(image, pixel_format)
    with np.errstate(invalid="ignore"):
        low = np.maximum(boxes[:, :2], 0)
        high = np.minimum(boxes[:, 2:], np.array((width, height), np.float32))
        return np.asarray(np.isfinite(boxes).all(axis=1) & (high > low).all(axis=1), np.bool_)


class BoxFinder(ABC):
    """Says which parts of a frame are scored; called before the frame is entered in the accounts.

    One finder serves one source, from that source's thread alone; a source may give frames of several
    cameras.
    """

    #: How often `find` raised.
    failures: int = 0

    @abstractmethod
    def find(self, frame: Frame) -> npt.NDArray[np.float32] | None:
        """Returns (N, 4) float32 xyxy pixels, or None for the whole frame.

        May set the frame's `fault`, `fuse` and `box_names`. Whatever it raises makes this frame
        `unknown(boxes_failed)`, and harms no other.
        """

    def close(self) -> None:  # noqa: B027  most finders hold nothing
        """Frees what it holds, after the last frame. May be called twice."""


def has_pixels(frame: Frame) -> bool:
    """Whether there is an image in which boxes can be found."""
    return frame.vector is None and not frame.fault and frame.image.size > 0


def plain_pixels(frame: Frame) -> tuple[npt.NDArray[np.uint8], PixelFormat]:
    """The frame's pixels as grey, BGR or RGB of 8 bits: its own, or made of its camera's format.

    Raises:
        InputError: They have 16 bits: what is white in them, only the model's input tells.
    """
    if frame.pixel_format == "grey16":
        raise InputError("frames of 16 bits: boxes are found in 8 bits only; set the camera to 8")
    return as_plain(frame.image, frame.pixel_format)


def find_boxes(finder: BoxFinder, frame: Frame) -> None:
    """Gives a frame its boxes, and says how long that took.

    A finder that raises is the frame's fault and never ends its source; boxes that came with the frame then
    stay, so that each has its verdict. Nothing is looked for in a frame whose deadline is over.
    """
    started = time.monotonic_ns()
    if frame.deadline_ns is not None and started >= frame.deadline_ns:
        return
    try:
        frame.boxes = finder.find(frame)
    except Exception as error:
        frame.fault = frame.fault or f"boxes_failed: {type(error).__name__}: {error}"[:_MAX_REASON]
        finder.failures += 1
        if finder.failures & (finder.failures - 1) == 0:  # the 1st, 2nd, 4th, 8th, …: a log is not flooded
            about = {"camera": frame.camera, "frame": frame.frame_id}
            log.exception(
                "camera %s frame %d: no boxes: failure %d", *about.values(), finder.failures, extra=about
            )
    frame.boxes_ns = time.monotonic_ns() - started
