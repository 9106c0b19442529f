"""Scores an archive again: the same scores by the same model, or what another model would have said."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

from algan_stream import archive
from algan_stream.archive import Entry
from algan_stream.boxes.base import usable_boxes
from algan_stream.bundle import Bundle
from algan_stream.decision import Decider
from algan_stream.engines.base import Engine
from algan_stream.errors import BundleError, InputError
from algan_stream.inputs import misfit, write_inputs
from algan_stream.preprocess import empty_slots
from algan_stream.types import BoxVerdict, Frame, FrameVerdict, InputSpec, VerdictKind


class Status(str, Enum):
    """What became of an entry."""

    SAME = "same"
    CHANGED = "changed"
    UNSCORED = "unscored"
    DAMAGED = "damaged"


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """One entry, scored again.

    Attributes:
        entry: Path of the entry's file, below the archive.
        status: `same` or `changed`: the verdict; `unscored`: no score was recorded, so there is nothing to
            compare; `damaged`: it cannot be scored, and `problem` says why.
        camera: Of the verdict, as are `frame_id` and `part_id`.
        was: The recorded verdict, and why.
        now: The verdict by this engine and bundle, and why.
        was_score: The recorded score of the box in which they differ most; of several equal ones, the first.
        now_score: The same box's score now.
        max_difference: Largest difference of two scores of a box.
        lossy: The pixels are not those that were scored; the difference proves nothing.
        same_model: It was this bundle's model that gave the recorded verdict.
        same_threshold: It was given by the threshold that this bundle has.
        recorded_by: Model, engine and threshold of the recorded verdict.
    """

    entry: str
    status: Status
    problem: str = ""
    camera: str = ""
    frame_id: int = -1
    part_id: str = ""
    was: tuple[VerdictKind, str] | None = None
    now: tuple[VerdictKind, str] | None = None
    was_score: float | None = None
    now_score: float | None = None
    max_difference: float | None = None
    lossy: bool = False
    same_model: bool = False
    same_threshold: bool = False
    recorded_by: tuple[str, str, float | None] = ("", "", None)


class Judge:
    """A bundle and its gated engine.

    Args:
        bundle: Gives input spec and calibration.
        engine: Has passed the golden gate.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.model = bundle.model_sha256[:12]
        self.bundle, self.engine = bundle, engine
        self.tolerance = bundle.manifest.tolerance[engine.identity.precision]
        self._spec = bundle.manifest.spec
        self._decider = Decider(bundle.manifest.calibration)
        self.threshold = self._decider.threshold

    def judged(
        self, frame: Frame, recorded: FrameVerdict
    ) -> tuple[list[BoxVerdict], tuple[VerdictKind, str]]:
        """Scores again what has a recorded score.

        What has none stays as it was: nobody knows whether it would have come in time.

        Raises:
            InputError: Frame or box cannot be an input of this model.
        """
        if problem := misfit(frame, self._spec):
            raise InputError(problem)
        scored = [i for i, box in enumerate(recorded.boxes) if box.score is not None]
        boxes = [recorded.boxes[i].box for i in scored]
        whole = boxes == [None]
        rows = None if whole else np.asarray(boxes, np.float32).reshape(-1, 4)
        if (
            rows is not None
            and isinstance(self._spec, InputSpec)
            and not usable_boxes(rows, frame.image, frame.pixel_format).all()
        ):
            raise InputError("a box that has a score lies outside of the image")
        inputs = empty_slots(len(scored), self._spec)
        write_inputs(inputs, frame, self._spec, boxes=rows, first_slot=0)
        verdicts = list(recorded.boxes)
        for i, verdict in zip(scored, self._decider.decide(self.engine.infer(inputs), boxes), strict=True):
            late = recorded.boxes[i].reason == "late"
            verdicts[i] = _as_late(verdict) if late else verdict
        kind, reason, _ = self._decider.fuse(verdicts, frame.fuse)
        return verdicts, (kind, reason)


def replay(folder: Path, judge_of: Callable[[Entry], Judge]) -> Iterator[Replayed]:
    """Scores every entry of an archive again, oldest first.

    Args:
        folder: The archive; may be one that a service is writing.
        judge_of: Who is to judge an entry.

    Raises:
        InputError: The folder is no archive.
        AlganError: What `judge_of` raises, but for InputError and BundleError.
    """
    for path in archive.entries(folder):
        name = path.relative_to(folder).as_posix()
        entry: Entry | None = None
        try:
            entry = archive.read_entry(path)
            yield _replayed(path, name, entry, judge_of)
        except (InputError, BundleError) as error:
            if not path.exists():
                continue  # the service that writes here has let it go meanwhile
            about = {} if entry is None else _about(entry.verdict)
            yield Replayed(entry=name, status=Status.DAMAGED, problem=str(error), **about)  # type: ignore[arg-type]


