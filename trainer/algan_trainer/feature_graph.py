"""ALGAN-feature as one ONNX graph: crop → rotations → backbone → pooling [→ standardise → D → mean logit].

The same nodes make the features to train on (without the part in brackets) and the model that is served, so
that the two cannot differ. Rotations run one after the other in an ONNX Loop: 64 copies of a batch at once
would cost gigabytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from algan_stream.types import InputSpec
from algan_trainer.backbone.file import Backbone, BackboneError
from algan_trainer.networks import LEAKY_SLOPE
from algan_trainer.networks_vector import VectorDiscriminator
from algan_trainer.onnx_graph import IR_VERSION
from algan_trainer.sections import FeatureConfig

Floats = npt.NDArray[np.float32]
#: Keeps the backbone's names apart from ours.
_PREFIX = "backbone/"
#: From this opset on, GridSample's mode is called `linear`, and reductions take their axes as an input.
_GRID_SAMPLE_LINEAR, _AXES_AS_INPUT = 20, 18


@dataclass(frozen=True)
class Plan:
    """Which features of an image, and how.

    Attributes:
        backbone: The network.
        layers: Names of its taps, each pooled and then concatenated.
        pool: How each map becomes a vector.
        spec: How an image becomes the graph's input, resized but not yet cropped.
        crop_px: Side of the centre crop that the backbone sees.
        fill: What shows outside the crop after a rotation.
    """

    backbone: Backbone
    layers: tuple[str, ...]
    pool: tuple[str, ...]
    spec: InputSpec
    crop_px: int
    fill: str

    @property
    def features(self) -> int:
        """Length of the vector."""
        return sum(self.backbone.taps[layer].channels for layer in self.layers) * len(self.pool)


def make_plan(backbone: Backbone, config: FeatureConfig, white_level: int) -> Plan:
    """Settles what the configuration leaves to the backbone.

    Raises:
        BackboneError: The backbone does not say it either, or has no such layer or size.
    """
    path, info = backbone.path, backbone.info
    crop_px = config.crop_px or (info.crop_px if info else None) or backbone.size_px
    mean, std = config.mean or (info.mean if info else None), config.std or (info.std if info else None)
    if crop_px is None or mean is None or std is None:
        missing = {"feature.crop_px": crop_px, "feature.mean": mean, "feature.std": std}
        names = ", ".join(key for key, value in missing.items() if value is None)
        raise BackboneError(
            f"{path}: carries no metadata of `algan-stream backbone export`: say in the configuration how "
            f"its images were made: {names} (mean and std of red, green and blue in 0..1)"
        )
    if backbone.size_px not in (None, crop_px):
        raise BackboneError(f"{path}: takes {backbone.size_px} px, but feature.crop_px is {crop_px}")
    resize_px = config.resize_px or crop_px
    if resize_px < crop_px:
        raise BackboneError(
            f"feature.resize_px: expected {crop_px} (feature.crop_px) or more, got {resize_px}"
        )
    layers = tuple(backbone.tap(layer) for layer in config.layers)
    if len(set(layers)) < len(layers):
        raise BackboneError(f"feature.layers: expected different outputs, got {', '.join(config.layers)}")
    for layer in layers:
        if not backbone.taps[layer].is_map and config.pool != ("mean",):
            raise BackboneError(
                f"{path}: output {layer} is a vector already: feature.pool: expected ['mean'], got "
                f"{list(config.pool)}"
            )
    spec = InputSpec(
        height_px=resize_px,
        width_px=resize_px,
        pooled_channels=False,
        mean=mean,
        std=std,
        white_level=white_level,
    )
    return Plan(backbone, layers, config.pool, spec, crop_px, config.rotation_fill)


def write_features_onnx(plan: Plan, rotations: int, path: Path) -> None:
    """Writes `input` (N, 3, resize_px, resize_px) → `features` (N, rotations, features), both float32."""
    graph = _Nodes()
    if rotations == 1:
        vectors = _vectors(graph, plan, _cropped(graph, plan))
        graph.add("Unsqueeze", [vectors, graph.constant("one", [1])], "features")
    else:
        stacked = _for_each_rotation(graph, plan, rotations, None)
        graph.add("Transpose", [stacked], "features", perm=[1, 0, 2])
    _save(graph, plan, "features", ["N", rotations, plan.features], path)


def write_feature_onnx(
    plan: Plan, rotations: int, network: VectorDiscriminator, mean: Floats, scale: Floats, path: Path
) -> None:
    """Writes `input` (N, 3, resize_px, resize_px) → `logit` (N,), the mean of D's logits over the rotations.

    D sees (feature − mean) / scale; mean and scale are (features,).
    """
    graph, head = _Nodes(), _Head(network, mean, scale)
    if rotations == 1:
        logit = _judged(graph, head, _vectors(graph, plan, _cropped(graph, plan)))
        graph.add("Reshape", [logit, graph.constant("flat", [-1])], "logit")
    else:
        stacked = _for_each_rotation(graph, plan, rotations, head)  # (rotations, N)
        if plan.backbone.opset < _AXES_AS_INPUT:
            graph.add("ReduceMean", [stacked], "logit", axes=[0], keepdims=0)
        else:
            graph.add("ReduceMean", [stacked, graph.constant("rotation_axis", [0])], "logit", keepdims=0)
    _save(graph, plan, "logit", ["N"], path)


def rotation_grids(rotations: int, size_px: int) -> Floats:
    """Where each pixel of a rotated image comes from, for ONNX's GridSample with align_corners = 0.

    Angles are evenly spaced over 360°, from 0, counter-clockwise as one looks at the image.

    Returns:
        (rotations, size_px, size_px, 2): x and y, where ±1 are the outer edges of the image.
    """
    centres = (2.0 * np.arange(size_px) + 1.0) / size_px - 1.0
    x, y = np.meshgrid(centres, centres)
    angles = 2.0 * math.pi * np.arange(rotations)[:, None, None] / rotations
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1).astype(np.float32)


@dataclass
class _Nodes:
    """A graph under construction. A loop's body has nodes of its own and shares the weights."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Appends a node with one output, and returns the output's name."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """Adds a constant, and returns its name."""
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name


@dataclass(frozen=True)
class _Head:
    """What makes a logit of a vector."""

    network: VectorDiscriminator
    mean: Floats
    scale: Floats


def _cropped(graph: _Nodes, plan: Plan) -> str:
    """The centre of the input, (N, 3, crop_px, crop_px)."""
    first = (plan.spec.height_px - plan.crop_px) // 2
    if plan.spec.height_px == plan.crop_px:
        return "input"
    edges = [
        graph.constant("crop_first", [first, first]),
        graph.constant("crop_end", [first + plan.crop_px] * 2),
        graph.constant("crop_axes", [2, 3]),
    ]
    return graph.add("Slice", ["input", *edges], "cropped")


def _for_each_rotation(graph: _Nodes, plan: Plan, rotations: int, head: _Head | None) -> str:
    """Runs all that follows the crop once for each rotation: (rotations, N, features), or (rotations, N)."""
    image = _cropped(graph, plan)
    count = graph.add("Shape", ["input"], "count", start=0, end=1)
    side = graph.constant("grid_shape", [plan.crop_px, plan.crop_px, 2])
    graph.add("Concat", [count, side], "grids_shape", axis=0)
    graph.constant("grids", rotation_grids(rotations, plan.crop_px))
    body = _Nodes(weights=graph.weights)
    body.add("Gather", ["grids", "rotation"], "grid", axis=0)
    body.add("Expand", ["grid", "grids_shape"], "grid_for_each")
    mode = "bilinear" if plan.backbone.opset < _GRID_SAMPLE_LINEAR else "linear"
    body.add(
        "GridSample", [image, "grid_for_each"], "rotated", mode=mode, padding_mode=plan.fill, align_corners=0
    )
    given = _vectors(body, plan, "rotated")
    if head is not None:
        logit = _judged(body, head, given)
        given = body.add("Reshape", [logit, body.constant("flat", [-1])], "logit_of_rotation")
    body.add("Identity", ["go_on"], "still_go_on")
    loop = helper.make_graph(
        body.nodes,
        "rotation",
        [
            helper.make_tensor_value_info("rotation", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("still_go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info(given, TensorProto.FLOAT, ["N"] if head else ["N", plan.features]),
        ],
    )
    limits = [graph.constant("rotations", rotations), graph.constant("always", True)]
    return graph.add("Loop", limits, "stacked", body=loop)


def _vectors(graph: _Nodes, plan: Plan, image: str) -> str:
    """The backbone and the pooling of its maps: (N, 3, crop_px, crop_px) → (N, features)."""
    maps = _backbone(graph, plan, image)
    parts = []
    for layer in plan.layers:
        for pool in plan.pool:
            pooled = maps[layer]
            if plan.backbone.taps[layer].is_map:
                pooled = graph.add("Flatten", [_pooled(graph, maps[layer], pool)], f"{layer}_{pool}", axis=1)
            parts.append(pooled)
    return parts[0] if len(parts) == 1 else graph.add("Concat", parts, "vectors", axis=1)


def _pooled(graph: _Nodes, tensor: str, pool: str) -> str:
    """(N, C, h, w) → (N, C, 1, 1)."""
    name = f"{tensor}_{pool}"
    if pool == "max":
        return graph.add("GlobalMaxPool", [tensor], f"{name}_of_map")
    mean = graph.add("GlobalAveragePool", [tensor], f"{name}_of_map")
    if pool == "mean":
        return mean
    centred = graph.add("Sub", [tensor, mean], f"{name}_centred")
    squared = graph.add("Mul", [centred, centred], f"{name}_squared")
    variance = graph.add("GlobalAveragePool", [squared], f"{name}_variance")
    return graph.add("Sqrt", [variance], f"{name}_spread")


def _judged(graph: _Nodes, head: _Head, vectors: str) -> str:
    """Standardisation and D: (N, features) → (N, 1, 1, 1).

    D's layers are written as 1×1 convolutions: a matrix product adds up in another order when N changes, and
    an image's score would depend, in its last digits, on how many others are in its batch.
    """
    graph.add("Sub", [vectors, graph.constant("mean", head.mean)], "centred")
    graph.add("Div", ["centred", graph.constant("scale", head.scale)], "standardised")
    tensor = graph.add("Unsqueeze", ["standardised", graph.constant("places", [2, 3])], "as_maps")
    linears = head.network.spectral_linears()
    for index, linear in enumerate(linears):
        weight = linear.folded_weight().detach().float().numpy()[:, :, None, None]
        bias = linear.bias.detach().float().numpy()
        constants = [graph.constant(f"weight_{index}", weight), graph.constant(f"bias_{index}", bias)]
        tensor = graph.add("Conv", [tensor, *constants], f"linear_{index}", kernel_shape=[1, 1])
        if index < len(linears) - 1:
            tensor = graph.add("LeakyRelu", [tensor], f"leaky_{index}", alpha=LEAKY_SLOPE)
    return tensor


def _backbone(graph: _Nodes, plan: Plan, image: str) -> dict[str, str]:
    """The backbone's nodes behind `image`, as far as the layers need them; returns where each layer is."""
    copy = compose.add_prefix_graph(plan.backbone.model.graph, _PREFIX)
    outputs = {layer: _PREFIX + layer for layer in plan.layers}
    wanted, nodes = set(outputs.values()), []
    for node in reversed(copy.node):  # ONNX keeps nodes in an order in which they can be run
        if not wanted.isdisjoint(node.output):
            wanted |= _needs(node)
            nodes.append(node)
    source = _PREFIX + plan.backbone.input_name
    graph.add("Identity", [image], source)
    graph.nodes += nodes[::-1]
    graph.weights += [t for t in copy.initializer if t.name in wanted]
    return outputs


def _needs(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, also inside its own graphs (If, Loop)."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for inside in inner.node:
                names |= _needs(inside)
    return names


def _save(graph: _Nodes, plan: Plan, output: str, shape: list[Any], path: Path) -> None:
    built = helper.make_graph(
        graph.nodes,
        "algan-feature",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *plan.spec.shape_chw])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        graph.weights,
    )
    model = helper.make_model(
        built,
        opset_imports=list(plan.backbone.model.opset_import),
        producer_name="algan-stream",
        ir_version=max(IR_VERSION, plan.backbone.model.ir_version),
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
