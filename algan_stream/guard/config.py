"""Section `guard` of a camera."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

#: Kinds of fault: what stands behind `camera_fault:` in a reason. `size`: not the learned one.
Kind = Literal["black", "saturated", "frozen", "blurred", "shifted", "lighting", "size"]
KINDS: tuple[Kind, ...] = ("black", "saturated", "frozen", "blurred", "shifted", "lighting", "size")


class GuardConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `guard` of a camera; without it, nothing is checked.

    Attributes:
        profile: What good frames of this camera look like, by `algan-stream guard learn`, relative to the
            line's file. Without one, only pictures that are all black or all white are found, and repeated
            ones if `frozen_frames` says so.
        off: Kinds of fault that are not looked for.
        frozen_frames: After so many repetitions, pixel by pixel, the picture is frozen; 1 to 1000000. None:
            as learned, and without a profile never, for a still scene without noise looks the same.
    """

    profile: str | None = None
    off: tuple[Kind, ...] = ()
    frozen_frames: int | None = None

    def __post_init__(self) -> None:
        if self.frozen_frames is not None and not 1 <= self.frozen_frames <= 1_000_000:
            raise ValueError(f"frozen_frames: expected 1 to 1000000, got {self.frozen_frames}")

    def placed(self, folder: Path) -> GuardConfig:
        """With the profile's path taken from a folder."""
        if self.profile is None:
            return self
        return msgspec.structs.replace(self, profile=str(folder / self.profile))
