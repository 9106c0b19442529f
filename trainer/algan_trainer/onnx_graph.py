"""The discriminator as an ONNX graph, written node by node: no tracer stands between weights and file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from algan_trainer.networks import LEAKY_SLOPE, Discriminator
from algan_trainer.networks_vector import VectorDiscriminator

OPSET = 17
#: The oldest IR version of ONNX files that knows the opset, so that older runtimes read them too.
IR_VERSION = 8


@torch.no_grad()
def write_onnx(
    network: Discriminator, shape_chw: tuple[int, int, int], path: Path, *, grey: bool = False
) -> None:
    """Writes `input` (N, C, H, W) float32 → `logit` (N,) float32, norms folded into the weights.

    With `grey`, the network was trained on inputs whose channels are all the mean of red, green and blue;
    that is folded into the first convolution as well, so that the graph takes colours like any other.
    """
    convs = network.layers()
    nodes, weights, tensor = [], [], "input"
    for index, conv in enumerate(convs):
        last = index == len(convs) - 1
        names = [f"weight_{index}", f"bias_{index}"]
        weight, bias = conv.folded()
        if grey and index == 0:
            weight = _for_colours(weight)
        for name, value in zip(names, (weight, bias), strict=True):
            weights.append(numpy_helper.from_array(value.detach().float().contiguous().numpy(), name))
        node = helper.make_node(
            "Conv",
            [tensor, *names],
            [f"conv_{index}"],
            kernel_shape=[4, 4],
            strides=[conv.stride] * 2,
            pads=[conv.padding] * 4,
        )
        nodes.append(node)
        tensor = f"conv_{index}"
        if not last:
            nodes.append(helper.make_node("LeakyRelu", [tensor], [f"leaky_{index}"], alpha=LEAKY_SLOPE))
            tensor = f"leaky_{index}"
    save_graph(nodes, weights, tensor, shape_chw, path)


def _for_colours(weight: Tensor) -> Tensor:
    """The first weight, (out, C, 4, 4), so that colours give what their mean in all channels gave."""
    folded = torch.zeros_like(weight)
    folded[:, :3] = weight.sum(1, keepdim=True) / 3.0
    return folded


@torch.no_grad()
def write_vector_onnx(
    network: VectorDiscriminator, mean: npt.NDArray[np.float32], scale: npt.NDArray[np.float32], path: Path
) -> None:
    """Writes `input` (N, features) float32, raw → `logit` (N,) float32: (input − mean) / scale, then D."""
    weights = [numpy_helper.from_array(mean, "mean"), numpy_helper.from_array(scale, "scale")]
    # Apart from the first layer on purpose: folded into it, means far from 0 would cost its digits.
    nodes = [
        helper.make_node("Sub", ["input", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["standardised"]),
    ]
    more_nodes, more_weights, tensor = linear_nodes(network, "standardised")
    save_graph(nodes + more_nodes, weights + more_weights, tensor, mean.shape, path)


@torch.no_grad()
def linear_nodes(
    network: VectorDiscriminator, tensor: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], str]:
    """The fully connected D behind `tensor` (N, features): nodes, weights, name of its (N, 1) output."""
    linears = network.spectral_linears()
    nodes, weights = [], []
    for index, linear in enumerate(linears):
        names = [f"weight_{index}", f"bias_{index}"]
        for name, value in zip(names, (linear.folded_weight(), linear.bias), strict=True):
            weights.append(numpy_helper.from_array(value.detach().float().contiguous().numpy(), name))
        nodes.append(helper.make_node("Gemm", [tensor, *names], [f"linear_{index}"], transB=1))
        tensor = f"linear_{index}"
        if index < len(linears) - 1:
            nodes.append(helper.make_node("LeakyRelu", [tensor], [f"leaky_{index}"], alpha=LEAKY_SLOPE))
            tensor = f"leaky_{index}"
    return nodes, weights, tensor


def save_graph(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    tensor: str,
    input_shape: tuple[int, ...],
    path: Path,
) -> None:
    """Checks and writes a graph: `input` (N, *input_shape), `nodes`, `tensor` flattened to `logit`."""
    weights = [*weights, helper.make_tensor("flat", TensorProto.INT64, [1], [-1])]
    nodes = [*nodes, helper.make_node("Reshape", [tensor, "flat"], ["logit"])]
    graph = helper.make_graph(
        nodes,
        "algan-discriminator",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *input_shape])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
        weights,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        graph, opset_imports=opsets, producer_name="algan-stream", ir_version=IR_VERSION
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
