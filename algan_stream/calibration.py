"""From scores of good images to p-values and a threshold with a stated false-reject rate.

Both are conformal: they hold for any score distribution, as long as the parts on the line are drawn like
the calibration images (exchangeable with them). Nothing here ever looks at a defective image.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.errors import CalibrationError


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What held-out good images tell about scores; stored in the bundle's manifest.

    Attributes:
        good_scores: Scores of the calibration images, ascending.
        threshold: Scores above it are rejected.
        method: `conformal`: the threshold comes from `false_reject_rate`; `raw`: the user set it
            (paper, equation 8).
        false_reject_rate: Upper bound on the expected share of good parts that are rejected.
        false_reject_rate_ci95: 95 % interval of that share, given how few images stand behind it.
    """

    good_scores: tuple[float, ...]
    threshold: float
    method: Literal["conformal", "raw"] = "conformal"
    false_reject_rate: float | None = None
    false_reject_rate_ci95: tuple[float, float] | None = None


def images_needed(false_reject_rate: float) -> int:
    """Returns the least number of good images from which a rate can be set: ceil(1 / rate) − 1."""
    # 1/r is often a hair above the integer it stands for (1/0.1); the tolerance takes that off again.
    return max(1, math.ceil(1.0 / false_reject_rate - 1e-9) - 1)


def p_values(good_scores: npt.ArrayLike, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Conformal p-values `(1 + #{good scores ≥ score}) / (n + 1)`.

    Args:
        good_scores: (n,) ascending scores of the calibration images.
        scores: (m,) finite scores.

    Returns:
        (m,) values in (0, 1]; a small one means that few good images score as high.
    """
    good = np.asarray(good_scores, dtype=np.float64)
    at_least = good.size - np.searchsorted(good, np.asarray(scores, dtype=np.float64), side="left")
    return np.asarray((1.0 + at_least) / (good.size + 1.0), np.float64)


def calibrate(good_scores: npt.ArrayLike, false_reject_rate: float) -> Calibration:
    """Sets the threshold so that at most `false_reject_rate` of good parts are expected above it.

    The threshold is the k-th smallest of the n scores with k = ceil((1 − rate)(n + 1)). A new good part
    exceeds it with probability at most (n + 1 − k) / (n + 1) ≤ rate, on average over calibration sets;
    for this one set the true rate follows Beta(n + 1 − k, k), from which the interval comes.

    Args:
        good_scores: (n,) scores of good images that the model was not trained on.
        false_reject_rate: Wanted rate, above 0 and below 1.

    Raises:
        CalibrationError: The rate is out of range, a score is not finite, or there are too few images.
    """
    good = np.sort(np.asarray(good_scores, dtype=np.float64).ravel())
    if not 0.0 < false_reject_rate < 1.0:
        raise CalibrationError(f"false-reject rate: expected above 0 and below 1, got {false_reject_rate}")
    if not np.isfinite(good).all():
        raise CalibrationError(f"{np.count_nonzero(~np.isfinite(good))} calibration scores are not finite")
    needed = images_needed(false_reject_rate)
    if good.size < needed:
        smallest = 1.0 / (good.size + 1)
        raise CalibrationError(
            f"a false-reject rate of {false_reject_rate:g} needs at least {needed} good images, "
            f"got {good.size}; add {needed - good.size} good images, or ask for {smallest:.4g} or more"
        )
    k = math.ceil((1.0 - false_reject_rate) * (good.size + 1) - 1e-9)
    above = good.size + 1 - k
    return Calibration(
        good_scores=tuple(good.tolist()),
        threshold=float(good[k - 1]),
        false_reject_rate=false_reject_rate,
        false_reject_rate_ci95=(_beta_quantile(above, k, 0.025), _beta_quantile(above, k, 0.975)),
    )


def with_raw_threshold(good_scores: npt.ArrayLike, threshold: float) -> Calibration:
    """Keeps the good scores for p-values but rejects above a threshold that the user chose (equation 8)."""
    if not math.isfinite(threshold):
        raise CalibrationError(f"threshold: expected a finite number, got {threshold}")
    good = np.sort(np.asarray(good_scores, dtype=np.float64).ravel())
    if not np.isfinite(good).all():
        raise CalibrationError(f"{np.count_nonzero(~np.isfinite(good))} calibration scores are not finite")
    return Calibration(good_scores=tuple(good.tolist()), threshold=threshold, method="raw")


def _beta_quantile(a: int, b: int, probability: float) -> float:
    """Quantile of Beta(a, b) for whole a, b ≥ 1, where P(Beta ≤ x) = P(Binomial(a + b − 1, x) ≥ a)."""
    n = a + b - 1
    successes = np.arange(a, n + 1)
    log_choose = np.array(
        [math.lgamma(n + 1) - math.lgamma(s + 1) - math.lgamma(n - s + 1) for s in successes]
    )

    def cdf(x: float) -> float:
        return float(np.exp(log_choose + successes * math.log(x) + (n - successes) * math.log1p(-x)).sum())

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle) < probability else (low, middle)
    return (low + high) / 2
