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

from algan_stream.bundle import EXPLAIN, FORMAT_VERSION, MODEL, Bundle, Manifest, write_bundle
from algan_stream.calibration import Calibration, calibrate, p_values
from algan_stream.engines.gate import check_golden
from algan_stream.engines.openvino import Config as EngineConfig
from algan_stream.engines.openvino import create
from algan_stream.errors import AlganError
from algan_stream.types import InputSpec, VectorSpec
from algan_trainer.algan import State
from algan_trainer.data import Sample
from algan_trainer.evaluate import auroc_of
from algan_trainer.golden import choose_golden, spread, write_golden
from algan_trainer.modality import Modality
from algan_trainer.networks import anomaly_scores
from algan_trainer.report import CURVE, CURVE_COLUMNS, SCORES, SPLIT, write_split, write_table
from algan_trainer.report.training import write_training_report
from algan_trainer.saliency import write_explanation
from algan_trainer.selection import rule_for
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
    """Samples that were not trained on, with the trainer's fp32 scores."""

    samples: list[Sample]
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
    """Exports `state.scorer` with everything that deployment needs; all at once or not at all.

    Raises:
        ExportError: A runtime does not reproduce PyTorch's logits.
        SaliencyError: The explanation graph does not reproduce PyTorch's maps.
        CalibrationError: The wanted false-reject rate needs more good images.
        GateError: The finished bundle does not pass its own golden gate.
    """
    network, modality = state.scorer, data.modality
    samples = [s for s in data.dataset.samples if s.split != "train"]
    seen = torch.from_numpy(modality.network_inputs(samples))
    heldout = Heldout(samples, anomaly_scores(network, seen))
    request.out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{request.out.name}-new-", dir=request.out.parent))
    try:
        modality.write_onnx(network, staged / MODEL)
        scores, parity = _measure(staged, modality, heldout)
        if modality.model_kind == "algan-image":
            # A share of the map's peak, not a logit: no tolerance follows from it.
            parity.differences["openvino fp32 saliency"] = write_explanation(
                staged / MODEL,
                data.train.float().cpu().contiguous().numpy(),
                modality.load(data.dataset.calibration),
                staged / EXPLAIN,
            )
        calibration = _calibrate(data, heldout, scores, request, note)
        golden = choose_golden(
            modality,
            network,
            calibration.threshold,
            margin=max(parity.tolerance.values()),
            count=state.config.golden_images,
        )
        write_golden(golden, staged)
        metrics = _metrics(heldout, scores, journal, note)
        report = staged / "report"
        write_table(report / CURVE, journal.curve, CURVE_COLUMNS)
        write_split(report / SPLIT, data.dataset, data.hashes)
        _write_scores(report / SCORES, heldout, scores, calibration)
        manifest = msgspec.structs.replace(
            _draft(modality),
            name=request.name or request.out.name,
            tolerance=parity.tolerance,
            calibration=calibration,
            provenance=_provenance(state, journal, data, metrics, parity),
        )
        write_training_report(
            report, staged / MODEL, manifest, state, journal, data, samples, scores, request.report_pictures
        )
        _pass_gate(Bundle(staged, manifest), modality)
        staged.chmod(0o755)
        return write_bundle(request.out, staged, manifest)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _draft(modality: Modality) -> Manifest:
    """A manifest that says what the graph is, and nothing yet of how well it does."""
    spec = modality.spec
    return Manifest(
        format_version=FORMAT_VERSION,
        name="",
        model_kind=modality.model_kind,
        input_spec=spec if isinstance(spec, InputSpec) else msgspec.UNSET,
        vector_spec=spec if isinstance(spec, VectorSpec) else msgspec.UNSET,
        tolerance={},
        files={},
    )


