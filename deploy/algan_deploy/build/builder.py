"""From an ONNX graph to a compiled engine, by the interface that TensorRT and TensorRT for RTX share."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from algan_deploy.build.half import to_half
from algan_deploy.build.request import Built, Request
from algan_stream.engines.cache import EngineKey, EntryInfo
from algan_stream.engines.tensorrt_common import HARDWARE_COMPATIBLE, VERSION_COMPATIBLE, Flavour, new_logger
from algan_stream.errors import EngineCacheError, EngineError

log = logging.getLogger(__name__)

#: Names in every bundle's graph.
INPUT, OUTPUT = "input", "logit"


@dataclass(frozen=True)
class Compiled:
    """A finished engine, the flags that were set, and what the builder learnt of kernels' speeds."""

    payload: bytes
    flags: tuple[str, ...]
    timing: bytes


def compatible_options(request: Request) -> tuple[str, ...]:
    """The names that these options have in an engine's key."""
    chosen = (
        (VERSION_COMPATIBLE, request.version_compatible),
        (HARDWARE_COMPATIBLE, request.hardware_compatible),
    )
    return tuple(name for name, on in chosen if on)


def ensure(
    trt: Any, request: Request, key: EngineKey, *, capability: str = "", timing_name: str = ""
) -> Built:
    """The engine of a key, from the cache or built now.

    Args:
        trt: The module.
        request: What was asked for.
        key: Of the engine.
        capability: Compute capability to build for, or "" for the device here.
        timing_name: File beside the engines that keeps the kernels' speeds, or "" for none.

    Raises:
        EngineError: It cannot be built, or not be stored.
    """
    try:
        if not request.force and (found := request.cache.load(key)) is not None:
            return _built(found[1], found=True)
    except EngineCacheError as error:
        log.warning("%s; it is built again", error)
    timing_file = request.cache.folder / timing_name
    timing = timing_file.read_bytes() if timing_name and timing_file.is_file() else b""
    started = time.monotonic()
    compiled = compile_engine(trt, request, capability=capability, timing=timing if timing_name else None)
    info = request.cache.store(
        key, compiled.payload, build_s=time.monotonic() - started, flags=compiled.flags
    )
    if timing_name and compiled.timing:
        request.cache.keep_beside(timing_name, compiled.timing)
    return _built(info, found=False)


def compile_engine(
    trt: Any, request: Request, *, capability: str = "", timing: bytes | None = None
) -> Compiled:
    """Builds an engine.

    Args:
        trt: The module.
        request: What was asked for.
        capability: Compute capability to build for, or "" for the device here.
        timing: What an earlier build learnt of kernels' speeds, b"" for nothing yet; None: not offered.

    Raises:
        EngineError: The graph cannot be parsed, does not fit the manifest, or the builder refuses.
    """
    logger = new_logger(trt)
    builder = trt.Builder(logger)
    typed = _strongly_typed(trt, request)
    network = builder.create_network(_creation_flags(trt, typed))
    path = request.bundle.model_for(request.precision)
    graph = path.read_bytes()
    graph = to_half(graph) if typed and request.precision == "fp16" else graph
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise EngineError(f"{path}: {trt.__name__} cannot parse it: {_parser_errors(parser)}")
    shape = request.bundle.manifest.spec.shape
    _check_network(trt, network, shape)
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *((count, *shape) for count in request.batch))
    config.add_optimization_profile(profile)
    flags = _set_precision(trt, config, request, typed=typed)
    flags += _set_compatibility(trt, config, request)
    flags += _set_device(trt, builder, config, request, capability)
    cache = None
    if timing is not None:
        cache = config.create_timing_cache(timing)
        config.set_timing_cache(cache, ignore_mismatch=False)  # one of another device is started anew
    payload = builder.build_serialized_network(network, config)
    if payload is None:
        said = "; ".join(logger.errors) or "no reason given"
        raise EngineError(f"{path}: {trt.__name__} {trt.__version__} cannot build it: {said}")
    return Compiled(bytes(payload), tuple(flags), b"" if cache is None else bytes(cache.serialize()))


