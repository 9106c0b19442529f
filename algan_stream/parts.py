"""One verdict for each part that is tracked over frames.

The boxes' stage says which part each box shows; the verdicts on those boxes come back later, out of order
and from other threads. A part is concluded once it has ended and each of its boxes has its verdict. Its
accounts are the ledger's, under the name `CAMERA.parts`: opened = concluded + in flight.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

from algan_stream.boxes.tracking import CameraTracker
from algan_stream.config import TrackConfig
from algan_stream.errors import PluginError
from algan_stream.ledger import Ledger
from algan_stream.types import Box, BoxVerdict, Frame, FrameVerdict, Outcome, PartTrack, VerdictKind

log = logging.getLogger(__name__)

#: What a tracked camera's name is followed by in the verdicts on its parts.
SUFFIX = ".parts"


@dataclass(eq=False)
class _Part:
    camera: str
    number: int
    config: TrackConfig
    entry: int
    first_frame_id: int
    side: bool | None  # of the line, where it was first
    last_frame_id: int = -1
    frames: int = 0
    gone: bool = False  # the tracker has lost it
    pending: int = 0
    ended: str = ""
    kinds: Counter[VerdictKind] = field(default_factory=Counter)
    scores: list[float] = field(default_factory=list)
    latest: FrameVerdict | None = None
    box: Box | None = None


class Parts:
    """The parts of all tracked cameras; thread-safe.

    Args:
        ledger: Where parts are accounted.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int], _Part] = {}
        self._trackers: dict[str, CameraTracker] = {}
        self._done: set[tuple[str, int]] = set()  # concluded, but still in view
        self._concluded: Counter[str] = Counter()

    def announce(self, frame: Frame, config: TrackConfig) -> list[FrameVerdict]:
        """Finds out which parts a frame shows; to be called in order, before the pipeline receives it.

        A tracker that fails makes the frame `unknown(tracking_failed)`; its camera's parts end then.

        Returns:
            Verdicts on parts that ended with this frame and wait for no other.
        """
        tracker = self._trackers.setdefault(frame.camera, CameraTracker(config, count()))
        try:
            ended = tracker.assign(frame)
        except Exception as error:
            log.exception("camera %s frame %d: tracking failed", frame.camera, frame.frame_id)
            frame.fault, frame.track_ids = f"tracking_failed: {error}"[:200], None
            ended = [(number, "lost") for number in tracker.stop()]
        with self._lock:
            for i, number in enumerate(frame.track_ids or ()):
                if number is not None and frame.boxes is not None:
                    self._see(frame, config, number, _beyond(frame.boxes[i].tolist(), config))
            for number, why in ended:
                self._end(frame.camera, number, why)
            return self._ready(frame.camera)

    def settle(self, said: FrameVerdict) -> list[FrameVerdict]:
        """Counts a frame's verdicts for its parts; returns those on parts that are concluded by it."""
        if said.part is not None or said.camera not in self._trackers:
            return []
        with self._lock:
            for box in said.boxes:
                part = self._open.get((said.camera, -1 if box.track_id is None else box.track_id))
                if part is None or said.frame_id > part.last_frame_id:
                    continue
                part.pending -= 1
                part.kinds[box.verdict] += 1
                if box.verdict is not VerdictKind.UNKNOWN and box.score is not None:
                    part.scores.append(box.score)
                if part.latest is None or said.frame_id >= part.latest.frame_id:
                    part.latest, part.box = said, box.box
            return self._ready(said.camera)

    def finish(self, cameras: Iterable[str] | None = None) -> list[FrameVerdict]:
        """Ends the parts of cameras, by default of all; returns verdicts on those that wait for no frame."""
        with self._lock:
            chosen = list(self._trackers) if cameras is None else [c for c in cameras if c in self._trackers]
            for camera in chosen:
                self._trackers[camera].stop()
                for part in [p for p in self._open.values() if p.camera == camera]:
                    self._end(camera, part.number, "end")
                self._done = {key for key in self._done if key[0] != camera}
            return [verdict for camera in chosen for verdict in self._ready(camera)]

    def _see(self, frame: Frame, config: TrackConfig, number: int, side: bool | None) -> None:
        key = (frame.camera, number)
        if key in self._done:
            return
        part = self._open.get(key)
        if part is None:
            entry = self._ledger.open(frame.camera + SUFFIX)
            part = self._open[key] = _Part(frame.camera, number, config, entry, frame.frame_id, side)
        if part.ended:
            return
        part.pending += 1
        part.frames += 1
        part.last_frame_id = frame.frame_id
        if config.conclude == "line" and side is not part.side:
            part.ended = "line"
        elif config.conclude == "frames" and part.frames >= config.frames:
            part.ended = "frames"

    def _end(self, camera: str, number: int, why: str) -> None:
        self._done.discard((camera, number))
        part = self._open.get((camera, number))
        if part is not None:
            part.gone, part.ended = True, part.ended or why

    def _ready(self, camera: str) -> list[FrameVerdict]:
        ready = [p for p in self._open.values() if p.camera == camera and p.ended and p.pending == 0]
        return [self._conclude(part) for part in ready]

    def _conclude(self, part: _Part) -> FrameVerdict:
        del self._open[part.camera, part.number]
        if not part.gone:  # it will still be seen, and must not be opened again
            self._done.add((part.camera, part.number))
        assert part.latest is not None  # a part is opened by a box, and each box has a verdict
        kind, reason, score = judge(part.config, part.kinds, part.scores, part.latest.threshold)
        name = part.camera + SUFFIX
        outcome = Outcome.FAILED if kind is VerdictKind.UNKNOWN else Outcome.SCORED
        self._ledger.close(name, part.entry, outcome, reason, said=(kind, reason))
        self._concluded[part.camera] += 1
        return FrameVerdict(
            camera=name,
            frame_id=self._concluded[part.camera] - 1,
            part_id=part.latest.part_id,
            verdict=kind,
            reason=reason,
            boxes=(BoxVerdict(box=part.box, verdict=kind, reason=reason, score=score, track_id=part.number),),
            outcome=outcome,
            captured_ns=part.latest.captured_ns,
            threshold=part.latest.threshold,
            model=part.latest.model,
            engine=part.latest.engine,
            part=PartTrack(
                camera=part.camera,
                track_id=part.number,
                ended=part.ended,
                first_frame_id=part.first_frame_id,
                last_frame_id=part.last_frame_id,
                passed=part.kinds[VerdictKind.PASS],
                rejected=part.kinds[VerdictKind.REJECT],
                unknown=part.kinds[VerdictKind.UNKNOWN],
            ),
        )


