"""A part that is seen in many frames gets one verdict, whatever becomes of the frames."""

from __future__ import annotations

import random
import threading
from collections import Counter
from functools import cache
from itertools import count
from typing import Any

import numpy as np
import pytest

from algan_stream.boxes.base import find_boxes
from algan_stream.boxes.blobs import Config as BlobsConfig
from algan_stream.boxes.blobs import create as create_blobs
from algan_stream.boxes.tracking import CameraTracker
from algan_stream.bundle import Bundle
from algan_stream.config import CameraConfig, LineConfig, TrackConfig
from algan_stream.demo.conveyor import Conveyor, ConveyorFrame
from algan_stream.errors import ConfigError
from algan_stream.ledger import Ledger, Tally
from algan_stream.parts import judge, open_parts
from algan_stream.pipeline import Pipeline
from algan_stream.plugins import convert
from algan_stream.service import Service
from algan_stream.sinks.outlet import open_sink
from algan_stream.types import BoxVerdict, Frame, FrameVerdict, Outcome, VerdictKind
from fakes import FakeEngine, ListSink, fake_bundle, grey_frame

pytest.importorskip("norfair", reason="norfair tracks; pip install 'algan-stream[track]'")

PASS, REJECT, UNKNOWN = VerdictKind.PASS, VerdictKind.REJECT, VerdictKind.UNKNOWN


@pytest.mark.parametrize(
    ("how", "kinds", "scores", "expected"),
    [
        ({}, (3, 0, 0), [-1, -1, -1], (PASS, "", -1)),
        ({}, (2, 1, 0), [-1, -1, 5], (REJECT, "mean_score_above_threshold", 1)),
        ({}, (2, 0, 0), [-1, -1], (UNKNOWN, "too_few_frames: 2 of 3 needed", -1)),
        ({}, (0, 0, 9), [], (UNKNOWN, "too_few_frames: 0 of 3 needed", None)),
        ({}, (3, 0, 3), [-1, -1, -1], (PASS, "", -1)),
        ({}, (3, 0, 4), [-1, -1, -1], (UNKNOWN, "too_many_unknown: 4 of 7", -1)),
        ({"max_unknown": 0}, (3, 0, 1), [-1] * 3, (UNKNOWN, "too_many_unknown: 1 of 4", -1)),
        ({"verdict": "max"}, (9, 1, 0), [-1] * 9 + [2], (REJECT, "frames_rejected: 1 of 10", 2)),
        ({"verdict": "max"}, (0, 1, 9), [2], (REJECT, "frames_rejected: 1 of 10", 2)),
        ({"verdict": "max"}, (9, 0, 0), [-1] * 9, (PASS, "", -1)),
        ({"verdict": "count", "reject_frames": 3}, (4, 2, 0), [0] * 6, (PASS, "", 0)),
        (
            {"verdict": "count", "reject_frames": 3},
            (4, 3, 0),
            [0] * 7,
            (REJECT, "frames_rejected: 3 of 7", 0),
        ),
        ({"verdict": "count", "min_frames": 1}, (0, 1, 0), [0], (REJECT, "frames_rejected: 1 of 1", 0)),
        ({"verdict": "vote"}, (2, 2, 0), [0] * 4, (REJECT, "frames_rejected: 2 of 4", 0)),
        ({"verdict": "vote"}, (3, 2, 0), [0] * 5, (PASS, "", 0)),
        ({"verdict": "vote"}, (0, 2, 0), [0] * 2, (UNKNOWN, "too_few_frames: 2 of 3 needed", 0)),
    ],
)
def test_the_verdict_on_a_part(how: Any, kinds: tuple[int, int, int], scores: Any, expected: Any) -> None:
    counted = Counter(dict(zip((PASS, REJECT, UNKNOWN), kinds, strict=True)))
    assert judge(TrackConfig(**how), counted, scores, 0.0) == expected


def test_a_part_passes_only_by_frames_that_passed() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        kinds = [rng.choice((PASS, REJECT, UNKNOWN)) for _ in range(rng.randrange(1, 12))]
        scores = [-1.0 if kind is PASS else 1.0 for kind in kinds if kind is not UNKNOWN]
        config = TrackConfig(
            verdict=rng.choice(("mean", "max", "vote", "count")),
            min_frames=rng.randrange(1, 5),
            max_unknown=rng.choice((0, 0.3, 0.9)),
        )
        kind, reason, _ = judge(config, Counter(kinds), scores, 0.0)
        passed, unknowns = kinds.count(PASS), kinds.count(UNKNOWN)
        if kind is PASS:
            assert passed >= 1
            assert passed + kinds.count(REJECT) >= config.min_frames
            assert unknowns <= config.max_unknown * len(kinds)
        assert (reason == "") is (kind is PASS)


