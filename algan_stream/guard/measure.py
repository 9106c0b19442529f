"""How far a frame is from good ones, in each respect that a profile knows."""

from __future__ import annotations

import numpy as np

from algan_stream.guard import registration, sharpness
from algan_stream.guard.profile import LEARNED, Learned, Profile, Usual
from algan_stream.guard.view import Floats, View


class Gauge:
    """Turns views into the numbers of the learned checks.

    Args:
        reference: The view that good frames share.
        energies: (P, ENERGIES) usual energies of its patches.
        weights: (P, ENERGIES) how much each counts.
    """

    def __init__(self, reference: registration.Reference, energies: Floats, weights: Floats) -> None:
        self._reference, self._energies, self._weights = reference, energies, weights

    def numbers(self, view: View) -> dict[Learned, Floats]:
        """The numbers of one view."""
        return self.of_parts(
            registration.log_brightness(view.small),
            registration.tint(view.small),
            sharpness.log_energies(view.patches) if len(view.patches) else None,
        )

    def of_parts(self, brightness: Floats, tint: Floats, energies: Floats | None) -> dict[Learned, Floats]:
        """The same from what was computed before."""
        fit = self._reference.fit(brightness)
        numbers: dict[Learned, Floats] = {
            "shifted": np.append(fit.parameters[:4], np.float32(fit.misfit)),
            "lighting": np.append(fit.parameters[4:], tint),
        }
        if energies is not None and len(self._energies):
            numbers["blurred"] = sharpness.frame_features(energies, self._energies, self._weights)
        return numbers


def distance(check: Learned, numbers: Floats, usual: Usual) -> float:
    """How many spreads the worst of a check's numbers is from its middle, on the side that is a fault."""
    deviations = (numbers - np.asarray(usual.middle, np.float32)) / np.asarray(usual.spread, np.float32)
    if check == "blurred":
        return float(-deviations.min())  # sharper than usual is no fault
    sides = np.abs(deviations)
    if check == "shifted":
        sides[-1] = deviations[-1]  # nor is a better fit
    return float(sides.max())


class ProfileGauge:
    """A profile, ready to be asked."""

    def __init__(self, profile: Profile) -> None:
        self._reference = registration.Reference(
            np.asarray(profile.mean, np.float32), np.asarray(profile.variance, np.float32), profile.aspect
        )
        energies = np.asarray(profile.energies, np.float32).reshape(-1, sharpness.ENERGIES)
        weights = np.asarray(profile.weights, np.float32).reshape(-1, sharpness.ENERGIES)
        self._gauge, self._profile = Gauge(self._reference, energies, weights), profile

    def is_displaced(self, view: View) -> bool:
        """Whether the good frames' view lies elsewhere in this frame."""
        return self._reference.is_displaced(registration.log_brightness(view.small))

    def excesses(self, view: View) -> dict[Learned, float]:
        """For each learned check, the frame's distance from good ones over the limit: a fault above 1."""
        found: dict[Learned, float] = {}
        numbers = self._gauge.numbers(view)
        for check in LEARNED:
            if check in numbers and check in self._profile.limits:
                far = distance(check, numbers[check], self._profile.usual[check])
                found[check] = far / self._profile.limits[check]
        return found
