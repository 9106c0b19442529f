"""OpenVINO's devices: which are here, what they compute in, and what each wants to be told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from algan_stream.errors import EngineError

#: OpenVINO's name of each precision; what int8 leaves unquantised is computed as `hint` says.
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
#: What a device must say it is able to do.
_CAPABILITY = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}
#: Devices that compile for fixed shapes: they always run a whole slot.
FIXED_BATCH = ("NPU",)


def without_telemetry() -> None:
    """Keeps OpenVINO from sending usage to its maker.

    Importing it would else start a process that does, from a service full of threads, write files into the
    user's home, and wait at the end for whoever does not answer. It foresees that the package is missing.
    """
    # None says that it cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def load_openvino() -> Any:
    """The module `openvino`, `without_telemetry`."""
    without_telemetry()
    import openvino

    return openvino


def present(core: Any) -> list[str]:
    """The devices here, as they may be named: `CPU`, `GPU` or `GPU.0`, `GPU.1`, `NPU`."""
    return [str(device) for device in core.available_devices]


def choose(core: Any, device: str, path: Path) -> str:
    """The one device that `device` means.

    OpenVINO's AUTO would start on the CPU and change over once another device is ready: to one that has not
    passed the golden gate. So it is only asked which device it would take.

    Raises:
        EngineError: There is none of that name.
    """
    if device == "AUTO":
        settled = {"ENABLE_STARTUP_FALLBACK": False, "ENABLE_RUNTIME_FALLBACK": False}
        return str(core.compile_model(path, "AUTO", settled).get_property("EXECUTION_DEVICES")[0])
    here = present(core)
    # One GPU is called GPU, the first of several GPU.0; both names are right for either.
    names = {*here, *(name.partition(".")[0] for name in here)} | ({"GPU.0"} if "GPU" in here else set())
    if device not in names:
        raise EngineError(
            f"engine.device: {device} is not here (found: {', '.join(here)}); choose one of these or AUTO, "
            "or install its driver"
        )
    return device


def check_precision(core: Any, device: str, precision: str) -> None:
    """Refuses arithmetic that the device does not have.

    Raises:
        EngineError: The message lists what it has.
    """
    capabilities = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    offered = [name for name, needed in _CAPABILITY.items() if needed in capabilities]
    if precision not in offered:
        where = "this processor" if device == "CPU" else device
        raise EngineError(
            f"engine.precision: {precision} is not offered by {where} (it offers {', '.join(offered)}); "
            "choose one of these"
        )


def properties(
    device: str, precision: str, hint: str, *, threads: int, streams: int, cache_dir: str
) -> dict[str, Any]:
    """What the model is compiled with.

    Args:
        device: As `choose` gave it.
        precision: As `check_precision` let it through.
        hint: `THROUGHPUT` or `LATENCY`.
        threads: Processors; only CPUs know this.
        streams: Requests at the same time; 0 leaves it to the device.
        cache_dir: Folder where OpenVINO keeps what it has compiled; empty: nowhere.
    """
    # A CPU computes what int8 leaves in fp32, the same on every processor; the others know fp16 best.
    rest = "f32" if device == "CPU" else "f16"
    told: dict[str, Any] = {
        "PERFORMANCE_HINT": hint,
        "INFERENCE_PRECISION_HINT": HINTS.get(precision, rest),
    }
    if device == "CPU":
        told["INFERENCE_NUM_THREADS"] = threads
    if streams:
        told["NUM_STREAMS"] = streams
    if cache_dir:
        told["CACHE_DIR"] = cache_dir
    return told
