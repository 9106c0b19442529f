"""What building and running TensorRT engines share: which library, which key, which command."""

from __future__ import annotations

import importlib
import logging
import shlex
import sys
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from algan_stream.bundle import Bundle
from algan_stream.engines.base import EngineConfig
from algan_stream.engines.cache import EngineCache, EngineKey, EntryInfo, cache_folder
from algan_stream.engines.cuda_device import DeviceFacts
from algan_stream.errors import EngineCacheError, MissingEngineError, PluginError

log = logging.getLogger(__name__)

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
#: Names of the builder's options in a key: such engines fit other versions, or other devices.
VERSION_COMPATIBLE, HARDWARE_COMPATIBLE = "version-compatible", "hardware-compatible"


@dataclass(frozen=True)
class Flavour:
    """One of the two libraries behind the same interface.

    Attributes:
        kind: Of the engine plugin, and name of the Python module.
        target: Its name in `algan-stream build --target`.
        ahead: Engines are built for a named compute capability, on any machine, and fit every driver.
    """

    kind: Literal["tensorrt", "tensorrt_rtx"]
    target: str
    ahead: bool

    def load(self) -> Any:
        """The module, TensorRT's interface in Python.

        Raises:
            PluginError: It is not installed, or one of its libraries is missing.
        """
        try:
            return importlib.import_module(self.kind)
        except ModuleNotFoundError as error:
            raise PluginError(
                f"engine.kind: {self.kind} needs the Python package {error.name}; install it by: "
                f"pip install 'algan-stream[{self.target}]' (on a Jetson, tensorrt comes with JetPack)"
            ) from error
        except ImportError as error:
            raise PluginError(f"engine.kind: {self.kind} cannot be loaded: {error}") from error


TENSORRT = Flavour("tensorrt", "tensorrt", ahead=False)
TENSORRT_RTX = Flavour("tensorrt_rtx", "tensorrt-rtx", ahead=True)


class TensorRtConfig(EngineConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the sections `engine` of both kinds have; `threads` says nothing here, `streams: 0` is 2.

    Attributes:
        precision: What it computes in; `int8` needs the bundle's quantised graph.
        device: Number of the CUDA device.
        min_batch: Smallest batch that the engine was built for; smaller ones are filled up.
        opt_batch: Batch that the engine is tuned for; 0 = `max_batch`.
        dla: Core of a Jetson's deep learning accelerator, or None for the GPU.
        cache: Folder of compiled engines; by default that of ALGAN_ENGINE_CACHE, or `engines` in the bundle.
        cuda_graphs: Record each batch size once and start it by one call.
    """

    precision: Precision = "fp32"
    device: int = 0
    min_batch: int = 1
    opt_batch: int = 0
    dla: int | None = None
    cache: str = ""
    cuda_graphs: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.min_batch <= self.batch[1] <= self.max_batch:
            raise ValueError(
                f"min_batch, opt_batch, max_batch: expected 1 or more, in rising order, got {self.batch}"
            )
        if self.device < 0 or (self.dla is not None and self.dla < 0):
            raise ValueError(f"device, dla: expected 0 or more, got {self.device}, {self.dla}")

    @property
    def batch(self) -> tuple[int, int, int]:
        """Smallest, best and largest batch."""
        return self.min_batch, self.opt_batch or self.max_batch, self.max_batch


def engine_key(
    flavour: Flavour,
    version: str,
    bundle: Bundle,
    device: DeviceFacts | str,
    *,
    precision: Precision,
    batch: tuple[int, int, int],
    dla: int | None = None,
    compatible: tuple[str, ...] = (),
) -> EngineKey:
    """The key of an engine.

    Args:
        flavour: Which library.
        version: Of that library.
        bundle: Whose model.
        device: The device; or, of one that is not here, the compute capability, e.g. `sm89`.
        precision: What it computes in.
        batch: Smallest, best and largest batch.
        dla: Core of the deep learning accelerator, or None.
        compatible: `VERSION_COMPATIBLE` and `HARDWARE_COMPATIBLE`, as far as it is built so.

    Raises:
        BundleError: The bundle has no graph of that precision.
    """
    if isinstance(device, str):
        name, driver = device, ""
    elif flavour.ahead:
        name, driver = device.sm, ""
    elif HARDWARE_COMPATIBLE in compatible:
        name, driver = "ampere or newer", ""
    else:
        name, driver = f"{device.name} {device.sm}", device.driver
    return EngineKey(
        model_sha256=bundle.sha256_for(precision),
        kind=flavour.kind,
        version=f"{version.partition('.')[0]}.*" if VERSION_COMPATIBLE in compatible else version,
        device=name,
        driver=driver,
        precision=precision,
        input_shape=bundle.manifest.spec.shape,
        batch=batch,
        options=(*(() if dla is None else (f"dla{dla}",)), *compatible),
    )


def find_engine(
    flavour: Flavour, version: str, bundle: Bundle, device: DeviceFacts, config: TensorRtConfig
) -> tuple[bytes, EntryInfo]:
    """The compiled engine for this device; never builds one.

    Raises:
        MissingEngineError: There is none, or it was corrupt; the message ends with the command to build it.
        BundleError: The bundle has no graph of that precision.
    """
    cache = EngineCache(cache_folder(bundle, config.cache))
    both = (VERSION_COMPATIBLE, HARDWARE_COMPATIBLE)
    choices = ((),) if flavour.ahead else ((), both[:1], both[1:], both)
    why = ""
    for compatible in choices:
        key = engine_key(
            flavour,
            version,
            bundle,
            device,
            precision=config.precision,
            batch=config.batch,
            dla=config.dla,
            compatible=compatible,
        )
        try:
            if (found := cache.load(key)) is not None:
                return found
        except EngineCacheError as error:
            why = why or str(error)
    if not why:
        wanted = engine_key(
            flavour, version, bundle, device, precision=config.precision, batch=config.batch, dla=config.dla
        )
        near = cache.nearest(wanted)
        more = f"; the nearest there differs in {'; '.join(wanted.differences(near.key))}" if near else ""
        why = f"{cache.folder}: no {flavour.kind} engine for {wanted.device} {wanted.precision}{more}"
    arguments = build_arguments(flavour, bundle, device.sm, config)
    command = (sys.executable, "-m", "algan_stream", *arguments)
    raise MissingEngineError(f"{why}; build it by: algan-stream {shlex.join(arguments)}", command)


def build_arguments(flavour: Flavour, bundle: Bundle, sm: str, config: TensorRtConfig) -> list[str]:
    """Arguments of `algan-stream` that build what a section `engine` needs."""
    low, best, high = config.batch
    arguments = [
        "build",
        str(bundle.path),
        "--target",
        f"{flavour.target}:{sm}" if flavour.ahead else flavour.target,
    ]
    arguments += ["--precision", config.precision]
    arguments += ["--min-batch", str(low), "--opt-batch", str(best), "--max-batch", str(high)]
    if config.device:
        arguments += ["--device", str(config.device)]
    if config.dla is not None:
        arguments += ["--dla", str(config.dla)]
    return arguments + (["--cache", config.cache] if config.cache else [])


def new_logger(trt: Any) -> Any:
    """TensorRT's messages as ours, one step quieter: its information is of no use to an operator."""
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.WARNING,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]  # the module is known only at run time
        #: Errors so far, for the message of what failed.
        errors: list[str]

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors = []

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                self.errors.append(message)
            log.log(level if level != logging.ERROR else logging.WARNING, "%s: %s", trt.__name__, message)

    return Logger()
