"""`algan-stream bundle`: looks into model bundles."""

from __future__ import annotations

import msgspec
import typer
from rich.table import Table

from algan_stream.bundle import Quantization, read_bundle
from algan_stream.commands.options import BundleArgument, JsonOption, console
from algan_stream.types import Spec, VectorSpec

app = typer.Typer(help="Look into model bundles.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Look into model bundles."""


@app.command()
def show(bundle: BundleArgument, json_: JsonOption = False) -> None:
    """Check every file of a bundle and show its manifest."""
    opened = read_bundle(bundle)
    manifest = opened.manifest
    if json_:
        typer.echo(msgspec.json.encode(manifest))
        return
    table = Table(title=f"{manifest.name} ({opened.path.name})", show_header=False)
    calibration = manifest.calibration
    table.add_row("path", str(opened.path.resolve()))
    table.add_row("model", f"{manifest.model_kind}, SHA-256 {opened.model_sha256[:12]}…")
    table.add_row("input", _input(manifest.spec))
    if calibration is None:
        table.add_row("threshold", "none: run `algan-stream calibrate`, until then every verdict is unknown")
    else:
        table.add_row("threshold", f"{calibration.threshold:.6g} ({calibration.method})")
        if calibration.false_reject_rate is not None and calibration.false_reject_rate_ci95 is not None:
            low, high = calibration.false_reject_rate_ci95
            table.add_row(
                "false rejects",
                f"≤ {calibration.false_reject_rate:.4g} expected, 95 % between {low:.4g} and {high:.4g} "
                f"({len(calibration.good_scores)} good images)",
            )
    table.add_row("int8", _quantization(manifest.quantization))
    for key, value in manifest.provenance.items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        table.add_row(key, text if len(text) <= 300 else text[:300] + "…")
    for name, entry in manifest.files.items():
        table.add_row(name, f"{entry.size_bytes} bytes, SHA-256 {entry.sha256[:12]}…")
    console().print(table)


def _input(spec: Spec) -> str:
    if isinstance(spec, VectorSpec):
        return f"vectors of {spec.features} features" + (", by name" if spec.names else "")
    return f"{spec.channels} × {spec.height_px} × {spec.width_px} px, downscale {spec.downscale}"


def _quantization(decision: Quantization | None) -> str:
    if decision is None:
        return "not tried: `algan-stream quantize`"
    found = f"{decision.date[:10]}, {decision.tried} tried"
    if decision.auroc_before is not None and decision.auroc_after is not None:
        found += f", AUROC {decision.auroc_before:.4f} → {decision.auroc_after:.4f}"
    if decision.flips is not None:
        found += f", {decision.flips} of {decision.compared} verdicts flip, {decision.golden_flips} golden"
    found += f", largest score difference {decision.largest_difference:.3g}"
    kept = ", ".join(decision.kept_layers) or "no layer"
    if not decision.accepted:
        return f"refused ({found}): {decision.reason}"
    return f"accepted ({found}); {decision.activations} activations; {kept} of {decision.layers} in fp32"
