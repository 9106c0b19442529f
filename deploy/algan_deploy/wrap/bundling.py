"""From somebody else's model to a bundle: read → wrap → compare → calibrate → golden images → gate."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from algan_deploy.wrap import measure, provenance
from algan_deploy.wrap.golden import choose_rows, write_golden
from algan_deploy.wrap.graph import Wish, wrap_graph
from algan_deploy.wrap.runtimes import Runtime, Scores, open_runtime
from algan_deploy.wrap.source import Source, open_source
from algan_deploy.wrap.spec import InputRange, make_spec
from algan_stream.bundle import (
    FORMAT_VERSION,
    MANIFEST,
    MODEL,
    Bundle,
    Golden,
    Manifest,
    check_target,
    write_bundle,
)
from algan_stream.calibration import Calibration, calibrate, images_needed
from algan_stream.engines.gate import check_golden
from algan_stream.engines.openvino import Config as EngineConfig
from algan_stream.engines.openvino import create
from algan_stream.errors import BundleError, EngineError
from algan_stream.images import list_images, read_image
from algan_stream.preprocess import preprocess
from algan_stream.types import InputSpec

#: Most images that the model as it came is compared on, of each kind.
_COMPARED = 32


@dataclass(frozen=True)
class Request:
    """What `algan-stream bundle wrap` was asked for.

    Attributes:
        model: ONNX file.
        out: Where the bundle shall stand.
        good: Folder of good images that the model was not trained on.
        defective: Folder of defective ones, for golden images and an AUROC; may be None.
        spec_file: Fields of `InputSpec`; may be None.
        input_range: Values that the model takes, instead of mean and std in that file.
        score_output: Name of the score, None where there can be no doubt.
        wish: Sign of the score, order of colours.
        constants: Numbers for inputs besides the image.
        false_reject_rate: Sets the threshold.
        name: Of the bundle; by default the model's.
        overwrite: A bundle that stands at `out` may be replaced.
    """

    model: Path
    out: Path
    good: Path
    defective: Path | None = None
    spec_file: Path | None = None
    input_range: InputRange | None = None
    score_output: str | None = None
    wish: Wish = field(default_factory=Wish)
    constants: Mapping[str, float] = field(default_factory=dict)
    false_reject_rate: float = 0.01
    name: str = ""
    overwrite: bool = False


@dataclass(frozen=True)
class _Images:
    """Files, and which of them are defective."""

    paths: list[Path]
    anomalous: npt.NDArray[np.bool_]


def wrap(request: Request, note: Callable[[str], None]) -> Bundle:
    """Makes the bundle, all at once or not at all.

    Args:
        request: What to do.
        note: Called with lines for the user.

    Raises:
        BundleError: The model cannot be wrapped; the message says why and what helps.
        ConfigError: The input spec is wrong.
        InputError: A folder or an image cannot be used.
    """
    check_target(request.out)
    if (request.out / MANIFEST).is_file() and not request.overwrite:
        raise BundleError(f"{request.out}: is a bundle already; name another place, or say --overwrite")
    source = open_source(request.model, request.score_output, request.constants)
    spec = make_spec(
        request.spec_file,
        request.input_range,
        planes=source.planes,
        height_px=source.height_px,
        width_px=source.width_px,
    )
    images = _list(request)
    note(f"{request.model.name}: {source.input_name} → {source.output_name}, opset {source.opset}")
    request.out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{request.out.name}-new-", dir=request.out.parent))
    try:
        manifest = _fill(staged, request, source, spec, images, note)
        staged.chmod(0o755)
        return write_bundle(request.out, staged, manifest)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _fill(
    staged: Path,
    request: Request,
    source: Source,
    spec: InputSpec,
    images: _Images,
    note: Callable[[str], None],
) -> Manifest:
    """Writes the bundle's files and returns its manifest."""
    import onnx

    rewritten = _write_graph(staged / MODEL, source, spec, request.wish)
    if rewritten:
        note(f"exported for {source.batch} at a time; rewritten for any number: {', '.join(rewritten)}")
    draft = Manifest(
        format_version=FORMAT_VERSION,
        name=request.name or request.model.stem,
        model_kind="wrapped",
        input_spec=spec,
        tolerance={},
        files={},
    )
    original, reference = open_runtime(source.path), open_runtime(staged / MODEL)
    compared = _spread(images)
    photos = np.stack([measure.resized(images.paths[row], spec) for row in compared])
    inputs = measure.inputs_of(photos, spec)
    scores = _sign(measure.original_scores(source, original, inputs, request.wish), request.wish)
    batches = _check_batches(source, original, reference, inputs, scores, spec, request.wish)
    logits, parity = measure.measure(Bundle(staged, draft), source, reference, inputs, scores)
    note(f"largest score difference from {original.name} on the model as it came: {_worst(parity):.3g}")
    all_scores = _score_files(Bundle(staged, draft), images.paths, spec)
    calibration = _calibrate(all_scores[~images.anomalous], request.false_reject_rate, note)
    margin = max(parity.tolerance.values())
    threshold = calibration.threshold if calibration else None
    rows = choose_rows(-logits.astype(np.float64), images.anomalous[compared], threshold, margin)
    write_golden(Golden(photos[rows], inputs[rows], logits[rows]), staged)
    manifest = msgspec.structs.replace(
        draft,
        tolerance=parity.tolerance,
        calibration=calibration,
        provenance={
            "source": provenance.about(source, request.wish, rewritten),
            "parity": {**parity.differences, "in batches": batches},
            "images": provenance.about_images(images.paths, images.anomalous, len(compared), all_scores),
            "versions": provenance.versions(original, onnx.__version__),
        },
    )
    _pass_gate(Bundle(staged, manifest))
    return manifest


