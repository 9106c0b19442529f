"""Basler cameras, by Basler's own library through pypylon."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np

from algan_stream.errors import CameraError, ConfigError
from algan_stream.sources.base import SourceContext, require
from algan_stream.sources.device import Device, Picture, TriggerMode
from algan_stream.sources.features import Value, set_features
from algan_stream.sources.live import LiveConfig, LiveSource
from algan_stream.sources.pixels import camera_format, check_white
from algan_stream.types import Spec

#: Block numbers from here on mean that the camera has none.
_NO_NUMBER = 1 << 63
#: A GigE Vision camera counts in 16 bits and leaves 0 out; one that counts further is counted right as well.
_GIGE_WRAP = (1, 65_535)
_TRIGGER_READY_MS = 500
_TRIGGER = frozenset({"TriggerMode", "TriggerSource"})


class Config(LiveConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source with `kind: pylon`.

    It has the keys of every live camera, and these. With a trigger, `stale_s` is 0 unless it is set.

    Attributes:
        serial: Serial number; empty for the only camera, or where `name` or `ip` says which.
        name: The name that the user gave the camera.
        ip: The camera's address.
        features: Values by GenICam's names, set in this order, then read back and compared.
        trigger: `free`: the camera runs by itself; `hardware`: a signal at `trigger_line` takes a picture;
            `software`: only a `triggered` source around this one does.
        trigger_line: Where the hardware's signal comes in.
        chunks: Let the camera send its time stamp with each picture; needed where it sends none otherwise.
        buffers: Pictures that the library holds for us.
    """

    kind: Literal["pylon"] = "pylon"
    serial: str = ""
    name: str = ""
    ip: str = ""
    features: dict[str, Value] = msgspec.field(default_factory=dict)
    trigger: TriggerMode = "free"
    trigger_line: str = "Line1"
    chunks: bool = False
    buffers: int = 10

    def __post_init__(self) -> None:
        LiveConfig.__post_init__(self)
        if sum(map(bool, (self.serial, self.name, self.ip))) > 1:
            raise ValueError("serial: expected only one of serial, name and ip")
        if taken := sorted(_TRIGGER & set(self.features)):
            raise ValueError(f"features: {taken[0]} follows from `trigger` and `trigger_line`; set those")
        if not 1 <= self.buffers <= 1000:
            raise ValueError(f"buffers: expected 1 to 1000, got {self.buffers}")


class PylonDevice(Device):
    """One camera, open and grabbing."""

    def __init__(self, config: Config, spec: Spec | None) -> None:
        from pypylon import genicam, pylon

        self._pylon, self._error = pylon, genicam.GenericException
        self._trigger = config.trigger
        self._camera: Any = None
        try:
            self._camera = pylon.InstantCamera(_found(pylon, config))
            self._camera.Open()
            self._set_up(config, spec)
            self._camera.MaxNumBuffer.Value = config.buffers
            self._camera.StartGrabbing(pylon.GrabStrategy_OneByOne)
        except genicam.GenericException as error:
            self.close()
            raise CameraError(f"{_which(config)}: {_short(error)}") from error
        except ConfigError:
            self.close()
            raise

    def grab(self, timeout_s: float) -> Picture | None:
        """The next picture, also one that is incomplete."""
        camera = self._camera
        try:
            if camera.IsCameraDeviceRemoved():
                raise CameraError(f"{self._shown}: was unplugged, or lost its power or network")
            result = camera.RetrieveResult(round(timeout_s * 1e3), self._pylon.TimeoutHandling_Return)
            if not result:
                return None
            try:
                return self._picture(result)
            finally:
                result.Release()
        except self._error as error:
            raise CameraError(f"{self._shown}: {_short(error)}") from error

    def trigger(self) -> None:
        """Takes a picture, where the camera waits for the software to say so.

        Raises:
            CameraError: It does not become ready, or refuses.
        """
        if self._trigger != "software":
            return
        try:
            if not self._camera.WaitForFrameTriggerReady(
                _TRIGGER_READY_MS, self._pylon.TimeoutHandling_Return
            ):
                raise CameraError(f"{self._shown}: is not ready for a trigger")
            self._camera.ExecuteSoftwareTrigger()
        except self._error as error:
            raise CameraError(f"{self._shown}: {_short(error)}") from error

    def close(self) -> None:
        """Ends the grabbing and frees the camera."""
        if self._camera is not None:
            self._camera.Close()
            self._camera.DestroyDevice()

    def _set_up(self, config: Config, spec: Spec | None) -> None:
        nodes = self._camera.GetNodeMap()
        wanted = {**config.features, **_trigger_features(config)}
        if config.chunks:
            wanted |= {"ChunkModeActive": True, "ChunkSelector": "Timestamp", "ChunkEnable": True}
        set_features(wanted, *_access(self._pylon, nodes))
        name = nodes.GetNode("PixelFormat").ToString()
        self._format = camera_format(name)
        check_white(name, spec)
        info = self._camera.GetDeviceInfo()
        self._shown = f"{info.GetModelName()} {info.GetSerialNumber()}"
        self._chunks = config.chunks
        if info.GetDeviceClass() == "BaslerGigE":
            self.wrap = _GIGE_WRAP
        ticks = nodes.GetNode("GevTimestampTickFrequency")
        self._tick_ns = 1e9 / ticks.Value if ticks.IsReadable() and ticks.Value > 0 else 1.0

    def _picture(self, result: Any) -> Picture:
        number = result.BlockID
        no_number = number >= _NO_NUMBER or (number == 0 and self.wrap is not None)
        complete = result.GrabSucceeded()
        return Picture(
            image=result.Array if complete else np.zeros((0, 0), np.uint8),
            pixel_format=self._format if complete else "grey8",
            size_wh=(result.Width, result.Height),
            fault="" if complete else f"incomplete: {result.ErrorDescription}",
            number=None if no_number else number,
            camera_ns=self._camera_ns(result),
        )

    def _camera_ns(self, result: Any) -> int | None:
        ticks = result.TimeStamp
        if self._chunks and result.GrabSucceeded():
            ticks = result.ChunkTimestamp.Value
        return round(ticks * self._tick_ns) if ticks else None


