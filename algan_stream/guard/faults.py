"""Camera faults simulated on good frames: for learning what a profile can see, for benchmarks and tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

#: Grey levels of noise that a blurred picture keeps at most.
_MOST_NOISE = 1.5


@dataclass(frozen=True)
class Fault:
    """One way to spoil a picture.

    Attributes:
        kind: What the guard should call it.
        name: What happens.
        unit: Of the severities, for tables.
        severities: From mild to gross.
        apply: Takes a frame, uint8 (H, W) or (H, W, 3), a severity and a generator; returns a new frame.
    """

    kind: str
    name: str
    unit: str
    severities: tuple[float, ...]
    apply: Callable[[Pixels, float, np.random.Generator], Pixels]


def _stored(values: npt.ArrayLike) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _gaussian(image: Pixels, deviation: float, random: np.random.Generator) -> npt.NDArray[np.float32]:
    return random.standard_normal(image.shape, np.float32) * np.float32(deviation)


def _lit(image: Pixels, gain: float, random: np.random.Generator) -> Pixels:
    return _stored(image.astype(np.float32) * gain)


def _covered(image: Pixels, light: float, random: np.random.Generator) -> Pixels:
    """What little light is left, and the sensor's noise."""
    return _stored(image.astype(np.float32) * light + _gaussian(image, 1.5, random) + 2)


def _sloped(image: Pixels, share: float, random: np.random.Generator) -> Pixels:
    """Brighter by a share at one side and darker by it at the other."""
    angle = random.uniform(0, 2 * math.pi)
    y = np.linspace(-1, 1, image.shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, image.shape[1], dtype=np.float32)[None]
    gain = 1 + share * (math.cos(angle) * x + math.sin(angle) * y)
    return _stored(image * (gain if image.ndim == 2 else gain[..., None]))


def _tinted(image: Pixels, share: float, random: np.random.Generator) -> Pixels:
    """First channel up, last one down; a grey camera has no colour, and stays as it is."""
    if image.ndim == 2:
        return image
    return _stored(image * np.array((1 + share, 1, 1 - share), np.float32))


def _noise(image: Pixels) -> float:
    """Deviation of the sensor's noise, by the median of a difference that flat and sloped areas do not have.

    Fine texture looks like noise to it, so more than a camera in good light has is not believed.
    """
    grey = image.astype(np.float32) if image.ndim == 2 else image[..., 1].astype(np.float32)
    rest = grey[:-2, :-2] - 2 * grey[1:-1, 1:-1] + grey[2:, 2:]
    return min(float(np.median(np.abs(rest))) / 0.6745 / math.sqrt(6), _MOST_NOISE)


def _noisy_again(image: Pixels, smoothed: npt.NDArray[Any], random: np.random.Generator) -> Pixels:
    """Optics blur the light, not the noise that the sensor adds to it later."""
    return _stored(smoothed + _gaussian(image, _noise(image), random))


def _defocused(image: Pixels, sigma_px: float, random: np.random.Generator) -> Pixels:
    import cv2

    return _noisy_again(image, cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma_px), random)


def _moved_while_open(image: Pixels, length_px: float, random: np.random.Generator) -> Pixels:
    import cv2

    side = int(length_px) | 1
    kernel, middle, angle = np.zeros((side, side), np.float32), side // 2, random.uniform(0, math.pi)
    for step in np.linspace(-middle, middle, 4 * side):
        kernel[round(middle + step * math.sin(angle)), round(middle + step * math.cos(angle))] = 1
    return _noisy_again(image, cv2.filter2D(image.astype(np.float32), -1, kernel / kernel.sum()), random)


def _warped(image: Pixels, dx: float, dy: float, degrees: float) -> Pixels:
    import cv2

    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    turn[:, 2] += np.array((dx, dy))
    warped = cv2.warpAffine(
        image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(warped, np.uint8)


def _shifted(image: Pixels, share: float, random: np.random.Generator) -> Pixels:
    """By a share of the width, in any direction; on whole pixels, which blur nothing."""
    angle, far = random.uniform(0, 2 * math.pi), share * image.shape[1]
    return _warped(image, round(far * math.cos(angle)), round(far * math.sin(angle)), 0.0)


def _turned(image: Pixels, degrees: float, random: np.random.Generator) -> Pixels:
    return _warped(image, 0, 0, degrees * random.choice((-1, 1)))


#: All of one frame; a frozen picture needs several, see `frozen.py`.
FAULTS = (
    Fault("black", "covered", "of the light left", (0.1, 0.03, 0.0), _covered),
    Fault("saturated", "overexposed", "times the light", (1.5, 2.0, 4.0, 20.0), _lit),
    Fault("lighting", "darker", "of the light", (0.95, 0.9, 0.8, 0.5), _lit),
    Fault("lighting", "light from the side", "of the light at an edge", (0.05, 0.1, 0.2, 0.4), _sloped),
    Fault("lighting", "another colour", "of red and blue", (0.02, 0.05, 0.1, 0.2), _tinted),
    Fault("blurred", "defocused", "px of deviation", (0.7, 1.0, 2.0, 4.0, 8.0), _defocused),
    Fault("blurred", "motion", "px long", (3, 5, 9, 15, 31), _moved_while_open),
    Fault("shifted", "moved", "of the width", (0.005, 0.01, 0.02, 0.05, 0.1), _shifted),
    Fault("shifted", "turned", "degrees", (0.5, 1.0, 2.0, 5.0), _turned),
)
