"""Fills the engine's batch slots in place, and says when a batch must go."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.boxes.base import usable_boxes
from algan_stream.engines.base import Engine, Slot
from algan_stream.errors import EngineError, InputError
from algan_stream.model import Model
from algan_stream.types import Box, BoxVerdict, Frame, Outcome

log = logging.getLogger(__name__)

#: How often a wait for a slot looks whether there is still use in it.
_GLANCE_S = 0.2
#: Batches whose times tell what the engine can do at best.
_LATELY = 16


class BatchConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `batch` of a line.

    Attributes:
        max_wait_ms: Longest that a batch stays open for more images while the engine is busy.
        wait_for_full: Also wait while the engine is idle: fewer, fuller batches, at the price of latency.
        deadline_margin_ms: A batch leaves this much before its oldest frame's deadline would be missed.
    """

    max_wait_ms: float = 5.0
    wait_for_full: bool = False
    deadline_margin_ms: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.max_wait_ms <= 60_000:
            raise ValueError(f"max_wait_ms: expected 0 to 60000, got {self.max_wait_ms}")
        if not 0 <= self.deadline_margin_ms <= 60_000:
            raise ValueError(f"deadline_margin_ms: expected 0 to 60000, got {self.deadline_margin_ms}")


@dataclass(eq=False, slots=True)
class Job:
    """A frame in work.

    Attributes:
        frame: The frame.
        targets: The boxes to score, or [None] for the whole frame.
        taken_ns: When it left the queue.
        model: What scores it, all its boxes; its verdict names it.
        verdicts: One for each target, as they come in; written by the verdict thread alone.
        outcomes: The ledger's outcome of each target.
        open_targets: Targets without a verdict yet.
        preprocess_ns: Time spent in `_core`.
        infer_ns: Longest time of a batch it was part of, from submission to logits.
    """

    frame: Frame
    targets: list[Box | None]
    taken_ns: int
    model: Model
    verdicts: list[BoxVerdict | None] = field(init=False)
    outcomes: list[Outcome] = field(init=False)
    open_targets: int = field(init=False)
    preprocess_ns: int = 0
    infer_ns: int = 0

    def __post_init__(self) -> None:
        self.open_targets = len(self.targets)
        self.verdicts = [None] * self.open_targets
        self.outcomes = [Outcome.FAILED] * self.open_targets


@dataclass(eq=False, slots=True)
class Batch:
    """Targets that share one fate: `items[i]` says whose image stands in `slot.inputs_nchw[i]`.

    With a `fault` there is no slot: these targets cannot be scored, for that reason. `engine` is the slot's
    owner. One with `retired` holds nothing: it follows the last batch of an engine that served until then.
    """

    slot: Slot | None
    leave_by_ns: int = 0
    items: list[tuple[Job, int]] = field(default_factory=list)
    submitted_ns: int = 0
    fault: str = ""
    engine: Engine | None = None
    retired: threading.Event | None = None


