"""Tiny random backbones, made on the spot."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812  (everyone's name for it)
from onnx import TensorProto, helper, numpy_helper

from algan_trainer.backbone.file import INFO_KEY, BackboneInfo

SIZE_PX = 32
#: Weights of `low` (4 channels, stride 2) and `high` (6 channels, stride 2 again).
_RNG = np.random.default_rng(11)
LOW = _RNG.normal(0, 0.4, (4, 3, 3, 3)).astype(np.float32)
HIGH = _RNG.normal(0, 0.4, (6, 4, 3, 3)).astype(np.float32)

INFO = BackboneInfo(
    name="tiny",
    resize_px=40,
    crop_px=SIZE_PX,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
    taps={"low": 4, "high": 6},
    features=6,
    source="made in a test",
)


def tiny_model(
    info: BackboneInfo | None = INFO,
    *,
    opset: int = 17,
    batch: str | int = "N",
    inputs: int = 1,
    side: int = SIZE_PX,
) -> onnx.ModelProto:
    """`low` and `high`: two convolutions with ReLU."""
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["low"]),
        helper.make_node("Conv", ["low", "w2"], ["c2"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["high"]),
    ]
    images = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3, side, side])
        for name in ("image", "other")[:inputs]
    ]
    outputs = [
        helper.make_tensor_value_info("low", TensorProto.FLOAT, [batch, 4, side // 2, side // 2]),
        helper.make_tensor_value_info("high", TensorProto.FLOAT, [batch, 6, side // 4, side // 4]),
    ]
    weights = [numpy_helper.from_array(LOW, "w1"), numpy_helper.from_array(HIGH, "w2")]
    graph = helper.make_graph(nodes, "tiny", images, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if info is not None:
        model.metadata_props.add(key=INFO_KEY, value=msgspec.json.encode(info).decode())
    return model


def write_tiny(path: Path, model: onnx.ModelProto | None = None) -> Path:
    path.write_bytes((model or tiny_model()).SerializeToString())
    return path


def tiny_maps(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same by PyTorch: (N, 3, 32, 32) → `low` and `high`."""
    low = F.conv2d(images, torch.from_numpy(LOW), stride=2, padding=1).relu()
    return {"low": low, "high": F.conv2d(low, torch.from_numpy(HIGH), stride=2, padding=1).relu()}
