"""A graph that was exported for a fixed number of images is made to take any number, where that can be done.

The number is fixed by the input's shape alone, or it is also baked into `Reshape` nodes behind it. Those are
rewritten from the shapes that the graph has at the fixed number. Whether that was enough is not reasoned
about but measured; see `measure.check_batches`.
"""

from __future__ import annotations

from typing import Any

from algan_deploy.wrap.source import Source, dims_of


def open_batch(source: Source, model: Any, size: tuple[int, int]) -> list[str]:
    """Rewrites `model` in place.

    Args:
        source: Says how many images the graph takes, and in which order of axes.
        model: A copy of its graph, pruned to the score.
        size: Height and width that the input will have.

    Returns:
        Names of the nodes that were rewritten; empty where the number was open, or stood in no node.
    """
    if source.batch is None:
        return []
    graph = model.graph
    shapes = _shapes(source, model, size)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    made = {node.output[0]: node for node in graph.node if node.op_type == "Constant"}
    rewritten = []
    for node in graph.node:
        if node.op_type != "Reshape" or not _is_constant(node.input[1], weights, made):
            continue
        before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
        if not before or not after or before[0] != source.batch or after[0] != source.batch:
            continue  # not known, or its first axis is not the images'
        if None in after[1:]:
            continue
        name = f"{node.output[0]}/any_batch"
        graph.initializer.append(_int64(name, [-1, *(int(dim) for dim in after[1:] if dim is not None)]))
        node.input[1] = name
        rewritten.append(node.name or node.output[0])
    return rewritten


def _shapes(source: Source, model: Any, size: tuple[int, int]) -> dict[str, tuple[int | None, ...]]:
    """Every tensor's shape at the fixed number of images."""
    import onnx

    probe = type(model)()
    probe.CopyFrom(model)
    image = next(value for value in probe.graph.input if value.name == source.input_name)
    axes = (2, 3) if source.layout == "nchw" else (1, 2)
    for axis, pixels in zip(axes, size, strict=True):
        image.type.tensor_type.shape.dim[axis].dim_value = pixels
    inferred = onnx.shape_inference.infer_shapes(probe, data_prop=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {value.name: dims for value in values if (dims := dims_of(value)) is not None}


def _is_constant(name: str, weights: dict[str, Any], made: dict[str, Any]) -> bool:
    return name in weights or name in made


def _int64(name: str, values: list[int]) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