def judge(
    config: TrackConfig, kinds: Counter[VerdictKind], scores: list[float], threshold: float | None
) -> tuple[VerdictKind, str, float | None]:
    """The verdict on a part, why, and the score that stands for it.

    - `max` and `count` reject as soon as enough frames do, whatever the others are.
    - else it is `unknown` if fewer than `min_frames` frames have a verdict, or more than the share
      `max_unknown` of those in which it was found have none.
    - else `reject` if all frames with a verdict reject; with `mean` if the mean score is above the threshold;
      with `vote` if half of the frames do.

    Args:
        config: Section `track`.
        kinds: Verdicts on its boxes.
        scores: Of those that are not unknown.
        threshold: Scores above it are rejected.
    """
    scored, rejected = kinds[VerdictKind.PASS] + kinds[VerdictKind.REJECT], kinds[VerdictKind.REJECT]
    found = scored + kinds[VerdictKind.UNKNOWN]
    mean = math.fsum(scores) / len(scores) if scores else None
    score = max(scores, default=None) if config.verdict == "max" else mean
    rejecting = {"max": 1, "count": config.reject_frames}.get(config.verdict)
    if rejecting is not None and rejected >= rejecting:
        return VerdictKind.REJECT, f"frames_rejected: {rejected} of {found}", score
    if scored < config.min_frames:
        return VerdictKind.UNKNOWN, f"too_few_frames: {scored} of {config.min_frames} needed", score
    if found - scored > config.max_unknown * found:
        return VerdictKind.UNKNOWN, f"too_many_unknown: {found - scored} of {found}", score
    # Whatever the rule, a part passes only by frames that passed.
    if scored == rejected or (config.verdict == "vote" and 2 * rejected >= scored):
        return VerdictKind.REJECT, f"frames_rejected: {rejected} of {found}", score
    above = mean is None or threshold is None or mean > threshold  # both are there, as frames were scored
    if config.verdict == "mean" and above:
        return VerdictKind.REJECT, "mean_score_above_threshold", score
    return VerdictKind.PASS, "", score


def _beyond(box: list[float], config: TrackConfig) -> bool | None:
    """On which side of the line a box's centre is."""
    if config.at_px is None:
        return None
    axis = 0 if config.axis == "x" else 1
    return (box[axis] + box[axis + 2]) / 2 >= config.at_px


def open_parts(ledger: Ledger) -> Parts:
    """Makes the book of parts.

    Raises:
        PluginError: norfair, which tracks, is not installed.
    """
    try:
        import norfair  # noqa: F401
    except ModuleNotFoundError as error:
        raise PluginError(
            "cameras: `track` needs the Python package norfair; pip install 'algan-stream[track]'"
        ) from error
    return Parts(ledger)