def _measure(staged: Path, modality: Modality, heldout: Heldout) -> tuple[Scores, Parity]:
    """Scores held-out samples by OpenVINO in fp32, as they will be served, and compares the runtimes.

    Where the modality limits the witnesses, only these are compared, and all keep the trainer's scores.
    """
    rows = spread(list(range(len(heldout.samples))), modality.witnesses or len(heldout.samples))
    inputs, expected = modality.load([heldout.samples[i] for i in rows]), heldout.scores[rows]
    served = _openvino_scores(staged, modality, inputs, "fp32")
    scores = served if modality.witnesses is None else heldout.scores
    differences = {"openvino fp32": float(np.abs(served - expected).max())}
    ort = _onnxruntime_scores(staged / MODEL, inputs)
    if ort is not None:
        differences["onnxruntime fp32"] = float(np.abs(ort - expected).max())
    scale = max(1.0, float(np.abs(heldout.scores).max()))
    for runtime, difference in differences.items():
        if not difference <= PARITY_SHARE * scale:
            raise ExportError(
                f"{runtime}: logits differ from PyTorch's by {difference:.3g} "
                f"(allowed {PARITY_SHARE * scale:.3g}); the bundle was not written; "
                "please report this with the versions of both libraries"
            )
    fp32 = max(FP32_MARGIN * max(differences.values()), FP32_SHARE * scale)
    if "bf16" not in modality.precisions:
        return scores, Parity(differences, {"fp32": fp32})
    bf16 = BF16_SHARE * max(float(np.ptp(heldout.scores)), scale)
    if _offers_bf16():
        halved = _openvino_scores(staged, modality, inputs, "bf16")
        differences["openvino bf16"] = float(np.abs(halved - expected).max())
        bf16 = BF16_MARGIN * differences["openvino bf16"]
    return scores, Parity(differences, {"fp32": fp32, "bf16": max(bf16, fp32)})


def _openvino_scores(
    staged: Path, modality: Modality, inputs: npt.NDArray[np.float32], precision: Literal["fp32", "bf16"]
) -> Scores:
    bundle = Bundle(staged, _draft(modality))
    engine = create(bundle, _engine_config(modality, precision))
    try:
        return -engine.infer(inputs).astype(np.float64)
    finally:
        engine.close()


def _engine_config(modality: Modality, precision: Literal["fp32", "bf16"] = "fp32") -> EngineConfig:
    """For few inputs that take long, small batches on one stream: an engine first runs every size."""
    threads = torch.get_num_threads()
    if modality.witnesses is None:
        return EngineConfig(precision=precision, threads=threads)
    return EngineConfig(precision=precision, threads=threads, streams=1, max_batch=2)


def _onnxruntime_scores(model: Path, inputs: npt.NDArray[np.float32]) -> Scores | None:
    """The same by ONNX Runtime, a second witness; None where it is not installed."""
    try:
        import onnxruntime
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
    for rule, best in journal.best.items():
        note(f"best by rule {rule}: epoch {best['epoch']:.0f}, {best['value']:.4f}")
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
            **data.modality.facts(),
        },
        "seed": state.config.seed,
        "config": msgspec.to_builtins(state.config),
        "epochs": state.epoch,
        "checkpoint": _checkpoint(state, journal, data),
        "metrics": metrics,
        "parity": parity.differences,
        "training_seconds": round(journal.seconds, 1),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
    }


def _checkpoint(state: State, journal: Journal, data: Data) -> dict[str, Any]:
    """Which checkpoint was exported, by which rule, and what the others would have taken."""
    rule = rule_for(state.config.selection, data.anomalous)
    epoch = journal.best[rule]["epoch"] if rule in journal.best else state.epoch
    return {"rule": rule, "epoch": epoch, "best": journal.best}


def _write_scores(path: Path, heldout: Heldout, scores: Scores, calibration: Calibration) -> None:
    p = p_values(calibration.good_scores, scores)
    rows = [
        {"path": s.path, "split": s.split, "kind": s.kind, "score": f"{score:.6f}", "p_value": f"{value:.6f}"}
        for s, score, value in zip(heldout.samples, scores, p, strict=True)
    ]
    write_table(path, rows, ["path", "split", "kind", "score", "p_value"])


def _pass_gate(bundle: Bundle, modality: Modality) -> None:
    engine = create(bundle, _engine_config(modality))
    try:
        check_golden(bundle, engine)
    finally:
        engine.close()
