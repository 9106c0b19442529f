"""USB and other local cameras of Linux (Video4Linux2), by linuxpy: raw pixels, gaps, the driver's times."""

from __future__ import annotations

import logging
import re
import select
import time
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.errors import AlganError, CameraError, ConfigError, ImageError
from algan_stream.jpeg import decode_jpeg
from algan_stream.sources.base import SourceContext, require
from algan_stream.sources.device import Device, Picture
from algan_stream.sources.features import Value, same, set_features
from algan_stream.sources.live import LiveConfig, LiveSource
from algan_stream.sources.pixels import CHANNELS, check_white
from algan_stream.types import CameraFormat, Spec

log = logging.getLogger(__name__)

#: By V4L2's four letters; JPEG is decoded, all others go as they are into `preprocess`.
_FORMATS: dict[str, CameraFormat] = {
    "GREY": "grey8",
    "Y10 ": "grey16",
    "Y12 ": "grey16",
    "Y16 ": "grey16",
    "YUYV": "yuyv",
    "UYVY": "uyvy",
    "BA81": "bayer_bggr8",
    "GBRG": "bayer_gbrg8",
    "GRBG": "bayer_grbg8",
    "RGGB": "bayer_rggb8",
    "RGB3": "rgb8",
    "BGR3": "bgr8",
}
_JPEG = ("MJPG", "JPEG")
_PIXEL_BYTES: dict[CameraFormat, int] = {"grey16": 2, "yuyv": 2, "uyvy": 2}
#: The driver counts in 32 bits.
_WRAP = (0, 0xFFFF_FFFF)
_BUFFERS = 4


