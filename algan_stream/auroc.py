"""How well scores part good from defective, in one number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def auroc(good_scores: npt.ArrayLike, anomalous_scores: npt.ArrayLike) -> float | None:
    """Probability that an anomalous image scores above a good one; ties count half.

    Args:
        good_scores: (n,) finite scores of good images.
        anomalous_scores: (k,) finite scores of anomalous ones.

    Returns:
        The area under the ROC curve, 0 to 1, or None where either kind is absent.
    """
    good = np.sort(np.asarray(good_scores, dtype=np.float64))
    anomalous = np.asarray(anomalous_scores, dtype=np.float64)
    if good.size == 0 or anomalous.size == 0:
        return None
    below = np.searchsorted(good, anomalous, side="left")
    not_above = np.searchsorted(good, anomalous, side="right")
    return float((below + not_above).sum() / (2.0 * good.size * anomalous.size))