_CONVEYOR = Conveyor(seed=3, defect_rate=0.3)


@cache
def _shown(index: int) -> ConveyorFrame:
    return _CONVEYOR.frame(index)


def _run_conveyor(frames: int, track: TrackConfig, **pipeline: Any) -> tuple[Pipeline, ListSink, list[Any]]:
    """The rendered conveyor through a real pipeline; truth: the number and place of each part."""
    sink, shown = ListSink(), []
    policy = pipeline.pop("policy", "block")
    running = Pipeline(fake_bundle(), FakeEngine(max_batch=8, **pipeline), [sink])
    running.parts = open_parts(running.ledger)
    running.open_camera("belt", 4, policy)
    running.start()
    for i in range(frames):
        truth = _shown(i)
        shown.append(truth)
        frame = Frame("belt", i, truth.image, "bgr8", captured_ns=i, boxes=truth.boxes)
        running.receive(frame, track)
    running.close()
    return running, sink, shown


def _split(sink: ListSink) -> tuple[list[FrameVerdict], list[FrameVerdict]]:
    return [v for v in sink.verdicts if v.part is None], [v for v in sink.verdicts if v.part is not None]


@pytest.mark.parametrize("conclude", ["lost", "line", "frames"])
def test_each_part_on_the_conveyor_gets_exactly_one_verdict(conclude: str) -> None:
    track = TrackConfig(conclude=conclude, **({"at_px": 320} if conclude == "line" else {}))  # type: ignore[arg-type]
    running, sink, shown = _run_conveyor(180, track)
    frames, parts = _split(sink)
    assert len(frames) == 180
    real = {number for truth in shown for number in truth.part_ids}
    assert len(real) > 4
    # One track for each part, and never two parts in one.
    whose: dict[int, set[int]] = {}
    for verdict in frames:
        for box, number in zip(verdict.boxes, shown[verdict.frame_id].part_ids, strict=True):
            assert box.track_id is not None
            whose.setdefault(box.track_id, set()).add(number)
    assert sorted(map(sorted, whose.values())) == [[number] for number in sorted(real)]
    assert sorted(v.part.track_id for v in parts if v.part) == sorted(whose)
    assert [v.frame_id for v in parts] == list(range(len(real)))
    assert {v.camera for v in parts} == {"belt.parts"}
    accounts = running.ledger.snapshot()
    assert accounts["belt.parts"].frames.received == len(real)
    assert accounts["belt.parts"].frames.in_flight == 0
    for verdict in parts:
        assert verdict.part is not None
        counted = verdict.part.passed + verdict.part.rejected + verdict.part.unknown
        seen = sum(verdict.part.track_id in [b.track_id for b in frame.boxes] for frame in frames)
        if conclude == "frames" and verdict.part.ended == "frames":
            assert counted == 10
        if verdict.part.ended in ("lost", "end") and conclude == "lost":
            assert counted == seen
        if verdict.part.ended == "line":
            (number,) = whose[verdict.part.track_id]
            truth = shown[verdict.part.last_frame_id]
            box = truth.boxes[truth.part_ids.index(number)]
            assert 320 <= (box[0] + box[2]) / 2 < 332
    assert Counter(v.part.ended for v in parts if v.part)[conclude] >= len(real) - 3


def test_dropped_frames_are_unknown_for_the_part_and_lose_no_part() -> None:
    running, sink, shown = _run_conveyor(160, TrackConfig(), delay_s=0.06, policy="drop_oldest")
    frames, parts = _split(sink)
    accounts = running.ledger.snapshot()
    assert accounts["belt"].frames.dropped > 5
    assert accounts["belt.parts"].frames == Tally(
        received=len(parts),
        scored=sum(v.verdict is not UNKNOWN for v in parts),
        failed=sum(v.verdict is UNKNOWN for v in parts),
    )
    assert len(parts) == len({number for truth in shown for number in truth.part_ids})
    boxes = [box for frame in frames for box in frame.boxes]
    assert sum(v.part.unknown for v in parts if v.part) == sum(b.verdict is UNKNOWN for b in boxes) > 0


def test_an_engine_that_fails_makes_the_parts_unknown() -> None:
    def fails(number: int) -> None:
        raise RuntimeError(f"batch {number}")

    _, sink, _ = _run_conveyor(120, TrackConfig(), on_start=fails)
    _, parts = _split(sink)
    assert len(parts) >= 3
    assert {v.verdict for v in parts} == {UNKNOWN}


