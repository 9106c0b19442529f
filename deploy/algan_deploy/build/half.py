"""A graph in fp16, for libraries that compute in the types that the graph states."""

from __future__ import annotations

from algan_stream.errors import EngineError, PluginError


def to_half(graph: bytes) -> bytes:
    """Turns weights and operations of an ONNX graph into fp16; its inputs and outputs stay float32.

    Raises:
        PluginError: onnx or onnxruntime is not installed.
        EngineError: The graph cannot be converted.
    """
    try:
        import onnx
        from onnxruntime.transformers.float16 import (
            convert_float_to_float16,
        )
    except ModuleNotFoundError as error:
        raise PluginError(
            f"--precision fp16: needs the Python package {error.name}; install it by: "
            "pip install 'algan-stream[tensorrt]'"
        ) from error
    try:
        model = convert_float_to_float16(onnx.load_model_from_string(graph), keep_io_types=True)
    except Exception as error:
        raise EngineError(f"--precision fp16: the graph cannot be converted: {error}; use fp32") from error
    converted: bytes = model.SerializeToString()
    return converted
