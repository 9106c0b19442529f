"""A bundle's `manifest.json`, typed: reading it, writing it, and checking the files that it lists."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import msgspec

from algan_stream import whole
from algan_stream.calibration import Calibration, calibrate
from algan_stream.errors import BundleError, CalibrationError, ConfigError
from algan_stream.types import InputSpec, Spec, VectorSpec

#: Raised when the layout changes in a way that older readers would misread.
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
#: The bundle that ships with the package may be named instead of a path.
DEMO_NAME = "demo"


#: What the ONNX graph of a bundle computes.
ModelKind: TypeAlias = Literal["algan-image", "algan-feature", "algan-vector", "wrapped"]


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and SHA-256 of one file of the bundle."""

    sha256: str
    size_bytes: int


class Quantization(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `algan-stream quantize` found: whether int8 may serve, and the numbers it was decided on.

    Attributes:
        accepted: The bundle holds an int8 graph. If not, none of those tried was good enough; `reason` says
            why, and the other fields tell of the one that came closest.
        reason: Why it was refused; "" where it was accepted.
        precision: Of the graph.
        activations: `symmetric`: all zero points are 0, as TensorRT wants it; `asymmetric`: finer for
            activations of one sign, for OpenVINO and ONNX Runtime only.
        layers: Layers with weights in the graph.
        kept_layers: Those of them that stay in fp32, by the names of their nodes.
        calibration_images: Good images (or vectors) that the ranges of activations come from.
        compared: Good, labelled and golden images that were scored before and after.
        auroc_before: AUROC of the fp32 graph on the labelled images; None without any.
        auroc_after: The same of the int8 graph.
        flips: How many of `compared` got another verdict; None where the bundle had no threshold.
        golden_flips: The same, of golden images only, on the runtime where they were most.
        largest_difference: Largest |score difference| of all compared.
        golden_differences: Largest |logit − golden logit| by runtime; the tolerance in int8 comes from it.
        tried: Graphs that were made and measured.
        tool_versions: Of the libraries that made and measured it.
        date: ISO 8601, UTC.
    """

    accepted: bool
    reason: str = ""
    precision: Literal["int8"] = "int8"
    activations: Literal["symmetric", "asymmetric"]
    layers: int
    kept_layers: tuple[str, ...]
    calibration_images: int
    compared: int
    auroc_before: float | None
    auroc_after: float | None
    flips: int | None
    golden_flips: int | None
    largest_difference: float
    golden_differences: dict[str, float]
    tried: int
    tool_versions: dict[str, str]
    date: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`manifest.json`, typed.

    Attributes:
        format_version: Layout of the bundle; see `FORMAT_VERSION`.
        name: Name given at training.
        model_kind: What the ONNX graph computes: the discriminator on images, on features that its own
            backbone takes from images, or on vectors; or the score of somebody else's model on images.
        input_spec: How pixels become its input; not with vectors.
        vector_spec: What its vectors are; only with vectors.
        score: How its output becomes an anomaly score (paper, Fig. 5).
        tolerance: Largest |logit − golden logit| allowed, by precision of the engine.
        calibration: Scores of good images and the threshold, or None before calibration.
        quantization: What was decided on int8, and by which numbers; None where nobody has tried.
        provenance: Data hash, seed, training configuration, library versions, metrics.
        files: Every file besides the manifest, by POSIX path relative to the bundle.
    """

    format_version: int
    name: str
    model_kind: ModelKind
    input_spec: InputSpec | msgspec.UnsetType = msgspec.UNSET
    vector_spec: VectorSpec | msgspec.UnsetType = msgspec.UNSET
    score: Literal["negative_logit"] = "negative_logit"
    tolerance: dict[str, float]
    calibration: Calibration | None = None
    quantization: Quantization | None = None
    provenance: dict[str, Any] = {}
    files: dict[str, FileEntry]

    def __post_init__(self) -> None:
        specs = {"input_spec": self.input_spec, "vector_spec": self.vector_spec}
        wanted = "vector_spec" if self.model_kind == "algan-vector" else "input_spec"
        if [name for name, spec in specs.items() if spec is not msgspec.UNSET] != [wanted]:
            raise ConfigError(f"manifest: {self.model_kind} needs {wanted}, and no other spec")

    @property
    def spec(self) -> Spec:
        """Whichever spec it has."""
        return self.image_spec if self.vector_spec is msgspec.UNSET else self.vector_spec

    @property
    def image_spec(self) -> InputSpec:
        """How pixels become the network's input.

        Raises:
            BundleError: The bundle is one for vectors.
        """
        if self.input_spec is msgspec.UNSET:
            raise BundleError(f"bundle {self.name}: is for vectors, not for images")
        return self.input_spec


def read_manifest(directory: Path) -> Manifest:
    """Reads and checks `manifest.json`, not the files that it lists.

    Raises:
        BundleError: It is missing, no manifest, in a newer format, or contradicts itself.
    """
    path = directory / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{directory}: is not a model bundle, {MANIFEST} cannot be read ({error.strerror}); "
            f"expected the directory that `algan-stream train --out` wrote, or `{DEMO_NAME}`"
        ) from error
    try:
        version = msgspec.json.decode(raw, type=dict[str, Any]).get("format_version")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: is not valid JSON: {error}; export the bundle again") from error
    if not isinstance(version, int) or version < 1:
        raise BundleError(f"{path}: format_version: expected a whole number from 1, got {version!r}")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version {version} is newer than {FORMAT_VERSION}, the newest that this "
            "version of algan-stream reads; upgrade algan-stream"
        )
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, ConfigError) as error:
        raise BundleError(f"{path}: {error}") from error
    _check_threshold(path, manifest.calibration)
    return manifest


def _check_threshold(path: Path, stated: Calibration | None) -> None:
    """The manifest has no hash of its own, but a conformal threshold follows from its good scores."""
    if stated is None or stated.method != "conformal" or stated.false_reject_rate is None:
        return
    try:
        expected = calibrate(stated.good_scores, stated.false_reject_rate).threshold
    except CalibrationError as error:
        raise BundleError(f"{path}: calibration: {error}") from error
    if stated.threshold != expected:
        raise BundleError(
            f"{path}: calibration.threshold: expected {expected:.6g} from its good scores and rate, got "
            f"{stated.threshold:.6g}; set thresholds by `algan-stream calibrate`"
        )


def check_file(directory: Path, name: str, entry: FileEntry) -> None:
    """Compares one file of a bundle with what the manifest says of it.

    Raises:
        BundleError: It is missing, altered, or not in the bundle at all.
    """
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise BundleError(f"{directory / MANIFEST}: files: {name!r} leads out of the bundle")
    path = directory / name
    if not path.is_file():
        raise BundleError(f"{path}: is missing from the bundle; copy the whole directory again")
    found = file_entry(path)
    if found != entry:
        raise BundleError(
            f"{path}: has been altered: expected {entry.size_bytes} bytes with SHA-256 {entry.sha256[:12]}…, "
            f"got {found.size_bytes} bytes with {found.sha256[:12]}…; copy the bundle again"
        )


def file_entry(path: Path) -> FileEntry:
    """What the manifest says of a file."""
    data = path.read_bytes()
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes `manifest.json`, atomically.

    Raises:
        BundleError: It cannot be written; one that stood there stands as before.
    """
    text = msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)
    write_whole(directory / MANIFEST, text + b"\n")


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file of a bundle, atomically.

    Raises:
        BundleError: It cannot be written; one that stood there stands as before.
    """
    try:
        whole.write_whole(path, data)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written: {error.strerror}") from error
