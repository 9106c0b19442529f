"""An RTSP server of GStreamer; needs the system's python3 with gi, so it runs as a process of its own.

    python3 rtsp_server.py PORT PIPELINE [USER:PASSWORD]

Serves PIPELINE, which ends in an element called `pay0`, at rtsp://127.0.0.1:PORT/cam and prints `ready`.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main(port: str, pipeline: str, login: str = "") -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {pipeline} )")
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
