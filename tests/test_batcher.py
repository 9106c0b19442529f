"""When a batch leaves, and what is in it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from algan_stream.batcher import Batch, BatchConfig, Batcher, Job
from algan_stream.model import Model
from algan_stream.preprocess import preprocess
from algan_stream.types import Box, Frame
from fakes import SPEC, FakeEngine, fake_bundle, grey_frame

_LONG_MS = 60_000.0
_MODEL = Model(fake_bundle(), FakeEngine())


def _batcher(engine: FakeEngine, **config: float | bool) -> Batcher:
    return Batcher(engine, BatchConfig(**{"max_wait_ms": _LONG_MS, **config}))


def _job(frame_id: int = 0, boxes: Sequence[Box] | None = None, **more: object) -> Job:
    frame = grey_frame(frame_id, brightness=frame_id, **more)
    return Job(frame, [None] if boxes is None else list(boxes), time.monotonic_ns(), _MODEL)


def _contents(batch: Batch | None) -> list[tuple[int, int]]:
    assert batch is not None
    return [(job.frame.frame_id, target) for job, target in batch.items]


def test_a_full_batch_leaves_at_once() -> None:
    batcher = _batcher(FakeEngine(max_batch=3))
    assert [list(batcher.add(_job(i))) for i in range(2)] == [[], []]
    (batch,) = batcher.add(_job(2))
    assert _contents(batch) == [(0, 0), (1, 0), (2, 0)]
    assert batcher.wait_s() is None  # nothing is open any more


def test_a_slot_holds_exactly_what_preprocessing_gives() -> None:
    batcher = _batcher(FakeEngine(max_batch=3))
    list(batcher.add(_job(0)))
    random = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    box: Box = (1.0, 2.0, 6.0, 8.0)
    frame = Frame("cam", 0, random, "bgr8", captured_ns=0)
    (batch,) = batcher.add(Job(frame, [box, (0.0, 0.0, 7.0, 9.0)], 0, _MODEL))
    assert batch.slot is not None
    boxes = np.array([box, (0, 0, 7, 9)], np.float32)
    assert np.array_equal(batch.slot.inputs_nchw[1:], preprocess(random, SPEC, boxes=boxes))
    black = preprocess(np.zeros((8, 8), np.uint8), SPEC, pixel_format="grey8")
    assert np.array_equal(batch.slot.inputs_nchw[:1], black)


def test_an_idle_engine_gets_what_there_is_unless_more_waits() -> None:
    batcher = _batcher(FakeEngine())
    list(batcher.add(_job()))
    assert batcher.pop_due(engine_idle=False, more_waiting=False) is None
    assert batcher.pop_due(engine_idle=True, more_waiting=True) is None
    assert _contents(batcher.pop_due(engine_idle=True, more_waiting=False)) == [(0, 0)]
    assert batcher.pop_due(engine_idle=True, more_waiting=False) is None


def test_wait_for_full_waits_even_for_an_idle_engine() -> None:
    batcher = _batcher(FakeEngine(), wait_for_full=True)
    list(batcher.add(_job()))
    assert batcher.pop_due(engine_idle=True, more_waiting=False) is None


def test_max_wait_counts_from_the_first_image() -> None:
    batcher = _batcher(FakeEngine(), max_wait_ms=80.0)
    started = time.monotonic()
    list(batcher.add(_job(0)))
    time.sleep(0.02)
    list(batcher.add(_job(1)))
    wait = batcher.wait_s()
    assert wait is not None
    assert wait <= 0.08 - 0.02
    while batcher.pop_due(engine_idle=False, more_waiting=True) is None:
        assert time.monotonic() - started < 10
        time.sleep(0.001)
    assert time.monotonic() - started >= 0.08


def test_a_batch_leaves_in_time_for_its_nearest_deadline() -> None:
    batcher = _batcher(FakeEngine(max_batch=8), deadline_margin_ms=10.0)
    batcher.engine_ns = 30_000_000
    now = time.monotonic_ns()
    list(batcher.add(_job(0, deadline_ns=now + 50_000_000_000)))
    list(batcher.add(_job(1, deadline_ns=now + 5_000_000_000)))
    list(batcher.add(_job(2, deadline_ns=now + 20_000_000_000)))
    assert batcher._open is not None
    assert batcher._open.leave_by_ns == now + 5_000_000_000 - 30_000_000 - 10_000_000
    assert batcher.pop_due(engine_idle=False, more_waiting=True) is None
    list(batcher.add(_job(3, deadline_ns=now + 39_000_000)))
    assert batcher.wait_s() == 0.0
    assert len(_contents(batcher.pop_due(engine_idle=False, more_waiting=True))) == 4
    list(batcher.add(_job(4)))
    assert (batcher.wait_s() or 0) > 1.0  # the next batch does not inherit the deadline


def test_64_boxes_of_one_frame_span_batches() -> None:
    batcher = _batcher(FakeEngine(max_batch=10, streams=4))
    list(batcher.add(_job(9)))
    boxes = [(float(i % 8), 0.0, float(i % 8 + 1), 8.0) for i in range(64)]
    batches = list(batcher.add(_job(1, boxes)))
    assert [len(batch.items) for batch in batches] == [10] * 6
    rest = batcher.flush()
    everything = [pair for batch in (*batches, rest) for pair in _contents(batch)]
    assert everything == [(9, 0)] + [(1, i) for i in range(64)]


def test_each_box_lands_in_its_own_place_across_batches() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    frame = Frame("cam", 0, image, "grey8", captured_ns=0)
    boxes = [(float(x), float(y), x + 1.0, y + 1.0) for y in range(8) for x in range(8)]
    batcher = _batcher(FakeEngine(max_batch=5, streams=8))
    batches = [*batcher.add(Job(frame, list(boxes), 0, _MODEL)), batcher.flush()]
    seen = {}
    for batch in batches:
        assert batch is not None
        assert batch.slot is not None
        for place, (_, target) in enumerate(batch.items):
            seen[target] = round((float(batch.slot.inputs_nchw[place, 0, 0, 0]) * 0.5 + 0.5) * 255)
    assert seen == {i: i for i in range(64)}


@pytest.mark.parametrize(
    "bad",
    [
        (np.nan, 0, 4, 4),
        (0, 0, np.inf, 4),
        (4, 0, 4, 4),
        (5, 0, 4, 4),
        (8, 0, 12, 4),
        (-9, 0, -1, 4),
        (0, 8, 4, 9),
        (0, -4, 4, 0),
    ],
)
def test_a_bad_box_harms_no_other(bad: Box) -> None:
    batcher = _batcher(FakeEngine(max_batch=3))
    batches = list(batcher.add(_job(1, [(0, 0, 4, 4), bad, (2, 2, 20, 20), (-3, 0, 3, 4)])))
    assert [(batch.fault, _contents(batch)) for batch in batches] == [
        ("invalid_box", [(1, 1)]),
        ("", [(1, 0), (1, 2), (1, 3)]),
    ]
    assert batches[0].slot is None


def test_an_unusable_image_takes_no_slot_and_spoils_no_batch() -> None:
    engine = FakeEngine(max_batch=2)
    batcher = _batcher(engine)
    list(batcher.add(_job(0)))
    empty = Job(Frame("cam", 7, np.zeros((0, 0), np.uint8), "grey8", captured_ns=0), [None], 0, _MODEL)
    (bad,) = batcher.add(empty)
    assert (bad.fault, bad.slot, _contents(bad)) == ("unusable_image", None, [(7, 0)])
    (good,) = batcher.add(_job(1))
    assert _contents(good) == [(0, 0), (1, 0)]


def test_no_free_slot_in_time_is_a_fault_not_a_hang() -> None:
    engine = FakeEngine(max_batch=2, patience_s=0.02)
    batcher = _batcher(engine)
    left = [batch for i in range(6) for batch in batcher.add(_job(i))]
    assert len(left) == len(engine.slots)
    (stuck,) = batcher.add(_job(6))
    assert (stuck.fault, _contents(stuck)) == ("engine_stuck", [(6, 0)])


def test_flush_returns_an_untouched_slot() -> None:
    engine = FakeEngine()
    batcher = _batcher(engine)
    assert batcher.flush() is None
    list(
        batcher.add(
            Job(Frame("cam", 0, np.zeros((0, 0), np.uint8), "grey8", captured_ns=0), [None], 0, _MODEL)
        )
    )
    assert batcher.flush() is None
    assert all(engine.acquire(0.1) is not None for _ in engine.slots)


@pytest.mark.parametrize("key", ["max_wait_ms", "deadline_margin_ms"])
@pytest.mark.parametrize("value", [-0.1, 60_001.0, float("nan")])
def test_limits_of_the_configuration(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{key}: expected 0 to 60000"):
        BatchConfig(**{key: value})
