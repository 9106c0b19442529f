"""Network cameras: GStreamer's RTSP server on loopback, and MJPEG from a small web server."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algan_stream.bundle import Bundle
from algan_stream.errors import CameraError, ConfigError
from algan_stream.sources import live
from cameras import MjpegServer, Opened, RtspServer, h264, opened
from fakes import ListSink
from lines import get, line_of, running, wait_for
from servers import free_port

pytest.importorskip("av", reason="PyAV is not installed (extra `stream`)")

_LOGIN = "oper:s3c/r@t:x"


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine pictures may come faster than these tests take them; that is tested elsewhere."""
    monkeypatch.setattr(live, "_WAITING", 100)


@pytest.fixture
def rtsp() -> Iterator[RtspServer]:
    with RtspServer() as server:
        yield server


def _section(url: str, **more: Any) -> dict[str, Any]:
    return {"kind": "stream", "url": url, **more}


def test_rtsp_in_order_with_the_cameras_own_times(rtsp: RtspServer) -> None:
    with opened(_section(rtsp.url, fps=25)) as camera:
        frames = camera.play(40)
        assert camera.missing == 0
    assert [frame.frame_id for frame in frames] == list(range(40))
    assert not any(frame.fault for frame in frames)
    assert {frame.image.shape for frame in frames} == {(240, 320, 3)}
    assert len({frame.image.tobytes() for frame in frames}) == 40  # the ball moves: none comes twice
    apart_ms = np.diff([frame.captured_ns for frame in frames[10:]]) / 1e6
    assert np.abs(apart_ms - 40).max() < 8


def test_rtsp_stopped_and_back_in_a_service_that_goes_on(bundle: Bundle, rtsp: RtspServer) -> None:
    """Less than two seconds after its return pictures are judged again; meanwhile everybody is told."""
    line, sink = line_of(bundle, _section(rtsp.url)), ListSink()
    with running(line, sink) as service:
        wait_for(lambda: len(sink.verdicts) > 10)
        assert get(service, "/readyz")[0] == 200
        rtsp.stop()
        wait_for(lambda: 'algan_camera_connected{camera="cam0"} 0.0' in get(service, "/metrics")[2])
        status, _, text = get(service, "/readyz")
        assert status == 503
        assert json.loads(text)["reasons"][0].startswith("camera cam0: away for 0 s: rtsp://127.0.0.1:")
        assert get(service, "/healthz")[0] == 200  # a restart would not bring it back
        time.sleep(1.5)
        seen = len(sink.verdicts)
        rtsp.start()
        back = time.monotonic()
        wait_for(lambda: len(sink.verdicts) > seen)
        assert time.monotonic() - back < 2
        assert get(service, "/readyz")[0] == 200
        text = get(service, "/metrics")[2]
        assert 'algan_camera_connected{camera="cam0"} 1.0' in text
        assert 'algan_camera_reconnects_total{camera="cam0"} 1.0' in text
    account = service.accounts()["cam0"]
    assert account.frames.in_flight == 0
    assert account.frames.received == len(sink.verdicts)
    assert [verdict.frame_id for verdict in sink.verdicts] == list(range(len(sink.verdicts)))


def test_rtsp_that_freezes_is_connected_anew(rtsp: RtspServer) -> None:
    """SIGSTOP: the connection stays, nothing comes any more; then another process takes its place."""
    import signal

    with opened(_section(rtsp.url, stale_s=0.5)) as camera:
        frames = camera.frames()
        list(islice(frames, 5))
        assert rtsp._process
        rtsp._process.send_signal(signal.SIGSTOP)
        frozen = time.monotonic()
        threading.Timer(1.0, lambda: (rtsp.stop(), rtsp.start())).start()
        link = camera.source.links[0]
        while link.reconnects == 0:
            next(frames)
        assert 1.0 < time.monotonic() - frozen < 5


