"""From a score to a verdict. Only a finite score can pass."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.calibration import Calibration, p_values
from algan_stream.types import Box, BoxVerdict, Frame, Outcome, Rule, VerdictKind

#: Which verdict stands for a frame with several boxes: the first of these that any box has.
_WORST_FIRST = (VerdictKind.REJECT, VerdictKind.UNKNOWN, VerdictKind.PASS)


class Decider:
    """Applies one calibration to logits.

    Args:
        calibration: The bundle's, or None: then every verdict is `unknown(not_calibrated)`.
    """

    def __init__(self, calibration: Calibration | None) -> None:
        self.threshold = calibration.threshold if calibration else None
        self._good = np.asarray(calibration.good_scores if calibration else (), np.float64)

    def decide(self, logits: npt.NDArray[np.float32], boxes: list[Box | None]) -> list[BoxVerdict]:
        """Turns (N,) logits into N verdicts; score = −logit (paper, Fig. 5)."""
        scores = -logits.astype(np.float64)
        p = p_values(self._good, scores) if self._good.size else np.full(scores.shape, np.nan)
        return [
            self._verdict(float(score), float(p_value), box)
            for score, p_value, box in zip(scores, p, boxes, strict=True)
        ]

    def fuse(
        self, verdicts: list[BoxVerdict], how: Literal["max", "mean"]
    ) -> tuple[VerdictKind, str, float | None]:
        """The verdict on a frame with these boxes, why, and the fused score where that decided.

        With `max` the worst box stands for the frame. With `mean` the mean of the scores is compared with the
        threshold; but a box that is unknown leaves its score out of account, so that the worst decides then.
        """
        scores = [v.score for v in verdicts if v.score is not None and v.verdict is not VerdictKind.UNKNOWN]
        if how == "mean" and self.threshold is not None and scores and len(scores) == len(verdicts):
            mean = math.fsum(scores) / len(scores)
            if mean > self.threshold:
                return VerdictKind.REJECT, "mean_score_above_threshold", mean
            return VerdictKind.PASS, "", mean
        return *worst(verdicts), None

    def _verdict(self, score: float, p_value: float, box: Box | None) -> BoxVerdict:
        if not math.isfinite(score):
            return unknown("score_not_finite", box)
        known_p = p_value if math.isfinite(p_value) else None
        if self.threshold is None:
            return BoxVerdict(
                box=box, verdict=VerdictKind.UNKNOWN, reason="not_calibrated", score=score, p_value=known_p
            )
        if score > self.threshold:
            return BoxVerdict(
                box=box,
                verdict=VerdictKind.REJECT,
                reason="score_above_threshold",
                score=score,
                p_value=known_p,
            )
        return BoxVerdict(box=box, verdict=VerdictKind.PASS, score=score, p_value=known_p)


def unknown(reason: str, box: Box | None = None) -> BoxVerdict:
    """A verdict that must never be taken for `pass`."""
    return BoxVerdict(box=box, verdict=VerdictKind.UNKNOWN, reason=reason)


def by_rule(rule: Rule, verdicts: list[BoxVerdict]) -> tuple[VerdictKind, str]:
    """The verdict on a frame with these boxes by a camera's rule, and why.

    - `reject` if enough boxes are rejected, whatever the others are; or all of them.
    - else `pass` if no more boxes are unknown than the rule tolerates, at least one passes, and the frame
      would not be rejected even if each of the unknown ones were.
    - else `unknown`, for the reason of the first box that is.
    """
    rejected = sum(verdict.verdict is VerdictKind.REJECT for verdict in verdicts)
    open_ones = [verdict for verdict in verdicts if verdict.verdict is VerdictKind.UNKNOWN]
    if not verdicts:
        return worst(verdicts)
    if rule.rejects(rejected, len(verdicts)) or rejected == len(verdicts):
        few = (rule.reject_boxes or 1) == 1 and rule.reject_share is None
        return VerdictKind.REJECT, worst(verdicts)[
            1
        ] if few else f"boxes_rejected: {rejected} of {len(verdicts)}"
    if open_ones and (
        not rule.tolerate_unknown >= len(open_ones) < len(verdicts) - rejected
        or rule.rejects(rejected + len(open_ones), len(verdicts))
    ):
        return VerdictKind.UNKNOWN, open_ones[0].reason
    return VerdictKind.PASS, ""


def named(frame: Frame, verdicts: list[BoxVerdict]) -> list[BoxVerdict]:
    """The same verdicts with the names and part numbers that the frame has for its boxes."""
    names, tracks = frame.box_names, frame.track_ids
    if frame.boxes is None or (names is None and tracks is None):
        return verdicts
    return [
        msgspec.structs.replace(
            verdict, name=names[i] if names else "", track_id=tracks[i] if tracks else None
        )
        for i, verdict in enumerate(verdicts)
    ]


def worst(verdicts: list[BoxVerdict]) -> tuple[VerdictKind, str]:
    """The verdict on a frame, and why: reject before unknown before pass; nothing inspected is unknown."""
    for kind in _WORST_FIRST:
        for verdict in verdicts:
            if verdict.verdict is kind:
                return kind, verdict.reason
    return VerdictKind.UNKNOWN, "no_boxes"


def in_time(frame: Frame, verdict: BoxVerdict, now_ns: int) -> tuple[BoxVerdict, Outcome]:
    """A score that came too late, or is none, does not count: the verdict becomes unknown."""
    if verdict.score is None:
        return verdict, Outcome.FAILED
    if frame.deadline_ns is not None and now_ns > frame.deadline_ns:
        late = BoxVerdict(
            box=verdict.box,
            verdict=VerdictKind.UNKNOWN,
            reason="late",
            score=verdict.score,
            p_value=verdict.p_value,
        )
        return late, Outcome.EXPIRED
    return verdict, Outcome.SCORED
