"""Aravis's fake GigE camera behind a pair of virtual cables: on loopback its pictures do not come."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from algan_stream.errors import CameraError, ConfigError
from cameras import Opened, opened

_FAKE = shutil.which("arv-fake-gv-camera-0.8") or ""
_NET = f"10.213.{os.getpid() % 250 + 1}"  # so that two runs on a machine do not meet
_HOST, _CAMERA, _SPACE = f"{_NET}.1", f"{_NET}.2", f"algan{os.getpid()}"
_ENDS = f"av{os.getpid()}", f"aw{os.getpid()}"


def _lacks() -> str:
    if not _FAKE or not shutil.which("ip"):
        return "arv-fake-gv-camera-0.8 or ip is not installed (Debian: apt install aravis-tools iproute2)"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if "/usr/lib/python3/dist-packages" not in sys.path:  # PyGObject as Debian builds it
                sys.path.append("/usr/lib/python3/dist-packages")
            import gi

            gi.require_version("Aravis", "0.8")
            from gi.repository import Aravis  # noqa: F401
    except (ImportError, ValueError) as error:
        return f"Aravis cannot be used from this Python (Debian: gir1.2-aravis-0.8 python3-gi): {error}"
    return ""


class Camera:
    """The fake camera in a network namespace of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.on()

    def on(self) -> None:
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", _SPACE, _FAKE, "-i", _ENDS[1], "-s", "SN77"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.5)

    def off(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@pytest.fixture(scope="module")
def camera() -> Iterator[Camera]:
    if lacking := _lacks():
        pytest.skip(lacking)
    try:
        for line in (
            f"ip netns add {_SPACE}",
            f"ip link add {_ENDS[0]} type veth peer name {_ENDS[1]}",
            f"ip link set {_ENDS[1]} netns {_SPACE}",
            f"ip addr add {_HOST}/24 dev {_ENDS[0]}",
            f"ip link set {_ENDS[0]} up",
            f"ip netns exec {_SPACE} ip addr add {_CAMERA}/24 dev {_ENDS[1]}",
            f"ip netns exec {_SPACE} ip link set {_ENDS[1]} up",
        ):
            done = subprocess.run(line.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")
        made = Camera()
        yield made
        made.off()
    finally:
        subprocess.run(["ip", "netns", "del", _SPACE], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", _ENDS[0]], capture_output=True, check=False)


def _section(**more: Any) -> dict[str, Any]:
    return {"kind": "aravis", "id": _CAMERA, **more}


def test_pictures_come_and_are_counted(camera: Camera) -> None:
    with opened(_section(features={"Width": 256, "Height": 128})) as source:
        frames = source.play(20)
        lost = source.missing
    assert {(frame.image.shape, frame.pixel_format, frame.fault) for frame in frames} == {
        ((128, 256), "grey8", "")
    }
    assert frames[-1].frame_id == 19 + lost
    assert len({frame.image.tobytes() for frame in frames}) > 10


def test_a_camera_that_is_switched_off_and_on(camera: Camera) -> None:
    with opened(_section(stale_s=0.5)) as source:
        frames = source.frames()
        list(islice(frames, 3))
        camera.off()
        time.sleep(1)
        camera.on()
        back = time.monotonic()
        while source.source.links[0].reconnects == 0:
            next(frames)
        assert time.monotonic() - back < 10


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"Bogus": 1}, "features.Bogus: the camera does not take 1: it has no such feature"),
        ({"PixelFormat": "Mono7"}, "features.PixelFormat: "),
    ],
)
def test_settings_that_it_does_not_take(camera: Camera, features: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Opened(_section(features=features))


def test_nobody_there(camera: Camera) -> None:
    with pytest.raises(CameraError, match=r"Aravis camera 10\.213\.77\.9: "):
        Opened(_section(id="10.213.77.9"))
