"""Learns what good frames of a camera look like, and from which distance on a frame is faulty.

The limits are conformal, as the threshold of scores is (`calibration.py`): whatever the frames look like, the
expected share of good ones beyond a limit is at most what was asked for, as long as they come like those that
were learned from. The view is learned from one part of them and the limits from the others. The rate is
shared out evenly among the checks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

import algan_stream
from algan_stream.calibration import calibrate, images_needed
from algan_stream.errors import CalibrationError, InputError
from algan_stream.guard import exposure, registration, sharpness
from algan_stream.guard.faults import FAULTS, Pixels
from algan_stream.guard.frozen import change, is_same
from algan_stream.guard.measure import NUMBERS, Distance, Gauge, ProfileGauge
from algan_stream.guard.profile import LEARNED, Learned, Profile, Seen, Still, Usual
from algan_stream.guard.view import Floats, View, Viewer, grid
from algan_stream.plain import as_plain
from algan_stream.types import FULL_RANGE, CameraFormat, PixelFormat

#: Patches on each side that are tried, and how many of them are kept.
_GRID, _PLACES = 12, 8
#: A quarter of the frames is for the view, within these bounds.
_LEAST_REFERENCE, _MOST_REFERENCE = 20, 300
#: A limit is never nearer than so many spreads, and no spread is narrower than these: a camera that shows one
#: thing all day must not raise an alarm for a hundredth more light. Units as in `PARAMETERS`.
_LEAST_LIMIT = 3.0
_LEAST_SPREAD: dict[Learned, tuple[float, ...]] = {
    "shifted": (0.0008, 0.0008, 0.0015, 0.0015, 0.05),
    "lighting": (0.015, 0.015, 0.015, 0.015, 0.01, 0.01),
    "blurred": (0.05,) * sharpness.FEATURES,
}
#: So many pairs of frames, none of them alike, show that a camera never repeats itself.
_PAIRS_NEEDED = 50


@dataclass
class _Frames:
    """What is kept of each frame."""

    sizes: set[tuple[int, int]] = field(default_factory=set)
    brightness: list[Floats] = field(default_factory=list)
    tints: list[Floats] = field(default_factory=list)
    energies: list[Floats | None] = field(default_factory=list)
    above_dark: list[float] = field(default_factory=list)
    above_white: list[float] = field(default_factory=list)
    kept: list[tuple[Pixels, PixelFormat]] = field(default_factory=list)


def frames_needed(false_alarm_rate: float, *, sequence: bool) -> int:
    """The least number of good frames from which a rate can be set."""
    limits = images_needed(false_alarm_rate / _shares(sequence))
    return max(limits + _LEAST_REFERENCE, min(math.ceil(limits * 4 / 3), limits + _MOST_REFERENCE))


def learn(
    frames: Iterable[tuple[npt.NDArray[Any], CameraFormat]],
    false_alarm_rate: float,
    *,
    sequence: bool = False,
    frozen_frames: int = 10,
    try_on: int = 16,
    seed: int = 0,
    white_level: int = FULL_RANGE,
) -> Profile:
    """Learns a profile from good frames.

    Args:
        frames: Each as `preprocess` takes it, and its pixel format; looked at once, in order.
        false_alarm_rate: Wanted bound on the share of good frames that are called faulty, of all learned
            checks together.
        sequence: They follow each other as they came from the camera, also while the line stood still:
            then it is learned when a picture is frozen.
        frozen_frames: Repetitions that make it so.
        try_on: Good frames that faults are simulated on afterwards, to tell which ones it finds; 0: none.
        seed: Of the draw which frames the view is learned from, and of the simulated faults.
        white_level: White of 16-bit frames.

    Raises:
        CalibrationError: There are too few frames for the rate, or it is out of range.
        InputError: A frame's pixels cannot be used.
    """
    if not 0.0 < false_alarm_rate < 1.0:
        raise CalibrationError(f"false-alarm rate: expected above 0 and below 1, got {false_alarm_rate}")
    if not 1 <= frozen_frames <= 1_000_000:
        raise InputError(f"frozen frames: expected 1 to 1000000, got {frozen_frames}")
    random = np.random.default_rng(seed)
    watch = _Stillness(frozen_frames) if sequence else None
    seen = _look_at(frames, random, watch, try_on, white_level)
    count, share = len(seen.brightness), false_alarm_rate / _shares(sequence)
    needed = frames_needed(false_alarm_rate, sequence=sequence)
    if count < needed:
        raise CalibrationError(
            f"a false-alarm rate of {false_alarm_rate:g} needs at least {needed} good frames, got {count}; "
            f"take {needed - count} more, or ask for {_rate_for(count, sequence)}"
        )
    order = random.permutation(count)
    for_view = min(max(_LEAST_REFERENCE, count // 4), _MOST_REFERENCE)
    notes: list[str] = []
    profile = _fitted(seen, order[:for_view], order[for_view:], share, notes)
    still = watch.learned(share, notes) if watch else None
    if watch is None:
        notes.append("frozen: only learned from a video or with --sequence; or set frozen_frames yourself")
    profile = msgspec.structs.replace(profile, still=still, false_alarm_rate=false_alarm_rate, notes=notes)
    return msgspec.structs.replace(profile, seen=_self_test(profile, seen.kept, random))


def _shares(sequence: bool) -> int:
    return len(LEARNED) + sequence


def _rate_for(count: int, sequence: bool) -> str:
    limits = count - min(max(_LEAST_REFERENCE, count // 4), _MOST_REFERENCE)
    if limits < _shares(sequence):
        return "no rate at all with so few"
    return f"{math.ceil(1e4 * _shares(sequence) / (limits + 1)) / 1e4:.4g} or more"


def _look_at(
    frames: Iterable[tuple[npt.NDArray[Any], CameraFormat]],
    random: np.random.Generator,
    watch: _Stillness | None,
    keep: int,
    white_level: int,
) -> _Frames:
    """One pass over all frames, of which a few are kept whole, each with the same chance."""
    viewer, seen = Viewer(grid(_GRID), white_level), _Frames()
    for number, (image, pixel_format) in enumerate(frames):
        view = viewer.look(image, pixel_format)
        seen.sizes.add(view.size_wh)
        seen.brightness.append(registration.log_brightness(view.small))
        seen.tints.append(registration.tint(view.small))
        seen.energies.append(sharpness.log_energies(view.patches) if len(view.patches) else None)
        seen.above_dark.append(exposure.share_above(view.small, exposure.DARK))
        seen.above_white.append(exposure.share_above(view.small, exposure.WHITE))
        if watch is not None:
            watch.see(view)
        if number < keep:
            seen.kept.append(_copied(image, pixel_format, white_level))
        elif (place := int(random.integers(number + 1))) < keep:
            seen.kept[place] = _copied(image, pixel_format, white_level)
    return seen


def _fitted(
    seen: _Frames,
    for_view: npt.NDArray[np.int64],
    for_limits: npt.NDArray[np.int64],
    share: float,
    notes: list[str],
) -> Profile:
    pictures = np.stack([seen.brightness[i] for i in for_view])
    size = next(iter(seen.sizes)) if len(seen.sizes) == 1 else None
    mean, variance = pictures.mean(axis=0), pictures.var(axis=0)
    reference = registration.Reference(mean, variance, size[0] / size[1] if size else 1.0)
    sharp = all(energies is not None for energies in seen.energies)
    if not sharp:
        notes.append("blurred: some frames are smaller than 64 px, too small to tell sharpness")
    every = [energies for energies in seen.energies if energies is not None] if sharp else []
    chosen, usual_energies, weights = _sharp_places([every[i] for i in for_view] if sharp else [])
    gauge = Gauge(reference, usual_energies, weights)

    numbers = np.stack(
        [
            gauge.of_parts(seen.brightness[i], seen.tints[i], every[i][chosen] if sharp else None)
            for i in range(len(seen.brightness))
        ]
    )
    checks = [check for check in LEARNED if sharp or check != "blurred"]
    usual = {check: _usual(numbers[for_view, NUMBERS[check]], _LEAST_SPREAD[check]) for check in checks}
    distance = Distance([usual[check] for check in checks])
    far = np.stack([distance.of(numbers[i]) for i in for_limits])
    limits: dict[Learned, float] = {
        check: max(_LEAST_LIMIT, calibrate(far[:, NUMBERS[check]].max(axis=1), share).threshold)
        for check in checks
    }
    places = grid(_GRID)
    return Profile(
        made_by=algan_stream.__version__,
        size_wh=size,
        reference_images=len(for_view),
        calibration_images=len(for_limits),
        false_alarm_rate=share,
        mean=_short(mean),
        variance=_short(variance),
        places=[places[i] for i in chosen],
        energies=[_short(row) for row in usual_energies],
        weights=[_short(row) for row in weights],
        usual=usual,
        limits=limits,
        darkest_share=min(seen.above_dark),
        whitest_share=max(seen.above_white),
        still=None,
        notes=notes,
        seen=[],
    )


def _sharp_places(energies: list[Floats]) -> tuple[list[int], Floats, Floats]:
    """The patches that tell sharpness best: much fine structure, and the same in every frame."""
    if not energies:
        return (
            [],
            np.empty((0, sharpness.ENERGIES), np.float32),
            np.empty((0, sharpness.ENERGIES), np.float32),
        )
    stacked = np.stack(energies)  # frames × places × energies
    fine = stacked[:, :, :2].mean(axis=2)
    best = np.argsort(fine.mean(axis=0) - 2 * fine.std(axis=0))[::-1][:_PLACES]
    chosen = sorted(int(i) for i in best)
    weights = 1 / (stacked[:, chosen].var(axis=0) + _LEAST_SPREAD["blurred"][0] ** 2)
    return chosen, stacked[:, chosen].mean(axis=0), np.asarray(weights / weights.sum(axis=0), np.float32)


def _usual(numbers: Floats, least: tuple[float, ...]) -> Usual:
    middle = np.median(numbers, axis=0)
    # By the 95th percentile, 1.96 deviations of a normal distribution: what happens in one good frame of 20,
    # such as a hand on the belt, is usual, or it would set the limit of all else.
    spread = np.maximum(np.quantile(np.abs(numbers - middle), 0.95, axis=0) / 1.96, least)
    return Usual(_short(middle), _short(spread))


def _short(values: Floats) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


class _Stillness:
    """Learns from a sequence how still its good frames are over so many repetitions."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._before: View | None = None
        self._first: View | None = None
        self._largest = self._repeated = 0.0
        self._windows: list[float] = []
        self._pairs = self._alike = 0

    def see(self, view: View) -> None:
        if self._before is not None:
            self._pairs += 1
            self._alike += is_same(view, self._before)
        self._before = view
        if self._first is None:
            self._first, self._largest, self._repeated = view, 0.0, 0
            return
        self._largest = max(self._largest, change(view, self._first))
        self._repeated += 1
        if self._repeated == self._frames:
            self._windows.append(self._largest)
            self._first = None

    def learned(self, share: float, notes: list[str]) -> Still | None:
        if self._alike:
            notes.append(
                f"frozen: {self._alike} of {self._pairs} good frames repeat the one before, so that a frozen "
                "picture looks like a still scene"
            )
            return None
        if self._pairs < _PAIRS_NEEDED:
            notes.append(f"frozen: needs {_PAIRS_NEEDED + 1} frames in a row, got {self._pairs + 1}")
            return None
        still = 0.0
        if len(self._windows) >= images_needed(share):
            still = max(0.0, -calibrate([-w for w in self._windows], share).threshold)
        else:
            notes.append(
                f"frozen: only exact repetition; to tell noise as well takes {images_needed(share)} times "
                f"{self._frames + 1} frames in a row"
            )
        return Still(frames=self._frames, change=float(f"{still:.4g}") * 0.999)


def _copied(
    image: npt.NDArray[Any], pixel_format: CameraFormat, white_level: int
) -> tuple[Pixels, PixelFormat]:
    plain, pixels = as_plain(image, pixel_format, white_level)
    return (plain.copy() if plain is image else plain), pixels


def _self_test(
    profile: Profile, kept: list[tuple[Pixels, PixelFormat]], random: np.random.Generator
) -> list[Seen]:
    """How often each simulated fault is found, by whatever check."""
    viewer, gauge = Viewer(tuple(profile.places)), ProfileGauge(profile)
    found: list[Seen] = []
    for fault in FAULTS if kept else ():
        if fault.name == "another colour" and all(image.ndim == 2 for image, _ in kept):
            continue
        for severity in fault.severities:
            hits = 0
            for image, pixel_format in kept:
                view = viewer.look(fault.apply(image, severity, random), pixel_format)
                hits += bool(exposure.gross_fault(view.small) or gauge.fault(view))
            found.append(
                Seen(fault=fault.name, severity=f"{severity:g} {fault.unit}", share=hits / len(kept))
            )
    return found
