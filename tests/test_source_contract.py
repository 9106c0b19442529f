"""What every kind of source keeps, recorded or live, on its real peer. A new kind is a line in `KINDS`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from algan_stream import plugins
from algan_stream.client import Client
from algan_stream.errors import AlganError, ConfigError
from algan_stream.preprocess import preprocess
from algan_stream.types import InputSpec
from cameras import MjpegServer, RtspServer, opened
from test_sources_pylon import _section as _basler
from test_sources_pylon import _viky
from test_sources_triggered import Requester, _by_zmq

#: Emulated Basler cameras use SIGALRM themselves, which the usual way of watching tests takes for its own.
pytestmark = pytest.mark.timeout(60, method="thread")

_COUNT = 8
_SPEC = InputSpec(height_px=8, width_px=8)

_Made = dict[str, Any]


def _folder(path: Path, _: ExitStack) -> _Made:
    (path / "images").mkdir()
    for i in range(_COUNT):
        Image.fromarray(np.full((6, 8, 3), 20 * i, np.uint8)).save(path / "images" / f"{i:02}.png")
    return {"kind": "folder", "path": str(path / "images"), "loop": True, "fps": 100}


def _video(path: Path, _: ExitStack) -> _Made:
    writer = cv2.VideoWriter(str(path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for i in range(_COUNT):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
    writer.release()
    return {"kind": "video", "path": str(path / "v.avi"), "loop": True, "fps": 100}


def _table(path: Path, _: ExitStack) -> _Made:
    np.save(path / "t.npy", np.arange(3 * _COUNT, dtype=np.float32).reshape(_COUNT, 3))
    return {"kind": "table", "path": str(path / "t.npy"), "loop": True, "fps": 100}


def _conveyor(_: Path, __: ExitStack) -> _Made:
    return {"kind": "conveyor", "fps": 100}


def _zmq(path: Path, ends: ExitStack) -> _Made:
    """With a client that sends where there is somebody to send to."""
    bind, over = f"ipc://{path / 's'}", threading.Event()

    def send() -> None:
        while not ((path / "s").exists() or over.is_set()):
            time.sleep(0.01)
        with suppress(AlganError), Client(bind, timeout_s=2) as client:
            for i in range(_COUNT + 4):
                client.send(np.full((6, 8, 3), 20 * i, np.uint8))
            over.wait(30)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    ends.callback(sender.join, 30)
    ends.callback(over.set)
    return {"kind": "zmq", "bind": bind}


def _rtsp(_: Path, ends: ExitStack) -> _Made:
    pytest.importorskip("av", reason="PyAV is not installed (extra `stream`)")
    return {"kind": "stream", "url": ends.enter_context(RtspServer()).url}


def _mjpeg(_: Path, ends: ExitStack) -> _Made:
    pytest.importorskip("av", reason="PyAV is not installed (extra `stream`)")
    return {"kind": "stream", "url": ends.enter_context(MjpegServer()).url}


def _pylon(_: Path, __: ExitStack) -> _Made:
    pytest.importorskip("pypylon", reason="pypylon is not installed (extra `pylon`)")
    return _basler({"PixelFormat": "BayerRG8"})


def _genicam(_: Path, __: ExitStack) -> _Made:
    return _viky(features={"AcquisitionFrameRate": 100.0})


def _triggered(path: Path, ends: ExitStack) -> _Made:
    """With somebody who fires all the time, without waiting for verdicts."""
    section, endpoint = _by_zmq(path, _folder(path, ends))
    over = threading.Event()

    def fire() -> None:
        requesters = [ends.enter_context(Requester(endpoint)) for _ in range(_COUNT + 4)]
        for requester in requesters:
            requester.socket.send(b"{}")

    firing = threading.Thread(target=fire, daemon=True)
    firing.start()
    ends.callback(firing.join, 30)
    ends.callback(over.set)
    return section


KINDS: dict[str, Callable[[Path, ExitStack], _Made]] = {
    "folder": _folder,
    "video": _video,
    "table": _table,
    "conveyor": _conveyor,
    "zmq": _zmq,
    "stream rtsp": _rtsp,
    "stream mjpeg": _mjpeg,
    "pylon": _pylon,
    "genicam": _genicam,
    "triggered": _triggered,
}
#: Need a camera that no machine of ours has, or a network of their own; they are tested by themselves.
_NOT_HERE = {"v4l2", "aravis"}


@pytest.fixture(params=KINDS)
def section(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[_Made]:
    with ExitStack() as ends:
        yield KINDS[request.param](tmp_path, ends)


def test_all_kinds_are_here() -> None:
    assert {name.partition(" ")[0] for name in KINDS} | _NOT_HERE >= set(plugins.kinds("sources"))


def test_frames_are_what_they_say(section: _Made) -> None:
    before_ns, before = time.time_ns(), time.monotonic_ns()
    with opened(section, deadline_ms=5000.0) as source:
        frames = source.frames()
        got = list(islice(frames, _COUNT))
        asked = time.monotonic()
        source.stop.set()
        for frame in frames:  # what is on its way is still taken
            got.append(frame)
        assert time.monotonic() - asked < 5
    good = [frame for frame in got if not frame.fault.startswith("overrun")]
    ids = [frame.frame_id for frame in got]
    assert ids[0] == 0
    assert all(a < b for a, b in pairwise(ids))
    for frame in good:
        assert (frame.camera, frame.boxes is None or frame.boxes.dtype == np.float32) == ("cam", True)
        assert frame.entry == -1
        assert before_ns - 5e9 < frame.captured_ns <= time.time_ns()
        assert frame.deadline_ns is not None
        assert before < frame.deadline_ns <= time.monotonic_ns() + 5_000_000_000
        if frame.fault:
            assert frame.fault.startswith("no_image: the service stops")  # triggers that still waited
        elif frame.vector is not None:
            assert (frame.vector.shape, frame.vector.dtype) == ((3,), np.float32)
        else:
            inputs = preprocess(frame.image, _SPEC, pixel_format=frame.pixel_format)
            assert np.isfinite(inputs).all()
    whole = [frame for frame in good if not frame.fault and frame.vector is None]
    assert not any(np.shares_memory(a.image, b.image) for a, b in pairwise(whole))


def test_stop_before_the_first_frame(section: _Made) -> None:
    with opened(section) as source:
        source.stop.set()
        started = time.monotonic()
        list(source.frames())
        assert time.monotonic() - started < 5


def test_it_may_be_closed_twice_and_unread(section: _Made) -> None:
    with opened(section) as source:
        source.source.close()


def test_an_unknown_key_is_named(section: _Made) -> None:
    with pytest.raises(ConfigError, match=r"source\.colour: unknown key"), opened(section | {"colour": 1}):
        pass
