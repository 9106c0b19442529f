"""Cameras of any maker by GenICam: GigE Vision, USB3 Vision, CoaXPress, whatever a GenTL producer offers.

The producer is the maker's library (`*.cti`); harvesters loads it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.errors import AlganError, CameraError, ConfigError
from algan_stream.sources.base import SourceContext, require
from algan_stream.sources.device import Device, Picture, TriggerMode
from algan_stream.sources.features import Value, set_features
from algan_stream.sources.live import LiveConfig, LiveSource
from algan_stream.sources.pixels import CHANNELS, camera_format, check_white
from algan_stream.types import CameraFormat, Spec

_FOLDERS = "GENICAM_GENTL64_PATH"
#: What the transport layer calls GigE Vision, where 16 bits count and 0 is left out.
_GIGE, _GIGE_WRAP = "GEV", (1, 65_535)
_TRIGGER = frozenset({"TriggerMode", "TriggerSource"})


class Config(LiveConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source with `kind: genicam`.

    It has the keys of every live camera, and these. With a trigger, `stale_s` is 0 unless it is set.

    Attributes:
        producers: Files (`*.cti`) of the makers' libraries; empty: all in the folders that the environment
            variable GENICAM_GENTL64_PATH names.
        serial: Serial number; empty for the only camera, or where `id` says which.
        id: The camera's name in its producer.
        features: Values by GenICam's names, set in this order, then read back and compared.
        trigger: `free`: the camera runs by itself; `hardware`: a signal at `trigger_line` takes a picture;
            `software`: only a `triggered` source around this one does.
        trigger_line: Where the hardware's signal comes in.
        buffers: Pictures that the library holds for us.
    """

    kind: Literal["genicam"] = "genicam"
    producers: tuple[str, ...] = ()
    serial: str = ""
    id: str = ""
    features: dict[str, Value] = msgspec.field(default_factory=dict)
    trigger: TriggerMode = "free"
    trigger_line: str = "Line1"
    buffers: int = 10

    def __post_init__(self) -> None:
        LiveConfig.__post_init__(self)
        if self.serial and self.id:
            raise ValueError("id: expected only one of serial and id")
        if taken := sorted(_TRIGGER & set(self.features)):
            raise ValueError(f"features: {taken[0]} follows from `trigger` and `trigger_line`; set those")
        if not 1 <= self.buffers <= 1000:
            raise ValueError(f"buffers: expected 1 to 1000, got {self.buffers}")


class _Producers:
    """The producers of one configuration, loaded once in a process: most refuse a second time."""

    _all: ClassVar[dict[tuple[str, ...], _Producers]] = {}
    lock: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, files: tuple[str, ...]) -> None:
        from harvesters.core import Harvester

        self.harvester, self._files, self._users = Harvester(), files, 0
        for file in files:
            self.harvester.add_file(file, check_existence=True, check_validity=True)

    @classmethod
    def of(cls, files: tuple[str, ...]) -> _Producers:
        with cls.lock:
            if files not in cls._all:
                cls._all[files] = cls(files)
            cls._all[files]._users += 1
            return cls._all[files]

    def leave(self) -> None:
        with self.lock:
            self._users -= 1
            if self._users == 0:
                self._all.pop(self._files).harvester.reset()


