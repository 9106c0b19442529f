"""What all live cameras share, on a scripted device; the real peers are in the other tests of sources."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest

from algan_stream.errors import CameraError, ConfigError
from algan_stream.ledger import Ledger
from algan_stream.sources import live
from algan_stream.sources.base import SourceContext
from algan_stream.sources.device import Device, Picture
from algan_stream.sources.link import Backoff, CameraClock, Gaps
from algan_stream.sources.live import LiveConfig, LiveSource
from algan_stream.types import Frame

_SCRIPT = Callable[["Scripted"], "Picture | None"]


class Scripted(Device):
    """Gives what its script says, as long as that is."""

    def __init__(self, script: Iterator[Any], wrap: tuple[int, int] | None = None) -> None:
        self._script, self.wrap, self.closed = script, wrap, 0

    def grab(self, timeout_s: float) -> Picture | None:
        step = next(self._script, None)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, float):
            time.sleep(step)
            return None
        if step is None:
            time.sleep(timeout_s)
        return step

    def close(self) -> None:
        self.closed += 1


def _picture(number: int | None = None, side: int = 4, **more: Any) -> Picture:
    return Picture(np.full((side, side), 7, np.uint8), "grey8", (side, side), number=number, **more)


class Camera:
    """A live source over connections whose scripts, or failures, are given in order."""

    def __init__(self, *connections: Any, deadline_ms: float | None = None, **config: Any) -> None:
        self.devices: list[Scripted] = []
        self.tried_at: list[float] = []
        self._left = iter(connections)
        self.ledger, self.stop = Ledger(), threading.Event()
        context = SourceContext("cam", deadline_ms, 4, self.ledger, lambda *_: None)
        settings = {"retry_s": 0.02, "retry_most_s": 0.1, **config}
        self.source = LiveSource(LiveConfig(**settings), context, self._connect)

    def _connect(self) -> Device:
        self.tried_at.append(time.monotonic())
        connection = next(self._left, CameraError("cam:1: is off"))
        if isinstance(connection, Exception):
            raise connection
        self.devices.append(Scripted(iter(connection)))
        return self.devices[-1]

    def play(self, count: int) -> list[Frame]:
        frames = self.source.frames(self.stop)
        got = list(islice(frames, count))
        self.stop.set()
        list(frames)
        return got

    @property
    def missing(self) -> int:
        account = self.ledger.snapshot().get("cam")
        return account.missing if account else 0


_CHECK: list[Any] = []  # the connection that the constructor opens and closes


def test_it_comes_back_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    off = [CameraError("cam:1: is off")] * 5
    camera = Camera(_CHECK, [_picture(), CameraError("cam:1: was unplugged")], *off, [_picture(), _picture()])
    frames = camera.play(3)
    assert [frame.frame_id for frame in frames] == [0, 1, 2]
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO"]
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "camera cam: is connected"
    assert said[1] == "camera cam: cam:1: was unplugged; trying again until it is back"
    assert said[2].startswith("camera cam: is back after ")
    assert (camera.source.link.reconnects, camera.source.link.connected) == (1, True)
    assert [device.closed for device in camera.devices] == [1, 1, 1]


def test_attempts_wait_longer_each_time_and_never_in_step() -> None:
    camera = Camera(_CHECK, required_at_start=True, retry_s=0.04, retry_most_s=0.16)
    threading.Timer(0.8, camera.stop.set).start()
    assert list(camera.source.frames(camera.stop)) == []
    waits = np.diff(camera.tried_at[1:])
    full = [0.04, 0.08, 0.16, 0.16]
    for wait, most in zip(waits.tolist(), full, strict=False):
        assert most / 2 - 0.01 < wait < most + 0.1
    assert len(waits) >= 4


def test_backoff_is_drawn_anew() -> None:
    waits = {Backoff(1.0, 8.0).next_s() for _ in range(20)}
    assert len(waits) == 20
    assert all(0.5 <= wait <= 1.0 for wait in waits)
    backoff = Backoff(1.0, 8.0)
    assert [0.5 <= backoff.next_s() / full <= 1.0 for full in (1, 2, 4, 8, 8, 8)] == [True] * 6
    backoff.reset()
    assert backoff.next_s() <= 1.0


@pytest.mark.parametrize("pause", [None, 0.05])
def test_a_stream_that_stands_still_is_connected_anew(pause: float | None) -> None:
    """Whether the library waits or says that there is nothing yet."""
    quiet = [pause] * 1000 if pause else []
    camera = Camera(_CHECK, [_picture(), *quiet], [_picture()], stale_s=0.3)
    started = time.monotonic()
    assert len(camera.play(2)) == 2
    assert 0.3 < time.monotonic() - started < 2
    assert camera.source.link.reconnects == 1


def test_a_camera_that_waits_for_a_trigger_is_left_alone() -> None:
    camera = Camera(_CHECK, [_picture(), *[0.05] * 20, _picture()], stale_s=0)
    assert len(camera.play(2)) == 2
    assert camera.source.link.reconnects == 0
    assert len(camera.devices) == 2


def test_a_library_that_hangs_holds_up_neither_frames_nor_stop() -> None:
    hang = threading.Event()

    class Hanging(Scripted):
        def grab(self, timeout_s: float) -> Picture | None:
            hang.wait(60)
            return None

    camera = Camera(_CHECK, [], [_picture()], stale_s=0.2)
    real, made = camera.source._connect, []

    def connect() -> Device:
        device = real()
        made.append(device)
        return Hanging(iter(())) if len(made) == 1 else device

    camera.source._connect = connect
    started = time.monotonic()
    assert len(camera.play(1)) == 1
    assert time.monotonic() - started < 4
    hang.set()


def test_connections_that_hang_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_GOODBYE_S", 0.05)
    monkeypatch.setattr(live, "_GRACE_S", 0.05)
    hang, opened = threading.Event(), 0

    def connect() -> Device:
        nonlocal opened
        opened += 1
        hang.wait(60)
        raise CameraError("gone")

    camera = Camera(_CHECK, open_s=0.1)
    camera.source._connect = connect
    frames = threading.Thread(target=lambda: list(camera.source.frames(camera.stop)), daemon=True)
    frames.start()
    time.sleep(1.5)
    assert opened == 3
    assert "hang in the camera's library" in camera.source.link.problem()
    camera.stop.set()
    frames.join(3)
    assert not frames.is_alive()
    hang.set()


def test_the_process_ends_after_what_it_left_behind() -> None:
    """A connection that its library holds for three seconds more, and a stop meanwhile."""
    script = """
