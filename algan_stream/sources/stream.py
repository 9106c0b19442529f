"""Network cameras: RTSP, and MJPEG over HTTP, read by FFmpeg through PyAV."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

import numpy as np
import numpy.typing as npt

from algan_stream.errors import CameraError, ConfigError, ImageError
from algan_stream.jpeg import decode_jpeg
from algan_stream.sources.base import SourceContext, require
from algan_stream.sources.device import Device, Picture
from algan_stream.sources.live import LiveConfig, LiveSource

_SCHEMES = ("rtsp", "rtsps", "http", "https")
_DAMAGED = "damaged_picture: a part of it, or of one that it is built on, was lost on its way"
#: FFmpeg would watch a stream for seconds before it gives the first picture, to guess its rate. What it read
#: by then it keeps: with `nobuffer` that were lost, and the first picture came with the next key picture.
_NO_PROBING = {"fpsprobesize": "0", "analyzeduration": "1"}


class Config(LiveConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source with `kind: stream`, with the keys of every live camera and these.

    Attributes:
        url: `rtsp://`, `rtsps://`, `http://` or `https://`. No log and no message shows the login or query.
        login_env: Name of an environment variable that holds `USER:PASSWORD`.
        login_file: File that holds it; its first line is taken. At each connection it is read anew.
        transport: How RTSP pictures travel: `tcp` loses none; over `udp` a lost packet spoils all pictures
            up to the next key picture.
        fps: The camera's steady rate: pictures that its time stamps leave out are counted as missing. None:
            they cannot be told.
    """

    kind: Literal["stream"] = "stream"
    url: str
    login_env: str = ""
    login_file: str = ""
    transport: Literal["tcp", "udp"] = "tcp"
    fps: float | None = None

    def __post_init__(self) -> None:
        LiveConfig.__post_init__(self)
        _check_url(self.url)
        if self.stale_s == 0:
            raise ValueError("stale_s: expected 0.1 to 3600, got 0; a stream's pictures wait for no trigger")
        if self.login_env and self.login_file:
            raise ValueError("login_file: expected only one of login_env and login_file, got both")
        if self.fps is not None and not 0 < self.fps <= 10_000:
            raise ValueError(f"fps: expected above 0 and up to 10000, got {self.fps:g}")


