"""Every frame gets exactly one verdict and one place in the accounts, whatever goes wrong."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algan_stream.batcher import BatchConfig
from algan_stream.bundle import Bundle
from algan_stream.errors import AlganError
from algan_stream.intake import Backpressure
from algan_stream.ledger import CameraAccount, Tally
from algan_stream.pipeline import Pipeline
from algan_stream.sinks.base import Sink
from algan_stream.types import Frame, FrameVerdict, Outcome, VerdictKind
from fakes import BrokenSink, FakeEngine, ListSink, fake_bundle, grey_frame

PASS, REJECT, UNKNOWN = VerdictKind.PASS, VerdictKind.REJECT, VerdictKind.UNKNOWN
_DARK, _BRIGHT = 20, 230
#: Batches leave when they are full or nothing else waits, however slow the machine: their contents are known.
_PATIENT = BatchConfig(max_wait_ms=60_000)


class Rig:
    """A pipeline with a sink that keeps everything, and the replies that each frame got."""

    def __init__(
        self,
        engine: FakeEngine,
        sinks: Sequence[Sink],
        bundle: Bundle,
        backpressure: Backpressure,
        queue_size: int,
        batch: BatchConfig | None,
    ) -> None:
        self.engine, self.sink = engine, ListSink()
        self.pipeline = Pipeline(bundle, engine, [*sinks, self.sink], batch)
        self.pipeline.open_camera("cam", queue_size, backpressure)
        self.replies: list[FrameVerdict] = []
        self.sent = 0

    def send(self, *frames: Frame) -> None:
        for frame in frames:
            frame.reply = self.replies.append
            self.sent += 1
            self.pipeline.receive(frame)

    def account(self) -> CameraAccount:
        return self.pipeline.ledger.snapshot()["cam"]

    def verdicts(self) -> list[FrameVerdict]:
        """By frame id; checks on the way that each frame has one verdict, the same everywhere."""
        assert self.replies == self.sink.verdicts
        assert len(self.replies) == self.sent == self.account().frames.received
        ordered = sorted(self.replies, key=lambda verdict: verdict.frame_id)
        assert [v.frame_id for v in ordered] == list(range(self.sent))
        told = Counter(v.outcome.value for v in ordered)
        frames = self.account().frames
        assert told == +Counter({outcome.value: getattr(frames, outcome.value) for outcome in Outcome})
        assert all(
            v.verdict is UNKNOWN for v in ordered if v.outcome is not Outcome.SCORED and not v.boxes[1:]
        )
        return ordered


@contextmanager
def _rig(
    engine: FakeEngine | None = None,
    *,
    sinks: Sequence[Sink] = (),
    bundle: Bundle | None = None,
    backpressure: Backpressure = "block",
    queue_size: int = 64,
    batch: BatchConfig | None = None,
    start: bool = True,
    close: bool = True,
) -> Iterator[Rig]:
    rig = Rig(engine or FakeEngine(), sinks, bundle or fake_bundle(), backpressure, queue_size, batch)
    if start:
        rig.pipeline.start()
    try:
        yield rig
    finally:
        rig.engine.release.set()
        if close:
            rig.pipeline.close(10.0)


def _wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.001)


def test_scored() -> None:
    with _rig() as rig:
        rig.send(*(grey_frame(i, brightness=_BRIGHT if i % 3 == 0 else _DARK) for i in range(50)))
    verdicts = rig.verdicts()
    assert [v.verdict for v in verdicts] == [REJECT if i % 3 == 0 else PASS for i in range(50)]
    for i, verdict in enumerate(verdicts):
        (box,) = verdict.boxes
        assert box.box is None
        assert box.score == pytest.approx((_BRIGHT if i % 3 == 0 else _DARK) / 127.5 - 1, abs=1e-5)
        assert verdict.outcome is Outcome.SCORED
        assert verdict.part_id == f"part-{i}"
        assert verdict.engine == "fake 1 none fp32"
        assert verdict.model == "0" * 12
        assert verdict.threshold == 0.0
        assert verdict.stages.total_ms >= verdict.stages.infer_ms >= 0
        assert verdict.stages.total_ms >= verdict.stages.queue_ms >= 0
    assert rig.account().frames == Tally(received=50, scored=50)
    assert rig.account().boxes == Tally()
    assert rig.account().reasons == {}


def test_close_drains_what_is_inside() -> None:
    with _rig(FakeEngine(delay_s=0.01)) as rig:
        rig.send(*(grey_frame(i) for i in range(60)))
        assert rig.account().frames.in_flight > 0
    rig.verdicts()
    assert rig.account().frames == Tally(received=60, scored=60)


def test_after_close_frames_are_answered_too() -> None:
    with _rig() as rig:
        rig.send(grey_frame(0))
        rig.pipeline.close(10.0)
        rig.send(grey_frame(1))
        assert rig.verdicts()[1].reason == "shutdown"
        assert rig.account().reasons == {"shutdown": 1}


@pytest.mark.parametrize(("policy", "dropped"), [("drop_oldest", range(7)), ("drop_newest", range(3, 10))])
def test_dropped(policy: Backpressure, dropped: range) -> None:
    with _rig(backpressure=policy, queue_size=3, start=False) as rig:
        rig.send(*(grey_frame(i) for i in range(10)))
        rig.pipeline.start()
    for verdict in rig.verdicts():
        expected = (Outcome.DROPPED, "queue_full") if verdict.frame_id in dropped else (Outcome.SCORED, "")
        assert (verdict.outcome, verdict.reason) == expected
    assert rig.account().frames == Tally(received=10, scored=3, dropped=7)
    assert rig.account().reasons == {"queue_full": 7}


def test_block_loses_nothing_and_holds_the_source_back() -> None:
    engine = FakeEngine(max_batch=1)
    engine.release.clear()
    with _rig(engine, queue_size=2) as rig:
        feeder = threading.Thread(target=lambda: rig.send(*(grey_frame(i) for i in range(40))))
        feeder.start()
        time.sleep(0.1)
        # Slots, the open batch and the queue hold a few; the rest is still with the source.
        assert feeder.is_alive()
        assert rig.sent < 15
        engine.release.set()
        feeder.join(20)
        assert not feeder.is_alive()
    rig.verdicts()
    assert rig.account().frames == Tally(received=40, scored=40)


def test_expired_before_it_was_looked_at() -> None:
    with _rig(start=False) as rig:
        rig.send(grey_frame(0, deadline_ns=time.monotonic_ns()), grey_frame(1))
        rig.pipeline.start()
    expired, scored = rig.verdicts()
    assert (expired.outcome, expired.verdict, expired.reason) == (Outcome.EXPIRED, UNKNOWN, "expired")
    assert expired.boxes[0].score is None
    assert scored.outcome is Outcome.SCORED
    assert rig.account().reasons == {"expired": 1}


def test_a_deadline_that_a_busy_engine_cannot_keep_costs_it_nothing() -> None:
    engine = FakeEngine(max_batch=1, delay_s=0.05)
    with _rig(engine) as rig:
        rig.send(*(grey_frame(i) for i in range(8)))
        _wait_for(lambda: len(rig.replies) >= 2)  # now the engine's time is known, and it is busy
        rig.send(grey_frame(8, deadline_ns=time.monotonic_ns() + 20_000_000))
        _wait_for(lambda: len(rig.replies) == 9)
        rig.send(grey_frame(9, deadline_ns=time.monotonic_ns() + 5_000_000_000))
    *_, hopeless, kept = rig.verdicts()
    assert (hopeless.outcome, hopeless.reason) == (Outcome.EXPIRED, "expired")
    assert hopeless.boxes[0].score is None
    assert kept.outcome is Outcome.SCORED
    assert sum(engine.batch_sizes) == 9


def test_an_idle_engine_tries_however_slow_it_was() -> None:
    engine = FakeEngine(max_batch=1, delay_s=0.05)
    with _rig(engine) as rig:
        rig.send(grey_frame(0))
        _wait_for(lambda: len(rig.replies) == 1)
        engine._delay_s = 0.0
        rig.send(grey_frame(1, deadline_ns=time.monotonic_ns() + 40_000_000))
    assert all(
        verdict.outcome is not Outcome.EXPIRED or verdict.reason == "late" for verdict in rig.verdicts()
    )
    assert sum(engine.batch_sizes) == 2


def test_between_the_batches_of_many_boxes_another_camera_gets_its_turn() -> None:
    engine = FakeEngine(max_batch=4, delay_s=0.002)
    with _rig(engine, start=False) as rig:
        rig.pipeline.open_camera("other", 8, "block")
        boxes = np.tile(np.array([[0, 0, 8, 8]], np.float32), (200, 1))
        rig.send(grey_frame(0, boxes=boxes), grey_frame(1, camera="other"))
        rig.pipeline.start()
        _wait_for(lambda: len(rig.replies) == 2)
    assert [verdict.frame_id for verdict in rig.replies] == [1, 0]
    assert len(rig.replies[1].boxes) == 200
    assert all(box.score is not None for box in rig.replies[1].boxes)


def test_a_score_that_comes_late_does_not_count() -> None:
    engine = FakeEngine()
    engine.release.clear()
    with _rig(engine) as rig:
        rig.send(grey_frame(0, brightness=_DARK, deadline_ns=time.monotonic_ns() + 200_000_000))
        time.sleep(0.25)
    (late,) = rig.verdicts()
    assert (late.outcome, late.verdict, late.reason) == (Outcome.EXPIRED, UNKNOWN, "late")
    assert late.boxes[0].score is not None  # for the record
    assert rig.account().frames == Tally(received=1, expired=1)
    assert rig.account().reasons == {"late": 1}


def test_a_deadline_that_is_kept() -> None:
    with _rig(batch=BatchConfig(max_wait_ms=60_000, wait_for_full=True)) as rig:
        rig.send(grey_frame(0, deadline_ns=time.monotonic_ns() + 500_000_000))
        _wait_for(lambda: bool(rig.replies))
    (verdict,) = rig.verdicts()
    assert verdict.stages.total_ms >= 400  # it waited for company as long as it could


def test_a_faulty_frame_is_announced_and_answered() -> None:
    with _rig() as rig:
        empty = np.zeros((0, 0), np.uint8)
        rig.send(grey_frame(0, fault="bad_image: truncated", image=empty), grey_frame(1))
        boxes = np.zeros((3, 4), np.float32)
        rig.send(grey_frame(2, fault="bad_image: empty", image=empty, boxes=boxes))
    verdicts = rig.verdicts()
    assert (verdicts[0].outcome, verdicts[0].reason) == (Outcome.FAILED, "bad_image: truncated")
    assert verdicts[1].outcome is Outcome.SCORED
    assert len(verdicts[2].boxes) == 3
    assert rig.account().frames == Tally(received=3, scored=1, failed=2)
    assert rig.account().boxes == Tally(received=3, failed=3)
    assert rig.account().reasons == {"bad_image": 2}


def test_an_image_without_pixels_is_failed_not_passed() -> None:
    with _rig() as rig:
        rig.send(grey_frame(0, image=np.zeros((0, 0), np.uint8)), grey_frame(1))
    assert [(v.outcome, v.reason) for v in rig.verdicts()] == [
        (Outcome.FAILED, "unusable_image"),
        (Outcome.SCORED, ""),
    ]


def test_no_boxes_means_nothing_was_inspected() -> None:
    with _rig() as rig:
        rig.send(grey_frame(0, boxes=np.zeros((0, 4), np.float32)))
    assert rig.replies[0].boxes == ()
    assert (rig.replies[0].verdict, rig.replies[0].reason) == (UNKNOWN, "no_boxes")
    assert rig.account().frames == Tally(received=1, failed=1)


def test_boxes_are_scored_one_by_one_and_the_worst_speaks() -> None:
    image = np.full((8, 8), _DARK, np.uint8)
    image[:, 4:] = _BRIGHT
    boxes = np.array([(0, 0, 4, 8), (4, 0, 8, 8), (0, 0, 4, 4), (9, 9, 12, 12)], np.float32)
    with _rig(FakeEngine(max_batch=2)) as rig:
        rig.send(grey_frame(0, image=image, boxes=boxes), grey_frame(1, image=image, boxes=boxes[::2]))
    first, second = rig.replies if rig.replies[0].frame_id == 0 else rig.replies[::-1]
    assert [b.verdict for b in first.boxes] == [PASS, REJECT, PASS, UNKNOWN]
    assert first.boxes[3].reason == "invalid_box"
    assert [b.box for b in first.boxes] == [tuple(box) for box in boxes.tolist()]
    assert (first.verdict, first.reason) == (REJECT, "score_above_threshold")
    assert first.outcome is Outcome.FAILED  # not all of it was inspected
    assert (second.verdict, second.outcome) == (PASS, Outcome.SCORED)
    account = rig.account()
    assert account.frames == Tally(received=2, scored=1, failed=1)
    assert account.boxes == Tally(received=6, scored=5, failed=1)
    assert account.reasons == {"invalid_box": 1}


def test_boxes_whose_mean_score_decides() -> None:
    image = np.full((8, 8), _DARK, np.uint8)
    image[:, 4:] = _BRIGHT
    boxes = np.array([(0, 0, 4, 8), (4, 0, 8, 8), (0, 0, 4, 4)], np.float32)
    with _rig(FakeEngine()) as rig:
        rig.send(grey_frame(0, image=image, boxes=boxes, fuse="mean"))
        rig.send(grey_frame(1, image=image, boxes=boxes[1:2], fuse="mean"))
        rig.send(grey_frame(2, image=image, boxes=np.array([(0, 0, 4, 8), (9, 9, 12, 12)]), fuse="mean"))
    first, second, third = rig.verdicts()
    mean = (2 * _DARK + _BRIGHT) / 3 / 127.5 - 1
    assert (first.verdict, first.reason, first.outcome) == (PASS, "", Outcome.SCORED)
    assert first.fused_score == pytest.approx(mean, abs=1e-5)
    assert [b.verdict for b in first.boxes] == [PASS, REJECT, PASS]
    assert (second.verdict, second.reason) == (REJECT, "mean_score_above_threshold")
    assert (third.verdict, third.reason, third.fused_score) == (UNKNOWN, "invalid_box", None)


def test_64_boxes_span_batches_of_other_frames() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    boxes = np.array([(x, y, x + 1, y + 1) for y in range(8) for x in range(8)], np.float32)
    with _rig(FakeEngine(max_batch=7, streams=2)) as rig:
        rig.send(grey_frame(0), grey_frame(1, image=image, boxes=boxes), grey_frame(2))
    whole = rig.verdicts()[1]
    assert [b.score for b in whole.boxes] == pytest.approx([4 * i / 127.5 - 1 for i in range(64)], abs=1e-5)
    assert rig.account().boxes == Tally(received=64, scored=64)
    assert max(rig.engine.batch_sizes) == 7


def test_an_engine_error_fails_its_batch_alone() -> None:
    def on_finish(number: int, logits: np.ndarray) -> np.ndarray:
        if number == 1:
            raise RuntimeError("device lost")
        return logits

    with _rig(FakeEngine(max_batch=4, on_finish=on_finish), batch=_PATIENT, start=False) as rig:
        rig.send(*(grey_frame(i) for i in range(12)))
        rig.pipeline.start()
    assert [v.outcome is Outcome.SCORED for v in rig.verdicts()] == [True] * 4 + [False] * 4 + [True] * 4
    assert rig.account().reasons == {"engine_error": 4}
    assert {v.reason for v in rig.replies} == {"", "engine_error"}


def test_an_engine_that_refuses_a_batch() -> None:
    def on_start(number: int) -> None:
        if number in (0, 2):
            raise RuntimeError("no memory")

    with _rig(FakeEngine(max_batch=2, on_start=on_start), batch=_PATIENT, start=False) as rig:
        rig.send(*(grey_frame(i) for i in range(20)))
        rig.pipeline.start()
    assert [v.verdict for v in rig.verdicts()[:6]] == [UNKNOWN, UNKNOWN, PASS, PASS, UNKNOWN, UNKNOWN]
    assert rig.account().frames == Tally(received=20, scored=16, failed=4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_failed(bad: float) -> None:
    def on_finish(number: int, logits: np.ndarray) -> np.ndarray:
        logits[0] = bad
        return logits

    with _rig(FakeEngine(on_finish=on_finish), batch=_PATIENT, start=False) as rig:
        rig.send(*(grey_frame(i) for i in range(4)))
        rig.pipeline.start()
    verdicts = rig.verdicts()
    assert [v.verdict for v in verdicts] == [UNKNOWN, PASS, PASS, PASS]
    assert verdicts[0].outcome is Outcome.FAILED
    assert rig.account().reasons == {"score_not_finite": 1}


def test_without_calibration_frames_are_scored_but_unknown() -> None:
    with _rig(bundle=fake_bundle(threshold=None)) as rig:
        rig.send(grey_frame(0))
    (verdict,) = rig.verdicts()
    assert (verdict.verdict, verdict.reason, verdict.outcome) == (UNKNOWN, "not_calibrated", Outcome.SCORED)


def test_a_hanging_engine_fails_frames_and_recovers() -> None:
    engine = FakeEngine(max_batch=1, patience_s=0.05)
    with _rig(engine) as rig:
        engine.release.clear()
        rig.send(*(grey_frame(i) for i in range(2)))
        _wait_for(lambda: len(rig.replies) == 2)
        engine.release.set()
        rig.send(grey_frame(2))
    assert [v.outcome for v in rig.verdicts()] == [Outcome.FAILED, Outcome.FAILED, Outcome.SCORED]


def test_an_engine_that_hangs_for_good_answers_every_frame() -> None:
    engine = FakeEngine(max_batch=1, patience_s=0.02)
    engine.release.clear()
    with _rig(engine, close=False) as rig:
        rig.send(*(grey_frame(i) for i in range(10)))
        rig.pipeline.close(20.0)
    assert {v.verdict for v in rig.verdicts()} == {UNKNOWN}
    assert rig.account().frames == Tally(received=10, failed=10)
    assert set(rig.account().reasons) == {"engine_error", "engine_stuck"}


def test_a_failing_sink_harms_no_other() -> None:
    with _rig(sinks=[BrokenSink()]) as rig:
        rig.send(*(grey_frame(i) for i in range(9)))
    rig.verdicts()
    assert rig.pipeline.out.errors == 9
    assert rig.account().frames == Tally(received=9, scored=9)


def test_a_failing_reply_harms_no_sink() -> None:
    def broken(_: FrameVerdict) -> None:
        raise OSError("gone")

    with _rig() as rig:
        frame = grey_frame(0)
        frame.reply = broken
        rig.pipeline.receive(frame)
    assert [v.frame_id for v in rig.sink.verdicts] == [0]
    assert rig.pipeline.out.errors == 1


@pytest.mark.parametrize("where", ["_fill_batches", "_judge_batches"])
def test_a_thread_that_dies_is_reported_and_every_frame_is_answered(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(max_batch=2)
    with _rig(engine, start=False, close=False) as rig:
        target = rig.pipeline._batcher if where == "_fill_batches" else rig.pipeline.model.decider
        name = "add" if where == "_fill_batches" else "decide"
        real, calls = getattr(target, name), []

        def dies(*arguments: object) -> object:
            calls.append(1)
            if len(calls) > 2:
                raise MemoryError("boom")
            return real(*arguments)

        monkeypatch.setattr(target, name, dies)
        rig.send(*(grey_frame(i) for i in range(30)))
        rig.pipeline.start()
        assert rig.pipeline.broken.wait(10)
        started = time.monotonic()
        with pytest.raises(AlganError, match="the pipeline broke: boom"):
            rig.pipeline.close(8.0)
        assert time.monotonic() - started < 6.0  # the other thread ends by itself; nobody waits for time-outs
    rig.verdicts()
    frames = rig.account().frames
    assert frames.in_flight == 0
    assert 0 < frames.scored < 30
    assert frames.scored + frames.dropped + frames.failed == 30


def test_a_pipeline_that_cannot_drain_says_so_and_answers_every_frame() -> None:
    engine = FakeEngine(max_batch=1)
    engine.release.clear()
    with _rig(engine, close=False) as rig:
        rig.send(*(grey_frame(i) for i in range(12)))
        with pytest.raises(AlganError, match=r"not drained within 0\.2 s: .*judge_batches"):
            rig.pipeline.close(0.2)
        assert rig.account().frames.in_flight == 0
        rig.verdicts()
        assert "shutdown" in rig.account().reasons
        engine.release.set()
        time.sleep(
            0.2
        )  # answers that come after all are not told, nor counted, a second time, and kill nothing
        rig.verdicts()
        assert rig.pipeline._cause is None


_frames = st.lists(
    st.tuples(
        st.sampled_from(["plain", "fault", "expired", "no_boxes", "boxes", "bad_box", "empty"]),
        st.integers(0, 255),
    ),
    max_size=25,
)


@given(
    frames=_frames,
    policy=st.sampled_from(["block", "drop_oldest", "drop_newest"]),
    failing=st.sets(st.integers(0, 8)),
    refusing=st.sets(st.integers(0, 8)),
    max_batch=st.integers(1, 5),
    streams=st.integers(1, 2),
)
@settings(max_examples=60)
def test_any_mixture_is_accounted_for(
    frames: list[tuple[str, int]],
    policy: Backpressure,
    failing: set[int],
    refusing: set[int],
    max_batch: int,
    streams: int,
) -> None:
    def on_start(number: int) -> None:
        if number in refusing:
            raise RuntimeError("refused")

    def on_finish(number: int, logits: np.ndarray) -> np.ndarray:
        if number in failing:
            raise RuntimeError("failed")
        return logits

    engine = FakeEngine(max_batch=max_batch, streams=streams, on_start=on_start, on_finish=on_finish)
    with _rig(engine, backpressure=policy, queue_size=4) as rig:
        for i, (kind, brightness) in enumerate(frames):
            more: dict[str, object] = {
                "plain": {},
                "fault": {"fault": "bad_image: x"},
                "expired": {"deadline_ns": 1},
                "no_boxes": {"boxes": np.zeros((0, 4), np.float32)},
                "boxes": {"boxes": np.array([(0, 0, 4, 4)] * 7, np.float32)},
                "bad_box": {"boxes": np.array([(0, 0, 4, 4), (5, 5, 5, 5)], np.float32)},
                "empty": {"image": np.zeros((0, 0), np.uint8)},
            }[kind]
            rig.send(grey_frame(i, brightness=brightness, **more))
    assert len(rig.replies) == len(frames)
    assert rig.replies == rig.sink.verdicts
    for verdict in rig.replies:
        kind, brightness = frames[verdict.frame_id]
        if verdict.verdict is PASS:
            assert kind in ("plain", "boxes")
            assert brightness <= 127
            assert verdict.outcome is Outcome.SCORED
    if frames:
        assert rig.account().frames.in_flight == rig.account().boxes.in_flight == 0
        assert rig.account().frames.received == len(frames)
