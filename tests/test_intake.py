"""Bounded queues: what falls out, what waits, and who goes first."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from algan_stream.intake import HEAD_START, Backpressure, Intake
from algan_stream.types import Frame
from fakes import grey_frame

_MS = 1_000_000


def _intake(policy: Backpressure, capacity: int = 2) -> Intake:
    intake = Intake()
    intake.open_lane("cam", capacity, policy)
    return intake


def _ids(fallen: list[tuple[Frame, str]]) -> list[tuple[int, str]]:
    return [(frame.frame_id, reason) for frame, reason in fallen]


def _all(intake: Intake) -> list[int]:
    taken = []
    while (frame := intake.take(0)) is not None:
        taken.append(frame.frame_id)
    return taken


def test_drop_oldest_keeps_the_newest() -> None:
    intake = _intake("drop_oldest")
    fallen = [pair for i in range(5) for pair in _ids(intake.put(grey_frame(i)))]
    assert fallen == [(0, "queue_full"), (1, "queue_full"), (2, "queue_full")]
    assert _all(intake) == [3, 4]


def test_drop_newest_keeps_the_oldest() -> None:
    intake = _intake("drop_newest")
    fallen = [pair for i in range(5) for pair in _ids(intake.put(grey_frame(i)))]
    assert fallen == [(2, "queue_full"), (3, "queue_full"), (4, "queue_full")]
    assert _all(intake) == [0, 1]


def test_block_waits_for_room_and_loses_nothing() -> None:
    intake, fallen = _intake("block", capacity=1), []

    def feed() -> None:
        for i in range(20):
            fallen.extend(intake.put(grey_frame(i)))

    feeder = threading.Thread(target=feed)
    feeder.start()
    time.sleep(0.05)
    assert feeder.is_alive()  # one frame fits; the second waits
    taken = []
    while len(taken) < 20 and (frame := intake.take(10.0)) is not None:
        taken.append(frame.frame_id)
    feeder.join(10.0)
    assert not feeder.is_alive()
    assert (taken, fallen) == (list(range(20)), [])


def test_close_releases_a_blocked_feeder_and_says_why() -> None:
    intake, fallen = _intake("block", capacity=1), []
    intake.put(grey_frame(0))
    feeder = threading.Thread(target=lambda: fallen.extend(intake.put(grey_frame(1))))
    feeder.start()
    time.sleep(0.02)
    intake.close()
    feeder.join(10.0)
    assert not feeder.is_alive()
    assert _ids(fallen) == [(1, "shutdown")]
    assert intake.closed
    assert _all(intake) == [0]  # what was inside can still be taken
    assert intake.empty()


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "drop_newest"])
def test_nothing_enters_after_close(policy: Backpressure) -> None:
    intake = _intake(policy)
    intake.close()
    assert _ids(intake.put(grey_frame(0))) == [(0, "shutdown")]
    assert intake.take(None) is None  # closed and empty: even an endless wait ends


def test_close_wakes_a_waiting_consumer() -> None:
    intake, got = _intake("block"), []
    consumer = threading.Thread(target=lambda: got.append(intake.take(None)))
    consumer.start()
    time.sleep(0.02)
    intake.close()
    consumer.join(10.0)
    assert got == [None]


def test_take_gives_up_in_time() -> None:
    started = time.monotonic()
    assert _intake("block").take(0.05) is None
    assert 0.04 < time.monotonic() - started < 5.0


def test_the_nearest_deadline_goes_first_and_patience_has_an_end() -> None:
    intake, now = Intake(), time.monotonic_ns()
    deadlines = {"late": now + 900 * _MS, "soon": now + 10 * _MS, "none": None, "older": None}
    received = {"none": now, "older": now - 995 * _MS}  # without a deadline: as if it had a second
    for i, (camera, deadline) in enumerate(deadlines.items()):
        intake.open_lane(camera, 4, "block")
        intake.put(grey_frame(i, camera=camera, deadline_ns=deadline, received_ns=received.get(camera, now)))
    assert [intake.take(0).camera for _ in range(4)] == ["older", "soon", "late", "none"]


def test_one_cameras_frames_stay_in_order() -> None:
    """An urgent frame behind another of the same camera waits: order within a camera is worth more."""
    intake, now = _intake("block"), time.monotonic_ns()
    intake.put(grey_frame(0, deadline_ns=now + 900 * _MS))
    intake.put(grey_frame(1, deadline_ns=now + 10 * _MS))
    assert _all(intake) == [0, 1]


def test_a_full_camera_does_not_touch_another() -> None:
    intake = _intake("drop_oldest", capacity=1)
    intake.open_lane("other", 1, "drop_oldest")
    intake.put(grey_frame(7, camera="other"))
    for i in range(3):
        intake.put(grey_frame(i))
    assert sorted(_all(intake)) == [2, 7]


def test_depths_of_all_cameras() -> None:
    intake = _intake("block")
    intake.open_lane("other", 3, "drop_newest")
    for i in range(5):
        intake.put(grey_frame(i, camera="other"))
    assert intake.depths() == {"cam": 0, "other": 3}


def test_opening_a_lane_again_keeps_what_is_in_it() -> None:
    intake = _intake("drop_newest", capacity=1)
    intake.put(grey_frame(0))
    intake.open_lane("cam", 99, "block")
    assert _ids(intake.put(grey_frame(1))) == [(1, "queue_full")]
    assert _all(intake) == [0]


def test_wake_ends_a_wait_that_has_a_limit_and_no_other() -> None:
    intake = _intake("block")
    intake.wake()
    started = time.monotonic()
    assert intake.take(timeout_s=30.0) is None
    assert time.monotonic() - started < 10.0
    taken: list[Frame | None] = []
    waiter = threading.Thread(target=lambda: taken.append(intake.take(None)), daemon=True)
    waiter.start()
    intake.wake()
    waiter.join(0.2)
    assert waiter.is_alive()
    intake.put(grey_frame(5))
    waiter.join(10.0)
    assert [frame.frame_id for frame in taken if frame] == [5]


def _flood(intake: Intake, camera: str, frames: int, boxes: int, deadline_ns: int | None = None) -> None:
    intake.open_lane(camera, 100, "block")
    for i in range(frames):
        frame = grey_frame(i, camera=camera, deadline_ns=deadline_ns, received_ns=time.monotonic_ns())
        frame.boxes = np.zeros((boxes, 4), np.float32)
        intake.put(frame)


def _order(intake: Intake) -> list[str]:
    cameras = []
    while (frame := intake.take(0)) is not None:
        cameras.append(frame.camera)
    return cameras


def test_many_boxes_do_not_starve_a_camera_with_one() -> None:
    intake = Intake()
    _flood(intake, "many", 10, 200)  # all of them older
    _flood(intake, "one", 10, 1)
    order = _order(intake)
    assert order.index("one") <= 1
    assert order[:11].count("one") == 10  # ten boxes are not yet one frame's worth of the other


def test_a_share_is_counted_in_boxes_even_against_nearer_deadlines() -> None:
    intake, now = Intake(), time.monotonic_ns()
    _flood(intake, "hasty", 40, 16, deadline_ns=now + 50 * _MS)
    _flood(intake, "calm", 40, 16, deadline_ns=now + 5000 * _MS)
    order = _order(intake)
    for i in range(1, 80):
        ahead = order[:i].count("hasty") - order[:i].count("calm")
        assert -1 <= ahead * 16 <= HEAD_START + 16
    assert order[:3] == ["hasty", "hasty", "hasty"]  # within the head start, the nearer deadline goes first


def test_who_was_away_has_saved_no_credit() -> None:
    intake = Intake()
    _flood(intake, "busy", 50, 10)
    assert len(_order(intake)) == 50
    _flood(intake, "busy", 20, 10)
    _flood(intake, "back", 20, 10)
    order = _order(intake)
    assert 5 <= order[:20].count("busy") <= 15


def test_between_the_batches_of_a_large_job_only_others_small_frames_come() -> None:
    intake = Intake()
    _flood(intake, "large", 2, 64)
    _flood(intake, "other", 1, 64)
    assert intake.take_between("large", 8) is None
    _flood(intake, "small", 2, 8)
    assert [f.camera for f in iter(lambda: intake.take_between("large", 8), None)] == ["small", "small"]
    assert sorted(_order(intake)) == ["large", "large", "other"]
