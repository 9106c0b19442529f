"""How far a frame is from good ones, in each respect that a profile knows."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from algan_stream.guard import registration, sharpness
from algan_stream.guard.displacement import Displacement
from algan_stream.guard.profile import Learned, Profile, Usual
from algan_stream.guard.view import Floats, View

#: Of each check's numbers, the one that other kinds of fault change as well: misfit, contrast.
_SHARED: dict[Learned, list[int]] = {"shifted": [4], "lighting": [3], "blurred": []}
#: How much more it means if a check's own numbers are off: blur moves no view, but a move changes sharpness.
_CLARITY: dict[Learned, float] = {"shifted": 3.0, "lighting": 1.0, "blurred": 1.0}


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
    return float(_deviations(check, numbers, usual).max())


def _deviations(check: Learned, numbers: Floats, usual: Usual) -> Floats:
    deviations = (numbers - np.asarray(usual.middle, np.float32)) / np.asarray(usual.spread, np.float32)
    if check == "blurred":
        return np.negative(deviations)  # sharper than usual is no fault
    sides = np.abs(deviations)
    if check == "shifted":
        sides[-1] = deviations[-1]  # nor is a better fit
    return sides


class ProfileGauge:
    """A profile, ready to be asked."""

    def __init__(self, profile: Profile) -> None:
        mean, variance = np.asarray(profile.mean, np.float32), np.asarray(profile.variance, np.float32)
        energies = np.asarray(profile.energies, np.float32).reshape(-1, sharpness.ENERGIES)
        weights = np.asarray(profile.weights, np.float32).reshape(-1, sharpness.ENERGIES)
        reference = registration.Reference(mean, variance, profile.aspect)
        self._gauge, self._profile = Gauge(reference, energies, weights), profile
        self._elsewhere = Displacement(mean, profile.aspect)

    def excesses(self, view: View, leave_out: Collection[str] = ()) -> dict[Learned, float]:
        """For each learned check, the frame's distance from good ones over the limit: a fault above 1."""
        return {
            check: float(_deviations(check, numbers, self._profile.usual[check]).max()) / limit
            for check, numbers, limit in self._limited(view, leave_out)
        }

    def name(self, view: View, leave_out: Collection[str] = ()) -> Learned:
        """Which check says best what is wrong with a faulty frame.

        A view that has moved or turned lets contrast, light and sharpness change as well, and blur lets the
        contrast; so what speaks for one kind alone is heard first.
        """
        if "shifted" not in leave_out and self._elsewhere.found(registration.log_brightness(view.small)):
            return "shifted"
        said: dict[Learned, tuple[float, float]] = {}
        for check, numbers, limit in self._limited(view, leave_out):
            deviations = _deviations(check, numbers, self._profile.usual[check]) / limit
            own = np.delete(deviations, _SHARED[check]).max()
            said[check] = float(own) * _CLARITY[check], float(deviations.max())
        clear = {check: own for check, (own, most) in said.items() if most > 1}
        return max(clear, key=lambda check: clear[check])

    def _limited(self, view: View, leave_out: Collection[str]) -> Iterator[tuple[Learned, Floats, float]]:
        numbers = self._gauge.numbers(view)
        for check, limit in self._profile.limits.items():
            if check in numbers and check not in leave_out:
                yield check, numbers[check], limit
