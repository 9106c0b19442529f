"""TensorRT on NVIDIA GPUs and Jetsons: engines built on the device by `algan-stream build`."""

from __future__ import annotations

from typing import Literal

from algan_stream.bundle import Bundle
from algan_stream.engines.tensorrt_common import TENSORRT, TensorRtConfig
from algan_stream.engines.tensorrt_engine import TensorRtEngine


class Config(TensorRtConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `engine` with `kind: tensorrt`."""

    kind: Literal["tensorrt"] = "tensorrt"


def create(bundle: Bundle, config: Config) -> TensorRtEngine:
    """Loads the compiled engine for this device from the cache; never builds one.

    Raises:
        MissingEngineError: There is none; says how to build it.
        EngineError: It cannot be loaded, or does not fit the bundle.
        PluginError: The library, pycuda or the driver is missing.
    """
    return TensorRtEngine(bundle, config, TENSORRT)
