"""Black and saturated pictures: found without knowing anything else of the camera."""

from __future__ import annotations

import numpy as np

from algan_stream.guard.view import Floats

#: Brightness, 0 to 1, up to which a picture can be the noise of a covered sensor.
DARK = 12 / 255
#: Brightness from which a pixel of the small picture counts as blown out.
WHITE = 250 / 255
#: Shares of the small picture: less than this above DARK is black, more than that above WHITE is saturated.
FEW, NEARLY_ALL = 0.01, 0.95


def share_above(small: Floats, level: float) -> float:
    """Share of a view's small picture (4, H, W) that is brighter than a level."""
    return int(np.count_nonzero(small[3] > level)) / int(small[3].size)


def gross_fault(small: Floats) -> str:
    """`black`, `saturated`, or nothing of both: an empty string."""
    if share_above(small, DARK) < FEW:
        return "black"
    return "saturated" if share_above(small, WHITE) > NEARLY_ALL else ""
