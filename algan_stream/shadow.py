"""A second model scores a share of the frames beside the one that serves, and nobody waits for it."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np

from algan_stream.batcher import targets_of
from algan_stream.errors import AlganError
from algan_stream.model import Model
from algan_stream.pipeline import Pipeline
from algan_stream.types import BoxVerdict, Frame, FrameVerdict, Outcome

log = logging.getLogger(__name__)

#: Most sampled frames in memory at the same time.
CAPACITY = 16
#: How long a sample waits for a moment in which no frame of the line does.
_PATIENCE_S = 5.0
_GLANCE_S = 0.002


class ShadowReport(msgspec.Struct, kw_only=True):
    """What the comparison has shown so far.

    Attributes:
        state: `loading`, `running`, `refused`, or `off`.
        told: Why it was refused.
        exit_code: Of that error; 0 for none.
        bundle: Path of the shadow's bundle.
        shadow: The shadow, in words.
        served: What it is compared with, in words.
        share: Of frames that are sampled.
        frames: Frames that both have scored.
        boxes: Boxes on them; a whole frame counts as one.
        dropped: Samples given up, so that no frame of the line had to wait.
        failed: Samples that the shadow could not score.
        unscored: Samples without a score in time from the model that serves.
        other_model: Samples that another model than `served` has judged.
        verdicts: Frames by `served → shadow` verdict: `pass → reject` and so on.
        box_flips: Boxes with different verdicts.
        score_difference_mean: Of shadow minus served, over boxes.
        score_difference_largest: Largest absolute one.
        p_value_difference_mean: Mean absolute difference of p-values; comparable between models.
        copy_ms: Mean time that a source spent on copying a sampled frame.
        shadow_ms: Mean time that the shadow took for one.
    """

    state: Literal["loading", "running", "refused", "off"] = "off"
    told: str = ""
    exit_code: int = 0
    bundle: str = ""
    shadow: str = ""
    served: str = ""
    share: float = 0.0
    frames: int = 0
    boxes: int = 0
    dropped: int = 0
    failed: int = 0
    unscored: int = 0
    other_model: int = 0
    verdicts: dict[str, int] = {}
    box_flips: int = 0
    score_difference_mean: float = 0.0
    score_difference_largest: float = 0.0
    p_value_difference_mean: float | None = None
    copy_ms: float = 0.0
    shadow_ms: float = 0.0


class Shadow:
    """Taps a pipeline's frames, and scores samples of them in a thread of its own.

    A sampled frame is copied by its source's thread, because its memory is the source's again once the
    verdict is out. It is scored when that verdict is known and no frame of the line waits.

    Args:
        pipeline: Whose frames.
        model: The shadow; closed by `close`.
        share: Of frames, above 0 and up to 1.
    """

    def __init__(self, pipeline: Pipeline, model: Model, share: float) -> None:
        self._pipeline, self._model, self._share = pipeline, model, share
        self._served = pipeline.model
        self._random = random.Random()
        self._lock = threading.Lock()
        self._held = 0
        self._samples: queue.SimpleQueue[tuple[Frame, FrameVerdict] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._verdicts: Counter[str] = Counter()
        self._differences, self._p_differences, self._p_count = 0.0, 0.0, 0
        self._copied, self._copy_ns, self._shadow_ns = 0, 0, 0
        self._report = ShadowReport(
            state="running",
            bundle=str(model.bundle.path),
            shadow=str(model),
            served=str(self._served),
            share=share,
        )
        self._thread = threading.Thread(target=self._score_all, name="shadow", daemon=True)
        self._thread.start()
        pipeline.tap = self.offer

    def offer(self, frame: Frame) -> None:
        """Samples a frame, or not; called by its source's thread before it is queued."""
        try:
            self._sample(frame)
        except MemoryError:  # the line's own frames come first
            self._count("dropped")

    def _sample(self, frame: Frame) -> None:
        if self._random.random() >= self._share:
            return
        with self._lock:
            if self._held >= CAPACITY or self._closing.is_set():
                self._report.dropped += 1
                return
        began = time.monotonic_ns()
        sample = replace(
            frame,
            image=frame.image.copy(),
            intact=None,
            boxes=None if frame.boxes is None else frame.boxes.copy(),
            vector=None if frame.vector is None else frame.vector.copy(),
            reply=None,
        )
        reply = frame.reply

        def told(verdict: FrameVerdict) -> None:
            self._samples.put((sample, verdict))
            if reply is not None:
                reply(verdict)

        frame.reply = told
        with self._lock:
            self._held += 1
            self._copied += 1
            self._copy_ns += time.monotonic_ns() - began

    def report(self) -> ShadowReport:
        """What it has seen so far."""
        with self._lock:
            seen = self._report
            return msgspec.structs.replace(
                seen,
                verdicts=dict(sorted(self._verdicts.items())),
                score_difference_mean=self._differences / max(1, seen.boxes),
                p_value_difference_mean=self._p_differences / self._p_count if self._p_count else None,
                copy_ms=self._copy_ns / 1e6 / max(1, self._copied),
                shadow_ms=self._shadow_ns / 1e6 / max(1, seen.frames),
            )

    def close(self) -> None:
        """Ends it; frames that are still sampled go on without it."""
        self._pipeline.tap = None
        self._closing.set()
        self._samples.put(None)
        self._thread.join()
        self._model.engine.close()

    def _score_all(self) -> None:
        while (item := self._samples.get()) is not None and not self._closing.is_set():
            try:
                self._compare(*item)
            except AlganError as error:
                log.warning("the shadow cannot score a frame of camera %s: %s", item[0].camera, error)
                self._count("failed")
            except Exception:
                log.exception("the shadow failed on a frame of camera %s", item[0].camera)
                self._count("failed")
            with self._lock:
                self._held -= 1

    def _compare(self, sample: Frame, said: FrameVerdict) -> None:
        served = self._served
        if said.outcome is not Outcome.SCORED:
            self._count("unscored")
        elif (said.model, said.threshold, said.engine) != (served.name, served.threshold, served.engine_name):
            self._count("other_model")
        elif not self._idle_moment():
            self._count("dropped")
        else:
            began = time.monotonic_ns()
            found = score_frame(self._model, sample)
            kind, _, _ = self._model.decider.fuse(found, sample.fuse)
            self._note(said, found, f"{said.verdict.value} → {kind.value}", time.monotonic_ns() - began)

    def _note(self, said: FrameVerdict, found: list[BoxVerdict], verdicts: str, took_ns: int) -> None:
        with self._lock:
            report = self._report
            report.frames += 1
            self._shadow_ns += took_ns
            self._verdicts[verdicts] += 1
            for old, new in zip(said.boxes, found, strict=True):
                report.boxes += 1
                report.box_flips += old.verdict is not new.verdict
                if old.score is not None and new.score is not None:
                    difference = new.score - old.score
                    self._differences += difference
                    report.score_difference_largest = max(report.score_difference_largest, abs(difference))
                if old.p_value is not None and new.p_value is not None:
                    self._p_differences += abs(new.p_value - old.p_value)
                    self._p_count += 1

    def _idle_moment(self) -> bool:
        """Waits until no frame of the line waits; returns whether there was such a moment."""
        give_up = time.monotonic() + _PATIENCE_S
        while any(self._pipeline.queue_depths().values()):
            if time.monotonic() > give_up or self._closing.wait(_GLANCE_S):
                return False
        return True

    def _count(self, what: Literal["dropped", "failed", "unscored", "other_model"]) -> None:
        with self._lock:
            setattr(self._report, what, getattr(self._report, what) + 1)


def score_frame(model: Model, frame: Frame) -> list[BoxVerdict]:
    """Scores one frame apart from any pipeline: one verdict for each box, or one for the whole.

    Raises:
        AlganError: It cannot be scored.
    """
    engine, targets = model.engine, targets_of(frame)
    parts = []
    for start in range(0, len(targets), engine.max_batch):
        chunk = slice(start, start + engine.max_batch)
        slot = engine.acquire(engine.patience_s)
        if slot is None:
            raise AlganError(f"{engine.identity}: no slot became free within {engine.patience_s:g} s")
        try:
            boxes = None if frame.boxes is None else frame.boxes[chunk]
            engine.write(slot, frame, boxes=boxes, first_slot=0)
        except BaseException:
            engine.give_back(slot)
            raise
        engine.submit(slot, len(targets[chunk]))
        parts.append(engine.collect(slot))
    return model.decider.decide(np.concatenate(parts), targets)