def _replayed(path: Path, name: str, entry: Entry, judge_of: Callable[[Entry], Judge]) -> Replayed:
    recorded, about = entry.verdict, _about(entry.verdict)
    if entry.pixels is None or all(box.score is None for box in recorded.boxes):
        return Replayed(entry=name, status=Status.UNSCORED, problem=recorded.reason, **about)  # type: ignore[arg-type]
    judge = judge_of(entry)
    verdicts, now = judge.judged(_frame(path, entry, entry.pixels), recorded)
    pairs = [
        (was.score, new.score if new.score is not None else math.nan)
        for was, new in zip(recorded.boxes, verdicts, strict=True)
        if was.score is not None
    ]
    was_score, now_score = max(pairs, key=_distance)
    return Replayed(
        entry=name,
        status=Status.SAME if now[0] is recorded.verdict else Status.CHANGED,
        now=now,
        was_score=was_score,
        now_score=now_score if math.isfinite(now_score) else None,
        max_difference=_distance((was_score, now_score)),
        lossy=entry.pixels.lossy,
        same_model=judge.model == recorded.model,
        same_threshold=judge.threshold == recorded.threshold,
        **about,  # type: ignore[arg-type]
    )


def _frame(path: Path, entry: Entry, pixels: archive.Pixels) -> Frame:
    array = archive.read_pixels(path, pixels)
    vector = None if pixels.pixel_format else array
    return Frame(
        camera=entry.verdict.camera,
        frame_id=entry.verdict.frame_id,
        image=np.zeros((0, 0), np.uint8) if vector is not None else array,
        pixel_format=cast(Any, pixels.pixel_format or "grey8"),  # as it came from a frame
        captured_ns=entry.verdict.captured_ns,
        fuse=entry.fuse,
        vector=vector,
    )


def _as_late(verdict: BoxVerdict) -> BoxVerdict:
    return msgspec.structs.replace(verdict, verdict=VerdictKind.UNKNOWN, reason="late")


def _distance(pair: tuple[float, float]) -> float:
    apart = abs(pair[0] - pair[1])
    return apart if math.isfinite(apart) else math.inf


def _about(verdict: FrameVerdict) -> dict[str, object]:
    return {
        "camera": verdict.camera,
        "frame_id": verdict.frame_id,
        "part_id": verdict.part_id,
        "was": (verdict.verdict, verdict.reason),
        "recorded_by": (verdict.model, verdict.engine, verdict.threshold),
    }


class Summary(msgspec.Struct, kw_only=True):
    """What a replay came to.

    Attributes:
        entries: All of them.
        compared: Those with pixels and a recorded score.
        identical: Of these, those whose scores are the same to the last bit.
        changed: Of these, those with another verdict.
        beyond: Of these, those whose scores differ by more than is allowed; only where the same model scored
            the very same pixels.
        unscored: Had no score, such as dropped frames.
        damaged: Cannot be scored.
        lossy: Compared by other pixels than those that were scored.
        other_model: Compared, but recorded by another model.
        other_threshold: Compared, but judged by another threshold.
        max_difference: Largest difference of two scores by the same model, of the very same pixels.
        max_difference_others: Of all other scores.
    """

    entries: int = 0
    compared: int = 0
    identical: int = 0
    changed: int = 0
    beyond: int = 0
    unscored: int = 0
    damaged: int = 0
    lossy: int = 0
    other_model: int = 0
    other_threshold: int = 0
    max_difference: float | None = None
    max_difference_others: float | None = None

    def add(self, one: Replayed, tolerance: float) -> None:
        """Counts one; `tolerance` is the largest difference allowed."""
        self.entries += 1
        self.unscored += one.status is Status.UNSCORED
        self.damaged += one.status is Status.DAMAGED
        if one.max_difference is None:
            return
        self.compared += 1
        self.changed += one.status is Status.CHANGED
        self.identical += one.max_difference == 0.0
        self.lossy += one.lossy
        self.other_model += not one.same_model
        self.other_threshold += not one.same_threshold
        if one.same_model and not one.lossy:
            self.beyond += not one.max_difference <= tolerance
            self.max_difference = max(self.max_difference or 0.0, one.max_difference)
        else:
            self.max_difference_others = max(self.max_difference_others or 0.0, one.max_difference)

    @property
    def proven(self) -> bool:
        """Whether every recorded verdict was given again, and something was."""
        return self.compared > 0 and not (self.changed or self.beyond or self.damaged)


def worst_first(changed: Iterable[Replayed]) -> list[Replayed]:
    """Changed verdicts, those first that matter most: a reject that now passes, then by their difference."""

    def urgency(one: Replayed) -> tuple[bool, float]:
        passes_now = one.now is not None and one.now[0] is VerdictKind.PASS
        return not passes_now, -(one.max_difference or 0.0)

    return sorted(changed, key=urgency)
