"""A model's `config.pbtxt` for NVIDIA Triton."""

from __future__ import annotations

from algan_stream.bundle import Bundle
from algan_stream.engines.triton import (
    PARAMETER_BUNDLE,
    PARAMETER_PRECISION,
    PARAMETER_SHA256,
)

#: The only version that an export writes, and the only one that its configuration lets Triton serve.
VERSION = "1"


def config_pbtxt(
    bundle: Bundle, name: str, *, sha256: str, precision: str, max_batch: int, instances: int, is_plan: bool
) -> str:
    """Writes a model configuration as protobuf text (`inference.ModelConfig`).

    The graph's output is (N,). Triton owns the batch axis where `max_batch_size` > 0, and no tensor may have
    an empty shape besides it: the output is stated as [1] and reshaped from [] (section "Reshape" of Triton's
    "Model Configuration"), so clients get (N, 1).

    Args:
        bundle: Gives shapes, and its own name.
        name: Of the model, and of its folder in the repository.
        sha256: Of the ONNX graph that is served, or that the engine file was built from.
        precision: What the server will compute in.
        max_batch: Most images in one run of the model.
        instances: Copies of the model that run at the same time; on each GPU if there are any.
        is_plan: A TensorRT engine is served, not the ONNX graph.
    """
    dims = ", ".join(map(str, bundle.manifest.spec.shape))
    parameters = {
        PARAMETER_SHA256: sha256,
        PARAMETER_BUNDLE: bundle.manifest.name,
        PARAMETER_PRECISION: precision,
    }
    parts = [
        f"name: {quoted(name)}",
        'backend: "tensorrt"' if is_plan else 'backend: "onnxruntime"',
        f'default_model_filename: "{model_file(is_plan=is_plan)}"',
        f"max_batch_size: {max_batch}",
        f'input [ {{ name: "input" data_type: TYPE_FP32 dims: [ {dims} ] }} ]',
        'output [ { name: "logit" data_type: TYPE_FP32 dims: [ 1 ] reshape: { shape: [ ] } } ]',
        # Another version beside it would otherwise be served from the moment that its folder appears.
        f"version_policy: {{ specific: {{ versions: [ {VERSION} ] }} }}",
        f"instance_group [ {{ count: {instances} kind: {'KIND_GPU' if is_plan else 'KIND_AUTO'} }} ]",
        # Batches what waits, and waits for nothing: lines batch their own frames. Each request may say how
        # long it is worth an answer; later it is not computed any more.
        "dynamic_batching { default_queue_policy { timeout_action: REJECT allow_timeout_override: true } }",
        *(["optimization { cuda { graphs: true } }"] if is_plan else []),
        *(_warm_up(dims, size) for size in sorted({1, max_batch})),
        *(
            f"parameters {{ key: {quoted(key)} value: {{ string_value: {quoted(value)} }} }}"
            for key, value in parameters.items()
        ),
    ]
    return "\n".join(parts) + "\n"


def model_file(*, is_plan: bool) -> str:
    """Name of the model's file in its version's folder."""
    return "model.plan" if is_plan else "model.onnx"


def quoted(text: str) -> str:
    """A string of protobuf's text format; a name may hold anything."""
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return '"' + "".join(c if c.isprintable() else _octal(c) for c in escaped) + '"'


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))


def _warm_up(dims: str, size: int) -> str:
    """The first batch of a size is slow: it is run on zeros before the model counts as ready."""
    tensor = f"data_type: TYPE_FP32 dims: [ {dims} ] zero_data: true"
    return (
        f'model_warmup [ {{ name: "batch of {size}" batch_size: {size} '
        f'inputs {{ key: "input" value: {{ {tensor} }} }} }} ]'
    )
