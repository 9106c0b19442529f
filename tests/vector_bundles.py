"""A small real bundle for vectors: the score is how far a standardised vector's numbers are from 0."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from algan_stream import calibration
from algan_stream.bundle import FORMAT_VERSION, GOLDEN, MODEL, Bundle, Manifest, write_bundle
from algan_stream.types import VectorSpec

FEATURES = 5
MEAN = np.array([1000.0, -3.0, 0.0, 0.5, 7.0], np.float32)


def good_vectors(count: int, seed: int = 0) -> np.ndarray:
    """(count, FEATURES) float32 about `MEAN`, with a spread of 1."""
    return (MEAN + np.random.default_rng(seed).normal(size=(count, FEATURES))).astype(np.float32)


def score_of(vectors: np.ndarray) -> np.ndarray:
    """What the bundle's graph gives, (n,)."""
    return np.abs(vectors.astype(np.float64) - MEAN).sum(axis=1)


def make_vector_bundle(path: Path, names: tuple[str, ...] = ()) -> Bundle:
    """Writes it; threshold by 99 good vectors at a false-reject rate of 5 %."""
    staged = Path(tempfile.mkdtemp(dir=path.parent))
    onnx.save(_graph(), staged / MODEL)
    inputs = np.concatenate([good_vectors(3, seed=1), good_vectors(1, seed=2) + 50])
    np.savez(staged / GOLDEN, inputs=inputs, logits=-score_of(inputs).astype(np.float32))
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name="vectors",
        model_kind="algan-vector",
        vector_spec=VectorSpec(features=FEATURES, names=names),
        tolerance={"fp32": 1e-3},
        calibration=calibration.calibrate(score_of(good_vectors(99, seed=3)), 0.05),
        files={},
    )
    return write_bundle(path, staged, manifest)


def _graph() -> onnx.ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["input", "mean"], ["centred"]),
            helper.make_node("Abs", ["centred"], ["size"]),
            helper.make_node("ReduceSum", ["size", "axes"], ["sum"], keepdims=0),
            helper.make_node("Neg", ["sum"], ["logit"]),
        ],
        "vectors",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
        [
            onnx.numpy_helper.from_array(MEAN, "mean"),
            onnx.numpy_helper.from_array(np.array([1], np.int64), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