def _boxes_at(*xs: float) -> np.ndarray[Any, Any]:
    return np.array([(x, 2, x + 20, 22) for x in xs], np.float32).reshape(-1, 4)


def _said(frame: Frame, kind: VerdictKind = PASS) -> FrameVerdict:
    ids = frame.track_ids or ()
    return FrameVerdict(
        camera=frame.camera,
        frame_id=frame.frame_id,
        verdict=kind,
        boxes=tuple(BoxVerdict(box=(0, 0, 1, 1), verdict=kind, score=-1.0, track_id=i) for i in ids),
        outcome=Outcome.SCORED,
        captured_ns=frame.frame_id,
        threshold=0.0,
    )


def _frame(frame_id: int, *xs: float, **more: Any) -> Frame:
    return grey_frame(frame_id, image=np.zeros((100, 400), np.uint8), boxes=_boxes_at(*xs), **more)


def test_verdicts_that_come_late_and_out_of_order_are_waited_for() -> None:
    parts, track = open_parts(Ledger()), TrackConfig(lost_frames=2)
    seen = [_frame(i, 10.0 + i) for i in range(4)] + [_frame(i) for i in range(4, 9)]
    for frame in seen:
        assert parts.announce(frame, track) == []  # lost by now, but no frame has its verdict yet
    for frame in (seen[2], seen[0], seen[3], *seen[4:]):
        assert parts.settle(_said(frame)) == []
    (verdict,) = parts.settle(_said(seen[1]))
    assert verdict.part is not None
    assert (verdict.verdict, verdict.part.ended, verdict.captured_ns) == (PASS, "lost", 3)
    assert (verdict.part.first_frame_id, verdict.part.last_frame_id, verdict.part.passed) == (0, 3, 4)
    assert parts.finish() == []


def test_gaps_and_blind_frames_move_the_expected_place_on() -> None:
    parts, track = open_parts(Ledger()), TrackConfig(lost_frames=10)
    ids = []
    for i in (0, 1, 2, 3, 4, 9, 10):  # 5 to 8 are missing: 40 px, two sides of the box
        frame = _frame(i, 10.0 + 8 * i)
        parts.announce(frame, track)
        ids.append(frame.track_ids)
    assert set(ids) == {(0,)}
    blind = _frame(11, 98.0, fault="bad_image")
    parts.announce(blind, track)
    assert blind.track_ids is None
    after = _frame(12, 106.0)
    parts.announce(after, track)
    assert after.track_ids == (0,)


def test_a_source_that_counts_anew_begins_new_parts() -> None:
    parts, track = open_parts(ledger := Ledger()), TrackConfig()
    first, again = _frame(5, 10.0), _frame(0, 10.0)
    parts.announce(first, track)
    parts.settle(_said(first))
    (verdict,) = parts.announce(again, track)
    assert verdict.part is not None
    assert verdict.part.ended == "restart"
    assert (first.track_ids, again.track_ids) == ((0,), (1,))
    assert ledger.snapshot()["cam.parts"].frames == Tally(received=2, failed=1, in_flight=1)


def test_boxes_that_are_none_are_not_tracked_and_cameras_do_not_mix() -> None:
    parts, track = open_parts(Ledger()), TrackConfig()
    odd = grey_frame(0, image=np.zeros((100, 400), np.uint8), boxes=_boxes_at(np.nan, 10.0, 900.0))
    parts.announce(odd, track)
    assert odd.track_ids == (None, 0, None)
    other = _frame(0, 10.0, camera="other")
    parts.announce(other, track)
    assert other.track_ids == (0,)
    assert parts.settle(_said(other)) == []
    assert [v.camera for v in parts.finish(["other"])] == ["other.parts"]
    crowd = _frame(1, *np.linspace(0, 390, 513).tolist())
    parts.announce(crowd, track)
    assert crowd.fault == "tracking_failed: expected at most 512 boxes to track, got 513"


def test_parts_that_cross_the_line_are_not_opened_again() -> None:
    parts, track = (
        open_parts(ledger := Ledger()),
        TrackConfig(conclude="line", at_px=30, lost_frames=2, min_frames=2),
    )
    verdicts = []
    for i in range(20):
        frame = _frame(i, *([10.0 + 8 * i] if i < 14 else []))
        verdicts += parts.announce(frame, track)
        verdicts += parts.settle(_said(frame))
    assert [v.part.ended for v in verdicts if v.part] == ["line"]
    assert verdicts[0].part is not None
    assert verdicts[0].part.last_frame_id == 2
    assert parts._done == set()
    assert ledger.snapshot()["cam.parts"].frames == Tally(received=1, scored=1)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"conclude": "line"}, "at_px"),
        ({"at_px": 3}, "at_px"),
        ({"min_frames": 0}, "min_frames"),
        ({"max_unknown": 1}, "max_unknown"),
        ({"conclude": "frames", "frames": 2}, "frames: expected min_frames"),
        ({"nope": 1}, "nope"),
    ],
)
def test_a_wrong_section_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert({"id": "a", "source": {}, "track": section}, CameraConfig, "cameras[0]")


