from __future__ import annotations

import numpy as np
import pytest

from algan_trainer.evaluate import auroc, auroc_of, per_type, share_above


def brute_force(good: np.ndarray, bad: np.ndarray) -> float:
    return float(np.mean([(b > g) + 0.5 * (b == g) for b in bad for g in good]))


@pytest.mark.parametrize("seed", range(20))
def test_auroc_with_ties_equals_counting_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    good = rng.integers(0, 6, rng.integers(1, 30)).astype(float)
    bad = rng.integers(2, 8, rng.integers(1, 30)).astype(float)
    assert auroc(good, bad) == pytest.approx(brute_force(good, bad), abs=1e-12)


def test_auroc_of_constant_scores_is_a_half() -> None:
    assert auroc([1.0, 1.0], [1.0]) == 0.5


def test_auroc_needs_both_kinds() -> None:
    assert auroc([], [1.0]) is None
    assert auroc([1.0], []) is None
    assert auroc_of([1.0, 2.0], [False, False]) is None


def test_auroc_of_perfect_scores() -> None:
    assert auroc_of([3.0, 1.0, 2.0], [True, False, False]) == 1.0


def test_share_above_is_strict() -> None:
    assert share_above([1.0, 2.0, 3.0, 4.0], 2.0) == 0.5
    assert share_above([], 2.0) is None


def test_per_type_sets_each_type_against_all_good_ones() -> None:
    found = per_type([0.0, 1.0, 2.0, 0.5], ["good", "good", "hole", "dent"], "good", 0.75)
    assert found == {
        "dent": {"n": 1, "auroc": 0.5, "detection_rate": 0.0},
        "hole": {"n": 1, "auroc": 1.0, "detection_rate": 1.0},
    }
