"""Whether the view lies elsewhere in the frame, shifted or turned further than a linear fit can tell.

Asked of frames that are faulty already, to name what happened: a view far aside is dark where it was bright,
and smooth where it was sharp, and would pass for another light or for blur.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from algan_stream.guard.view import VIEW_PX, Floats

#: Turns that are tried, in degrees.
_TURNS = (0.0, -1.0, 1.0, -2.0, 2.0, -3.5, 3.5, -5.0, 5.0, -7.0, 7.0, -10.0, 10.0)
#: A peak of the phase correlation stands out by so many deviations of its surface, and above what is there
#: without any displacement by this factor.
_PEAK, _ABOVE = 6.0, 2.0

Doubles = npt.NDArray[np.float64]


class Displacement:
    """Searches frames for one view.

    Args:
        mean: (VIEW_PX²,) mean of good frames' logarithms of brightness.
        aspect: Width over height of the frames.
    """

    def __init__(self, mean: Floats, aspect: float) -> None:
        self._mean, self._aspect = mean.reshape(VIEW_PX, VIEW_PX).astype(np.float64), aspect

    def found(self, brightness: Floats) -> bool:
        """Whether it fits a frame (VIEW_PX²,) better somewhere else than in its place."""
        spectrum = np.fft.rfft2(_edges(brightness.reshape(VIEW_PX, VIEW_PX).astype(np.float64)))
        product = spectrum * self._turned
        surfaces = np.fft.irfft2(product / (np.abs(product) + 1e-9), (VIEW_PX, VIEW_PX))
        near = [0, 1, -1]
        here = float(surfaces[0][np.ix_(near, near)].max())
        return float(surfaces.max()) > max(_ABOVE * here, _PEAK * float(surfaces.std()))

    @cached_property
    def _turned(self) -> npt.NDArray[np.complex128]:
        """(turns, …) conjugate spectra of the turned view; made when they are first needed."""
        at = (np.arange(VIEW_PX) + 0.5) / VIEW_PX - 0.5
        y, x = np.meshgrid(at, at, indexing="ij")
        spectra = []
        for angle in np.deg2rad(_TURNS):
            cos, sin = np.cos(angle), np.sin(angle)
            from_x = cos * x + sin * y / self._aspect
            from_y = cos * y - sin * x * self._aspect
            spectra.append(np.conj(np.fft.rfft2(_edges(_sampled(self._mean, from_x, from_y)))))
        return np.stack(spectra)


def _sampled(picture: Doubles, x: Doubles, y: Doubles) -> Doubles:
    """A picture at places from −0.5 to 0.5, bilinear; beyond its border, its last pixels."""
    column = np.clip((x + 0.5) * VIEW_PX - 0.5, 0, VIEW_PX - 1.001)
    row = np.clip((y + 0.5) * VIEW_PX - 0.5, 0, VIEW_PX - 1.001)
    left, top = column.astype(int), row.astype(int)
    right, down = column - left, row - top
    upper = picture[top, left] * (1 - right) + picture[top, left + 1] * right
    lower = picture[top + 1, left] * (1 - right) + picture[top + 1, left + 1] * right
    sampled: Doubles = upper * (1 - down) + lower * down
    return sampled


def _edges(picture: Doubles) -> Doubles:
    """Strength of edges, fading out towards the borders, where a shift brings new ones in."""
    down, right = np.gradient(picture)
    strength = np.hypot(down, right)
    window = np.hanning(VIEW_PX + 2)[1:-1]
    faded: Doubles = (strength - strength.mean()) * np.outer(window, window)
    return faded
