"""Always the whole frame."""

from __future__ import annotations

from typing import Literal

import msgspec

from algan_stream.boxes.base import BoxFinder
from algan_stream.types import Frame


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `boxes` with `kind: whole`."""

    kind: Literal["whole"] = "whole"


class WholeFrame(BoxFinder):
    """Ignores boxes that came with the frame."""

    def find(self, frame: Frame) -> None:
        """Returns None."""
        del frame


def create(config: Config) -> WholeFrame:
    """Makes the plugin."""
    del config
    return WholeFrame()