class GenicamDevice(Device):
    """One camera, open and grabbing."""

    def __init__(self, config: Config, spec: Spec | None) -> None:
        self._trigger = config.trigger
        self._acquirer: Any = None
        self._incomplete, self._last = 0, -1
        self._shown = f"GenICam camera {config.serial or config.id}".strip()
        self._producers = _Producers.of(_files(config))
        try:
            with _Producers.lock:
                acquirer = self._acquirer = self._open(config)
            self._set_up(config, spec)
            acquirer.num_buffers = max(config.buffers, acquirer.min_num_buffers)
            acquirer.add_callback(acquirer.Events.INCOMPLETE_BUFFER, _counting(self._on_incomplete))
            acquirer.start()
        except AlganError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise CameraError(f"{self._shown}: {_short(error)}") from error

    def grab(self, timeout_s: float) -> Picture | None:
        """The next picture, also one that is incomplete: its count alone is known."""
        try:
            buffer = None if self._incomplete else self._acquirer.try_fetch(timeout=timeout_s)
            if self._incomplete:
                return self._incomplete_picture()
            if buffer is None:
                return None
            try:
                return self._picture(buffer)
            finally:
                buffer.queue()
        except AlganError:
            raise
        except Exception as error:
            raise CameraError(f"{self._shown}: {_short(error)}") from error

    def trigger(self) -> None:
        """Takes a picture, where the camera waits for the software to say so.

        Raises:
            CameraError: It refuses.
        """
        if self._trigger == "software":
            try:
                self._nodes.TriggerSoftware.execute()
            except Exception as error:
                raise CameraError(f"{self._shown}: {_short(error)}") from error

    def close(self) -> None:
        """Ends the grabbing and frees the camera."""
        acquirer, self._acquirer = self._acquirer, None
        try:
            if acquirer is not None:
                with _Producers.lock:
                    acquirer.stop()
                    acquirer.destroy()
        finally:
            self._producers.leave()

    def _open(self, config: Config) -> Any:
        from harvesters.core import ParameterKey, ParameterSet

        harvester = self._producers.harvester
        harvester.update()
        found = harvester.device_info_list
        matching = [
            device
            for device in found
            if config.serial in ("", device.serial_number) and config.id in ("", device.id_)
        ]
        if not matching:
            seen = ", ".join(device.serial_number or device.id_ for device in found) or "none at all"
            raise CameraError(f"{self._shown}: is not among the cameras found: {seen}")
        if len(matching) > 1:
            serials = ", ".join(sorted(device.serial_number for device in matching))
            raise ConfigError(f"serial: expected one of {serials}, as there are {len(matching)}; got none")
        self._shown = f"{matching[0].model} {matching[0].serial_number}"
        if matching[0].tl_type == _GIGE:
            self.wrap = _GIGE_WRAP
        # Otherwise it looks for a picture a thousand times a second.
        calm = ParameterSet({ParameterKey.TIMEOUT_PERIOD_ON_UPDATE_EVENT_DATA_CALL: 50})
        return harvester.create(matching[0], config=calm)

    def _set_up(self, config: Config, spec: Spec | None) -> None:
        self._nodes = nodes = self._acquirer.remote_device.node_map

        def write(name: str, value: Value) -> None:
            if not nodes.has_node(name):
                raise LookupError("it has no such feature")
            node = getattr(nodes, name)
            if hasattr(node, "execute"):
                node.execute()
            else:
                node.value = value

        def read(name: str) -> object:
            return getattr(getattr(nodes, name), "value", None)

        set_features({**config.features, **_trigger_features(config)}, write, read)
        check_white(nodes.PixelFormat.value, spec)
        camera_format(nodes.PixelFormat.value)

    def _picture(self, buffer: Any) -> Picture:
        part = buffer.payload.components[0]
        pixel_format = camera_format(part.data_format)
        size_wh = part.width, part.height
        number = _optional(lambda: int(buffer.module.frame_id))
        self._last = number if number is not None else -1
        image = _pixels(part, pixel_format)
        if image is None:
            fault = f"incomplete: expected {part.width} x {part.height} pixels, got {part.data.size} values"
            return Picture(np.zeros((0, 0), np.uint8), "grey8", size_wh, fault, number)
        return Picture(image, pixel_format, size_wh, "", number, _camera_ns(buffer.module))

    def _on_incomplete(self) -> None:
        self._incomplete += 1

    def _incomplete_picture(self) -> Picture:
        self._incomplete -= 1
        number = None
        if self._last >= 0:  # harvesters gives the number of a whole one only; it comes behind the last
            number = self._last = self._last + 1
        return Picture(
            np.zeros((0, 0), np.uint8), "grey8", (0, 0), "incomplete: the camera's data has holes", number
        )


def create(config: Config, context: SourceContext) -> LiveSource:
    """Opens the camera once and sets it, to see that it does what is wanted.

    Raises:
        CameraError: It is not there, and is `required_at_start`.
        ConfigError: There is no producer, the camera does not take its settings, or it sends pixels that
            `preprocess` does not read.
        PluginError: harvesters is not installed.
    """
    require("harvesters.core", "genicam")

    _files(config)
    if config.stale_s is None and config.trigger != "free":
        config = msgspec.structs.replace(config, stale_s=0.0)
    return LiveSource(config, context, lambda: GenicamDevice(config, context.spec), config.trigger)


def _files(config: Config) -> tuple[str, ...]:
    if config.producers:
        if missing := [file for file in config.producers if not Path(file).is_file()]:
            raise ConfigError(f"producers: {missing[0]}: there is no such file")
        return config.producers
    folders = [Path(folder) for folder in os.environ.get(_FOLDERS, "").split(os.pathsep) if folder]
    found = tuple(sorted(str(file) for folder in folders for file in folder.glob("*.cti")))
    if not found:
        raise ConfigError(
            f"producers: expected files (*.cti) here or in the folders of {_FOLDERS}, found none; install "
            "the camera maker's GenTL producer"
        )
    return found


def _trigger_features(config: Config) -> dict[str, Value]:
    """A camera that runs by itself may know no trigger at all, so that nothing is set there."""
    if config.trigger == "free":
        return {}
    source = "Software" if config.trigger == "software" else config.trigger_line
    return {"TriggerSelector": "FrameStart", "TriggerMode": "On", "TriggerSource": source}


def _pixels(part: Any, pixel_format: CameraFormat) -> npt.NDArray[Any] | None:
    """A copy of the pixels, for the buffer goes back to the camera; None where there are too few."""
    channels = CHANNELS.get(pixel_format, 1)
    row = part.width * channels
    padding = _optional(lambda: int(part.x_padding)) or 0
    stride = row + padding // part.data.itemsize
    if part.data.size < stride * part.height:
        return None
    rows = part.data[: stride * part.height].reshape(part.height, stride)[:, :row]
    return np.array(rows.reshape(part.height, part.width, channels) if channels > 1 else rows)


def _camera_ns(module: Any) -> int | None:
    if known := _optional(lambda: int(module.timestamp_ns)):
        return known
    ticks = _optional(lambda: int(module.timestamp))
    per_s = _optional(lambda: int(module.parent.parent.timestamp_frequency))
    return round(ticks * 1e9 / per_s) if ticks and per_s else None


def _optional(read: Callable[[], int]) -> int | None:
    """Producers raise where they do not know a thing."""
    try:
        return read()
    except Exception:  # noqa: BLE001
        return None


def _counting(count: Callable[[], None]) -> Any:
    from harvesters.core import Callback

    class Counting(Callback):  # type: ignore[misc]  # harvesters takes its own class only
        def emit(self, context: object = None) -> None:
            count()

    return Counting()


def _short(error: Exception) -> str:
    return str(error).partition(" : ")[0].strip() or type(error).__name__
