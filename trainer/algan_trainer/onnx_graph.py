"""The discriminator as an ONNX graph, written node by node: no tracer stands between weights and file."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from algan_trainer.networks import LEAKY_SLOPE, Discriminator

OPSET = 17
#: The oldest IR version of ONNX files that knows the opset, so that older runtimes read them too.
IR_VERSION = 8


@torch.no_grad()
def write_onnx(network: Discriminator, shape_chw: tuple[int, int, int], path: Path) -> None:
    """Writes `input` (N, C, H, W) float32 → `logit` (N,) float32, spectral norm folded into the weights."""
    convs = network.spectral_convs()
    nodes, weights, tensor = [], [], "input"
    for index, conv in enumerate(convs):
        last = index == len(convs) - 1
        names = [f"weight_{index}", f"bias_{index}"]
        for name, value in zip(names, (conv.folded_weight(), conv.bias), strict=True):
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
    weights.append(helper.make_tensor("flat", TensorProto.INT64, [1], [-1]))
    nodes.append(helper.make_node("Reshape", [tensor, "flat"], ["logit"]))
    graph = helper.make_graph(
        nodes,
        "algan-discriminator",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *shape_chw])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
        weights,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        graph, opset_imports=opsets, producer_name="algan-stream", ir_version=IR_VERSION
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
