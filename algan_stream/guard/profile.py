"""What good frames of one camera look like: a JSON file, read by the guard and written by `guard learn`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np

from algan_stream.errors import ConfigError
from algan_stream.guard import sharpness
from algan_stream.guard.view import PATCH_PX, VIEW_PX

FORMAT_VERSION = 1
#: Checks whose limits are learned.
Learned = Literal["shifted", "lighting", "blurred"]
LEARNED: tuple[Learned, ...] = ("shifted", "lighting", "blurred")

_Pixels = Annotated[list[float], msgspec.Meta(min_length=VIEW_PX**2, max_length=VIEW_PX**2)]


class Usual(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where numbers of good frames lie: `middle` ± `spread`, a deviation by their 95th percentile."""

    middle: list[float]
    spread: list[float]


class Still(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a picture is frozen: after `frames` repetitions, where a `change` up to that counts as none."""

    frames: int
    change: float


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which share of kept good frames was found faulty after a fault was simulated on them."""

    fault: str
    severity: str
    share: float


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One camera's view.

    Attributes:
        format_version: Of this file.
        made_by: Version of algan-stream.
        size_wh: Of the frames; None: they came in several sizes, and any is accepted.
        reference_images: From so many, the view was learned.
        calibration_images: From so many others, the limits.
        false_alarm_rate: Upper bound on the expected share of good frames that are called faulty.
        mean: VIEW_PX² logarithms of brightness, row by row.
        variance: Their variances.
        places: Centres of the patches whose sharpness is looked at, as shares of width and height.
        energies: For each place, its usual energies (see `sharpness`).
        weights: For each place, how much its energies count.
        usual: For each learned check, where its numbers lie on good frames.
        limits: For each learned check, how many spreads from the middle is a fault; `blurred` is missing if
            frames are too small for it.
        darkest_share: The least share of a good frame above the level of a covered sensor.
        whitest_share: The largest share of a good frame that is blown out.
        still: When a picture is frozen; None: never.
        notes: What could not be learned, and why.
        seen: What the learned checks find.
    """

    format_version: int = FORMAT_VERSION
    made_by: str
    size_wh: tuple[int, int] | None
    reference_images: int
    calibration_images: int
    false_alarm_rate: float
    mean: _Pixels
    variance: _Pixels
    places: list[tuple[float, float]]
    energies: list[list[float]]
    weights: list[list[float]]
    usual: dict[Learned, Usual]
    limits: dict[Learned, float]
    darkest_share: float
    whitest_share: float
    still: Still | None
    notes: list[str]
    seen: list[Seen]

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"format_version: expected {FORMAT_VERSION}, got {self.format_version}; learn it anew"
            )
        for name in ("energies", "weights"):
            rows = getattr(self, name)
            if len(rows) != len(self.places) or any(len(row) != sharpness.ENERGIES for row in rows):
                raise ValueError(f"{name}: expected {sharpness.ENERGIES} numbers for each of the places")
        if not {"shifted", "lighting"} <= self.limits.keys():
            raise ValueError("limits: expected shifted and lighting")
        # Of the fit and its misfit; of the fit and the tint: see `measure.NUMBERS`.
        numbers: dict[Learned, int] = {"shifted": 5, "lighting": 6, "blurred": sharpness.FEATURES}
        for check in self.limits:
            found = self.usual.get(check)
            if found is None or not len(found.middle) == len(found.spread) == numbers[check]:
                raise ValueError(f"usual.{check}: expected {numbers[check]} numbers of each kind")
            if not (np.isfinite([*found.middle, *found.spread]).all() and min(found.spread) > 0):
                raise ValueError(f"usual.{check}: expected finite numbers, and spreads above 0")
        energies = [energy for row in self.energies for energy in row]
        every = [*self.mean, *self.variance, *energies, *self.limits.values()]
        if not np.isfinite(every).all() or min(self.variance) < 0 or min(self.limits.values()) <= 0:
            raise ValueError("mean, variance, energies, limits: expected finite numbers, none below 0")

    @property
    def aspect(self) -> float:
        """Width over height; 1 where frames have several sizes."""
        return self.size_wh[0] / self.size_wh[1] if self.size_wh else 1.0


def read_profile(path: str | Path) -> Profile:
    """Reads and checks a profile.

    Raises:
        ConfigError: It is missing, damaged, or of another version.
    """
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Profile)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; `algan-stream guard learn` makes it"
        ) from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: is no profile of a camera: {error}") from error


def write_profile(profile: Profile, path: str | Path) -> None:
    """Writes a profile; one that exists is replaced in one step.

    Raises:
        ConfigError: It cannot be written.
    """
    file = Path(path)
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_bytes(msgspec.json.encode(profile) + b"\n")
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def enough_room(size_wh: tuple[int, int]) -> bool:
    """Whether frames are large enough for patches, and so for sharpness."""
    return min(size_wh) >= 2 * PATCH_PX