import sys, threading, time
from algan_stream.ledger import Ledger
from algan_stream.sources.base import SourceContext
from algan_stream.sources.live import Device, LiveConfig, LiveSource
class Slow(Device):
    def grab(self, timeout_s):
        time.sleep(3)
        sys.stdout.write("out of the library\\n")
    def close(self): pass
stop = threading.Event()
source = LiveSource(LiveConfig(), SourceContext("cam", None, 4, Ledger(), lambda *_: None), Slow)
threading.Timer(0.2, stop.set).start()
list(source.frames(stop))
sys.stdout.write("stopped\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "stopped\nout of the library\n"


def test_gaps_are_missing_and_leave_their_numbers_free() -> None:
    camera = Camera(_CHECK, [_picture(5), _picture(6), _picture(9), _picture(10)])
    assert [frame.frame_id for frame in camera.play(4)] == [0, 1, 4, 5]
    assert camera.missing == 2


def test_a_new_connection_counts_anew() -> None:
    camera = Camera(_CHECK, [_picture(5), CameraError("off")], [_picture(100), _picture(101)])
    assert [frame.frame_id for frame in camera.play(3)] == [0, 1, 2]
    assert camera.missing == 0


@pytest.mark.parametrize(
    ("wrap", "numbers", "lost"),
    [
        (None, [0, 1, 2], [0, 0, 0]),
        (None, [7, 9, 20], [0, 1, 10]),
        (None, [7, 0, 1], [0, 0, 0]),
        (None, [7, None, 9], [0, 0, 0]),
        (None, [7, 7], [0, 0]),
        ((1, 65535), [65534, 65535, 1, 2], [0, 0, 0, 0]),
        ((1, 65535), [65534, 2], [0, 2]),
        ((1, 65535), [65535, 65536, 65538], [0, 0, 1]),
        ((1, 65535), [40000, 1], [0, 25535]),
        ((1, 65535), [9, 1], [0, 0]),
    ],
)
def test_gaps(wrap: tuple[int, int] | None, numbers: list[int | None], lost: list[int]) -> None:
    gaps = Gaps(wrap)
    assert [gaps.lost_before(number) for number in numbers] == lost


def test_a_slow_reader_gets_a_fault_for_each_picture_that_it_missed() -> None:
    camera = Camera(_CHECK, [_picture(i) for i in range(16)])
    frames = camera.source.frames(camera.stop)
    first = next(frames)
    time.sleep(0.3)
    rest = list(islice(frames, 15))
    camera.stop.set()
    assert list(frames) == []
    assert [frame.frame_id for frame in (first, *rest)] == list(range(16))
    lost = [frame for frame in rest if frame.fault]
    assert len(lost) == 7
    assert all(frame.fault.startswith("overrun: ") and frame.image.size == 0 for frame in lost)
    assert camera.missing == 0


def test_another_size_is_a_fault() -> None:
    camera = Camera(_CHECK, [_picture(), _picture(side=6), _picture()])
    assert [frame.fault for frame in camera.play(3)] == [
        "",
        "wrong_size: expected 4 x 4 pixels, got 6 x 6",
        "",
    ]
    wanted = Camera(_CHECK, [_picture()], size_wh=(8, 8))
    assert wanted.play(1)[0].fault.startswith("wrong_size: expected 8 x 8")


def test_faults_of_the_device_are_announced() -> None:
    camera = Camera(_CHECK, [_picture(), _picture(fault="incomplete: 3 packets"), _picture()])
    assert [frame.fault for frame in camera.play(3)] == ["", "incomplete: 3 packets", ""]


def test_deadlines_count_from_arrival() -> None:
    arrived = time.monotonic_ns() - 50_000_000
    camera = Camera(_CHECK, [_picture(arrived_ns=arrived)], deadline_ms=200.0)
    deadline = camera.play(1)[0].deadline_ns
    assert deadline is not None
    assert abs(deadline - arrived - 200_000_000) < 1_000_000


def test_capture_times_are_the_cameras() -> None:
    """Ten pictures 40 ms apart; two of them are held up on their way."""
    now = time.monotonic_ns()
    late = {3: 30_000_000, 7: 90_000_000}
    pictures = [
        _picture(camera_ns=5_000 + i * 40_000_000, arrived_ns=now + i * 40_000_000 + late.get(i, 0))
        for i in range(10)
    ]
    frames = Camera(_CHECK, _spaced(pictures), latency_ms=10).play(10)
    times = np.array([frame.captured_ns for frame in frames], np.int64)
    assert np.abs(np.diff(times) - 40_000_000).max() < 5_000_000  # the wall clock is read at each anew
    assert abs(times[0] - (time.time_ns() - (time.monotonic_ns() - now) - 10_000_000)) < 20_000_000


def _spaced(pictures: list[Picture]) -> list[Any]:
    return [step for picture in pictures for step in (picture, 0.01)]


def test_a_cameras_clock_may_be_set() -> None:
    clock = CameraClock()
    second = 1_000_000_000
    assert clock.captured_ns(100 * second, 7 * second) == 7 * second
    assert clock.captured_ns(101 * second, 8 * second + 5) == 8 * second
    assert clock.captured_ns(5000 * second, 9 * second) == 9 * second  # put forward
    assert clock.captured_ns(102 * second, 10 * second) == 10 * second  # and back
    for i in range(200):  # and drifts by a millisecond a second
        arrived = (11 + i) * second
        captured = clock.captured_ns(103 * second + i * (second - second // 1000), arrived)
        assert arrived - 61 * second // 1000 <= captured <= arrived


def test_without_the_camera_there_is_no_start() -> None:
    with pytest.raises(
        CameraError, match=r"cam:1: is off; switch it on, or write `required_at_start: false`"
    ):
        Camera()


def test_wrong_settings_end_the_start_even_if_the_camera_is_not_required() -> None:
    with pytest.raises(ConfigError, match="Gain"):
        Camera(ConfigError("features.Gain: expected 3"), required_at_start=False)


def test_a_camera_that_is_not_required_may_come_later() -> None:
    camera = Camera(CameraError("cam:1: is off"), [_picture()], required_at_start=False)
    assert camera.source.link.problem().endswith("cam:1: is off")
    assert len(camera.play(1)) == 1
    assert camera.source.link.problem() == ""
    assert camera.source.link.reconnects == 0


def test_another_camera_in_its_place_is_not_taken() -> None:
    wrong = ConfigError("features.Gain: expected 3, but the camera has 0")
    camera = Camera(_CHECK, [_picture(), CameraError("off")], wrong, wrong, [_picture()])
    assert len(camera.play(2)) == 2
    assert len(camera.tried_at) == 5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("open_s", 0),
        ("stale_s", -1.0),
        ("stale_s", float("nan")),
        ("retry_s", 0.0),
        ("retry_most_s", 0.01),
        ("latency_ms", -1),
        ("size_wh", (0, 4)),
    ],
)
def test_values_without_sense(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{key}: expected"):
        LiveConfig(**{"retry_s": 0.1, key: value})