class Batcher:
    """At most one batch is open; only the batching thread touches it.

    Args:
        engine: Owner of the slots.
        config: When a batch leaves.
        abandoned: Set when no slot will come back any more, so that there is no use in waiting for one.
    """

    def __init__(
        self,
        engine: Engine,
        config: BatchConfig,
        abandoned: threading.Event | None = None,
    ) -> None:
        self._engine, self._config = engine, config
        self._abandoned = abandoned or threading.Event()
        self._open: Batch | None = None
        self._max_wait_ns = round(config.max_wait_ms * 1e6)
        self._margin_ns = round(config.deadline_margin_ms * 1e6)
        #: Smoothed time from submission to logits.
        self.engine_ns = 0
        self._lately: deque[int] = deque(maxlen=_LATELY)
        self._least_ns = 0

    def came_back(self, engine_ns: int) -> None:
        """Notes how long a batch took from submission to logits; called by the verdict thread alone."""
        self.engine_ns += (engine_ns - self.engine_ns) // 4
        self._lately.append(engine_ns)
        self._least_ns = min(self._lately)

    def hopeless(self, frame: Frame, now_ns: int, *, engine_idle: bool) -> bool:
        """Whether a verdict would come after the frame's deadline even if all went as well as it lately did.

        An idle engine may be faster than it was under load, so then only a deadline that has passed counts.
        """
        if frame.deadline_ns is None:
            return False
        return now_ns + (0 if engine_idle else self._least_ns) >= frame.deadline_ns

    def add(self, job: Job) -> Iterator[Batch]:
        """Preprocesses a job's boxes into slots; yields each batch that must leave at once.

        That is every batch that became full, and the boxes that cannot be used (with a fault): a bad box
        harms no other.
        """
        boxes, targets, refused = _usable_boxes(job)
        if refused:
            yield Batch(None, items=[(job, target) for target in refused], fault="invalid_box")
        done = 0
        while done < len(targets):
            batch = self._open or self._begin()
            if batch is None:
                yield Batch(None, items=[(job, t) for t in targets[done:]], fault="engine_stuck")
                return
            room = self._engine.max_batch - len(batch.items)
            chunk = targets[done : done + room]
            try:
                self._fill(batch, job, None if boxes is None else boxes[done : done + room])
            except InputError as error:
                about = {"camera": job.frame.camera, "frame": job.frame.frame_id}
                log.warning("camera %s frame %d: %s", *about.values(), error, extra=about)
                yield Batch(None, items=[(job, t) for t in targets[done:]], fault="unusable_image")
                return
            except (
                EngineError
            ) as error:  # the device failed: so will what is in the slot, when it is submitted
                log.error("%s", error)
                yield Batch(None, items=[(job, t) for t in targets[done:]], fault="engine_error")
                return
            batch.items.extend((job, target) for target in chunk)
            done += len(chunk)
            if len(batch.items) == self._engine.max_batch:
                self._open = None
                yield batch

    def use(self, engine: Engine) -> Batch | None:
        """Fills another engine's slots from now on; returns the open batch, which belongs to the old one."""
        batch = self.flush()
        if engine is not self._engine:
            self._engine, self.engine_ns, self._least_ns = engine, 0, 0
            self._lately = deque(maxlen=_LATELY)
        return batch

    def pop_due(self, *, engine_idle: bool, more_waiting: bool) -> Batch | None:
        """The open batch, if it must leave now: time is up, or the engine idles and nothing else waits."""
        batch = self._open
        if batch is None or not batch.items:
            return None
        idle = engine_idle and not more_waiting and not self._config.wait_for_full
        if not idle and time.monotonic_ns() < batch.leave_by_ns:
            return None
        self._open = None
        return batch

    def flush(self) -> Batch | None:
        """The open batch, due or not; an empty one gives its slot back."""
        batch, self._open = self._open, None
        if batch is not None and batch.slot is not None and not batch.items:
            self._engine.give_back(batch.slot)
            return None
        return batch

    def wait_s(self) -> float | None:
        """How long the open batch may still wait, or None if nothing is waiting in it."""
        if self._open is None or not self._open.items:
            return None
        return max(0.0, (self._open.leave_by_ns - time.monotonic_ns()) / 1e9)

    def _begin(self) -> Batch | None:
        slot, give_up = None, time.monotonic() + self._engine.patience_s
        while slot is None and not self._abandoned.is_set() and (left := give_up - time.monotonic()) > 0:
            slot = self._engine.acquire(min(left, _GLANCE_S))
        self._open = None if slot is None else Batch(slot, engine=self._engine)
        return self._open

    def _fill(self, batch: Batch, job: Job, boxes: npt.NDArray[np.float32] | None) -> None:
        assert batch.slot is not None
        started = time.monotonic_ns()
        self._engine.write(batch.slot, job.frame, boxes=boxes, first_slot=len(batch.items))
        if job.frame.intact is not None and not job.frame.intact():
            raise InputError("the pixels were overwritten while they were read")
        job.preprocess_ns += time.monotonic_ns() - started
        if not batch.items:
            batch.leave_by_ns = started + self._max_wait_ns
        if job.frame.deadline_ns is not None:
            leave_by = job.frame.deadline_ns - self.engine_ns - self._margin_ns
            batch.leave_by_ns = min(batch.leave_by_ns, leave_by)


def targets_of(frame: Frame) -> list[Box | None]:
    """The boxes of a frame, or [None] for the whole of it."""
    if frame.boxes is None:
        return [None]
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in frame.boxes.tolist()]


def _usable_boxes(job: Job) -> tuple[npt.NDArray[np.float32] | None, list[int], list[int]]:
    """The boxes that lie on the image, their targets, and the targets of those that do not."""
    if job.targets == [None]:
        return None, [0], []
    boxes = np.asarray(job.targets, np.float32).reshape(-1, 4)
    usable = usable_boxes(boxes, job.frame.image, job.frame.pixel_format)
    return boxes[usable], np.flatnonzero(usable).tolist(), np.flatnonzero(~usable).tolist()