def _write_graph(path: Path, source: Source, spec: InputSpec, wish: Wish) -> list[str]:
    import onnx

    try:
        model, rewritten = wrap_graph(source, spec, wish)
        onnx.checker.check_model(model)
        onnx.save(model, path)
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(f"{source.path}: cannot be rewritten: {error}") from error
    return rewritten


def _check_batches(
    source: Source,
    original: Runtime,
    reference: Runtime,
    inputs: measure.Floats,
    scores: Scores,
    spec: InputSpec,
    wish: Wish,
) -> float:
    """Also on made-up images: equal scores of all photographs would prove nothing."""
    extra = measure.inputs_of(measure.witnesses(spec), spec)
    more = _sign(measure.original_scores(source, original, extra, wish), wish)
    # The least alike first, so that even two at once differ.
    every, values = np.concatenate([extra, inputs[:3]]), np.concatenate([more, scores[:3]])
    if np.ptp(values) <= 1e-6 * measure.scale_of(values):
        raise BundleError(
            f"{source.path}: gives the score {values[0]:.6g} to every image, noise included; is it trained, "
            "and are the input range and --score-output right?"
        )
    order = np.argsort(values)
    order = np.concatenate([order[:1], order[:0:-1]])  # lowest, then from the highest down
    return measure.check_batches(source, reference, every[order], values[order])


def _list(request: Request) -> _Images:
    good = list_images(request.good)
    bad = list_images(request.defective) if request.defective else []
    return _Images(good + bad, np.array([False] * len(good) + [True] * len(bad)))


def _spread(images: _Images) -> npt.NDArray[np.intp]:
    """Rows of at most `_COMPARED` images of each kind, evenly spaced."""
    parts = []
    for kind in (False, True):
        rows = np.flatnonzero(images.anomalous == kind)
        if len(rows) > _COMPARED:
            rows = rows[np.linspace(0, len(rows) - 1, _COMPARED).round().astype(int)]
        parts.append(rows)
    return np.concatenate(parts)


def _sign(scores: Scores, wish: Wish) -> Scores:
    return -scores if wish.higher_is_normal else scores


def _worst(parity: measure.Parity) -> float:
    return max(value for name, value in parity.differences.items() if "bf16" not in name)


def _score_files(bundle: Bundle, paths: list[Path], spec: InputSpec) -> Scores:
    """Scores whole image files as the service will: (N,) higher is more anomalous."""
    try:
        engine = create(bundle, EngineConfig(streams=1, max_batch=2))
    except EngineError as error:
        raise BundleError(f"the wrapped model cannot be served: {error}") from error
    try:
        found = []
        for path in paths:
            image, pixel_format = read_image(path, spec.white_level)
            logit = engine.infer(preprocess(image, spec, pixel_format=pixel_format))[0]
            if not np.isfinite(logit):
                raise BundleError(
                    f"{path}: the wrapped model scores it as {-logit}; expected a finite number"
                )
            found.append(-float(logit))
        return np.array(found)
    finally:
        engine.close()


def _calibrate(good: Scores, rate: float, note: Callable[[str], None]) -> Calibration | None:
    needed = images_needed(rate)
    if len(good) < needed:
        note(
            f"not calibrated, every verdict will be unknown: a false-reject rate of {rate:g} needs {needed} "
            f"good images, got {len(good)}; run `algan-stream calibrate` with more, or ask for "
            f"{1 / (len(good) + 1):.4g} or more"
        )
        return None
    found = calibrate(good, rate)
    tied = int(np.count_nonzero(good == found.threshold))
    if tied > 1:
        note(
            f"warning: {tied} of {len(good)} good images have the very score of the threshold, "
            f"{found.threshold:.6g}; the model seems to clip its scores: export it without normalising them"
        )
    low, high = found.false_reject_rate_ci95 or (0.0, 1.0)
    note(
        f"calibration: {len(good)} good images, false-reject rate {rate:.4g} (95 % interval {low:.3g} to "
        f"{high:.3g}), threshold {found.threshold:.6g}"
    )
    return found


def _pass_gate(bundle: Bundle) -> None:
    engine = create(bundle, EngineConfig(streams=1, max_batch=2))
    try:
        check_golden(bundle, engine)
    finally:
        engine.close()
