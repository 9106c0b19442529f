"""`--target tensorrt`: an engine for the device that it is built on."""

from __future__ import annotations

import re

from algan_deploy.build.builder import check_offered, compatible_options, ensure
from algan_deploy.build.request import Built, Request
from algan_stream.engines.cuda_device import DeviceFacts, device_facts
from algan_stream.engines.tensorrt_common import TENSORRT, engine_key


def build(request: Request, facts: DeviceFacts | None = None) -> list[Built]:
    """Builds for the device here, or finds what was built before.

    Args:
        request: What was asked for.
        facts: The device; by default what pycuda says of it.

    Raises:
        EngineError: An option is not offered, or the builder refuses.
        PluginError: TensorRT, pycuda or the driver is missing.
    """
    check_offered(TENSORRT, request)
    trt = TENSORRT.load()
    facts = facts or device_facts(request.device)
    key = engine_key(
        TENSORRT,
        trt.__version__,
        request.bundle,
        facts,
        precision=request.precision,
        batch=request.batch,
        dla=request.dla,
        compatible=compatible_options(request),
    )
    timing = re.sub(r"[^A-Za-z0-9.]+", "-", f"timing {trt.__version__} {facts.name} {facts.sm}") + ".cache"
    return [ensure(trt, request, key, timing_name=timing)]
