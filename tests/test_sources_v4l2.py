"""USB cameras without one: settings, errors of the real kernel, and buffers as V4L2 has them."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import pytest

from algan_stream.errors import CameraError, ConfigError
from algan_stream.preprocess import preprocess
from algan_stream.sources.v4l2 import require_format, to_picture
from algan_stream.types import InputSpec
from cameras import Opened, jpeg, opened

linuxpy = pytest.importorskip("linuxpy.video.device", reason="linuxpy is not installed (extra `v4l2`)")

_NOWHERE = "/dev/v4l/by-id/usb-none-video-index0"


def _format(fourcc: str, width: int = 8, height: int = 6, bytes_per_line: int = 0) -> Any:
    number = int.from_bytes(fourcc.encode(), "little")
    return linuxpy.Format(width, height, linuxpy.PixelFormat(number), 0, bytes_per_line)


def _buffer(sequence: int = 3, ago_ns: int = 5_000_000, flags: int | None = None) -> Any:
    buffer = linuxpy.raw.v4l2_buffer()
    buffer.sequence = sequence
    buffer.flags = linuxpy.BufferFlag.TIMESTAMP_MONOTONIC if flags is None else flags
    taken_ns = time.monotonic_ns() - ago_ns
    buffer.timestamp.secs, buffer.timestamp.usecs = taken_ns // 10**9, taken_ns % 10**9 // 1000
    return buffer


@pytest.mark.parametrize(
    ("fourcc", "pixel_format", "shape", "pixel_bytes"),
    [
        ("GREY", "grey8", (6, 8), 1),
        ("Y12 ", "grey16", (6, 8), 2),
        ("YUYV", "yuyv", (6, 8, 2), 2),
        ("UYVY", "uyvy", (6, 8, 2), 2),
        ("BA81", "bayer_bggr8", (6, 8), 1),
        ("RGGB", "bayer_rggb8", (6, 8), 1),
        ("RGB3", "rgb8", (6, 8, 3), 3),
        ("BGR3", "bgr8", (6, 8, 3), 3),
    ],
)
@pytest.mark.parametrize("padding", [0, 16])
def test_buffers_become_pictures(
    fourcc: str, pixel_format: str, shape: tuple[int, ...], pixel_bytes: int, padding: int
) -> None:
    stride = 8 * pixel_bytes + padding
    rows = np.random.default_rng(0).integers(0, 256, (6, stride), np.uint8)
    data = rows.tobytes()[: 6 * stride - padding]  # a driver may leave the last padding out
    picture = to_picture(data, _buffer(), _format(fourcc, bytes_per_line=stride), fourcc)
    assert (picture.fault, picture.pixel_format, picture.image.shape) == ("", pixel_format, shape)
    assert (picture.number, picture.size_wh) == (3, (8, 6))
    assert np.array_equal(
        np.ascontiguousarray(picture.image).view(np.uint8).reshape(6, -1), rows[:, : 8 * pixel_bytes]
    )
    spec = InputSpec(height_px=4, width_px=4)
    assert np.isfinite(preprocess(picture.image, spec, pixel_format=picture.pixel_format)).all()


def test_times_are_the_drivers_where_they_are_of_our_clock() -> None:
    fresh = to_picture(bytes(48), _buffer(ago_ns=7_000_000), _format("GREY"), "GREY")
    assert fresh.taken_ns is not None
    assert 6_990_000 < fresh.arrived_ns - fresh.taken_ns < 500_000_000
    assert to_picture(bytes(48), _buffer(flags=0), _format("GREY"), "GREY").taken_ns is None
    assert to_picture(bytes(48), _buffer(ago_ns=-(10**10)), _format("GREY"), "GREY").taken_ns is None


def test_damaged_buffers_are_faults() -> None:
    short = to_picture(bytes(40), _buffer(), _format("GREY"), "GREY")
    assert short.fault == "incomplete: expected 48 bytes, got 40"
    flagged = to_picture(bytes(48), _buffer(flags=linuxpy.BufferFlag.ERROR), _format("GREY"), "GREY")
    assert flagged.fault.startswith("incomplete: the driver says")
    whole = jpeg(3)
    good = to_picture(whole, _buffer(), _format("MJPG", 64, 48), "MJPG")
    assert (good.fault, good.image.shape, good.pixel_format) == ("", (48, 64, 3), "rgb8")
    cut = to_picture(whole[: len(whole) * 9 // 10], _buffer(), _format("MJPG", 64, 48), "MJPG")
    assert cut.fault.startswith("incomplete: JPEG of ")


def test_a_driver_that_takes_another_format_is_refused() -> None:
    require_format((8, 6), "GREY", _format("GREY"))
    with pytest.raises(ConfigError, match="pixel_format: expected GREY, but the camera sends YUYV"):
        require_format((8, 6), "GREY", _format("YUYV"))
    with pytest.raises(ConfigError, match="size_wh: expected 16 x 6, but the camera sends 8 x 6"):
        require_format((16, 6), "GREY", _format("GREY"))


def test_no_camera_there(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CameraError, match="by-id/usb-none-video-index0: No such file"):
        Opened({"kind": "v4l2", "device": _NOWHERE})
    with pytest.raises(CameraError, match="/dev/null: "):  # the kernel says that it is no camera
        Opened({"kind": "v4l2", "device": "/dev/null"})
    with (
        caplog.at_level(logging.WARNING),
        opened({"kind": "v4l2", "device": "/dev/video97", "required_at_start": False}) as camera,
    ):
        assert "/dev/video97: No such file" in camera.source.links[0].problem()
    assert "use its name below /dev/v4l/by-id" in caplog.text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"device": "video0"}, "device: expected a path below /dev, got 'video0'"),
        ({"pixel_format": "H264"}, "pixel_format: expected one of GREY, Y10, .* got 'H264'"),
        ({"fps": -1}, "fps: expected above 0"),
        ({"size_wh": [0, 480]}, "size_wh: expected two numbers above 0"),
        ({"controls": {"gain": "high"}}, r"source\.controls"),
    ],
)
def test_settings_without_sense(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Opened({"kind": "v4l2", "device": _NOWHERE} | more)