def test_names_of_parts_are_not_for_cameras() -> None:
    cameras = [{"id": "a", "source": {}, "track": {}}, {"id": "a.parts", "source": {}}]
    with pytest.raises(ConfigError, match=r"a\.parts is the name of the parts"):
        convert({"bundle": "demo", "cameras": cameras}, LineConfig, "")


def test_a_sink_can_take_parts_only(tmp_path: Any) -> None:
    path = tmp_path / "v.jsonl"
    sink = open_sink({"kind": "jsonl", "path": str(path), "only": "parts"}, "sinks[0]")
    outlet = open_sink({"kind": "jsonl", "path": str(path), "only": "frames", "delivery": {}}, "sinks[1]")
    said = _said(_frame(0, 1.0))
    assert (sink.wants(said), outlet.wants(said)) == (False, True)
    sink.close()
    outlet.close()
    with pytest.raises(ConfigError, match=r"sinks\[0\].only: expected frames or parts, got 'boxes'"):
        open_sink({"kind": "jsonl", "path": str(path), "only": "boxes"}, "sinks[0]")


def test_a_line_that_finds_tracks_and_concludes(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(spec=bundle.manifest.image_spec)
    monkeypatch.setattr("algan_stream.service.open_engine", lambda *_: engine)
    camera = {
        "id": "belt",
        "source": {"kind": "conveyor", "frames": 110, "fps": 0, "seed": 5},
        "backpressure": "block",
        "boxes": {"kind": "blobs", "background": "threshold", "level": 120, "merge": 4, "min_area": 3000},
        "when_empty": "ignore",
        "track": {"conclude": "line", "at_px": 320},
    }
    line = convert({"bundle": str(bundle.path), "cameras": [camera]}, LineConfig, "")
    sink = ListSink()
    ended: list[Any] = []
    service = Service(line, [sink])
    thread = threading.Thread(target=lambda: ended.append(service.run()), daemon=True)
    thread.start()
    thread.join(60)
    (accounts,) = ended
    frames, parts = _split(sink)
    assert accounts["belt"].frames.received == accounts["belt"].frames.scored == 110
    empty = accounts["belt"].verdicts.get("unknown", {}).get("empty", 0)
    assert len(frames) == 110 - empty
    assert len(parts) == accounts["belt.parts"].frames.received
    assert accounts["belt.parts"].frames.in_flight == 0
    truth = Conveyor(seed=5)
    first = next(i for i in range(99) if len(truth.frame(i).boxes))
    crossed = {
        number
        for i in range(first, first + 110)
        for number, box in zip(truth.frame(i).part_ids, truth.frame(i).boxes.tolist(), strict=True)
        if (box[0] + box[2]) / 2 >= 324
    }
    by_line = [v for v in parts if v.part and v.part.ended == "line"]
    assert len(crossed) >= 2
    assert len(by_line) == len(crossed)


def test_blobs_find_the_parts_on_the_rendered_belt() -> None:
    conveyor = Conveyor(seed=7)
    finder = create_blobs(BlobsConfig(background="threshold", level=120, merge=4, min_area=3000, scale=1.0))
    found = wanted = 0
    for i in range(30, 130, 5):
        truth = conveyor.frame(i)
        frame = Frame("belt", i, truth.image, "bgr8", captured_ns=0)
        find_boxes(finder, frame)
        assert frame.boxes is not None
        wanted += len(truth.boxes)
        for x0, y0, x1, y1 in truth.boxes.tolist():
            inside = [
                b
                for b in frame.boxes.tolist()
                if x0 - 8 <= b[0] < b[2] <= x1 + 8 and y0 - 8 <= b[1] < b[3] <= y1 + 8
            ]
            found += len(inside) == 1
    assert wanted > 30
    assert found >= 0.95 * wanted


def test_boxes_below_the_pictures_rows_of_colour_show_no_part() -> None:
    """In planar YUV a third of the array's rows are none of the picture's."""
    frame = grey_frame(0, image=np.zeros((96, 64), np.uint8), pixel_format="nv12")
    frame.boxes = np.array([[4, 4, 20, 20], [4, 70, 20, 90]], np.float32)
    CameraTracker(TrackConfig(), count()).assign(frame)
    assert frame.track_ids == (0, None)
