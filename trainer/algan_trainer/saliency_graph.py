"""The discriminator's backward pass as an ONNX graph of forward operators.

A gradient needs no framework: going back through a convolution is a transposed convolution with the same
weights, and going back through a leaky ReLU is a product with its slope, which the sign of the saved
activation tells. So the chain that `onnx_graph` wrote can be read from its file and continued backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from algan_stream.errors import AlganError
from algan_trainer.onnx_graph import IR_VERSION, OPSET

Floats = npt.NDArray[np.float32]

#: Keeps quotients finite where nothing deviates; see `relevance`.
RELEVANCE_EPSILON = 1e-4


class SaliencyError(AlganError):
    """A saliency map cannot be made of this model, or does not agree with PyTorch's gradient."""

    exit_code = 10


@dataclass(frozen=True)
class Layer:
    """One convolution of the chain and what follows it.

    Attributes:
        weight: (out, in, k, k), spectral norm folded in.
        bias: (out,).
        stride: Along both axes.
        padding: On all four sides.
        slope: Of the leaky ReLU behind it; None behind the last.
    """

    weight: Floats
    bias: Floats
    stride: int
    padding: int
    slope: float | None

    def attributes(self) -> dict[str, Any]:
        """Attributes of its ONNX node."""
        return {
            "kernel_shape": list(self.weight.shape[2:]),
            "strides": [self.stride] * 2,
            "pads": [self.padding] * 4,
        }

    def side_after(self, side_px: int) -> int:
        """Side of its output for a square input."""
        kernel: int = self.weight.shape[2]
        return (side_px + 2 * self.padding - kernel) // self.stride + 1


def read_layers(model: onnx.ModelProto) -> list[Layer]:
    """Reads the chain Conv, LeakyRelu, …, Conv, Reshape back from an exported discriminator.

    Raises:
        SaliencyError: The graph is another one, such as that of vectors or with a backbone before D.
    """
    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    kinds = [node.op_type for node in model.graph.node]
    count = (len(kinds)) // 2
    if kinds != ["Conv", "LeakyRelu"] * (count - 1) + ["Conv", "Reshape"]:
        raise SaliencyError(
            "a saliency map needs a discriminator of convolutions and leaky ReLUs, from image to logit "
            f"(kind algan-image); this graph has {', '.join(sorted(set(kinds)))}"
        )
    nodes = list(model.graph.node)
    layers = []
    for conv, after in zip(nodes[::2], nodes[1::2], strict=True):
        given = {a.name: helper.get_attribute_value(a) for a in (*conv.attribute, *after.attribute)}
        weight = np.array(values[conv.input[1]], np.float32)
        bias = np.array(values[conv.input[2]], np.float32)
        stride, padding = given["strides"][0], given["pads"][0]
        slope = float(given["alpha"]) if after.op_type == "LeakyRelu" else None
        layers.append(Layer(weight, bias, int(stride), int(padding), slope))
    return layers


class Graph:
    """Collects nodes and constants; every method returns the name of the tensor that it adds."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, value: npt.ArrayLike, dtype: type = np.float32) -> str:
        """Adds a constant."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(np.asarray(value, dtype)), name))
        return name

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Adds a node with one output, named `output` or by its kind and number."""
        name = output or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def model(
        self, name: str, input_chw: tuple[int, int, int], outputs: dict[str, tuple[int, ...]]
    ) -> onnx.ModelProto:
        """Finishes it: `input` (N, C, H, W) → each of `outputs` (N, *shape), all float32; checked."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *input_chw])],
            [
                helper.make_tensor_value_info(key, TensorProto.FLOAT, ["N", *shape])
                for key, shape in outputs.items()
            ],
            self._constants,
        )
        model: onnx.ModelProto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="algan-stream",
            ir_version=IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        return model


