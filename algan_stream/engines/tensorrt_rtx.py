"""TensorRT for RTX: engines built ahead of time, on any machine, for a named compute capability."""

from __future__ import annotations

from typing import Literal

from algan_stream.bundle import Bundle
from algan_stream.engines.tensorrt_common import TENSORRT_RTX, TensorRtConfig
from algan_stream.engines.tensorrt_engine import TensorRtEngine


class Config(TensorRtConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `engine` with `kind: tensorrt_rtx`."""

    kind: Literal["tensorrt_rtx"] = "tensorrt_rtx"


def create(bundle: Bundle, config: Config) -> TensorRtEngine:
    """Loads the compiled engine for this device from the cache; never builds one.

    Raises:
        MissingEngineError: There is none; says how to build it.
        EngineError: It cannot be loaded, or does not fit the bundle.
        PluginError: The library, pycuda or the driver is missing.
    """
    return TensorRtEngine(bundle, config, TENSORRT_RTX)