class Config(LiveConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source with `kind: v4l2`.

    It has the keys of every live camera, of which `size_wh` is set in the camera, and these. What the camera
    does with each setting is compared with what was asked for.

    Attributes:
        device: The camera's file; `/dev/v4l/by-id/…` names the same camera after each start, `/dev/video0`
            may be another one.
        pixel_format: V4L2's four letters: `YUYV`, `UYVY`, `GREY`, `MJPG`, a Bayer pattern (`BA81`, `GBRG`,
            `GRBG`, `RGGB`), `Y10`, `Y12`, `Y16`, `RGB3` or `BGR3`.
        fps: Pictures per second; None: as the camera has it.
        controls: Values by name, as `v4l2-ctl --list-ctrls` shows them, set in this order; menus by number.
            An exposure by hand usually needs `auto_exposure: 1` before it.
    """

    kind: Literal["v4l2"] = "v4l2"
    device: str
    pixel_format: str = "YUYV"
    fps: float | None = None
    controls: dict[str, int | bool] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        LiveConfig.__post_init__(self)
        if not self.device.startswith("/dev/"):
            raise ValueError(f"device: expected a path below /dev, got {self.device!r}")
        if self.fourcc not in (*_FORMATS, *_JPEG):
            known = ", ".join(name.strip() for name in (*_FORMATS, *_JPEG))
            raise ValueError(f"pixel_format: expected one of {known}, got {self.pixel_format!r}")
        if self.fps is not None and not 0 < self.fps <= 10_000:
            raise ValueError(f"fps: expected above 0 and up to 10000, got {self.fps:g}")

    @property
    def fourcc(self) -> str:
        """All four letters, of which the last may be a space."""
        return self.pixel_format.ljust(4)


class V4l2Device(Device):
    """One camera, open and streaming."""

    wrap = _WRAP

    def __init__(self, config: Config, spec: Spec | None) -> None:
        from linuxpy.video.device import Device as Camera
        from linuxpy.video.device import VideoCapture

        self._config = config
        # Resolved anew each time: a camera that was unplugged may get another number.
        self._camera: Any = Camera(Path(config.device).resolve())
        self._capture: Any = None
        try:
            self._camera.open()
            self._capture = VideoCapture(self._camera, size=_BUFFERS)
            self._format = self._set_up(spec)
            self._capture.open()
        except AlganError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise CameraError(f"{config.device}: {_said(error)}") from error

    def grab(self, timeout_s: float) -> Picture | None:
        """The next picture, also one that the driver knows to be damaged."""
        try:
            ready, _, _ = select.select([self._camera.fileno()], [], [], timeout_s)
            if not ready:
                return None
            frame = self._capture.buffer.raw_read()
        except (OSError, ValueError) as error:  # ENODEV: unplugged
            raise CameraError(f"{self._config.device}: {_said(error)}") from error
        return to_picture(bytes(frame.data), frame.buff, self._format, self._config.fourcc)

    def close(self) -> None:
        """Ends the stream and frees the camera."""
        try:
            if self._capture is not None:
                self._capture.close()
        except OSError as error:  # it is gone already
            log.debug("%s: %s", self._config.device, error)
        finally:
            self._camera.close()

    def _set_up(self, spec: Spec | None) -> Any:
        config, capture = self._config, self._capture
        now = capture.get_format()
        width, height = config.size_wh or (now.width, now.height)
        capture.set_format(width, height, config.fourcc)
        given = capture.get_format()
        require_format((width, height), config.fourcc, given)
        if config.fps is not None:
            capture.set_fps(config.fps)
            if not same(config.fps, has := float(capture.get_fps())):
                raise ConfigError(f"fps: expected {config.fps:g}, but the camera has {has:g}")
        controls = self._camera.controls

        def write(name: str, value: Value) -> None:
            control = controls[name]
            control.push() if hasattr(control, "push") else setattr(control, "value", value)

        def read(name: str) -> object:
            return getattr(controls[name], "value", None)

        set_features(config.controls, write, read, "controls")
        if _FORMATS.get(config.fourcc) == "grey16":
            check_white(f"Mono{config.fourcc[1:].strip()}", spec)
        return given


def create(config: Config, context: SourceContext) -> LiveSource:
    """Opens the camera once and sets it, to see that it does what is wanted.

    Raises:
        CameraError: It is not there, and is `required_at_start`.
        ConfigError: It does something else than was asked for.
        PluginError: linuxpy is not installed.
    """
    require("linuxpy.video.device", "v4l2")

    if re.fullmatch(r"/dev/video\d+", config.device):
        log.warning(
            "camera %s: %s may be another camera after the next start; use its name below /dev/v4l/by-id",
            context.camera,
            config.device,
        )
    return LiveSource(config, context, lambda: V4l2Device(config, context.spec))


def require_format(size_wh: tuple[int, int], fourcc: str, given: Any) -> None:
    """Checks what a driver made of the wanted format: it takes the next one that it likes, and says nothing.

    Args:
        size_wh: Wanted width and height in pixels.
        fourcc: Wanted format.
        given: linuxpy's Format, as read back.

    Raises:
        ConfigError: It is another one.
    """
    got = int(given.pixel_format).to_bytes(4, "little").decode("ascii", "replace")
    if got != fourcc:
        raise ConfigError(f"pixel_format: expected {fourcc.strip()}, but the camera sends {got.strip()}")
    if (given.width, given.height) != size_wh:
        raise ConfigError(
            f"size_wh: expected {size_wh[0]} x {size_wh[1]}, but the camera sends "
            f"{given.width} x {given.height}"
        )


def to_picture(data: bytes, buffer: Any, given: Any, fourcc: str) -> Picture:
    """Makes a picture of one buffer.

    Args:
        data: Its bytes; nobody else writes to them.
        buffer: V4L2's own `v4l2_buffer`.
        given: linuxpy's Format.
        fourcc: Its pixel format.
    """
    from linuxpy.video.device import BufferFlag

    arrived_ns = time.monotonic_ns()
    size_wh = (given.width, given.height)
    fault, image, pixel_format = "", np.zeros((0, 0), np.uint8), _FORMATS.get(fourcc, "grey8")
    try:
        if fourcc in _JPEG:
            image, pixel_format = decode_jpeg(data)
            size_wh = image.shape[1], image.shape[0]
        else:
            image = _pixels(data, given, pixel_format)
    except ImageError as error:
        fault = f"incomplete: {error}"
    if buffer.flags & BufferFlag.ERROR:
        fault = "incomplete: the driver says that a part of it was lost"
    taken_ns = buffer.timestamp.secs * 1_000_000_000 + buffer.timestamp.usecs * 1000
    ours = (buffer.flags & BufferFlag.TIMESTAMP_MASK) == BufferFlag.TIMESTAMP_MONOTONIC
    return Picture(
        image=image,
        pixel_format=pixel_format,
        size_wh=size_wh,
        fault=fault,
        number=buffer.sequence,
        taken_ns=taken_ns if ours and 0 < taken_ns <= arrived_ns else None,
        arrived_ns=arrived_ns,
    )


def _pixels(data: bytes, given: Any, pixel_format: CameraFormat) -> npt.NDArray[Any]:
    channels = CHANNELS.get(pixel_format, 1)
    row = given.width * channels * _PIXEL_BYTES.get(pixel_format, 1)
    stride = max(row, given.bytes_per_line)
    least = stride * (given.height - 1) + row
    if len(data) < least:
        raise ImageError(f"expected {least} bytes, got {len(data)}")
    padded = np.zeros(stride * given.height, np.uint8) if len(data) < stride * given.height else None
    flat = np.frombuffer(data, np.uint8)
    if padded is not None:
        padded[: len(flat)] = flat
        flat = padded
    rows = flat[: stride * given.height].reshape(given.height, stride)[:, :row]
    if pixel_format == "grey16":
        return np.ascontiguousarray(rows).view("<u2")
    if pixel_format in ("yuyv", "uyvy"):
        channels = 2
    return rows.reshape(given.height, given.width, channels) if channels > 1 else rows


def _said(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "may not be opened by this user; add it to the group video"
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)
