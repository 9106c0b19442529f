"""How far a frame is from good ones, in each respect that a profile knows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from algan_stream.guard import registration, sharpness
from algan_stream.guard.displacement import Displacement
from algan_stream.guard.profile import LEARNED, Learned, Profile, Usual
from algan_stream.guard.view import Floats, View

#: Where each check's numbers stand in a frame's: four of the fit and what it leaves over; four more and the
#: tint; sharpness, which is missing where a frame is too small for patches.
NUMBERS: dict[Learned, slice] = {
    "shifted": slice(0, 5),
    "lighting": slice(5, 11),
    "blurred": slice(11, 11 + sharpness.FEATURES),
}
#: Of each check's numbers, those that other kinds of fault change as well: misfit, contrast.
_SHARED: dict[Learned, list[int]] = {"shifted": [4], "lighting": [3], "blurred": []}
#: How much more it means if a check's own numbers are off: blur moves no view, but a move changes sharpness.
_CLARITY: dict[Learned, float] = {"shifted": 3.0, "lighting": 1.0, "blurred": 1.0}


class Gauge:
    """Turns views into numbers, see `NUMBERS`.

    Args:
        reference: The view that good frames share.
        energies: (P, ENERGIES) usual energies of its patches.
        weights: (P, ENERGIES) how much each counts.
    """

    def __init__(self, reference: registration.Reference, energies: Floats, weights: Floats) -> None:
        self._reference, self._energies, self._weights = reference, energies, weights

    def numbers(self, view: View) -> Floats:
        """The numbers of one view."""
        return self.of_parts(
            registration.log_brightness(view.small),
            registration.tint(view.small),
            sharpness.log_energies(view.patches) if len(view.patches) else None,
        )

    def of_parts(self, brightness: Floats, tint: Floats, energies: Floats | None) -> Floats:
        """The same from what was computed before."""
        fit = self._reference.fit(brightness)
        parts = [fit.parameters[:4], np.array((fit.misfit,), np.float32), fit.parameters[4:], tint]
        if energies is not None and len(self._energies):
            parts.append(sharpness.frame_features(energies, self._energies, self._weights))
        return np.concatenate(parts)


class Distance:
    """How many spreads numbers are from their middle, on the side that is a fault.

    Args:
        usual: Of each check, in the order of `NUMBERS`; those at its end may be missing.
    """

    def __init__(self, usual: Sequence[Usual]) -> None:
        self._middle = np.asarray([m for each in usual for m in each.middle], np.float32)
        self._per_spread = 1 / np.asarray([s for each in usual for s in each.spread], np.float32)
        #: Where less is no fault: a better fit. Where more is none: sharpness.
        self._one_side = NUMBERS["shifted"].stop - 1
        self._turned = slice(NUMBERS["blurred"].start, None)

    def of(self, numbers: Floats) -> Floats:
        """(numbers that are known,) of a frame's."""
        known = min(len(numbers), len(self._middle))
        deviations = (numbers[:known] - self._middle[:known]) * self._per_spread[:known]
        far = np.abs(deviations)
        far[self._one_side] = deviations[self._one_side]
        np.negative(deviations[self._turned], out=far[self._turned])
        return far


class ProfileGauge:
    """A profile, ready to be asked."""

    def __init__(self, profile: Profile) -> None:
        mean, variance = np.asarray(profile.mean, np.float32), np.asarray(profile.variance, np.float32)
        energies = np.asarray(profile.energies, np.float32).reshape(-1, sharpness.ENERGIES)
        weights = np.asarray(profile.weights, np.float32).reshape(-1, sharpness.ENERGIES)
        reference = registration.Reference(mean, variance, profile.aspect)
        self._gauge = Gauge(reference, energies, weights)
        self._checks = [check for check in LEARNED if check in profile.limits]
        self._distance = Distance([profile.usual[check] for check in self._checks])
        self._limits = profile.limits
        self._elsewhere = Displacement(mean, profile.aspect)

    def excesses(self, view: View, leave_out: Collection[str] = ()) -> dict[Learned, float]:
        """For each learned check, the frame's distance from good ones over the limit: a fault above 1."""
        return {check: float(far.max()) for check, far in self._far(view, leave_out).items()}

    def fault(self, view: View, leave_out: Collection[str] = ()) -> Learned | None:
        """Which check says best what is wrong with a frame; None if nothing is.

        A view that has moved or turned lets contrast, light and sharpness change as well, and blur lets the
        contrast; so what speaks for one kind alone is heard first. A view that fits badly and does not lie
        elsewhere is none of the camera's faults: that is what a large defect looks like.
        """
        far = self._far(view, leave_out)
        if max((float(each.max()) for each in far.values()), default=0.0) <= 1:
            return None
        if "shifted" in far and self._elsewhere.found(registration.log_brightness(view.small)):
            return "shifted"
        clear: dict[Learned, float] = {}
        for check, each in far.items():
            own = float(np.delete(each, _SHARED[check]).max())
            if own > 1 or (check == "lighting" and each.max() > 1):
                clear[check] = own * _CLARITY[check]
        return max((loud, check) for check, loud in clear.items())[1] if clear else None

    def _far(self, view: View, leave_out: Collection[str]) -> dict[Learned, Floats]:
        """Each check's numbers as distances from good ones, over the limit."""
        far = self._distance.of(self._gauge.numbers(view))
        return {
            check: far[NUMBERS[check]] / np.float32(self._limits[check])
            for check in self._checks
            if check not in leave_out and NUMBERS[check].start < len(far)
        }
