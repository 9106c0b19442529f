"""Graph surgery: from `input` (N, C, H, W) float32, as `_core` makes it, to `logit` (N,) float32 = −score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from algan_deploy.wrap.batch import open_batch
from algan_deploy.wrap.source import Source
from algan_stream.types import InputSpec

#: Prepended to every name of the wrapped graph, so that `input` and `logit` are ours.
PREFIX = "wrapped/"
#: Weights of red, green and blue in grey, as OpenCV and Pillow have them.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Wish:
    """What the user says about the model that no file tells.

    Attributes:
        higher_is_normal: A high score means good, as for our logit.
        bgr: It takes blue, green, red.
    """

    higher_is_normal: bool = False
    bgr: bool = False


def wrap_graph(source: Source, spec: InputSpec, wish: Wish) -> tuple[Any, list[str]]:
    """Builds the bundle's graph; the source stays as it is.

    Returns:
        An `onnx.ModelProto`, and the names of nodes that were rewritten for any number of images.
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    graph = model.graph
    _fix_constants(graph, source)
    del graph.value_info[:]  # they may state the old number of images
    _prune(graph, source.output_name)
    rewritten = open_batch(source, model, (spec.height_px, spec.width_px))
    onnx.compose.add_prefix(model, PREFIX, inplace=True)
    graph = model.graph
    nodes_in, weights_in = _front(source, spec, wish, PREFIX + source.input_name)
    nodes_out, weights_out = _head(PREFIX + source.output_name, wish)
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes_in, *old, *nodes_out])
    graph.initializer.extend([*weights_in, *weights_out])
    del graph.input[:]
    del graph.output[:]
    floats = onnx.TensorProto.FLOAT
    graph.input.append(onnx.helper.make_tensor_value_info("input", floats, ["N", *spec.shape_chw]))
    graph.output.append(onnx.helper.make_tensor_value_info("logit", floats, ["N"]))
    graph.name = "wrapped"
    model.ir_version = max(model.ir_version, 4)  # before it, weights had to be inputs as well
    return model, rewritten


def _front(source: Source, spec: InputSpec, wish: Wish, image: str) -> tuple[list[Any], list[Any]]:
    """Nodes from `input` to what the model takes; `InputSpec` has already done the arithmetic."""
    from onnx import TensorProto, helper

    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    weights = []
    if source.planes == 1:
        weights.append(helper.make_tensor("luma", TensorProto.FLOAT, [1, 3, 1, 1], _LUMA))
        steps.append(("Conv", ["luma"], {}))
    elif wish.bgr:
        order = [2, 1, 0, *range(3, spec.channels)]
        weights.append(helper.make_tensor("bgr", TensorProto.INT64, [len(order)], order))
        steps.append(("Gather", ["bgr"], {"axis": 1}))
    if source.layout == "nhwc":
        steps.append(("Transpose", [], {"perm": [0, 2, 3, 1]}))
    if source.input_type != TensorProto.FLOAT:
        steps.append(("Cast", [], {"to": source.input_type}))
    return _chain("input", steps or [("Identity", [], {})], image), weights


def _head(score: str, wish: Wish) -> tuple[list[Any], list[Any]]:
    """Nodes from the score to `logit`: float32, its sign ours, (N, 1) and (N, 1, 1, 1) as (N,)."""
    from onnx import TensorProto, helper

    steps: list[tuple[str, list[str], dict[str, Any]]] = [("Cast", [], {"to": TensorProto.FLOAT})]
    if not wish.higher_is_normal:
        steps.append(("Neg", [], {}))
    steps.append(("Reshape", ["flat"], {}))
    return _chain(score, steps, "logit"), [helper.make_tensor("flat", TensorProto.INT64, [1], [-1])]


def _chain(start: str, steps: list[tuple[str, list[str], dict[str, Any]]], end: str) -> list[Any]:
    from onnx import helper

    nodes, tensor = [], start
    for index, (kind, more, attributes) in enumerate(steps):
        after = end if index == len(steps) - 1 else f"{end}/{kind.lower()}"
        nodes.append(helper.make_node(kind, [tensor, *more], [after], name=after, **attributes))
        tensor = after
    return nodes


def _fix_constants(graph: Any, source: Source) -> None:
    """Turns inputs beside the image into the numbers that were given for them."""
    import numpy as np
    from onnx import helper, numpy_helper

    for value in list(graph.input):
        if value.name in source.constants:
            tensor = value.type.tensor_type
            shape = [dim.dim_value or 1 for dim in tensor.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            filled = np.full(shape, source.constants[value.name], dtype)
            graph.initializer.append(numpy_helper.from_array(filled, value.name))
            graph.input.remove(value)


def _prune(graph: Any, output: str) -> None:
    """Keeps the score and what it is made from: an anomaly map costs time that nobody asked for."""
    for value in [value for value in graph.output if value.name != output]:
        graph.output.remove(value)
    needed, kept = {output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= _reads(node)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in needed]:
        graph.initializer.remove(tensor)
    weights = {tensor.name for tensor in graph.initializer}
    image = {value.name for value in graph.input} - weights
    for value in [value for value in graph.input if value.name not in image]:
        graph.input.remove(value)


def _reads(node: Any) -> set[str]:
    """Tensors that a node reads, those of the graphs inside it included."""
    found = set(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for child in inner.node:
                found |= _reads(child)
            found |= {value.name for value in inner.output}
    return found - {""}
