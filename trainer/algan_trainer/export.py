"""From trained networks to a model bundle: ONNX, parity, calibration, golden images, report."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from algan_stream.bundle import FORMAT_VERSION, MODEL, Bundle, Manifest, write_bundle
from algan_stream.calibration import Calibration, calibrate, p_values
from algan_stream.engines.gate import check_golden
from algan_stream.engines.openvino import Config as EngineConfig
from algan_stream.engines.openvino import create
from algan_stream.errors import AlganError
from algan_stream.types import InputSpec
from algan_trainer.algan import State
from algan_trainer.data import Sample, load_inputs
from algan_trainer.evaluate import auroc_of
from algan_trainer.golden import choose_golden, write_golden
from algan_trainer.networks import anomaly_scores
from algan_trainer.onnx_graph import write_onnx
from algan_trainer.report import CURVE, SCORES, SPLIT, write_split, write_table
from algan_trainer.session import Data, Journal, Request

Scores = npt.NDArray[np.float64]
#: Largest |logit difference| between PyTorch and a runtime in fp32, as a share of the largest |logit|
#: (at least of 1); above it, the exported graph is not the trained network.
PARITY_SHARE = 1e-3
#: Least fp32 tolerance of the golden gate, as such a share: other processors add up in other orders.
FP32_SHARE = 1e-4
#: How far engines may go beyond what was measured here.
FP32_MARGIN, BF16_MARGIN = 20.0, 3.0
#: Tolerance in bf16, as a share of the logits' range, where this processor cannot measure it.
BF16_SHARE = 0.05
#: The least false-reject rate that is set by itself.
DEFAULT_RATE = 0.01


class ExportError(AlganError):
    """The exported model does not compute what the trained network does."""

    exit_code = 10


@dataclass(frozen=True)
class Heldout:
    """Images that were not trained on, as they go into the network, with the trainer's fp32 scores."""

    samples: list[Sample]
    inputs: npt.NDArray[np.float32]
    scores: Scores

    def of(self, split: str) -> npt.NDArray[np.intp]:
        """Rows of one split."""
        return np.array([i for i, s in enumerate(self.samples) if s.split == split], dtype=np.intp)


@dataclass(frozen=True)
class Parity:
    """Largest |logit difference| from PyTorch, by runtime; and the tolerances that follow."""

    differences: dict[str, float]
    tolerance: dict[str, float]


def export_bundle(
    state: State, journal: Journal, data: Data, request: Request, note: Callable[[str], None]
) -> Bundle:
    """Exports `state.discriminator` with everything that deployment needs; all at once or not at all.

    Raises:
        ExportError: A runtime does not reproduce PyTorch's logits.
        CalibrationError: The wanted false-reject rate needs more good images.
        GateError: The finished bundle does not pass its own golden gate.
    """
    network, spec = state.discriminator, state.config.network.input_spec()
    samples = [s for s in data.dataset.samples if s.split != "train"]
    inputs = load_inputs(data.dataset.root, [s.path for s in samples], spec)
    heldout = Heldout(samples, inputs, anomaly_scores(network, torch.from_numpy(inputs)))
    request.out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{request.out.name}-new-", dir=request.out.parent))
    try:
        write_onnx(network, spec.shape_chw, staged / MODEL)
        scores, parity = _measure(staged, spec, heldout)
        calibration = _calibrate(data, heldout, scores, request, note)
        golden = choose_golden(
            data.dataset,
            network,
            spec,
            calibration.threshold,
            margin=max(parity.tolerance.values()),
            count=state.config.golden_images,
        )
        write_golden(golden, staged)
        metrics = _metrics(heldout, scores, journal, note)
        report = staged / "report"
        write_table(report / CURVE, journal.curve, ["epoch", "loss_d", "loss_g", "auroc", "seconds"])
        write_split(report / SPLIT, data.dataset, data.hashes)
        _write_scores(report / SCORES, heldout, scores, calibration)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=request.name or request.out.name,
            model_kind="algan-image",
            input_spec=spec,
            tolerance=parity.tolerance,
            calibration=calibration,
            provenance=_provenance(state, journal, data, metrics, parity),
            files={},
        )
        _pass_gate(Bundle(staged, manifest))
        staged.chmod(0o755)
        return write_bundle(request.out, staged, manifest)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _measure(staged: Path, spec: InputSpec, heldout: Heldout) -> tuple[Scores, Parity]:
    """Scores held-out images by OpenVINO in fp32, as they will be served, and compares the runtimes."""
    scores = _openvino_scores(staged, spec, heldout.inputs, "fp32")
    differences = {"openvino fp32": float(np.abs(scores - heldout.scores).max())}
    ort = _onnxruntime_scores(staged / MODEL, heldout.inputs)
    if ort is not None:
        differences["onnxruntime fp32"] = float(np.abs(ort - heldout.scores).max())
    scale = max(1.0, float(np.abs(heldout.scores).max()))
    for runtime, difference in differences.items():
        if not difference <= PARITY_SHARE * scale:
            raise ExportError(
                f"{runtime}: logits differ from PyTorch's by {difference:.3g} "
                f"(allowed {PARITY_SHARE * scale:.3g}); the bundle was not written; "
                "please report this with the versions of both libraries"
            )
    fp32 = max(FP32_MARGIN * max(differences.values()), FP32_SHARE * scale)
    bf16 = BF16_SHARE * max(float(np.ptp(heldout.scores)), scale)
    if _offers_bf16():
        halved = _openvino_scores(staged, spec, heldout.inputs, "bf16")
        differences["openvino bf16"] = float(np.abs(halved - heldout.scores).max())
        bf16 = BF16_MARGIN * differences["openvino bf16"]
    return scores, Parity(differences, {"fp32": fp32, "bf16": max(bf16, fp32)})


