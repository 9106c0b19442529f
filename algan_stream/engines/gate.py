"""The golden gate: no engine serves before it reproduces the bundle's own answers on this machine."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream import plugins
from algan_stream.bundle import Bundle, Golden
from algan_stream.engines.base import Engine, EngineIdentity
from algan_stream.errors import AlganError, GateError
from algan_stream.preprocess import preprocess

log = logging.getLogger(__name__)

#: The core's own paths (scalar, AVX2, …) may differ by rounding; anything above this is a broken build.
INPUT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class GateReport:
    """What the gate measured: the largest difference of a logit and of a preprocessed value."""

    images: int
    max_logit_difference: float
    tolerance: float
    max_input_difference: float


def open_engine(bundle: Bundle, section: dict[str, Any] | None = None) -> Engine:
    """Builds an engine and lets it through the golden gate.

    Args:
        bundle: What it shall serve.
        section: Configuration section `engine`; by default OpenVINO in fp32.

    Raises:
        ConfigError: A key of the section is wrong.
        EngineError: It cannot be built, or does not reproduce the golden logits.
    """
    module, config = plugins.load("engines", section or {"kind": "openvino"}, "engine")
    engine: Engine = module.create(bundle, config)
    try:
        report = check_golden(bundle, engine)
    except AlganError:
        engine.close()
        raise
    log.info(
        "%s reproduces %d golden images: largest difference %.2g of %.2g allowed",
        engine.identity,
        report.images,
        report.max_logit_difference,
        report.tolerance,
    )
    return engine


def check_golden(bundle: Bundle, engine: Engine) -> GateReport:
    """Runs the bundle's golden images through preprocessing and engine on this machine.

    Raises:
        GateError: An input, a logit or a verdict is not the one that the trainer recorded.
    """
    golden = bundle.golden()
    tolerance = _tolerance(bundle, engine.identity.precision)
    input_difference = _input_difference(bundle, golden)
    if not input_difference <= INPUT_TOLERANCE:
        raise GateError(
            f"preprocessing differs from the bundle's golden inputs by {input_difference:.3g} (allowed "
            f"{INPUT_TOLERANCE:g}); this build of _core must not serve, run `algan-stream doctor`"
        )
    difference = check_logits(bundle, engine.identity, golden, engine.infer(golden.inputs))
    return GateReport(len(golden.logits), difference, tolerance, input_difference)


def check_logits(
    bundle: Bundle, identity: EngineIdentity, golden: Golden, logits: npt.NDArray[np.float32]
) -> float:
    """Compares an engine's logits, (N,) float32, with the golden ones; returns the largest difference.

    Raises:
        GateError: A logit or a verdict is not the one that the trainer recorded, or the bundle states no
            tolerance for the precision.
    """
    tolerance = _tolerance(bundle, identity.precision)
    difference = float(np.abs(logits - golden.logits).max())
    if not difference <= tolerance:
        raise GateError(
            f"{identity} differs from the bundle's golden logits by {difference:.3g} (allowed "
            f"{tolerance:.3g} in {identity.precision}); it must not serve this bundle"
        )
    _check_verdicts(bundle, identity, -golden.logits, -logits)
    return difference


def _tolerance(bundle: Bundle, precision: str) -> float:
    tolerance = bundle.manifest.tolerance.get(precision)
    if tolerance is None:
        known = ", ".join(sorted(bundle.manifest.tolerance))
        raise GateError(
            f"{bundle.path}: states no tolerance for {precision}, only for {known}; choose one of these"
        )
    return tolerance


def _input_difference(bundle: Bundle, golden: Golden) -> float:
    """How far this machine's preprocessing is from the trainer's; vectors need none."""
    if golden.images_rgb is None:
        return 0.0
    spec = bundle.manifest.image_spec
    inputs = np.concatenate([preprocess(image, spec, pixel_format="rgb8") for image in golden.images_rgb])
    return float(np.abs(inputs - golden.inputs).max())


def _check_verdicts(
    bundle: Bundle, identity: EngineIdentity, expected: np.ndarray, scores: np.ndarray
) -> None:
    calibration = bundle.manifest.calibration
    if calibration is None:
        return
    flipped = np.flatnonzero((expected > calibration.threshold) != (scores > calibration.threshold))
    if flipped.size:
        raise GateError(
            f"{identity} turns the verdict of golden images {flipped.tolist()} around; "
            "it must not serve this bundle"
        )
