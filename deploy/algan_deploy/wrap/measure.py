"""Does the wrapped graph say what the model says? Scores of both, one image at a time and in batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from algan_deploy.wrap.graph import Wish
from algan_deploy.wrap.runtimes import Array, Runtime, Scores
from algan_deploy.wrap.source import Source
from algan_stream.bundle import Bundle
from algan_stream.engines.openvino import Config as EngineConfig
from algan_stream.engines.openvino import create
from algan_stream.errors import BundleError, EngineError
from algan_stream.images import read_image
from algan_stream.preprocess import preprocess, preprocess_into
from algan_stream.types import InputSpec

Floats = npt.NDArray[np.float32]
#: Largest |score difference| between the model and its wrapped graph, as a share of the largest |score|.
PARITY_SHARE = 1e-3
#: Least fp32 tolerance of the golden gate, as such a share; how far engines may go beyond what was measured.
FP32_SHARE, FP32_MARGIN, BF16_MARGIN = 1e-4, 20.0, 3.0
#: Numbers of images that a graph for any number is tried with.
_BATCHES = (1, 2, 3, 5)
_TYPES = {1: np.float32, 10: np.float16, 11: np.float64}


@dataclass(frozen=True)
class Parity:
    """Largest |score difference| from the model as it came, by runtime; and the tolerances that follow."""

    differences: Mapping[str, float]
    tolerance: dict[str, float]


def resized(path: Path, spec: InputSpec) -> npt.NDArray[np.uint8]:
    """An image file at the spec's size, (H, W, 3) uint8 RGB, by the core's own resize."""
    image, pixel_format = read_image(path, spec.white_level)
    plain = msgspec.structs.replace(spec, pooled_channels=False, mean=(0.0,) * 3, std=(1.0,) * 3)
    out = np.empty((1, spec.height_px, spec.width_px, 3), np.uint8)
    preprocess_into(out, image, plain, pixel_format=pixel_format, layout="nhwc")
    found: npt.NDArray[np.uint8] = out[0]
    return found


def inputs_of(images_rgb: npt.NDArray[np.uint8], spec: InputSpec) -> Floats:
    """(N, C, H, W) float32 of images that have the spec's size."""
    return np.concatenate([preprocess(image, spec, pixel_format="rgb8") for image in images_rgb])


