"""Tiny ONNX anomaly models of other people's making, in the shapes that exporters give them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 24
F32 = TensorProto.FLOAT


class Draft:
    """Nodes, weights, inputs and outputs of a graph that is being written."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def model(self, inputs: list[Any], outputs: list[Any], opset: int = 17, ir: int = 8) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "someone-elses", inputs, outputs, self.weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
        made.producer_name = "someone"
        return made


def like_anomalib(
    *,
    batch: int | str = "batch",
    planes: int = 3,
    size: tuple[int | str, int | str] = (SIZE, SIZE),
    score_dims: Sequence[int | str] = (1,),
    element: int = F32,
) -> onnx.ModelProto:
    """`pred_score`, `pred_label` and `anomaly_map` of an image, as anomalib's exports have them.

    Args:
        batch: First dimension of all.
        planes: Channels of the input.
        size: Height and width of the input.
        score_dims: Of the score, behind N: (1,), (1, 1, 1) or none.
        element: Element type of input and score.
    """
    draft = Draft()
    dtype = helper.tensor_dtype_to_np_dtype(element)
    kernel = draft.constant("kernel", draft.rng.normal(size=(4, planes, 4, 4)) / 8, dtype)
    draft.add("Conv", ["image", kernel], "features", kernel_shape=[4, 4], strides=[4, 4])
    draft.add("Relu", ["features"], "active")
    draft.add("ReduceMean", ["active"], "anomaly_map", axes=[1], keepdims=1)
    draft.add("ReduceMax", ["anomaly_map"], "peak", axes=[2, 3], keepdims=1)
    shape = draft.constant("score_shape", [-1, *(int(d) for d in score_dims)], np.int64)
    draft.add("Reshape", ["peak", shape], "pred_score")
    draft.add("Greater", ["pred_score", draft.constant("half", 0.5, dtype)], "pred_label")
    score = [batch, *score_dims]
    return draft.model(
        [helper.make_tensor_value_info("image", element, [batch, planes, *size])],
        [
            helper.make_tensor_value_info("pred_label", TensorProto.BOOL, score),
            helper.make_tensor_value_info("anomaly_map", element, [batch, 1, "h", "w"]),
            helper.make_tensor_value_info("pred_score", element, score),
        ],
    )


def with_baked_batch(batch: int = 1) -> onnx.ModelProto:
    """The number of images stands in a `Reshape`, between a convolution and a fully connected layer."""
    draft = Draft(1)
    kernel = draft.constant("kernel", draft.rng.normal(size=(4, 3, 4, 4)) / 8)
    draft.add("Conv", ["input", kernel], "features", kernel_shape=[4, 4], strides=[4, 4])
    draft.add("Reshape", ["features", draft.constant("flat", [batch, -1], np.int64)], "vector")
    side = SIZE // 4
    weights = draft.constant("weights", draft.rng.normal(size=(4 * side * side, 1)) / 10)
    draft.add("MatMul", ["vector", weights], "logit")
    return draft.model(
        [helper.make_tensor_value_info("input", F32, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logit", F32, [batch, 1])],
    )


def looking_at_the_whole_batch() -> onnx.ModelProto:
    """Standardises by the mean of all images in the batch, as a model exported in training mode does."""
    draft = Draft(2)
    draft.add("ReduceMean", ["image"], "brightness", axes=[1, 2, 3], keepdims=0)
    draft.add("ReduceMean", ["brightness"], "all", axes=[0], keepdims=1)
    draft.add("Mul", ["all", draft.constant("half", 0.5)], "share")
    draft.add("Sub", ["brightness", "share"], "score")
    return draft.model(
        [helper.make_tensor_value_info("image", F32, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("score", F32, ["n"])],
    )


def of_its_brightness(layout: str = "nchw", scale: float = 1.0, sign: str = "Identity") -> onnx.ModelProto:
    """Scores an image as blue + 2 green + 4 red, each plane's mean, times `scale`; NCHW or NHWC."""
    draft = Draft()
    dims = [3, SIZE, SIZE] if layout == "nchw" else [SIZE, SIZE, 3]
    axes = [2, 3] if layout == "nchw" else [1, 2]
    draft.add("ReduceMean", ["pixels"], "means", axes=axes, keepdims=0)
    draft.add("MatMul", ["means", draft.constant("weights", np.array([[4], [2], [1]]) * scale)], "sum")
    draft.add(sign, ["sum"], "score")
    return draft.model(
        [helper.make_tensor_value_info("pixels", F32, ["n", *dims])],
        [helper.make_tensor_value_info("score", F32, ["n", 1])],
    )


def with_numbers_beside() -> onnx.ModelProto:
    """A second input, a scalar that the score is shifted by."""
    draft = Draft()
    draft.add("ReduceMean", ["image"], "mean", axes=[1, 2, 3], keepdims=0)
    draft.add("Sub", ["mean", "sensitivity"], "score")
    return draft.model(
        [
            helper.make_tensor_value_info("image", F32, ["n", 3, SIZE, SIZE]),
            helper.make_tensor_value_info("sensitivity", F32, []),
        ],
        [helper.make_tensor_value_info("score", F32, ["n"])],
    )


def of_one_operation(kind: str, **attributes: Any) -> onnx.ModelProto:
    """The mean of an image, through one more operation."""
    draft = Draft()
    draft.add("ReduceMean", ["image"], "mean", axes=[1, 2, 3], keepdims=0)
    draft.add(kind, ["mean"], "score", **attributes)
    return draft.model(
        [helper.make_tensor_value_info("image", F32, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("score", F32, ["n"])],
    )


def of_nothing() -> onnx.ModelProto:
    """3, whatever the image."""
    draft = Draft()
    draft.add("ReduceMean", ["image"], "mean", axes=[1, 2, 3], keepdims=0)
    draft.add("Mul", ["mean", draft.constant("zero", 0.0)], "nothing")
    draft.add("Add", ["nothing", draft.constant("three", 3.0)], "score")
    return draft.model(
        [helper.make_tensor_value_info("image", F32, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("score", F32, ["n"])],
    )


def of_vectors() -> onnx.ModelProto:
    """A model of tables."""
    draft = Draft()
    draft.add("ReduceMean", ["vector"], "score", axes=[1], keepdims=0)
    return draft.model(
        [helper.make_tensor_value_info("vector", F32, ["n", 8])],
        [helper.make_tensor_value_info("score", F32, ["n"])],
    )


def of_the_first_image() -> onnx.ModelProto:
    """Takes the first of its one image out of the batch, so that no other is ever seen."""
    draft = Draft()
    draft.add("Gather", ["image", draft.constant("first", 0, np.int64)], "alone", axis=0)
    draft.add("ReduceMean", ["alone"], "score", axes=[0, 1, 2], keepdims=0)
    return draft.model(
        [helper.make_tensor_value_info("image", F32, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("score", F32, [])],
    )


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path
