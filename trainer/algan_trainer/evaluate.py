"""How well scores part good from defective. NumPy only: no torch here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from algan_stream.auroc import auroc

FloatArray = npt.NDArray[np.float64]

__all__ = ["FloatArray", "auroc", "auroc_of", "per_type", "share_above"]


def share_above(scores: npt.ArrayLike, threshold: float) -> float | None:
    """Share of scores above the threshold; None where there are no scores."""
    values = np.asarray(scores, dtype=np.float64)
    return float((values > threshold).mean()) if values.size else None


def auroc_of(scores: npt.ArrayLike, anomalous: npt.ArrayLike) -> float | None:
    """`auroc` of (n,) scores and (n,) truth values that say which are anomalous."""
    values, bad = np.asarray(scores, dtype=np.float64), np.asarray(anomalous, dtype=bool)
    return auroc(values[~bad], values[bad])


def per_type(
    scores: npt.ArrayLike, kinds: list[str], good: str, threshold: float
) -> dict[str, dict[str, float | int | None]]:
    """For each type of defect: how many images, AUROC against all good ones, share rejected."""
    values, names = np.asarray(scores, dtype=np.float64), np.asarray(kinds)
    return {
        kind: {
            "n": int((names == kind).sum()),
            "auroc": auroc(values[names == good], values[names == kind]),
            "detection_rate": share_above(values[names == kind], threshold),
        }
        for kind in sorted(set(kinds) - {good})
    }
