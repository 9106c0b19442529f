"""One int8 graph by NNCF: Q/DQ nodes in ONNX that OpenVINO, ONNX Runtime and TensorRT read alike.

The settings are what held the scores best on trained discriminators, and the same on every machine:

- Weights use 7 of their 8 bits (NNCF's `overflow_fix`). Processors without VNNI add pairs of products in
  16 bits, where full weights overflow: the score would depend on the processor.
- Ranges of activations are quantiles: a discriminator has rare large activations, which would make the steps
  of all others coarse. They come from good images only; what a defect drives beyond them is cut off.
- No bias correction: it moves the mean of each channel, and with it the threshold, on a few images' word.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from algan_deploy.quantize.errors import QuantizationError
from algan_deploy.quantize.samples import Floats
from algan_stream.errors import PluginError

if TYPE_CHECKING:
    from onnx import ModelProto

Activations: TypeAlias = Literal["symmetric", "asymmetric"]

#: Good ones that ranges are measured on, evenly spaced among those given.
CALIBRATION_COUNT = 128
#: Share of an image's activations that may lie beyond the range, at each end.
OUTLIERS = 1e-3
#: Operators with weights.
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: Operators that always stay in fp32. They pool features and standardise them: a mean over a map that is
#: rounded to 8 bits, and a number that is far from 0 for its spread, would lose what tells images apart.
_NEVER = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "Sub", "Div", "Pow", "Sqrt")
#: Operators that only say how numbers are laid out.
_LAYOUT = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
#: The first opset of ONNX with one scale for each channel.
_LEAST_OPSET = 13


def calibration_of(good: Floats) -> Floats:
    """Those of the good inputs that are used, (n, *shape)."""
    count = min(CALIBRATION_COUNT, len(good))
    chosen: Floats = good[np.linspace(0, len(good) - 1, count).round().astype(int)]
    return chosen


def layer_names(path: Path) -> tuple[str, ...]:
    """Names of the layers with weights, from input to output.

    Raises:
        QuantizationError: There are none, or the ONNX file is too old.
    """
    model = _load(path)
    constant = {tensor.name for tensor in model.graph.initializer}
    names = tuple(n.name for n in model.graph.node if n.op_type in _WEIGHTED and constant & set(n.input))
    inside = [n.op_type for n in model.graph.node for a in n.attribute if a.HasField("g") or a.graphs]
    if not names and inside:
        raise QuantizationError(
            f"{path}: its layers stand inside {inside[0]}, where NNCF does not look; use fp32, or train with "
            "`feature.test_rotations = 1`"
        )
    if not names:
        raise QuantizationError(
            f"{path}: has no layer with weights ({', '.join(_WEIGHTED)}), so nothing to quantise; use fp32"
        )
    if (opset := _opset(model)) < _LEAST_OPSET:
        raise QuantizationError(
            f"{path}: is in opset {opset} of ONNX, int8 needs {_LEAST_OPSET} or newer; export the model again"
        )
    return names


def standardised_layers(path: Path) -> tuple[str, ...]:
    """Names of the layers that read standardised features, which always stay in fp32.

    OpenVINO moves the standardisation into the rounding before such a layer, and loses most of it: on a
    backbone with its discriminator the logits then were off ten times as far as ONNX Runtime's.
    """
    model = _load(path)
    made_by = {output: node for node in model.graph.node for output in node.output}
    found = []
    for node in model.graph.node:
        source = made_by.get(node.input[0]) if node.op_type in _WEIGHTED else None
        while source is not None and source.op_type in _LAYOUT:
            source = made_by.get(source.input[0])
        if source is not None and source.op_type in ("Sub", "Div"):
            found.append(node.name)
    return tuple(found)


def write_int8(
    source: Path, good: Floats, activations: Activations, kept: Collection[str], target: Path
) -> None:
    """Quantises a graph, weights by channel.

    Args:
        source: ONNX file `input` → `logit`.
        good: (n, *shape) float32, inputs that ranges of activations are measured on.
        activations: Whether their zero points are 0.
        kept: Names of layers that stay in fp32.
        target: Where the int8 graph is written.

    Raises:
        PluginError: NNCF is not installed.
        QuantizationError: NNCF fails, or changed more than it should.
    """
    nncf = _nncf()
    model = _load(source)
    dataset = nncf.Dataset([one[None] for one in good], lambda one: {"input": one})
    never = sorted({node.op_type for node in model.graph.node} & set(_NEVER))
    try:
        with _silent():
            made = nncf.quantize(
                model,
                dataset,
                preset=nncf.QuantizationPreset.PERFORMANCE
                if activations == "symmetric"
                else nncf.QuantizationPreset.MIXED,
                subset_size=len(good),
                ignored_scope=nncf.IgnoredScope(names=sorted(kept), types=never),
                advanced_parameters=_settings(),
            )
    except Exception as error:
        raise QuantizationError(f"{source}: NNCF cannot quantise it: {error}; use fp32") from error
    if activations == "symmetric":
        _make_signed(made)
    _check(model, made, activations, source)
    target.write_bytes(made.SerializeToString())


def _nncf() -> Any:
    # NNCF reports every use to its makers unless this is set before it is imported; a production line's
    # tools report to nobody.
    os.environ["NNCF_CI"] = "1"
    try:
        with _silent():
            import nncf
            import onnxruntime  # noqa: F401  (NNCF measures activations by it)
    except ImportError as error:
        raise PluginError(
            f"quantize: needs NNCF and ONNX Runtime ({error}); install them by "
            "`pip install 'algan-stream[quantize]'`"
        ) from error
    # Its own `set_log_level` would silence the handlers of the whole process, ours among them.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


@contextlib.contextmanager
def _silent() -> Any:
    """Keeps NNCF's progress bars off standard output, which is for our results, and its own warnings too."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _settings() -> Any:
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        OverflowFix,
    )
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    low, high = (
        StatisticsCollectorParameters(
            statistics_type=StatisticsType.QUANTILE, aggregator_type=extreme, quantile_outlier_prob=OUTLIERS
        )
        for extreme in (AggregatorType.MIN, AggregatorType.MAX)
    )
    return AdvancedQuantizationParameters(
        overflow_fix=OverflowFix.ENABLE,
        disable_bias_correction=True,
        activations_range_estimator_params=RangeEstimatorParameters(min=low, max=high),
    )


