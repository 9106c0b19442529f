"""How a session of ONNX Runtime is opened for us: the provider that was asked for, or an error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from algan_stream.errors import AlganError, EngineError, PluginError

Shape = tuple[int, ...]

#: ONNX Runtime's name of each provider.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
#: What brings each.
PACKAGES = {
    "cpu": "onnxruntime",
    "cuda": "onnxruntime-gpu in place of onnxruntime, and CUDA with cuDNN",
    "tensorrt": "onnxruntime-gpu in place of onnxruntime, and TensorRT",
}
#: What each computes in. The graph is fp32, so only a provider that converts it by itself has fp16.
PRECISIONS = {"cpu": ("fp32", "int8"), "cuda": ("fp32", "int8"), "tensorrt": ("fp32", "fp16", "int8")}


def library() -> ModuleType:
    """The Python package `onnxruntime`.

    Raises:
        PluginError: It is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise PluginError(
            "engine.kind: onnxruntime needs the Python package onnxruntime; "
            "pip install 'algan-stream[onnxruntime]'"
        ) from error
    module: ModuleType = onnxruntime
    return module


def offered() -> list[str]:
    """Our names of the providers that the installed package has, with or without their devices."""
    available = library().get_available_providers()
    return [name for name, theirs in PROVIDERS.items() if theirs in available]


def check_choice(provider: str, precision: str) -> None:
    """Refuses what cannot be, before anything is loaded.

    Raises:
        EngineError: The package lacks the provider, or the provider the precision.
    """
    if provider not in (present := offered()):
        raise EngineError(
            f"engine.provider: {provider} is not offered by the installed onnxruntime (it offers "
            f"{', '.join(present)}); it comes with {PACKAGES[provider]}"
        )
    if precision not in PRECISIONS[provider]:
        raise EngineError(
            f"engine.precision: {precision} is not offered by provider {provider} (it offers "
            f"{', '.join(PRECISIONS[provider])})"
        )


def open_session(
    path: Path,
    shapes: tuple[Shape, Mapping[str, Shape]],
    *,
    provider: str,
    precision: str,
    gpu: int,
    pool_threads: int,
    max_batch: int,
    whole: bool,
) -> Any:
    """Compiles a graph on one provider.

    Args:
        path: ONNX file.
        shapes: Of its one input `input`, and of each output by name; without N.
        provider: Was checked by `check_choice`.
        precision: Likewise.
        gpu: Number of the device, for providers that have several.
        pool_threads: Processors of one inference, with the thread that calls it.
        max_batch: Most inputs at once; TensorRT builds for 1 to this.
        whole: Refuse a graph of which the provider leaves parts to the CPU.

    Raises:
        EngineError: It cannot be compiled, by this provider, or is not the graph that was expected.
    """
    ort = library()
    if provider != "cpu" and hasattr(ort, "preload_dlls"):
        # CUDA and cuDNN of NVIDIA's wheels, which no search path knows. It prints what it does not find.
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    options = ort.SessionOptions()
    options.intra_op_num_threads = pool_threads
    options.log_severity_level = 3  # errors only; they also come as exceptions
    # Waiting threads would spin on processors that preprocessing needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without VNNI a processor saturates sums of two 8-bit products, and int8 would depend on who computes.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if provider != "cpu":
        options.use_deterministic_compute = True
        if whole:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    wanted = _providers(provider, precision, gpu, shapes[0], max_batch)
    try:
        # Without `enable_fallback=0` it prints a failure and goes on without the provider.
        session = ort.InferenceSession(path, options, providers=wanted, enable_fallback=0)
        _check_graph(path, session, *shapes)
        session.disable_fallback()
        running = session.get_providers()
    except AlganError:
        raise
    except Exception as error:
        if provider != "cpu":
            raise EngineError(
                _does_not_start(provider, f"or cannot run all of {path.name}: {error}")
            ) from error
        raise EngineError(f"{path}: ONNX Runtime cannot compile it: {error}") from error
    if running[0] != PROVIDERS[provider]:
        raise EngineError(_does_not_start(provider, f"ONNX Runtime would use {', '.join(running)}"))
    return session


def _does_not_start(provider: str, why: str) -> str:
    return (
        f"engine.provider: {provider} is installed but does not start ({why}); it needs a device, and "
        f"{PACKAGES[provider]}, in versions that fit each other"
    )


def _providers(
    provider: str, precision: str, gpu: int, input_shape: Shape, max_batch: int
) -> list[str | tuple[str, dict[str, str]]]:
    """Provider and options. The CPU is not named: where it is needed, ONNX Runtime adds it by itself."""
    if provider == "cpu":
        return [PROVIDERS["cpu"]]
    # TF32 rounds factors to 10 bits, which is not fp32; a search by trial may choose differently each time.
    cuda = {"device_id": str(gpu), "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    if provider == "cuda":
        return [(PROVIDERS["cuda"], cuda)]
    each = "x".join(map(str, input_shape))
    # One engine for every batch size; without a profile TensorRT would build another for each.
    profile = {
        f"trt_profile_{name}_shapes": f"input:{size}x{each}"
        for name, size in (("min", 1), ("opt", max_batch), ("max", max_batch))
    }
    arithmetic = {"trt_fp16_enable": precision == "fp16", "trt_int8_enable": precision == "int8"}
    switches = {name: "1" if on else "0" for name, on in arithmetic.items()}
    return [
        (PROVIDERS["tensorrt"], {"device_id": str(gpu), **profile, **switches}),
        (PROVIDERS["cuda"], cuda),
    ]


def _check_graph(path: Path, session: Any, input_shape: Shape, outputs: Mapping[str, Shape]) -> None:
    """Names, shapes and types; N is dynamic, everything else is fixed."""

    def told(values: Any) -> dict[str, str]:
        return {v.name: f"{_sizes(v.shape)} {v.type}" for v in values}

    def wanted(shape: Shape) -> str:
        return f"{_sizes(['?', *shape])} tensor(float)"

    inputs, found = told(session.get_inputs()), told(session.get_outputs())
    expected = {name: wanted(shape) for name, shape in outputs.items()}
    if inputs != {"input": wanted(input_shape)} or any(found.get(k) != v for k, v in expected.items()):
        raise EngineError(
            f"{path}: expected one input {{'input': '{wanted(input_shape)}'}} and outputs {expected}, got "
            f"inputs {inputs} and outputs {found}; the ONNX file does not fit the manifest"
        )


def _sizes(shape: Any) -> str:
    return f"[{','.join(str(size) if isinstance(size, int) else '?' for size in shape)}]"
