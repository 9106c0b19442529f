"""Deals samples out to the splits: at random by the seed, near the wanted shares, no unit on two sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from algan_trainer.data.dataset import GOOD, Sample
from algan_trainer.data.found import Found, Shares

Unit = Sequence[Sample]


def deal(found: Found, units: Sequence[Unit], rng: np.random.Generator) -> dict[str, str]:
    """Decides the split of every sample.

    Units with a defective image are dealt first, by the shares of defective images, and take their good
    images along; the others then make up what is missing of the good images' shares. Images on their own
    get the shares exactly, rounded down but for the last split; units come within half a unit of them.

    Returns:
        Split by path; a split that came with the data is kept.
    """
    dealt = {s.path: s.split for s in found.samples if s.split}
    # What is given stays, even where that tears a unit: `refuse_torn` is there to say so.
    open_units = [left for unit in units if (left := [s for s in unit if not s.split])]
    kinds = sorted({_kind(unit) for unit in open_units}) if found.by_kind else [""]
    for kind in kinds:
        of_kind = [unit for unit in open_units if kind in ("", _kind(unit))]
        good = [unit for unit in of_kind if _kind(unit) == GOOD]
        bad = [unit for unit in of_kind if _kind(unit) != GOOD]
        if all(s.anomalous for unit in bad for s in unit):
            dealt |= _dealt(good, found.good, Counter(), rng) | _dealt(bad, found.anomalous, Counter(), rng)
            continue
        dealt |= _dealt(bad, found.anomalous, Counter(), rng)
        taken = Counter(dealt[s.path] for unit in bad for s in unit if not s.anomalous)
        dealt |= _dealt(good, found.good, taken, rng)
    return dealt


def hold_out(units: Sequence[Unit], fraction: float, rng: np.random.Generator) -> set[str]:
    """Paths of about `fraction` of the training images, one unit or more and never all, to calibrate with."""
    total = sum(len(unit) for unit in units)
    wanted = min(max(1, round(fraction * total)), total - 1)
    held: set[str] = set()
    for i in rng.permutation(len(units)):
        if len(held) + len(units[i]) <= wanted:  # a unit that would overshoot is passed over
            held |= {s.path for s in units[i]}
    if not held and len(units) > 1:
        held = {s.path for s in min(units, key=len)}
    return held


def _kind(unit: Unit) -> str:
    """A unit is defective as soon as one of its images is: such a part is never trained on."""
    return next((s.kind for s in unit if s.anomalous), GOOD)


def _dealt(
    units: Sequence[Unit], shares: Shares, taken: Counter[str], rng: np.random.Generator
) -> dict[str, str]:
    """Deals units in random order; `taken` counts the images of this sort that each split has already."""
    weights = [_weight(unit) for unit in units]
    order = rng.permutation(len(units))
    ends = _ends(sum(weights), shares, taken)
    dealt, position = {}, 0.0
    for i in order:
        # A unit goes to the split in which its middle falls.
        middle = position + weights[i] / 2
        split = list(shares)[min(int(np.searchsorted(ends, middle, side="right")), len(shares) - 1)]
        dealt.update({s.path: split for s in units[i]})
        position += weights[i]
    return dealt


def _weight(unit: Unit) -> int:
    """Defective images where there are any, for it is them whose shares are dealt; else good ones."""
    return sum(s.anomalous for s in unit) or len(unit)


def _ends(count: int, shares: Shares, taken: Counter[str]) -> npt.NDArray[np.float64]:
    """Where each split ends when `count` images are laid in a row; the last takes the rest."""
    if not taken:
        return np.floor(np.cumsum(list(shares.values())) * count + 1e-9)
    total = count + taken.total()
    missing = np.array([max(0.0, share * total - taken[split]) for split, share in shares.items()])
    ends: npt.NDArray[np.float64] = np.cumsum(missing) * (count / missing.sum() if missing.any() else 0.0)
    return ends
