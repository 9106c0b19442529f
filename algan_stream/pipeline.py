"""From frames to verdicts, on one screen.

    source threads ── receive ──▶ intake ──▶ batching thread ── submit ──▶ engine ──▶ verdict thread ── emit

Every frame that `receive` takes is entered in the ledger there and leaves it in `_emit`, whatever happens in
between; `_emit` is the only place from which a verdict goes out.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from algan_stream.batcher import Batch, BatchConfig, Batcher, Job, targets_of
from algan_stream.bundle import Bundle
from algan_stream.config import TrackConfig
from algan_stream.decision import by_rule, in_time, named, unknown
from algan_stream.engines.base import Engine
from algan_stream.errors import AlganError, EngineError, LedgerError
from algan_stream.inputs import misfit
from algan_stream.intake import Backpressure, Intake
from algan_stream.ledger import Ledger
from algan_stream.model import Model
from algan_stream.outgoing import Outgoing
from algan_stream.parts import Parts
from algan_stream.sinks.base import Sink
from algan_stream.types import BoxVerdict, Frame, FrameVerdict, Outcome, StageTimes, VerdictKind

log = logging.getLogger(__name__)


class Pipeline:
    """Scores frames with one gated engine at a time.

    Args:
        bundle: Where input spec and calibration come from.
        engine: Has passed the golden gate; closed by the caller after `close`, or when `swap` has retired it.
        sinks: Get every verdict; closed by the caller.
        batch: When batches leave.
    """

    def __init__(
        self, bundle: Bundle, engine: Engine, sinks: Sequence[Sink] = (), batch: BatchConfig | None = None
    ) -> None:
        self.ledger = Ledger()
        #: Set when a thread of the pipeline has died; `close` then raises what killed it.
        self.broken = threading.Event()
        #: Where verdicts go, before they are sent to the client.
        self.out = Outgoing(sinks)
        #: The parts that cameras track, where any does.
        self.parts: Parts | None = None
        #: How often a batch of each size was submitted.
        self.batch_sizes: Counter[int] = Counter()
        self._cause: BaseException | None = None
        self._open: dict[int, Frame] = {}  # by ledger entry; with `_gave_up`, guarded by `_emitting`
        self._gave_up = False
        #: What serves: set by the batching thread alone, between two batches.
        self.model = Model(bundle, engine)
        #: Called by the batching thread with each model that takes over.
        self.on_takeover: Callable[[Model], object] = lambda model: None
        #: Cameras whose frames are answered unscored; replaced as a whole.
        self.paused: frozenset[str] = frozenset()
        #: Sees every frame before it is queued; must be quick, and may wrap its `reply`.
        self.tap: Callable[[Frame], None] | None = None
        self._intake = Intake()
        self.queue_depths, self.close_camera = self._intake.depths, self._intake.close_lane
        self._batcher = Batcher(engine, batch or BatchConfig(), self.broken)
        self._successors: queue.SimpleQueue[tuple[Model, threading.Event]] = queue.SimpleQueue()
        self._submitted: queue.Queue[Batch | None] = queue.Queue(len(engine.slots) + 1)
        self._submitted_count = self._judged_count = 0  # each written by one thread alone
        self._emitting = threading.Lock()
        self._threads = [
            threading.Thread(target=self._guarded, args=(step,), name=step.__name__.strip("_"), daemon=True)
            for step in (self._fill_batches, self._judge_batches)
        ]

    def start(self) -> None:
        """Starts the two threads."""
        for thread in self._threads:
            thread.start()

    def open_camera(self, camera: str, queue_size: int, backpressure: Backpressure) -> None:
        """Makes a camera's queue; needed before its first frame."""
        self._intake.open_lane(camera, queue_size, backpressure)

    def receive(self, frame: Frame, track: TrackConfig | None = None) -> None:
        """Takes one frame into the accounts and the queue; blocks if its camera's policy says so.

        With `track`, its boxes are shown to be parts, and verdicts on those that have ended go out.
        """
        if track is not None and self.parts is not None:
            self._publish(self.parts.announce(frame, track))
        frame.received_ns = time.monotonic_ns()
        frame.entry = self.ledger.open(frame.camera, 0 if frame.boxes is None else len(frame.boxes))
        self._open[frame.entry] = frame
        if fault := frame.fault or misfit(frame, self.model.bundle.manifest.spec):
            self._end_unscored(frame, Outcome.FAILED, fault)
            return
        if frame.camera in self.paused:
            self._end_unscored(frame, Outcome.DROPPED, "paused")
            return
        if (tap := self.tap) is not None:
            tap(frame)
        for fallen, reason in self._intake.put(frame):
            self._end_unscored(fallen, Outcome.DROPPED, reason)

    def end_parts(self, cameras: Iterable[str] | None = None) -> None:
        """No more frames come of these cameras: what is tracked there has ended."""
        if self.parts is not None:
            self._publish(self.parts.finish(cameras))

    def swap(self, model: Model) -> threading.Event:
        """Goes over to another model between two batches, at once where no frames come.

        What is running ends on the old one.

        Returns:
            Is set once the old model has no batch any more and its engine can be closed; never, if the
            pipeline ended before.
        """
        retired = threading.Event()
        self._successors.put((model, retired))
        self._intake.interrupt()
        return retired

    def close(self, timeout_s: float = 30.0) -> None:
        """Refuses new frames, scores those inside within `timeout_s`, and waits for the last verdict.

        Raises:
            AlganError: A thread died or did not end in time; what was left is answered with `unknown` and
                ledgered as dropped or failed, for the reason `shutdown`.
        """
        self._intake.close()
        give_up = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, give_up - time.monotonic()))
        stuck = [thread.name for thread in self._threads if thread.is_alive()]
        if stuck:
            self.broken.set()
        self._answer_the_rest()
        self.end_parts()
        if self._cause is not None:
            raise AlganError(f"the pipeline broke: {self._cause}") from self._cause
        if stuck:
            raise AlganError(f"not drained within {timeout_s:g} s: {', '.join(stuck)} still at work")

    # ---- batching thread: queue → slots → engine --------------------------------------------------------

    def _fill_batches(self) -> None:
        try:
            while not (self.broken.is_set() or (self._intake.closed and self._intake.empty())):
                frame = self._intake.take(self._batcher.wait_s())
                self._take_over()
                if frame is not None:
                    self._admit(frame)
                due = self._batcher.pop_due(
                    engine_idle=self._engine_idle(),
                    more_waiting=not self._intake.empty(),
                )
                self._submit(due)
            self._submit(self._batcher.flush())
        finally:
            self._hand_over(None)

    def _take_over(self) -> None:
        """Adopts a model that `swap` gave: the old one's last batch goes first, and a mark behind it."""
        while not self._successors.empty():
            model, retired = self._successors.get()
            self._submit(self._batcher.use(model.engine))
            self._hand_over(Batch(None, retired=retired))
            log.info("%s takes over from %s", model, self.model)
            self.model = model
            self.on_takeover(model)

    def _engine_idle(self) -> bool:
        return self._submitted_count - self._judged_count < self.model.engine.streams

    def _admit(self, frame: Frame, *, gap: bool = True) -> None:
        now = time.monotonic_ns()
        if self._batcher.hopeless(frame, now, engine_idle=self._engine_idle()):
            self._end_unscored(frame, Outcome.EXPIRED, "expired")
        elif frame.boxes is not None and len(frame.boxes) == 0:
            told = frame.when_empty == "unknown"  # else the camera says that empty frames are in order
            outcome, reason = (Outcome.FAILED, "no_boxes") if told else (Outcome.SCORED, "empty")
            self._end_unscored(frame, outcome, reason)
        else:
            for batch in self._batcher.add(Job(frame, targets_of(frame), now, self.model)):
                self._submit(batch)
                # Many boxes give way to other cameras' few between their batches.
                if gap and (other := self._intake.take_between(frame.camera, self.model.engine.max_batch)):
                    self._admit(other, gap=False)

    def _submit(self, batch: Batch | None) -> None:
        if batch is None:
            return
        batch.submitted_ns = time.monotonic_ns()
        if batch.slot is not None and batch.engine is not None:
            try:
                batch.engine.submit(batch.slot, len(batch.items))
                self._submitted_count += 1
                self.batch_sizes[len(batch.items)] += 1
            except EngineError as error:
                log.error("%s", error)
                batch.slot, batch.fault = None, "engine_error"
        self._hand_over(batch)

    def _hand_over(self, batch: Batch | None) -> None:
        """Waits for room, but not for a verdict thread that is dead; `close` answers what is left then."""
        while True:
            try:
                return self._submitted.put(batch, timeout=0.2)
            except queue.Full:
                if self.broken.is_set():
                    return None

    # ---- verdict thread: engine → decision → out --------------------------------------------------------

    def _judge_batches(self) -> None:
        while (batch := self._submitted.get()) is not None:
            if batch.retired is not None:
                batch.retired.set()
                continue
            decider = batch.items[0][0].model.decider  # a batch is one model's
            boxes = [job.targets[target] for job, target in batch.items]
            verdicts = [unknown(batch.fault, box) for box in boxes]
            if batch.slot is not None and batch.engine is not None:
                try:
                    verdicts = decider.decide(batch.engine.collect(batch.slot), boxes)
                except EngineError as error:
                    log.error("%s", error)
                    verdicts = [unknown("engine_error", box) for box in boxes]
                self._judged_count += 1
                self._intake.wake()  # the engine may be idle now, and an open batch need not wait any more
                if batch.engine is self.model.engine:  # one that was replaced tells nothing of its successor
                    self._batcher.came_back(time.monotonic_ns() - batch.submitted_ns)
            self._settle(batch, verdicts)

    def _settle(self, batch: Batch, verdicts: list[BoxVerdict]) -> None:
        now = time.monotonic_ns()
        for (job, target), verdict in zip(batch.items, verdicts, strict=True):
            job.verdicts[target], job.outcomes[target] = in_time(job.frame, verdict, now)
            job.infer_ns = max(job.infer_ns, now - batch.submitted_ns)
            job.open_targets -= 1
            if job.open_targets == 0:
                self._finish(job, now)

    def _finish(self, job: Job, now: int) -> None:
        verdicts = [verdict for verdict in job.verdicts if verdict is not None]
        failed = [i for i, outcome in enumerate(job.outcomes) if outcome is not Outcome.SCORED]
        outcome = job.outcomes[failed[0]] if failed else Outcome.SCORED
        stages = StageTimes(
            boxes_ms=job.frame.boxes_ns / 1e6,
            queue_ms=(job.taken_ns - job.frame.received_ns) / 1e6,
            preprocess_ms=job.preprocess_ns / 1e6,
            infer_ms=job.infer_ns / 1e6,
            total_ms=(now - job.frame.received_ns + job.frame.boxes_ns) / 1e6,
        )
        ledger_reason = verdicts[failed[0]].reason if failed else ""
        self._emit(job.frame, verdicts, outcome, ledger_reason, stages, job.outcomes, job.model)

    # ---- every frame's way out --------------------------------------------------------------------------

    def _end_unscored(self, frame: Frame, outcome: Outcome, reason: str) -> None:
        boxes = targets_of(frame)
        verdicts = [unknown(reason, box) for box in boxes]
        waited_ms = (time.monotonic_ns() - frame.received_ns) / 1e6
        found_ms = frame.boxes_ns / 1e6
        stages = StageTimes(boxes_ms=found_ms, queue_ms=waited_ms, total_ms=found_ms + waited_ms)
        self._emit(frame, verdicts, outcome, reason, stages, [outcome] * len(boxes), self.model)

    def _answer_the_rest(self) -> None:
        while (frame := self._intake.take(timeout_s=0)) is not None:
            self._end_unscored(frame, Outcome.DROPPED, "shutdown")
        with self._emitting:
            left, self._gave_up = list(self._open.values()), True
        try:
            for frame in left:
                self._end_unscored(frame, Outcome.FAILED, "shutdown")
        except LedgerError as error:
            self._cause = self._cause or error

    def _emit(
        self,
        frame: Frame,
        verdicts: list[BoxVerdict],
        outcome: Outcome,
        reason: str,
        stages: StageTimes,
        box_outcomes: list[Outcome],
        model: Model,
    ) -> None:
        kind, why, fused = VerdictKind.UNKNOWN, reason, None
        if verdicts:
            verdicts = named(frame, verdicts)
            kind, why, fused = model.decider.fuse(verdicts, frame.fuse)
            if frame.rule is not None:
                kind, why = by_rule(frame.rule, verdicts)
        elif outcome is Outcome.SCORED and frame.when_empty == "pass":
            kind = VerdictKind.PASS
        said = FrameVerdict(
            camera=frame.camera,
            frame_id=frame.frame_id,
            part_id=frame.part_id,
            verdict=kind,
            reason=why,
            boxes=tuple(verdicts),
            outcome=outcome,
            captured_ns=frame.captured_ns,
            threshold=model.threshold,
            model=model.name,
            engine=model.engine_name,
            stages=stages,
            fused_score=fused,
        )
        with self._emitting:
            if self._gave_up and frame.entry not in self._open:
                return  # `close` could not wait for it, and has answered it already
            boxes = None if frame.boxes is None else box_outcomes
            self.ledger.close(frame.camera, frame.entry, outcome, reason, boxes, (kind, why))
            self._open.pop(frame.entry, None)
            self.out.write(said, frame)
            if frame.reply:  # last: with it the client may write its memory anew
                self.out.deliver(frame.reply, said)
            for part in self.parts.settle(said) if self.parts is not None else ():
                self.out.write(part)

    def _publish(self, verdicts: list[FrameVerdict]) -> None:
        if verdicts:
            with self._emitting:
                for said in verdicts:
                    self.out.write(said)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException as error:
            log.critical("%s died", step.__name__, exc_info=True)
            self._cause = error
            self._intake.close()
            self.broken.set()