@dataclass(frozen=True)
class Chain:
    """Names of the tensors of D, forwards.

    Attributes:
        layers: The chain.
        weights: Their weights, which the way back uses again.
        inputs: Input of every convolution: the image, then the leaky ReLUs' outputs.
        before: Output of every convolution, before its leaky ReLU; the last is the logit (N, 1, 1, 1).
        sides_px: Side of every convolution's square input.
    """

    layers: list[Layer]
    weights: list[str]
    inputs: list[str]
    before: list[str]
    sides_px: list[int]


def forward(graph: Graph, layers: list[Layer], side_px: int) -> Chain:
    """Adds D itself, from `input` to `logit` (N,)."""
    inputs, before, sides = ["input"], [], [side_px]
    weights = [graph.constant(layer.weight) for layer in layers]
    for layer, weight in zip(layers, weights, strict=True):
        bias = graph.constant(layer.bias)
        convolution = graph.add("Conv", inputs[-1], weight, bias, **layer.attributes())
        before.append(convolution)
        if layer.slope is not None:
            inputs.append(graph.add("LeakyRelu", convolution, alpha=layer.slope))
            sides.append(layer.side_after(sides[-1]))
    graph.add("Reshape", before[-1], graph.constant([-1], np.int64), output="logit")
    return Chain(layers, weights, inputs, before, sides)


def backward(graph: Graph, chain: Chain, to: int) -> str:
    """Adds the gradient of the score (−logit) by the input of convolution `to`, in that input's shape."""
    last = chain.layers[-1]
    if last.padding or last.side_after(chain.sides_px[-1]) != 1:
        raise SaliencyError("a saliency map needs a last convolution that covers its whole input")
    # The score is one number, so its gradient by the last convolution's input is that one's weight, negated.
    gradient = graph.constant(-last.weight)
    for index in range(len(chain.layers) - 2, to - 1, -1):
        layer = chain.layers[index]
        positive = graph.add("Greater", chain.before[index], graph.constant(0.0))
        slope = graph.add("Where", positive, graph.constant(1.0), graph.constant(layer.slope or 0.0))
        gradient = graph.add("Mul", slope, gradient)
        gradient = transposed(graph, chain, index, gradient, chain.weights[index])
    return gradient


def transposed(graph: Graph, chain: Chain, index: int, tensor: str, weight: str) -> str:
    """Adds the transpose of convolution `index`, with another weight if wanted: output's shape → input's."""
    layer, side_px = chain.layers[index], chain.sides_px[index]
    kernel = layer.weight.shape[2]
    bare = (layer.side_after(side_px) - 1) * layer.stride - 2 * layer.padding + kernel
    return graph.add(
        "ConvTranspose",
        tensor,
        weight,
        **layer.attributes(),
        output_padding=[side_px - bare] * 2,
    )


def relevance(graph: Graph, chain: Chain, to: int, deviations: list[str]) -> str:
    """Adds each place's share in the score by layer-wise relevance propagation (Bach et al. 2015).

    What the last convolution's inputs contribute to the score is handed back, layer by layer: each unit's
    share is divided among its inputs in proportion to how far they deviate times the weight's size,
    |d| · |w|, so that shares keep their sum and their sign, and none explodes.

    Args:
        graph: Takes the nodes.
        chain: D.
        to: The convolution whose inputs' shares are wanted.
        deviations: d of the inputs of that convolution and each one after it, in their shape.
    """
    share = graph.add("Mul", deviations[-1], graph.constant(-chain.layers[-1].weight))
    for index in range(len(chain.layers) - 2, to - 1, -1):
        layer = chain.layers[index]
        size = graph.add("Abs", deviations[index - to])
        weight = graph.constant(np.abs(layer.weight))
        total = graph.add("Conv", size, weight, **layer.attributes())
        ratio = graph.add("Div", share, graph.add("Add", total, graph.constant(RELEVANCE_EPSILON)))
        share = graph.add("Mul", size, transposed(graph, chain, index, ratio, weight))
    return share