def redacted(url: str) -> str:
    """The URL as it may be shown: without user, password and query, any of which may be a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "***" if parts.query else "", ""))


class StreamDevice(Device):
    """One connection; FFmpeg itself ends it when nothing comes for `stale_s`.

    FFmpeg hides what was lost: it fills the holes of a damaged picture from the one before, and says so in
    its log alone. So its log is listened to, in this thread, which is why there is one thread: after a word
    of loss or error, or a gap in the time stamps, all pictures up to the next key picture are faulty, for
    they are built on one another. JPEGs are decoded by libjpeg-turbo, which refuses a truncated one.
    """

    def __init__(self, config: Config) -> None:
        import av

        self._av, self._config, self._shown = av, config, redacted(config.url)
        self._rtsp = config.url.lower().startswith("rtsp")
        self._errors: tuple[type[Exception], ...] = (av.FFmpegError, OSError, ValueError)
        with self._listening():
            try:
                self._container = av.open(
                    _with_login(config), options=self._options(), timeout=(config.open_s, config.patience_s)
                )
            except self._errors as error:
                raise CameraError(f"{self._shown}: cannot be opened: {_why(error)}") from None
            streams = self._container.streams.video
            if not streams:
                self._container.close()
                raise CameraError(f"{self._shown}: holds no video")
            self._stream = streams[0]
            self._stream.codec_context.thread_count = 1
            self._jpeg = self._stream.codec_context.name == "mjpeg"
            self._packets = self._container.demux(self._stream)
        self._pictures: list[Picture] = []
        self._damage = ""
        self._number: int | None = None

    def grab(self, timeout_s: float) -> Picture | None:
        """The next picture; waits until there is one, at most `stale_s`."""
        while not self._pictures:
            with self._listening() as told:
                packet = self._next_packet()
                arrived_ns = time.monotonic_ns()
                made = self._of_jpeg(packet) if self._jpeg else self._decoded(packet, told)
            for picture in made:
                picture.arrived_ns = arrived_ns
            self._pictures += made
        return self._pictures.pop(0)

    def close(self) -> None:
        """Ends the connection."""
        with self._listening():
            self._container.close()

    def _listening(self) -> Any:
        """Collects what FFmpeg says to this thread; nothing of it may reach a log, for it holds the URL."""
        self._av.logging.set_level(self._av.logging.WARNING)
        self._av.logging.set_skip_repeated(False)  # a second loss like the first is a loss
        return self._av.logging.Capture()

    def _next_packet(self) -> Any:
        try:
            packet = next(self._packets, None)
        except self._errors as error:
            raise CameraError(f"{self._shown}: {_why(error)}") from None
        if packet is None or packet.size == 0:
            raise CameraError(f"{self._shown}: the camera ended the stream")
        return packet

    def _decoded(self, packet: Any, told: list[tuple[int, str, str]]) -> list[Picture]:
        failed, frames = False, []
        try:
            frames = packet.decode()
        except self._errors:
            failed = True
        stumbled = failed or packet.is_corrupt or self._stumbled(told)
        if failed:
            self._damage = _DAMAGED
            return [self._empty(f"{_DAMAGED}; it cannot be decoded")]
        return [self._picture(frame, stumbled) for frame in frames]

    def _picture(self, frame: Any, stumbled: bool) -> Picture:
        number = self._numbered(frame.time)
        skipped = number is not None and self._number is not None and number > self._number + 1
        self._number = number
        if stumbled or frame.is_corrupt or (skipped and not frame.key_frame):
            self._damage = _DAMAGED
        elif frame.key_frame:
            self._damage = ""
        return Picture(
            image=_bgr(frame),
            pixel_format="bgr8",
            size_wh=(frame.width, frame.height),
            fault=self._damage,
            number=number,
            camera_ns=self._camera_ns(frame.time),
        )

    def _of_jpeg(self, packet: Any) -> list[Picture]:
        seconds = None if packet.pts is None else float(packet.pts * packet.time_base)
        number = self._numbered(seconds)
        try:
            image, pixel_format = decode_jpeg(bytes(packet))
        except ImageError as error:
            return [self._empty(f"{_DAMAGED}: {error}", number)]
        size_wh = image.shape[1], image.shape[0]
        return [Picture(image, pixel_format, size_wh, number=number, camera_ns=self._camera_ns(seconds))]

    def _empty(self, fault: str, number: int | None = None) -> Picture:
        context = self._stream.codec_context
        size_wh = (context.width, context.height)
        return Picture(np.zeros((0, 0), np.uint8), "grey8", size_wh, fault, number)

    def _stumbled(self, told: list[tuple[int, str, str]]) -> bool:
        worst = self._av.logging.ERROR
        return any(level <= worst or "missed" in message for level, _, message in told)

    def _numbered(self, seconds: float | None) -> int | None:
        """Only RTSP's time stamps are the camera's."""
        rate = self._config.fps
        return None if seconds is None or rate is None or not self._rtsp else round(seconds * rate)

    def _camera_ns(self, seconds: float | None) -> int | None:
        return None if seconds is None or not self._rtsp else round(seconds * 1e9)

    def _options(self) -> dict[str, str]:
        if not self._rtsp:
            return dict(_NO_PROBING)
        transport = self._config.transport
        # Over UDP a packet may overtake another; so long is waited for the other one before it is lost.
        waiting = {"max_delay": "100000"} if transport == "udp" else {}
        return {**_NO_PROBING, "rtsp_transport": transport, **waiting}


def create(config: Config, context: SourceContext) -> LiveSource:
    """Opens the stream once, to see that it is there.

    Raises:
        CameraError: It is not, and is `required_at_start`.
        ConfigError: The login cannot be read.
        PluginError: PyAV is not installed.
    """
    require("av", "stream")

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


def _bgr(frame: Any) -> npt.NDArray[np.uint8]:
    """The pixels, uint8 (H, W, 3), in the memory of the converted picture: `to_ndarray` would copy them."""
    plane = frame.reformat(format="bgr24", threads=1).planes[0]
    return np.ndarray((frame.height, frame.width, 3), np.uint8, buffer=plane, strides=(plane.line_size, 3, 1))


def _why(error: Exception) -> str:
    """FFmpeg's own words, without the URL that its messages carry."""
    if type(error).__name__ == "ExitError":  # our own time limit ended it
        return "no answer in time"
    return str(getattr(error, "strerror", None) or type(error).__name__)
