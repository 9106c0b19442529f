"""Small real bundles for tests, made in milliseconds: random weights, real preprocessing, real ONNX."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
from onnx import TensorProto, helper

from algan_stream import calibration
from algan_stream.bundle import GOLDEN, MODEL, Bundle, Manifest, write_bundle
from algan_stream.demo.parts import render_part
from algan_stream.preprocess import preprocess
from algan_stream.types import InputSpec


def make_bundle(
    path: Path, *, size_px: int = 32, width: int = 8, seed: int = 0, calibrated: bool = True
) -> Bundle:
    """Writes a bundle with a random discriminator whose goldens ONNX's own reference evaluator computed."""
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
    spread = float(logits.std()) + 1.0
    return write_bundle(
        path,
        staged,
        Manifest(
            format_version=1,
            name="test",
            model_kind="algan-image",
            input_spec=spec,
            tolerance={"fp32": 1e-4 * spread, "bf16": 0.1 * spread},
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
