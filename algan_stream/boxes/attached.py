"""The boxes that came with the frame; the whole frame where none came."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.boxes.base import BoxFinder
from algan_stream.types import Frame


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `boxes` with `kind: attached`.

    Attributes:
        required: A frame without boxes is `unknown(boxes_missing)` instead of scored as a whole.
    """

    kind: Literal["attached"] = "attached"
    required: bool = False


class AttachedBoxes(BoxFinder):
    """Leaves the frame's own boxes as they are."""

    def __init__(self, config: Config) -> None:
        self._required = config.required

    def find(self, frame: Frame) -> npt.NDArray[np.float32] | None:
        """Returns the frame's own boxes."""
        if frame.boxes is None and self._required and not frame.fault:
            frame.fault = "boxes_missing"
        return frame.boxes


def create(config: Config) -> AttachedBoxes:
    """Makes the plugin."""
    return AttachedBoxes(config)
