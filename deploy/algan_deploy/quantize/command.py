"""`algan-stream quantize`: an int8 graph for a bundle, if one is good enough."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from algan_deploy.quantize.errors import QuantizationError
from algan_deploy.quantize.graph import (
    Activations,
    calibration_of,
    layer_names,
    standardised_layers,
    write_int8,
)
from algan_deploy.quantize.measuring import int8_layers, score
from algan_deploy.quantize.samples import Samples, read_samples
from algan_deploy.quantize.search import Quantiser, Trial, closest, search
from algan_stream.bundle import DEMO_NAME, QUANTIZED, Bundle, Quantization, read_bundle, replace_quantized
from algan_stream.commands.options import BundleArgument, JsonOption
from algan_stream.errors import BundleError, InputError

log = logging.getLogger(__name__)

#: The tolerance in int8 is this many times the largest difference that was measured on golden inputs, and
#: the tolerance in fp32 on top: another processor rounds a value at the edge of a step to the other side.
MARGIN = 2.0
#: With more than this share of the "good" images rejected, they are hardly the ones that were meant.
_MOST_REJECTED = 0.2
_TOOLS = ("nncf", "onnx", "onnxruntime", "openvino")


def quantize(
    bundle: BundleArgument,
    good: Annotated[
        Path,
        typer.Option(help="Folder of good images, 16 or, better, 100 and more; of vectors: tables."),
    ],
    labelled: Annotated[
        Path | None,
        typer.Option(help="Folder of `good/` and of other subfolders with defects; the AUROC then decides."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an int8 graph that the bundle has.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Give a bundle an int8 graph for all engines, if it keeps AUROC and golden verdicts.

    Ends with 9, and the bundle without an int8 graph, if none that was tried is good enough.
    """
    if bundle == DEMO_NAME:
        raise BundleError("the shipped demo bundle is not changed; copy its directory and quantise the copy")
    opened = read_bundle(bundle)
    if QUANTIZED in opened.manifest.files and not force:
        raise BundleError(f"{opened.path}: has an int8 graph already; replace it by --force")

    def note(trial: Trial) -> None:
        typer.echo(_told(trial), err=True)

    changed, decision = quantize_bundle(opened, good, labelled, note)
    if json_:
        typer.echo(msgspec.json.encode(decision))
    if not decision.accepted:
        raise QuantizationError(
            f"{bundle}: int8 was refused after {decision.tried} attempts: the closest {decision.reason}; "
            "the bundle stays in fp32, and its manifest says so"
        )
    if not json_:
        running, of = int8_layers(changed.model_for("int8"))
        typer.echo(
            f"{bundle}: int8 accepted; {decision.layers - len(decision.kept_layers)} of {decision.layers} "
            f"layers are quantised, OpenVINO runs {running} of {of} in int8 here. "
            + ("" if labelled else "No labels: judged by verdicts alone. ")
            + f"Tolerance {changed.manifest.tolerance['int8']:.3g}"
        )


def quantize_bundle(
    bundle: Bundle,
    good: Path,
    labelled: Path | None,
    note: Callable[[Trial], None],
    quantiser: Callable[[Bundle, Samples], Quantiser] | None = None,
) -> tuple[Bundle, Quantization]:
    """Tries int8 and stores the decision, with the graph if there is one, in the bundle.

    Args:
        bundle: To be quantised.
        good: Folder of good images, or tables.
        labelled: Folder of `good/` and of defects; None: verdicts alone decide.
        note: Is told of each attempt.
        quantiser: How graphs are made; by default with NNCF.

    Raises:
        InputError: The images cannot be used, or there is nothing to judge by.
        PluginError: NNCF is not installed.
        QuantizationError: NNCF cannot quantise the model at all.
        BundleError: The decision cannot be written.
    """
    calibration = bundle.manifest.calibration
    if calibration is None and labelled is None:
        raise InputError(
            f"{bundle.path}: has no threshold and --labelled is not given, so int8 cannot be judged; set a "
            "threshold by `algan-stream calibrate` first"
        )
    layers, fixed = layer_names(bundle.model_path), standardised_layers(bundle.model_path)
    with tempfile.TemporaryDirectory(prefix="algan-int8-") as folder:
        scratch = Path(folder)
        samples = read_samples(bundle, good, labelled, scratch)
        if calibration is not None:
            rejected = float((score(bundle.model_path, samples).good > calibration.threshold).mean())
            if rejected > _MOST_REJECTED:
                log.warning(
                    "%.0f %% of the images in %s are rejected by the model itself: are these good parts, "
                    "as it was trained on? int8 is fitted to them",
                    100 * rejected,
                    good,
                )
        trials = search(
            bundle.model_path,
            samples,
            None if calibration is None else calibration.threshold,
            [name for name in layers if name not in fixed],
            (quantiser or _by_nncf)(bundle, samples),
            scratch,
            note,
        )
        accepted = not trials[-1].faults
        best = trials[-1] if accepted else closest(trials)
        decision = _decision(best, samples, len(layers), fixed, len(trials))
        graph = best.path.read_bytes() if accepted else None
    return replace_quantized(bundle, graph, decision, _tolerance(bundle, best)), decision


def _by_nncf(bundle: Bundle, samples: Samples) -> Quantiser:
    shown, fixed = calibration_of(samples.good), standardised_layers(bundle.model_path)

    def write(path: Path, activations: Activations, kept: tuple[str, ...]) -> None:
        write_int8(bundle.model_path, shown, activations, (*fixed, *kept), path)

    return write


def _tolerance(bundle: Bundle, trial: Trial) -> float:
    measured = max(trial.found.golden_differences.values())
    return MARGIN * measured + bundle.manifest.tolerance.get("fp32", 0.0)


def _decision(
    trial: Trial, samples: Samples, layers: int, fixed: tuple[str, ...], tried: int
) -> Quantization:
    found = trial.found
    return Quantization(
        accepted=not trial.faults,
        reason=", and ".join(trial.faults),
        activations=trial.activations,
        layers=layers,
        kept_layers=(*fixed, *trial.kept),
        calibration_images=len(calibration_of(samples.good)),
        compared=found.compared,
        auroc_before=found.auroc_before,
        auroc_after=found.auroc_after,
        flips=found.flips,
        golden_flips=found.golden_flips,
        largest_difference=found.largest_difference,
        golden_differences=found.golden_differences,
        tried=tried,
        tool_versions={name: version(name) for name in _TOOLS},
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _told(trial: Trial) -> str:
    found = trial.found
    kept = ", ".join(trial.kept[:4]) + (f" and {len(trial.kept) - 4} more" if len(trial.kept) > 4 else "")
    auroc = ""
    if found.auroc_before is not None and found.auroc_after is not None:
        auroc = f"AUROC {found.auroc_before:.4f} → {found.auroc_after:.4f}, "
    flips = "no threshold" if found.flips is None else f"{found.flips} of {found.compared} verdicts flip"
    return (
        f"{trial.activations}, in fp32: {kept or 'none'}: {auroc}{flips}, largest difference "
        f"{found.largest_difference:.3g} (good ones {found.good_error:.3g} RMS, golden "
        f"{max(found.golden_differences.values()):.3g}): "
        + (", and ".join(trial.faults) if trial.faults else "accepted")
    )
