"""GigE Vision and USB3 Vision cameras of any maker by Aravis, which needs no maker's library.

It comes from the system (Debian: gir1.2-aravis-0.8) through PyGObject.
"""

from __future__ import annotations

import threading
from typing import Any, Literal

import msgspec
import numpy as np

from algan_stream.errors import AlganError, CameraError, ConfigError, PluginError
from algan_stream.sources.base import SourceContext
from algan_stream.sources.device import Device, Picture, TriggerMode
from algan_stream.sources.features import Value, set_features
from algan_stream.sources.live import LiveConfig, LiveSource
from algan_stream.sources.pixels import CHANNELS, camera_format, check_white
from algan_stream.types import Spec

#: A GigE Vision camera counts in 16 bits and leaves 0 out; one that counts further is counted right as well.
_WRAP = (1, 65_535)
_TRIGGER = frozenset({"TriggerMode", "TriggerSource"})
#: Aravis keeps one list of all cameras for the process.
_listing = threading.Lock()


class Config(LiveConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source with `kind: aravis`.

    It has the keys of every live camera, and these. With a trigger, `stale_s` is 0 unless it is set.

    Attributes:
        id: The camera's address, or its name as `arv-tool-0.8` lists it; empty for the only camera.
        features: Values by GenICam's names, set in this order, then read back and compared.
        trigger: `free`: the camera runs by itself; `hardware`: a signal at `trigger_line` takes a picture;
            `software`: only a `triggered` source around this one does.
        trigger_line: Where the hardware's signal comes in.
        buffers: Pictures that the library holds for us.
    """

    kind: Literal["aravis"] = "aravis"
    id: str = ""
    features: dict[str, Value] = msgspec.field(default_factory=dict)
    trigger: TriggerMode = "free"
    trigger_line: str = "Line1"
    buffers: int = 10

    def __post_init__(self) -> None:
        LiveConfig.__post_init__(self)
        if taken := sorted(_TRIGGER & set(self.features)):
            raise ValueError(f"features: {taken[0]} follows from `trigger` and `trigger_line`; set those")
        if not 1 <= self.buffers <= 1000:
            raise ValueError(f"buffers: expected 1 to 1000, got {self.buffers}")


class AravisDevice(Device):
    """One camera, open and grabbing."""

    wrap = _WRAP

    def __init__(self, config: Config, spec: Spec | None) -> None:
        self._aravis, self._trigger = _library(), config.trigger
        self._shown = f"Aravis camera {config.id}".strip()
        self._camera: Any = None
        self._lost = threading.Event()
        try:
            camera = self._camera = self._found(config)
            device = camera.get_device()
            device.connect("control-lost", lambda *_: self._lost.set())
            self._set_up(device, config, spec)
            self._stream: Any = camera.create_stream(None, None)
            for _ in range(config.buffers):
                self._stream.push_buffer(self._aravis.Buffer.new_allocate(camera.get_payload()))
            camera.start_acquisition()
        except AlganError:
            self.close()
            raise
        except Exception as error:  # GLib's own class of errors
            self.close()
            raise CameraError(f"{self._shown}: {_said(error)}") from error

    def grab(self, timeout_s: float) -> Picture | None:
        """The next picture, also one that is incomplete."""
        if self._lost.is_set():
            raise CameraError(f"{self._shown}: the control connection is lost")
        buffer = self._stream.timeout_pop_buffer(round(timeout_s * 1e6))
        if buffer is None:
            return None
        try:
            return self._picture(buffer)
        finally:
            self._stream.push_buffer(buffer)

    def trigger(self) -> None:
        """Takes a picture, where the camera waits for the software to say so.

        Raises:
            CameraError: It refuses.
        """
        if self._trigger == "software":
            try:
                self._camera.software_trigger()
            except Exception as error:
                raise CameraError(f"{self._shown}: {_said(error)}") from error

    def close(self) -> None:
        """Ends the grabbing and frees the camera."""
        camera, self._camera, self._stream = self._camera, None, None
        if camera is not None and not self._lost.is_set():
            try:
                camera.stop_acquisition()
            except Exception:  # noqa: BLE001  it does not answer any more
                self._lost.set()

    def _found(self, config: Config) -> Any:
        if config.id:
            return self._aravis.Camera.new(config.id)
        with _listing:
            self._aravis.update_device_list()
            names = [self._aravis.get_device_id(i) for i in range(self._aravis.get_n_devices())]
        if not names:
            raise CameraError("aravis: expected a camera, found none; check its power, cable and network")
        if len(names) > 1:
            raise ConfigError(f"id: expected one of {', '.join(sorted(names))}; got none")
        return self._aravis.Camera.new(names[0])

    def _set_up(self, device: Any, config: Config, spec: Spec | None) -> None:
        def write(name: str, value: Value) -> None:
            node = _node(device, name)
            if isinstance(node, self._aravis.GcCommand):
                device.execute_command(name)
            elif isinstance(node, self._aravis.GcFloat):
                device.set_float_feature_value(name, float(value))
            elif isinstance(node, self._aravis.GcBoolean):
                device.set_boolean_feature_value(name, bool(value))
            elif isinstance(value, str):
                device.set_string_feature_value(name, value)
            else:
                device.set_integer_feature_value(name, value)

        def read(name: str) -> object:
            node = _node(device, name)
            if isinstance(node, self._aravis.GcCommand):
                return None
            if isinstance(node, self._aravis.GcFloat):
                return float(device.get_float_feature_value(name))
            if isinstance(node, self._aravis.GcBoolean):
                return bool(device.get_boolean_feature_value(name))
            if isinstance(node, self._aravis.GcEnumeration | self._aravis.GcString):
                return str(device.get_string_feature_value(name))
            return int(device.get_integer_feature_value(name))

        set_features(config.features, write, read)
        if config.trigger != "free":
            self._camera.set_trigger("Software" if config.trigger == "software" else config.trigger_line)
        name = str(device.get_string_feature_value("PixelFormat"))
        self._format = camera_format(name)
        check_white(name, spec)

    def _picture(self, buffer: Any) -> Picture:
        number = buffer.get_frame_id() or None
        size_wh = buffer.get_image_width(), buffer.get_image_height()
        status = buffer.get_status()
        if status != self._aravis.BufferStatus.SUCCESS:
            fault = f"incomplete: {status.value_nick}"
            return Picture(np.zeros((0, 0), np.uint8), "grey8", size_wh, fault, number)
        width, height = size_wh
        channels = CHANNELS.get(self._format, 1)
        flat = np.frombuffer(buffer.get_image_data(), "<u2" if self._format == "grey16" else np.uint8)
        if flat.size < width * height * channels:
            fault = f"incomplete: expected {width * height * channels} values, got {flat.size}"
            return Picture(np.zeros((0, 0), np.uint8), "grey8", size_wh, fault, number)
        shape = (height, width, channels) if channels > 1 else (height, width)
        image = flat[: width * height * channels].reshape(shape)
        return Picture(image, self._format, size_wh, "", number, buffer.get_timestamp() or None)


def create(config: Config, context: SourceContext) -> LiveSource:
    """Opens the camera once and sets it, to see that it does what is wanted.

    Raises:
        CameraError: It is not there, and is `required_at_start`.
        ConfigError: It does not take its settings, or sends pixels that `preprocess` does not read.
        PluginError: Aravis or PyGObject is not installed.
    """
    _library()
    if config.stale_s is None and config.trigger != "free":
        config = msgspec.structs.replace(config, stale_s=0.0)
    return LiveSource(config, context, lambda: AravisDevice(config, context.spec), config.trigger)


def _library() -> Any:
    try:
        import gi

        gi.require_version("Aravis", "0.8")
        from gi.repository import Aravis
    except (ImportError, ValueError) as error:
        raise PluginError(
            f"kind: aravis needs Aravis 0.8 and PyGObject: {error}; apt install gir1.2-aravis-0.8, and "
            "pip install PyGObject or a virtual environment with --system-site-packages and python3-gi"
        ) from error
    return Aravis


def _node(device: Any, name: str) -> Any:
    node = device.get_feature(name)
    if node is None:
        raise LookupError("it has no such feature")
    return node


def _said(error: Exception) -> str:
    return str(getattr(error, "message", None) or str(error) or type(error).__name__)
