"""Real peers for the tests of live sources: GStreamer's RTSP server, a web camera, emulated cameras."""

from __future__ import annotations

import functools
import http.server
import importlib
import os
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from algan_stream import plugins
from algan_stream.ledger import Ledger
from algan_stream.sources.base import Source, SourceContext
from algan_stream.types import Frame, InputSpec
from servers import free_port

#: Before pypylon is imported for the first time: two cameras, 0815-0000 and 0815-0001.
os.environ["PYLON_CAMEMU"] = "2"
with warnings.catch_warnings():  # an error, as which warnings count here, crashes the start of such a library
    warnings.simplefilter("ignore")
    for name in ("pypylon.pylon", "genicam.gentl", "genicam.genapi"):
        with suppress(ImportError):
            importlib.import_module(name)

_PYTHON = "/usr/bin/python3"
_SERVER = Path(__file__).with_name("rtsp_server.py")
#: A key picture every second, as cameras send it, and no reordered ones.
H264 = (
    "videotestsrc is-live=true pattern={pattern} ! video/x-raw,width={width},height=240,framerate=25/1 ! "
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 bitrate=1000 ! rtph264pay pt=96 {after}"
)


@functools.cache
def _gstreamer_lacks() -> str:
    check = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); gi.require_version('Gst', '1.0')\n"
        "from gi.repository import Gst, GstRtspServer\n"
        "Gst.init(None); print([n for n in ('x264enc', 'rtph264pay') if not Gst.ElementFactory.find(n)])"
    )
    try:
        done = subprocess.run([_PYTHON, "-c", check], capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return f"{_PYTHON} is missing"
    return "" if done.stdout.strip() == "[]" else (done.stdout or done.stderr).strip().splitlines()[-1]


def h264(pattern: str = "ball", width: int = 320, after: str = "name=pay0") -> str:
    """A pipeline for `RtspServer`."""
    return H264.format(pattern=pattern, width=width, after=after)


class RtspServer:
    """GStreamer's RTSP server with one camera, which can be switched off and on again at the same port."""

    def __init__(self, pipeline: str = h264(), login: str = "") -> None:
        if lacking := _gstreamer_lacks():
            pytest.skip(
                "GStreamer's RTSP server is not installed (Debian: apt install gir1.2-gst-rtsp-server-1.0 "
                f"python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly): "
                f"{lacking}"
            )
        self.port = free_port()
        self.url = f"rtsp://127.0.0.1:{self.port}/cam"
        self._pipeline, self._login = pipeline, login
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self, pipeline: str = "") -> None:
        command = [_PYTHON, str(_SERVER), str(self.port), pipeline or self._pipeline]
        self._process = subprocess.Popen(
            [*command, *([self._login] if self._login else [])],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            assert self._process.stdout
            self._process.stdout.close()
            self._process = None

    def __enter__(self) -> RtspServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class MjpegServer:
    """A web camera: picture i has brightness 20 (i mod 12); `spoil` may change its bytes."""

    def __init__(self, spoil: Callable[[int, bytes], bytes] = lambda _, data: data, fps: float = 50) -> None:
        self.pause = threading.Event()
        self.over = False
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/cam" or server.over:
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with suppress(OSError):
                    for i in range(100_000):
                        while server.pause.is_set():
                            time.sleep(0.01)
                        if server.over:
                            return None
                        data = spoil(i, jpeg(i))
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                        self.wfile.write(head.encode() + data + b"\r\n")
                        time.sleep(1 / fps)
                return None

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/cam"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> MjpegServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        self.pause.clear()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def jpeg(i: int) -> bytes:
    noise = np.random.default_rng(i).integers(0, 8, (48, 64, 3), np.uint8)
    return bytes(simplejpeg.encode_jpeg(np.uint8(20 * (i % 12)) + noise, quality=95, colorspace="BGR"))


class Opened:
    """A source outside any service, with its ledger."""

    def __init__(
        self, section: dict[str, Any], deadline_ms: float | None = None, spec: InputSpec | None = None
    ) -> None:
        module, config = plugins.load("sources", section, "source")
        self.ledger = Ledger()
        context = SourceContext("cam", deadline_ms, 4, self.ledger, lambda *_: None, spec)
        self.source: Source = module.create(config, context)
        self.stop = threading.Event()

    def frames(self) -> Iterator[Frame]:
        return self.source.frames(self.stop)

    def play(self, count: int) -> list[Frame]:
        """The first frames; the stream is ended behind them."""
        frames = self.frames()
        got = list(islice(frames, count))
        self.stop.set()
        list(frames)
        return got

    @property
    def missing(self) -> int:
        account = self.ledger.snapshot().get("cam")
        return account.missing if account else 0


@contextmanager
def opened(section: dict[str, Any], **more: Any) -> Iterator[Opened]:
    """Closes the source whatever happens, and looks whether its threads are gone."""
    made = Opened(section, **more)
    before = set(threading.enumerate())
    try:
        yield made
    finally:
        made.stop.set()
        made.source.close()
    give_up = time.monotonic() + 5
    while left := [t.name for t in set(threading.enumerate()) - before if t.name.startswith(_OURS)]:
        assert time.monotonic() < give_up, f"still at work: {left}"
        time.sleep(0.02)


_OURS = ("camera-", "trigger-", "watch")
