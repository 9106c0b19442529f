"""An RTSP server of GStreamer; needs the system's python3 with gi, so it runs as a process of its own.

    python3 rtsp_server.py PORT PIPELINE [USER:PASSWORD]

Serves PIPELINE, which ends in an element called `pay0`, at rtsp://127.0.0.1:PORT/cam and prints `ready`. An
`appsrc` called `clock` gets grey pictures with the time of their making in the first rows: 64 blocks, one for
each bit of the Unix time in nanoseconds.
"""

import re
import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def feed_clock(media, width: int, height: int, fps: int) -> None:
    clock = media.get_element().get_by_name("clock")
    # Something to encode below: a pattern that moves by a row at each picture.
    rows = [bytes((x * (y % 7 + 1) + y * y) % 200 for x in range(width)) for y in range(256)]
    scene, count = b"".join(rows) * (height // 256 + 2), 0

    def push() -> bool:
        nonlocal count
        count += 1
        start = count % 256 * width
        bits = f"{time.time_ns():064b}"
        strip = b"".join((b"\xff" if bit == "1" else b"\x00") * (width // 64) for bit in bits)
        data = strip * 32 + scene[start : start + (height - 32) * width]
        return clock.emit("push-buffer", Gst.Buffer.new_wrapped(data)) == Gst.FlowReturn.OK

    GLib.timeout_add(1000 // fps, push)


def main(port: str, pipeline: str, login: str = "") -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {pipeline} )")
    if "name=clock" in pipeline:
        width, height, fps = (
            int(re.search(rf"{key}=(\d+)", pipeline)[1]) for key in ("width", "height", "framerate")
        )
        factory.connect("media-configure", lambda _, media: feed_clock(media, width, height, fps))
    if login:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        user, _, password = login.partition(":")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        factory.add_role_from_structure(
            Gst.Structure.from_string("user, media.factory.access=true, media.factory.construct=true")[0]
        )
    server.get_mount_points().add_factory("/cam", factory)
    if not server.attach(None):
        sys.exit(f"cannot listen on port {port}")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


main(*sys.argv[1:])
