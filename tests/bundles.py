"""Small real bundles for tests, made in milliseconds: random weights, real preprocessing, real ONNX."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
from onnx import TensorProto, helper

from algan_stream import calibration
from algan_stream.bundle import GOLDEN, MODEL, QUANTIZED, Bundle, Manifest, write_bundle
from algan_stream.demo.parts import render_part
from algan_stream.preprocess import preprocess
from algan_stream.types import InputSpec


def make_bundle(
    path: Path,
    *,
    size_px: int = 32,
    width: int = 8,
    seed: int = 0,
    calibrated: bool = True,
    quantised: bool = False,
) -> Bundle:
    """Writes a bundle with a random discriminator whose goldens ONNX's own reference evaluator computed.

    Quantised: with an int8 graph of it as well.
    """
    spec = InputSpec(height_px=size_px, width_px=size_px)
    staged = Path(tempfile.mkdtemp(dir=path.parent))
    model = discriminator(spec, width, seed)
    onnx.save(model, staged / MODEL)
    images = np.stack([render_part(seed=i, size_px=size_px).image[..., ::-1] for i in range(4)])
    inputs = np.concatenate(
        [preprocess(np.ascontiguousarray(image), spec, pixel_format="rgb8") for image in images]
    )
    logits = onnx.reference.ReferenceEvaluator(model).run(None, {"input": inputs})[0].astype(np.float32)
    np.savez_compressed(staged / GOLDEN, images_rgb=images, inputs=inputs, logits=logits)
    if quantised:
        onnx.save(quantise(model, inputs), staged / QUANTIZED)
    spread = float(logits.std()) + 1.0
    return write_bundle(
        path,
        staged,
        Manifest(
            format_version=1,
            name="test",
            model_kind="algan-image",
            input_spec=spec,
            tolerance={
                "fp32": 1e-4 * spread,
                "bf16": 0.1 * spread,
                "fp16": 0.02 * spread,
                **({"int8": 0.3 * spread} if quantised else {}),
            },
            calibration=calibration.calibrate(np.linspace(-1.0, 1.0, 99) - logits.mean(), 0.05)
            if calibrated
            else None,
            files={},
        ),
    )


def discriminator(spec: InputSpec, width: int, seed: int) -> onnx.ModelProto:
    """A stack of strided convolutions with random weights, like the trainer's, down to one logit."""
    rng = np.random.default_rng(seed)
    nodes, weights, name, channels, size, out = [], [], "input", spec.channels, spec.height_px, width
    while size > 4:
        kernel = (rng.normal(size=(out, channels, 4, 4)) / np.sqrt(channels * 8)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(kernel, f"w{size}"))
        nodes += [
            helper.make_node(
                "Conv", [name, f"w{size}"], [f"c{size}"], kernel_shape=[4, 4], strides=[2, 2], pads=[1] * 4
            ),
            helper.make_node("LeakyRelu", [f"c{size}"], [f"x{size}"], alpha=0.2),
        ]
        name, channels, size, out = f"x{size}", out, size // 2, out * 2
    kernel = (rng.normal(size=(1, channels, 4, 4)) / np.sqrt(channels * 16)).astype(np.float32)
    weights += [
        onnx.numpy_helper.from_array(kernel, "w"),
        onnx.numpy_helper.from_array(np.array([-1]), "shape"),
    ]
    nodes += [
        helper.make_node("Conv", [name, "w"], ["c"], kernel_shape=[4, 4]),
        helper.make_node("Reshape", ["c", "shape"], ["logit"]),
    ]
    graph = helper.make_graph(
        nodes,
        "discriminator",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *spec.shape_chw])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def quantise(model: onnx.ModelProto, inputs: np.ndarray, *, levels: int = 63) -> onnx.ModelProto:
    """Q/DQ about the first convolution: what engines compute in int8.

    With more than 63 levels of a weight, sums of two products overflow on processors without VNNI.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    first = next(node for node in graph.node if node.op_type == "Conv")
    weights = next(w for w in graph.initializer if w.name == first.input[1])
    kernel = onnx.numpy_helper.to_array(weights)
    probe = helper.make_graph(
        [first], "first", [graph.input[0]], [helper.make_empty_tensor_value_info(first.output[0])], [weights]
    )
    evaluator = onnx.reference.ReferenceEvaluator(helper.make_model(probe, opset_imports=made.opset_import))
    found = evaluator.run(None, {"input": inputs})[0]
    peak = float(np.abs(kernel).max())
    numbers = {
        "q_weights": np.rint(kernel / peak * levels).astype(np.int8),
        "q_weights_scale": np.float32(peak / levels),
        "q_weights_zero": np.int8(0),
        "q_in_scale": np.float32(np.abs(inputs).max() / 127),
        "q_in_zero": np.uint8(128),
        "q_out_scale": np.float32(np.abs(found).max() / 127),
        "q_out_zero": np.uint8(128),
    }
    graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in numbers.items())
    graph.initializer.remove(weights)
    place, output = list(graph.node).index(first), first.output[0]
    before = [
        helper.make_node("QuantizeLinear", ["input", "q_in_scale", "q_in_zero"], ["q_in"]),
        helper.make_node("DequantizeLinear", ["q_in", "q_in_scale", "q_in_zero"], ["dq_in"]),
        helper.make_node(
            "DequantizeLinear", ["q_weights", "q_weights_scale", "q_weights_zero"], ["dq_weights"]
        ),
    ]
    after = [
        helper.make_node("QuantizeLinear", ["dq_conv", "q_out_scale", "q_out_zero"], ["q_out"]),
        helper.make_node("DequantizeLinear", ["q_out", "q_out_scale", "q_out_zero"], [output]),
    ]
    first.input[0], first.input[1], first.output[0] = "dq_in", "dq_weights", "dq_conv"
    for i, node in enumerate(before):
        graph.node.insert(place + i, node)
    for i, node in enumerate(after):
        graph.node.insert(place + len(before) + 1 + i, node)
    onnx.checker.check_model(made)
    return made