@pytest.mark.parametrize("where", ["login_env", "login_file", "url"])
def test_the_login_is_used_and_never_shown(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("CAMERA_LOGIN", _LOGIN)
    (tmp_path / "login").write_text(f"{_LOGIN}\n")
    with RtspServer(login=_LOGIN) as server:
        section = _section(f"{server.url}?token=s3c")
        if where == "url":
            section["url"] = section["url"].replace("//", "//oper:s3c%2Fr%40t%3Ax@")
        else:
            section[where] = "CAMERA_LOGIN" if where == "login_env" else str(tmp_path / "login")
        section["url"] = section["url"].partition("?")[0]  # this server takes no query
        with opened(section) as camera:
            frames = camera.frames()
            assert not next(frames).fault
            server.stop()
            camera_down = threading.Timer(0.5, camera.stop.set)
            camera_down.start()
            list(frames)
            shown = camera.source.links[0].problem()
    assert "127.0.0.1" in shown
    assert "s3c" not in shown + caplog.text
    assert "oper" not in shown + caplog.text


def test_a_refused_login_says_so_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_LOGIN", "oper:wr0ng")
    with (
        RtspServer(login=_LOGIN) as server,
        pytest.raises(CameraError, match=r"opened: .*401") as told,
    ):
        Opened(_section(server.url, login_env="CAMERA_LOGIN"))
    assert "wr0ng" not in str(told.value)
    cause = told.value.__cause__
    assert cause is not None
    assert "wr0ng" not in str(cause)
    assert cause.__suppress_context__  # FFmpeg's own message holds the URL


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_what_was_lost_on_the_way_is_never_judged(transport: str) -> None:
    """The server drops one packet in a hundred; a picture of it, and those built on that, are faulty."""
    lossy = h264("snow", 320, "! identity drop-probability=0.02 name=pay0")
    with RtspServer(lossy) as server, opened(_section(server.url, transport=transport)) as camera:
        frames = camera.play(60)
    faults = [frame for frame in frames if frame.fault]
    assert 5 < len(faults) < 60
    assert all(frame.fault.startswith("damaged_picture: ") for frame in faults)
    runs = "".join("x" if frame.fault else "." for frame in frames).split(".")
    assert max(map(len, runs)) > 3  # up to the next key picture, not one by one


def test_pictures_that_the_time_stamps_leave_out_are_missing() -> None:
    skipping = (
        "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=25/1 ! "
        "identity drop-probability=0.2 ! x264enc tune=zerolatency speed-preset=ultrafast ! "
        "rtph264pay name=pay0"
    )
    with RtspServer(skipping) as server, opened(_section(server.url, fps=25)) as camera:
        frames = camera.play(40)
        last = frames[-1].frame_id
        assert camera.missing == last - 39
        assert 1 < camera.missing < 30


def test_a_camera_set_to_another_size_is_a_fault(rtsp: RtspServer) -> None:
    with opened(_section(rtsp.url)) as camera:
        frames = camera.frames()
        assert not next(frames).fault
        rtsp.stop()
        rtsp.start(h264(width=160))
        faults = [frame.fault for frame in islice(frames, 60)]
    assert faults[-1] == "wrong_size: expected 320 x 240 pixels, got 160 x 240"


def test_mjpeg_over_http() -> None:
    def spoil(i: int, data: bytes) -> bytes:
        return {5: data[: len(data) * 9 // 10], 7: b"no picture at all", 9: data[:-2]}.get(i % 12, data)

    with MjpegServer(spoil) as server, opened(_section(f"{server.url}?token=s3c")) as camera:
        frames = camera.play(30)
    assert [frame.frame_id for frame in frames] == list(range(30))
    for i, frame in enumerate(frames):
        if i % 12 in (5, 7, 9):
            assert frame.fault.startswith("damaged_picture: ")
            assert frame.image.size == 0
        else:
            assert frame.fault == ""
            assert abs(float(frame.image.mean()) - 20 * (i % 12) - 3.5) < 2


def test_mjpeg_that_pauses_is_connected_anew() -> None:
    with MjpegServer() as server, opened(_section(server.url, stale_s=0.3)) as camera:
        frames = camera.frames()
        list(islice(frames, 3))
        server.pause.set()
        threading.Timer(0.8, server.pause.clear).start()
        link = camera.source.links[0]
        while link.reconnects == 0:
            next(frames)


def test_stop_does_not_wait_for_a_camera_that_is_silent() -> None:
    with MjpegServer() as server, opened(_section(server.url, stale_s=2)) as camera:
        frames = camera.frames()
        next(frames)
        server.pause.set()
        threading.Timer(0.2, camera.stop.set).start()
        started = time.monotonic()
        list(frames)
        assert time.monotonic() - started < 1.8
        server.pause.clear()


def test_nobody_there() -> None:
    url = f"rtsp://me:s3c@127.0.0.1:{free_port()}/cam"
    with pytest.raises(CameraError, match=r"rtsp://127\.0\.0\.1:\d+/cam: .*: Connection refused"):
        Opened(_section(url))
    with opened(_section(url, required_at_start=False)) as camera:
        threading.Timer(0.5, camera.stop.set).start()
        assert list(camera.frames()) == []
        assert "s3c" not in camera.source.links[0].problem()


def test_something_else_there() -> None:
    with MjpegServer() as server, pytest.raises(CameraError, match="cannot be opened"):
        Opened(_section(server.url + "/other"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"url": "ftp://cam/1"}, "url: expected rtsp://.* got ftp://cam/1"),
        ({"url": "rtsp://u:s3c@/x"}, "url: expected rtsp://"),
        ({"url": "rtsp://u:s3c@cam:99999/x"}, "url: expected a port"),
        ({"url": "cam"}, "url: expected"),
        ({"transport": "pigeon"}, "source.transport: expected one of tcp, udp"),
        ({"fps": 0}, "fps: expected above 0"),
        ({"stale_s": 0}, "stale_s: expected 0.1"),
        ({"login_env": "A", "login_file": "b"}, "login_file: expected only one"),
        ({"login_env": "NOT_SET_AT_ALL"}, "login_env: the environment variable NOT_SET_AT_ALL is not set"),
        ({"login_file": "nowhere"}, "login_file: nowhere cannot be read: FileNotFoundError"),
        ({"pixels": 3}, r"source\.pixels: unknown key"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as told:
        Opened(_section("rtsp://127.0.0.1/x") | more)
    assert "s3c" not in str(told.value)