def _strongly_typed(trt: Any, request: Request) -> bool:
    """Whether types come from the graph; older versions choose them by flags, and need to for the DLA."""
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return False
    return request.dla is None or not hasattr(trt.BuilderFlag, "FP16")


def _creation_flags(trt: Any, typed: bool) -> int:
    known = trt.NetworkDefinitionCreationFlag
    names = ["STRONGLY_TYPED"] if typed else []
    names += ["EXPLICIT_BATCH"] if hasattr(known, "EXPLICIT_BATCH") else []  # since version 10 the only way
    return sum(1 << int(getattr(known, name)) for name in names)


def _parser_errors(parser: Any) -> str:
    parts = []
    for i in range(parser.num_errors):
        error = parser.get_error(i)
        where = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_operator() else ""
        parts.append(where + error.desc())
    return "; ".join(parts) or "no reason given"


def _check_network(trt: Any, network: Any, shape: tuple[int, ...]) -> None:
    ends = [[get(i) for i in range(count)] for get, count in (
        (network.get_input, network.num_inputs), (network.get_output, network.num_outputs)
    )]  # fmt: skip
    found = [[(end.name, tuple(end.shape), end.dtype) for end in side] for side in ends]
    number = trt.DataType.FLOAT
    expected = [[(INPUT, (-1, *shape), number)], [(OUTPUT, (-1,), number)]]
    if found != expected:
        raise EngineError(
            f"model: expected inputs and outputs {expected}, got {found}; it does not fit the manifest"
        )


def _set_precision(trt: Any, config: Any, request: Request, *, typed: bool) -> list[str]:
    if request.precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # its 10 bits of mantissa are not what fp32 promises
        return []
    if typed:
        return []
    names = ["FP16"] if request.precision == "fp16" else ["FP16", "INT8"]
    for name in names:
        config.set_flag(getattr(trt.BuilderFlag, name))
    return names


def _set_compatibility(trt: Any, config: Any, request: Request) -> list[str]:
    flags = []
    if request.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        flags.append("VERSION_COMPATIBLE")
    if request.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        flags.append("AMPERE_PLUS")
    return flags


def _set_device(trt: Any, builder: Any, config: Any, request: Request, capability: str) -> list[str]:
    if capability:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, capability.upper()), 0)
        return [capability.upper()]
    if request.dla is None:
        return []
    if request.dla >= builder.num_DLA_cores:
        raise EngineError(f"--dla: expected below {builder.num_DLA_cores}, the cores here, got {request.dla}")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = request.dla
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)  # what the accelerator cannot do
    return [f"DLA{request.dla}", "GPU_FALLBACK"]


def _built(info: EntryInfo, *, found: bool) -> Built:
    key = info.key
    return Built(
        kind=key.kind,
        version=key.version,
        device=key.device,
        precision=key.precision,
        batch=key.batch,
        key=key.digest,
        size_bytes=info.size_bytes,
        build_s=info.build_s,
        flags=info.flags,
        found=found,
    )


def check_offered(flavour: Flavour, request: Request) -> None:
    """Refuses options that a target does not have.

    Raises:
        EngineError: Says which, and why.
    """
    if flavour.ahead:
        wrong = {
            "--dla": (request.dla is not None, "has no accelerator besides the GPU"),
            "--version-compatible": (request.version_compatible, "offers none; build again after an upgrade"),
            "--hardware-compatible": (request.hardware_compatible, "builds for each capability named"),
        }
    else:
        wrong = {
            f"--target {flavour.target}:…": (bool(request.capabilities), "builds on the device itself"),
            "--dla": (request.dla is not None and request.precision == "fp32", "computes in fp16 or int8"),
        }
    for option, (given, why) in wrong.items():
        if given:
            subject = "the accelerator" if option == "--dla" and not flavour.ahead else flavour.target
            raise EngineError(f"{option}: {subject} {why}")
