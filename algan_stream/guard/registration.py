"""One weighted least-squares fit of a frame's small picture to the view that good frames share.

Works on logarithms of brightness, where another exposure adds a constant and uneven light adds a slope. All
that can happen to a camera in small doses is then one linear model: moved, turned, nearer, brighter, lit from
the side, flatter. Where the view changes from part to part, a pixel counts little; where nothing ever moves,
much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from algan_stream.guard.view import VIEW_PX, Floats

#: What the fit gives, in order. Shifts in shares of the frame's width and height; turn in radians; zoom and
#: contrast as shares; the level in natural logarithms, the slopes in the same from the middle to the edge.
PARAMETERS = ("shift_x", "shift_y", "turn", "zoom", "level", "slope_x", "slope_y", "contrast")
#: Added before the logarithm: below it, differences are noise.
_DARK = 0.03
#: Variance of a pixel's logarithm that even a view without any change has.
_LEAST_VARIANCE = 0.02**2
#: What departs further from the fit than this many deviations counts as that far: parts and defects.
_CLIP = 3.0


def log_brightness(small: Floats) -> Floats:
    """(VIEW_PX²,) of a view's small picture (4, VIEW_PX, VIEW_PX)."""
    return np.asarray(np.log(small[3].reshape(-1) + np.float32(_DARK)), np.float32)


def tint(small: Floats) -> Floats:
    """(2,) red and blue against green, as logarithms of the frame's means."""
    red, green, blue = small[:3].reshape(3, -1).mean(axis=1) + np.float32(_DARK)
    return np.log(np.array((red / green, blue / green), np.float32))


@dataclass(frozen=True)
class Fit:
    """Attributes: `parameters` (8,), see `PARAMETERS`, and `misfit`: logarithm of what they leave over."""

    parameters: Floats
    misfit: float


class Reference:
    """The view that good frames share.

    Args:
        mean: (VIEW_PX²,) mean of good frames' `log_brightness`.
        variance: (VIEW_PX²,) its variance.
        aspect: Width over height of the frames.
    """

    def __init__(self, mean: Floats, variance: Floats, aspect: float) -> None:
        self.mean, self.variance = mean, variance
        spread = variance.astype(np.float64) + _LEAST_VARIANCE
        model = _model(mean.astype(np.float64), aspect)
        weighted = model.T / spread
        normal = weighted @ model
        normal += np.diag(1e-6 * np.diag(normal) + 1e-9)  # a view without edges tells nothing of shifts
        self._model = model.astype(np.float32)
        self._solve = np.linalg.solve(normal, weighted).astype(np.float32)
        self._weights = (1.0 / spread / (1.0 / spread).sum()).astype(np.float32)
        self._limit = (_CLIP * np.sqrt(spread)).astype(np.float32)

    def fit(self, brightness: Floats) -> Fit:
        """Fits a frame's `log_brightness` (VIEW_PX²,)."""
        rest = brightness - self.mean
        first = self._solve @ rest
        rest -= self._model @ first
        first += self._solve @ np.clip(rest, -self._limit, self._limit)  # of a fit, the rest adds nothing
        return Fit(first, float(np.log(np.dot(self._weights, rest * rest) + 1e-8)) / 2)


def _model(mean: npt.NDArray[np.float64], aspect: float) -> npt.NDArray[np.float64]:
    """(VIEW_PX², 8): how the small picture changes with each parameter."""
    picture = mean.reshape(VIEW_PX, VIEW_PX)
    down, right = np.gradient(picture)
    down, right = down * VIEW_PX, right * VIEW_PX  # per side of the frame
    at = (np.arange(VIEW_PX) + 0.5) / VIEW_PX - 0.5
    y, x = np.meshgrid(at, at, indexing="ij")
    columns = [
        -right,
        -down,
        right * y / aspect - down * x * aspect,  # a turn mixes the axes, and the frame is not square
        -(right * x + down * y),
        np.ones_like(picture),
        2 * x,
        2 * y,
        picture - picture.mean(),
    ]
    return np.stack([column.reshape(-1) for column in columns], axis=1)
