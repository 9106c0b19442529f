"""Network cameras: RTSP, and MJPEG over HTTP, read by FFmpeg through PyAV."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec
import numpy as np

from algan_stream.errors import CameraError, ConfigError
from algan_stream.sources.base import SourceContext
from algan_stream.sources.live import Device, LiveConfig, LiveSource, Picture

_SCHEMES = ("rtsp", "rtsps", "http", "https")
#: FFmpeg would watch a stream for seconds before it gives the first picture, to guess its rate. What it read
#: by then it keeps: with `nobuffer` that were lost, and the first picture came with the next key picture.
_NO_PROBING = {"fpsprobesize": "0", "analyzeduration": "1"}


class Config(LiveConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source with `kind: stream`; besides the keys of every live camera:

    Attributes:
        url: `rtsp://`, `rtsps://`, `http://` or `https://`. No log and no message shows the login or query.
        login_env: Name of an environment variable that holds `USER:PASSWORD`.
        login_file: File that holds it; its first line is taken. At each connection it is read anew.
        transport: How RTSP pictures travel: `tcp` loses none; `udp` may be a little faster.
        fps: The camera's steady rate: pictures that its time stamps leave out are counted as missing. None:
            they cannot be told.
        threads: Of the decoder.
    """

    kind: Literal["stream"] = "stream"
    url: str
    login_env: str = ""
    login_file: str = ""
    transport: Literal["tcp", "udp"] = "tcp"
    fps: float | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        LiveConfig.__post_init__(self)
        _check_url(self.url)
        if self.stale_s == 0:
            raise ValueError("stale_s: expected 0.1 to 3600, got 0; a stream's pictures wait for no trigger")
        if self.login_env and self.login_file:
            raise ValueError("login_file: expected only one of login_env and login_file, got both")
        if self.fps is not None and not 0 < self.fps <= 10_000:
            raise ValueError(f"fps: expected above 0 and up to 10000, got {self.fps:g}")
        if not 1 <= self.threads <= 64:
            raise ValueError(f"threads: expected 1 to 64, got {self.threads}")


def redacted(url: str) -> str:
    """The URL as it may be shown: without user, password and query, any of which may be a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "***" if parts.query else "", ""))


class StreamDevice(Device):
    """One connection; FFmpeg itself ends it when nothing comes for `stale_s`.

    After a picture that is damaged, those up to the next key picture are built on it, and are faulty like it.
    """

    def __init__(self, config: Config) -> None:
        import av

        self._config, self._shown = config, redacted(config.url)
        self._rtsp = config.url.lower().startswith("rtsp")
        self._errors: tuple[type[Exception], ...] = (av.FFmpegError, OSError, ValueError)
        try:
            self._container = av.open(
                _with_login(config),
                options=self._options(),
                timeout=(config.open_s, config.stale_s),
            )
        except self._errors as error:
            raise CameraError(f"{self._shown}: cannot be opened: {_why(error)}") from None
        streams = self._container.streams.video
        if not streams:
            self._container.close()
            raise CameraError(f"{self._shown}: holds no video")
        self._stream = streams[0]
        self._stream.codec_context.thread_count = config.threads
        self._stream.thread_type = "SLICE"  # threads by picture would hold back as many pictures
        self._packets = self._container.demux(self._stream)
        self._decoded: list[tuple[Any, int]] = []
        self._damage = ""

    def grab(self, timeout_s: float) -> Picture | None:
        """The next picture; waits until there is one, at most `stale_s`."""
        while not self._decoded:
            self._read_packet()
        frame, arrived_ns = self._decoded.pop(0)
        if frame is None:
            return Picture(np.zeros((0, 0), np.uint8), "grey8", self._size(), self._damage)
        if frame.is_corrupt:
            self._damage = "damaged_picture: a part of it was lost on the way"
        elif frame.key_frame:
            self._damage = ""
        seconds = frame.time if self._rtsp else None
        rate = self._config.fps
        return Picture(
            image=frame.to_ndarray(format="bgr24"),
            pixel_format="bgr8",
            size_wh=(frame.width, frame.height),
            fault=self._damage,
            number=None if seconds is None or rate is None else round(seconds * rate),
            camera_ns=None if seconds is None else round(seconds * 1e9),
            arrived_ns=arrived_ns,
        )

    def close(self) -> None:
        self._container.close()

    def _read_packet(self) -> None:
        try:
            packet = next(self._packets, None)
        except self._errors as error:
            raise CameraError(f"{self._shown}: {_why(error)}") from None
        if packet is None or packet.size == 0:
            raise CameraError(f"{self._shown}: the camera ended the stream")
        arrived_ns = time.monotonic_ns()
        try:
            frames = packet.decode()
        except self._errors as error:
            self._damage = f"damaged_picture: {_why(error)}"
            self._decoded.append((None, arrived_ns))
            return
        if packet.is_corrupt:
            self._damage = "damaged_picture: a part of it was lost on the way"
        self._decoded += [(frame, arrived_ns) for frame in frames]

    def _size(self) -> tuple[int, int]:
        context = self._stream.codec_context
        return context.width, context.height

    def _options(self) -> dict[str, str]:
        transport = {"rtsp_transport": self._config.transport} if self._rtsp else {}
        return {**_NO_PROBING, **transport}


def create(config: Config, context: SourceContext) -> LiveSource:
    """Opens the stream once, to see that it is there.

    Raises:
        CameraError: It is not, and is `required_at_start`.
        ConfigError: The login cannot be read.
        ModuleNotFoundError: PyAV is not installed.
    """
    import av  # noqa: F401  missing, it shall be said at the start

    _with_login(config)
    return LiveSource(config, context, lambda: StreamDevice(config))


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError("url: expected a port from 0 to 65535 and IPv6 addresses in brackets") from error
    if parts.scheme.lower() not in _SCHEMES or not parts.hostname or port == 0:
        shown = redacted(url) or "nothing"
        raise ValueError(f"url: expected {', '.join(s + '://' for s in _SCHEMES)} and a host, got {shown}")


def _with_login(config: Config) -> str:
    """The URL with user and password in it, as FFmpeg wants them."""
    login = ""
    if config.login_env:
        login = os.environ.get(config.login_env, "")
        if not login:
            raise ConfigError(f"login_env: the environment variable {config.login_env} is not set")
    elif config.login_file:
        try:
            login = Path(config.login_file).read_text("utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"login_file: {config.login_file} cannot be read: {type(error).__name__}"
            ) from error
    if not (config.login_env or config.login_file):
        return config.url
    user, colon, password = login.partition(":")
    if not colon:
        raise ConfigError("login: expected USER:PASSWORD, got no colon")
    parts = urlsplit(config.url)
    netloc = f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc.rpartition('@')[2]}"
    return urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))


def _why(error: Exception) -> str:
    """FFmpeg's own words, without the URL that its messages carry."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