def create(config: Config, context: SourceContext) -> LiveSource:
    """Opens the camera once and sets it, to see that it does what is wanted.

    Raises:
        CameraError: It is not there, and is `required_at_start`.
        ConfigError: It does not take its settings, or sends pixels that `preprocess` does not read.
        PluginError: pypylon is not installed.
    """
    require("pypylon.pylon", "pylon")
    _withstand_the_emulator()

    if config.stale_s is None and config.trigger != "free":
        config = msgspec.structs.replace(config, stale_s=0.0)
    return LiveSource(config, context, lambda: PylonDevice(config, context.spec), config.trigger)


def _withstand_the_emulator() -> None:
    """Emulated cameras are timed by SIGALRM, which ends the process where none of their threads takes it."""
    main = threading.current_thread() is threading.main_thread()
    if os.environ.get("PYLON_CAMEMU") and main and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL:
        signal.signal(signal.SIGALRM, lambda *_: None)


def _found(pylon: Any, config: Config) -> Any:
    factory = pylon.TlFactory.GetInstance()
    if _which(config) != _THE_ONLY:
        info = pylon.DeviceInfo()
        if config.serial:
            info.SetSerialNumber(config.serial)
        elif config.name:
            info.SetUserDefinedName(config.name)
        else:
            info.SetIpAddress(config.ip)
        return factory.CreateFirstDevice(info)
    devices = factory.EnumerateDevices()
    if not devices:
        raise CameraError("pylon: expected a Basler camera, found none; check its power, cable and network")
    if len(devices) > 1:
        serials = ", ".join(sorted(device.GetSerialNumber() for device in devices))
        raise ConfigError(f"serial: expected one of {serials}, as there are {len(devices)} cameras; got none")
    return factory.CreateDevice(devices[0])


_THE_ONLY = "the only Basler camera"


def _which(config: Config) -> str:
    for key in ("serial", "name", "ip"):
        if value := getattr(config, key):
            return f"Basler camera with {key} {value}"
    return _THE_ONLY


def _trigger_features(config: Config) -> dict[str, Value]:
    if config.trigger == "free":
        return {"TriggerSelector": "FrameStart", "TriggerMode": "Off"}
    source = "Software" if config.trigger == "software" else config.trigger_line
    return {"TriggerSelector": "FrameStart", "TriggerMode": "On", "TriggerSource": source}


def _access(pylon: Any, nodes: Any) -> tuple[Callable[[str, Value], None], Callable[[str], object]]:
    def write(name: str, value: Value) -> None:
        node = nodes.GetNode(name)
        if isinstance(node, pylon.CommandParameter):
            node.Execute()
        else:
            node.SetValue(float(value) if isinstance(node, pylon.FloatParameter) else value)

    def read(name: str) -> object:
        node = nodes.GetNode(name)
        return None if isinstance(node, pylon.CommandParameter) else node.Value

    return write, read


def _short(error: Exception) -> str:
    return str(error).partition(" : ")[0].strip()
