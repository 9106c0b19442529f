"""From results to the numbers of a table: mean ± standard deviation of each place, beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from algan_trainer.study.designs import Entry
from algan_trainer.study.plan import Plan
from algan_trainer.study.records import Result


@dataclass(frozen=True)
class Place:
    """One place of the table.

    Attributes:
        entry: What stands there in the paper.
        mean: Over the categories, of the mean over the seeds; None without a result.
        std: Likewise of the sample standard deviation (n − 1) over the seeds, as the paper averages them;
            None with fewer than two seeds.
        done: Trainings behind it.
        planned: Trainings that shall stand behind it.
        values: By category and seed.
    """

    entry: Entry
    mean: float | None
    std: float | None
    done: int
    planned: int
    values: Mapping[tuple[str, int], float]

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's mean."""
        if self.mean is None or self.entry.reported is None:
            return None
        return self.mean - self.entry.reported.mean

    @property
    def complete(self) -> bool:
        """Every planned training is there."""
        return self.done == self.planned


@dataclass(frozen=True)
class Order:
    """Two places, and whether ours stand in the paper's order.

    Attributes:
        better: Head of the place that the paper has ahead.
        worse: Head of the other one.
        paper: By how much it is ahead there.
        ours: By how much it is ahead here; negative where the order is reversed.
        noise: Standard error of our difference; None where it cannot be had.
    """

    better: str
    worse: str
    paper: float
    ours: float
    noise: float | None

    @property
    def reproduced(self) -> bool:
        """Ours stand in the same order, by more than noise."""
        return self.ours > 0 and not self.undecided

    @property
    def undecided(self) -> bool:
        """Ours are equal, or differ by less than two standard errors."""
        return self.ours == 0 or (self.noise is not None and abs(self.ours) < 2 * self.noise)


def tabulate(plan: Plan, results: Mapping[str, Result]) -> list[Place]:
    """Fills in every place of the study's table.

    Args:
        plan: The study.
        results: By the cells' keys; those that failed or are missing are left out of the means.
    """
    return [_place(plan, entry, results) for entry in plan.design.entries]


def _place(plan: Plan, entry: Entry, results: Mapping[str, Result]) -> Place:
    cells = [cell for cell in plan.cells if cell.group == entry.group]
    values: dict[tuple[str, int], float] = {}
    for cell in cells:
        result = results.get(cell.key)
        value = result.metrics.get(entry.metric) if result and result.status == "done" else None
        if value is not None:
            values[cell.category, cell.seed] = value
    mean, std = spread(values)
    return Place(entry, mean, std, len(values), len(cells), values)


def spread(values: Mapping[tuple[str, int], float]) -> tuple[float | None, float | None]:
    """Mean over categories of the mean and of the standard deviation over seeds."""
    by_category: dict[str, list[float]] = {}
    for (category, _), value in values.items():
        by_category.setdefault(category, []).append(value)
    if not by_category:
        return None, None
    mean = float(np.mean([np.mean(of) for of in by_category.values()]))
    if any(len(of) < 2 for of in by_category.values()):
        return mean, None
    return mean, float(np.mean([np.std(of, ddof=1) for of in by_category.values()]))


def mean_over(places: Sequence[Place]) -> tuple[float | None, float | None]:
    """Mean of the places' means and standard deviations, over those that have one."""
    means = [place.mean for place in places if place.mean is not None]
    stds = [place.std for place in places if place.std is not None]
    every = len(stds) == len(means) > 0
    return (float(np.mean(means)) if means else None), (float(np.mean(stds)) if every else None)


def orders(places: Sequence[Place]) -> list[Order]:
    """Every pair of places that the paper puts in an order, and that has results here."""
    found = []
    for i, first in enumerate(places):
        for second in places[i + 1 :]:
            a, b = first.entry.reported, second.entry.reported
            if a is None or b is None or a.mean == b.mean or first.mean is None or second.mean is None:
                continue
            ahead, behind = (first, second) if a.mean > b.mean else (second, first)
            ours = (first.mean - second.mean) * (1.0 if ahead is first else -1.0)
            paper = abs(a.mean - b.mean)
            found.append(Order(head(ahead), head(behind), paper, ours, _noise(first, second)))
    return found


def head(place: Place) -> str:
    """How a place is called in a sentence."""
    entry = place.entry
    if not entry.column:
        return entry.row
    return entry.column if entry.row == "AUROC" else f"{entry.row}, {entry.column}"


def _noise(first: Place, second: Place) -> float | None:
    """Standard error of the difference of two means.

    Where both have the same categories and seeds, of the paired differences: two runs of one seed share their
    split, and what the split does to both is no noise between them.
    """
    shared = sorted(first.values.keys() & second.values.keys())
    if len(shared) == len(first.values) == len(second.values) and len(shared) > 1:
        differences = [first.values[key] - second.values[key] for key in shared]
        return float(np.std(differences, ddof=1)) / math.sqrt(len(shared))
    if len(first.values) < 2 or len(second.values) < 2:
        return None
    variances = [float(np.var(list(of.values.values()), ddof=1)) / len(of.values) for of in (first, second)]
    return math.sqrt(sum(variances))
