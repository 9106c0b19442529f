"""From scores to the report's numbers. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from algan_trainer.data import GOOD
from algan_trainer.evaluate import auroc
from algan_trainer.report.content import (
    Counts,
    Histogram,
    OperatingPoint,
    Rate,
    Result,
    Roc,
    TypeResult,
)

Floats = npt.NDArray[np.float64]
#: Bins of a histogram; one or two more where the threshold is made to lie between two.
BINS = 36
#: Corners of the ROC curve that are kept: more cannot be seen.
MOST_CORNERS = 300
#: 97.5 % quantile of the normal distribution.
_Z95 = 1.959964
#: False-reject rates that the ROC table names.
_RATES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


def rate(count: int, of: int) -> Rate | None:
    """A share with its 95 % interval by Wilson, sound for few images and for 0 of n; None of 0 images."""
    if not of:
        return None
    p, z2 = count / of, _Z95**2
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z95 / (1 + z2 / of) * math.sqrt(p * (1 - p) / of + z2 / (4 * of**2))
    low = 0.0 if count == 0 else middle - half
    high = 1.0 if count == of else middle + half
    return Rate(count=count, of=of, share=p, ci95=(low, high))


def result(part: str, scores: Floats, kinds: Sequence[str], threshold: float | None) -> Result:
    """Judges one part of the data.

    Args:
        part: Its name.
        scores: (n,) finite scores.
        kinds: (n,) `good` or the type of defect.
        threshold: Scores above it are rejected; None: not calibrated.
    """
    names = np.asarray(kinds, dtype=object)
    good, bad = scores[names == GOOD], scores[names != GOOD]
    types = []
    for kind in sorted(set(kinds) - {GOOD}):
        of_kind = scores[names == kind]
        if (detected := _above(of_kind, threshold)) is not None:
            types.append(TypeResult(kind=kind, auroc=auroc(good, of_kind), detected=detected))
    return Result(
        part=part,
        counts=Counts(good=good.size, anomalous=bad.size),
        auroc=auroc(good, bad),
        false_rejects=_above(good, threshold),
        detected=_above(bad, threshold),
        types=tuple(types),
    )


def histogram(part: str, good: Floats, anomalous: Floats, threshold: float | None) -> Histogram | None:
    """Counts scores by bin; None without any score.

    The threshold lies between two bins wherever it lies among the scores, and a bin holds its upper edge: the
    bars to its right are exactly the rejected images.
    """
    scores = np.concatenate((good, anomalous))
    if not scores.size:
        return None
    low, high = float(scores.min()), float(scores.max())
    if not high - low > 1e-9 * max(abs(low), abs(high), 1e-3):
        low, high = low - 0.5, high + 0.5
    step = (high - low) / BINS
    origin = threshold if threshold is not None and low <= threshold <= high else low
    first = math.ceil((low - origin) / step) - 1  # one below: the lowest score lies inside, not on the edge
    last = math.ceil((high - origin) / step)
    edges = origin + step * np.arange(first, last + 1)
    edges[0], edges[-1] = min(edges[0], np.nextafter(low, -math.inf)), max(edges[-1], high)
    counts = [np.bincount(np.searchsorted(edges, s) - 1, minlength=last - first) for s in (good, anomalous)]
    return Histogram(
        part=part,
        edges=tuple(edges.tolist()),
        good=tuple(counts[0].tolist()),
        anomalous=tuple(counts[1].tolist()),
    )


def roc(part: str, good: Floats, anomalous: Floats) -> Roc | None:
    """The ROC curve; its area is the AUROC, as equal scores of both kinds make a slope. None without both."""
    if not good.size or not anomalous.size:
        return None
    values = np.unique(np.concatenate((good, anomalous)))[::-1]
    x, y = (np.concatenate(([0.0], _at_least(s, values))) for s in (good, anomalous))
    # A point between two others on one straight line says nothing.
    turns = np.ones(len(x), dtype=bool)
    turns[1:-1] = np.abs(np.diff(x)[1:] * np.diff(y)[:-1] - np.diff(x)[:-1] * np.diff(y)[1:]) > 1e-15
    x, y = x[turns], y[turns]
    if len(x) > MOST_CORNERS:
        kept = np.linspace(0, len(x) - 1, MOST_CORNERS).round().astype(np.intp)
        x, y = x[kept], y[kept]
    return Roc(
        part=part,
        false_rejects=tuple(x.tolist()),
        detected=tuple(y.tolist()),
        points=_operating_points(good, anomalous),
    )


def hardest(scores: Floats, kinds: Sequence[str], most: int) -> tuple[list[int], list[int]]:
    """Rows of the good images with the highest scores, and of the anomalous ones with the lowest."""
    order = np.argsort(scores, kind="stable").tolist()
    good = [i for i in reversed(order) if kinds[i] == GOOD][:most]
    return good, [i for i in order if kinds[i] != GOOD][:most]


def _above(scores: Floats, threshold: float | None) -> Rate | None:
    return None if threshold is None else rate(int((scores > threshold).sum()), scores.size)


def _at_least(scores: Floats, values: Floats) -> Floats:
    """Share of the scores that are at least each of the values."""
    return 1.0 - np.searchsorted(np.sort(scores), values, side="left") / scores.size


def _operating_points(good: Floats, anomalous: Floats) -> tuple[OperatingPoint, ...]:
    """The lowest threshold that rejects no more than each of `_RATES` of these good images."""
    ascending, points = np.sort(good), []
    for wanted in _RATES:
        allowed = math.floor(wanted * good.size + 1e-9)
        if wanted and not allowed:
            continue  # too few good images to tell this rate from none
        threshold = float(ascending[good.size - 1 - allowed])
        points.append(
            OperatingPoint(
                threshold=threshold,
                false_rejects=float((good > threshold).mean()),
                detected=float((anomalous > threshold).mean()),
            )
        )
    return tuple(points)
