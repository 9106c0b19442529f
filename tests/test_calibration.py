"""P-values, thresholds and their promised false-reject rates, against naive counts and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algan_stream.calibration import calibrate, images_needed, p_values, with_raw_threshold
from algan_stream.errors import CalibrationError

#: Few values, so that ties are the rule.
_tied = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)


@given(good=_tied, scores=_tied)
def test_p_values_are_the_counted_ones_ties_included(good: list[float], scores: list[float]) -> None:
    expected = [(1 + sum(g >= s for g in good)) / (len(good) + 1) for s in scores]
    assert p_values(sorted(good), scores).tolist() == expected


def test_p_values_beyond_all_good_scores() -> None:
    assert p_values([0.0, 1.0, 2.0], [-9.0, 2.0, 2.5]).tolist() == [1.0, 0.5, 0.25]


@given(good=_tied, rate=st.floats(0.01, 0.99))
def test_reject_means_p_value_at_most_the_rate(good: list[float], rate: float) -> None:
    """The threshold and the p-value are two faces of one rule, or an operator could not trust either."""
    if len(good) < images_needed(rate):
        return
    made = calibrate(good, rate)
    for score in np.arange(-3.5, 4.0, 0.5):
        rejected = score > made.threshold
        small = p_values(made.good_scores, [score])[0] <= rate + 1e-12
        assert rejected <= small  # ties at the threshold pass: their p-value counts themselves as well
        if score not in good:
            assert rejected == small


@pytest.mark.parametrize(("n", "rate"), [(99, 0.05), (199, 0.01), (40, 0.1)])
def test_good_parts_are_rejected_as_often_as_promised(n: int, rate: float) -> None:
    rng = np.random.default_rng(7)
    rounds, fresh = 400, 500
    rates = np.empty(rounds)
    inside = 0
    for i in range(rounds):
        made = calibrate(rng.gumbel(size=n), rate)
        exact = 1.0 - math.exp(-math.exp(-made.threshold))  # true rate of this threshold: the Gumbel tail
        rates[i] = np.mean(rng.gumbel(size=fresh) > made.threshold)
        assert made.false_reject_rate_ci95 is not None
        inside += made.false_reject_rate_ci95[0] <= exact <= made.false_reject_rate_ci95[1]
    error = rates.std() / math.sqrt(rounds)
    assert rates.mean() <= rate + 4 * error
    assert rates.mean() >= rate - 1 / (n + 1) - 4 * error  # not by rejecting nothing at all
    assert abs(inside / rounds - 0.95) < 4 * math.sqrt(0.95 * 0.05 / rounds)


@pytest.mark.parametrize(
    ("n", "rate"), [(9, 0.1), (19, 0.05), (99, 0.01), (999, 0.001), (9999, 0.0001), (1, 0.5)]
)
def test_the_least_number_of_images_is_enough_and_one_less_is_not(n: int, rate: float) -> None:
    assert images_needed(rate) == n
    scores = np.arange(float(n))
    made = calibrate(scores, rate)
    assert made.threshold == n - 1
    with pytest.raises(CalibrationError, match=rf"at least {n} good images, got {n - 1}"):
        calibrate(scores[:-1], rate)


def test_one_in_ten_thousand_from_200_images_is_refused_with_what_would_do() -> None:
    with pytest.raises(CalibrationError) as caught:
        calibrate(np.linspace(0, 1, 200), 1e-4)
    assert "at least 9999 good images, got 200" in str(caught.value)
    assert "add 9799" in str(caught.value)
    assert f"{1 / 201:.4g} or more" in str(caught.value)


def test_the_order_of_scores_does_not_matter() -> None:
    scores = np.random.default_rng(1).normal(size=150)
    assert calibrate(scores, 0.02) == calibrate(scores[::-1], 0.02)
    assert list(calibrate(scores, 0.02).good_scores) == sorted(scores)


@pytest.mark.parametrize(("n", "rate"), [(99, 0.05), (250, 0.02), (20, 0.5), (2000, 0.001)])
def test_the_interval_is_the_beta_distributions(n: int, rate: float) -> None:
    made = calibrate(np.arange(float(n)), rate)
    k = round(made.threshold) + 1
    above = n + 1 - k
    x = np.linspace(0, 1, 2_000_001)[1:-1]
    log_density = (above - 1) * np.log(x) + (k - 1) * np.log1p(-x)
    density = np.exp(log_density - log_density.max())
    cdf = np.cumsum(density) / density.sum()
    expected = x[np.searchsorted(cdf, [0.025, 0.975])]
    assert made.false_reject_rate_ci95 == pytest.approx(expected, rel=1e-3, abs=2e-6)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(CalibrationError, match="above 0 and below 1"):
        calibrate([1.0, 2.0], rate)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_and_thresholds_must_be_finite(bad: float) -> None:
    with pytest.raises(CalibrationError, match="1 calibration scores are not finite"):
        calibrate([0.0, bad, 1.0], 0.5)
    with pytest.raises(CalibrationError, match="1 calibration scores are not finite"):
        with_raw_threshold([0.0, bad, 1.0], 0.5)
    with pytest.raises(CalibrationError, match="threshold: expected a finite number"):
        with_raw_threshold([0.0], bad)


def test_a_raw_threshold_is_taken_as_it_is() -> None:
    made = with_raw_threshold([2.0, 1.0], 1.5)
    assert (made.threshold, made.method, made.good_scores) == (1.5, "raw", (1.0, 2.0))
    assert made.false_reject_rate is None
    assert made.false_reject_rate_ci95 is None
