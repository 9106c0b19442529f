"""Scores of a graph on everything that int8 is judged by, and the comparison of two graphs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algan_deploy.quantize.samples import Floats, Samples
from algan_stream.auroc import auroc
from algan_stream.engines.graph import open_graph

#: As OpenVINO names the arithmetic of a layer that runs in int8.
_INT8_NAMES = ("i8", "u8")
#: Types of layers, as OpenVINO names them, that carry nearly all arithmetic.
_HEAVY_TYPES = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


@dataclass(frozen=True, eq=False)
class Scores:
    """What one graph gives, (n,) float32 each; higher is more anomalous.

    Attributes:
        good: Of the good ones for calibration.
        golden: Of the golden inputs, by runtime.
        labelled_good: Of the labelled good ones, (0,) without any.
        labelled_bad: Of the labelled defective ones, (0,) without any.
    """

    good: Floats
    golden: dict[str, Floats]
    labelled_good: Floats
    labelled_bad: Floats

    @property
    def everything(self) -> Floats:
        """Of all inputs in one row, golden ones by OpenVINO."""
        return np.concatenate([self.good, self.labelled_good, self.labelled_bad, self.golden["openvino"]])

    @property
    def auroc(self) -> float | None:
        """On the labelled ones; None without any."""
        return auroc(self.labelled_good, self.labelled_bad)


@dataclass(frozen=True, eq=False)
class Comparison:
    """An int8 graph beside the fp32 graph.

    Attributes:
        auroc_before: On the labelled ones, in fp32; None without any.
        auroc_after: The same in int8.
        good_error: Root of the mean squared score difference on good ones: by it layers are ranked.
        largest_difference: Largest |score difference| of all.
        golden_differences: Largest |score − golden score| by runtime.
        compared: How many were scored by both.
        flips: How many of them got another verdict; None without a threshold.
        good_flips: The same, of the good ones for calibration.
        good_share_flipped: The same as a share of them, 0 without a threshold.
        golden_flips: The same, of the golden ones, where they were most.
    """

    auroc_before: float | None
    auroc_after: float | None
    good_error: float
    largest_difference: float
    golden_differences: dict[str, float]
    compared: int
    flips: int | None
    good_flips: int | None
    good_share_flipped: float
    golden_flips: int | None


def compare(before: Scores, after: Scores, golden_logits: Floats, threshold: float | None) -> Comparison:
    """Puts the scores of an int8 graph beside those of the fp32 graph.

    Args:
        before: Of the fp32 graph.
        after: Of the int8 graph on the same inputs.
        golden_logits: (n,) of the bundle, which the golden gate compares with.
        threshold: Scores above it are rejected; None: there are no verdicts to flip.
    """

    def flips(one: Floats, other: Floats) -> int | None:
        return None if threshold is None else int(((one > threshold) != (other > threshold)).sum())

    golden = {name: _most(scores, -golden_logits) for name, scores in after.golden.items()}
    good_flips = flips(after.good, before.good)
    turned = [flips(scores, -golden_logits) for scores in after.golden.values()]
    return Comparison(
        auroc_before=before.auroc,
        auroc_after=after.auroc,
        good_error=float(np.sqrt(np.mean((after.good - before.good).astype(np.float64) ** 2))),
        largest_difference=_most(after.everything, before.everything),
        golden_differences=golden,
        compared=len(before.everything),
        flips=flips(after.everything, before.everything),
        good_flips=good_flips,
        good_share_flipped=(good_flips or 0) / len(before.good),
        golden_flips=None if threshold is None else max(count for count in turned if count is not None),
    )


def score(path: Path, samples: Samples) -> Scores:
    """Runs a graph on all inputs by OpenVINO, and on the golden ones by ONNX Runtime too.

    Raises:
        EngineError: OpenVINO cannot compile or run it.
    """
    graph = open_graph(path, samples.golden.inputs.shape[1:], {"logit": ()})
    try:
        good, labelled_good, labelled_bad, golden = (
            np.empty(0, np.float32) if inputs is None else -graph.infer(inputs)["logit"]
            for inputs in (samples.good, samples.labelled_good, samples.labelled_bad, samples.golden.inputs)
        )
    finally:
        graph.close()
    return Scores(
        good,
        {"openvino": golden, "onnxruntime": _onnxruntime(path, samples.golden.inputs)},
        labelled_good,
        labelled_bad,
    )


def int8_layers(path: Path) -> tuple[int, int]:
    """How many convolutions and matrix products of a graph OpenVINO runs in int8 here, and of how many."""
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    heavy = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        about = node.get_rt_info()
        if str(about["layerType"].value) in _HEAVY_TYPES:
            heavy.append(str(about["runtimePrecision"].value))
    return sum(name in _INT8_NAMES for name in heavy), len(heavy)


def _onnxruntime(path: Path, inputs: Floats) -> Floats:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits: Floats = session.run(["logit"], {"input": inputs})[0]
    return -logits


def _most(one: Floats, other: Floats) -> float:
    return float(np.abs(one.astype(np.float64) - other).max())