def witnesses(spec: InputSpec) -> npt.NDArray[np.uint8]:
    """A few images, unlike each other, for models to which all photographs at hand are the same."""
    rng = np.random.default_rng(0)
    shape = (spec.height_px, spec.width_px, 3)
    noise = rng.integers(0, 256, (2, *shape), dtype=np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, shape[1])[None, :, None], shape).astype(np.uint8)
    return np.stack([*noise, ramp, ramp[::-1, ::-1] // 2, np.full(shape, 128, np.uint8)])


def original_scores(source: Source, runtime: Runtime, inputs: Floats, wish: Wish) -> Scores:
    """Scores by the model as it came, one image at a time, as NumPy would feed it: (N,).

    Raises:
        BundleError: It fails, gives other than one number for an image, or one that is not finite.
    """
    found = []
    for index, image in enumerate(inputs):
        fed = _as_taken(source, image, wish)
        try:
            score = runtime.run({source.input_name: fed, **_constants(source)}, source.output_name)
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise BundleError(
                f"{source.path}: fails on an image of {fed.shape[1:]} in {runtime.name}: {text}"
            ) from error
        if score.size != len(fed):
            raise BundleError(
                f"{source.path}: output {source.output_name}: expected one number for each image, got "
                f"{score.shape} for {len(fed)}; name another output by --score-output"
            )
        value = float(score.reshape(-1)[0])
        if not np.isfinite(value):
            raise BundleError(
                f"{source.path}: scores image {index} as {value} in {runtime.name}; expected finite numbers: "
                "was it trained, and is the input range right?"
            )
        found.append(value)
    return np.array(found)


def check_batches(source: Source, runtime: Runtime, inputs: Floats, scores: Scores) -> float:
    """Compares the wrapped graph's answers for several images at once with those for each alone.

    Args:
        source: For messages.
        runtime: Runs the wrapped graph.
        inputs: (N, C, H, W), not all of the same score.
        scores: (N,) by the model as it came, higher is more anomalous.

    Returns:
        Largest difference.

    Raises:
        BundleError: They differ, or it cannot take several images.
    """
    allowed, worst = PARITY_SHARE * scale_of(scores), 0.0
    order = np.concatenate([np.arange(len(inputs))] * -(-max(_BATCHES) // len(inputs)))
    for count in _BATCHES:
        for rows in (order[:count], order[:count][::-1]):
            try:
                logits = runtime.run({"input": np.ascontiguousarray(inputs[rows])}, "logit")
            except Exception as error:
                text = " ".join(str(error).split())[:300]
                raise BundleError(_one_by_one(source, f"for {count} it fails: {text}")) from error
            if logits.shape != (count,):
                raise BundleError(_one_by_one(source, f"for {count} it gives {logits.shape}"))
            difference = float(np.abs(-logits - scores[rows]).max())
            worst = max(worst, difference)
            if not difference <= allowed:
                raise BundleError(
                    _one_by_one(
                        source, f"scores of {count} differ by {difference:.3g} (allowed {allowed:.3g})"
                    )
                )
    return worst


def measure(
    staged: Bundle, source: Source, reference: Runtime, inputs: Floats, scores: Scores
) -> tuple[Floats, Parity]:
    """Scores all inputs by the wrapped graph, in the reference runtime and as it will be served.

    Returns:
        (N,) logits by the reference, and how far everything is from the model as it came.

    Raises:
        BundleError: OpenVINO cannot run it, or a runtime gives other scores than the model.
    """
    logits = np.concatenate(
        [reference.run({"input": inputs[i : i + 8]}, "logit") for i in range(0, len(inputs), 8)]
    )
    scale = scale_of(scores)
    served = {f"{reference.name} wrapped": -logits.astype(np.float64)}
    served["openvino fp32"] = _served(staged, inputs, "fp32")
    differences = {name: float(np.abs(found - scores).max()) for name, found in served.items()}
    for name, difference in differences.items():
        if not difference <= PARITY_SHARE * scale:
            raise BundleError(
                f"{source.path}: {name}: scores differ from the model's own by {difference:.3g} (allowed "
                f"{PARITY_SHARE * scale:.3g}); the bundle was not written"
            )
    tolerance = {"fp32": max(FP32_MARGIN * max(differences.values()), FP32_SHARE * scale)}
    if _offers_bf16():
        differences["openvino bf16"] = float(np.abs(_served(staged, inputs, "bf16") - scores).max())
        tolerance["bf16"] = max(BF16_MARGIN * differences["openvino bf16"], tolerance["fp32"])
    return logits.astype(np.float32), Parity(differences, tolerance)


def scale_of(scores: Scores) -> float:
    """What differences are compared with: models give scores of 1e-4 as well as of 1e4."""
    return max(float(np.abs(scores).max()), 1e-6)


def _served(staged: Bundle, inputs: Floats, precision: Any) -> Scores:
    try:
        engine = create(staged, EngineConfig(precision=precision, streams=1, max_batch=2))
    except EngineError as error:
        raise BundleError(f"the wrapped model cannot be served: {error}") from error
    try:
        return -engine.infer(inputs).astype(np.float64)
    finally:
        engine.close()


def _offers_bf16() -> bool:
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _as_taken(source: Source, image: Floats, wish: Wish) -> Array:
    """(C, H, W) planes of ours → the batch that the model takes, done once more without the graph."""
    planes: Array = image
    if source.planes == 1:
        planes = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), image, axes=1)[None]
    elif wish.bgr:
        planes = np.concatenate([image[2::-1], image[3:]])
    if source.layout == "nhwc":
        planes = planes.transpose(1, 2, 0)
    planes = planes.astype(_TYPES[source.input_type])
    return np.ascontiguousarray(np.broadcast_to(planes, (source.batch or 1, *planes.shape)))


def _constants(source: Source) -> dict[str, Array]:
    from onnx import helper

    found: dict[str, Array] = {}
    for value in source.model.graph.input:
        if value.name in source.constants:
            tensor = value.type.tensor_type
            shape = [dim.dim_value or 1 for dim in tensor.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            found[value.name] = np.full(shape, source.constants[value.name], dtype)
    return found


def _one_by_one(source: Source, why: str) -> str:
    fixed = f"it was exported for {source.batch} at a time; " if source.batch else ""
    return (
        f"{source.path}: does not score several images at once as it scores each alone: {why}; {fixed}export "
        "it with a dynamic batch, in evaluation mode"
    )