def _openvino_scores(
    staged: Path, spec: InputSpec, inputs: npt.NDArray[np.float32], precision: Literal["fp32", "bf16"]
) -> Scores:
    draft = Manifest(
        format_version=FORMAT_VERSION,
        name="",
        model_kind="algan-image",
        input_spec=spec,
        tolerance={},
        files={},
    )
    engine = create(Bundle(staged, draft), EngineConfig(precision=precision, threads=torch.get_num_threads()))
    try:
        return -engine.infer(inputs).astype(np.float64)
    finally:
        engine.close()


def _onnxruntime_scores(model: Path, inputs: npt.NDArray[np.float32]) -> Scores | None:
    """The same by ONNX Runtime, a second witness; None where it is not installed."""
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    parts = [session.run(["logit"], {"input": inputs[i : i + 32]})[0] for i in range(0, len(inputs), 32)]
    return -np.concatenate(parts).astype(np.float64)


def _offers_bf16() -> bool:
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _calibrate(
    data: Data, heldout: Heldout, scores: Scores, request: Request, note: Callable[[str], None]
) -> Calibration:
    paths = {s.path for s in data.dataset.calibration}
    good = scores[[s.path in paths for s in heldout.samples]]
    rate = request.false_reject_rate
    if rate is None:
        rate = max(DEFAULT_RATE, 1.0 / (good.size + 1))
    calibration = calibrate(good, rate)
    ci = calibration.false_reject_rate_ci95 or (0.0, 1.0)
    note(
        f"calibration: {good.size} good images, false-reject rate {rate:.4g} "
        f"(95 % interval {ci[0]:.3g} to {ci[1]:.3g}), threshold {calibration.threshold:.4g}"
    )
    return calibration


def _metrics(
    heldout: Heldout, scores: Scores, journal: Journal, note: Callable[[str], None]
) -> dict[str, Any]:
    """Validation and test AUROC of what is exported; the test part is looked at here and nowhere else."""
    found: dict[str, Any] = {}
    for split in ("validation", "test"):
        rows = heldout.of(split)
        anomalous = [heldout.samples[i].anomalous for i in rows]
        found[f"{split}_auroc"] = auroc_of(scores[rows], anomalous)
        if found[f"{split}_auroc"] is not None:
            note(f"{split}: AUROC {found[f'{split}_auroc']:.4f} of {len(rows)} images")
    epoch = "the last one" if journal.best_epoch is None else f"epoch {journal.best_epoch}"
    note(f"checkpoint: {epoch}")
    return found


def _provenance(
    state: State, journal: Journal, data: Data, metrics: dict[str, Any], parity: Parity
) -> dict[str, Any]:
    counts = {
        split: {"good": sum(not s.anomalous for s in of), "anomalous": sum(s.anomalous for s in of)}
        for split in ("train", "calibration", "validation", "test")
        if (of := data.dataset.of(split))
    }
    libraries = ("algan-stream", "torch", "onnx", "openvino", "numpy")
    return {
        "data": {
            "sha256": journal.data_hash,
            "layout": data.dataset.layout,
            "counts": counts,
            "split": f"report/{SPLIT}",
        },
        "seed": state.config.seed,
        "config": msgspec.to_builtins(state.config),
        "epochs": state.epoch,
        "checkpoint": {
            "rule": "last epoch" if journal.best_epoch is None else "best validation AUROC",
            "epoch": state.epoch if journal.best_epoch is None else journal.best_epoch,
        },
        "metrics": metrics,
        "parity": parity.differences,
        "training_seconds": round(journal.seconds, 1),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
    }


def _write_scores(path: Path, heldout: Heldout, scores: Scores, calibration: Calibration) -> None:
    p = p_values(calibration.good_scores, scores)
    rows = [
        {"path": s.path, "split": s.split, "kind": s.kind, "score": f"{score:.6f}", "p_value": f"{value:.6f}"}
        for s, score, value in zip(heldout.samples, scores, p, strict=True)
    ]
    write_table(path, rows, ["path", "split", "kind", "score", "p_value"])


def _pass_gate(bundle: Bundle) -> None:
    engine = create(bundle, EngineConfig(threads=torch.get_num_threads()))
    try:
        check_golden(bundle, engine)
    finally:
        engine.close()
