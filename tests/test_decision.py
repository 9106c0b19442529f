"""Only a finite score, up to the threshold, can pass."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algan_stream.calibration import with_raw_threshold
from algan_stream.decision import Decider, unknown, worst
from algan_stream.types import Box, BoxVerdict, VerdictKind

PASS, REJECT, UNKNOWN = VerdictKind.PASS, VerdictKind.REJECT, VerdictKind.UNKNOWN
_BOX: Box = (0.0, 1.0, 2.0, 3.0)


def _decide(*scores: float, threshold: float | None = 0.5) -> list[BoxVerdict]:
    decider = Decider(None if threshold is None else with_raw_threshold([-1.0, 0.0, 0.5], threshold))
    return decider.decide(-np.array(scores, np.float32), [_BOX] * len(scores))


def test_the_score_is_minus_the_logit_and_the_threshold_itself_passes() -> None:
    above = float(np.nextafter(np.float32(0.5), np.float32(1)))
    verdicts = _decide(-3.0, 0.5, above, 7.0)
    assert [v.verdict for v in verdicts] == [PASS, PASS, REJECT, REJECT]
    assert [v.reason for v in verdicts] == ["", "", "score_above_threshold", "score_above_threshold"]
    assert [v.score for v in verdicts] == [-3.0, 0.5, above, 7.0]
    assert [v.p_value for v in verdicts] == [1.0, 0.5, 0.25, 0.25]
    assert {v.box for v in verdicts} == {_BOX}


@pytest.mark.parametrize("threshold", [0.5, None])
@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_no_finite_score_no_verdict(score: float, threshold: float | None) -> None:
    (verdict,) = _decide(score, threshold=threshold)
    assert verdict == unknown("score_not_finite", _BOX)
    assert verdict.score is None


def test_a_nan_does_not_touch_its_neighbours() -> None:
    assert [v.verdict for v in _decide(0.0, np.nan, 1.0)] == [PASS, UNKNOWN, REJECT]


def test_without_calibration_every_verdict_is_unknown_but_keeps_its_score() -> None:
    for verdict in _decide(-5.0, 5.0, threshold=None):
        assert (verdict.verdict, verdict.reason, verdict.p_value) == (UNKNOWN, "not_calibrated", None)
        assert abs(verdict.score or 0) == 5.0


@given(scores=st.lists(st.floats(width=32), max_size=20), threshold=st.floats(-10, 10))
def test_pass_means_finite_and_up_to_the_threshold(scores: list[float], threshold: float) -> None:
    for score, verdict in zip(scores, _decide(*scores, threshold=threshold), strict=True):
        assert (verdict.verdict is PASS) == (np.isfinite(score) and score <= threshold)


def test_the_numbers_must_fit() -> None:
    with pytest.raises(ValueError, match="zip"):
        Decider(None).decide(np.zeros(2, np.float32), [None])


@pytest.mark.parametrize("kinds", list(itertools.product(VerdictKind, repeat=3)))
def test_the_worst_box_speaks_for_the_frame(kinds: tuple[VerdictKind, ...]) -> None:
    verdicts = [BoxVerdict(verdict=kind, reason=f"{kind.value} {i}") for i, kind in enumerate(kinds)]
    expected = next(kind for kind in (REJECT, UNKNOWN, PASS) if kind in kinds)
    assert worst(verdicts) == (expected, f"{expected.value} {kinds.index(expected)}")


def test_nothing_inspected_is_unknown() -> None:
    assert worst([]) == (UNKNOWN, "no_boxes")
