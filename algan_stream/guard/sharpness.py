"""Blur: differences between near pixels shrink, those between far ones less so.

Energies are taken in both directions, because motion blurs one of them only, and relative to a patch's
brightness, so that another exposure is no blur.
"""

from __future__ import annotations

import numpy as np

from algan_stream.guard.view import Floats

#: Distances in pixels over which differences are taken.
LAGS = (1, 4)
#: Energies of a patch: for each distance along x, then along y.
ENERGIES = 2 * len(LAGS)
#: Numbers that tell a frame's sharpness: its energies, then near against far in x and in y.
FEATURES = ENERGIES + 2
#: Half a grey level squared: below it there is nothing but rounding.
_LEAST_ENERGY = (0.5 / 255) ** 2
#: Keeps dark patches from looking rich in contrast.
_DARK = 0.02


def log_energies(patches: Floats) -> Floats:
    """(P, ENERGIES) logarithms of patches' relative energies.

    Args:
        patches: (P, H, H), 0 is black and 1 white.
    """
    count, _, width = patches.shape
    # Each patch and the same on its side: differences along y of both are then differences of long rows.
    rows = np.concatenate([patches.transpose(0, 2, 1), patches]).reshape(2 * count, -1)
    squared = []
    for lag in LAGS:
        differences = rows[:, lag * width :] - rows[:, : -lag * width]
        energy = np.einsum("pi,pi->p", differences, differences) / np.float32(differences.shape[1])
        squared += [energy[:count], energy[count:]]
    brightness = rows[count:].sum(axis=1) / np.float32(rows.shape[1]) + np.float32(_DARK)
    energies = np.stack(squared, axis=1) + _LEAST_ENERGY
    return np.asarray(np.log(energies / (brightness * brightness)[:, None]), np.float32)


def frame_features(energies: Floats, usual: Floats, weights: Floats) -> Floats:
    """(FEATURES,) how much sharper a frame is than good ones; negative where it is blurred.

    Args:
        energies: (P, ENERGIES), as `log_energies` gives them.
        usual: (P, ENERGIES) means of good frames.
        weights: (P, ENERGIES), each column adding up to 1.
    """
    gain = ((energies - usual) * weights).sum(axis=0)
    return np.concatenate([gain, gain[:2] - gain[2:]])
