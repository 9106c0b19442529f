"""The same picture again and again: exactly, or as near as this line's good frames never are."""

from __future__ import annotations

import math

import numpy as np

from algan_stream.guard.view import View


def change(now: View, before: View) -> float:
    """Root mean square difference of two small pictures, 0 to 1; infinite for frames of two sizes."""
    if now.size_wh != before.size_wh:
        return math.inf
    difference = now.small[3] - before.small[3]
    return math.sqrt(float(np.vdot(difference, difference)) / difference.size)


def is_same(now: View, before: View) -> bool:
    """Whether not one pixel of patches and small picture differs; the noise of a sensor suffices."""
    return (
        now.size_wh == before.size_wh
        and np.array_equal(now.patches, before.patches)
        and np.array_equal(now.small, before.small)
    )


class Stillness:
    """Counts repetitions; for one camera's frames, in order.

    Args:
        frames: Frozen after so many repetitions of a picture.
        limit: Changes up to this count as none; 0: only exact repetition counts.
    """

    def __init__(self, frames: int, limit: float = 0.0) -> None:
        self._frames, self._limit = frames, limit
        self._first: View | None = None
        self._repeated = 0

    def is_frozen(self, view: View) -> bool:
        """Takes the next frame, and says whether it and those before it are one picture.

        All are compared with the first of them: a scene that changes slowly is no frozen one.
        """
        if self._first is not None and (
            is_same(view, self._first) or (self._limit > 0 and change(view, self._first) <= self._limit)
        ):
            self._repeated += 1
        else:
            self._first, self._repeated = view, 0
        return self._repeated >= self._frames
