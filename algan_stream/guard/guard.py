"""Looks at every frame before it is scored: a picture that the camera spoiled is `unknown`, never judged."""

from __future__ import annotations

import logging
import time
from collections import Counter

import msgspec

from algan_stream.errors import ConfigError, InputError
from algan_stream.guard import exposure
from algan_stream.guard.config import GuardConfig, Kind
from algan_stream.guard.frozen import Stillness
from algan_stream.guard.measure import ProfileGauge
from algan_stream.guard.profile import Profile, read_profile
from algan_stream.guard.view import View, Viewer, grid
from algan_stream.types import FULL_RANGE, Frame, InputSpec, Spec, VectorSpec

log = logging.getLogger(__name__)

#: A fault that comes and goes is told so often at most.
_TELL_EVERY_S = 10.0
#: Code of the reason, in front of the kind of fault.
REASON = "camera_fault"
#: Patches at full resolution without a profile, on each side; only repetition is looked for in them.
_PLAIN_GRID = 4


class Guard:
    """Watches one source, whose thread alone calls `check`.

    Args:
        config: What is looked for.
        spec: What the line's bundle takes; of 16-bit frames it tells white.

    Raises:
        ConfigError: The profile cannot be used.
    """

    def __init__(self, config: GuardConfig, spec: Spec | None = None) -> None:
        self._off = frozenset(config.off)
        self._profile = None if config.profile is None else read_profile(config.profile)
        self._gauge = None if self._profile is None else ProfileGauge(self._profile)
        self._places = tuple(self._profile.places) if self._profile else grid(_PLAIN_GRID)
        self._white = spec.white_level if isinstance(spec, InputSpec) else FULL_RANGE
        self._still = _stillness(config, self._profile)
        self._cameras: dict[str, tuple[Viewer, Stillness | None]] = {}  # a source may serve several clients
        self._last: dict[str, str] = {}
        self._told: dict[str, tuple[str, float]] = {}
        #: Faulty frames, by camera and kind.
        self.faults: Counter[tuple[str, Kind]] = Counter()

    def check(self, frame: Frame) -> None:
        """Sets `frame.fault` where the picture is faulty; leaves one alone that is a fault already."""
        if frame.fault or frame.vector is not None:
            return
        viewer, stillness = self._camera(frame.camera)
        try:
            view = viewer.look(frame.image, frame.pixel_format)
        except InputError:
            return  # no picture at all: where it is preprocessed, it gets that reason
        kind = self._kind(view)
        if stillness is not None and stillness.is_frozen(view) and kind is None:
            kind = "frozen"
        if kind is not None:
            frame.fault = f"{REASON}:{kind}"
            self.faults[frame.camera, kind] += 1
        self._last[frame.camera] = kind or ""
        self._tell(frame.camera, kind or "")

    @property
    def cameras(self) -> list[str]:
        """Those that have sent a frame."""
        return list(self._cameras)

    def warnings(self) -> list[str]:
        """What a person should look at: one line for each camera whose last frame was faulty."""
        return [f"camera {name}: {kind}" for name, kind in dict(self._last).items() if kind]

    def _camera(self, name: str) -> tuple[Viewer, Stillness | None]:
        found = self._cameras.get(name)
        if found is None:
            still = None if self._still is None or "frozen" in self._off else Stillness(*self._still)
            found = self._cameras[name] = (Viewer(self._places, self._white), still)
        return found

    def _kind(self, view: View) -> Kind | None:
        profile = self._profile
        found = _gross(view, profile)
        if found is None and profile is not None and self._gauge is not None:
            too_small = "blurred" in profile.limits and not len(view.patches)
            if too_small or (profile.size_wh is not None and view.size_wh != profile.size_wh):
                return None if "size" in self._off else "size"
            found = self._gauge.fault(view, self._off)
        return None if found in self._off else found

    def _tell(self, camera: str, kind: str) -> None:
        """A line in the log when a fault begins or ends, not for each frame of it."""
        before, since = self._told.get(camera, ("", -_TELL_EVERY_S))
        now = time.monotonic()
        if kind == before or now - since < _TELL_EVERY_S:
            return
        self._told[camera] = kind, now
        about = {"camera": camera}
        if kind:
            log.warning("camera %s: %s: its frames are unknown until this ends", camera, kind, extra=about)
        else:
            log.warning("camera %s: no longer %s", camera, before, extra=about)


def _gross(view: View, profile: Profile | None) -> Kind | None:
    """Black or saturated; not where good frames are nearly so themselves."""
    found = exposure.gross_fault(view.small)
    if found == "black" and (profile is None or profile.darkest_share >= 2 * exposure.FEW):
        return "black"
    if found == "saturated" and (profile is None or profile.whitest_share <= exposure.NEARLY_ALL - 0.05):
        return "saturated"
    return None


def _stillness(config: GuardConfig, profile: Profile | None) -> tuple[int, float] | None:
    learned = profile.still if profile else None
    if config.frozen_frames is None:
        return (learned.frames, learned.change) if learned else None
    # What counts as no change was learned over so many frames; over fewer, good frames may be as still.
    holds = learned is not None and learned.frames <= config.frozen_frames
    return config.frozen_frames, learned.change if learned and holds else 0.0


def open_guard(section: GuardConfig | None, spec: Spec | None, path: str) -> Guard | None:
    """The guard of a camera, or None where it has no section.

    Raises:
        ConfigError: Its profile cannot be used, or the line takes no images; the message names the key.
    """
    if section is None:
        return None
    if isinstance(spec, VectorSpec):
        raise ConfigError(f"{path}: looks at images, but the line's bundle takes vectors; remove it")
    try:
        return Guard(section, spec)
    except (ConfigError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}.profile: {error}") from error
