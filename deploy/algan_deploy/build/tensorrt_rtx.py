"""`--target tensorrt-rtx:sm80,sm86`: engines for named compute capabilities, on any machine, with no GPU."""

from __future__ import annotations

from typing import Any

from algan_deploy.build.builder import check_offered, ensure
from algan_deploy.build.request import Built, Request
from algan_stream.engines.cuda_device import device_facts
from algan_stream.engines.tensorrt_common import TENSORRT_RTX, engine_key
from algan_stream.errors import EngineError


def build(request: Request) -> list[Built]:
    """Builds for each capability that is named, or for the device here; or finds what was built before.

    Raises:
        EngineError: A capability or an option is not offered, or the builder refuses.
        PluginError: TensorRT for RTX is missing; or no capability is named, and pycuda or the driver is.
    """
    check_offered(TENSORRT_RTX, request)
    trt = TENSORRT_RTX.load()
    wanted = request.capabilities or (device_facts(request.device).sm,)
    offered = capabilities(trt)
    if unknown := [sm for sm in wanted if sm not in offered]:
        raise EngineError(
            f"--target: expected of tensorrt-rtx {trt.__version__} some of {', '.join(offered)}, "
            f"got {', '.join(unknown)}"
        )
    built = []
    for sm in wanted:
        key = engine_key(
            TENSORRT_RTX,
            trt.__version__,
            request.bundle,
            sm,
            precision=request.precision,
            batch=request.batch,
        )
        built.append(ensure(trt, request, key, capability=sm))
    return built


def capabilities(trt: Any) -> list[str]:
    """Compute capabilities that the library builds for, e.g. `sm80`."""
    names = [name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    return sorted(names, key=lambda name: int(name[2:]))