def _load(path: Path) -> ModelProto:
    """The graph, each node named: by its first output, which no other has, if it had no name of its own."""
    import onnx

    model = onnx.load(str(path))
    names = [node.name for node in model.graph.node]
    for node in model.graph.node:
        if not node.name or names.count(node.name) > 1:
            node.name = node.output[0]
    return model


def _opset(model: ModelProto) -> int:
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def _make_signed(model: ModelProto) -> None:
    """Activations of one sign from uint8 to int8: TensorRT knows no other, and NNCF cannot be told so."""
    import onnx

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = {(n.input[1], n.input[2]) for n in model.graph.node if n.op_type == "QuantizeLinear"}
    for scale_name, zero_name in sorted(pairs):
        scale, zero = (onnx.numpy_helper.to_array(tensors[name]) for name in (scale_name, zero_name))
        if zero.dtype == np.uint8 and not zero.any():
            wider = np.asarray(scale * (255.0 / 127.0), scale.dtype)  # 0 to 255 become 0 to 127
            tensors[scale_name].CopyFrom(onnx.numpy_helper.from_array(wider, scale_name))
            tensors[zero_name].CopyFrom(onnx.numpy_helper.from_array(zero.astype(np.int8), zero_name))


def _check(before: ModelProto, after: ModelProto, activations: Activations, source: Path) -> None:
    """The same inputs, outputs and opset; Q/DQ that TensorRT accepts, if it is to."""
    import onnx

    onnx.checker.check_model(after)
    ends = [(list(m.graph.input), list(m.graph.output), _opset(m)) for m in (before, after)]
    if ends[0] != ends[1]:
        raise QuantizationError(f"{source}: NNCF changed its inputs, outputs or opset; install another NNCF")
    if not any(node.op_type == "QuantizeLinear" for node in after.graph.node):
        raise QuantizationError(f"{source}: NNCF found nothing in it to quantise; use fp32")
    if activations == "asymmetric":
        return
    zero = {node.input[2] for node in after.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in after.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor) if tensor.name in zero else np.zeros(1, np.int8)
        if values.dtype != np.int8 or values.any():
            raise QuantizationError(
                f"{source}: expected signed activations with zero point 0, NNCF gave {values.dtype} with "
                f"{values.ravel()[:3].tolist()} for {tensor.name}; install another NNCF"
            )
